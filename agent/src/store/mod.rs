//! The content-addressed store: unpacked archives, named by the digest of their file list.
//!
//! ```text
//! store/<file-list digest>/        the files, read-only
//! store/<file-list digest>.files   the list: its SHA-256 is the name
//! ```
//!
//! An entry appears whole or not at all: files are written aside, one `syncfs` makes all of
//! a sync last, then they are renamed. Being there says nothing about being right: whoever
//! opens an entry proves the list by its name, and each file by the list.

mod agree;
mod error;
mod generation;
mod unpack;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use modunest_core::archive::{FILE_LIST_HEADER, FileRecord, MANIFEST_NAME};
use modunest_core::digest::Digest;
use modunest_core::manifest::{MANIFEST_MAX_BYTES, Manifest};
use modunest_core::statement::{Build, Release};

pub use error::Error;
pub use generation::{Evidence, Generation, Generations, KEPT_GENERATIONS, Proven, prove};
pub use modunest_core::scan::LIBRARY_NAME;
pub use unpack::Staged;

use crate::files;

/// Longest file list: the 4,096 entries that an archive may have, with names of 1 KB.
const LIST_MAX_BYTES: usize = 4096 * 1200;

/// The store of one agent.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A store entry whose list and manifest are proven. Its other files are proven when they
/// are read.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The folder with the plugin's files.
    pub folder: PathBuf,
    /// Every file, sorted by name.
    pub files: Vec<FileRecord>,
    /// What the plugin says about itself.
    pub manifest: Manifest,
}

impl Store {
    /// Opens the store below `state_dir`, and sweeps what a crash left half-written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let folder = state_dir.join("store");
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Store { folder })
    }

    /// Removes what a crash left half-written. Only for whoever holds the state folder's
    /// lock: another process may be writing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<(), Error> {
        self.remove_where(|name| name.contains(files::ASIDE))
    }

    /// Removes every entry but these.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn retain(&self, used: &BTreeSet<Digest>) -> Result<(), Error> {
        self.remove_where(|name| match name.trim_end_matches(".files").parse::<Digest>() {
            Ok(digest) => !used.contains(&digest),
            Err(_) => false,
        })
    }

    fn remove_where(&self, superfluous: impl Fn(&str) -> bool) -> Result<(), Error> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(&self.folder, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| superfluous(name)) else { continue };
            let path = self.folder.join(name);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed =
                if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }

    /// Whether an entry is there; unproven.
    pub fn has(&self, files: Digest) -> bool {
        self.entry(files).is_dir() && self.list_path(files).is_file()
    }

    /// Where an entry's files are.
    pub fn entry(&self, files: Digest) -> PathBuf {
        self.folder.join(files.to_hex())
    }

    fn list_path(&self, files: Digest) -> PathBuf {
        self.folder.join(format!("{files}.files"))
    }

    /// Proves an archive against the release's statement and unpacks it aside: hash, gate,
    /// file list, manifest. One pass inflates, hashes and writes.
    ///
    /// # Errors
    /// Which proof failed, or [`Error::Io`].
    pub fn stage(&self, archive: &[u8], release: &Release, build: &Build) -> Result<Staged, Error> {
        unpack::stage(self, archive, release, build)
    }

    /// Makes staged entries last, and then visible: one `syncfs` for all of them.
    ///
    /// # Errors
    /// [`Error::Io`]; entries that are not visible yet are left aside.
    pub fn commit(&self, staged: Vec<Staged>) -> Result<(), Error> {
        if staged.is_empty() {
            return Ok(());
        }
        let folder = File::open(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        rustix::fs::syncfs(&folder).map_err(|e| Error::io(&self.folder, e.into()))?;
        for entry in staged {
            entry.appear(self)?;
        }
        folder.sync_all().map_err(|e| Error::io(&self.folder, e))
    }

    /// Opens an entry for a release: proves the list by its name and the manifest by the
    /// statement.
    ///
    /// # Errors
    /// [`Error::Missing`], or which proof failed.
    pub fn installed(&self, release: &Release, build: &Build) -> Result<Installed, Error> {
        let path = self.list_path(build.files);
        let text = files::read_limited(&path, LIST_MAX_BYTES)
            .map_err(|e| Error::io(&path, e))?
            .ok_or(Error::Missing { files: build.files })?;
        let found = Digest::of(&text);
        if found != build.files {
            return Err(Error::FileList { expected: build.files, found });
        }
        let files = parse_list(&text).ok_or(Error::FileList { expected: build.files, found })?;
        let folder = self.entry(build.files);
        let path = folder.join(MANIFEST_NAME);
        let bytes = files::read_limited(&path, MANIFEST_MAX_BYTES)
            .map_err(|e| Error::io(&path, e))?
            .ok_or(Error::Missing { files: build.files })?;
        let manifest = agree::manifest(&bytes, release)?;
        Ok(Installed { folder, files, manifest })
    }
}

impl Installed {
    /// The record of a file.
    pub fn file(&self, name: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(at)
    }

    /// Hashes every file. What is not on the list is refused too.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Stranger`], or [`Error::Io`].
    pub fn verify(&self) -> Result<(), Error> {
        for record in &self.files {
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

/// The canonical text of a file list, as `core::archive::FileList::digest` hashes it.
fn list_text(files: &[FileRecord]) -> String {
    let mut text = FILE_LIST_HEADER.to_owned();
    for file in files {
        let flag = if file.executable { 'x' } else { '-' };
        text.push_str(&format!("{} {} {flag} {}\n", file.sha256, file.size_bytes, file.name));
    }
    text
}

/// Reads [`list_text`]. The text was proven by its digest, so only its form can be wrong.
fn parse_list(text: &[u8]) -> Option<Vec<FileRecord>> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix(FILE_LIST_HEADER)?;
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let sha256 = parts.next()?.parse().ok()?;
            let size_bytes = parts.next()?.parse().ok()?;
            let executable = match parts.next()? {
                "x" => true,
                "-" => false,
                _ => return None,
            };
            let name = parts.next()?.to_owned();
            Some(FileRecord { name, size_bytes, executable, sha256 })
        })
        .collect()
}
