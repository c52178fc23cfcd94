//! Readiness: whether what this depends on answers now.

use std::time::Duration;

use tokio::time::timeout;

use super::dispatch::Edge;
use crate::plan::{Readiness, State};

/// How long a dependency may take to say that it is there. Balancers and Kubernetes ask
/// every few seconds and wait about as long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks each dependency.
pub(super) async fn check(edge: &Edge) -> Readiness {
    let (bucket, api) =
        futures_util::future::join(probe("bucket", Box::pin(edge.origin.reach())), async {
            match &edge.api {
                Some(api) => probe("api", Box::pin(api.reach())).await,
                None => State::NotConfigured,
            }
        })
        .await;
    Readiness::of(bucket, api)
}

async fn probe<E: std::fmt::Display>(
    dependency: &'static str,
    reach: impl Future<Output = Result<(), E>>,
) -> State {
    match timeout(PROBE_TIMEOUT, reach).await {
        Ok(Ok(())) => State::Ready,
        Ok(Err(error)) => {
            tracing::warn!(dependency, %error, "a dependency does not answer as it should");
            State::Unavailable
        }
        Err(_elapsed) => {
            tracing::warn!(dependency, "a dependency does not answer in time");
            State::Unavailable
        }
    }
}
