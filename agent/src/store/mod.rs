//! The content-addressed store: unpacked archives, named by the digest of their file list.
//!
//! ```text
//! store/<file-list digest>/   the files, read-only
//! store/lists/                the lists, those of one sync in one file
//! ```
//!
//! An entry is there once its list is: files are written, one `syncfs` makes all of a sync
//! last, then the lists are written. A folder without a list is what a crash has left, or an
//! entry whose list was lost; hashing it tells which. Being there says nothing about being
//! right: whoever opens an entry proves the list by its name, and each file by the list.

mod agree;
mod error;
mod generation;
mod lists;
mod tries;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modunest_core::archive::{FileList, FileRecord, MANIFEST_NAME};
use modunest_core::digest::Digest;
use modunest_core::manifest::{MANIFEST_MAX_BYTES, Manifest};
use modunest_core::statement::{Build, Release};

pub use error::Error;
pub use generation::{
    Evidence, GENERATIONS_KEPT_FOR, Generation, Generations, KEPT_GENERATIONS, Proven, prove,
};
pub use modunest_core::scan::LIBRARY_NAME;
pub use tries::{Condemned, Tries};
pub use unpack::Staged;

use crate::files;

/// The store of one agent.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    lists: Arc<lists::Lists>,
    modes: Arc<unpack::Modes>,
}

/// A store entry whose list and manifest are proven. Its other files are proven when they
/// are read.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The folder with the plugin's files.
    pub folder: PathBuf,
    /// Every file.
    pub files: FileList,
    /// What the plugin says about itself.
    pub manifest: Arc<Manifest>,
}

/// Entries that this process has unpacked: their lists and manifests are proven already, so
/// nobody has to open them again.
#[derive(Debug, Default)]
pub struct Fresh(BTreeMap<(Digest, Digest), Installed>);

impl Fresh {
    /// Takes the entry of exactly this release and build out.
    pub fn take(&mut self, plugin: &Proven) -> Option<Installed> {
        self.0.remove(&(plugin.statement, plugin.build.files))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Store {
    /// Opens the store below `state_dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let folder = state_dir.join("store");
        let lists = Arc::new(lists::Lists::open(folder.join("lists"))?);
        Ok(Store { folder, lists, modes: Arc::default() })
    }

    /// Removes what a crash left half-written. Only for whoever holds the state folder's
    /// lock: another process may be writing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<(), Error> {
        // Whoever held the lock before may have added some.
        self.lists.look_again();
        self.remove_where(|name| name.contains(files::ASIDE))
    }

    /// Removes every entry but these.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn retain(&self, used: &BTreeSet<Digest>) -> Result<(), Error> {
        self.remove_where(|name| name.parse().is_ok_and(|digest| !used.contains(&digest)))?;
        self.lists.retain(used)
    }

    fn remove_where(&self, superfluous: impl Fn(&str) -> bool) -> Result<(), Error> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(&self.folder, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| superfluous(name)) else { continue };
            let mut path = self.folder.join(name);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !name.contains(files::ASIDE) {
                // An entry goes as a whole, too: half of one would look like one.
                let aside = files::aside(&path);
                fs::rename(&path, &aside).map_err(|e| Error::io(&path, e))?;
                path = aside;
            }
            let removed =
                if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }

    /// Whether an entry is there. Its files are unproven, unless its list was lost.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has(&self, files: Digest) -> Result<bool, Error> {
        if !self.entry(files).is_dir() {
            return Ok(false);
        }
        Ok(self.lists.has(files)? || self.list_by_hashing(files)?.is_some())
    }

    /// Where an entry's files are.
    pub fn entry(&self, files: Digest) -> PathBuf {
        self.folder.join(files.to_hex())
    }

    fn list_by_hashing(&self, files: Digest) -> Result<Option<FileList>, Error> {
        let list = lists::of_folder(&self.entry(files))?;
        Ok(list.filter(|list| list.digest() == files))
    }

    /// Proves an archive against the release's statement and unpacks it: hash, gate, file list,
    /// manifest. One pass inflates, hashes and writes. Only for whoever holds the state
    /// folder's lock.
    ///
    /// # Errors
    /// Which proof failed, or [`Error::Io`].
    pub fn stage(&self, archive: &[u8], plugin: &Proven) -> Result<Staged, Error> {
        unpack::stage(self, archive, plugin)
    }

    /// Makes staged entries last, and then visible: one `syncfs` and one file of lists for all
    /// of them. Answers them for [`crate::host::prepare`].
    ///
    /// # Errors
    /// [`Error::Io`]; entries that are not visible yet are removed.
    pub fn commit(&self, staged: Vec<Staged>) -> Result<Fresh, Error> {
        let mut fresh = Fresh::default();
        if staged.is_empty() {
            return Ok(fresh);
        }
        let folder = File::open(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        rustix::fs::syncfs(&folder).map_err(|e| Error::io(&self.folder, e.into()))?;
        self.lists.add(staged.iter().map(Staged::list))?;
        for entry in staged {
            let (proof, installed) = entry.appear()?;
            fresh.0.insert(proof, installed);
        }
        folder.sync_all().map_err(|e| Error::io(&self.folder, e))?;
        Ok(fresh)
    }

    /// Opens an entry for a release: proves the list by its name and the manifest by the
    /// statement.
    ///
    /// # Errors
    /// [`Error::Missing`], or which proof failed.
    pub fn installed(&self, release: &Release, build: &Build) -> Result<Installed, Error> {
        let missing = || Error::Missing { files: build.files };
        let files = match self.lists.get(build.files)? {
            Some(list) => list,
            None if !self.entry(build.files).is_dir() => return Err(missing()),
            None => self.list_by_hashing(build.files)?.ok_or_else(missing)?,
        };
        let folder = self.entry(build.files);
        let path = folder.join(MANIFEST_NAME);
        let bytes = files::read_limited(&path, MANIFEST_MAX_BYTES)
            .map_err(|e| Error::io(&path, e))?
            .ok_or_else(missing)?;
        let manifest = Arc::new(agree::manifest(&bytes, Digest::of(&bytes), release)?);
        Ok(Installed { folder, files, manifest })
    }
}

impl Installed {
    /// The record of a file.
    pub fn file(&self, name: &str) -> Option<&FileRecord> {
        self.files.get(name)
    }

    /// Hashes every file. What is not on the list is refused too.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Stranger`], or [`Error::Io`].
    pub fn verify(&self) -> Result<(), Error> {
        for record in self.files.files() {
            let path = self.folder.join(&record.name);
            let limit = usize::try_from(record.size_bytes).unwrap_or(usize::MAX);
            let content = match files::read_limited(&path, limit) {
                Ok(Some(content)) => content,
                // Longer than it may be, or gone: either way not what the list says.
                Ok(None) | Err(_) => return Err(Error::File { path }),
            };
            if Digest::of(&content) != record.sha256 {
                return Err(Error::File { path });
            }
        }
        self.find_strangers(&self.folder, "")
    }

    fn find_strangers(&self, folder: &Path, prefix: &str) -> Result<(), Error> {
        for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if kind.is_dir() {
                self.find_strangers(&path, &format!("{name}/"))?;
            } else if !kind.is_file() || self.file(&name).is_none() {
                return Err(Error::Stranger { path });
            }
        }
        Ok(())
    }
}
