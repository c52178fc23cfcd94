//! What an operator says about releases that are or were tried.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};
use axum::response::Response;
use modunest_runtime::problem::ProblemResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change::{PluginPath, to_the_end};
use super::read::fresh;
use super::{Problem, asked};
use crate::agent::{Inner, TrialWord};

/// A plugin whose trial was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrialAnswer {
    /// `org/name`.
    pub plugin: String,
    /// The version that serves now.
    pub version: String,
}

/// Lets the release that is being tried take the place of the one that runs.
#[utoipa::path(
    post,
    path = "/plugins/{org}/{name}/canary/promote",
    params(PluginPath),
    responses(
        (status = 200, body = TrialAnswer),
        (status = 400, description = "This is no plugin's name", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing is tried there", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It cannot take over; what ran goes on", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "A proof failed; what ran goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It cannot be read or loaded; what ran goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn promote(
    agent: Shared<Arc<Inner>>,
    path: Result<Path<PluginPath>, PathRejection>,
) -> Result<Response, ProblemResponse> {
    decide(agent, path, TrialWord::Promote).await
}

/// Rolls back the release that is being tried; it is not chosen again.
#[utoipa::path(
    post,
    path = "/plugins/{org}/{name}/canary/abort",
    params(PluginPath),
    responses(
        (status = 200, body = TrialAnswer),
        (status = 400, description = "This is no plugin's name", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing is tried there", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It was not rolled back as a whole", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn abort(
    agent: Shared<Arc<Inner>>,
    path: Result<Path<PluginPath>, PathRejection>,
) -> Result<Response, ProblemResponse> {
    decide(agent, path, TrialWord::Abort).await
}

/// Lets a release be chosen and tried again that was rolled back.
#[utoipa::path(
    post,
    path = "/plugins/{org}/{name}/canary/forgive",
    params(PluginPath),
    responses(
        (status = 200, body = TrialAnswer),
        (status = 400, description = "This is no plugin's name", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing was rolled back there", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It cannot be remembered", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn forgive(
    agent: Shared<Arc<Inner>>,
    path: Result<Path<PluginPath>, PathRejection>,
) -> Result<Response, ProblemResponse> {
    decide(agent, path, TrialWord::Forgive).await
}

async fn decide(
    Shared(agent): Shared<Arc<Inner>>,
    path: Result<Path<PluginPath>, PathRejection>,
    word: TrialWord,
) -> Result<Response, ProblemResponse> {
    let Path(path) = asked(path, PathRejection::body_text)?;
    let plugin = path.plugin()?;
    let (this, named) = (agent.clone(), plugin.clone());
    to_the_end(async move { this.decide_trial(&named, word).await }).await?;
    let version = agent.host().cell(&plugin).map(|cell| cell.version().to_string());
    Ok(fresh(TrialAnswer { plugin: plugin.to_string(), version: version.unwrap_or_default() }))
}
