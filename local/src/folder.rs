//! The data folder: made private, probed, and locked for one process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;

/// The lock file's name inside the data folder.
const LOCK_FILE: &str = "lock";

/// A locked data folder. Dropping it unlocks, and removes an ephemeral folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Held for its lock, which the system releases even on `kill -9`.
    _lock: File,
    /// Present when the folder is ephemeral; declared last so that it is removed last.
    temporary: Option<TempDir>,
}

impl DataFolder {
    /// Opens or makes the folder and takes its lock; `None` means a temporary one.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(path) => Self::lock(path.to_owned(), None),
            None => {
                let temporary =
                    tempfile::Builder::new().prefix("modunest-").tempdir().map_err(|source| {
                        Error::Folder {
                            action: "create a temporary folder in",
                            path: std::env::temp_dir(),
                            source,
                        }
                    })?;
                Self::lock(temporary.path().to_owned(), Some(temporary))
            }
        }
    }

    fn lock(path: PathBuf, temporary: Option<TempDir>) -> Result<Self, Error> {
        // Tokens' hashes and unpublished uploads are inside: nobody else reads them.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| Error::Folder { action: "create", path: path.clone(), source })?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| Error::Folder { action: "write", path: lock_path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder's name is a help, not a condition: without it the error still stands.
                let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                return Err(Error::FolderInUse {
                    folder: path,
                    holder: if known {
                        holder.trim().to_owned()
                    } else {
                        "another process".to_owned()
                    },
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Folder { action: "lock", path: lock_path, source });
            }
        }
        let describe = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "process {}", std::process::id())
        };
        describe(&mut lock).map_err(|source| Error::Folder {
            action: "write",
            path: lock_path,
            source,
        })?;
        Ok(Self { path, _lock: lock, temporary })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is removed at the end, so that syncing it is wasted work.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.temporary.is_some()
    }
}

/// Makes names in `folder` durable: a file's own sync does not cover its name.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let parent = TempDir::new().unwrap();
        let path = parent.path().join("data");
        let first = DataFolder::open(Some(&path)).unwrap();
        let refused = DataFolder::open(Some(&path)).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        drop(first);
        DataFolder::open(Some(&path)).unwrap();
    }

    #[test]
    fn a_path_that_is_a_file_is_refused_with_its_name() {
        let parent = TempDir::new().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, b"x").unwrap();
        let refused = DataFolder::open(Some(&path)).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(refused.contains("--data"), "{refused}");
    }

    #[test]
    fn an_ephemeral_folder_goes_with_its_holder() {
        let folder = DataFolder::open(None).unwrap();
        let path = folder.path().to_owned();
        assert!(folder.is_ephemeral() && path.exists());
        drop(folder);
        assert!(!path.exists());
    }
}
