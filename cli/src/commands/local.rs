//! A publisher at a registry of one's own machine: a user, a token and a key, made once and kept
//! in a folder.

use std::path::Path;

use modunest_core::api::{
    CreateOrg, CreateToken, CreateUser, OrgView, StatementResponse, TokenCreated, UserView,
};
use modunest_core::authorise::Scope;
use modunest_core::name::{OrgName, UserName};
use modunest_core::problem::Code;
use modunest_tlog::SigningKey;
use reqwest::Method;

use super::key;
use crate::api::Api;
use crate::error::Error;
use crate::files;
use crate::profile::read_key;
use crate::registry::LocalRegistry;

/// The user who publishes.
const USER: &str = "ada";
/// File with that user's token, in the folder.
pub const TOKEN_FILE: &str = "publisher.token";
/// File with the key that signs, in the folder.
pub const KEY_FILE: &str = "publisher.key";
/// How long the tokens live, in seconds: a year, the longest the registry gives.
const TOKEN_LIFETIME_SECS: u64 = 365 * 24 * 60 * 60;

/// The API as the user who publishes; the administrator makes user and token once.
///
/// # Errors
/// The registry refuses, or a file below `folder` cannot be used.
pub async fn publisher_api(registry: &LocalRegistry, folder: &Path) -> Result<Api, Error> {
    let token_file = folder.join(TOKEN_FILE);
    if !token_file.exists() {
        let admin = Api::new(registry.url.clone(), registry.profile.stored_token()?)?;
        let user: UserName = USER.parse().map_err(|error| Error::Failed(format!("{error}")))?;
        let request = CreateUser { user: user.clone(), registry_admin: false };
        let made: Result<UserView, Error> = admin.send(Method::POST, "/v1/users", &request).await;
        unless_there(made)?;
        let request = CreateToken {
            user: Some(user),
            scopes: vec![Scope::Publish, Scope::Manage],
            label: "local".to_owned(),
            lifetime_secs: TOKEN_LIFETIME_SECS,
        };
        let created: TokenCreated = admin.send(Method::POST, "/v1/tokens", &request).await?;
        files::write_secret(&token_file, &format!("{}\n", created.token))?;
    }
    Api::new(registry.url.clone(), files::read_secret(&token_file)?)
}

/// The key that signs for the organisation, registered to it.
///
/// # Errors
/// As [`publisher_api`].
pub async fn publisher_key(api: &Api, folder: &Path, org: &OrgName) -> Result<SigningKey, Error> {
    let file = folder.join(KEY_FILE);
    if !file.exists() {
        files::create_secret(&file, &format!("{}\n", key::generate(org.as_str())?.expose()))?;
    }
    let key = read_key(&file)?;
    // An earlier start may have ended between any two of these steps, so each is asked for
    // again until the last one is known to be done.
    let registered = folder.join("publisher.registered");
    if !registered.exists() {
        let founded: Result<OrgView, Error> =
            api.send(Method::POST, "/v1/orgs", &CreateOrg { org: org.clone() }).await;
        unless_there(founded)?;
        let path = format!("/v1/orgs/{org}/keys");
        let answer: Result<StatementResponse, Error> =
            api.send(Method::POST, &path, &key::registration(org, &key)?).await;
        unless_there(answer)?;
        files::write(&registered, "")?;
    }
    Ok(key)
}

/// Somebody made it before us, which is as good.
fn unless_there<T>(made: Result<T, Error>) -> Result<(), Error> {
    match made {
        Ok(_) => Ok(()),
        Err(Error::Refused(problem))
            if matches!(problem.code, Code::AlreadyExists | Code::NameTaken) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
