//! The list of files that a release statement binds for each build.

use serde::{Deserialize, Serialize};

use super::path;
use crate::digest::Digest;

/// First line of [`FileList::text`].
const HEADER: &str = "modunest-file-list/1\n";
/// Bytes of a line without its name: a digest, a size of at most 20 digits, a flag, spaces.
const LINE_BYTES: usize = 64 + 20 + 1 + 4;

/// What a file in an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Relative path with `/` between segments.
    pub name: String,
    /// Unpacked size in bytes.
    pub size_bytes: u64,
    /// Whether the file may be executed.
    pub executable: bool,
    /// SHA-256 of the unpacked contents.
    pub sha256: Digest,
}

/// All files of an archive, sorted by the bytes of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileList {
    files: Vec<FileRecord>,
}

/// A text is not one that [`FileList::text`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the file list is not as a file list is written")]
pub struct FileListError {
    /// The first wrong line, from 1.
    pub line: usize,
}

impl FileList {
    /// A list of these files, in its own order.
    pub fn new(mut files: Vec<FileRecord>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        FileList { files }
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[FileRecord] {
        &self.files
    }

    /// The file with exactly this name.
    pub fn get(&self, name: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(at)
    }

    /// Sum of the unpacked sizes in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// The list's canonical text: a header, then one line a file in the order of the names'
    /// bytes:
    ///
    /// ```text
    /// modunest-file-list/1
    /// <64 hexadecimal digits> <size in decimal> <x or -> <name>\n
    /// ```
    ///
    /// Names have no control characters (the gate refuses them), so lines cannot be forged.
    /// The text depends on contents, names and execute bits alone: not on compression, order
    /// or times.
    pub fn text(&self) -> String {
        let names: usize = self.files.iter().map(|file| file.name.len() + LINE_BYTES).sum();
        let mut text = String::with_capacity(HEADER.len() + names);
        text.push_str(HEADER);
        for file in &self.files {
            let size = file.size_bytes.to_string();
            let flag = if file.executable { " x " } else { " - " };
            file.sha256.push_hex(&mut text);
            for part in [" ", &size, flag, &file.name, "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// SHA-256 of [`FileList::text`]: what a release statement names.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// Reads [`FileList::text`], and nothing that is spelled otherwise.
    ///
    /// # Errors
    /// [`FileListError`], with the first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, FileListError> {
        let wrong = |line| FileListError { line };
        let text = std::str::from_utf8(text).map_err(|_| wrong(1))?;
        let lines = text.strip_prefix(HEADER).ok_or_else(|| wrong(1))?;
        let mut files: Vec<FileRecord> = Vec::new();
        for (number, line) in (2..).zip(lines.split_inclusive('\n')) {
            let record = parse_line(line).filter(|record| {
                files.last().is_none_or(|last: &FileRecord| last.name < record.name)
            });
            files.push(record.ok_or_else(|| wrong(number))?);
        }
        Ok(FileList { files })
    }
}

fn parse_line(line: &str) -> Option<FileRecord> {
    let mut parts = line.strip_suffix('\n')?.splitn(4, ' ');
    let sha256 = parts.next()?.parse().ok()?;
    let size = parts.next()?;
    let size_bytes: u64 = size.parse().ok()?;
    let executable = match parts.next()? {
        "x" => true,
        "-" => false,
        _ => return None,
    };
    let name = parts.next().filter(|name| path::check(name).is_ok())?.to_owned();
    // A sign or leading zeros would be a second spelling.
    (size_bytes.to_string() == size).then_some(FileRecord { name, size_bytes, executable, sha256 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(files: Vec<(String, u64, bool)>) -> FileList {
        let record = |(name, size_bytes, executable): (String, u64, bool)| FileRecord {
            sha256: Digest::of(name.as_bytes()),
            name,
            size_bytes,
            executable,
        };
        let mut files: Vec<FileRecord> = files.into_iter().map(record).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        FileList::new(files)
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(
            files in prop::collection::vec(("[a-m]{1,5}( [a-m]{1,5})?", any::<u64>(), any::<bool>()), 0..9),
        ) {
            let list = list(files);
            prop_assert_eq!(FileList::parse(list.text().as_bytes()), Ok(list));
        }

        #[test]
        fn accepts_one_spelling(at in 0usize..300, byte in any::<u8>()) {
            let mut text = list(vec![("a".into(), 1, true), ("b c".into(), 20, false)]).text().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(list) = FileList::parse(&text) {
                prop_assert_eq!(list.text().into_bytes(), text);
            }
        }
    }

    #[test]
    fn refuses_other_texts() {
        let line = |size: &str, flag: &str, name: &str| {
            format!("{} {size} {flag} {name}\n", Digest::of(b"x"))
        };
        let good = line("7", "x", "a");
        let line_of = |lines: &str| FileList::parse(format!("{HEADER}{lines}").as_bytes());
        assert!(line_of(&good).is_ok());
        for (lines, wrong) in [
            (good.trim_end().to_owned(), 2),
            (line("07", "x", "a"), 2),
            (line("+7", "x", "a"), 2),
            (line("7", "y", "a"), 2),
            (line("7", "x", "../a"), 2),
            (format!("{good}{good}"), 3),
            (format!("{}{good}", line("7", "x", "b")), 3),
            (format!("{good}\n"), 3),
        ] {
            assert_eq!(line_of(&lines), Err(FileListError { line: wrong }), "{lines}");
        }
        assert_eq!(FileList::parse(good.as_bytes()), Err(FileListError { line: 1 }));
    }
}
