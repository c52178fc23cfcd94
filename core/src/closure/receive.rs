//! What a reader takes of an answer: only what the tree below its proven head names.

use std::collections::{BTreeMap, HashMap};

use modunest_tlog::{ProofError, TreeHash, verify_leaves};

use super::proof;
use crate::digest::Digest;
use crate::index::{Bin, IndexError, IndexFile, LogHead, Node, Slot, prove};
use crate::keys::ObjectKey;
use crate::statement::Subject;

/// Why an object of an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Nothing that came before names it, or it came already.
    #[error("{0} came, and nothing before it names it")]
    Unexpected(ObjectKey),
    /// It is not what its name says, or malformed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The proof's bytes are no hashes.
    #[error("a proof is a row of hashes")]
    ProofForm,
    /// The log is not proven to have every statement that came.
    #[error("not every statement is proven to be in the log: {0}")]
    Proof(#[from] ProofError),
}

enum Place {
    Root,
    Node(u8),
    Bin(Slot),
    File(Subject),
}

/// The objects that may come next. Whoever writes the answer cannot make a reader keep
/// anything else, not even bytes with the right hash.
pub struct Received {
    expected: HashMap<ObjectKey, Place>,
    since: u64,
    /// Every statement that came, by its position: its hash as a leaf of the log.
    leaves: BTreeMap<u64, TreeHash>,
}

impl Received {
    /// For the answer under a head that was proven and names this root node, to a request with
    /// this [`super::ClosureRequest::since`].
    pub fn new(root: Digest, since: Option<u64>) -> Self {
        let expected = HashMap::from([(ObjectKey::Node(root), Place::Root)]);
        Received { expected, since: since.unwrap_or(0), leaves: BTreeMap::new() }
    }

    /// Proves one object, and learns what it names. What an index file's statements mean is for
    /// the fold to say, and that the log has them, for [`Received::prove`].
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
                self.expected.extend(
                    named.map(|(subject, d)| (ObjectKey::Index(d), Place::File(subject.clone()))),
                );
            }
            Place::File(subject) => {
                let entries = IndexFile::raw_entries(&subject, bytes)?.into_iter();
                let new = entries.filter(|(position, _)| *position >= self.since);
                self.leaves.extend(new.map(|(at, entry)| (at, TreeHash::of_leaf(entry))));
            }
        }
        Ok(())
    }

    /// Proves that the log, as the head names it, has every statement that came. Answers them:
    /// position, and hash as a leaf.
    ///
    /// # Errors
    /// [`ReceiveError::ProofForm`] and [`ReceiveError::Proof`].
    pub fn prove(
        self,
        bytes: &[u8],
        log: &LogHead,
    ) -> Result<BTreeMap<u64, TreeHash>, ReceiveError> {
        let hashes = proof::read(bytes).ok_or(ReceiveError::ProofForm)?;
        let root = TreeHash::from_bytes(*log.root.as_bytes());
        verify_leaves(&self.leaves, log.size, &hashes, &root)?;
        Ok(self.leaves)
    }
}
