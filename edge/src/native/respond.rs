//! From an answer's head to the HTTP answer.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use modunest_runtime::trace;
use serde::Serialize;

use crate::plan::{AnswerBody, AnswerHead, HeaderText};

/// The answer from bytes in memory, which are shared and not copied.
pub(super) fn bytes(head: AnswerHead, whole: &Bytes) -> Response {
    let content = match &head.body {
        AnswerBody::Whole => whole.clone(),
        AnswerBody::Slice { start, end } => whole.slice(position(*start)..position(*end)),
        AnswerBody::Empty | AnswerBody::Problem(_) => return empty(head),
        AnswerBody::Gzip => return failed(&"a gzip form that is not at hand"),
    };
    body(head, Body::from(content))
}

/// The answer with the gzip form, where the head says that it follows.
pub(super) fn gzip(head: AnswerHead, compressed: Bytes) -> Response {
    body(head.with_length(compressed.len() as u64), Body::from(compressed))
}

/// The answer where the head says everything: a problem, or nothing.
pub(super) fn empty(mut head: AnswerHead) -> Response {
    match std::mem::replace(&mut head.body, AnswerBody::Empty) {
        AnswerBody::Problem(refusal) => {
            let problem = refusal.into_problem(trace::current_id());
            body(head, Body::from(problem.to_json()))
        }
        // A body of no known length: the router would else announce one of zero bytes, where
        // only that of the whole would be true (RFC 9110, section 8.6). The head of a gzip
        // form that nobody reads says none.
        _ if head.status == 304
            || (head.status == 200 && head.header("content-length").is_none()) =>
        {
            body(head, Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()))
        }
        _ => body(head, Body::empty()),
    }
}

/// The answer with a JSON document.
pub(super) fn json(head: AnswerHead, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(text) => body(head, Body::from(text)),
        Err(error) => failed(&error),
    }
}

/// The answer with this body, which is what the head says follows.
pub(super) fn body(head: AnswerHead, body: Body) -> Response {
    let headers = match fields(&head) {
        Ok(headers) => headers,
        Err(error) => return failed(&error),
    };
    let Ok(status) = StatusCode::from_u16(head.status) else {
        return failed(&"a status that is none");
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn fields(head: &AnswerHead) -> Result<HeaderMap, http::Error> {
    // One more for the trace, so that the map never grows.
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 1);
    for (name, text) in &head.headers {
        let value = match text {
            HeaderText::Static(text) => HeaderValue::from_static(text),
            HeaderText::Number(number) => HeaderValue::from(*number),
            other => HeaderValue::try_from(other.to_string())?,
        };
        headers.append(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// A mistake of ours: said in the log, and never sent.
fn failed(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "an answer could not be written");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// A position inside bytes that are in memory, so it fits.
fn position(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
