//! From proven archive bytes to files on disk.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use modunest_core::archive::{
    Archive, Entry, Extractor, FileList, MANIFEST_NAME, Part, UnpackError,
};
use modunest_core::digest::Digest;
use modunest_core::manifest::{MANIFEST_MAX_BYTES, Manifest};
use modunest_core::statement::Release;

use super::{Error, Installed, Proven, Store, agree};
use crate::files;

/// An archive, proven and unpacked. Dropped without [`Store::commit`], it is removed.
#[derive(Debug)]
pub struct Staged {
    unpacked: Unpacked,
    /// Digests of the release statement and of the file list.
    proof: (Digest, Digest),
    /// What the entry is once it has appeared.
    installed: Installed,
}

/// A folder that is removed with this value, unless it is to stay.
#[derive(Debug)]
struct Unpacked {
    path: PathBuf,
    stays: bool,
}

/// Bytes of a file, written as one once the file is whole: plugins are mostly small files.
const BUFFER_MAX_BYTES: usize = 1024 * 1024;
thread_local! {
    /// What one archive leaves to the next on the same thread; 300 KiB at most, and threads
    /// that unpack end soon after a sync.
    static EXTRACTOR: RefCell<Extractor> = RefCell::new(Extractor::new());
}

// So that a manifest is whole in the buffer when it ends.
const _: () = assert!(MANIFEST_MAX_BYTES <= BUFFER_MAX_BYTES);

pub(super) fn stage(store: &Store, archive: &[u8], plugin: &Proven) -> Result<Staged, Error> {
    let (release, build) = (&plugin.release, &plugin.build);
    if archive.len() as u64 != build.size_bytes {
        let found_bytes = archive.len() as u64;
        return Err(Error::ArchiveSize { expected_bytes: build.size_bytes, found_bytes });
    }
    let found = Digest::of(archive);
    if found != build.archive {
        return Err(Error::ArchiveDigest { expected: build.archive, found });
    }
    let archive = Archive::open(archive)?;
    let entry = archive.entry(MANIFEST_NAME).ok_or(Error::ManifestDigest)?;
    if entry.size_bytes() > MANIFEST_MAX_BYTES as u64 {
        return Err(Error::ManifestDigest);
    }

    let folder = store.entry(build.files);
    let path = make_folder(store, build.files, &folder)?;
    let unpacked = Unpacked { path, stays: false };
    let mut writer = Writer::new(&unpacked.path, release, &store.modes);
    let list = EXTRACTOR.with_borrow_mut(|extractor| {
        archive.unpack_with(extractor, |part| writer.take(part)).map_err(|error| match error {
            UnpackError::Archive(error) => Error::Archive(error),
            UnpackError::Receiver(error) => error,
        })
    })?;
    let manifest = Arc::new(writer.manifest.ok_or(Error::ManifestDigest)?);
    let found = list.digest();
    if found != build.files {
        return Err(Error::FileList { expected: build.files, found });
    }
    let installed = Installed { folder, files: list, manifest };
    Ok(Staged { unpacked, proof: (plugin.statement, build.files), installed })
}

/// Makes the folder to unpack into: in its place, where nobody looks before its list is
/// there, unless something is in that place or the list is there already.
fn make_folder(store: &Store, files: Digest, folder: &Path) -> Result<PathBuf, Error> {
    if !store.lists.has_for_writer(files)? {
        match fs::create_dir(folder) {
            Ok(()) => return Ok(folder.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(folder, error)),
        }
    }
    let aside = files::aside(folder);
    fs::create_dir(&aside).map_err(|e| Error::io(&aside, e))?;
    Ok(aside)
}

impl Staged {
    /// The file list with its digest.
    pub(super) fn list(&self) -> (Digest, &FileList) {
        (self.proof.1, &self.installed.files)
    }

    /// Brings the entry to its place; answers it with the digests that prove it.
    pub(super) fn appear(mut self) -> Result<((Digest, Digest), Installed), Error> {
        let entry = &self.installed.folder;
        if self.unpacked.path != *entry {
            let replaced = files::aside(entry);
            match fs::rename(entry, &replaced) {
                Ok(()) => {
                    fs::remove_dir_all(&replaced).map_err(|e| Error::io(&replaced, e))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(entry, error)),
            }
            fs::rename(&self.unpacked.path, entry).map_err(|e| Error::io(entry, e))?;
        }
        self.unpacked.stays = true;
        Ok((self.proof, self.installed))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if !self.stays
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a half-unpacked archive");
        }
    }
}

/// Writes the files of one archive. Names come from the gate: relative, without `..`, no two
/// the same on any file system.
struct Writer<'f, 'a> {
    folder: &'f Path,
    release: &'f Release,
    modes: &'f Modes,
    folders: BTreeSet<PathBuf>,
    entry: Option<Entry<'a>>,
    buffer: Vec<u8>,
    /// The entry's file, once anything was written to it.
    open: Option<(File, PathBuf)>,
    /// What the statement names, once it has come by.
    manifest: Option<Manifest>,
}

impl<'f, 'a> Writer<'f, 'a> {
    fn new(folder: &'f Path, release: &'f Release, modes: &'f Modes) -> Self {
        Writer {
            folder,
            release,
            modes,
            folders: BTreeSet::new(),
            entry: None,
            buffer: Vec::new(),
            open: None,
            manifest: None,
        }
    }

    fn take(&mut self, part: Part<'_, 'a>) -> Result<(), Error> {
        match part {
            Part::Start(entry) => {
                self.buffer.clear();
                self.open = None;
                self.entry = Some(*entry);
                Ok(())
            }
            Part::Data(piece) => {
                self.buffer.extend_from_slice(piece);
                if self.buffer.len() > BUFFER_MAX_BYTES { self.flush() } else { Ok(()) }
            }
            Part::End(record) => {
                // Packed first, so a wrong one stops the rest before it is written.
                if record.name == MANIFEST_NAME {
                    let manifest = agree::manifest(&self.buffer, record.sha256, self.release)?;
                    self.manifest = Some(manifest);
                }
                self.flush()?;
                match self.open.take() {
                    Some((file, path)) => {
                        self.modes.assure(&file, record.executable).map_err(|e| Error::io(&path, e))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Writes what has come of the entry, to a file that is made for the first of it.
    fn flush(&mut self) -> Result<(), Error> {
        if self.open.is_none()
            && let Some(entry) = &self.entry
        {
            let path = self.folder.join(entry.name());
            let parent = path.parent().filter(|parent| *parent != self.folder);
            if let Some(parent) = parent.filter(|parent| !self.folders.contains(*parent)) {
                fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
                self.folders.insert(parent.to_owned());
            }
            let mode = mode(entry.executable());
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
            self.open = Some((file.map_err(|e| Error::io(&path, e))?, path));
        }
        if let Some((file, path)) = &mut self.open {
            file.write_all(&self.buffer).map_err(|e| Error::io(path, e))?;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Whether new files have the modes that they are made with. The umask may take bits that
/// others need to read; what became of the first file tells for all that follow.
#[derive(Debug, Default)]
pub(super) struct Modes {
    plain: OnceLock<bool>,
    executable: OnceLock<bool>,
}

impl Modes {
    fn assure(&self, file: &File, executable: bool) -> io::Result<()> {
        let kept = if executable { &self.executable } else { &self.plain };
        let mode = mode(executable);
        let is_kept = match kept.get() {
            Some(kept) => *kept,
            None => {
                let made = file.metadata()?.permissions().mode();
                *kept.get_or_init(|| made & 0o777 == mode)
            }
        };
        if is_kept { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
    }
}

fn mode(executable: bool) -> u32 {
    if executable { 0o555 } else { 0o444 }
}
