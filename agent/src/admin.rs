//! The admin server: `/status`, `/healthz`, `/readyz`. It listens where only the operator
//! reaches it; nothing it answers is secret, and nothing it takes changes anything.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use modunest_core::keys::{HEALTH_PATH, READY_PATH};
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::problem::ProblemResponse;

use crate::agent::Inner;
use crate::status::AgentStatus;

/// Path of the status.
pub const STATUS_PATH: &str = "/status";

pub(crate) fn router(agent: Arc<Inner>) -> Router {
    let router = Router::new()
        .route(STATUS_PATH, get(status))
        .route(HEALTH_PATH, get(|| async { "ok\n" }))
        .route(READY_PATH, get(ready))
        .fallback(|| async {
            let paths = format!("there are {STATUS_PATH}, {HEALTH_PATH} and {READY_PATH}");
            ProblemResponse::from(Refusal::new(Code::NotFound, paths))
        })
        .with_state(agent);
    modunest_runtime::trace::layer(router)
}

async fn status(Shared(agent): Shared<Arc<Inner>>) -> Response {
    let status: AgentStatus = agent.status();
    ([(CACHE_CONTROL, "no-store")], Json(status)).into_response()
}

async fn ready(Shared(agent): Shared<Arc<Inner>>) -> Response {
    match agent.ready() {
        Ok(()) => ([(CACHE_CONTROL, "no-store")], "ready\n").into_response(),
        Err(reason) => {
            ProblemResponse::from(Refusal::new(Code::Unavailable, reason)).into_response()
        }
    }
}
