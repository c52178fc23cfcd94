//! Who is at the door: the user behind a request, and whether the operator lets them in.

use axum::response::{IntoResponse as _, Response};
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use modunest_core::problem::Code;
use modunest_core::user::{Access, Denied, User, decide};
use modunest_sdk::Identity;

use super::refuse;
use crate::config::{Pattern, UserSettings};
use crate::host::Cell;
use crate::users::{KeySetError, Rejected, Users};

/// What a client hears that may try again: as long as a fetch of keys rests.
pub(super) const RETRY_AFTER_S: u64 = 1;

pub(super) struct Door {
    users: Users,
    access: Access<Pattern>,
}

impl Door {
    pub(super) fn new(settings: &UserSettings) -> Result<Self, KeySetError> {
        Ok(Door { users: Users::new(&settings.issuers)?, access: settings.access.clone() })
    }

    /// The door under other settings. Issuers that are as before keep the keys that were fetched.
    pub(super) fn renewed(&self, settings: &UserSettings) -> Result<Self, KeySetError> {
        let users = self.users.renewed(&settings.issuers)?;
        Ok(Door { users, access: settings.access.clone() })
    }

    /// Whether the same requests are let in by both.
    pub(super) fn is_same(&self, other: &Door) -> bool {
        self.access == other.access && self.users.is_same(&other.users)
    }

    /// Whether tokens are the host's; plugins never see them then.
    pub(super) fn has_users(&self) -> bool {
        self.users.exist()
    }

    /// The user behind a request to a plugin, if the request may go on.
    ///
    /// # Errors
    /// The answer that says why it may not.
    #[allow(clippy::result_large_err, reason = "the answer is what is sent")]
    pub(super) async fn admit(&self, cell: &Cell, head: &Parts) -> Result<Option<User>, Response> {
        let user = self.users.of(&head.headers).await.map_err(|rejected| reject(&rejected))?;
        let covers = |pattern: &Pattern, plugin: &_| pattern.matches(plugin);
        decide(&self.access, covers, cell.name(), head.uri.path(), user.as_ref())
            .map_err(|denied| deny(&denied))?;
        Ok(user)
    }
}

/// A user as plugins see it.
pub(super) fn identity(user: User) -> Identity {
    let User { subject, issuer, roles, expires_at, claims } = user;
    Identity { subject, issuer, roles, expires_ms: expires_at.as_millis(), claims }
}

fn reject(rejected: &Rejected) -> Response {
    match rejected {
        Rejected::Unavailable => {
            let mut response = refuse(Code::Unavailable, rejected.to_string()).into_response();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            response
        }
        Rejected::Header => challenge(Code::Unauthenticated, "invalid_request", rejected),
        _ => challenge(Code::Unauthenticated, "invalid_token", rejected),
    }
}

fn deny(denied: &Denied) -> Response {
    match denied {
        // Who sent no token is told no error (RFC 6750, section 3.1).
        Denied::Anonymous => challenge(Code::Unauthenticated, "", denied),
        Denied::Roles(_) => challenge(Code::Forbidden, "insufficient_scope", denied),
        Denied::Path => refuse(Code::InvalidRequest, denied.to_string()).into_response(),
    }
}

/// A refusal with a challenge (RFC 6750, section 3).
fn challenge(code: Code, error: &str, detail: &dyn std::fmt::Display) -> Response {
    let mut response = refuse(code, detail.to_string()).into_response();
    let mut text = "Bearer realm=\"modunest\"".to_owned();
    if !error.is_empty() {
        // What a description may hold (RFC 6750, section 3): no quotes, no backslashes.
        let plain = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
        let detail: String =
            detail.to_string().chars().map(|c| if plain(c) { c } else { '\'' }).collect();
        text.push_str(&format!(", error=\"{error}\", error_description=\"{detail}\""));
    }
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}
