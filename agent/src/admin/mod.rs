//! The admin API: what the agent and its plugins do, and what an operator makes them do.
//!
//! It listens where only the operator reaches it: by default on a Unix socket that nobody but
//! the agent's own user may open. It knows no tokens; whoever may connect may do everything.
//! [`openapi::document`] describes it, and a test holds it against that.

mod change;
mod openapi;
mod read;
mod trial;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::ORIGIN;
use modunest_core::keys::{HEALTH_PATH, READY_PATH};
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::problem::ProblemResponse;

use crate::agent::Inner;

pub use change::{Restarted, SyncAnswer};
pub use openapi::{Problem, document};
pub use read::GenerationStatus;
pub use trial::TrialAnswer;

/// Path of the status.
pub const STATUS_PATH: &str = "/status";
/// Path of all plugins.
pub const PLUGINS_PATH: &str = "/plugins";
/// Path of the kept generations.
pub const GENERATIONS_PATH: &str = "/generations";
/// Path of what Prometheus reads.
pub const METRICS_PATH: &str = "/metrics";
/// Path of the description of all paths.
pub const OPENAPI_PATH: &str = "/openapi.json";
/// Path that makes the agent look for news.
pub const SYNC_PATH: &str = "/sync";
/// Path that makes the agent go back to an earlier generation.
pub const ROLLBACK_PATH: &str = "/rollback";
/// Path that makes the agent read its configuration anew.
pub const RELOAD_PATH: &str = "/reload";

/// Header that a browser sends with what a page makes it ask.
const FETCHED_BY_A_PAGE: &str = "sec-fetch-site";

/// Every path, and what answers it.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Inner>>)> {
    vec![
        (STATUS_PATH, get(read::status)),
        (PLUGINS_PATH, get(read::plugins)),
        ("/plugins/{org}/{name}", get(read::plugin)),
        (GENERATIONS_PATH, get(read::generations)),
        (METRICS_PATH, get(read::metrics)),
        (HEALTH_PATH, get(read::health)),
        (READY_PATH, get(read::ready)),
        (OPENAPI_PATH, get(read::openapi)),
        (SYNC_PATH, post(change::sync)),
        (ROLLBACK_PATH, post(change::rollback)),
        (RELOAD_PATH, post(change::reload)),
        ("/plugins/{org}/{name}/restart", post(change::restart)),
        ("/plugins/{org}/{name}/canary/promote", post(trial::promote)),
        ("/plugins/{org}/{name}/canary/abort", post(trial::abort)),
        ("/plugins/{org}/{name}/canary/forgive", post(trial::forgive)),
    ]
}

pub(crate) fn router(agent: Arc<Inner>) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    let router = router
        .fallback(|| async {
            let paths: Vec<&str> = routes().into_iter().map(|(path, _)| path).collect();
            refuse(Code::NotFound, format!("there are {}", paths.join(", ")))
        })
        .method_not_allowed_fallback(|| async {
            refuse(Code::MethodNotAllowed, format!("{OPENAPI_PATH} says what each path takes"))
        })
        .layer(axum::middleware::from_fn(keep_pages_out))
        .with_state(agent);
    modunest_runtime::trace::layer(router)
}

/// A part of a request, or a refusal with the words of the extractor that found it malformed.
#[allow(clippy::result_large_err, reason = "the answer is what is sent")]
fn asked<T, R>(part: Result<T, R>, words: fn(&R) -> String) -> Result<T, ProblemResponse> {
    part.map_err(|error| refuse(Code::InvalidRequest, words(&error)))
}

fn refuse(code: Code, detail: impl Into<String>) -> ProblemResponse {
    Refusal::new(code, detail).into()
}

/// A page in the operator's browser reaches a TCP address of the same machine. Browsers say
/// so, and no other client does.
async fn keep_pages_out(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let by_a_page = headers.contains_key(ORIGIN) || headers.contains_key(FETCHED_BY_A_PAGE);
    if by_a_page && !request.method().is_safe() {
        let detail = "a web page may not change what this host runs; use modunest-agent, or curl";
        return refuse(Code::Forbidden, detail).into_response();
    }
    next.run(request).await
}
