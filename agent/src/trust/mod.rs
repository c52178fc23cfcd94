//! The trust root: from one file that the operator pinned to the keys that a registry signs
//! with today.
//!
//! [`Updater`] follows the client workflow of The Update Framework
//! (<https://theupdateframework.github.io/specification/>, section 5) with the crate
//! `sigstore-tuf`; signatures are checked by `modunest-core`, strictly. Files come through
//! whatever the caller fetches with; only Ed25519 is understood.
//!
//! In scope: the chain of roots, timestamp, snapshot, targets, and the one target, the
//! registry's [`Config`]; what was believed is kept on disk, so that nothing older is believed
//! later, and so that a host without a network goes on until the timestamp expires. Out of
//! scope: what the keys then sign, which is in [`crate::registry`].

mod crypto;
mod error;
mod kept;
mod source;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

use modunest_core::time::Timestamp;
use modunest_core::trust::{Config, METADATA_MAX_BYTES, RoleName};
use sigstore_tuf::TrustedMetadataSet;

use crate::files;
use kept::Kept;

pub use error::{Error, Kind};
pub use source::from_folder;

/// How long a refresh may take in all: five minutes for 35 files of at most 64 KiB each, if
/// nobody holds them back on purpose.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The root that the operator gave this host: what everything is believed for.
#[derive(Clone, Debug)]
pub struct Root {
    bytes: Vec<u8>,
    version: u64,
}

impl Root {
    /// Reads a root file.
    ///
    /// # Errors
    /// [`Error::RootFile`] and [`Error::Root`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::RootFile { path: path.to_owned(), source };
        let bytes = files::read_limited(path, METADATA_MAX_BYTES).map_err(unreadable)?;
        let missing = || unreadable(std::io::ErrorKind::NotFound.into());
        Root::from_bytes(bytes.ok_or_else(missing)?)
    }

    /// Takes a root's bytes, which must be signed by enough of its own keys. That it has not
    /// expired is not asked: it is where the chain to the newest root begins.
    ///
    /// # Errors
    /// [`Error::Root`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        crypto::install()?;
        let set = TrustedMetadataSet::from_root(&bytes)
            .map_err(|error| Error::Root(error::chain(&error)))?;
        let version = set.root().version;
        Ok(Root { bytes, version })
    }

    /// Its version.
    pub const fn version(&self) -> u64 {
        self.version
    }
}

/// What the trust root says now.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// The registry's keys and policies.
    pub config: Config,
    /// Versions of the metadata that say so, in the order root, targets, snapshot, timestamp.
    pub versions: [(RoleName, u64); 4],
    /// From when on nothing of this may be believed: the earliest end of the four.
    pub expires: Timestamp,
    /// Why these are the kept files and not the newest ones; `None` when they were fetched or
    /// confirmed just now.
    pub offline: Option<String>,
}

/// Follows one registry's trust root.
pub struct Updater {
    root: Root,
    kept: Kept,
    timeout: Duration,
}

impl Updater {
    /// Prepares `folder`, which is this root's own and is made if it does not exist. Nothing is
    /// fetched yet.
    ///
    /// # Errors
    /// [`Error::Cache`], and [`Error::Kept`] when what is kept there was not signed under this
    /// root.
    pub fn open(root: Root, folder: &Path) -> Result<Self, Error> {
        let updater = Updater { root, kept: Kept::open(folder)?, timeout: REFRESH_TIMEOUT };
        updater.kept.check(&updater.root)?;
        Ok(updater)
    }

    /// The folder of what is kept.
    pub fn folder(&self) -> PathBuf {
        self.kept.folder().to_owned()
    }
}

#[cfg(test)]
mod tests;
