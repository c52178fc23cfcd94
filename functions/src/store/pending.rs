//! Statements that wait for the sequencer, and what became of those without a session.

use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::problem::Problem;
use modunest_core::statement::SignedStatement;
use modunest_core::time::Timestamp;

use super::item::{Change, Item, Key, Row, blob, json, number, text, time};
use super::{Store, Write};
use crate::error::Error;

const PENDING: &str = "pending";
/// How long a rejection can be asked about: longer than any client repeats a request.
const REJECTION_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A statement on its way into the index.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) statement: SignedStatement,
    /// The session that waits for it; `None` for yanks and keys.
    pub(crate) session: Option<SessionId>,
}

/// What became of a statement without a session.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is in the index from this epoch on.
    Applied(u64),
    /// It was refused.
    Rejected(Problem),
}

fn pending_key(digest: &Digest) -> Key {
    Key::new(PENDING, digest.to_hex())
}

fn outcome_key(digest: &Digest) -> Key {
    Key::new(format!("statement#{digest}"), "statement")
}

impl Store {
    pub(super) fn pending_put(
        &self,
        pending: &Pending,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        let item = pending_key(&pending.statement.digest()).item([
            ("subject", Some(text(pending.statement.statement().subject()))),
            ("statement", Some(blob(pending.statement.bytes()))),
            ("session", pending.session.map(text)),
            ("created_at", Some(time(now))),
        ]);
        self.in_transaction_put(item, &Change::new())
    }

    /// Hands a statement without session to the sequencer, unless it has been there.
    pub(crate) async fn append(
        &self,
        statement: &SignedStatement,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let pending = Pending { statement: statement.clone(), session: None };
        self.transact(vec![
            self.pending_put(&pending, now)?,
            self.in_transaction_check(&outcome_key(&statement.digest()), &Change::absent())?,
        ])
        .await
    }

    pub(crate) async fn outcome(&self, digest: &Digest) -> Result<Option<Outcome>, Error> {
        let Some(item) = self.get(&outcome_key(digest)).await? else { return Ok(None) };
        let row = Row::new("outcome", &item);
        if let Some(epoch) = row.number_optional("epoch")? {
            return Ok(Some(Outcome::Applied(epoch)));
        }
        let rejection = row.json("rejection")?;
        row.required("rejection", rejection).map(|problem| Some(Outcome::Rejected(problem)))
    }

    /// What waits, in no particular order.
    pub(crate) async fn pending(&self, limit: i32) -> Result<Vec<Pending>, Error> {
        let read = |item: &Item| {
            let row = Row::new("pending statement", item);
            Ok(Pending {
                statement: SignedStatement::parse(row.blob("statement")?)?,
                session: row.parse_optional("session")?,
            })
        };
        self.partition(PENDING, limit).await?.iter().map(read).collect()
    }

    /// Part of the swap and of a rejection: it waits no longer.
    pub(crate) fn pending_done(&self, digest: &Digest) -> Result<TransactWriteItem, Error> {
        self.in_transaction_delete(&pending_key(digest), &Change::present())
    }

    /// Part of the swap: a statement without session is in the index from `epoch` on.
    pub(crate) fn outcome_applied(
        &self,
        digest: &Digest,
        epoch: u64,
    ) -> Result<TransactWriteItem, Error> {
        let item = outcome_key(digest).item([("epoch", Some(number(epoch)))]);
        self.in_transaction_put(item, &Change::new())
    }

    /// Refuses a statement without session.
    pub(crate) async fn reject_statement(
        &self,
        digest: &Digest,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let item = outcome_key(digest).item([
            ("rejection", Some(json(problem)?)),
            ("ttl", Some(number(now.plus(REJECTION_KEPT_FOR).as_secs()))),
        ]);
        self.transact(vec![
            self.pending_done(digest)?,
            self.in_transaction_put(item, &Change::absent())?,
        ])
        .await
    }
}
