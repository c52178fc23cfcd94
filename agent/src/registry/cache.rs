//! Objects that were read before, on disk, by their names.

use std::path::{Path, PathBuf};

use modunest_core::keys::ObjectKey;

use super::Error;
use crate::files;

pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        for kind in ["node", "bin", "index"] {
            let path = folder.join(kind);
            std::fs::create_dir_all(&path).map_err(|source| Error::Cache { path, source })?;
        }
        Ok(Cache { folder: folder.to_owned() })
    }

    /// An object's bytes, unproven.
    pub(super) fn object(&self, key: ObjectKey, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join(key.to_string());
        files::read_limited(&path, limit).map_err(|source| Error::Cache { path, source })
    }

    pub(super) fn has(&self, key: ObjectKey) -> bool {
        self.folder.join(key.to_string()).exists()
    }

    pub(super) fn keep(&self, key: ObjectKey, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(key.to_string());
        let failed = |source| Error::Cache { path: path.clone(), source };
        if let (ObjectKey::Tile(_), Some(folder)) = (key, path.parent()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        files::write_cached(&path, bytes).map_err(failed)
    }
}
