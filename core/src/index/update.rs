//! The pure part of writing the index: given the objects in the way, which new objects
//! stand in their place.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bin, IndexError, IndexFile, Node, Slot};
use crate::digest::Digest;
use crate::statement::{SignedStatement, Subject};

/// Answers an object's bytes by its digest, as far as it has them.
pub trait Source {
    /// The bytes, unproven; `None` when they were not fetched yet.
    fn get(&self, digest: Digest) -> Option<&[u8]>;
}

impl Source for BTreeMap<Digest, Vec<u8>> {
    fn get(&self, digest: Digest) -> Option<&[u8]> {
        BTreeMap::get(self, &digest).map(Vec::as_slice)
    }
}

/// A new object of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A node.
    Node(Digest, Vec<u8>),
    /// A bin.
    Bin(Digest, Vec<u8>),
    /// An index file.
    File(Digest, Vec<u8>),
}

/// What [`update`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// These objects must be fetched first; call again with them in the source.
    Need {
        /// Nodes.
        nodes: BTreeSet<Digest>,
        /// Bins.
        bins: BTreeSet<Digest>,
        /// Index files.
        files: BTreeSet<Digest>,
    },
    /// The new root and every object that must be stored before a head may name it.
    Done {
        /// Digest of the new root node.
        root: Digest,
        /// New objects, children before parents.
        written: Vec<Written>,
        /// The index file that each changed subject now has, by its name; it is one of the new
        /// objects.
        files: BTreeMap<Subject, Digest>,
    },
}

/// Appends `additions`, each with its position in the log and in that order, to the index
/// below `root` (`None` for an empty index).
///
/// # Errors
/// When an object in the source is not what its digest says, or is malformed. Whether the
/// statements follow their chains is for the caller to decide before.
pub fn update(
    root: Option<Digest>,
    additions: &[(u64, SignedStatement)],
    source: &impl Source,
) -> Result<Update, IndexError> {
    let mut need = Need::default();
    let mut by_slot: BTreeMap<Slot, BySubject<'_>> = BTreeMap::new();
    for addition in additions {
        let subject = addition.1.statement().subject();
        by_slot.entry(Slot::of(&subject)).or_default().entry(subject).or_default().push(addition);
    }

    let mut written = Vec::new();
    let mut files = BTreeMap::new();
    let mut root_node = match root {
        None => Some(Node::EMPTY),
        Some(digest) => need.node(source, digest)?,
    };
    let mut nodes: BTreeMap<u8, Node> = BTreeMap::new();
    for (slot, subjects) in &by_slot {
        let Some(root_node) = &root_node else { break };
        let node = match nodes.get(&slot.node) {
            Some(node) => Some(node.clone()),
            None => match root_node.child(slot.node) {
                None => Some(Node::EMPTY),
                Some(digest) => need.node(source, digest)?,
            },
        };
        let Some(mut node) = node else { continue };
        let bin = match node.child(slot.bin) {
            None => Some(Bin::new()),
            Some(digest) => need.bin(source, *slot, digest)?,
        };
        let Some(mut bin) = bin else { continue };
        for (subject, additions) in subjects {
            let file = match bin.get(subject) {
                None => Some(IndexFile::new(subject.clone()).to_bytes()),
                Some(digest) => need.file(source, digest)?,
            };
            let Some(mut bytes) = file else { continue };
            // A file's form is its entries one behind another, so the new ones are appended.
            IndexFile::append_to(subject, &mut bytes, additions.iter().copied())?;
            let digest = Digest::of(&bytes);
            bin.set(subject.clone(), digest);
            written.push(Written::File(digest, bytes));
            files.insert(subject.clone(), digest);
        }
        let bytes = bin.to_bytes();
        let digest = Digest::of(&bytes);
        node.set(slot.bin, digest);
        written.push(Written::Bin(digest, bytes));
        nodes.insert(slot.node, node);
    }
    if need.any() {
        return Ok(Update::Need { nodes: need.nodes, bins: need.bins, files: need.files });
    }

    let mut root_node = root_node.take().unwrap_or(Node::EMPTY);
    for (place, node) in nodes {
        let bytes = node.to_bytes();
        let digest = Digest::of(&bytes);
        root_node.set(place, digest);
        written.push(Written::Node(digest, bytes));
    }
    let bytes = root_node.to_bytes();
    let root = Digest::of(&bytes);
    written.push(Written::Node(root, bytes));
    Ok(Update::Done { root, written, files })
}

/// Additions with their positions, by what they are about.
type BySubject<'a> = BTreeMap<Subject, Vec<&'a (u64, SignedStatement)>>;

#[derive(Default)]
struct Need {
    nodes: BTreeSet<Digest>,
    bins: BTreeSet<Digest>,
    files: BTreeSet<Digest>,
}

impl Need {
    fn any(&self) -> bool {
        !(self.nodes.is_empty() && self.bins.is_empty() && self.files.is_empty())
    }

    fn node(&mut self, source: &impl Source, digest: Digest) -> Result<Option<Node>, IndexError> {
        let Some(bytes) = source.get(digest) else {
            self.nodes.insert(digest);
            return Ok(None);
        };
        super::prove("node", digest, bytes)?;
        Node::parse(bytes).map(Some)
    }

    fn bin(
        &mut self,
        source: &impl Source,
        slot: Slot,
        digest: Digest,
    ) -> Result<Option<Bin>, IndexError> {
        let Some(bytes) = source.get(digest) else {
            self.bins.insert(digest);
            return Ok(None);
        };
        super::prove("bin", digest, bytes)?;
        Bin::parse(slot, bytes).map(Some)
    }

    fn file(
        &mut self,
        source: &impl Source,
        digest: Digest,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        let Some(bytes) = source.get(digest) else {
            self.files.insert(digest);
            return Ok(None);
        };
        super::prove("index file", digest, bytes)?;
        Ok(Some(bytes.to_vec()))
    }
}
