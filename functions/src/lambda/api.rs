//! The API behind an HTTP API or a Function URL: the same router as everywhere.
//!
//! The client's address is the edge's; the reader's own stands in `X-Forwarded-For`, as said
//! by the edge. Nothing is decided by either. Bodies have the API's own limit, which is far
//! below the gateway's.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use lambda_http::{Request, RequestExt as _, service_fn};
use modunest_core::problem::{Code, Refusal};
use modunest_core::trace::TRACEPARENT;
use modunest_runtime::trace;
use tower_service::Service as _;

use super::invocation;
use super::start::Start;
use crate::api::ApiError;

const FORWARDED_FOR: &str = "x-forwarded-for";

pub(super) async fn serve(start: Arc<Start>) -> Result<(), lambda_runtime::Error> {
    let service = service_fn(move |request: Request| {
        let start = Arc::clone(&start);
        async move { Ok::<_, Infallible>(answer(&start, request).await) }
    });
    lambda_http::run(service).await
}

async fn answer(start: &Start, mut request: Request) -> Response<Body> {
    let context = request.lambda_context();
    // A request without a trace of its own continues that of the gateway.
    if !request.headers().contains_key(TRACEPARENT) {
        let xray = context.xray_trace_id.as_deref().and_then(invocation::from_xray);
        let step = xray.map_or_else(trace::root, trace::child_of);
        if let Ok(value) = HeaderValue::from_str(&step.to_string()) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
    }
    tracing::debug!(
        request_id = context.request_id,
        forwarded_for = ?request.headers().get(FORWARDED_FOR),
        "invoked"
    );
    let work = async {
        match start.get().await {
            Ok(started) => match started.router.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(error) => {
                tracing::error!(%error, "the function cannot begin");
                unavailable("the API cannot begin its work; its log says why")
            }
        }
    };
    match invocation::within(invocation::budget(&context), work).await {
        Some(response) => response,
        None => {
            tracing::warn!(request_id = context.request_id, "no answer within the time");
            unavailable("the answer took too long; ask again, nothing is done twice")
        }
    }
}

fn unavailable(detail: &str) -> Response<Body> {
    ApiError::from(Refusal::new(Code::Unavailable, detail)).into_response()
}
