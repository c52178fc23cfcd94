//! End users: tokens at the host's door, and the keys of those who issue them.
//!
//! A token is a signed JWT (RFC 7519, RFC 7515) in an `Authorization: Bearer` header, or among
//! the protocols that a WebSocket's client offers (`offered`). Its issuer
//! is one that the operator named, its key one of that issuer's key set (RFC 7517), its algorithm
//! the key's own (RFC 8725, section 3.1): what the token says about that is compared, never
//! obeyed. What its claims come to is decided in [`modunest_core::user`].
//!
//! Everything fails closed: a token that cannot be checked because its issuer's keys cannot be
//! had is answered by 503, every other one that is not good by 401. A request with a bad token
//! is never taken for one without.

mod crypto;
mod fetch;
mod keys;
mod offered;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::Validation;
use modunest_core::user::{Refused, TOKEN_MAX_BYTES, User, judge};
use serde_json::Value;

pub use crate::config::users::{IssuerSettings, KeysFrom};
pub use keys::KeySetError;
pub(crate) use offered::take_offered;
use source::{KeyError, Source};

/// Everybody whose tokens are believed.
pub struct Users {
    issuers: BTreeMap<String, Arc<Issuer>>,
}

struct Issuer {
    settings: IssuerSettings,
    keys: Source,
}

/// Why a request's token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// There is more than one, or it is no text.
    #[error("the request has no readable Authorization header, or more than one")]
    Header,
    /// It is too long.
    #[error("the token has more than {TOKEN_MAX_BYTES} bytes")]
    TooLong,
    /// It is no signed JWT.
    #[error("the token is malformed")]
    Malformed,
    /// It is a JWT for another purpose.
    #[error("the token's type is {0}, which is none for requests")]
    Type(String),
    /// Nobody that this host believes.
    #[error("this host does not know the token's issuer")]
    Issuer,
    /// No key of the issuer's fits.
    #[error("the token's issuer has no such key")]
    Key,
    /// The algorithm is not the key's.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// What it claims.
    #[error("the token is not accepted: {0}")]
    Claims(#[from] Refused),
    /// It cannot be checked now.
    #[error("the keys of the token's issuer cannot be had now")]
    Unavailable,
}

impl Users {
    /// The users of these issuers. Key sets in files are read now.
    ///
    /// # Errors
    /// Which key set cannot be used, and why.
    pub fn new(issuers: &[IssuerSettings]) -> Result<Self, KeySetError> {
        Users { issuers: BTreeMap::new() }.renewed(issuers)
    }

    /// The users of these issuers, where those that are as before keep the keys that were
    /// fetched. Key sets in files are read now.
    ///
    /// # Errors
    /// As [`Users::new`].
    pub fn renewed(&self, issuers: &[IssuerSettings]) -> Result<Self, KeySetError> {
        crypto::install();
        let one = |settings: &IssuerSettings| {
            let name = &settings.expected.issuer;
            let kept = self.issuers.get(name).filter(|issuer| issuer.settings == *settings);
            let issuer = match kept.filter(|issuer| issuer.keys.are_fetched()) {
                Some(issuer) => issuer.clone(),
                None => {
                    let keys = Source::new(settings)?;
                    Arc::new(Issuer { settings: settings.clone(), keys })
                }
            };
            Ok((name.clone(), issuer))
        };
        Ok(Users { issuers: issuers.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// Whether the same tokens are believed by both: of the same issuers, and by the same files
    /// where keys are in files.
    pub(crate) fn is_same(&self, other: &Users) -> bool {
        let mut pairs = self.issuers.iter().zip(&other.issuers);
        self.issuers.len() == other.issuers.len()
            && pairs.all(|((_, one), (_, other))| {
                one.settings == other.settings && one.keys.is_same_file(&other.keys)
            })
    }

    /// Whether there are users at all. Where there are none, an `Authorization` header means
    /// nothing to the host, and is the plugin's.
    pub fn exist(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// The user that a request's token stands for; `None` where it has none.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub async fn of(&self, headers: &HeaderMap) -> Result<Option<User>, Rejected> {
        if !self.exist() {
            return Ok(None);
        }
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let header = match (all.next(), all.next()) {
            (None, _) => return Ok(None),
            (Some(header), None) => header.to_str().map_err(|_| Rejected::Header)?,
            (Some(_), Some(_)) => return Err(Rejected::Header),
        };
        match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.user(token.trim()).await.map(Some)
            }
            None if header.eq_ignore_ascii_case("bearer") => Err(Rejected::Malformed),
            // Another scheme is between client and plugin.
            _ => Ok(None),
        }
    }

    async fn user(&self, token: &str) -> Result<User, Rejected> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(Rejected::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Rejected::Malformed)?;
        if let Some(kind) = header.typ.as_deref().filter(|kind| !is_for_requests(kind)) {
            return Err(Rejected::Type(kind.chars().take(64).collect()));
        }
        // Only says whose keys to look at; nothing of it is believed yet.
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token)
            .map_err(|_| Rejected::Malformed)?;
        let name = claims.get("iss").and_then(Value::as_str);
        let issuer = name.and_then(|name| self.issuers.get(name)).ok_or(Rejected::Issuer)?;
        let key = issuer.keys.key(header.kid.as_deref(), header.alg).await?;
        if key.algorithm != header.alg {
            return Err(Rejected::Algorithm);
        }
        let mut only_signature = Validation::new(key.algorithm);
        only_signature.required_spec_claims.clear();
        only_signature.validate_exp = false;
        only_signature.validate_aud = false;
        let token = jsonwebtoken::decode::<Value>(token, &key.key, &only_signature)
            .map_err(|error| rejected(error.kind()))?;
        Ok(judge(&token.claims, &issuer.settings.expected, modunest_runtime::clock::now())?)
    }
}

/// JWTs for other purposes (logout, proofs of possession, security events) are signed by the
/// same keys and name themselves (RFC 8725, section 3.11).
fn is_for_requests(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

fn rejected(kind: &jsonwebtoken::errors::ErrorKind) -> Rejected {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => Rejected::Signature,
        ErrorKind::InvalidAlgorithm => Rejected::Algorithm,
        _ => Rejected::Malformed,
    }
}

impl From<KeyError> for Rejected {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unknown => Rejected::Key,
            KeyError::Unavailable => Rejected::Unavailable,
        }
    }
}
