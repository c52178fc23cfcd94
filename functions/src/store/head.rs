//! The head item: the one thing that writers of the index compete for.

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::digest::Digest;

use super::item::{Change, Key, Row, number, text};
use super::{Store, Write};
use crate::error::Error;

/// The newest state of the index; what readers see follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    pub(crate) epoch: u64,
    pub(crate) index: Digest,
}

fn head_key() -> Key {
    Key::new("head", "head")
}

impl Store {
    pub(crate) async fn head(&self) -> Result<Option<HeadRecord>, Error> {
        let Some(item) = self.get(&head_key()).await? else { return Ok(None) };
        let row = Row::new("head", &item);
        Ok(Some(HeadRecord { epoch: row.number("epoch")?, index: row.parse("index")? }))
    }

    /// The first head of a registry.
    pub(crate) async fn create_head(&self, head: HeadRecord) -> Result<Write, Error> {
        let item = head_key()
            .item([("epoch", Some(number(head.epoch))), ("index", Some(text(head.index)))]);
        self.put(item, &Change::absent()).await
    }

    /// Part of the swap: `next` follows `last` and nothing else.
    pub(crate) fn swap_head(
        &self,
        last: HeadRecord,
        next: HeadRecord,
    ) -> Result<TransactWriteItem, Error> {
        let change = Change::new()
            .set("epoch", number(next.epoch))
            .set("index", text(next.index))
            .when("#epoch = :last")
            .value(":last", number(last.epoch));
        self.in_transaction_update(&head_key(), &change)
    }
}
