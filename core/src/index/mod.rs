//! The index: a content-addressed tree over all subjects, under one signed head.
//!
//! ```text
//! head ─ root node ─ 64 nodes ─ 4,096 bins ─ index files
//! ```
//!
//! Every object but the head is named by the SHA-256 of its bytes, so a reader proves each
//! step by hashing. A subject's place follows from the SHA-256 of its name: the first six
//! bits choose the node, the next six the bin. A bin lists its subjects with the digests of
//! their index files; an index file is the ordered list of a subject's statements.
//!
//! A publish rewrites one index file, one bin, two nodes and the head. At 100,000 plugins
//! a bin holds 24 on average, about 2 KB.

mod bin;
mod file;
mod head;
mod node;
mod update;

pub use bin::{BIN_MAX_BYTES, Bin};
pub use file::{INDEX_FILE_MAX_BYTES, IndexFile};
pub use head::{HEAD_FRESH_FOR, HEAD_LIVES_FOR, HEAD_MAX_BYTES, Head, LogHead};
pub use node::{FANOUT, NODE_BYTES, NODE_COMPACT_MAX_BYTES, Node, Slot};
pub use update::{Source, Update, Written, update};

use crate::digest::Digest;
use crate::name::NameError;
use crate::statement::{StatementError, Subject};

/// Why bytes are not the index object they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The bytes do not hash to the name they were asked by.
    #[error("{what} {expected} was answered with bytes that hash to {found}")]
    Digest {
        /// Kind of object.
        what: &'static str,
        /// The name.
        expected: Digest,
        /// The hash.
        found: Digest,
    },
    /// An object of the wrong length or layout.
    #[error("{what}: {rule}")]
    Form {
        /// Kind of object.
        what: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// A name in a bin or index file is not valid.
    #[error("a name in the index is not valid: {0}")]
    Name(#[from] NameError),
    /// A statement in an index file is not valid.
    #[error("a statement in the index file of {subject} is not valid: {error}")]
    Statement {
        /// Whose file.
        subject: Subject,
        /// What is wrong.
        error: StatementError,
    },
    /// The head is not valid.
    #[error("the index head is not valid: {0}")]
    Head(String),
    /// An object that the tree names is not to be had.
    #[error("{what} {digest} is not there")]
    Missing {
        /// Kind of object.
        what: &'static str,
        /// Its name.
        digest: Digest,
    },
}

/// Proves that `bytes` are the object named `expected`.
///
/// # Errors
/// [`IndexError::Digest`].
pub fn prove(what: &'static str, expected: Digest, bytes: &[u8]) -> Result<(), IndexError> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(IndexError::Digest { what, expected, found }) }
}

/// What holds for any bytes; the fuzz target and the corpus test call this. Whatever is read
/// is written the same, byte for byte, because each object is named by its hash.
///
/// Answers whether the bytes were an object of the index at all.
///
/// # Panics
/// When a promise is broken: that is a bug in a parser.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    let node = Node::parse(bytes);
    if let Ok(node) = &node {
        assert_eq!(node.to_bytes(), bytes);
        assert_eq!(Node::from_compact(&node.to_compact()).as_ref(), Ok(node));
    }
    let mut read = node.is_ok();
    if let Ok(node) = Node::from_compact(bytes) {
        assert_eq!(node.to_compact(), bytes);
        read = true;
    }
    // Whoever reads a bin or a file knows its subject; here it is one that they name first.
    let text = String::from_utf8_lossy(bytes);
    for word in text.split_ascii_whitespace().take(2) {
        let Ok(subject) = word.parse() else { continue };
        if let Ok(bin) = Bin::parse(Slot::of(&subject), bytes) {
            assert_eq!(bin.to_bytes(), bytes);
            assert_eq!(Bin::expand(&bin.to_compact()).as_deref(), Ok(bytes));
            read = true;
        }
        if let Ok(file) = IndexFile::parse(&subject, bytes) {
            assert_eq!(file.to_bytes(), bytes);
            read = true;
        }
    }
    read
}

#[cfg(test)]
mod tests;
