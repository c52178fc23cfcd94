//! What an operator makes the agent do.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::response::Response;
use modunest_core::name::PluginName;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::read::fresh;
use super::{Problem, asked, refuse};
use crate::agent::{self, Inner, Reloaded};
use crate::sync::Options;
use crate::{EXIT_NO_SOLUTION, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, Error};

/// What looking for news came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncAnswer {
    /// The generation that runs now.
    pub generation: u64,
    /// Whether it is another one than before.
    pub changed: bool,
    /// Why this came about without the registry; absent where the registry answered.
    pub offline: Option<String>,
}

/// A plugin that runs anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restarted {
    /// `org/name`.
    pub plugin: String,
}

/// How news are meant.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncAsked {
    /// Take the newest versions in place of those of the lock file.
    #[serde(default)]
    update: bool,
}

/// Where to go back to.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackAsked {
    /// The generation; by default the one before the one that runs.
    generation: Option<u64>,
}

/// The plugin that a path is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PluginPath {
    /// Its organisation
    org: String,
    /// Its name
    name: String,
}

/// Goes back to an earlier generation, and stays with it until the next explicit sync.
#[utoipa::path(
    post,
    path = "/rollback",
    params(RollbackAsked),
    responses(
        (status = 200, body = SyncAnswer),
        (status = 400, description = "The query is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It is not kept, or there is no earlier one; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It cannot take the place of what runs, which goes on", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It cannot be proven any more; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It cannot be read or loaded; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(
    Shared(agent): Shared<Arc<Inner>>,
    query: Result<Query<RollbackAsked>, QueryRejection>,
) -> Result<Response, ProblemResponse> {
    let Query(RollbackAsked { generation }) = asked(query, QueryRejection::body_text)?;
    let gone = to_the_end(async move { agent.rollback(generation).await }).await?;
    let crate::Synced { generation, changed, offline } = gone;
    Ok(fresh(SyncAnswer { generation, changed, offline }))
}

/// Reads the configuration's file anew, and puts in force what can be without a restart.
#[utoipa::path(
    post,
    path = "/reload",
    responses(
        (status = 200, body = Reloaded),
        (status = 400, description = "The file is not valid; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no file, or nothing fits what it wants, or that cannot take the place of what runs, which goes on", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "A proof failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "What it wants cannot be loaded; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registry does not answer; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(Shared(agent): Shared<Arc<Inner>>) -> Result<Response, ProblemResponse> {
    Ok(fresh(to_the_end(async move { agent.reload().await }).await?))
}

/// Puts another instance in the place of a plugin's. Its state is not taken over.
#[utoipa::path(
    post,
    path = "/plugins/{org}/{name}/restart",
    params(PluginPath),
    responses(
        (status = 200, body = Restarted),
        (status = 400, description = "This is no plugin's name", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It does not run here", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The new instance cannot take its place; what ran goes on", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "A proof failed; what ran goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It was not restarted; what ran goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn restart(
    Shared(agent): Shared<Arc<Inner>>,
    path: Result<Path<PluginPath>, PathRejection>,
) -> Result<Response, ProblemResponse> {
    let Path(path) = asked(path, PathRejection::body_text)?;
    let plugin = path.plugin()?;
    let name = plugin.to_string();
    to_the_end(async move { agent.restart(&plugin, "asked for").await }).await?;
    Ok(fresh(Restarted { plugin: name }))
}

impl PluginPath {
    #[allow(clippy::result_large_err, reason = "the answer is what is sent")]
    pub(super) fn plugin(&self) -> Result<PluginName, ProblemResponse> {
        let plugin = format!("{}/{}", self.org, self.name).parse::<PluginName>();
        plugin.map_err(|error| refuse(Code::InvalidRequest, error.to_string()))
    }
}

/// Looks for news now, and loads them.
#[utoipa::path(
    post,
    path = "/sync",
    params(SyncAsked),
    responses(
        (status = 200, body = SyncAnswer),
        (status = 400, description = "The query is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Nothing fits what is wanted, or it cannot take the place of what runs, which goes on", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "A proof failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registry does not answer; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sync(
    Shared(agent): Shared<Arc<Inner>>,
    query: Result<Query<SyncAsked>, QueryRejection>,
) -> Result<Response, ProblemResponse> {
    let Query(SyncAsked { update }) = asked(query, QueryRejection::body_text)?;
    let options = Options { update, ..Options::default() };
    let synced = to_the_end(async move { agent.sync(options, true).await }).await?;
    let crate::Synced { generation, changed, offline } = synced;
    Ok(fresh(SyncAnswer { generation, changed, offline }))
}

/// Makes a change in a task of its own: a client that goes away must not cut it off half-way.
pub(super) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, ProblemResponse> {
    agent::to_the_end(change).await.map_err(|error| problem(&error))
}

/// An error as a problem: with the same words that the command line has for it.
fn problem(error: &Error) -> ProblemResponse {
    let code = match error {
        Error::NoPlugin(_) | Error::NotKept(_) | Error::NoEarlier => Code::NotFound,
        Error::NoTrial(_) | Error::NotRolledBack(_) => Code::NotFound,
        Error::Worse { .. } | Error::NotSwitched { .. } | Error::NoConfigFile => Code::Conflict,
        _ => match error.exit_code() {
            EXIT_USAGE => Code::InvalidRequest,
            EXIT_NO_SOLUTION => Code::Conflict,
            EXIT_UNREACHABLE => Code::Unavailable,
            EXIT_REFUSED => Code::PreconditionFailed,
            _ => Code::Internal,
        },
    };
    refuse(code, error.to_string())
}
