//! The form of an HTTP request to a route, and of its response, as payload and
//! answer of a call.
//!
//! ```text
//! length   u32, little-endian: bytes of the head
//! head     JSON, UTF-8
//! body     the rest
//! ```
//!
//! A request's head is `{"method", "path", "query", "headers"}`, a response's is
//! `{"status", "headers"}`; `query` is null or the text after the `?`, and
//! `headers` is a list of `[name, value]` in order. Names are lower case; the
//! path is as received, still percent-encoded, with the route's own path in it.
//!
//! A request's head may also have `identity` (the verified user, [`crate::Identity`]),
//! `upload` (`{"id", "length"}`: the body is read by operations) and `websocket` (true: the
//! client wants one); a response's `stream` (the number of a stream of the plugin's) and
//! `websocket` (true: it accepts). [`crate::stream`] says what follows. Fields are only ever
//! added, so decoders skip those that they do not know.
//!
//! Decoders refuse anything above the limits, and every text that
//! could break out of an HTTP message when a gateway writes it (control
//! characters in values, anything but token characters in names). Encoders apply
//! the same rules, so what one side can write the other can read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::abi::MAX_MESSAGE_BYTES;
use crate::stream::Upload;

/// Most bytes of a head: what common servers allow for all headers, twice.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a message, as common servers have it.
pub const MAX_HEADERS: usize = 128;
/// Most bytes of a path, and of a query.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Most bytes of a body: what is left of a message beside the largest head.
pub const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES - MAX_HEAD_BYTES - LENGTH_BYTES;

/// Bytes of the head's length.
const LENGTH_BYTES: usize = 4;
/// Most bytes of a method or a header's name; the longest registered has 35.
const MAX_TOKEN_BYTES: usize = 64;

/// A request to one of the plugin's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method in upper case, such as `GET`.
    pub method: String,
    /// Path as received, beginning with `/`, still percent-encoded.
    pub path: String,
    /// What follows the `?`, if there is one.
    pub query: Option<String>,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, possibly empty.
    pub body: Vec<u8>,
    /// The end user, verified by the host; `None` for an anonymous request.
    pub identity: Option<Identity>,
    /// A body above [`MAX_BODY_BYTES`], for routes that take one: [`Self::body`] is empty then.
    pub upload: Option<Upload>,
    /// Whether the client wants a WebSocket; accept by [`HttpResponse::websocket`].
    pub websocket: bool,
}

/// The response of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// Final status, 200 to 599.
    pub status: u16,
    /// Headers in order, names in lower case. Those about the connection and the
    /// body's length are the gateway's.
    pub headers: Vec<(String, String)>,
    /// Body, possibly empty. If a stream follows, the body's beginning.
    pub body: Vec<u8>,
    /// The plugin's number of the stream whose pieces follow.
    pub stream: Option<u64>,
    /// Whether the connection becomes a WebSocket with [`Self::stream`] behind it.
    pub websocket: bool,
}

/// Why bytes are not a message, or a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// Fewer bytes than the length and the head need.
    Truncated,
    /// The head is above [`MAX_HEAD_BYTES`].
    HeadTooLarge(usize),
    /// The body is above [`MAX_BODY_BYTES`].
    BodyTooLarge(usize),
    /// The head is not the JSON that it should be.
    Head(String),
    /// The method is not upper-case letters or is too long.
    Method,
    /// The path does not begin with `/`, is too long, or holds what a path cannot.
    Path,
    /// The query is too long or holds what a query cannot.
    Query,
    /// The status is not from 200 to 599.
    Status(u16),
    /// More than [`MAX_HEADERS`] headers.
    TooManyHeaders(usize),
    /// The header at this position has an impossible name or value.
    Header(usize),
    /// The identity is above the limits of [`crate::identity`].
    Identity,
    /// An inline body stands beside an upload.
    Upload,
    /// A WebSocket without a stream, or with a body.
    WebSocket,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the HTTP message ends within its head"),
            Self::HeadTooLarge(bytes) => {
                write!(f, "an HTTP head of {bytes} bytes is above the limit of {MAX_HEAD_BYTES}")
            }
            Self::BodyTooLarge(bytes) => {
                write!(f, "an HTTP body of {bytes} bytes is above the limit of {MAX_BODY_BYTES}")
            }
            Self::Head(why) => write!(f, "the HTTP head is malformed: {why}"),
            Self::Method => f.write_str("the HTTP method is malformed"),
            Self::Path => f.write_str("the HTTP path is malformed or too long"),
            Self::Query => f.write_str("the HTTP query is malformed or too long"),
            Self::Status(status) => write!(f, "{status} is not a final HTTP status"),
            Self::TooManyHeaders(count) => {
                write!(f, "{count} HTTP headers are above the limit of {MAX_HEADERS}")
            }
            Self::Header(position) => {
                write!(f, "HTTP header number {position} is malformed")
            }
            Self::Identity => f.write_str("the identity is above its limits"),
            Self::Upload => f.write_str("a body stands beside an upload"),
            Self::WebSocket => f.write_str("a WebSocket needs a stream and has no body"),
        }
    }
}

impl std::error::Error for HttpError {}

#[derive(Serialize, Deserialize)]
struct RequestHead {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upload: Option<Upload>,
    #[serde(default, skip_serializing_if = "is_false")]
    websocket: bool,
}

#[derive(Serialize, Deserialize)]
struct ResponseHead {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    websocket: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl HttpRequest {
    /// A `GET` of a path, without headers.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: None,
            headers: Vec::new(),
            body: Vec::new(),
            identity: None,
            upload: None,
            websocket: false,
        }
    }

    /// The value of the first header with this lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The bytes of the request.
    ///
    /// # Errors
    ///
    /// The rule or limit that it breaks.
    pub fn encode(self) -> Result<Vec<u8>, HttpError> {
        let Self { method, path, query, headers, body, identity, upload, websocket } = self;
        let head = RequestHead { method, path, query, headers, identity, upload, websocket };
        head.check(&body)?;
        encode(&head, &body)
    }

    /// The request that these bytes are.
    ///
    /// # Errors
    ///
    /// The rule or limit that they break.
    pub fn decode(bytes: &[u8]) -> Result<Self, HttpError> {
        let (head, body): (RequestHead, _) = decode(bytes)?;
        head.check(body)?;
        let RequestHead { method, path, query, headers, identity, upload, websocket } = head;
        let body = body.to_vec();
        Ok(Self { method, path, query, headers, body, identity, upload, websocket })
    }
}

impl HttpResponse {
    /// A response with a content type and a body.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let response = Self { status, body: body.into(), ..Self::default() };
        response.with_header("content-type", content_type)
    }

    /// A response whose body is pulled from a stream of the plugin's
    /// ([`crate::stream::Streams::open`]). With the type `text/event-stream`, its pieces are
    /// server-sent events.
    #[must_use]
    pub fn streamed(status: u16, content_type: &str, stream: u64) -> Self {
        Self { stream: Some(stream), ..Self::new(status, content_type, Vec::new()) }
    }

    /// Accepts the WebSocket that a request wants ([`HttpRequest::websocket`]), with a stream
    /// of the plugin's behind it. A header `sec-websocket-protocol` names the chosen protocol.
    #[must_use]
    pub fn websocket(stream: u64) -> Self {
        Self { status: 200, stream: Some(stream), websocket: true, ..Self::default() }
    }

    /// The same response with one more header; the name in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The value of the first header with this lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The bytes of the response.
    ///
    /// # Errors
    ///
    /// The rule or limit that it breaks.
    pub fn encode(self) -> Result<Vec<u8>, HttpError> {
        let Self { status, headers, body, stream, websocket } = self;
        let head = ResponseHead { status, headers, stream, websocket };
        head.check(&body)?;
        encode(&head, &body)
    }

    /// The response that these bytes are.
    ///
    /// # Errors
    ///
    /// The rule or limit that they break.
    pub fn decode(bytes: &[u8]) -> Result<Self, HttpError> {
        let (head, body): (ResponseHead, _) = decode(bytes)?;
        head.check(body)?;
        let ResponseHead { status, headers, stream, websocket } = head;
        Ok(Self { status, headers, body: body.to_vec(), stream, websocket })
    }
}

/// What a fuzzer calls: decoding never panics, and what was decoded can be
/// written and reads as the same.
pub fn check_decoders(bytes: &[u8]) {
    if let Ok(request) = HttpRequest::decode(bytes) {
        assert_eq!(request.clone().encode().and_then(|b| HttpRequest::decode(&b)), Ok(request));
    }
    if let Ok(response) = HttpResponse::decode(bytes) {
        assert_eq!(response.clone().encode().and_then(|b| HttpResponse::decode(&b)), Ok(response));
    }
}

pub(crate) fn encode(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>, HttpError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(HttpError::BodyTooLarge(body.len()));
    }
    let head = serde_json::to_vec(head).map_err(|error| HttpError::Head(error.to_string()))?;
    let length = u32::try_from(head.len())
        .ok()
        .filter(|_| head.len() <= MAX_HEAD_BYTES)
        .ok_or(HttpError::HeadTooLarge(head.len()))?;
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + head.len() + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    Ok(bytes)
}

pub(crate) fn decode<'a, H: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(H, &'a [u8]), HttpError> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(HttpError::Truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_HEAD_BYTES {
        return Err(HttpError::HeadTooLarge(length));
    }
    let (head, body) = rest.split_at_checked(length).ok_or(HttpError::Truncated)?;
    if body.len() > MAX_BODY_BYTES {
        return Err(HttpError::BodyTooLarge(body.len()));
    }
    let head = serde_json::from_slice(head).map_err(|error| HttpError::Head(error.to_string()))?;
    Ok((head, body))
}

impl RequestHead {
    fn check(&self, body: &[u8]) -> Result<(), HttpError> {
        let method = &self.method;
        if !(1..=MAX_TOKEN_BYTES).contains(&method.len())
            || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
        {
            return Err(HttpError::Method);
        }
        if !self.path.starts_with('/') || !is_target(&self.path, false) {
            return Err(HttpError::Path);
        }
        if self.query.as_deref().is_some_and(|query| !is_target(query, true)) {
            return Err(HttpError::Query);
        }
        if self.identity.as_ref().is_some_and(|identity| !identity.is_within_limits()) {
            return Err(HttpError::Identity);
        }
        if self.upload.is_some() && !body.is_empty() {
            return Err(HttpError::Upload);
        }
        check_headers(&self.headers)
    }
}

impl ResponseHead {
    fn check(&self, body: &[u8]) -> Result<(), HttpError> {
        if !(200..=599).contains(&self.status) {
            return Err(HttpError::Status(self.status));
        }
        if self.websocket && (self.stream.is_none() || !body.is_empty()) {
            return Err(HttpError::WebSocket);
        }
        check_headers(&self.headers)
    }
}

/// Visible ASCII that does not end a path or query: RFC 3986 allows fewer, but
/// clients send these and servers pass them on.
fn is_target(text: &str, question_mark: bool) -> bool {
    text.len() <= MAX_TARGET_BYTES
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && (question_mark || b != b'?'))
}

fn check_headers(headers: &[(String, String)]) -> Result<(), HttpError> {
    if headers.len() > MAX_HEADERS {
        return Err(HttpError::TooManyHeaders(headers.len()));
    }
    match headers.iter().position(|(name, value)| !is_header_name(name) || !is_header_value(value))
    {
        Some(position) => Err(HttpError::Header(position)),
        None => Ok(()),
    }
}

/// A token of RFC 9110, section 5.6.2, without upper case.
fn is_header_name(name: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&name.len())
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b)
        })
}

/// A field value of RFC 9110, section 5.5, in UTF-8: no control characters but
/// tab, no blank at either end.
fn is_header_value(value: &str) -> bool {
    let blank = |edge: Option<char>| matches!(edge, Some(' ' | '\t'));
    !value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f)
        && !blank(value.chars().next())
        && !blank(value.chars().next_back())
}

fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
