//! Requests below `/v1/`, passed to the API as they stand.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{LengthLimitError, Limited};
use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::keys::READY_PATH;
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::http::{client, traced};
use tokio::time::timeout;
use url::Url;

use super::origin::{causes, chain};
use super::{Error, respond};
use crate::plan::AnswerHead;
use crate::plan::forward::{self, ANSWER_TIMEOUT, FORWARDED_FOR};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static(FORWARDED_FOR);

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
            ApiError::TooLarge => forward::too_large(),
            ApiError::Path => forward::crooked_path(),
            ApiError::Timeout | ApiError::Failed(_) | ApiError::NotReady(_) => {
                forward::api_unavailable()
            }
        }
    }
}

/// An address that is an origin and nothing more.
pub(super) fn plain_origin(origin: Url) -> Result<Url, Error> {
    let plain = matches!(origin.scheme(), "http" | "https")
        && origin.path() == "/"
        && origin.query().is_none()
        && origin.fragment().is_none()
        && origin.username().is_empty();
    if plain { Ok(origin) } else { Err(Error::ApiOrigin(origin)) }
}

impl Api {
    pub(super) fn new(origin: Url) -> Result<Api, Error> {
        Ok(Api { client: client()?, origin: plain_origin(origin)? })
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
        forward::check_declared_length(declared_bytes).map_err(|_refusal| ApiError::TooLarge)?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        remove(&mut parts.headers, |lines| forward::dropped_from_request(lines));
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
    remove(&mut parts.headers, |lines| forward::dropped_from_answer(lines));
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

fn remove(headers: &mut HeaderMap, dropped: impl FnOnce(Vec<&str>) -> Vec<String>) {
    for name in dropped(lines(headers, &header::CONNECTION)) {
        headers.remove(name);
    }
}

fn add_forwarded_for(headers: &mut HeaderMap, peer: SocketAddr) {
    let peer = peer.ip().to_canonical().to_string();
    let hops = forward::forwarded_for(lines(headers, &X_FORWARDED_FOR), &peer);
    if let Ok(value) = HeaderValue::try_from(hops) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
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
        remove(&mut headers, |lines| forward::dropped_from_request(lines));
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
