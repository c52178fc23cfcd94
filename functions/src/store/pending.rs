//! Statements that wait for the sequencer, and what became of those without a session.

use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::problem::Problem;
use modunest_core::statement::{Chain, SignedStatement, Subject, VerdictOutcome};
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
    /// Of a release, where it comes from; `None` of everything that needs no upload.
    pub(crate) checked: Option<Checked>,
}

/// What the checks of a release came to, for the verdict that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The session that waits for it.
    pub(crate) session: SessionId,
    /// Number of the rules that were applied.
    pub(crate) ruleset: u32,
    pub(crate) outcome: VerdictOutcome,
    /// The report.
    pub(crate) report: Digest,
}

/// What became of a statement without a session.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is in the index from this epoch on.
    Applied(u64),
    /// It was refused.
    Rejected(Problem),
}

fn outcome_of(text: &str) -> Option<VerdictOutcome> {
    [VerdictOutcome::Clean, VerdictOutcome::Findings, VerdictOutcome::Rejected]
        .into_iter()
        .find(|outcome| outcome.as_str() == text)
}

fn read_pending(item: &Item) -> Result<Pending, Error> {
    let row = Row::new("pending statement", item);
    let checked = match row.parse_optional("session")? {
        None => None,
        Some(session) => Some(Checked {
            session,
            ruleset: u32::try_from(row.number("ruleset")?).map_err(|_| row.damaged("ruleset"))?,
            outcome: row.required("outcome", outcome_of(row.text("outcome")?))?,
            report: row.parse("report")?,
        }),
    };
    let statement = SignedStatement::parse(row.blob("statement")?)?;
    Ok(Pending { statement, checked })
}

/// The sort key is in the order in which the sequencer judges: organisations before plugins, and
/// each chain from its next place on. So wherever a page ends, what a statement follows is in the
/// same page or in one before.
fn pending_key(signed: &SignedStatement) -> Key {
    let statement = signed.statement();
    let subject = statement.subject();
    let kind = match subject {
        Subject::Org(_) => "org",
        Subject::Plugin(_) => "plugin",
    };
    let chain = match statement.chain() {
        Chain::Owner => "owner",
        Chain::Registry => "registry",
    };
    let sequence = statement.link().sequence;
    Key::new(PENDING, format!("{kind}#{subject}#{chain}#{sequence:020}#{}", signed.digest()))
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
        let item = pending_key(&pending.statement).item([
            ("subject", Some(text(pending.statement.statement().subject()))),
            ("statement", Some(blob(pending.statement.bytes()))),
            ("session", pending.checked.map(|checked| text(checked.session))),
            ("ruleset", pending.checked.map(|checked| number(checked.ruleset.into()))),
            ("outcome", pending.checked.map(|checked| text(checked.outcome.as_str()))),
            ("report", pending.checked.map(|checked| text(checked.report))),
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
        let pending = Pending { statement: statement.clone(), checked: None };
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

    /// What waits, at most so many: see [`pending_key`] for the order.
    pub(crate) async fn pending(&self, limit: i32) -> Result<Vec<Pending>, Error> {
        self.partition(PENDING, limit).await?.iter().map(read_pending).collect()
    }

    /// Part of carrying out an epoch: it waits no longer.
    pub(crate) fn pending_done(
        &self,
        statement: &SignedStatement,
    ) -> Result<TransactWriteItem, Error> {
        self.in_transaction_delete(&pending_key(statement), &Change::new())
    }

    /// Part of a refusal: it waits no longer, and nobody else ended it.
    pub(super) fn pending_refused(
        &self,
        statement: &SignedStatement,
    ) -> Result<TransactWriteItem, Error> {
        self.in_transaction_delete(&pending_key(statement), &Change::present())
    }

    /// Part of carrying out an epoch: a statement without session is in the index from `epoch` on.
    pub(crate) fn outcome_applied(
        &self,
        digest: &Digest,
        epoch: u64,
    ) -> Result<TransactWriteItem, Error> {
        let item = outcome_key(digest).item([("epoch", Some(number(epoch)))]);
        self.in_transaction_put(item, &Change::new())
    }

    /// Refuses a statement without session, which was judged against the state of `epoch`.
    pub(crate) async fn reject_statement(
        &self,
        epoch: u64,
        statement: &SignedStatement,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let item = outcome_key(&statement.digest()).item([
            ("rejection", Some(json(problem)?)),
            ("ttl", Some(number(now.plus(REJECTION_KEPT_FOR).as_secs()))),
        ]);
        self.transact(vec![
            self.still_newest(epoch)?,
            self.pending_refused(statement)?,
            self.in_transaction_put(item, &Change::absent())?,
        ])
        .await
    }
}
