//! Index files: a subject's statements, in order, each with its position in the log.
//!
//! ```text
//! modunest/index/v1 demo/markdown
//! <position or -> <length in bytes>
//! <the statement's bytes, verbatim>
//! ```
//! The position is `-` until the registry has a log.

use super::IndexError;
use crate::digest::Digest;
use crate::statement::{STATEMENT_MAX_BYTES, SignedStatement, StatementError, Subject};

const FIRST_WORD: &str = "modunest/index/v1 ";
/// Longest index file: 1,000 statements of the largest size.
pub const INDEX_FILE_MAX_BYTES: usize = 1_000 * STATEMENT_MAX_BYTES;

/// A subject's statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Whose statements.
    pub subject: Subject,
    /// Log position and statement, in the order of the subject's chain.
    pub entries: Vec<(Option<u64>, SignedStatement)>,
}

fn form(rule: &'static str) -> IndexError {
    IndexError::Form { what: "index file", rule }
}

impl IndexFile {
    /// A file without statements.
    pub fn new(subject: Subject) -> Self {
        IndexFile { subject, entries: Vec::new() }
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{FIRST_WORD}{}\n", self.subject).into_bytes();
        for (position, signed) in &self.entries {
            let position = position.map_or("-".to_owned(), |p| p.to_string());
            bytes.extend_from_slice(format!("{position} {}\n", signed.bytes().len()).as_bytes());
            bytes.extend_from_slice(signed.bytes());
        }
        bytes
    }

    /// The file's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Reads the file of `subject`. Forms are checked, signatures are not.
    ///
    /// # Errors
    /// When a byte is not as [`IndexFile::to_bytes`] would write it.
    pub fn parse(subject: &Subject, bytes: &[u8]) -> Result<IndexFile, IndexError> {
        if bytes.len() > INDEX_FILE_MAX_BYTES {
            return Err(form("an index file has at most 8,192,000 bytes"));
        }
        let first = format!("{FIRST_WORD}{subject}\n");
        let mut rest = bytes
            .strip_prefix(first.as_bytes())
            .ok_or(form("the first line is modunest/index/v1 and the subject"))?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (position, length, tail) = entry_line(rest)?;
            if length > STATEMENT_MAX_BYTES {
                return Err(form("a statement has at most 8 KB"));
            }
            let (body, tail) = tail
                .split_at_checked(length)
                .ok_or(form("a statement is shorter than its length says"))?;
            let signed = SignedStatement::parse(body.to_vec())
                .map_err(|error| IndexError::Statement { subject: subject.clone(), error })?;
            if signed.statement().subject() != *subject {
                return Err(IndexError::Statement {
                    subject: subject.clone(),
                    error: StatementError::Field {
                        field: "plugin",
                        rule: "the statement is about another subject".to_owned(),
                    },
                });
            }
            entries.push((position, signed));
            rest = tail;
        }
        Ok(IndexFile { subject: subject.clone(), entries })
    }
}

/// `<position or -> <length>\n`, numbers in decimal without leading zeros.
fn entry_line(bytes: &[u8]) -> Result<(Option<u64>, usize, &[u8]), IndexError> {
    /// Two numbers of at most 20 digits, a space and a line feed.
    const LINE_MAX_BYTES: usize = 42;
    let rule = form("an entry starts with its log position and length");
    let end = bytes.iter().take(LINE_MAX_BYTES).position(|b| *b == b'\n').ok_or(rule.clone())?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| rule.clone())?;
    let (position, length) = line.split_once(' ').ok_or(rule.clone())?;
    let position = match position {
        "-" => None,
        digits => Some(number(digits).ok_or(rule.clone())?),
    };
    let length = number(length).and_then(|n| usize::try_from(n).ok()).ok_or(rule)?;
    Ok((position, length, &bytes[end + 1..]))
}

fn number(digits: &str) -> Option<u64> {
    let canonical = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok()).flatten()
}
