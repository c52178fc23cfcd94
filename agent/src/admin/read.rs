//! What is asked. Nothing that is answered is secret.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use modunest_core::name::PluginName;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Problem, asked, refuse};
use crate::agent::Inner;
use crate::metrics::prometheus::CONTENT_TYPE as METRICS_CONTENT_TYPE;
use crate::status::{self, AgentStatus, Detail, PluginStatus, Readiness};

/// The agent, and every plugin.
#[utoipa::path(get, path = "/status", responses((status = 200, body = AgentStatus)))]
pub(super) async fn status(Shared(agent): Shared<Arc<Inner>>) -> Result<Response, ProblemResponse> {
    Ok(fresh(gathered(move || agent.status()).await?))
}

/// Facts that are read from files of the kernel's, on a thread that serves no requests.
async fn gathered<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProblemResponse> {
    crate::blocking::run(read).await.map_err(|e| refuse(Code::Internal, e.to_string()))
}

/// How much is wanted of each plugin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginsQuery {
    /// `buckets` for how long calls took, bucket by bucket.
    latency: Option<LatencyDetail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LatencyDetail {
    Quantiles,
    Buckets,
}

/// Every plugin, by name.
#[utoipa::path(
    get,
    path = "/plugins",
    params(PluginsQuery),
    responses(
        (status = 200, body = Vec<PluginStatus>),
        (status = 400, description = "The query is not valid", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn plugins(
    Shared(agent): Shared<Arc<Inner>>,
    query: Result<Query<PluginsQuery>, QueryRejection>,
) -> Result<Response, ProblemResponse> {
    let Query(query) = asked(query, QueryRejection::body_text)?;
    let detail = match query.latency {
        Some(LatencyDetail::Buckets) => Detail::Buckets,
        Some(LatencyDetail::Quantiles) | None => Detail::Short,
    };
    let host = agent.host();
    let all = move || -> Vec<PluginStatus> {
        host.cells().map(|cell| status::plugin(cell, detail)).collect()
    };
    Ok(fresh(gathered(all).await?))
}

/// One plugin, with how long calls took, bucket by bucket.
#[utoipa::path(
    get,
    path = "/plugins/{org}/{name}",
    params(
        ("org" = String, Path, description = "The organisation"),
        ("name" = String, Path, description = "The plugin's name within it"),
    ),
    responses(
        (status = 200, body = PluginStatus),
        (status = 400, description = "The path is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such plugin is loaded", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn plugin(
    Shared(agent): Shared<Arc<Inner>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, ProblemResponse> {
    let Path((org, name)) = asked(path, PathRejection::body_text)?;
    let host = agent.host();
    let named = format!("{org}/{name}");
    let cell = named.parse::<PluginName>().ok().and_then(|name| host.cell(&name).cloned());
    let cell = cell.ok_or_else(|| refuse(Code::NotFound, format!("{named} is not loaded")))?;
    Ok(fresh(gathered(move || status::plugin(&cell, Detail::Buckets)).await?))
}

/// One generation that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationStatus {
    /// Its number; later ones have larger ones.
    pub number: u64,
    /// Whether it is the one that the next start loads.
    pub current: bool,
    /// Whether it is the one that runs.
    pub running: bool,
    /// Whether it is stayed with until the next explicit sync, because it was gone back to.
    pub pinned: bool,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// When the head was signed under which it was resolved, RFC 3339.
    pub issued_at: String,
    /// That head's epoch.
    pub epoch: u64,
    /// Its plugins, as `org/name version`.
    pub plugins: Vec<String>,
}

/// Every generation that is kept, the newest first.
#[utoipa::path(
    get,
    path = "/generations",
    responses(
        (status = 200, body = Vec<GenerationStatus>),
        (status = 500, description = "A generation cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn generations(
    Shared(agent): Shared<Arc<Inner>>,
) -> Result<Response, ProblemResponse> {
    let generations = gathered(move || agent.generations()).await?;
    Ok(fresh(generations.map_err(|e| refuse(Code::Internal, e.to_string()))?))
}

/// All that is counted, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(
    Shared(agent): Shared<Arc<Inner>>,
) -> Result<Response, ProblemResponse> {
    let text = gathered(move || agent.metrics()).await?;
    let text = text.map_err(|e| refuse(Code::Internal, e.to_string()))?;
    let headers = [(CONTENT_TYPE, METRICS_CONTENT_TYPE), (CACHE_CONTROL, "no-store")];
    Ok((headers, text).into_response())
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn health() -> Response {
    ([(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Whether requests should be sent here, with the state of each thing that this depends on.
#[utoipa::path(
    get,
    path = "/readyz",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
pub(super) async fn ready(Shared(agent): Shared<Arc<Inner>>) -> Response {
    let readiness = agent.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, fresh(readiness)).into_response()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Response {
    fresh(super::document())
}

/// JSON that is right only now.
pub(super) fn fresh(value: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}
