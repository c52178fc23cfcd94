//! Opening and following publish sessions.

mod facts;
mod staff;
mod statement;
mod uploads;

use modunest_core::api::{PublishRequest, PublishResponse, SessionView};
use modunest_core::keys::{SessionId, StagingKey};
use modunest_core::name::{PluginName, UserName};
use modunest_core::problem::{Code, Refusal};
use modunest_core::publish::{self, Lease, Missing, Plan, State, UPLOAD_WINDOW};
use modunest_core::statement::{Link, Release, SignedStatement, Statement, StatementError};

use crate::Functions;
use crate::error::Error;
use crate::identity::Caller;
use crate::store::Write;
use crate::store::plugins::Plugin;
use crate::store::sessions::Session;

/// How often facts are read again because they changed while the session was opened.
const OPEN_TRIES: u32 = 5;

/// Reads a statement that came in JSON.
pub(crate) fn parse_statement(text: &str) -> Result<SignedStatement, Error> {
    SignedStatement::parse(text.as_bytes().to_vec()).map_err(|error| {
        let code = match &error {
            StatementError::TooLong(_) => Code::TooLarge,
            _ => Code::InvalidStatement,
        };
        Refusal::new(code, format!("/statement: {error}")).into()
    })
}

impl Functions {
    pub(crate) async fn publish(
        &self,
        caller: &Caller,
        request: &PublishRequest,
    ) -> Result<PublishResponse, Error> {
        let signed = parse_statement(&request.statement)?;
        let Statement::Release(release) = signed.statement() else {
            return Err(Refusal::new(
                Code::InvalidStatement,
                "/statement: only releases are published here; send all else to /v1/statements",
            )
            .into());
        };
        for _ in 0..OPEN_TRIES {
            let plugin = self.plugin_at(&release.plugin, signed.statement().link()).await?;
            let owner = plugin.as_ref().map_or_else(|| release.plugin.org(), |it| it.owner.clone());
            let org = self.authorise_publish(caller, &owner).await?;
            let read = self.facts(release, plugin, &org).await?;
            let plan = publish::decide(&signed, &read.facts)?;
            if request.dry_run {
                return Ok(dry_run(&plan));
            }
            match plan {
                Plan::Resume { session, .. } => {
                    if let Some(answer) = self.resume(session).await? {
                        return Ok(answer);
                    }
                }
                Plan::Open { missing } => {
                    let session = self.new_session(&signed, release, &caller.user, &missing);
                    let opened = self
                        .0
                        .store
                        .open_session(&session, read.new_plugin, read.ended_session)
                        .await?;
                    if opened == Write::Done {
                        return self.opened(session, &missing).await;
                    }
                }
            }
        }
        Err(Refusal::new(
            Code::Unavailable,
            "others publish this version at the same moment; try again",
        )
        .into())
    }

    /// What the table knows of a plugin, as new as who signed a statement for the place `link`
    /// has seen: readers see a step of the log a moment before the table has it.
    pub(super) async fn plugin_at(
        &self,
        plugin: &PluginName,
        link: Link,
    ) -> Result<Option<Plugin>, Error> {
        let found = self.0.store.plugin(plugin).await?;
        let next = found.as_ref().map_or(Link::FIRST, |found| found.next);
        if link.sequence <= next.sequence {
            return Ok(found);
        }
        self.sequence().await?;
        self.0.store.plugin(plugin).await
    }

    fn new_session(
        &self,
        signed: &SignedStatement,
        release: &Release,
        user: &UserName,
        missing: &[Missing],
    ) -> Session {
        let now = self.now();
        Session {
            id: SessionId::from_bytes(modunest_runtime::random::bytes()),
            plugin: release.plugin.clone(),
            version: release.version.clone(),
            user: user.clone(),
            statement: signed.clone(),
            traceparent: modunest_runtime::trace::current()
                .unwrap_or_else(modunest_runtime::trace::root),
            missing: missing.iter().map(|missing| missing.archive).collect(),
            arrived: [].into(),
            state: if missing.is_empty() { State::Uploaded } else { State::Uploading },
            created_at: now,
            changed_at: now,
            upload_until: now.plus(UPLOAD_WINDOW),
            // Nobody holds it: the first event takes it, and the sweep if that gets lost.
            lease: Lease { until: now, attempt: 0 },
            fence: 0,
            owner: None,
            findings: Vec::new(),
            report: None,
            rejection: None,
            epoch: None,
            due: true,
        }
    }

    async fn opened(
        &self,
        session: Session,
        missing: &[Missing],
    ) -> Result<PublishResponse, Error> {
        tracing::info!(
            session = %session.id, plugin = %session.plugin, version = %session.version,
            org = %session.plugin.org(), user = %session.user, uploads = missing.len(), "opened a session"
        );
        if missing.is_empty() {
            self.start_without_upload(session.id).await;
        }
        let uploads = self.uploads(session.id, missing).await?;
        Ok(PublishResponse { session: Some(session.id), state: session.state, uploads })
    }

    /// Lets a storage event start the work. Should this fail, the sweep starts it later.
    pub(crate) async fn start_without_upload(&self, session: SessionId) {
        if let Err(error) = self.0.storage.put_ready(StagingKey::Ready(session)).await {
            tracing::warn!(%session, %error, "could not start a session; the sweep will");
        }
    }

    pub(crate) async fn session_view(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<SessionView, Error> {
        self.own_session(caller, id).await.map(|session| session.view())
    }

    async fn own_session(&self, caller: &Caller, id: SessionId) -> Result<Session, Error> {
        let Some(session) = self.0.store.session(id).await? else {
            return Err(Refusal::new(
                Code::NotFound,
                format!("there is no session {id}, or it was forgotten"),
            )
            .into());
        };
        let plugin = self.0.store.plugin(&session.plugin).await?;
        let owner = plugin.map_or_else(|| session.plugin.org(), |plugin| plugin.owner);
        self.authorise_publish(caller, &owner).await?;
        Ok(session)
    }

    pub(crate) async fn cancel(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<SessionView, Error> {
        let session = self.own_session(caller, id).await?;
        match self.0.store.end_upload(id, State::Cancelled, self.now()).await? {
            Some(session) => {
                tracing::info!(session = %id, plugin = %session.plugin, user = %caller.user, "cancelled a session");
                self.settle(&session).await;
                Ok(session.view())
            }
            None if session.state == State::Cancelled => Ok(session.view()),
            None => Err(Refusal::new(
                Code::SessionState,
                "a session can be cancelled only while it waits for uploads",
            )
            .into()),
        }
    }
}

fn dry_run(plan: &Plan) -> PublishResponse {
    let state = match plan {
        Plan::Open { missing } if missing.is_empty() => State::Uploaded,
        Plan::Open { .. } => State::Created,
        Plan::Resume { state, .. } => *state,
    };
    PublishResponse { session: None, state, uploads: Vec::new() }
}
