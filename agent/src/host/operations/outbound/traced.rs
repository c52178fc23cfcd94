//! Requests out as steps of the trace of the call that makes them.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use modunest_core::trace::{TRACEPARENT, TraceContext};
use modunest_runtime::telemetry::{self, Kind, Span};
use modunest_runtime::trace::child_of;
use modunest_sdk::Error;
use url::Url;

/// The call under way, for the requests that it makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(Option<TraceContext>);

impl Caller {
    /// By the call's `traceparent`; nobody where there is none.
    pub(super) fn of(trace: Option<&str>) -> Self {
        Caller(trace.and_then(|trace| trace.parse().ok()))
    }

    /// Begins a request, and adds `traceparent` to its headers unless the plugin has set it. Where
    /// spans are collected, the request is a step below the call; else the receiver is.
    pub(super) fn begin(self, method: &Method, url: &Url, headers: &mut HeaderMap) -> Sent {
        let Some(call) = self.0 else { return Sent(None) };
        let context = if telemetry::is_on() { child_of(call) } else { call };
        if !headers.contains_key(TRACEPARENT)
            && let Ok(value) = HeaderValue::from_str(&context.to_string())
        {
            headers.insert(TRACEPARENT, value);
        }
        if !telemetry::is_on() {
            return Sent(None);
        }
        let host = url.host_str().unwrap_or_default();
        let mut span = Span::begin(context, Kind::Client, format!("{method} {host}"));
        span.set("http.request.method", method.as_str());
        // Neither path nor query: they may hold what is secret.
        span.set("url.scheme", url.scheme());
        span.set("server.address", host);
        if let Some(port) = url.port_or_known_default() {
            span.set("server.port", port);
        }
        Sent(Some(span))
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Sent(Option<Span>);

impl Sent {
    /// It came to an answer, or to none.
    pub(super) fn end(self, answer: Result<StatusCode, &Error>) {
        let Some(mut span) = self.0 else { return };
        match answer {
            Ok(status) => {
                span.set("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    span.fail("answered with an error");
                }
            }
            Err(error) => span.fail(error.text()),
        }
    }
}
