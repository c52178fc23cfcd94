//! The trace context of the present task, and how it enters and leaves over HTTP.

use std::future::Future;

use ::http::header::HeaderValue;
use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use modunest_core::trace::{TRACEPARENT, TraceContext};
use tracing::Instrument as _;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The context of the task that asks, if it runs inside [`scope`].
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// The trace's identifier for an error or a log line; a new one where there is no context,
/// so that what the user sees can still be found in the log.
pub fn current_id() -> String {
    current().unwrap_or_else(root).trace_id()
}

/// Starts a trace.
pub fn root() -> TraceContext {
    TraceContext::root(crate::random::bytes())
}

/// The next step of `parent`'s trace.
pub fn child_of(parent: TraceContext) -> TraceContext {
    parent.child(crate::random::bytes())
}

/// Runs `future` inside a context and inside a log span named `name` with its `trace_id`.
pub async fn scope<F: Future>(context: TraceContext, name: &'static str, future: F) -> F::Output {
    let span = tracing::info_span!(
        "task",
        otel.name = name,
        trace_id = %context.trace_id(),
        span_id = %context.span_id()
    );
    CURRENT.scope(context, future.instrument(span)).await
}

/// Lets every request of `router` run inside the context that its `traceparent` header
/// continues, or in a new one. Answers carry the header.
pub fn layer(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(enter))
}

async fn enter(request: Request, next: Next) -> Response {
    let context = match request.headers().get(TRACEPARENT).map(HeaderValue::to_str) {
        Some(Ok(text)) => text.parse().map_or_else(|_| root(), child_of),
        _ => root(),
    };
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = scope(context, "http", async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        if status >= 500 {
            tracing::warn!(%method, path, status, "answered with an error");
        } else if status >= 400 {
            // Whoever was refused has the trace's identifier, and asks about it.
            tracing::info!(%method, path, status, "refused");
        } else {
            tracing::debug!(%method, path, status, "answered");
        }
        response
    })
    .await;
    if let Ok(value) = HeaderValue::from_str(&context.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}
