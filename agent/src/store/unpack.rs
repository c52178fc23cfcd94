//! From proven archive bytes to files on disk.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use modunest_core::archive::{Archive, MANIFEST_NAME, Part, UnpackError};
use modunest_core::digest::Digest;
use modunest_core::manifest::MANIFEST_MAX_BYTES;
use modunest_core::statement::{Build, Release};

use super::{Error, Store, agree, list_text};
use crate::files;

/// An archive, proven and unpacked aside. Dropped without [`Store::commit`], it is removed.
#[derive(Debug)]
pub struct Staged {
    aside: PathBuf,
    files: Digest,
    appeared: bool,
}

/// Bytes of a file, written as one once the file is whole: plugins are mostly small files.
const BUFFER_MAX_BYTES: usize = 1024 * 1024;

pub(super) fn stage(
    store: &Store,
    archive: &[u8],
    release: &Release,
    build: &Build,
) -> Result<Staged, Error> {
    if archive.len() as u64 != build.size_bytes {
        let found_bytes = archive.len() as u64;
        return Err(Error::ArchiveSize { expected_bytes: build.size_bytes, found_bytes });
    }
    let found = Digest::of(archive);
    if found != build.archive {
        return Err(Error::ArchiveDigest { expected: build.archive, found });
    }
    let archive = Archive::open(archive)?;
    // Cheap and telling, so it comes before anything is written.
    let entry = archive.entry(MANIFEST_NAME).ok_or(Error::ManifestDigest)?;
    if entry.size_bytes() > MANIFEST_MAX_BYTES as u64 {
        return Err(Error::ManifestDigest);
    }
    agree::manifest(&archive.read(entry)?, release)?;

    let aside = files::aside(&store.entry(build.files));
    fs::create_dir(&aside).map_err(|e| Error::io(&aside, e))?;
    let staged = Staged { aside, files: build.files, appeared: false };
    let mut writer = Writer::new(&staged.aside);
    let list = archive.unpack(|part| writer.take(part)).map_err(|error| match error {
        UnpackError::Archive(error) => Error::Archive(error),
        UnpackError::Receiver(error) => error,
    })?;
    let text = list_text(list.files());
    let found = Digest::of(text.as_bytes());
    if found != build.files {
        return Err(Error::FileList { expected: build.files, found });
    }
    let path = store.list_path(build.files);
    files::write_cached(&path, text.as_bytes()).map_err(|e| Error::io(&path, e))?;
    Ok(staged)
}

impl Staged {
    pub(super) fn appear(mut self, store: &Store) -> Result<(), Error> {
        let entry = store.entry(self.files);
        match fs::rename(&self.aside, &entry) {
            Ok(()) => self.appeared = true,
            // Somebody was quicker with the same content; this copy is removed.
            Err(_) if entry.is_dir() => {}
            Err(error) => return Err(Error::io(&entry, error)),
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.appeared
            && let Err(error) = fs::remove_dir_all(&self.aside)
        {
            tracing::warn!(path = %self.aside.display(), %error, "cannot remove a half-unpacked archive");
        }
    }
}

/// Writes the files of one archive. Names come from the gate: relative, without `..`, no two
/// the same on any file system.
struct Writer<'f> {
    folder: &'f Path,
    folders: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
    open: Option<(File, PathBuf)>,
}

impl<'f> Writer<'f> {
    fn new(folder: &'f Path) -> Self {
        Writer { folder, folders: BTreeSet::new(), buffer: Vec::new(), open: None }
    }

    fn take(&mut self, part: Part<'_, '_>) -> Result<(), Error> {
        match part {
            Part::Start(entry) => {
                let path = self.folder.join(entry.name());
                let parent = path.parent().filter(|parent| *parent != self.folder);
                if let Some(parent) = parent.filter(|parent| !self.folders.contains(*parent)) {
                    fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
                    self.folders.insert(parent.to_owned());
                }
                let mode = if entry.executable() { 0o555 } else { 0o444 };
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(&path)
                    .map_err(|e| Error::io(&path, e))?;
                self.open = Some((file, path));
                self.buffer.clear();
                Ok(())
            }
            Part::Data(piece) => {
                self.buffer.extend_from_slice(piece);
                if self.buffer.len() > BUFFER_MAX_BYTES { self.flush() } else { Ok(()) }
            }
            Part::End(record) => {
                self.flush()?;
                if let Some((file, path)) = self.open.take() {
                    // The umask may have taken bits that others need to read. Mostly it has
                    // not, and asking is cheaper than another change on the disk.
                    let mode = if record.executable { 0o555 } else { 0o444 };
                    let made = file.metadata().map_err(|e| Error::io(&path, e))?;
                    if made.permissions().mode() & 0o777 != mode {
                        file.set_permissions(Permissions::from_mode(mode))
                            .map_err(|e| Error::io(&path, e))?;
                    }
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some((file, path)) = &mut self.open {
            file.write_all(&self.buffer).map_err(|e| Error::io(path, e))?;
        }
        self.buffer.clear();
        Ok(())
    }
}
