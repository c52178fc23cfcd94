//! Who asks, and what they may do: tokens, users, organisations and publisher keys.

mod keys;
mod orgs;
mod users;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use modunest_core::api::WhoAmI;
use modunest_core::authorise::{Action, Principal, Scope, authorise};
use modunest_core::digest::Digest;
use modunest_core::name::{OrgName, UserName};
use modunest_core::problem::{Code, Refusal};
use modunest_core::time::Timestamp;

use crate::Functions;
use crate::error::Error;
use crate::store::orgs::Org;

/// What a token starts with, so that people and secret scanners know it when they see it.
const TOKEN_PREFIX: &str = "mnt_";
/// Random bytes in a token: nobody guesses 256 bits, so a plain hash of it is safe to keep.
const TOKEN_BYTES: usize = 32;

/// Whoever a good token belongs to. Made by [`Functions::authenticate`] only.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: UserName,
    pub(crate) registry_admin: bool,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) token_expires_at: Timestamp,
}

impl Caller {
    fn decide(&self, action: &Action, org: Option<&Org>, now: Timestamp) -> Result<(), Error> {
        let principal = Principal {
            user: self.user.clone(),
            registry_admin: self.registry_admin,
            scopes: self.scopes.clone(),
            token_expires_at: Some(self.token_expires_at),
            role: org.and_then(|org| org.members.get(&self.user).copied()),
        };
        authorise(&principal, action, now).map_err(Error::from)
    }

    pub(crate) fn who_am_i(&self) -> WhoAmI {
        WhoAmI {
            user: self.user.clone(),
            registry_admin: self.registry_admin,
            scopes: self.scopes.clone(),
            token_expires_at: Some(self.token_expires_at),
        }
    }
}

/// A new token's text and hash.
fn new_token() -> (String, Digest) {
    let random: [u8; TOKEN_BYTES] = modunest_runtime::random::bytes();
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = Digest::of(token.as_bytes());
    (token, hash)
}

fn unauthenticated(detail: &str) -> Error {
    Refusal::new(Code::Unauthenticated, detail).into()
}

fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let value = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| unauthenticated("send a token as \"Authorization: Bearer mnt_…\""))?;
    let text =
        value.to_str().map_err(|_| unauthenticated("the Authorization header is not text"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(unauthenticated("the Authorization header is not of the form \"Bearer mnt_…\"")),
    }
}

impl Functions {
    /// Finds out who asks.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        let token = bearer(headers)?;
        let unknown = || unauthenticated("the token is unknown or was revoked; make a new one");
        let token = match token.strip_prefix(TOKEN_PREFIX) {
            Some(_) => {
                self.0.store.token(&Digest::of(token.as_bytes())).await?.ok_or_else(unknown)?
            }
            None => return Err(unknown()),
        };
        if self.now() >= token.expires_at {
            return Err(unauthenticated("the token has expired; make a new one"));
        }
        let user = self.0.store.user(&token.user).await?.ok_or_else(unknown)?;
        Ok(Caller {
            user: user.user,
            registry_admin: user.registry_admin,
            scopes: token.scopes,
            token_expires_at: token.expires_at,
        })
    }

    /// Decides about an action that concerns no organisation.
    pub(crate) fn authorise(&self, caller: &Caller, action: &Action) -> Result<(), Error> {
        caller.decide(action, None, self.now())
    }

    /// Decides about publishing for an organisation, and answers the organisation.
    pub(crate) async fn authorise_publish(
        &self,
        caller: &Caller,
        org: &OrgName,
    ) -> Result<Org, Error> {
        self.authorise_in(caller, org, &Action::Publish(org.clone())).await
    }

    async fn authorise_manage(&self, caller: &Caller, org: &OrgName) -> Result<Org, Error> {
        self.authorise_in(caller, org, &Action::ManageOrg(org.clone())).await
    }

    async fn authorise_in(
        &self,
        caller: &Caller,
        org: &OrgName,
        action: &Action,
    ) -> Result<Org, Error> {
        let found = self.0.store.org(org).await?;
        caller.decide(action, found.as_ref(), self.now())?;
        // Without the organisation there is no role in it, and so no way to here.
        found.ok_or_else(|| {
            Refusal::new(Code::Forbidden, format!("there is no organisation {org}")).into()
        })
    }
}
