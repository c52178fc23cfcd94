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
