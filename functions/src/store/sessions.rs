//! Publish sessions. Every change names the state, and where a worker acts the fence, that it
//! relies on.
//!
//! | Attribute | Meaning |
//! |---|---|
//! | `plugin`, `version`, `user`, `statement` | what is published, by whom |
//! | `traceparent` | the publish request's trace, which later work continues |
//! | `missing`, `arrived` | archives to upload; archives that did arrive |
//! | `state`, `changed_at`, `created_at`, `upload_until` | where it stands |
//! | `attempt`, `fence`, `owner`, `lease_until` | who works on it; `fence` never repeats |
//! | `findings`, `report`, `rejection`, `epoch` | what came of it |
//! | `due_kind`, `due_at` | when somebody must look at it; absent when nobody must |
//! | `ttl` | when DynamoDB may forget it |

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::Version;
use modunest_core::api::SessionView;
use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::name::{PluginName, UserName};
use modunest_core::problem::Problem;
use modunest_core::publish::{KEPT_FOR, LEASE, Lease, State};
use modunest_core::statement::{Release, SignedStatement, Statement};
use modunest_core::time::Timestamp;
use modunest_core::trace::TraceContext;

use super::item::{Change, Item, Key, Row, blob, json, number, set, text, time};
use super::pending::{Checked, Pending};
use super::{DUE_INDEX, Store, Write, failed};
use crate::error::Error;

const DUE_KIND: &str = "session";

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) plugin: PluginName,
    pub(crate) version: Version,
    pub(crate) user: UserName,
    pub(crate) statement: SignedStatement,
    pub(crate) traceparent: TraceContext,
    pub(crate) missing: BTreeSet<Digest>,
    pub(crate) arrived: BTreeSet<Digest>,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
    pub(crate) changed_at: Timestamp,
    pub(crate) upload_until: Timestamp,
    pub(crate) lease: Lease,
    pub(crate) fence: u64,
    pub(crate) owner: Option<String>,
    pub(crate) findings: Vec<String>,
    pub(crate) report: Option<Digest>,
    pub(crate) rejection: Option<Problem>,
    pub(crate) epoch: Option<u64>,
    /// Whether somebody must still look at it.
    pub(crate) due: bool,
}

fn session_key(id: SessionId) -> Key {
    Key::new(format!("session#{id}"), "session")
}

fn state_of(text: &str) -> Option<State> {
    use State::*;
    [
        Created, Uploading, Uploaded, Validating, Scanning, Committing, Published, Rejected,
        Expired, Cancelled,
    ]
    .into_iter()
    .find(|state| state.as_str() == text)
}

/// A move to `to` from one of `from`.
fn step(from: &[State], to: State, now: Timestamp) -> Change {
    debug_assert!(from.iter().all(|state| state.may_become(to)));
    moved(only(from), to, now)
}

fn moved(change: Change, to: State, now: Timestamp) -> Change {
    change.set("state", text(to)).set("changed_at", time(now))
}

fn only(from: &[State]) -> Change {
    let names: Vec<String> = (0..from.len()).map(|index| format!(":from{index}")).collect();
    let mut change = Change::new().when(&format!("#state IN ({})", names.join(", ")));
    for (name, state) in names.iter().zip(from) {
        change = change.value(name, text(state));
    }
    change
}

/// An end that follows one of `from`.
fn end(from: &[State], to: State, now: Timestamp) -> Change {
    debug_assert!(from.iter().all(|state| state.may_become(to)));
    ended(only(from), to, now)
}

/// An end: nothing but the removal of its uploads is due.
fn ended(change: Change, to: State, now: Timestamp) -> Change {
    moved(change, to, now)
        .set("due_at", time(now.plus(LEASE)))
        .set("due_kind", text(DUE_KIND))
        .set("ttl", number(now.plus(KEPT_FOR).as_secs()))
}

fn fenced(change: Change, fence: u64) -> Change {
    change.when("#fence = :fenced").value(":fenced", number(fence))
}

impl Session {
    /// What it releases.
    pub(crate) fn release(&self) -> Result<&Release, Error> {
        match self.statement.statement() {
            Statement::Release(release) => Ok(release),
            _ => Err(Error::Damaged { entity: "session", attribute: "statement".to_owned() }),
        }
    }

    /// Whether every upload is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_subset(&self.arrived)
    }

    pub(crate) fn view(&self) -> SessionView {
        SessionView {
            session: self.id,
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            state: self.state,
            attempt: self.lease.attempt,
            changed_at: self.changed_at,
            upload_until: self.upload_until,
            rejection: self.rejection.clone(),
            findings: self.findings.clone(),
            report: self.report,
            epoch: self.epoch,
        }
    }

    fn item(&self) -> Result<Item, Error> {
        let waits_for_upload = self.state == State::Uploading;
        let due_at = if waits_for_upload { self.upload_until } else { self.lease.until };
        Ok(session_key(self.id).item([
            ("plugin", Some(text(&self.plugin))),
            ("version", Some(text(&self.version))),
            ("user", Some(text(&self.user))),
            ("statement", Some(blob(self.statement.bytes()))),
            ("traceparent", Some(text(self.traceparent))),
            ("missing", set(&self.missing)),
            ("state", Some(text(self.state))),
            ("created_at", Some(time(self.created_at))),
            ("changed_at", Some(time(self.changed_at))),
            ("upload_until", Some(time(self.upload_until))),
            ("lease_until", Some(time(self.lease.until))),
            ("attempt", Some(number(u64::from(self.lease.attempt)))),
            ("fence", Some(number(self.fence))),
            ("due_kind", Some(text(DUE_KIND))),
            ("due_at", Some(time(due_at))),
        ]))
    }

    fn read(id: SessionId, item: &Item) -> Result<Self, Error> {
        let row = Row::new("session", item);
        let attempt = u32::try_from(row.number("attempt")?).map_err(|_| row.damaged("attempt"))?;
        Ok(Session {
            id,
            plugin: row.parse("plugin")?,
            version: row.parse("version")?,
            user: row.parse("user")?,
            statement: SignedStatement::parse(row.blob("statement")?)?,
            traceparent: row.parse("traceparent")?,
            missing: row.set("missing")?,
            arrived: row.set("arrived")?,
            state: state_of(row.text("state")?).ok_or_else(|| row.damaged("state"))?,
            created_at: row.time("created_at")?,
            changed_at: row.time("changed_at")?,
            upload_until: row.time("upload_until")?,
            lease: Lease { until: row.time("lease_until")?, attempt },
            fence: row.number("fence")?,
            owner: row.text_optional("owner")?.map(str::to_owned),
            findings: row.json("findings")?.unwrap_or_default(),
            report: row.parse_optional("report")?,
            rejection: row.json("rejection")?,
            epoch: row.number_optional("epoch")?,
            due: row.text_optional("due_kind")?.is_some(),
        })
    }
}

impl Store {
    pub(crate) async fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        self.get(&session_key(id)).await?.map(|item| Session::read(id, &item)).transpose()
    }

    async fn change(&self, id: SessionId, change: &Change) -> Result<Option<Session>, Error> {
        self.update(&session_key(id), change)
            .await?
            .map(|item| Session::read(id, &item))
            .transpose()
    }

    /// Opens a session for its version; `new_plugin` when nobody began to publish the plugin
    /// before, `instead_of` when an earlier session of the version ended without publishing.
    pub(crate) async fn open_session(
        &self,
        session: &Session,
        new_plugin: bool,
        instead_of: Option<SessionId>,
    ) -> Result<Write, Error> {
        let mut items = vec![
            self.in_transaction_put(session.item()?, &Change::absent())?,
            self.begin_release(
                &session.plugin,
                &session.version,
                session.id,
                &session.statement,
                instead_of,
            )?,
        ];
        if new_plugin {
            items.extend(self.new_plugin(&session.plugin, session.created_at)?);
        }
        self.transact(items).await
    }

    /// Gives the publisher until `until`; only while uploads are awaited.
    pub(crate) async fn extend_upload(
        &self,
        id: SessionId,
        until: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let change = only(&[State::Created, State::Uploading])
            .set("upload_until", time(until))
            .set("due_at", time(until));
        self.change(id, &change).await
    }

    /// Notes that an archive arrived; `None` when the session does not wait for any.
    pub(crate) async fn arrived(
        &self,
        id: SessionId,
        archive: Digest,
    ) -> Result<Option<Session>, Error> {
        let change = only(&[State::Created, State::Uploading])
            .when("contains(#missing, :archive)")
            .value(":archive", text(archive))
            .add_to_set("arrived", archive);
        self.change(id, &change).await
    }

    /// Ends the uploading: from now on anybody may take the work.
    pub(crate) async fn uploaded(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let change = step(&[State::Created, State::Uploading], State::Uploaded, now)
            .set("lease_until", time(now))
            .set("due_at", time(now));
        self.change(id, &change).await
    }

    /// Takes a session that was seen as `session`, to begin its checks (again). The lease that
    /// was seen decides, so of several that saw the same one gets it.
    pub(crate) async fn take(
        &self,
        session: &Session,
        lease: Lease,
        owner: &str,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let from = [State::Uploaded, State::Validating, State::Scanning];
        let change = step(&from, State::Validating, now)
            .set("lease_until", time(lease.until))
            .set("due_at", time(lease.until))
            .set("attempt", number(u64::from(lease.attempt)))
            .set("owner", text(owner))
            .increase("fence");
        self.change(session.id, &fenced(change, session.fence)).await
    }

    /// A worker goes on to `to`, and keeps the session for another lease.
    pub(crate) async fn advance(
        &self,
        session: &Session,
        to: State,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let until = now.plus(LEASE);
        let change = step(&[session.state], to, now)
            .set("lease_until", time(until))
            .set("due_at", time(until));
        self.change(session.id, &fenced(change, session.fence)).await
    }

    /// A worker keeps the session until `until`; in the past to let go of it.
    pub(crate) async fn hold(
        &self,
        session: &Session,
        until: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let change =
            only(&[session.state]).set("lease_until", time(until)).set("due_at", time(until));
        self.change(session.id, &fenced(change, session.fence)).await
    }

    /// Every check passed: hands the statement to the sequencer, with what they came to.
    pub(crate) async fn commit(
        &self,
        session: &Session,
        findings: &[String],
        checked: Checked,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let until = now.plus(LEASE);
        let change = step(&[State::Scanning], State::Committing, now)
            .set("findings", json(&findings)?)
            .set("report", text(checked.report))
            .set("lease_until", time(until))
            .set("due_at", time(until));
        let change = fenced(change, session.fence);
        let pending = Pending { statement: session.statement.clone(), checked: Some(checked) };
        self.transact(vec![
            self.in_transaction_update(&session_key(session.id), &change)?,
            self.pending_put(&pending, now)?,
        ])
        .await
    }

    /// Looks at a committing session again in a lease's time.
    pub(crate) async fn look_again(
        &self,
        session: &Session,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let until = now.plus(LEASE);
        let change =
            only(&[State::Committing]).set("lease_until", time(until)).set("due_at", time(until));
        self.change(session.id, &change).await
    }

    /// A check failed for good.
    pub(crate) async fn reject(
        &self,
        session: &Session,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let from = [State::Uploaded, State::Validating, State::Scanning];
        let change = fenced(end(&from, State::Rejected, now), session.fence)
            .set("rejection", json(problem)?);
        self.change(session.id, &change).await
    }

    /// The sequencer refuses a session's statement, which was judged against the state of
    /// `epoch`.
    pub(crate) async fn reject_committing(
        &self,
        epoch: u64,
        id: SessionId,
        statement: &SignedStatement,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let change =
            end(&[State::Committing], State::Rejected, now).set("rejection", json(problem)?);
        self.transact(vec![
            self.still_newest(epoch)?,
            self.pending_refused(statement)?,
            self.in_transaction_update(&session_key(id), &change)?,
        ])
        .await
    }

    /// Expired or cancelled while uploads were awaited.
    pub(crate) async fn end_upload(
        &self,
        id: SessionId,
        to: State,
        now: Timestamp,
    ) -> Result<Option<Session>, Error> {
        self.change(id, &end(&[State::Created, State::Uploading], to, now)).await
    }

    /// Part of carrying out an epoch: readers can see it.
    pub(crate) fn session_published(
        &self,
        id: SessionId,
        epoch: u64,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        let change = ended(Change::new(), State::Published, now).set("epoch", number(epoch));
        self.in_transaction_update(&session_key(id), &change)
    }

    /// Nobody needs to look at an ended session any more.
    pub(crate) async fn settled(&self, id: SessionId) -> Result<(), Error> {
        let ends = [State::Published, State::Rejected, State::Expired, State::Cancelled];
        let change = only(&ends).remove("due_kind").remove("due_at");
        self.update(&session_key(id), &change).await.map(|_| ())
    }

    /// Sessions that somebody must look at, the longest overdue first.
    pub(crate) async fn due(&self, until: Timestamp, limit: i32) -> Result<Vec<SessionId>, Error> {
        let answer = Box::pin(
            self.client
                .query()
                .table_name(&self.table)
                .index_name(DUE_INDEX)
                .key_condition_expression("#due_kind = :kind AND #due_at <= :until")
                .expression_attribute_names("#due_kind", "due_kind")
                .expression_attribute_names("#due_at", "due_at")
                .expression_attribute_values(":kind", text(DUE_KIND))
                .expression_attribute_values(":until", time(until))
                .limit(limit)
                .send(),
        )
        .await
        .map_err(|error| failed("Query", &error))?;
        let read = |item: &Item| {
            let row = Row::new("session", item);
            let id = row.text("pk")?.strip_prefix("session#").and_then(|id| id.parse().ok());
            row.required("pk", id)
        };
        answer.items.unwrap_or_default().iter().map(read).collect()
    }
}
