//! HTTP clients, and answers read with a bound.

use std::sync::Once;
use std::time::Duration;

use modunest_core::trace::TRACEPARENT;
use reqwest::{Client, RequestBuilder, Response};

/// How long a connection may take to be made: a round trip around the earth with one
/// retransmission, and room.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may stand still before it counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept for another request. Servers end idle ones after a minute, ours as
/// well; whoever asks once a minute would meet just that moment, and a request on its way to a
/// connection that ends is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes ring the process's TLS cryptography. Cheap after the first call.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when another provider was installed first, which then serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// A client that times out, follows no redirect (a redirect would carry a presigned request
/// or a token elsewhere), and says who it is.
///
/// # Errors
/// When no client can be made, for example because the system's root certificates are
/// unreadable.
pub fn client() -> Result<Client, reqwest::Error> {
    install_crypto();
    Client::builder()
        .user_agent(concat!("modunest/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// Adds the present task's trace context: what serves the request is its next step.
pub fn traced(request: RequestBuilder) -> RequestBuilder {
    match crate::trace::current() {
        Some(context) => request.header(TRACEPARENT, context.to_string()),
        None => request,
    }
}

/// Why an answer's body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// It broke off.
    #[error("the answer broke off: {}", reason(.0))]
    Broken(#[source] reqwest::Error),
}

/// Reads an answer's body, and not a byte more than `limit_bytes` of it.
///
/// # Errors
/// [`BodyError`].
pub async fn body(mut response: Response, limit_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let too_long = |length: u64| length > limit_bytes as u64;
    if response.content_length().is_some_and(too_long) {
        return Err(BodyError::TooLong(limit_bytes));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(BodyError::Broken)? {
        if bytes.len() + piece.len() > limit_bytes {
            return Err(BodyError::TooLong(limit_bytes));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// An error's last cause: what stands before it only repeats that a request failed, and where.
pub fn reason(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
