//! What a reader takes of an answer: only what the tree below its proven head names.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::index::{Bin, IndexError, Node, Slot, prove};
use crate::keys::ObjectKey;

/// Why an object of an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Nothing that came before names it, or it came already.
    #[error("{0} came, and nothing before it names it")]
    Unexpected(ObjectKey),
    /// It is not what its name says, or malformed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

#[derive(Clone, Copy)]
enum Place {
    Root,
    Node(u8),
    Bin(Slot),
    File,
}

/// The objects that may come next. Whoever writes the answer cannot make a reader keep
/// anything else, not even bytes with the right hash.
pub struct Received {
    expected: HashMap<ObjectKey, Place>,
}

impl Received {
    /// For the answer under a head that was proven and names this root node.
    pub fn new(root: Digest) -> Self {
        Received { expected: HashMap::from([(ObjectKey::Node(root), Place::Root)]) }
    }

    /// Proves one object, and learns what it names. An index file's statements are for the
    /// fold to prove.
    ///
    /// # Errors
    /// When it must not be kept; what follows may still be taken.
    pub fn accept(&mut self, key: ObjectKey, bytes: &[u8]) -> Result<(), ReceiveError> {
        let place = self.expected.remove(&key).ok_or(ReceiveError::Unexpected(key))?;
        let (what, digest) = match key {
            ObjectKey::Node(digest) => ("node", digest),
            ObjectKey::Bin(digest) => ("bin", digest),
            ObjectKey::Index(digest) => ("index file", digest),
            ObjectKey::Head
            | ObjectKey::Checkpoint
            | ObjectKey::Tile(_)
            | ObjectKey::Trust(_)
            | ObjectKey::Blob(_)
            | ObjectKey::Report(_) => {
                return Err(ReceiveError::Unexpected(key));
            }
        };
        prove(what, digest, bytes)?;
        match place {
            Place::Root => {
                let children = Node::parse(bytes)?;
                let named = children.children();
                self.expected.extend(named.map(|(at, d)| (ObjectKey::Node(d), Place::Node(at))));
            }
            Place::Node(node) => {
                let children = Node::parse(bytes)?;
                let named = children.children();
                self.expected.extend(
                    named.map(|(bin, d)| (ObjectKey::Bin(d), Place::Bin(Slot { node, bin }))),
                );
            }
            Place::Bin(slot) => {
                let bin = Bin::parse(slot, bytes)?;
                let named = bin.entries();
                self.expected.extend(named.map(|(_, d)| (ObjectKey::Index(d), Place::File)));
            }
            Place::File => {}
        }
        Ok(())
    }
}
