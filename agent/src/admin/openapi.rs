//! The description of the admin API, made of the code that answers.

use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::{change, read, trial};

/// A refusal (RFC 9457). [`modunest_core::problem::Problem`] is what is sent; this says so
/// where `core` must not know of descriptions.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// `urn:modunest:problem:<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// The same for every occurrence.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The reason, for programs.
    code: String,
    /// This occurrence, in words.
    detail: String,
    /// The request's trace, as the agent's log has it.
    trace_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Modu-Nest agent",
        description = "What a plugin host and its plugins do. Whoever may connect may ask and \
                       change everything: it listens on a Unix socket of the agent's user, or \
                       where the operator says.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        read::status,
        read::plugins,
        read::plugin,
        read::generations,
        read::metrics,
        read::health,
        read::ready,
        read::openapi,
        change::sync,
        change::rollback,
        change::reload,
        change::restart,
        trial::promote,
        trial::abort,
        trial::forgive,
    )
)]
struct Document;

/// The description, as OpenAPI 3.1.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
