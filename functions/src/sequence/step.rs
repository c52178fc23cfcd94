//! One step of the log: from a state and the statements that follow it to the next state, and
//! every object that this makes. The normal path and the recovery both go through here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::digest::Digest;
use modunest_core::index::{IndexFile, LogHead, Source, Update, Written, update};
use modunest_core::keys::ObjectKey;
use modunest_core::name::PluginName;
use modunest_core::statement::{OrgState, PluginState, SignedStatement, Statement, Subject};
use modunest_tlog::TileId;

use super::bundle::{Bundle, Entry, Previous};
use super::judge::{Before, Folded, Judged, Known, fold_org, judge};
use super::log_end::LogEnd;
use super::objects::READS_AT_ONCE;
use crate::Functions;
use crate::error::Error;
use crate::storage::Fetch;
use crate::store::head::Roots;
use crate::store::pending::Pending;

/// A step that was worked out.
pub(super) struct Step {
    pub(super) bundle: Bundle,
    /// The state that it leads to.
    pub(super) next: Roots,
    /// New tiles of the log.
    pub(super) tiles: Vec<(TileId, Bytes)>,
    /// New objects of the index.
    pub(super) objects: Vec<(ObjectKey, Digest, Bytes)>,
    /// Objects of the index that the new ones take the place of.
    pub(super) replaced: Vec<Digest>,
    /// The index file that each changed subject now has.
    pub(super) files: BTreeMap<Subject, Digest>,
    /// What the organisations come to that are spoken of.
    pub(super) orgs: Vec<OrgState>,
    /// The end of the log behind the step.
    pub(super) end: LogEnd,
}

/// What an update of the index came to.
struct Updated {
    root: Digest,
    written: Vec<Written>,
    files: BTreeMap<Subject, Digest>,
    replaced: Vec<Digest>,
}

/// Objects at hand for the pure update.
#[derive(Default)]
struct AtHand(BTreeMap<Digest, Bytes>);

impl Source for AtHand {
    fn get(&self, digest: Digest) -> Option<&[u8]> {
        self.0.get(&digest).map(AsRef::as_ref)
    }
}

impl Functions {
    /// Decides which of the statements follow `roots`.
    pub(super) async fn judge(
        &self,
        roots: &Roots,
        pending: Vec<Pending>,
    ) -> Result<Judged, Error> {
        let mut subjects = BTreeSet::new();
        for pending in &pending {
            let statement = pending.statement.statement();
            subjects.insert(Subject::Org(statement.subject().org()));
            subjects.insert(statement.subject());
            if let Statement::Ownership(ownership) = statement {
                subjects.insert(Subject::Org(ownership.owner.clone()));
            }
        }
        let mut known = self.known(roots.index, subjects.clone()).await?;
        // Plugins that changed hands are proven by the keys of all who owned them.
        let owners: BTreeSet<Subject> =
            known.values().flat_map(Before::orgs).map(Subject::Org).collect();
        known.extend(self.known(roots.index, &owners - &subjects).await?);
        let (keys, registry) = (self.0.keys.clone(), self.0.registry_keys.clone());
        let size = roots.log.size;
        // Up to some thousands of signatures, each 34 µs or more.
        tokio::task::spawn_blocking(move || judge(pending, &known, size, &keys, &registry))
            .await
            .map_err(|_| Error::Broken("judging statements panicked"))?
    }

    /// Keeps what the plugins of a step come to, for the steps that follow it. Of `plugins`,
    /// which were folded for the step's entries.
    pub(super) fn keep_folded(&self, step: &Step, plugins: BTreeMap<PluginName, PluginState>) {
        let lengths: BTreeMap<Digest, usize> =
            step.objects.iter().map(|(_, digest, bytes)| (*digest, bytes.len())).collect();
        for (plugin, state) in plugins {
            let file = step.files.get(&Subject::Plugin(plugin));
            if let Some((file, length)) = file.and_then(|file| Some((*file, *lengths.get(file)?))) {
                self.0.sequencer.objects.keep_folded(file, Folded { state, length_bytes: length });
            }
        }
    }

    /// What the index has of subjects, as far as it has something.
    async fn known(&self, root: Digest, subjects: BTreeSet<Subject>) -> Result<Known, Error> {
        let objects = &self.0.sequencer.objects;
        let walks = subjects.into_iter().map(|subject| async move {
            let before = objects.before(&self.0.storage, root, &subject).await?;
            Ok::<_, Error>(before.map(|before| (subject, before)))
        });
        let found: Vec<_> =
            stream::iter(walks).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Works a step out. Nothing is written.
    pub(super) async fn step(
        &self,
        previous: Previous,
        entries: Vec<Entry>,
    ) -> Result<Step, Error> {
        let mut end = self.log_end(&previous.roots.log).await?;
        let mut additions: Vec<(u64, SignedStatement)> = Vec::with_capacity(entries.len());
        for entry in &entries {
            additions.push((end.append(entry.statement.bytes())?, entry.statement.clone()));
        }
        let tiles = end.take_tiles().into_iter().map(|(id, bytes)| (id, bytes.into())).collect();
        let Updated { root: index, written, files, replaced } =
            self.update_index(previous.roots.index, &additions).await?;
        let objects = written
            .into_iter()
            .map(|object| match object {
                Written::Node(digest, bytes) => (ObjectKey::Node(digest), digest, bytes.into()),
                Written::Bin(digest, bytes) => (ObjectKey::Bin(digest), digest, bytes.into()),
                Written::File(digest, bytes) => (ObjectKey::Index(digest), digest, bytes.into()),
            })
            .collect::<Vec<_>>();
        let mut orgs = Vec::new();
        for (subject, digest) in &files {
            if let Subject::Org(org) = subject {
                let bytes = written_file(&objects, *digest)?;
                let file = IndexFile::parse(subject, bytes)?;
                let folded = fold_org(org, Some(&file), &self.0.registry_keys);
                orgs.push(folded.map_err(|error| {
                    tracing::error!(%org, %error, "the statements of a step do not fold");
                    Error::Broken("the statements of a step do not fold")
                })?);
            }
        }
        let next = Roots { epoch: previous.roots.epoch + 1, index, log: end.head() };
        let bundle = Bundle { previous, entries };
        Ok(Step { bundle, next, tiles, objects, replaced, files, orgs, end })
    }

    /// The end of the log: the one that is kept, or read from the tiles.
    async fn log_end(&self, log: &LogHead) -> Result<LogEnd, Error> {
        if let Some(end) = self.0.sequencer.end().filter(|end| end.head() == *log) {
            return Ok(end);
        }
        let reads = LogEnd::tiles(log.size).into_iter().map(|(id, max_bytes)| async move {
            match self.0.storage.get_public(ObjectKey::Tile(id), max_bytes).await? {
                Fetch::Found(fetched) => Ok((id, fetched.bytes)),
                Fetch::Absent => Err(Error::Broken("a tile at the end of the log is not there")),
                Fetch::TooLong => Err(Error::Broken("a tile at the end of the log is too long")),
            }
        });
        let tiles: BTreeMap<TileId, Bytes> =
            stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        LogEnd::load(log, &tiles)
    }

    /// Appends to the index.
    async fn update_index(
        &self,
        root: Digest,
        additions: &[(u64, SignedStatement)],
    ) -> Result<Updated, Error> {
        let objects = &self.0.sequencer.objects;
        let mut at_hand = AtHand::default();
        loop {
            match update(Some(root), additions, &at_hand)? {
                Update::Done { root, written, files } => {
                    // What was asked for is what stands on the way to what changes.
                    let replaced = at_hand.0.into_keys().collect();
                    return Ok(Updated { root, written, files, replaced });
                }
                Update::Need { nodes, bins, files } => {
                    let keys = (nodes.into_iter().map(ObjectKey::Node))
                        .chain(bins.into_iter().map(ObjectKey::Bin))
                        .chain(files.into_iter().map(ObjectKey::Index));
                    let fetches = keys.map(|key| objects.get(&self.0.storage, key));
                    let fetched: Vec<(Digest, Bytes)> =
                        stream::iter(fetches).buffer_unordered(READS_AT_ONCE).try_collect().await?;
                    at_hand.0.extend(fetched);
                }
            }
        }
    }
}

/// An index file among the objects of a step.
fn written_file(objects: &[(ObjectKey, Digest, Bytes)], file: Digest) -> Result<&Bytes, Error> {
    let found = objects.iter().find(|(_, digest, _)| *digest == file);
    let (_, _, bytes) = found.ok_or(Error::Broken("a step lacks a file that it names"))?;
    Ok(bytes)
}
