//! The commands, one module each, in the order in which an author meets them.

pub mod admin;
pub mod build;
pub mod completions;
pub mod deprecate;
pub mod dev;
pub mod identity;
pub mod info;
pub mod key;
pub mod local;
pub mod monitor;
pub mod new;
pub mod owner;
pub mod publish;
pub mod trust;
pub mod up;
pub mod verify;
pub mod witness;
pub mod yank;

use std::path::{Path, PathBuf};

use modunest_agent::registry::{Client as Registry, Error as RegistryError, Kind, Settings};

use crate::api::Api;
use crate::error::Error;
use crate::output::Output;
use crate::profile::Profile;
use crate::publish::Publisher;

/// What every command gets.
pub struct Context {
    /// How to print.
    pub output: Output,
    /// The profile that was named on the command line.
    pub profile: Option<PathBuf>,
}

impl Context {
    /// The profile.
    ///
    /// # Errors
    /// When there is none.
    pub fn profile(&self) -> Result<Profile, Error> {
        Profile::load(self.profile.as_deref())
    }

    /// The API, as the profile's user.
    ///
    /// # Errors
    /// When there is no profile or no token.
    pub fn api(&self) -> Result<Api, Error> {
        Api::of(&self.profile()?)
    }

    /// Everything that publishing needs.
    ///
    /// # Errors
    /// When something is missing, with the way to get it.
    pub fn publisher(&self, key: Option<&Path>) -> Result<Publisher, Error> {
        let profile = self.profile()?;
        let key = profile.signing_key(key)?;
        Ok(Publisher { api: Api::of(&profile)?, registry: registry(&profile)?, key })
    }
}

/// The registry's files, proven by the profile's keys.
///
/// # Errors
/// When the profile's keys are wrong or the cache folder cannot be used.
pub fn registry(profile: &Profile) -> Result<Registry, Error> {
    let settings = Settings {
        url: profile.url.clone(),
        origin: profile.origin.clone(),
        keys: profile.verifying_keys()?,
        cache_dir: profile.cache_dir(),
    };
    Registry::open(settings).map_err(registry_error)
}

/// What a failed read means to whoever runs the command.
pub fn registry_error(error: RegistryError) -> Error {
    match error.kind() {
        Kind::Unreachable => {
            Error::Unreachable { what: "reading the registry".to_owned(), why: error.to_string() }
        }
        Kind::Refused => Error::Unproven(error.to_string()),
        Kind::Failed => Error::Failed(error.to_string()),
    }
}
