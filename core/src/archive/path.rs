//! Names that mean the same file, inside the plugin's folder, on every system.

use std::collections::BTreeMap;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::ArchiveError;
use super::error::shown;

/// Longest name in bytes. Leaves room for the host's own folder below Windows' 260.
pub const NAME_MAX_BYTES: usize = 200;
/// Longest segment in bytes: eCryptfs keeps 143, every other file system more.
pub const SEGMENT_MAX_BYTES: usize = 140;
/// Most segments in a name.
pub const DEPTH_MAX: usize = 16;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// Not UTF-8, or not marked so.
    #[error("it is not UTF-8, or not marked as UTF-8")]
    NotUtf8,
    /// Not in Unicode's composed form, so that a second spelling exists.
    #[error("it is not in Unicode normalisation form C")]
    NotComposed,
    /// Longer or deeper than the limits.
    #[error(
        "a name has at most {NAME_MAX_BYTES} bytes, {SEGMENT_MAX_BYTES} between slashes, and {DEPTH_MAX} levels"
    )]
    TooLong,
    /// Nothing before, between or behind slashes; also a leading slash.
    #[error("it is absolute or has an empty part")]
    EmptySegment,
    /// `.` or `..`.
    #[error("it contains . or .. as a part")]
    DotSegment,
    /// A character that some system forbids or reads as something else.
    #[error("it contains the character {0:?}")]
    Character(char),
    /// Windows drops a dot or a space at the end, so two names become one.
    #[error("a part starts with a space, or ends with a dot or a space")]
    Edge,
    /// A device on Windows, with any extension.
    #[error("{0} is a device on Windows")]
    Device(String),
}

/// Checks one file name.
///
/// # Errors
/// The first broken rule.
pub fn check(name: &str) -> Result<(), PathProblem> {
    if name.len() > NAME_MAX_BYTES || name.split('/').count() > DEPTH_MAX {
        return Err(PathProblem::TooLong);
    }
    check_segments(name)?;
    if !name.is_ascii() {
        if !is_nfc(name) {
            return Err(PathProblem::NotComposed);
        }
        // U+2025 folds to "..", U+FF0F to "/": what some system may see obeys the rules too.
        check_segments(&fold(name))?;
    }
    Ok(())
}

fn check_segments(name: &str) -> Result<(), PathProblem> {
    if let Some(character) = name.chars().find(|&c| forbidden(c)) {
        return Err(PathProblem::Character(character));
    }
    for segment in name.split('/') {
        if segment.is_empty() {
            return Err(PathProblem::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(PathProblem::DotSegment);
        }
        if segment.len() > SEGMENT_MAX_BYTES {
            return Err(PathProblem::TooLong);
        }
        if segment.starts_with(' ') || segment.ends_with(['.', ' ']) {
            return Err(PathProblem::Edge);
        }
        // Windows looks at the part before the first dot, less trailing spaces.
        let stem = segment.split('.').next().unwrap_or(segment).trim_end();
        if is_device(stem) {
            return Err(PathProblem::Device(stem.to_owned()));
        }
    }
    Ok(())
}

/// Control characters, what Windows forbids, what is invisible or turns writing direction.
fn forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{10ffff}')
}

fn is_device(stem: &str) -> bool {
    let upper = || stem.chars().flat_map(char::to_uppercase);
    let named = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"];
    let numbered = ["COM", "LPT"];
    let mut number = upper().skip(3);
    named.iter().any(|device| upper().eq(device.chars()))
        || (numbered.iter().any(|device| upper().take(3).eq(device.chars()))
            && matches!((number.next(), number.next()), (Some('0'..='9' | '¹' | '²' | '³'), None)))
}

/// What the most forgetful file system keeps of a name: compatibility forms and case folded.
/// The standard library has no full case folding; upper then lower case covers it (ß and SS,
/// the three sigmas, the Kelvin sign) and errs towards "the same".
fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

/// Names seen so far, with the folders that they imply.
#[derive(Default)]
pub(super) struct NameSet<'a> {
    seen: BTreeMap<String, Seen<'a>>,
}

#[derive(Clone, Copy)]
enum Seen<'a> {
    File(&'a str),
    Folder(&'a str),
}

impl<'a> NameSet<'a> {
    /// Adds a checked name.
    pub(super) fn insert(&mut self, name: &'a str) -> Result<(), ArchiveError> {
        let collision = |other: &str| ArchiveError::Collision {
            name: shown(name.as_bytes()),
            other: shown(other.as_bytes()),
        };
        for (slash, _) in name.match_indices('/') {
            let folder = &name[..slash];
            match *self.seen.entry(fold(folder)).or_insert(Seen::Folder(folder)) {
                Seen::Folder(other) if other == folder => {}
                Seen::Folder(other) => return Err(collision(other)),
                Seen::File(other) => {
                    return Err(ArchiveError::FileAndFolder { name: shown(other.as_bytes()) });
                }
            }
        }
        match self.seen.insert(fold(name), Seen::File(name)) {
            None => Ok(()),
            Some(Seen::File(other)) => Err(collision(other)),
            Some(Seen::Folder(_)) => {
                Err(ArchiveError::FileAndFolder { name: shown(name.as_bytes()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in [
            "plugin.toml",
            "lib/plugin.so",
            "assets/Bild grün.png",
            "a.b.c",
            ".hidden",
            "assets/日本語.md",
            "comet.txt",
            "com10",
            "console",
            "a/b/c/d/e/f",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn each_rule() {
        use PathProblem::*;
        for (name, problem) in [
            ("/etc/passwd", EmptySegment),
            ("", EmptySegment),
            ("a//b", EmptySegment),
            ("a/", EmptySegment),
            ("../a", DotSegment),
            ("a/../b", DotSegment),
            ("./a", DotSegment),
            ("C:/a", Character(':')),
            ("a\\b", Character('\\')),
            ("a\0b", Character('\0')),
            ("a\nb", Character('\n')),
            ("a\u{7f}", Character('\u{7f}')),
            ("a\u{85}", Character('\u{85}')),
            ("a\u{202e}gnp.exe", Character('\u{202e}')),
            ("a\u{200b}b", Character('\u{200b}')),
            ("a?", Character('?')),
            ("a.", Edge),
            ("a ", Edge),
            ("a /b", Edge),
            (" a", Edge),
            ("NUL", Device("NUL".into())),
            ("lib/aux.h", Device("aux".into())),
            ("com1.tar.gz", Device("com1".into())),
            ("nul .txt", Device("nul".into())),
            ("com¹", Device("com¹".into())),
            ("e\u{301}", NotComposed),
            ("a/\u{2025}/b", DotSegment),
            ("a/\u{ff0e}\u{ff0e}/b", DotSegment),
            ("\u{ff0f}etc", EmptySegment),
            ("c\u{ff1a}", Character(':')),
        ] {
            assert_eq!(check(name), Err(problem), "{name:?}");
        }
        assert_eq!(check(&"a".repeat(141)), Err(TooLong));
        assert_eq!(check(&["abcdefgh"; 23].join("/")), Err(TooLong));
        assert_eq!(check(&["a"; 17].join("/")), Err(TooLong));
        assert_eq!(check(&["a"; 16].join("/")), Ok(()));
    }

    #[test]
    fn collisions() {
        let insert = |names: &[&'static str]| {
            let mut set = NameSet::default();
            names.iter().try_for_each(|name| set.insert(name))
        };
        assert_eq!(insert(&["a/b", "a/c", "b"]), Ok(()));
        for names in [
            ["a", "a"],
            ["README", "readme"],
            ["Lib/a", "lib/b"],
            ["straße", "STRASSE"],
            ["ﬁle", "file"],
            ["Σ", "ς"],
            ["é", "É"],
            ["Å", "\u{212b}"],
        ] {
            assert!(matches!(insert(&names), Err(ArchiveError::Collision { .. })), "{names:?}");
        }
        for names in [["a", "a/b"], ["a/b", "a"], ["A/b", "a"], ["x/y", "x/y/z"]] {
            assert!(matches!(insert(&names), Err(ArchiveError::FileAndFolder { .. })), "{names:?}");
        }
    }
}
