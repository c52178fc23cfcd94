//! What a witness must not forget: for each log, the checkpoint that it cosigned last. One
//! file a log, with the log's own signed note in it, replaced as a whole and synced to disk
//! before anybody gets the cosignature.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use modunest_core::digest::Digest;
use modunest_tlog::{CHECKPOINT_MAX_BYTES, Checkpoint, Note, SignedCheckpoint};

use crate::error::Error;
use crate::files;

/// The file whose lock says that a witness uses the folder.
const LOCK_FILE: &str = "lock";
/// Ending of a log's file. What stands before is the SHA-256 of the log's origin, which may
/// hold any character.
const ENDING: &str = "checkpoint";

/// The folder. Locked until dropped.
pub(super) struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the folder where there is none, and locks it: two witnesses with one key and two
    /// memories could be shown two logs.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let lock = files::lock(&folder.join(LOCK_FILE))?.ok_or_else(|| {
            Error::Failed(format!(
                "another witness uses {}; give each its own folder with --state DIR",
                folder.display()
            ))
        })?;
        Ok(Store { folder: folder.to_owned(), _lock: lock })
    }

    /// What was cosigned last; `None` for nothing yet.
    pub(super) fn load(&self, origin: &str) -> Result<Option<Checkpoint>, Error> {
        let path = self.file(origin);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(path)(error)),
        };
        read(&bytes).filter(|checkpoint| checkpoint.origin == origin).map(Some).ok_or_else(|| {
            Error::Input(format!(
                "{}: this is not the checkpoint of {origin} that the witness wrote. Restore the \
                 file; without it the witness could cosign another history of the log",
                path.display()
            ))
        })
    }

    /// Writes down what is about to be cosigned.
    pub(super) fn save(&self, signed: &SignedCheckpoint) -> Result<(), Error> {
        let text = std::str::from_utf8(signed.bytes())
            .map_err(|error| Error::Failed(error.to_string()))?;
        files::write(&self.file(&signed.checkpoint.origin), text)
    }

    fn file(&self, origin: &str) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", Digest::of(origin.as_bytes())))
    }
}

/// Our own file: its signature was proven before it was written.
fn read(bytes: &[u8]) -> Option<Checkpoint> {
    if bytes.len() > CHECKPOINT_MAX_BYTES {
        return None;
    }
    Checkpoint::parse(Note::parse(bytes).ok()?.unverified_text()).ok()
}
