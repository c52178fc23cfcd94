//! What an operator makes the agent do.

use std::sync::Arc;

use axum::extract::{Path, Query, State as Shared};
use axum::response::Response;
use modunest_core::name::PluginName;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::read::fresh;
use super::{Problem, refuse};
use crate::agent::{Inner, Reloaded};
use crate::sync::Options;
use crate::{EXIT_REFUSED, EXIT_UNREACHABLE, Error};

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
pub(super) struct SyncAsked {
    /// Take the newest versions in place of those of the lock file.
    #[serde(default)]
    update: bool,
}

/// Where to go back to.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
pub(super) struct RollbackAsked {
    /// The generation; by default the one before the one that runs.
    generation: Option<u64>,
}

/// Goes back to an earlier generation, and stays with it until the next explicit sync.
#[utoipa::path(
    post,
    path = "/rollback",
    params(RollbackAsked),
    responses(
        (status = 200, body = SyncAnswer),
        (status = 412, description = "It cannot be proven any more; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It is not there or cannot be loaded; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(
    Shared(agent): Shared<Arc<Inner>>,
    Query(asked): Query<RollbackAsked>,
) -> Result<Response, ProblemResponse> {
    let gone = tokio::spawn(async move { agent.rollback(asked.generation).await }).await;
    let gone = gone.map_err(|error| refuse(Code::Internal, error.to_string()))?;
    let crate::Synced { generation, changed, offline } = gone.map_err(|e| problem(&e))?;
    Ok(fresh(SyncAnswer { generation, changed, offline }))
}

/// Reads the configuration's file anew, and puts in force what can be without a restart.
#[utoipa::path(
    post,
    path = "/reload",
    responses(
        (status = 200, body = Reloaded),
        (status = 500, description = "The file is not valid, or what it wants cannot be had; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registry does not answer; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(Shared(agent): Shared<Arc<Inner>>) -> Result<Response, ProblemResponse> {
    let reloaded = tokio::spawn(async move { agent.reload().await }).await;
    let reloaded = reloaded.map_err(|error| refuse(Code::Internal, error.to_string()))?;
    Ok(fresh(reloaded.map_err(|e| problem(&e))?))
}

/// Puts another instance in the place of a plugin's. Its state is not taken over.
#[utoipa::path(
    post,
    path = "/plugins/{org}/{name}/restart",
    params(
        ("org" = String, Path, description = "Its organisation"),
        ("name" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 200, body = Restarted),
        (status = 400, description = "This is no plugin's name", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It does not run here", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It was not restarted; what ran goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn restart(
    Shared(agent): Shared<Arc<Inner>>,
    Path((org, name)): Path<(String, String)>,
) -> Result<Response, ProblemResponse> {
    let plugin = plugin_name(&org, &name)?;
    let name = plugin.to_string();
    let restarted = tokio::spawn(async move { agent.restart(&plugin, "asked for").await }).await;
    let restarted = restarted.map_err(|error| refuse(Code::Internal, error.to_string()))?;
    match restarted {
        Ok(()) => Ok(fresh(Restarted { plugin: name })),
        Err(error @ Error::NoPlugin(_)) => Err(refuse(Code::NotFound, error.to_string())),
        Err(error) => Err(problem(&error)),
    }
}

#[allow(clippy::result_large_err, reason = "the answer is what is sent")]
pub(super) fn plugin_name(org: &str, name: &str) -> Result<PluginName, ProblemResponse> {
    let plugin = format!("{org}/{name}").parse::<PluginName>();
    plugin.map_err(|error| refuse(Code::InvalidRequest, error.to_string()))
}

/// Looks for news now, and loads them.
#[utoipa::path(
    post,
    path = "/sync",
    params(SyncAsked),
    responses(
        (status = 200, body = SyncAnswer),
        (status = 412, description = "A proof failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registry does not answer; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sync(
    Shared(agent): Shared<Arc<Inner>>,
    Query(asked): Query<SyncAsked>,
) -> Result<Response, ProblemResponse> {
    let options = Options { update: asked.update, ..Options::default() };
    // A client that goes away must not cut a sync off half-way.
    let synced = tokio::spawn(async move { agent.sync(options, true).await }).await;
    let synced = synced.map_err(|error| refuse(Code::Internal, error.to_string()))?;
    let crate::Synced { generation, changed, offline } = synced.map_err(|e| problem(&e))?;
    Ok(fresh(SyncAnswer { generation, changed, offline }))
}

/// An error as a problem: with the same words that the command line has for it.
pub(super) fn problem(error: &Error) -> ProblemResponse {
    let code = match error.exit_code() {
        EXIT_UNREACHABLE => Code::Unavailable,
        EXIT_REFUSED => Code::PreconditionFailed,
        _ => Code::Internal,
    };
    refuse(code, error.to_string())
}
