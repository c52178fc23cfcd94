//! Which registry a command speaks to, what it trusts, and as whom it speaks.

use std::path::{Path, PathBuf};

use modunest_tlog::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::Error;
use crate::files;

/// Environment variable with a token; wins over the profile's file.
pub const TOKEN_VARIABLE: &str = "MODUNEST_TOKEN";
/// Where `modunest up` keeps its data, and so its profile, when not told otherwise.
pub const DEFAULT_DATA: &str = ".modunest";
/// File name of the profile.
pub const PROFILE_FILE: &str = "profile.toml";

/// A registry as one person uses it. `modunest up` writes one; people write others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where the registry answers.
    pub url: Url,
    /// Its name, which its heads carry.
    pub origin: String,
    /// The keys that its heads are believed by, as `name+hash+base64`.
    pub keys: Vec<String>,
    /// File with an API token; relative to the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// File with the publisher key that signs releases; relative to the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Where the profile was read from.
    #[serde(skip)]
    folder: PathBuf,
}

impl Profile {
    /// Reads the profile that was named, or the first of: `.modunest/profile.toml` here or in
    /// a folder above, `modunest/profile.toml` in the user's configuration folder.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn load(named: Option<&Path>) -> Result<Profile, Error> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => find().ok_or_else(|| {
                Error::Usage(format!(
                    "no profile says which registry to use. Start one with `modunest up`, name \
                     one with --profile FILE, or write {DEFAULT_DATA}/{PROFILE_FILE}"
                ))
            })?,
        };
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let mut profile: Profile = toml::from_str(&text)
            .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
        profile.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(profile)
    }

    /// Writes the profile, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).map_err(|error| Error::Failed(error.to_string()))?;
        files::write(path, &text)
    }

    /// A profile that is not in a file yet.
    pub fn new(url: Url, origin: String, keys: Vec<String>) -> Profile {
        Profile { url, origin, keys, token_file: None, key_file: None, folder: PathBuf::new() }
    }

    /// The registry's keys.
    ///
    /// # Errors
    /// When one is no key.
    pub fn verifying_keys(&self) -> Result<Vec<VerifyingKey>, Error> {
        self.keys
            .iter()
            .map(|key| {
                key.parse().map_err(|error| Error::Input(format!("profile, keys: {key}: {error}")))
            })
            .collect()
    }

    /// The API token, from the environment or the file.
    ///
    /// # Errors
    /// When there is none.
    pub fn token(&self) -> Result<String, Error> {
        if let Some(token) = std::env::var(TOKEN_VARIABLE).ok().filter(|t| !t.is_empty()) {
            return Ok(token);
        }
        self.stored_token()
    }

    /// The token in the profile's file, whatever the environment says.
    ///
    /// # Errors
    /// When the profile names none, or it cannot be read.
    pub fn stored_token(&self) -> Result<String, Error> {
        match &self.token_file {
            Some(file) => files::read_secret(&self.folder.join(file)),
            None => Err(Error::Usage(format!(
                "this needs an API token: set {TOKEN_VARIABLE}, or token_file in the profile"
            ))),
        }
    }

    /// The publisher key: the file that was named, or the profile's.
    ///
    /// # Errors
    /// When there is none, or it is no key.
    pub fn signing_key(&self, named: Option<&Path>) -> Result<SigningKey, Error> {
        let path = match (named, &self.key_file) {
            (Some(path), _) => path.to_owned(),
            (None, Some(file)) => self.folder.join(file),
            (None, None) => {
                return Err(Error::Usage(
                    "this needs a publisher key: make one with `modunest key new ORG`, register \
                     it with `modunest key register`, and name it with --key FILE or key_file in \
                     the profile"
                        .to_owned(),
                ));
            }
        };
        read_key(&path)
    }

    /// Folder for what was fetched and proven before.
    pub fn cache_dir(&self) -> PathBuf {
        // Two registries of one name (a local one that was made anew) must not share a cache:
        // the newest head of one would make the other's look rolled back.
        let identity = modunest_core::digest::Digest::of(self.keys.join("\n").as_bytes()).to_hex();
        cache_base().join("modunest").join("registries").join(format!(
            "{}-{}",
            self.origin,
            &identity[..12]
        ))
    }
}

/// The user's folder for what can be fetched again.
pub fn cache_base() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read or is no key.
pub fn read_key(path: &Path) -> Result<SigningKey, Error> {
    files::read_secret(path)?
        .parse()
        .map_err(|error| Error::Input(format!("{}: {error}", path.display())))
}

fn find() -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    let local = here
        .iter()
        .flat_map(|here| here.ancestors())
        .map(|folder| folder.join(DEFAULT_DATA).join(PROFILE_FILE));
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("modunest").join(PROFILE_FILE));
    local.chain(user).find(|path| path.is_file())
}
