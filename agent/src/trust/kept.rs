//! What was believed before, on disk. Without it, older files could be shown again; so what
//! cannot be read or proven is an error, and is never taken for nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use modunest_core::trust::{CONFIG_MAX_BYTES, CONFIG_TARGET, METADATA_MAX_BYTES};
use sigstore_tuf::{Metadata, MetadataStore, TrustedMetadataSet};

use super::error::chain;
use super::{Error, Root};
use crate::files;

/// Folder of the roots that were believed, by version.
const ROOTS: &str = "root_history";
/// Folder of targets.
const TARGETS: &str = "targets";

/// The folder. Copies share it and its first error.
#[derive(Clone)]
pub(super) struct Kept {
    folder: PathBuf,
    /// The client library goes on when its store fails. We do not.
    failed: Arc<Mutex<Option<Error>>>,
}

impl Kept {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        for name in [ROOTS, TARGETS] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|source| Error::Cache { path, source })?;
        }
        Ok(Kept { folder: folder.to_owned(), failed: Arc::default() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first thing that failed since this was last asked.
    pub(super) fn failure(&self) -> Result<(), Error> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A kept file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        let limit = if name.starts_with(TARGETS) && name.ends_with(CONFIG_TARGET) {
            CONFIG_MAX_BYTES
        } else {
            METADATA_MAX_BYTES
        };
        files::read_limited(&path, limit).map_err(|source| Error::Cache { path, source })
    }

    /// The kept configuration's bytes, unproven.
    pub(super) fn config(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read(&format!("{TARGETS}/{CONFIG_TARGET}"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.read(name)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let path = self.path(name);
        files::write_durable(&path, bytes).map_err(|source| Error::Cache { path, source })
    }

    fn invalid(&self, name: &str, error: &sigstore_tuf::Error) -> Error {
        Error::Kept { path: self.path(name), reason: chain(error) }
    }

    /// The chain of roots from the pinned one to the newest that was believed.
    pub(super) fn roots(&self, pinned: &Root) -> Result<Vec<TrustedMetadataSet>, Error> {
        let mut last = TrustedMetadataSet::from_root(&pinned.bytes)
            .map_err(|error| Error::Root(chain(&error)))?;
        let mut roots = vec![last.clone()];
        loop {
            let next = last.root().version.saturating_add(1);
            let name = format!("{ROOTS}/{next}.root.json");
            let Some(bytes) = self.read(&name)? else { return Ok(roots) };
            last.update_root(&bytes).map_err(|error| self.invalid(&name, &error))?;
            roots.push(last.clone());
        }
    }

    /// Whether the kept timestamp and snapshot were signed under one of the roots: their
    /// versions are what later ones must not fall below.
    pub(super) fn check(&self, pinned: &Root) -> Result<(), Error> {
        let roots = self.roots(pinned)?;
        self.check_role::<sigstore_tuf::Timestamp>(&roots, "timestamp")?;
        self.check_role::<sigstore_tuf::Snapshot>(&roots, "snapshot")
    }

    fn check_role<T: sigstore_tuf::metadata::Role>(
        &self,
        roots: &[TrustedMetadataSet],
        role: &str,
    ) -> Result<(), Error> {
        let name = format!("{role}.json");
        let Some(bytes) = self.read(&name)? else { return Ok(()) };
        let read = Metadata::<T>::from_slice(&bytes).map_err(|e| self.invalid(&name, &e))?;
        let mut result = Ok(());
        // The newest root is the likeliest; its error is the one to show.
        for root in roots.iter().rev().map(TrustedMetadataSet::root) {
            let Some(keys) = root.role(role) else { continue };
            match read.verify_threshold(&root.keys, keys, role) {
                Ok(()) => return Ok(()),
                Err(error) if result.is_ok() => result = Err(self.invalid(&name, &error)),
                Err(_) => {}
            }
        }
        result
    }

    fn note<T>(&self, result: Result<T, Error>) -> Result<T, sigstore_tuf::Error> {
        result.map_err(|error| {
            let told = sigstore_tuf::Error::transport(error.to_string());
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            told
        })
    }
}

impl MetadataStore for Kept {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, sigstore_tuf::Error> {
        self.note(self.read(name))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), sigstore_tuf::Error> {
        // The newest snapshot is stored a second time, under its version: nobody reads that.
        if name.ends_with(".snapshot.json") {
            return Ok(());
        }
        self.note(self.write(name, bytes))
    }
}
