//! The one table.
//!
//! Keys are `pk` and `sk`, both text. Every entity is one item; nothing is kept twice but
//! what the sequencer folds from the log (marked *fold*), which only it writes, once readers
//! see the statements it is folded from.
//!
//! | Entity | `pk` | `sk` | Attributes |
//! |---|---|---|---|
//! | User | `user#<user>` | `user` | `registry_admin`, `created_at` |
//! | Token | `token#<first 12 hex of hash>` | `<hash>` | `user`, `scopes`, `label`, `created_at`, `expires_at`, `ttl` |
//! | First start | `bootstrap` | `bootstrap` | `created_at` |
//! | Organisation | `org#<org>` | `org` | `created_at`, `members` (JSON), `members_version`; *fold:* `keys` (JSON), `next_sequence`, `next_previous` |
//! | Plugin | `plugin#<org/name>` | `plugin` | `created_at`; *fold:* `owner`, `next_sequence`, `next_previous`, `registry_next_sequence`, `registry_next_previous` |
//! | Release | `plugin#<org/name>` | `release#<version>` | `session`, `statement`; *fold:* `epoch` once published |
//! | Reservation | `skeleton#<skeleton>` | `skeleton` | `name`: the organisation or plugin that has it |
//! | Session | `session#<id>` | `session` | see [`sessions`] |
//! | Pending statement | `pending` | `<kind>#<subject>#<chain>#<sequence>#<statement digest>` | `subject`, `statement`, `created_at`; of a release also `session`, `ruleset`, `outcome`, `report` |
//! | Outcome | `statement#<digest>` | `statement` | `epoch`, or `rejection` (JSON) and `ttl`; for statements without session |
//! | Head | `head` | `head` | `epoch`, `index`, `log_size`, `log_root`; `bundle`: what led to it; `applied`: the newest epoch that readers see and the fold has |
//! | Archive | `archive#<digest>` | `archive` | `plugin`, `version`: the release that it is of |
//! | Downloads of a version | `downloads#<org/name>` | `version#<version>` | `count` |
//! | Downloads on a day | `downloads#<org/name>` | `day#<YYYY-MM-DD>` | `count`, `ttl` |
//! | Counted part of a batch | `downloads-batch#<batch>` | `part#<n>` | `ttl` |
//!
//! One sparse index, `due` (`due_kind`, `due_at`; keys only): sessions that somebody must
//! look at when `due_at` has come: the upload's deadline, the lease's end, or the removal of
//! what an ended session left in staging. Sessions with nothing to do are not in it. The
//! index is read eventually consistent, and every session it names is read again.
//!
//! Pending statements share one partition so that the sequencer reads them all, strongly
//! consistent, in one query, each chain in its order. Each costs 8 write units at most twice: a partition's 1,000
//! units a second bear 60 publishes a second, fourteen times the bar of 250 a minute.
//!
//! What must be exact, and by what:
//!
//! | Promise | Condition |
//! |---|---|
//! | One session a version | transaction: release absent, or of the ended session that was seen |
//! | One worker a session | `fence` grows with each lease; every later write names it |
//! | A statement is pending exactly while its session is `committing` | one transaction |
//! | There is one log, and statements are in it once, in chain order | swap of the head item on its `epoch`, and only when `applied` has reached it |
//! | The fold has every epoch | transactions while the head item is at that epoch, which set the same again when they are repeated; the last one sets `applied` |
//! | No statement is both refused and in the log | refused only behind the swap, in a transaction with the head item's `epoch` |
//! | One holder of a look-alike name | reservation absent or one's own |
//! | An organisation keeps an owner | `members_version` |
//! | A batch of downloads counts once | transaction: every counter of a part, and its marker absent |
//!
//! Downloads never touch what publishing depends on. A plugin's counters share a partition,
//! whose 1,000 write units a second bear 250 parts a second for one plugin, at two units for
//! each of its two or more items. They are read eventually consistent.
//!
//! Limits: a session with a statement of 8 KB, a problem and its sets stays below 24 KB; an
//! organisation below 100 KB (see `MEMBERS_MAX` and `KEYS_MAX`); DynamoDB's item limit is 400 KB.

pub(crate) mod downloads;
pub(crate) mod head;
pub(crate) mod item;
pub(crate) mod orgs;
pub(crate) mod pending;
pub(crate) mod plugins;
pub(crate) mod sessions;
mod table;
pub(crate) mod users;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    ConditionCheck, Delete, Put, ReturnValue, TransactWriteItem, Update,
};

use crate::error::Error;
use crate::faults;
use item::{Change, Item, Key, text};

const DYNAMODB: &str = "DynamoDB";
/// Name of the sparse index.
pub(crate) const DUE_INDEX: &str = "due";
/// Most items in a transaction (DynamoDB, "Service quotas").
pub(crate) const TRANSACTION_MAX_ITEMS: usize = 100;

/// Whether a conditional write was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Write {
    /// It was.
    Done,
    /// A condition did not hold, and nothing was changed.
    Conflict,
}

/// The table.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    table: String,
}

fn failed<E>(operation: &'static str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Error::from_aws(DYNAMODB, operation, error)
}

impl Store {
    pub(crate) fn new(client: Client, table: String) -> Self {
        Store { client, table }
    }

    /// Reads an item, strongly consistent.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        let answer = Box::pin(
            self.client
                .get_item()
                .table_name(&self.table)
                .set_key(Some(key.attributes()))
                .consistent_read(true)
                .send(),
        )
        .await
        .map_err(|error| failed("GetItem", &error))?;
        Ok(answer.item)
    }

    /// Changes an item. Answers the whole item as it is afterwards, `None` when a condition
    /// does not hold.
    pub(crate) async fn update(&self, key: &Key, change: &Change) -> Result<Option<Item>, Error> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression(change.update_expression())
            .set_condition_expression(change.condition_expression())
            .set_expression_attribute_names(change.names())
            .set_expression_attribute_values(change.values())
            .return_values(ReturnValue::AllNew);
        let sent = faults::write(Box::pin(request.send())).await;
        match sent {
            Ok(answer) => Ok(Some(answer.attributes.unwrap_or_default())),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("UpdateItem", &error)),
        }
    }

    /// Writes an item whole.
    pub(crate) async fn put(&self, item: Item, condition: &Change) -> Result<Write, Error> {
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.condition_expression())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values());
        let sent = faults::write(Box::pin(request.send())).await;
        match sent {
            Ok(_) => Ok(Write::Done),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(Write::Conflict)
            }
            Err(error) => Err(failed("PutItem", &error)),
        }
    }

    /// Deletes an item; one that is not there is deleted already.
    pub(crate) async fn delete(&self, key: &Key) -> Result<(), Error> {
        let request =
            self.client.delete_item().table_name(&self.table).set_key(Some(key.attributes()));
        faults::write(Box::pin(request.send()))
            .await
            .map(|_| ())
            .map_err(|error| failed("DeleteItem", &error))
    }

    /// The first items of a partition in the order of their sort keys, strongly consistent.
    /// An answer ends at 1 MB (DynamoDB, "Query"), so there may be several.
    pub(crate) async fn partition(&self, partition: &str, limit: i32) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        let mut start = None;
        let mut left = limit;
        loop {
            let answer = Box::pin(
                self.client
                    .query()
                    .table_name(&self.table)
                    .key_condition_expression("#pk = :pk")
                    .expression_attribute_names("#pk", "pk")
                    .expression_attribute_values(":pk", text(partition))
                    .consistent_read(true)
                    .limit(left)
                    .set_exclusive_start_key(start)
                    .send(),
            )
            .await
            .map_err(|error| failed("Query", &error))?;
            left -= answer.count;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() || left <= 0 {
                return Ok(items);
            }
        }
    }

    /// Items of a partition with sort keys from `first` to `last`, all of them, eventually
    /// consistent.
    pub(crate) async fn range(
        &self,
        partition: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let answer = Box::pin(
                self.client
                    .query()
                    .table_name(&self.table)
                    .key_condition_expression("#pk = :pk AND #sk BETWEEN :first AND :last")
                    .expression_attribute_names("#pk", "pk")
                    .expression_attribute_names("#sk", "sk")
                    .expression_attribute_values(":pk", text(partition))
                    .expression_attribute_values(":first", text(first))
                    .expression_attribute_values(":last", text(last))
                    .set_exclusive_start_key(start)
                    .send(),
            )
            .await
            .map_err(|error| failed("Query", &error))?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// All or nothing, at most [`TRANSACTION_MAX_ITEMS`]. The SDK gives each call its own
    /// token, so that an attempt it repeats after a lost answer counts once.
    pub(crate) async fn transact(&self, items: Vec<TransactWriteItem>) -> Result<Write, Error> {
        debug_assert!(items.len() <= TRANSACTION_MAX_ITEMS);
        let request = self.client.transact_write_items().set_transact_items(Some(items));
        let sent = faults::write(Box::pin(request.send())).await;
        match sent {
            Ok(_) => Ok(Write::Done),
            Err(error) => {
                let reasons = match error.as_service_error() {
                    Some(aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                        canceled.cancellation_reasons()
                    }
                    _ => return Err(failed("TransactWriteItems", &error)),
                };
                // Throttling and validation cancel too; those are not answers to a condition.
                let conflict = reasons.iter().any(|reason| {
                    matches!(reason.code(), Some("ConditionalCheckFailed" | "TransactionConflict"))
                });
                if conflict {
                    tracing::debug!(?reasons, "a transaction met a condition that does not hold");
                    Ok(Write::Conflict)
                } else {
                    Err(failed("TransactWriteItems", &error))
                }
            }
        }
    }

    pub(crate) fn in_transaction_put(
        &self,
        item: Item,
        condition: &Change,
    ) -> Result<TransactWriteItem, Error> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.condition_expression())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .build()
            .map_err(|_| Error::Broken("a transaction's put is incomplete"))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    pub(crate) fn in_transaction_update(
        &self,
        key: &Key,
        change: &Change,
    ) -> Result<TransactWriteItem, Error> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression(change.update_expression())
            .set_condition_expression(change.condition_expression())
            .set_expression_attribute_names(change.names())
            .set_expression_attribute_values(change.values())
            .build()
            .map_err(|_| Error::Broken("a transaction's update is incomplete"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    pub(crate) fn in_transaction_delete(
        &self,
        key: &Key,
        condition: &Change,
    ) -> Result<TransactWriteItem, Error> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .set_condition_expression(condition.condition_expression())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .build()
            .map_err(|_| Error::Broken("a transaction's delete is incomplete"))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    pub(crate) fn in_transaction_check(
        &self,
        key: &Key,
        condition: &Change,
    ) -> Result<TransactWriteItem, Error> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .condition_expression(condition.condition_expression().unwrap_or_default())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .build()
            .map_err(|_| Error::Broken("a transaction's check is incomplete"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }
}
