//! Index objects, with those of late kept in memory. They are named by their content, so
//! what is kept is right for ever.

use std::sync::Arc;

use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::index::{
    Bin, INDEX_FILE_MAX_BYTES, IndexError, IndexFile, NODE_BYTES, Node, Slot, prove,
};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::Subject;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::judge::{Before, Folded};
use crate::error::Error;
use crate::storage::{Fetch, Storage};

/// Reads of objects that run at once.
pub(super) const READS_AT_ONCE: usize = 16;
/// Writes of objects that run at once: a store that syncs many writes together, as the
/// embedded one does, is then busy with one group while the next gathers. A quarter of the
/// connections that it allows.
pub(super) const WRITES_AT_ONCE: usize = 128;
/// Memory for objects: the root, all 64 nodes and the bins of 100,000 plugins (8 MB of
/// them) with room for the index files that change just now.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// Objects that the memory may hold, at about 2 KB each.
const KEPT_OBJECTS: usize = 8_192;
/// Longest bin, as `core::index` reads it.
const BIN_MAX_BYTES: u64 = 2 * 1024 * 1024;

/// Memory for what plugins come to, at about the length of their index files.
const FOLDED_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Clone)]
struct ByLength;

impl Weighter<Digest, Arc<Folded>> for ByLength {
    fn weight(&self, _: &Digest, folded: &Arc<Folded>) -> u64 {
        folded.length_bytes as u64
    }
}

impl Weighter<Digest, Bytes> for ByLength {
    fn weight(&self, _: &Digest, bytes: &Bytes) -> u64 {
        bytes.len() as u64
    }
}

/// Index objects by their digests.
pub(super) struct Objects {
    kept: Cache<Digest, Bytes, ByLength>,
    /// What index files come to. A file was put into the index by a sequencer that proved each
    /// of its statements where it stands, so this follows from the file's digest alone.
    folded: Cache<Digest, Arc<Folded>, ByLength>,
}

impl Objects {
    pub(super) fn new() -> Self {
        Objects {
            kept: Cache::with_weighter(KEPT_OBJECTS, KEPT_BYTES, ByLength),
            folded: Cache::with_weighter(KEPT_OBJECTS, FOLDED_BYTES, ByLength),
        }
    }

    pub(super) fn keep(&self, digest: Digest, bytes: Bytes) {
        self.kept.insert(digest, bytes);
    }

    pub(super) fn keep_folded(&self, file: Digest, folded: Folded) {
        self.folded.insert(file, Arc::new(folded));
    }

    /// Makes room: nothing that is asked for from now on leads to these. Left to itself, a cache
    /// that is full keeps some of them and lets go of what took their place.
    pub(super) fn forget<'d>(&self, replaced: impl IntoIterator<Item = &'d Digest>) {
        for digest in replaced {
            self.kept.remove(digest);
            self.folded.remove(digest);
        }
    }

    /// An object, proven.
    pub(super) async fn get(
        &self,
        storage: &Storage,
        key: ObjectKey,
    ) -> Result<(Digest, Bytes), Error> {
        let (what, digest, max_bytes) = match key {
            ObjectKey::Node(digest) => ("node", digest, NODE_BYTES as u64),
            ObjectKey::Bin(digest) => ("bin", digest, BIN_MAX_BYTES),
            ObjectKey::Index(digest) => ("index file", digest, INDEX_FILE_MAX_BYTES as u64),
            _ => return Err(Error::Broken("not an index object")),
        };
        if let Some(bytes) = self.kept.get(&digest) {
            return Ok((digest, bytes));
        }
        let bytes = match storage.get_public(key, max_bytes).await? {
            Fetch::Found(fetched) => fetched.bytes,
            Fetch::Absent => return Err(IndexError::Missing { what, digest }.into()),
            Fetch::TooLong => {
                return Err(IndexError::Form { what, rule: "it is longer than it may be" }.into());
            }
        };
        prove(what, digest, &bytes)?;
        self.keep(digest, bytes.clone());
        Ok((digest, bytes))
    }

    /// What the index has of a subject below `root`; `None` when nothing was said about it yet.
    pub(super) async fn before(
        &self,
        storage: &Storage,
        root: Digest,
        subject: &Subject,
    ) -> Result<Option<Before>, Error> {
        let slot = Slot::of(subject);
        let (_, root) = self.get(storage, ObjectKey::Node(root)).await?;
        let Some(node) = Node::parse(&root)?.child(slot.node) else { return Ok(None) };
        let (_, node) = self.get(storage, ObjectKey::Node(node)).await?;
        let Some(bin) = Node::parse(&node)?.child(slot.bin) else { return Ok(None) };
        let (_, bin) = self.get(storage, ObjectKey::Bin(bin)).await?;
        let Some(file) = Bin::parse(slot, &bin)?.get(subject) else { return Ok(None) };
        if let Some(folded) = self.folded.get(&file) {
            return Ok(Some(Before::Folded(folded)));
        }
        let (_, bytes) = self.get(storage, ObjectKey::Index(file)).await?;
        let file = IndexFile::parse(subject, &bytes)?;
        Ok(Some(Before::File { file, length_bytes: bytes.len() }))
    }
}
