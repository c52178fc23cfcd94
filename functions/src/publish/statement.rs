//! Statements that need no upload: yanks, and what the registry itself says about keys.

use std::time::Duration;

use modunest_core::api::{StatementRequest, StatementResponse};
use modunest_core::problem::{Code, Refusal};
use modunest_core::publish::check_signature;
use modunest_core::statement::{Link, SignedStatement, Statement, Yank};

use super::parse_statement;
use crate::Functions;
use crate::error::Error;
use crate::identity::Caller;
use crate::store::Write;
use crate::store::pending::Outcome;

/// How often, and how long apart, an outcome is looked for when another process has the
/// statement in hand.
const OUTCOME_TRIES: u32 = 40;
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

impl Functions {
    pub(crate) async fn state(
        &self,
        caller: &Caller,
        request: &StatementRequest,
    ) -> Result<StatementResponse, Error> {
        let signed = parse_statement(&request.statement)?;
        match signed.statement() {
            Statement::Yank(yank) => self.yank(caller, &signed, yank).await,
            Statement::Release(_) => refuse(
                Code::InvalidStatement,
                "/statement: releases have archives; send them to /v1/releases",
            ),
            Statement::Key(_) => refuse(
                Code::InvalidStatement,
                "/statement: the registry signs these itself; use /v1/orgs/{org}/keys",
            ),
        }
    }

    async fn yank(
        &self,
        caller: &Caller,
        signed: &SignedStatement,
        yank: &Yank,
    ) -> Result<StatementResponse, Error> {
        let org = self.authorise_publish(caller, &yank.plugin.org()).await?;
        check_signature(signed, &org.valid_keys()?)?;
        // The same statement again is answered as before, whatever followed it.
        if self.0.store.outcome(&signed.digest()).await?.is_none() {
            let published = self.0.store.release(&yank.plugin, &yank.version).await?;
            if published.is_none_or(|release| release.epoch.is_none()) {
                return refuse(
                    Code::NotFound,
                    format!("{} {} is not published", yank.plugin, yank.version),
                );
            }
            let next = self.0.store.plugin_next(&yank.plugin).await?.unwrap_or(Link::FIRST);
            if signed.statement().link() != next {
                return refuse(
                    Code::ChainConflict,
                    format!(
                        "the statement is number {} of {}, and number {} is due; sign it again behind the newest one",
                        yank.sequence, yank.plugin, next.sequence
                    ),
                );
            }
        }
        let answer = self.append(signed).await?;
        tracing::info!(
            plugin = %yank.plugin, version = %yank.version, org = %yank.plugin.org(), user = %caller.user,
            yanked = yank.yanked, epoch = answer.epoch, "changed a release's status"
        );
        Ok(answer)
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
