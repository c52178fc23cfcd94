//! Statements that need no upload: what else a plugin's owner says than releases, and what
//! the registry says itself.

use std::time::Duration;

use futures_util::future;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::Version;
use modunest_core::api::{StatementRequest, StatementResponse};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::problem::{Code, Refusal};
use modunest_core::publish::check_signature;
use modunest_core::statement::{Link, SignedStatement, Statement};

use super::parse_statement;
use crate::Functions;
use crate::error::Error;
use crate::identity::Caller;
use crate::store::Write;
use crate::store::orgs::Org;
use crate::store::pending::Outcome;
use crate::store::plugins::Plugin;

/// How often, and how long apart, an outcome is looked for when another process has the
/// statement in hand.
const OUTCOME_TRIES: u32 = 40;
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);
/// Statements that are recorded at the same time.
const RECORDS_AT_ONCE: usize = 16;
/// How often a statement of the registry is signed anew because another one of its chain came
/// first. Only other requests about the same subject at the same moment come first.
const SAY_TRIES: u32 = 8;

pub(super) fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

/// What a plugin's owner says, beside releases.
struct Said<'a> {
    plugin: &'a PluginName,
    /// The release that it is about; `None` when it is about all of the plugin.
    version: Option<&'a Version>,
    /// To whom the plugin goes.
    new_owner: Option<&'a OrgName>,
}

impl Functions {
    pub(crate) async fn state(
        &self,
        caller: &Caller,
        request: &StatementRequest,
    ) -> Result<StatementResponse, Error> {
        let signed = parse_statement(&request.statement)?;
        let said = match signed.statement() {
            Statement::Yank(it) => {
                Said { plugin: &it.plugin, version: Some(&it.version), new_owner: None }
            }
            Statement::Deprecation(it) => {
                Said { plugin: &it.plugin, version: it.version.as_ref(), new_owner: None }
            }
            Statement::Ownership(it) => {
                Said { plugin: &it.plugin, version: None, new_owner: Some(&it.owner) }
            }
            Statement::Release(_) => {
                return refuse(
                    Code::InvalidStatement,
                    "/statement: releases have archives; send them to /v1/releases",
                );
            }
            Statement::Key(_)
            | Statement::Verdict(_)
            | Statement::Quarantine(_)
            | Statement::Trust(_) => {
                return refuse(
                    Code::InvalidStatement,
                    "/statement: the registry signs these itself; keys, quarantines and trust \
                     levels have paths of their own",
                );
            }
        };
        let found = self.plugin_at(said.plugin, signed.statement().link()).await?;
        let plugin = found.unwrap_or_else(|| Plugin::new(said.plugin));
        let org = self.authorise_publish(caller, &plugin.owner).await?;
        // The same statement again is answered as before, whatever followed it.
        if self.0.store.outcome(&signed.digest()).await?.is_none() {
            self.check_said(caller, &signed, &said, &plugin, &org).await?;
        }
        let answer = self.append(&signed).await?;
        tracing::info!(
            plugin = %said.plugin, version = said.version.map(tracing::field::display),
            org = %plugin.owner, new_owner = said.new_owner.map(tracing::field::display),
            user = %caller.user, kind = signed.statement().kind(), epoch = answer.epoch,
            "took a statement of a plugin's owner"
        );
        Ok(answer)
    }

    /// Refuses what the sequencer would refuse too, before it is recorded, and what only the
    /// callers' rights can tell.
    async fn check_said(
        &self,
        caller: &Caller,
        signed: &SignedStatement,
        said: &Said<'_>,
        plugin: &Plugin,
        org: &Org,
    ) -> Result<(), Error> {
        check_signature(signed, &org.org, &org.valid_keys()?)?;
        match said.version {
            Some(version) => self.check_published(said.plugin, version).await?,
            None if plugin.next == Link::FIRST => {
                return refuse(Code::NotFound, format!("{} has no release yet", said.plugin));
            }
            None => {}
        }
        if let Some(new_owner) = said.new_owner {
            if *new_owner == org.org {
                let detail = format!("{} belongs to {new_owner} already", said.plugin);
                return refuse(Code::AlreadyExists, detail);
            }
            let new = self.authorise_publish(caller, new_owner).await?;
            if new.valid_keys()?.is_empty() {
                return refuse(
                    Code::PreconditionFailed,
                    format!(
                        "{new_owner} has no publisher key that may sign, so nobody could publish \
                         {} any more; register one first with `modunest key register`",
                        said.plugin
                    ),
                );
            }
        }
        let link = signed.statement().link();
        if link != plugin.next {
            return refuse(
                Code::ChainConflict,
                format!(
                    "the statement is number {} of {}, and number {} is due; sign it again behind the newest one",
                    link.sequence, said.plugin, plugin.next.sequence
                ),
            );
        }
        Ok(())
    }

    pub(super) async fn check_published(
        &self,
        plugin: &PluginName,
        version: &Version,
    ) -> Result<(), Error> {
        let release = self.0.store.release(plugin, version).await?;
        match release.is_some_and(|release| release.epoch.is_some()) {
            true => Ok(()),
            false => refuse(Code::NotFound, format!("{plugin} {version} is not published")),
        }
    }

    /// Lets the registry say something: reads the facts, signs what follows from them, and
    /// does so again when another statement of the chain came first.
    pub(crate) async fn say<F>(&self, statement: impl Fn() -> F) -> Result<StatementResponse, Error>
    where
        F: Future<Output = Result<Statement, Error>>,
    {
        for _ in 0..SAY_TRIES {
            let statement = statement().await?;
            // What callers wrote breaks a rule: theirs to mend.
            if let Err(error) = statement.text() {
                return refuse(Code::InvalidRequest, format!("/{error}"));
            }
            let signed = self.0.keys.sign_statement(&statement)?;
            match self.append(&signed).await {
                Err(Error::Refused(refusal)) if refusal.code == Code::ChainConflict => {}
                other => return other,
            }
        }
        refuse(
            Code::Unavailable,
            "other statements of the registry about this keep coming first; try again",
        )
    }

    /// Records statements for the sequencer, which judges them in its next run: see
    /// [`Functions::sequence`]. What has been before it once is not recorded again. Nothing is
    /// checked and nobody is asked for a right: this is for who has the services anyway.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; some of the statements may be recorded then.
    pub async fn hand_in(&self, statements: &[SignedStatement]) -> Result<(), Error> {
        let now = self.now();
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let records: Vec<_> =
            statements.iter().map(|signed| self.0.store.append(signed, now)).collect();
        stream::iter(records)
            .buffer_unordered(RECORDS_AT_ONCE)
            // A conflict: it has been there, and has an outcome.
            .try_for_each(|(Write::Done | Write::Conflict)| future::ready(Ok(())))
            .await
    }

    /// Puts a statement into the index and waits until readers can see it.
    pub(crate) async fn append(
        &self,
        signed: &SignedStatement,
    ) -> Result<StatementResponse, Error> {
        let digest = signed.digest();
        match self.0.store.append(signed, self.now()).await? {
            // A conflict: it has been there, and has an outcome.
            Write::Done | Write::Conflict => {}
        }
        for _ in 0..OUTCOME_TRIES {
            // Also shows the head that an outcome of an earlier try belongs to.
            self.sequence().await?;
            match self.0.store.outcome(&digest).await? {
                Some(Outcome::Applied(epoch)) => {
                    return Ok(StatementResponse { statement: digest, epoch });
                }
                Some(Outcome::Rejected(problem)) => {
                    return Err(Refusal {
                        code: problem.code,
                        detail: problem.detail,
                        errors: problem.errors,
                    }
                    .into());
                }
                None => tokio::time::sleep(OUTCOME_PAUSE).await,
            }
        }
        refuse(
            Code::Unavailable,
            "the statement is recorded and not visible yet; send it again to see what became of it",
        )
    }
}
