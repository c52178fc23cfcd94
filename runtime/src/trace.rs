//! The trace context of the present task, and how it enters and leaves over HTTP.

use std::future::Future;

use ::http::header::HeaderValue;
use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use modunest_core::trace::{TRACEPARENT, TraceContext};
use tracing::Instrument as _;

use crate::telemetry::{self, Kind, Span};

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
    telemetry::sampled(TraceContext::root(crate::random::bytes()), false)
}

/// The next step of `parent`'s trace.
pub fn child_of(parent: TraceContext) -> TraceContext {
    parent.child(crate::random::bytes())
}

/// Runs `future` inside a context, inside a log span named `name` with its `trace_id`, and as a
/// step of the trace with that name.
pub async fn scope<F: Future>(context: TraceContext, name: &'static str, future: F) -> F::Output {
    let step = Span::begin(context, Kind::Internal, name);
    let output = within(context, name, future).await;
    drop(step);
    output
}

async fn within<F: Future>(context: TraceContext, name: &'static str, future: F) -> F::Output {
    let span = tracing::info_span!(
        "task",
        otel.name = name,
        trace_id = %context.trace_id(),
        span_id = %context.span_id()
    );
    CURRENT.scope(context, future.instrument(span)).await
}

/// Which route answered, in an answer's extensions: what its step of the trace is named by.
#[derive(Clone, Debug)]
pub struct Route(pub String);

/// Lets every request of `router` run inside the context that its `traceparent` header
/// continues, or in a new one. Answers carry the header.
pub fn layer(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(enter))
}

async fn enter(request: Request, next: Next) -> Response {
    let parent = request.headers().get(TRACEPARENT).and_then(|header| header.to_str().ok());
    let parent = parent.and_then(|text| text.parse::<TraceContext>().ok());
    let context = parent.map_or_else(root, |parent| telemetry::sampled(child_of(parent), true));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut step = Span::begin(context, Kind::Server, method.as_str().to_owned());
    if parent.is_some() {
        step = step.from_remote();
    }
    let mut response = within(context, "http", async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        if status >= 500 {
            step.fail("answered with an error");
            tracing::warn!(%method, path, status, "answered with an error");
        } else if status >= 400 {
            // Whoever was refused has the trace's identifier, and asks about it.
            tracing::info!(%method, path, status, "refused");
        } else {
            tracing::debug!(%method, path, status, "answered");
        }
        if let Some(Route(route)) = response.extensions().get() {
            step.rename(format!("{method} {route}"));
            step.set("http.route", route.as_str());
        }
        step.set("http.request.method", method.as_str());
        step.set("url.path", path.as_str());
        step.set("http.response.status_code", status);
        response
    })
    .await;
    if let Ok(value) = HeaderValue::from_str(&context.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}
