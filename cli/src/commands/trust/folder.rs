//! The folder of a trust root: exactly what is uploaded below `/trust/`. What is not signed by
//! enough keys yet lies in a second folder beside it, and moves over when it is.

use std::fs;
use std::path::{Path, PathBuf};

use modunest_core::trust::{CONFIG_MAX_BYTES, Current, File, Role, Root, Signed, Targets};

use crate::error::Error;
use crate::files;

/// What the folder's name gets for the folder of drafts.
const DRAFTS: &str = ".drafts";

/// Metadata with its bytes; `None` where there is none.
pub type Found<T> = Option<(Signed<T>, Vec<u8>)>;

/// A trust root's files on disk.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The files below `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Folder { path: path.to_owned() }
    }

    /// The folder that is uploaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of what still lacks signatures.
    pub fn drafts(&self) -> Folder {
        let mut name = self.path.as_os_str().to_owned();
        name.push(DRAFTS);
        Folder { path: name.into() }
    }

    /// Every file of a trust root in it, in order.
    ///
    /// # Errors
    /// When the folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<File>, Error> {
        let mut found = Vec::new();
        for (folder, prefix) in [(self.path.clone(), ""), (self.path.join("targets"), "targets/")] {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::file(folder)(error)),
            };
            for entry in entries {
                let name = entry.map_err(Error::file(&folder))?.file_name();
                let file =
                    name.to_str().and_then(|name| format!("{prefix}{name}").parse::<File>().ok());
                found.extend(file);
            }
        }
        found.sort();
        Ok(found)
    }

    /// A file's bytes; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than anything of a trust root.
    pub fn read(&self, file: File) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(file.to_string());
        match fs::read(&path) {
            Ok(bytes) if bytes.len() > CONFIG_MAX_BYTES => Err(Error::Input(format!(
                "{}: too long for a file of a trust root",
                path.display()
            ))),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(path)(error)),
        }
    }

    /// Writes a file whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: File, bytes: &[u8]) -> Result<(), Error> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::Failed(format!("{file}: {error}")))?;
        files::write(&self.path.join(file.to_string()), text)
    }

    /// Takes a file away, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, file: File) -> Result<(), Error> {
        let path = self.path.join(file.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file(path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The newest metadata of a role with its bytes.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn newest<T: Role>(&self) -> Result<Found<T>, Error> {
        let versions = self.list()?.into_iter().filter_map(version);
        let newest = versions.filter(|(file, v)| *file == File::of(T::NAME, *v)).max();
        let Some((file, _)) = newest else { return Ok(None) };
        self.metadata(file)
    }

    /// Metadata of a role with its bytes.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn metadata<T: Role>(&self, file: File) -> Result<Found<T>, Error> {
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let path = self.path.join(file.to_string());
        let read = Signed::<T>::parse(&bytes)
            .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
        Ok(Some((read, bytes)))
    }

    /// The newest root.
    ///
    /// # Errors
    /// When there is none, with the way to make one.
    pub fn root(&self) -> Result<(Signed<Root>, Vec<u8>), Error> {
        self.newest()?.ok_or_else(|| {
            Error::Usage(format!(
                "{} holds no trust root; `modunest trust create` makes one",
                self.path.display()
            ))
        })
    }

    /// The newest files as the online key is shown them; calls `then` with them.
    ///
    /// # Errors
    /// When a file cannot be read, and whatever `then` fails with.
    pub fn with_current<R>(
        &self,
        then: impl FnOnce(Current<'_>) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        let (Some((_, root)), Some((_, targets))) =
            (self.newest::<Root>()?, self.newest::<Targets>()?)
        else {
            return Ok(None);
        };
        let snapshots = self.list()?.into_iter().filter(|file| matches!(file, File::Snapshot(_)));
        let snapshot = match snapshots.max() {
            Some(file) => self.read(file)?,
            None => None,
        };
        let timestamp = self.read(File::Timestamp)?;
        let (snapshot, timestamp) = (snapshot.as_deref(), timestamp.as_deref());
        then(Current { root: &root, targets: &targets, snapshot, timestamp }).map(Some)
    }
}

fn version(file: File) -> Option<(File, u64)> {
    match file {
        File::Root(version) | File::Targets(version) | File::Snapshot(version) => {
            Some((file, version))
        }
        File::Timestamp | File::Config(_) => None,
    }
}
