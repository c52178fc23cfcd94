//! Check 5: index files, from what is current on disk or down the tree, every statement in
//! them proven to be in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use modunest_core::digest::Digest;
use modunest_core::index::{
    BIN_MAX_BYTES, Bin, INDEX_FILE_MAX_BYTES, IndexFile, NODE_BYTES, Node, Slot, prove,
};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::Subject;
use modunest_tlog::TreeHash;

use super::fold::Files;
use super::state::{Kept, Row};
use super::tiles::Leaf;
use super::{Client, Error, fetch};

impl Client {
    /// The index files of `subjects`, proven against the head and the log; subjects that the
    /// index does not list are left out.
    pub(super) async fn files(&self, subjects: &BTreeSet<Subject>) -> Result<Files, Error> {
        let kept = self.kept().ok_or(Error::NoHead)?;
        let mut files = self.current_files(subjects)?;
        let rest: BTreeSet<&Subject> =
            subjects.iter().filter(|subject| !files.contains_key(*subject)).collect();
        if rest.is_empty() {
            return Ok(files);
        }
        self.read_together(&rest, &kept).await;
        let walked = self.walk(&rest, kept.head.index).await?;
        let mut leaves = self.unproven(&walked, &kept)?;
        self.leave_out_proven(&mut leaves, &kept.head.log);
        self.prove_leaves(&kept.checkpoint, &leaves).await?;
        let mut rows = self.rows();
        for (subject, (file, bytes)) in walked {
            rows.insert(subject.clone(), Row::current(file));
            files.insert(subject, bytes);
        }
        self.state.write_proven(&kept.head.log, &rows)?;
        Ok(files)
    }

    /// Replaces index files by newer ones that were proven before, as far as the disk has them.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub(crate) fn renew(&self, files: &mut Files) -> Result<(), Error> {
        for (subject, bytes) in files {
            let Some(row) = self.rows().get(subject).copied() else { continue };
            let newer = self.cached_file(row.file)?;
            if let Some(newer) = newer.filter(|newer| newer.starts_with(bytes)) {
                *bytes = newer;
            }
        }
        Ok(())
    }

    /// What is known to be the newest without walking.
    fn current_files(&self, subjects: &BTreeSet<Subject>) -> Result<Files, Error> {
        let current: Vec<(Subject, Digest)> = {
            let rows = self.rows();
            let current = |subject: &&Subject| rows.get(*subject).filter(|row| row.current);
            let found = subjects.iter().filter_map(|s| Some((s.clone(), current(&s)?.file)));
            found.collect()
        };
        let mut files = Files::new();
        for (subject, file) in current {
            if let Some(bytes) = self.cached_file(file)? {
                files.insert(subject, bytes);
            }
        }
        Ok(files)
    }

    /// Every statement that was not proven when its file was shorter.
    fn unproven(
        &self,
        walked: &BTreeMap<Subject, (Digest, Arc<[u8]>)>,
        kept: &Kept,
    ) -> Result<Vec<Leaf>, Error> {
        let mut leaves = Vec::new();
        for (subject, (file, bytes)) in walked {
            let row = self.rows().get(subject).copied();
            let mut proven_bytes = 0;
            if let Some(row) = row {
                if row.file == *file {
                    continue;
                }
                if let Some(before) = self.cached_file(row.file)? {
                    if !bytes.starts_with(&before) {
                        return Err(Error::Rewritten { subject: subject.clone() });
                    }
                    proven_bytes = before.len();
                }
            }
            let start = bytes.as_ptr() as usize;
            for (position, entry) in IndexFile::raw_entries(subject, bytes)? {
                if (entry.as_ptr() as usize) - start < proven_bytes {
                    continue;
                }
                if position >= kept.head.log.size {
                    let (subject, size) = (subject.clone(), kept.head.log.size);
                    return Err(Error::IndexAhead { subject, position, size });
                }
                let (subject, hash) = (subject.clone(), TreeHash::of_leaf(entry));
                leaves.push(Leaf { subject, position, hash });
            }
        }
        Ok(leaves)
    }

    /// The files that the tree lists, each with its digest.
    async fn walk(
        &self,
        subjects: &BTreeSet<&Subject>,
        root: Digest,
    ) -> Result<BTreeMap<Subject, (Digest, Arc<[u8]>)>, Error> {
        let root = Node::parse(&self.object(ObjectKey::Node(root)).await?)?;
        let mut slots: BTreeMap<Slot, Vec<&Subject>> = BTreeMap::new();
        for subject in subjects {
            slots.entry(Slot::of(subject)).or_default().push(subject);
        }
        let nodes: BTreeSet<Digest> = slots.keys().filter_map(|s| root.child(s.node)).collect();
        let nodes = self.objects(nodes.into_iter().map(ObjectKey::Node).collect()).await?;
        let mut bins: Vec<(Slot, Digest)> = Vec::new();
        for slot in slots.keys() {
            let Some(node) = root.child(slot.node) else { continue };
            if let Some(bin) = Node::parse(&nodes[&ObjectKey::Node(node)])?.child(slot.bin) {
                bins.push((*slot, bin));
            }
        }
        let keys = bins.iter().map(|(_, digest)| ObjectKey::Bin(*digest)).collect();
        let bin_bytes = self.objects(keys).await?;
        let mut places: Vec<(&Subject, Digest)> = Vec::new();
        for (slot, digest) in &bins {
            let bin = Bin::parse(*slot, &bin_bytes[&ObjectKey::Bin(*digest)])?;
            let subjects = slots.get(slot).into_iter().flatten();
            places.extend(subjects.filter_map(|s| Some((*s, bin.get(s)?))));
        }
        let keys = places.iter().map(|(_, digest)| ObjectKey::Index(*digest)).collect();
        let bytes = self.objects(keys).await?;
        let file = |digest| (digest, bytes[&ObjectKey::Index(digest)].clone());
        Ok(places.into_iter().map(|(subject, digest)| (subject.clone(), file(digest))).collect())
    }

    async fn objects(
        &self,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<BTreeMap<ObjectKey, Arc<[u8]>>, Error> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let reads: Vec<_> =
            keys.into_iter().map(|key| async move { Ok((key, self.object(key).await?)) }).collect();
        futures_util::stream::iter(reads).buffer_unordered(fetch::PARALLEL).try_collect().await
    }

    /// An object that is named by its content: from the cache, or fetched, and proven either
    /// way.
    async fn object(&self, key: ObjectKey) -> Result<Arc<[u8]>, Error> {
        let (what, limit, digest) = match key {
            ObjectKey::Node(digest) => ("node", NODE_BYTES, digest),
            ObjectKey::Bin(digest) => ("bin", BIN_MAX_BYTES, digest),
            ObjectKey::Index(digest) => ("index file", INDEX_FILE_MAX_BYTES, digest),
            _ => {
                return Err(Error::Status { url: self.fetcher.url(key), status: 404 });
            }
        };
        if let Some(bytes) = self.cache.object(key, limit)? {
            if prove(what, digest, &bytes).is_ok() {
                return Ok(bytes.into());
            }
            tracing::warn!(%key, "an object in the cache is damaged; fetching it again");
        }
        let bytes = self.fetcher.object(key, limit).await?;
        prove(what, digest, &bytes)?;
        self.cache.keep(key, &bytes)?;
        Ok(bytes.into())
    }
}
