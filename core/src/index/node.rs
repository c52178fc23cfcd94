//! Inner nodes: 64 digests, one after the other.

use super::IndexError;
use crate::digest::{DIGEST_BYTES, Digest};
use crate::statement::Subject;

/// Children of a node.
pub const FANOUT: usize = 64;
/// Length of a node: [`FANOUT`] digests.
pub const NODE_BYTES: usize = FANOUT * DIGEST_BYTES;

/// Longest compact form of a node ([`Node::to_compact`]).
pub const NODE_COMPACT_MAX_BYTES: usize = 8 + NODE_BYTES;
/// The first child's bit in a compact node.
const FIRST_CHILD: u64 = 1 << (FANOUT - 1);

/// Where a subject stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Child of the root node, below [`FANOUT`].
    pub node: u8,
    /// Child of that node, below [`FANOUT`].
    pub bin: u8,
}

impl Slot {
    /// The first twelve bits of the SHA-256 of the subject's name.
    pub fn of(subject: &Subject) -> Slot {
        let digest = Digest::of(subject.to_string().as_bytes());
        let [first, second, ..] = *digest.as_bytes();
        Slot { node: first >> 2, bin: (first & 3) << 4 | second >> 4 }
    }
}

/// A node. A child that does not exist is [`Digest::ZERO`].
#[derive(Clone, PartialEq, Eq)]
pub struct Node([Digest; FANOUT]);

impl Node {
    /// A node without children.
    pub const EMPTY: Node = Node([Digest::ZERO; FANOUT]);

    /// The child at a place below [`FANOUT`]; `None` where there is none.
    pub fn child(&self, place: u8) -> Option<Digest> {
        self.0.get(usize::from(place)).copied().filter(|digest| *digest != Digest::ZERO)
    }

    /// Sets the child at a place below [`FANOUT`]; other places change nothing.
    pub fn set(&mut self, place: u8, child: Digest) {
        if let Some(slot) = self.0.get_mut(usize::from(place)) {
            *slot = child;
        }
    }

    /// All children that exist, with their places.
    pub fn children(&self) -> impl Iterator<Item = (u8, Digest)> + '_ {
        (0u8..).zip(self.0.iter().copied()).filter(|(_, digest)| *digest != Digest::ZERO)
    }

    /// What a node is sent as where it need not be a file: a bit for each child that exists,
    /// the first child's highest, in eight bytes, big-endian; then the digests of those.
    pub fn to_compact(&self) -> Vec<u8> {
        let mut exist: u64 = 0;
        let mut digests = Vec::new();
        for (place, digest) in self.children() {
            exist |= FIRST_CHILD >> place;
            digests.extend_from_slice(digest.as_bytes());
        }
        [exist.to_be_bytes().as_slice(), &digests].concat()
    }

    /// Reads what [`Node::to_compact`] wrote.
    ///
    /// # Errors
    /// When it would write anything else.
    pub fn from_compact(bytes: &[u8]) -> Result<Node, IndexError> {
        let form = IndexError::Form {
            what: "node",
            rule: "a compact node has a bit for each child, and the digest of each that exists",
        };
        let (exist, digests) = bytes.split_first_chunk().ok_or(form.clone())?;
        let exist = u64::from_be_bytes(*exist);
        let (digests, rest) = digests.as_chunks::<DIGEST_BYTES>();
        if !rest.is_empty() || digests.len() as u32 != exist.count_ones() {
            return Err(form);
        }
        let mut node = Node::EMPTY;
        let places = (0u8..).take(FANOUT).filter(|place| exist & (FIRST_CHILD >> place) != 0);
        for (place, digest) in places.zip(digests) {
            let digest = Digest::from_bytes(*digest);
            if digest == Digest::ZERO {
                return Err(form);
            }
            node.set(place, digest);
        }
        Ok(node)
    }

    /// The bytes: [`NODE_BYTES`].
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|digest| *digest.as_bytes()).collect()
    }

    /// Reads a node.
    ///
    /// # Errors
    /// When there are not exactly [`NODE_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Node, IndexError> {
        if bytes.len() != NODE_BYTES {
            return Err(IndexError::Form { what: "node", rule: "a node has exactly 2,048 bytes" });
        }
        let mut node = Node::EMPTY;
        for (child, chunk) in node.0.iter_mut().zip(bytes.chunks_exact(DIGEST_BYTES)) {
            let mut digest = [0; DIGEST_BYTES];
            digest.copy_from_slice(chunk);
            *child = Digest::from_bytes(digest);
        }
        Ok(node)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.children()).finish()
    }
}
