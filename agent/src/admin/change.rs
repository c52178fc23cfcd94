//! What an operator makes the agent do.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read::fresh;
use super::{Problem, refuse};
use crate::agent::Inner;
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

/// Looks for news now, and loads them.
#[utoipa::path(
    post,
    path = "/sync",
    responses(
        (status = 200, body = SyncAnswer),
        (status = 412, description = "A proof failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It failed; what runs goes on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registry does not answer; what runs goes on", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sync(Shared(agent): Shared<Arc<Inner>>) -> Result<Response, ProblemResponse> {
    // A client that goes away must not cut a sync off half-way.
    let synced = tokio::spawn(async move { agent.sync(Options::default()).await }).await;
    let synced = synced.map_err(|error| refuse(Code::Internal, error.to_string()))?;
    let crate::Synced { generation, changed, offline } = synced.map_err(|e| problem(&e))?;
    Ok(fresh(SyncAnswer { generation, changed, offline }))
}

/// An error as a problem: with the same words that the command line has for it.
fn problem(error: &Error) -> ProblemResponse {
    let code = match error.exit_code() {
        EXIT_UNREACHABLE => Code::Unavailable,
        EXIT_REFUSED => Code::PreconditionFailed,
        _ => Code::Internal,
    };
    refuse(code, error.to_string())
}
