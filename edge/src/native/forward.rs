//! Requests below `/v1/`, passed to the API as they stand.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{LengthLimitError, Limited};
use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::keys::READY_PATH;
use modunest_core::problem::{Code, Refusal};
use modunest_core::trace::TRACEPARENT;
use modunest_runtime::http::{client, traced};
use tokio::time::timeout;
use url::Url;

use super::origin::{causes, chain};
use super::{Error, respond};
use crate::plan::AnswerHead;

/// How long the API may take to begin its answer: the longest that an API gateway waits
/// before it answers in the API's place is 29 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Fields about one connection, never passed on (RFC 9110, section 7.6.1), beside those that
/// `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The API behind this server.
pub(super) struct Api {
    client: reqwest::Client,
    origin: Url,
}

/// Why the API did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("no answer within {} seconds", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("{}", chain(.0))]
    Failed(#[from] reqwest::Error),
    #[error("the request's body has more than {BODY_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the path has dot segments or characters that must be escaped")]
    Path,
    #[error("it answers its readiness check with status {0}")]
    NotReady(u16),
}

impl ApiError {
    fn refusal(&self) -> Refusal {
        match self {
            ApiError::TooLarge => Refusal::new(
                Code::TooLarge,
                format!("A request to the API has a body of at most {BODY_MAX_BYTES} bytes."),
            ),
            ApiError::Path => Refusal::new(
                Code::InvalidRequest,
                "The path has dot segments, or characters that must be escaped.",
            ),
            ApiError::Timeout | ApiError::Failed(_) | ApiError::NotReady(_) => Refusal::new(
                Code::Unavailable,
                "The API does not answer. Try again in a moment; reading files still works.",
            ),
        }
    }
}

impl Api {
    pub(super) fn new(origin: Url) -> Result<Api, Error> {
        let plain = matches!(origin.scheme(), "http" | "https")
            && origin.path() == "/"
            && origin.query().is_none()
            && origin.fragment().is_none()
            && origin.username().is_empty();
        if !plain {
            return Err(Error::ApiOrigin(origin));
        }
        Ok(Api { client: client()?, origin })
    }

    /// Passes a request on, and its answer back. Both bodies pass through as they come.
    pub(super) async fn forward(&self, request: Request) -> Response {
        match self.exchange(request).await {
            Ok(answer) => answer_of(answer),
            Err(error) => {
                let refusal = error.refusal();
                if refusal.code == Code::Unavailable {
                    tracing::warn!(%error, "the API did not answer");
                }
                respond::empty(AnswerHead::refuse(refusal))
            }
        }
    }

    /// Asks whether the API is ready.
    pub(super) async fn reach(&self) -> Result<(), ApiError> {
        let mut url = self.origin.clone();
        url.set_path(READY_PATH);
        let status = traced(self.client.get(url)).send().await?.status();
        if status.is_success() { Ok(()) } else { Err(ApiError::NotReady(status.as_u16())) }
    }

    async fn exchange(&self, request: Request) -> Result<reqwest::Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        let mut url = self.origin.clone();
        url.set_path(parts.uri.path());
        url.set_query(parts.uri.query());
        // Dot segments would lead out of the API's paths.
        if url.path() != parts.uri.path() {
            return Err(ApiError::Path);
        }
        let declared_bytes = parts.headers.get(header::CONTENT_LENGTH).and_then(number);
        if declared_bytes.is_some_and(|bytes| bytes > BODY_MAX_BYTES as u64) {
            return Err(ApiError::TooLarge);
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        drop_hop_by_hop(&mut parts.headers);
        for name in [&header::HOST, &header::EXPECT] {
            parts.headers.remove(name);
        }
        parts.headers.remove(TRACEPARENT);
        if let Some(peer) = peer {
            add_forwarded_for(&mut parts.headers, peer);
        }
        let mut outgoing = self.client.request(parts.method, url).headers(parts.headers);
        if !axum::body::HttpBody::is_end_stream(&body) {
            let limited = Body::new(Limited::new(body, BODY_MAX_BYTES));
            outgoing = outgoing.body(reqwest::Body::wrap_stream(limited.into_data_stream()));
        }
        match timeout(ANSWER_TIMEOUT, traced(outgoing).send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_too_large(&error) => Err(ApiError::TooLarge),
            Ok(Err(error)) => Err(ApiError::Failed(error)),
            Err(_elapsed) => Err(ApiError::Timeout),
        }
    }
}

fn answer_of(answer: reqwest::Response) -> Response {
    let (mut parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
    drop_hop_by_hop(&mut parts.headers);
    // The step that this server took is the one that its own client sees.
    parts.headers.remove(TRACEPARENT);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain([&PROXY_CONNECTION]) {
        headers.remove(name);
    }
}

/// Appends the peer: what stands before it was said by others, and only the last is ours.
fn add_forwarded_for(headers: &mut HeaderMap, peer: SocketAddr) {
    let mut hops: Vec<String> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    hops.push(peer.ip().to_canonical().to_string());
    if let Ok(value) = HeaderValue::try_from(hops.join(", ")) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

fn is_too_large(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<LengthLimitError>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_nothing_more() {
        for good in ["http://127.0.0.1:8080", "https://api.example.org/"] {
            assert!(Api::new(good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["http://h/v1/", "http://h/?q", "ftp://h/", "http://user@h/", "http://h/#f"] {
            assert!(matches!(Api::new(bad.parse().unwrap()), Err(Error::ApiOrigin(_))), "{bad}");
        }
    }

    #[test]
    fn fields_of_one_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-connection", "keep-alive"),
            ("authorization", "Bearer t"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["authorization"]);
    }

    #[test]
    fn the_peer_comes_last() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
        add_forwarded_for(&mut headers, "[::ffff:10.0.0.7]:5".parse().unwrap());
        assert_eq!(headers[X_FORWARDED_FOR], "1.2.3.4, 10.0.0.7");
    }
}
