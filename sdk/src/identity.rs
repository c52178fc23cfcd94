//! The end user behind a call, in the host's word.
//!
//! A host's gateway verifies a user's token and hands on what it says. A request to a route
//! carries it ([`crate::HttpRequest::identity`]); every call of a service that follows from the
//! request has it too, at any depth and whoever calls ([`crate::Host::identity`]). A plugin
//! cannot set it, and neither can a client by a header.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Most bytes of a subject: OpenID Connect Core, section 2, allows 255 characters.
pub const MAX_SUBJECT_BYTES: usize = 255;
/// Most bytes of an issuer's address, as for other addresses.
pub const MAX_ISSUER_BYTES: usize = 2048;
/// Most roles of a user, and most claims that are handed on.
pub const MAX_ROLES: usize = 64;
/// Most bytes of a role, and of a claim's name.
pub const MAX_ROLE_BYTES: usize = 128;
/// Most bytes of all claims that are handed on: a quarter of a request's head, with room for
/// quotes.
pub const MAX_CLAIMS_BYTES: usize = 8 * 1024;

/// A verified end user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who it is, unique for the issuer.
    pub subject: String,
    /// Who says so: the issuer's address, as its tokens have it.
    pub issuer: String,
    /// Roles on this host, by the operator's mapping: sorted, each once.
    pub roles: Vec<String>,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Claims of the token that the operator hands on: texts as they are, everything else as
    /// JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl Identity {
    /// Whether the user has a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Whether it is within the limits of this module.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let claims: usize = self.claims.iter().map(|(name, value)| name.len() + value.len()).sum();
        (1..=MAX_SUBJECT_BYTES).contains(&self.subject.len())
            && (1..=MAX_ISSUER_BYTES).contains(&self.issuer.len())
            && self.roles.len() <= MAX_ROLES
            && self.roles.iter().all(|role| (1..=MAX_ROLE_BYTES).contains(&role.len()))
            && self.roles.is_sorted()
            && self.claims.len() <= MAX_ROLES
            && claims <= MAX_CLAIMS_BYTES
    }

    /// What [`crate::operation::IDENTITY`] answers.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it cannot be written.
    pub fn encode(identity: Option<&Self>) -> Result<Vec<u8>, Error> {
        identity.map_or_else(|| Ok(Vec::new()), |i| serde_json::to_vec(i).map_err(Error::failed))
    }

    /// Reads what [`Identity::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it is malformed or above the limits.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Error> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let identity: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::failed(format!("the identity is malformed: {error}")))?;
        if !identity.is_within_limits() {
            return Err(Error::failed("the identity is above its limits"));
        }
        Ok(Some(identity))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ada() -> Identity {
        Identity {
            subject: "ada".into(),
            issuer: "https://id.example.org".into(),
            roles: vec!["admin".into(), "reader".into()],
            expires_ms: 1_700_000_000_000,
            claims: [("email".to_owned(), "ada@example.org".to_owned())].into(),
        }
    }

    #[test]
    fn it_travels_and_nobody_travels_too() {
        let bytes = Identity::encode(Some(&ada())).unwrap();
        assert_eq!(Identity::decode(&bytes).unwrap(), Some(ada()));
        assert_eq!(Identity::decode(&Identity::encode(None).unwrap()).unwrap(), None);
        assert!(ada().has_role("admin") && !ada().has_role("adm"));
    }

    #[test]
    fn limits_hold() {
        let unsorted = Identity { roles: vec!["b".into(), "a".into()], ..ada() };
        let nobody = Identity { subject: String::new(), ..ada() };
        let long =
            Identity { claims: [("c".into(), "x".repeat(MAX_CLAIMS_BYTES))].into(), ..ada() };
        for wrong in [unsorted, nobody, long] {
            let bytes = Identity::encode(Some(&wrong)).unwrap();
            assert!(Identity::decode(&bytes).is_err(), "{wrong:?}");
        }
        assert!(Identity::decode(b"{").is_err());
    }
}
