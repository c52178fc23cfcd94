//! Requests out over HTTP, to hosts that the manifest asks for and the operator granted, as
//! `http:HOST` or `http:HOST:PORT`.
//!
//! The host resolves names, connects, speaks TLS, and follows redirects, checking each step
//! anew; a plugin has no sockets. A request ends with the deadline of the call being served at
//! the latest. Addresses of private networks and of the host itself are refused unless the
//! operator granted exactly them.

use super::HTTP_SEND;
use super::form::{Blob, Form as _, answer, form};
use crate::{Error, Host};

/// Longest URL, in bytes.
pub const URL_MAX_BYTES: usize = 8 * 1024;
/// Most headers of a request or a response.
pub const HEADERS_MAX: usize = 128;
/// Most bytes of a body, in either direction: half of the largest message.
pub const BODY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most redirects that are followed.
pub const REDIRECTS_MAX: u32 = 10;

form! {
    /// A request out.
    Send<'a> {
        /// Method in upper case, such as `GET`.
        method: &'a str,
        /// `http` or `https` URL, without user name, password and fragment.
        url: &'a str,
        /// Headers in order. Those about the connection and the body's length are the host's.
        headers: Vec<(&'a str, &'a str)>,
        /// Body, possibly empty.
        body: &'a [u8],
        /// Redirects that are followed, at most [`REDIRECTS_MAX`].
        redirects: u32,
        /// When to give up, in milliseconds; zero for the host's own limit.
        timeout_ms: u32,
    }
}
form! {
    /// A response.
    Received {
        /// Final status.
        status: u32,
        /// The URL that answered, after redirects.
        url: String,
        /// Headers in order, names in lower case; those whose values are not visible ASCII are
        /// left out.
        headers: Vec<(String, String)>,
        /// Body, with no content coding undone.
        body: Blob,
    }
}

impl<'a> Send<'a> {
    /// A `GET` that follows redirects.
    #[must_use]
    pub const fn get(url: &'a str) -> Self {
        Self {
            method: "GET",
            url,
            headers: Vec::new(),
            body: &[],
            redirects: REDIRECTS_MAX,
            timeout_ms: 0,
        }
    }
}

impl Received {
    /// The value of the first header with this lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Host {
    /// Sends a request and waits for its whole response, whatever its status.
    ///
    /// # Errors
    /// [`Error::Denied`] for a host that is not granted, [`Error::InvalidInput`] for what is no
    /// request, [`Error::Unavailable`] above the quota or when no answer can be had,
    /// [`Error::DeadlineExceeded`], and [`Error::Failed`] for a response above the limits.
    pub fn send(&self, request: &Send<'_>) -> Result<Received, Error> {
        answer(&self.operate(HTTP_SEND, &request.encode())?)
    }
}
