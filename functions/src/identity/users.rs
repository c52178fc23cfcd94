//! Users and tokens.

use std::time::Duration;

use modunest_core::api::{CreateToken, CreateUser, TokenCreated, UserView};
use modunest_core::authorise::{Action, Scope};
use modunest_core::digest::Digest;
use modunest_core::name::UserName;
use modunest_core::problem::{Code, Refusal};

use super::{Caller, new_token};
use crate::Functions;
use crate::error::Error;
use crate::store::Write;
use crate::store::users::{Token, User, token_id};

/// Longest life of a token: whoever leaves is forgotten after a year at the latest.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long before its end a registry's own token is replaced, at a start: half a year, so
/// that a process which runs for months keeps a good one.
const TOKEN_RENEWED_BEFORE: Duration = Duration::from_secs(182 * 24 * 60 * 60);
/// Longest label of a token, in characters.
const LABEL_MAX_CHARS: usize = 100;
/// How often another token is drawn when one exists already. Two random tokens of 256 bits
/// are never the same: a second conflict means that something else is wrong.
const TOKEN_TRIES: u32 = 2;

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

fn check_token(request: &CreateToken) -> Result<(), Error> {
    let chars = request.label.chars().count();
    if chars == 0 || chars > LABEL_MAX_CHARS || request.label.chars().any(char::is_control) {
        return refuse(
            Code::InvalidRequest,
            format!("/label: 1 to {LABEL_MAX_CHARS} characters without control characters"),
        );
    }
    if request.lifetime_secs == 0 || request.lifetime_secs > TOKEN_LIFE_MAX.as_secs() {
        let most = TOKEN_LIFE_MAX.as_secs();
        return refuse(
            Code::InvalidRequest,
            format!("/lifetime_secs: 1 to {most}, which is a year"),
        );
    }
    if request.scopes.is_empty() {
        return refuse(Code::InvalidRequest, format!("/scopes: at least one of {}", scope_names()));
    }
    Ok(())
}

impl Functions {
    pub(crate) async fn first_user(&self, user: UserName) -> Result<Option<TokenCreated>, Error> {
        let now = self.now();
        let (text, token) = self.draw(user.clone(), all_scopes(), "first start", TOKEN_LIFE_MAX);
        let user = User { user, registry_admin: true, created_at: now };
        Ok(match self.0.store.bootstrap(&user, &token).await? {
            Write::Done => Some(created(text, &token)),
            Write::Conflict => None,
        })
    }

    pub(crate) async fn recovery_token(&self, user: UserName) -> Result<TokenCreated, Error> {
        if self.0.store.user(&user).await?.is_none() {
            return refuse(Code::NotFound, format!("there is no user {user}"));
        }
        self.make_token(user, all_scopes(), "recovery", TOKEN_LIFE_MAX).await
    }

    pub(crate) async fn token_to_count(
        &self,
        user: UserName,
        existing: Option<&str>,
    ) -> Result<Option<TokenCreated>, Error> {
        if let Some(text) = existing {
            let token = self.0.store.token(&Digest::of(text.as_bytes())).await?;
            let needed_until = self.now().plus(TOKEN_RENEWED_BEFORE);
            if token.is_some_and(|t| t.scopes == [Scope::Count] && t.expires_at > needed_until) {
                return Ok(None);
            }
        }
        if self.0.store.user(&user).await?.is_none() {
            return refuse(Code::NotFound, format!("there is no user {user}"));
        }
        let scopes = vec![Scope::Count];
        self.make_token(user, scopes, "counts downloads", TOKEN_LIFE_MAX).await.map(Some)
    }

    pub(crate) async fn create_user(
        &self,
        caller: &Caller,
        request: CreateUser,
    ) -> Result<UserView, Error> {
        self.authorise(caller, &Action::ManageUsers)?;
        let user = User {
            user: request.user,
            registry_admin: request.registry_admin,
            created_at: self.now(),
        };
        match self.0.store.create_user(&user).await? {
            Write::Conflict => {
                refuse(Code::AlreadyExists, format!("there is a user {} already", user.user))
            }
            Write::Done => {
                tracing::info!(user = %user.user, by = %caller.user, admin = user.registry_admin, "made a user");
                Ok(UserView {
                    user: user.user,
                    registry_admin: user.registry_admin,
                    created_at: user.created_at,
                })
            }
        }
    }

    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        request: CreateToken,
    ) -> Result<TokenCreated, Error> {
        check_token(&request)?;
        let owner = match &request.user {
            Some(user) if *user != caller.user => {
                self.authorise(caller, &Action::ManageUsers)?;
                match self.0.store.user(user).await? {
                    Some(user) => user,
                    None => return refuse(Code::NotFound, format!("there is no user {user}")),
                }
            }
            _ => {
                self.authorise(caller, &Action::ManageOwnTokens)?;
                if let Some(scope) =
                    request.scopes.iter().find(|scope| !caller.scopes.contains(scope))
                {
                    return refuse(
                        Code::Forbidden,
                        format!(
                            "a token makes none that may do more than itself, and this one lacks {scope:?}"
                        ),
                    );
                }
                User {
                    user: caller.user.clone(),
                    registry_admin: caller.registry_admin,
                    created_at: self.now(),
                }
            }
        };
        let reserved = request.scopes.iter().find(|scope| scope.is_for_administrators());
        if let (Some(scope), false) = (reserved, owner.registry_admin) {
            return refuse(
                Code::Forbidden,
                format!(
                    "{} does not administer the registry, which the scope \"{}\" needs",
                    owner.user,
                    scope.as_str()
                ),
            );
        }
        let mut scopes = request.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let life = Duration::from_secs(request.lifetime_secs);
        self.make_token(owner.user, scopes, &request.label, life).await
    }

    async fn make_token(
        &self,
        user: UserName,
        scopes: Vec<Scope>,
        label: &str,
        life: Duration,
    ) -> Result<TokenCreated, Error> {
        for _ in 0..TOKEN_TRIES {
            let (text, token) = self.draw(user.clone(), scopes.clone(), label, life);
            if self.0.store.create_token(&token).await? == Write::Done {
                tracing::info!(user = %user, token = token_id(&token.hash), "made a token");
                return Ok(created(text, &token));
            }
        }
        Err(Error::Broken("random tokens repeat"))
    }

    fn draw(
        &self,
        user: UserName,
        scopes: Vec<Scope>,
        label: &str,
        life: Duration,
    ) -> (String, Token) {
        let (text, hash) = new_token();
        let now = self.now();
        let expires_at = now.plus(life);
        (text, Token { hash, user, scopes, label: label.to_owned(), created_at: now, expires_at })
    }

    pub(crate) async fn delete_token(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        let tokens = self.0.store.tokens_of_id(id).await?;
        // Others' tokens do not exist for those who may not manage them.
        if tokens.iter().all(|token| token.user == caller.user) {
            self.authorise(caller, &Action::ManageOwnTokens)?;
        } else {
            self.authorise(caller, &Action::ManageUsers)?;
        }
        if tokens.is_empty() {
            return refuse(Code::NotFound, format!("there is no token {id}"));
        }
        for token in &tokens {
            self.0.store.delete_token(token).await?;
            tracing::info!(
                user = %token.user, by = %caller.user, token = id, label = token.label,
                created_at = %token.created_at, "revoked a token"
            );
        }
        Ok(())
    }
}

fn all_scopes() -> Vec<Scope> {
    Scope::ALL.to_vec()
}

fn scope_names() -> String {
    Scope::ALL.map(Scope::as_str).join(", ")
}

fn created(text: String, token: &Token) -> TokenCreated {
    TokenCreated { id: token_id(&token.hash), token: text, expires_at: token.expires_at }
}
