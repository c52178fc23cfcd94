//! Bins: the subjects of one slot, with the digests of their index files.
//!
//! ```text
//! modunest/bin/v1
//! demo/gallery 5f0c…
//! demo/markdown 11ab…
//! ```
//! Lines are in ascending order of the names' bytes, each name once.

use std::collections::BTreeMap;

use super::{IndexError, Slot};
use crate::digest::Digest;
use crate::statement::Subject;

const FIRST_LINE: &str = "modunest/bin/v1";
/// Longest bin, in bytes. A thousand times the 2 KB of a bin at 100,000 plugins.
pub const BIN_MAX_BYTES: usize = 2 * 1024 * 1024;

/// The subjects of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bin(BTreeMap<String, (Subject, Digest)>);

fn form(rule: &'static str) -> IndexError {
    IndexError::Form { what: "bin", rule }
}

impl Bin {
    /// A bin without subjects.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index file of a subject.
    pub fn get(&self, subject: &Subject) -> Option<Digest> {
        self.0.get(&subject.to_string()).map(|(_, digest)| *digest)
    }

    /// Sets the index file of a subject.
    pub fn set(&mut self, subject: Subject, file: Digest) {
        self.0.insert(subject.to_string(), (subject, file));
    }

    /// All subjects in order, with their index files.
    pub fn entries(&self) -> impl Iterator<Item = (&Subject, Digest)> {
        self.0.values().map(|(subject, digest)| (subject, *digest))
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for (subject, digest) in self.0.values() {
            text.push_str(&format!("{subject} {digest}\n"));
        }
        text.into_bytes()
    }

    /// What a bin is sent as where it need not be a file: for each subject in order its name, a
    /// space, and the digest's 32 bytes.
    pub fn to_compact(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (subject, digest) in self.0.values() {
            bytes.extend_from_slice(format!("{subject} ").as_bytes());
            bytes.extend_from_slice(digest.as_bytes());
        }
        bytes
    }

    /// The bin's bytes out of what [`Bin::to_compact`] wrote. They are to be read and proven like
    /// any: here only the form is looked at.
    ///
    /// # Errors
    /// When a name is empty or has other than visible ASCII characters, or a digest is cut off.
    pub fn expand(compact: &[u8]) -> Result<Vec<u8>, IndexError> {
        let rule = form("a compact bin has a name, a space and 32 bytes for each subject");
        let mut text = format!("{FIRST_LINE}\n");
        let mut rest = compact;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b' ').ok_or(rule.clone())?;
            let (name, tail) = rest.split_at(end);
            if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                return Err(rule);
            }
            let (digest, tail) = tail[1..].split_first_chunk().ok_or(rule.clone())?;
            let digest = Digest::from_bytes(*digest);
            text.push_str(&format!("{} {digest}\n", String::from_utf8_lossy(name)));
            rest = tail;
        }
        Ok(text.into_bytes())
    }

    /// Reads the bin of `slot`. A subject of another slot is refused: it could hide the one
    /// that its own bin lists.
    ///
    /// # Errors
    /// When the bytes are not exactly what [`Bin::to_bytes`] gives, or a subject is elsewhere.
    pub fn parse(slot: Slot, bytes: &[u8]) -> Result<Bin, IndexError> {
        if bytes.len() > BIN_MAX_BYTES {
            return Err(form("a bin has at most 2 MiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| form("a bin is UTF-8"))?;
        let mut lines =
            text.strip_suffix('\n').ok_or(form("a bin ends with a line feed"))?.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(form("a bin starts with modunest/bin/v1"));
        }
        let mut bin = Bin::new();
        for line in lines {
            let (name, digest) =
                line.split_once(' ').ok_or(form("a line is a name and a digest"))?;
            let subject: Subject = name.parse()?;
            if Slot::of(&subject) != slot {
                return Err(form("a subject stands in a bin that is not its own"));
            }
            if bin.0.last_key_value().is_some_and(|(last, _)| last.as_str() >= name) {
                return Err(form("names ascend, each once"));
            }
            let digest =
                digest.parse().map_err(|_| form("a digest is 64 lower-case hexadecimal digits"))?;
            bin.0.insert(name.to_owned(), (subject, digest));
        }
        Ok(bin)
    }
}
