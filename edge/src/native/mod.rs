//! The native shell: an axum router over an S3 bucket.
//!
//! What is named by its content is proved, kept in memory while small, and handed out
//! without copying; what is large streams through. The head is asked for anew by every
//! request, with a condition, so that a publish is visible at once; requests that wait at
//! the same time share one question. What is missing is never remembered.
//!
//! A large object is not proved here: its bytes are on their way before the last is seen.
//! Agents prove all they fetch.

mod serve;

mod closure;
mod dispatch;
mod forward;
mod ready;
mod respond;

mod downloads;

mod compress;
mod current;
mod objects;

mod origin;

pub use downloads::Downloads;
pub use serve::{CONNECTIONS_MAX, serve};

use std::sync::Arc;

use axum::Router;
use modunest_core::api::Discovery;
use modunest_runtime::aws::Settings;
use url::Url;

/// Memory for small objects unless the operator says otherwise, in bytes: the whole index of
/// 10,000 plugins, and below what one process of the registry may take.
pub const MEMORY_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// What the read side needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the bucket is, and who we are to it.
    pub aws: Settings,
    /// Name of the public bucket.
    pub public_bucket: String,
    /// Where requests below `/v1/` go: scheme, host and port. `None` serves files only.
    pub api_origin: Option<Url>,
    /// The discovery document.
    pub discovery: Discovery,
    /// Memory for small objects, in bytes; [`MEMORY_CACHE_BYTES`] is a good choice.
    pub memory_cache_bytes: u64,
    /// Counts downloads; `None` counts none.
    pub downloads: Option<Downloads>,
}

/// Why the read side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client for the API cannot be made.
    #[error("the HTTP client for the API cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The API's origin is more or less than an origin.
    #[error("the API's origin is http://HOST[:PORT] or https://HOST[:PORT], not {0}")]
    ApiOrigin(Url),
    /// The discovery document cannot be written as JSON.
    #[error("the discovery document cannot be written as JSON: {0}")]
    Discovery(#[from] serde_json::Error),
    /// A document cannot be compressed.
    #[error("a document cannot be compressed: {0}")]
    Compress(#[source] std::io::Error),
}

/// The read side as a router, inside the trace layer. It answers every path, so whoever
/// adds routes of their own adds them before it.
///
/// # Errors
/// [`Error`], when the configuration cannot work.
pub fn router(config: Config) -> Result<Router, Error> {
    let edge = dispatch::Edge::new(config)?;
    // One handler for all: the plan is the route table, and a second one could disagree.
    let router = Router::new().fallback(dispatch::handle).with_state(Arc::new(edge));
    Ok(modunest_runtime::trace::layer(router))
}
