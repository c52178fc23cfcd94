//! Index files: a subject's statements, in order, each with its position in the log.
//!
//! ```text
//! modunest/index/v1 demo/markdown
//! <position> <length in bytes>
//! <the statement's bytes, verbatim>
//! ```
//! Positions are indexes of the log's entries, ascending.

use std::collections::BTreeSet;

use super::IndexError;
use crate::digest::Digest;
use crate::name::OrgName;
use crate::statement::{STATEMENT_MAX_BYTES, SignedStatement, Statement, StatementError, Subject};

const FIRST_WORD: &str = "modunest/index/v1 ";
/// Longest index file: 1,000 statements of the largest size.
pub const INDEX_FILE_MAX_BYTES: usize = 1_000 * STATEMENT_MAX_BYTES;

const ORDER: &str = "statements stand in the order of the log";

/// A subject's statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Whose statements.
    pub subject: Subject,
    /// Log position and statement, in the order of the log.
    pub entries: Vec<(u64, SignedStatement)>,
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
        bytes.extend_from_slice(&self.entries_bytes());
        bytes
    }

    /// The bytes without the first line: what stands behind a file's bytes once these entries
    /// are appended to it.
    pub fn entries_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (position, signed) in &self.entries {
            push_entry(&mut bytes, *position, signed);
        }
        bytes
    }

    /// Appends entries to the bytes of the file of `subject`. Its statements are not read: what
    /// stands there was read when it was appended.
    ///
    /// # Errors
    /// [`IndexError::Form`], also when an entry's position does not follow the last one's.
    pub fn append_to<'e>(
        subject: &Subject,
        bytes: &mut Vec<u8>,
        entries: impl IntoIterator<Item = &'e (u64, SignedStatement)>,
    ) -> Result<(), IndexError> {
        let mut last = IndexFile::raw_entries(subject, bytes)?.last().map(|(at, _)| *at);
        for (position, signed) in entries {
            if last.is_some_and(|last| *position <= last) {
                return Err(form(ORDER));
            }
            last = Some(*position);
            push_entry(bytes, *position, signed);
        }
        Ok(())
    }

    /// The file's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The organisations that own or owned the plugin, or the organisation itself: whose keys
    /// prove what stands here.
    pub fn orgs(&self) -> BTreeSet<OrgName> {
        let given = self.entries.iter().filter_map(|(_, signed)| match signed.statement() {
            Statement::Ownership(it) => Some(it.owner.clone()),
            _ => None,
        });
        std::iter::once(self.subject.org()).chain(given).collect()
    }

    /// Reads the file of `subject`. Forms are checked, signatures are not.
    ///
    /// # Errors
    /// When a byte is not as [`IndexFile::to_bytes`] would write it.
    pub fn parse(subject: &Subject, bytes: &[u8]) -> Result<IndexFile, IndexError> {
        if bytes.len() > INDEX_FILE_MAX_BYTES {
            return Err(form("an index file has at most 8,192,000 bytes"));
        }
        let mut entries = Vec::new();
        for (position, body) in IndexFile::raw_entries(subject, bytes)? {
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
        }
        Ok(IndexFile { subject: subject.clone(), entries })
    }

    /// Positions and bytes of the statements in the file of `subject`, which are not read: for
    /// who only proves that the log has them.
    ///
    /// # Errors
    /// [`IndexError::Form`].
    pub fn raw_entries<'b>(
        subject: &Subject,
        bytes: &'b [u8],
    ) -> Result<Vec<(u64, &'b [u8])>, IndexError> {
        let first = format!("{FIRST_WORD}{subject}\n");
        let mut rest = bytes
            .strip_prefix(first.as_bytes())
            .ok_or(form("the first line is modunest/index/v1 and the subject"))?;
        let mut entries: Vec<(u64, &[u8])> = Vec::new();
        while !rest.is_empty() {
            let (position, length, tail) = entry_line(rest)?;
            if length > STATEMENT_MAX_BYTES {
                return Err(form("a statement has at most 8 KB"));
            }
            let (body, tail) = tail
                .split_at_checked(length)
                .ok_or(form("a statement is shorter than its length says"))?;
            if entries.last().is_some_and(|(last, _)| position <= *last) {
                return Err(form(ORDER));
            }
            entries.push((position, body));
            rest = tail;
        }
        Ok(entries)
    }
}

fn push_entry(bytes: &mut Vec<u8>, position: u64, signed: &SignedStatement) {
    bytes.extend_from_slice(format!("{position} {}\n", signed.bytes().len()).as_bytes());
    bytes.extend_from_slice(signed.bytes());
}

/// `<position> <length>\n`, numbers in decimal without leading zeros.
fn entry_line(bytes: &[u8]) -> Result<(u64, usize, &[u8]), IndexError> {
    /// Two numbers of at most 20 digits, a space and a line feed.
    const LINE_MAX_BYTES: usize = 42;
    let rule = form("an entry starts with its log position and length");
    let end = bytes.iter().take(LINE_MAX_BYTES).position(|b| *b == b'\n').ok_or(rule.clone())?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| rule.clone())?;
    let (position, length) = line.split_once(' ').ok_or(rule.clone())?;
    let position = number(position).ok_or(rule.clone())?;
    let length = number(length).and_then(|n| usize::try_from(n).ok()).ok_or(rule)?;
    Ok((position, length, &bytes[end + 1..]))
}

fn number(digits: &str) -> Option<u64> {
    let canonical = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok()).flatten()
}
