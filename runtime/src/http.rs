//! HTTP clients.

use std::sync::Once;
use std::time::Duration;

use modunest_core::trace::TRACEPARENT;
use reqwest::{Client, RequestBuilder};

/// How long a connection may take to be made: a round trip around the earth with one
/// retransmission, and room.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may stand still before it counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

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
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// Adds the present task's trace context, as its next step.
pub fn traced(request: RequestBuilder) -> RequestBuilder {
    match crate::trace::current() {
        Some(context) => request.header(TRACEPARENT, crate::trace::child_of(context).to_string()),
        None => request,
    }
}
