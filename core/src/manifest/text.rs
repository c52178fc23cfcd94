//! Rules for the manifest's plain texts; each gives the broken rule as a message.

/// Shortest and longest description, in characters.
pub const DESCRIPTION_CHARS: (usize, usize) = (10, 500);
/// Longest author, in characters.
pub const AUTHOR_MAX_CHARS: usize = 100;
/// Longest licence expression, in characters.
pub const LICENSE_MAX_CHARS: usize = 100;
/// Longest note on a deprecated service, in characters. A statement repeats it.
pub const DEPRECATED_MAX_CHARS: usize = 200;
/// Longest keyword, in characters.
pub const KEYWORD_MAX_CHARS: usize = 30;
/// Longest route, in bytes.
pub const ROUTE_MAX_BYTES: usize = 200;
/// Longest cargo library name, in bytes: cargo's own limit is the file system's.
pub const LIBRARY_MAX_BYTES: usize = 64;
/// Longest version, in bytes, so that a pre-release tag cannot fill a statement.
pub const VERSION_MAX_BYTES: usize = 64;
/// HTTP methods that a route may name.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One line of text with `chars.0` to `chars.1` characters, none of them a control character.
pub(super) fn line(text: &str, chars: (usize, usize)) -> Result<(), String> {
    let count = text.chars().count();
    if !(chars.0..=chars.1).contains(&count) {
        return Err(format!("{count} characters; {} to {} are allowed", chars.0, chars.1));
    }
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        return Err(format!("contains the control character {character:?}"));
    }
    if text.trim() != text {
        return Err("starts or ends with white space".to_owned());
    }
    Ok(())
}

/// An SPDX licence expression (SPDX 2.3, annex D): identifiers joined by AND, OR and WITH,
/// with parentheses. Whether an identifier is on SPDX's list is not checked, because the
/// list grows.
pub(super) fn license(text: &str) -> Result<(), String> {
    line(text, (1, LICENSE_MAX_CHARS))?;
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut open = 0usize;
    let mut wants_operand = true;
    let wrong = || Err(format!("\"{text}\" is not an SPDX licence expression"));
    for word in spaced.split_whitespace() {
        match (word, wants_operand) {
            ("(", true) => open += 1,
            (")", false) if open > 0 => open -= 1,
            ("AND" | "OR" | "WITH", false) => wants_operand = true,
            ("AND" | "OR" | "WITH" | "(" | ")", _) => return wrong(),
            (identifier, true)
                if identifier
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.+:".contains(&b)) =>
            {
                wants_operand = false;
            }
            _ => return wrong(),
        }
    }
    if wants_operand || open > 0 { wrong() } else { Ok(()) }
}

/// A word to be found by: `[a-z0-9-]`.
pub(super) fn keyword(text: &str) -> Result<(), String> {
    line(text, (2, KEYWORD_MAX_CHARS))?;
    if text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        Ok(())
    } else {
        Err(format!("\"{text}\" has characters other than a-z, 0-9 and -"))
    }
}

/// A library name as cargo makes file names of: `[A-Za-z0-9_]`, not a digit first.
pub(super) fn library(text: &str) -> Result<(), String> {
    let good = (1..=LIBRARY_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit());
    if good { Ok(()) } else { Err(format!("\"{text}\" is not a library name of cargo")) }
}

/// A path of the gateway: `/`, or segments of unreserved characters (RFC 3986, 2.3) or
/// `{name}`.
pub(super) fn route(text: &str) -> Result<(), String> {
    if text.len() > ROUTE_MAX_BYTES {
        return Err(format!("{} bytes; at most {ROUTE_MAX_BYTES} are allowed", text.len()));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("\"{text}\" does not start with /"));
    };
    if rest.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    for segment in rest.split('/') {
        let parameter = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        let good = match parameter {
            Some(name) => {
                let fresh = !names.contains(&name);
                names.push(name);
                fresh
                    && !name.is_empty()
                    && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            }
            None => {
                !matches!(segment, "" | "." | "..")
                    && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
            }
        };
        if !good {
            return Err(format!(
                "\"{text}\" has the part \"{segment}\", which is no path segment and no {{name}}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "(MIT OR Apache-2.0) AND GPL-2.0-or-later WITH Classpath-exception-2.0",
            "LicenseRef-mine",
        ] {
            assert_eq!(license(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "MIT Apache-2.0",
            "MIT OR",
            "OR MIT",
            "(MIT",
            "MIT)",
            "()",
            "MIT/Apache-2.0",
            "MIT or Apache-2.0",
        ] {
            assert!(license(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn routes() {
        for good in ["/", "/gallery", "/a/{id}/b", "/v1.0/~x", "/{a}/{b}"] {
            assert_eq!(route(good), Ok(()), "{good}");
        }
        for bad in [
            "", "gallery", "//", "/a/", "/../a", "/a b", "/ä", "/{}", "/{A}", "/{a}/{a}", "/a?b",
            "/%2e", "/{a", "/a}",
        ] {
            assert!(route(bad).is_err(), "{bad}");
        }
    }
}
