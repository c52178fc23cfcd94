//! The head item: the one thing that writers of the log and the index compete for.

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::digest::Digest;
use modunest_core::index::LogHead;
use serde::{Deserialize, Serialize};

use super::item::{Change, Key, Row, number, text};
use super::{Store, Write};
use crate::error::Error;

/// A state of the log and the index: what a head says, but for its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Roots {
    pub(crate) epoch: u64,
    pub(crate) index: Digest,
    pub(crate) log: LogHead,
}

/// The newest state, and how far it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    pub(crate) roots: Roots,
    /// What led to it; `None` at a registry's beginning.
    pub(crate) bundle: Option<Digest>,
    /// The newest epoch that readers see and that the rest of the table has.
    pub(crate) applied: u64,
}

impl HeadRecord {
    /// Whether readers and the rest of the table still lag behind.
    pub(crate) const fn is_pending(&self) -> bool {
        self.applied < self.roots.epoch
    }
}

fn head_key() -> Key {
    Key::new("head", "head")
}

fn set_roots(change: Change, roots: &Roots) -> Change {
    change
        .set("epoch", number(roots.epoch))
        .set("index", text(roots.index))
        .set("log_size", number(roots.log.size))
        .set("log_root", text(roots.log.root))
}

/// While an epoch is the newest and not carried out.
fn while_pending(epoch: u64) -> Change {
    Change::new().when("#epoch = :this AND #applied < :this").value(":this", number(epoch))
}

impl Store {
    pub(crate) async fn head(&self) -> Result<Option<HeadRecord>, Error> {
        let Some(item) = self.get(&head_key()).await? else { return Ok(None) };
        let row = Row::new("head", &item);
        let roots = Roots {
            epoch: row.number("epoch")?,
            index: row.parse("index")?,
            log: LogHead { size: row.number("log_size")?, root: row.parse("log_root")? },
        };
        Ok(Some(HeadRecord {
            roots,
            bundle: row.parse_optional("bundle")?,
            applied: row.number("applied")?,
        }))
    }

    /// The first head of a registry, with nothing to carry out.
    pub(crate) async fn create_head(&self, roots: &Roots) -> Result<Write, Error> {
        let change = set_roots(Change::absent(), roots).set("applied", number(roots.epoch));
        self.head_change(&change).await
    }

    /// The swap: `next`, which `bundle` leads to, follows `last` and nothing else, and not
    /// before that was carried out.
    pub(crate) async fn swap_head(
        &self,
        last: &Roots,
        next: &Roots,
        bundle: Digest,
    ) -> Result<Write, Error> {
        let change = set_roots(Change::new(), next)
            .set("bundle", text(bundle))
            .when("#epoch = :last AND #applied = :last")
            .value(":last", number(last.epoch));
        self.head_change(&change).await
    }

    async fn head_change(&self, change: &Change) -> Result<Write, Error> {
        Ok(match self.update(&head_key(), change).await? {
            Some(_) => Write::Done,
            None => Write::Conflict,
        })
    }

    /// Part of carrying out an epoch: nobody has done it yet.
    pub(crate) fn still_pending(&self, epoch: u64) -> Result<TransactWriteItem, Error> {
        self.in_transaction_check(&head_key(), &while_pending(epoch))
    }

    /// The last part of carrying out an epoch.
    pub(crate) fn carried_out(&self, epoch: u64) -> Result<TransactWriteItem, Error> {
        let change = while_pending(epoch).set("applied", number(epoch));
        self.in_transaction_update(&head_key(), &change)
    }

    /// Part of a refusal: nothing followed the state that the statement was judged against.
    pub(super) fn still_newest(&self, epoch: u64) -> Result<TransactWriteItem, Error> {
        let change = Change::new().when("#epoch = :this").value(":this", number(epoch));
        self.in_transaction_check(&head_key(), &change)
    }
}
