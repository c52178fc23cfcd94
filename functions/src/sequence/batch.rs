//! One swap: from what is pending to the next head item.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::digest::Digest;
use modunest_core::index::{IndexFile, Source, Update, Written, update};
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Refusal;
use modunest_core::statement::{SignedStatement, Statement, Subject};

use super::judge::{Judged, judge};
use super::objects::TRANSFERS_AT_ONCE;
use crate::Functions;
use crate::error::Error;
use crate::store::Write;
use crate::store::head::HeadRecord;
use crate::store::pending::Pending;

/// What became of a batch.
pub(super) struct Batch {
    /// In the index, if the swap was won.
    pub(super) accepted: Vec<Pending>,
    /// To be refused. Right even if the swap was lost: they did not follow what is past.
    pub(super) refused: Vec<(Pending, Refusal)>,
    /// The next head item; `None` when there was nothing to add or the swap was lost.
    pub(super) swapped: Option<HeadRecord>,
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
    pub(super) async fn batch(
        &self,
        head: HeadRecord,
        pending: Vec<Pending>,
    ) -> Result<Batch, Error> {
        let mut subjects = BTreeSet::new();
        for pending in &pending {
            let subject = pending.statement.statement().subject();
            subjects.insert(Subject::Org(subject.org()));
            subjects.insert(subject);
        }
        let files = self.files(head.index, subjects).await?;
        let registry = [self.0.registry_key.verifying_key()];
        // Some dozens of signatures, each 34 µs or more.
        let judged = tokio::task::spawn_blocking(move || judge(pending, &files, &registry))
            .await
            .map_err(|_| Error::Broken("judging statements panicked"))?;
        let Judged { accepted, plugins, orgs, refused } = judged;
        if accepted.is_empty() {
            return Ok(Batch { accepted, refused, swapped: None });
        }
        let additions: Vec<SignedStatement> =
            accepted.iter().map(|pending| pending.statement.clone()).collect();
        let index = self.write_index(head.index, &additions).await?;
        let next = HeadRecord { epoch: head.epoch + 1, index };
        let store = &self.0.store;
        let mut items = vec![store.swap_head(head, next)?];
        for state in plugins.values() {
            items.push(store.plugin_folded(state)?);
        }
        for state in orgs.values() {
            items.push(store.org_folded(state)?);
        }
        for pending in &accepted {
            let digest = pending.statement.digest();
            items.push(store.pending_done(&digest)?);
            items.push(match (pending.statement.statement(), pending.session) {
                (Statement::Release(release), Some(_)) => {
                    store.release_published(&release.plugin, &release.version, next.epoch)?
                }
                _ => store.outcome_applied(&digest, next.epoch)?,
            });
        }
        let swapped = match store.transact(items).await? {
            Write::Done => {
                tracing::debug!(
                    epoch = next.epoch,
                    statements = accepted.len(),
                    "swapped the head"
                );
                Some(next)
            }
            Write::Conflict => None,
        };
        Ok(Batch { accepted, refused, swapped })
    }

    /// The index files of subjects, as far as they have one.
    async fn files(
        &self,
        root: Digest,
        subjects: BTreeSet<Subject>,
    ) -> Result<BTreeMap<Subject, IndexFile>, Error> {
        let objects = &self.0.sequencer.objects;
        let walks = subjects.into_iter().map(|subject| async move {
            let file = objects.file(&self.0.storage, root, &subject).await?;
            Ok::<_, Error>(file.map(|file| (subject, file)))
        });
        let found: Vec<_> =
            stream::iter(walks).buffer_unordered(TRANSFERS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Writes the objects of the index with `additions`, and answers the new root.
    async fn write_index(
        &self,
        root: Digest,
        additions: &[SignedStatement],
    ) -> Result<Digest, Error> {
        let objects = &self.0.sequencer.objects;
        let storage = &self.0.storage;
        let mut at_hand = AtHand::default();
        loop {
            match update(Some(root), additions, &at_hand)? {
                Update::Need { nodes, bins, files } => {
                    let keys = (nodes.into_iter().map(ObjectKey::Node))
                        .chain(bins.into_iter().map(ObjectKey::Bin))
                        .chain(files.into_iter().map(ObjectKey::Index));
                    let fetches = keys.map(|key| objects.get(storage, key));
                    let fetched: Vec<(Digest, Bytes)> = stream::iter(fetches)
                        .buffer_unordered(TRANSFERS_AT_ONCE)
                        .try_collect()
                        .await?;
                    at_hand.0.extend(fetched);
                }
                Update::Done { root, written, .. } => {
                    let puts = written.into_iter().map(|object| async move {
                        let (key, digest, bytes) = match object {
                            Written::Node(digest, bytes) => {
                                (ObjectKey::Node(digest), digest, bytes)
                            }
                            Written::Bin(digest, bytes) => (ObjectKey::Bin(digest), digest, bytes),
                            Written::File(digest, bytes) => {
                                (ObjectKey::Index(digest), digest, bytes)
                            }
                        };
                        let bytes = Bytes::from(bytes);
                        storage.put_content(key, bytes.clone()).await?;
                        objects.keep(digest, bytes);
                        Ok::<_, Error>(())
                    });
                    stream::iter(puts)
                        .buffer_unordered(TRANSFERS_AT_ONCE)
                        .try_collect::<()>()
                        .await?;
                    return Ok(root);
                }
            }
        }
    }
}
