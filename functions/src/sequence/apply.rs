//! Carrying out a step that was decided: objects, then what readers see, then the table.
//!
//! Everything here may be done several times, by several processes at once, and be cut off
//! anywhere: objects are stored unless they are there, readers are never taken back, and the
//! table's transactions set the same values again.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::digest::Digest;
use modunest_core::keys::{ObjectKey, StagingKey};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Chain, Link, Statement, Subject};
use modunest_tlog::TileId;
use tokio::task::JoinSet;

use super::bundle::Waiting;
use super::objects::WRITES_AT_ONCE;
use super::step::Step;
use crate::Functions;
use crate::error::Error;
use crate::store::{TRANSACTION_MAX_ITEMS, Write};

/// How often a transaction is repeated because somebody else wrote one of its items, which
/// other processes do that carry out the same step.
const CONFLICTS_MAX: u32 = 40;
/// The longest random pause before that.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// Objects that one task stores, where there are tasks for all.
const OBJECTS_PER_TASK: usize = 256;
/// Tasks that store at the same time: two a processor of the machines that this is for.
const TASKS_MAX: usize = 4;

/// What is stored for readers.
enum Stored {
    Tile(TileId, Bytes),
    Object(ObjectKey, Digest, Bytes),
}

/// What a plugin's statements of one step change in the table.
#[derive(Default)]
struct PluginChange<'a> {
    owner: Option<&'a OrgName>,
    next: BTreeMap<Chain, Link>,
}

impl Functions {
    /// Carries out a step to the end. Answers how many statements it put before readers.
    pub(super) async fn apply(&self, mut step: Step) -> Result<usize, Error> {
        let storage = &self.0.storage;
        let tiles = std::mem::take(&mut step.tiles).into_iter();
        let tiles = tiles.map(|(id, bytes)| Stored::Tile(id, bytes));
        let objects = std::mem::take(&mut step.objects).into_iter();
        let objects = objects.map(|(key, digest, bytes)| Stored::Object(key, digest, bytes));
        let stored = self.store(tiles.chain(objects).collect());
        // The step before was carried out to the end, or this one could not have followed it.
        let before = async {
            match step.bundle.previous.bundle {
                Some(bundle) => storage.delete_staged(&[StagingKey::Bundle(bundle)]).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(stored, before)?;
        self.show(&step.next).await?;
        self.fold(&step).await?;
        self.0.sequencer.objects.forget(&step.replaced);
        self.0.sequencer.keep_end(step.end);
        tracing::debug!(
            epoch = step.next.epoch,
            size = step.next.log.size,
            statements = step.bundle.entries.len(),
            "carried out a step of the log"
        );
        Ok(step.bundle.entries.len())
    }

    /// Stores what readers will find, unless it is there. Much of it is shared by several tasks:
    /// signing and sending a small object is work, and one task has one processor.
    async fn store(&self, mut all: Vec<Stored>) -> Result<(), Error> {
        let parts = all.len().div_ceil(OBJECTS_PER_TASK).clamp(1, TASKS_MAX);
        let (each, at_once) = (all.len().div_ceil(parts), WRITES_AT_ONCE / parts);
        let mut tasks = JoinSet::new();
        while all.len() > each {
            let (functions, part) = (self.clone(), all.split_off(all.len() - each));
            tasks.spawn(async move { functions.store_part(part, at_once).await });
        }
        let others = async {
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|_| Error::Broken("storing objects panicked"))??;
            }
            Ok(())
        };
        tokio::try_join!(self.store_part(all, at_once), others)?;
        Ok(())
    }

    async fn store_part(&self, part: Vec<Stored>, at_once: usize) -> Result<(), Error> {
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let writes: Vec<_> = part.into_iter().map(|stored| self.store_one(stored)).collect();
        stream::iter(writes).buffer_unordered(at_once).try_collect::<()>().await
    }

    async fn store_one(&self, stored: Stored) -> Result<(), Error> {
        let storage = &self.0.storage;
        match stored {
            Stored::Tile(id, bytes) => storage.put_tile(id, bytes).await,
            Stored::Object(key, digest, bytes) => {
                storage.put_content(key, bytes.clone()).await?;
                self.0.sequencer.objects.keep(digest, bytes);
                Ok(())
            }
        }
    }

    /// Tells the table what readers see: chains and keys first, so that whoever learns of the
    /// end of a session can say the next thing at once.
    async fn fold(&self, step: &Step) -> Result<(), Error> {
        let store = &self.0.store;
        let epoch = step.next.epoch;
        let changes = self.changes(step)?;
        let mut chunks = changes.chunks(TRANSACTION_MAX_ITEMS - 1).peekable();
        if chunks.peek().is_none() {
            return self.transact_pending(epoch, &[store.carried_out(epoch)?]).await;
        }
        while let Some(chunk) = chunks.next() {
            let mut items = chunk.to_vec();
            items.push(match chunks.peek() {
                Some(_) => store.still_pending(epoch)?,
                None => store.carried_out(epoch)?,
            });
            self.transact_pending(epoch, &items).await?;
        }
        Ok(())
    }

    /// Writes a part of an epoch, unless all of it was written by others.
    async fn transact_pending(&self, epoch: u64, items: &[TransactWriteItem]) -> Result<(), Error> {
        for _ in 0..CONFLICTS_MAX {
            if self.0.store.transact(items.to_vec()).await? == Write::Done {
                return Ok(());
            }
            let head = self.newest().await?;
            if head.applied >= epoch {
                return Ok(());
            }
            super::pause(CONFLICT_PAUSE).await;
        }
        Err(Error::Unavailable {
            service: "sequencer",
            operation: "fold",
            detail: format!("others wrote the same items {CONFLICTS_MAX} times in a row"),
        })
    }

    fn changes(&self, step: &Step) -> Result<Vec<TransactWriteItem>, Error> {
        let store = &self.0.store;
        let (epoch, now) = (step.next.epoch, self.now());
        let mut plugins: BTreeMap<PluginName, PluginChange<'_>> = BTreeMap::new();
        for entry in &step.bundle.entries {
            let statement = entry.statement.statement();
            let Subject::Plugin(plugin) = statement.subject() else { continue };
            let change = plugins.entry(plugin).or_default();
            change.next.insert(statement.chain(), entry.statement.next_link());
            if let Statement::Ownership(ownership) = statement {
                change.owner = Some(&ownership.owner);
            }
        }
        let mut items = Vec::new();
        for state in &step.orgs {
            items.push(store.org_folded(state)?);
        }
        for (plugin, change) in &plugins {
            items.push(store.plugin_folded(plugin, change.owner, &change.next)?);
        }
        for entry in &step.bundle.entries {
            let digest = entry.statement.digest();
            match entry.waiting {
                Waiting::Nobody => continue,
                Waiting::Caller => items.push(store.outcome_applied(&digest, epoch)?),
                Waiting::Session(session) => {
                    items.push(store.session_published(session, epoch, now)?);
                    if let Statement::Release(release) = entry.statement.statement() {
                        items.push(store.release_published(
                            &release.plugin,
                            &release.version,
                            epoch,
                        )?);
                    }
                }
            }
            items.push(store.pending_done(&entry.statement)?);
        }
        Ok(items)
    }
}
