//! End users: what a token's claims come to, and who may use what.
//!
//! A host's gateway verifies the signature of a JSON Web Token (RFC 7519) and hands the claims
//! to [`judge`]; [`decide`] then says whether the user, or nobody, may go on. Neither believes
//! what it cannot read: a claim of the wrong type refuses, it is never as if it were absent.

mod access;
mod claims;

use std::collections::BTreeMap;
use std::time::Duration;

pub use access::{Access, Denied, Rule, decide, segments};
pub use claims::{Expected, Refused, judge};

use crate::time::Timestamp;

/// Longest token that is looked at: what common servers take as one header.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Longest subject: OpenID Connect Core, section 2, allows 255 characters.
pub const SUBJECT_MAX_BYTES: usize = 255;
/// Most roles of a user. Directories with more send references instead of lists.
pub const ROLES_MAX: usize = 64;
/// Longest role.
pub const ROLE_MAX_BYTES: usize = 128;
/// Most bytes of all claims that are handed on.
pub const CLAIMS_MAX_BYTES: usize = 8 * 1024;

/// A verified end user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who it is, unique for the issuer.
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// Roles on this host: sorted, each once.
    pub roles: Vec<String>,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// Claims that are handed on: texts as they are, everything else as JSON.
    pub claims: BTreeMap<String, String>,
}

/// What a fuzzer calls: judging never panics, and whoever is accepted keeps the limits. Answers
/// whether the bytes are a user's claims at the beginning of 2024.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    let expected = Expected {
        issuer: "https://id.example.org".to_owned(),
        audience: vec!["host".to_owned()],
        roles_claim: vec!["realm".to_owned(), "roles".to_owned()],
        claims: vec!["email".to_owned()],
        skew: Duration::from_secs(60),
        ..Expected::default()
    };
    if let Some(path) = std::str::from_utf8(bytes).ok().and_then(segments) {
        assert!(path.iter().all(|segment| !segment.contains(['/', '\\', '%'])));
    }
    let Ok(claims) = serde_json::from_slice(bytes) else { return false };
    let now = Timestamp::from_millis(1_704_067_200_000);
    let Ok(user) = judge(&claims, &expected, now) else { return false };
    assert!(user.expires_at > now);
    assert!((1..=SUBJECT_MAX_BYTES).contains(&user.subject.len()));
    assert!(user.roles.len() <= ROLES_MAX && user.roles.is_sorted());
    let size: usize = user.claims.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= CLAIMS_MAX_BYTES);
    true
}
