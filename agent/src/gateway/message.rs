//! Between HTTP and the messages that plugins read and write.

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use modunest_sdk::{HttpRequest, HttpResponse};

/// Headers about a connection, which end at the gateway (RFC 9110, section 7.6.1), and those
/// that it writes itself.
const OWN_HEADERS: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Headers that only this host writes: what clients send under such a name never arrives.
const RESERVED_PREFIX: &str = "x-modunest-";

/// A request as a plugin reads it, still without user and body.
pub(super) fn request(head: &Parts, hide_tokens: bool) -> HttpRequest {
    // An answer to HEAD is that to GET; the server leaves out its body.
    let method = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
    HttpRequest {
        method: method.to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: plugin_headers(&head.headers, hide_tokens),
        ..HttpRequest::get(head.uri.path())
    }
}

/// Headers that are meant for the plugin. Values that are not text are left out, and so are
/// users' tokens: a plugin is told who it is, and cannot speak in that name elsewhere.
fn plugin_headers(headers: &HeaderMap, hide_tokens: bool) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| {
            !OWN_HEADERS.contains(&name.as_str()) && !name.as_str().starts_with(RESERVED_PREFIX)
        })
        .filter(|(name, value)| !(hide_tokens && *name == AUTHORIZATION && is_token(value)))
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.trim().to_owned()))
        })
        .collect()
}

fn is_token(value: &HeaderValue) -> bool {
    value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

/// Status and headers of a plugin's answer, with the given body. `length` is the body's, where
/// it is known.
pub(super) fn response(answer: &HttpResponse, body: Body, length: Option<usize>) -> Response {
    let mut response = Response::new(body);
    // The decoder has checked the status and the headers' characters.
    if let Ok(status) = http::StatusCode::from_u16(answer.status) {
        *response.status_mut() = status;
    }
    for (name, value) in &answer.headers {
        let own = OWN_HEADERS.contains(&name.as_str());
        let header = (HeaderName::try_from(name), HeaderValue::from_str(value));
        if let ((Ok(name), Ok(value)), false) = (header, own) {
            response.headers_mut().append(name, value);
        }
    }
    let may_have_body = answer.status >= 200 && answer.status != 204 && answer.status != 304;
    if let (Some(length), true) = (length, may_have_body) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}
