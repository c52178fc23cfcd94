//! Carrying out a step that was decided: objects, then what readers see, then the table.
//!
//! Everything here may be done several times, by several processes at once, and be cut off
//! anywhere: objects are stored unless they are there, readers are never taken back, and the
//! table's transactions set the same values again.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::keys::StagingKey;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Chain, Link, Statement, Subject};

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
        let kept = &self.0.sequencer.objects;
        let tiles = stream::iter(std::mem::take(&mut step.tiles))
            .map(|(id, bytes)| storage.put_tile(id, bytes))
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect::<()>();
        let objects = stream::iter(std::mem::take(&mut step.objects))
            .map(|(key, digest, bytes)| async move {
                storage.put_content(key, bytes.clone()).await?;
                kept.keep(digest, bytes);
                Ok::<_, Error>(())
            })
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect::<()>();
        // The step before was carried out to the end, or this one could not have followed it.
        let before = async {
            match step.bundle.previous.bundle {
                Some(bundle) => storage.delete_staged(&[StagingKey::Bundle(bundle)]).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(tiles, objects, before)?;
        self.show(&step.next).await?;
        self.fold(&step).await?;
        self.0.sequencer.keep_end(step.end);
        tracing::debug!(
            epoch = step.next.epoch,
            size = step.next.log.size,
            statements = step.bundle.entries.len(),
            "carried out a step of the log"
        );
        Ok(step.bundle.entries.len())
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
