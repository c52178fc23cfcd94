//! Whom to believe about a registry: its trust root, a trust configuration, or the profile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use modunest_agent::registry::{Authority, Error as RegistryError};
use modunest_agent::trust::{Kind, Root, Updater};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_core::trust::{CONFIG_MAX_BYTES, Config};
use url::Url;

use super::{Files, ReadError};
use crate::commands::Context;
use crate::error::Error;
use crate::profile::cache_base;

/// Where trust begins.
#[derive(Args)]
pub struct Trust {
    /// The root file of the registry's trust. Take it from whom you trust, not from what you
    /// check [default: the keys of the profile]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// A trust configuration by itself: the registry's keys, witnesses and limits
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    trust: Option<PathBuf>,
}

impl Trust {
    /// The files at `url`, or at the profile's, and the keys they are believed by.
    ///
    /// # Errors
    /// When a file or the profile cannot be read, and when the trust root does not lead to keys.
    pub async fn open(
        &self,
        context: &Context,
        url: Option<&Url>,
        now: Timestamp,
    ) -> Result<(Arc<Files>, Authority), Error> {
        let url = match url {
            Some(url) => url.clone(),
            None => context.profile()?.url,
        };
        let files = Arc::new(Files::new(url)?);
        let authority = match (&self.root, &self.trust) {
            (Some(root), _) => follow(root, Arc::clone(&files), now).await?,
            (None, Some(file)) => Authority::from(&read(file)?),
            (None, None) => {
                let profile = context.profile()?;
                Authority::pinned(&profile.origin, &profile.verifying_keys()?)
            }
        };
        Ok((files, authority))
    }
}

/// The keys that a root leads to today. What was believed of it before is kept.
async fn follow(file: &Path, files: Arc<Files>, now: Timestamp) -> Result<Authority, Error> {
    let wrong = |error: modunest_agent::trust::Error| match error.kind() {
        Kind::Unreachable => Error::Unreachable {
            what: "following the trust root".to_owned(),
            why: error.to_string(),
        },
        _ => Error::Unproven(error.to_string()),
    };
    let root = std::fs::read(file).map_err(Error::file(file))?;
    let folder =
        cache_base().join("modunest").join("trust").join(&Digest::of(&root).to_hex()[..16]);
    let root = Root::from_bytes(root).map_err(wrong)?;
    let updater = Updater::open(root, &folder).map_err(wrong)?;
    let fetch = move |key: ObjectKey, limit: usize| {
        let files = Arc::clone(&files);
        async move {
            match files.get_within(key, limit).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(ReadError::Status { status: 404, .. }) => Ok(None),
                Err(ReadError::Status { url, status }) => {
                    Err(RegistryError::Status { url, status })
                }
                Err(ReadError::TooLong { url, limit_bytes }) => {
                    Err(RegistryError::TooLong { url, limit_bytes: limit_bytes as u64 })
                }
                Err(other) => {
                    Err(RegistryError::Unreachable { url: key.path(), reason: other.to_string() })
                }
            }
        }
    };
    let trusted = updater.refresh(fetch, now).await.map_err(wrong)?;
    if let Some(why) = &trusted.offline {
        tracing::warn!(why, "the trust root that was kept serves");
    }
    Ok(Authority::from(&trusted.config))
}

/// Reads a trust configuration.
fn read(file: &Path) -> Result<Config, Error> {
    let wrong = |why: String| Error::Input(format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(Error::file(file))?.len();
    if length > CONFIG_MAX_BYTES as u64 {
        return Err(wrong(format!("a trust configuration has at most {CONFIG_MAX_BYTES} bytes")));
    }
    let bytes = std::fs::read(file).map_err(Error::file(file))?;
    Config::parse(&bytes).map_err(|error| wrong(error.to_string()))
}
