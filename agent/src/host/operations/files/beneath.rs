//! Files below one folder, and nowhere else, whatever lies in it.
//!
//! The kernel walks each path (`openat2` with `RESOLVE_BENEATH`): it follows no symbolic link,
//! leaves the folder nowhere, and cannot be raced, because what was checked is what is opened.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use modunest_sdk::Error;
use modunest_sdk::operation::files::{FileInfo, Found, LISTING_MAX};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What a file is called while it is written. Plugins can neither name nor see such files.
const PARTIAL: &str = ".modunest-partial-";
/// Longest name of a file, as Linux has it.
const NAME_MAX_BYTES: usize = 255;

/// Splits a path into names that mean themselves.
///
/// # Errors
/// [`Error::InvalidInput`] for an empty name, a dot, two dots, and what no name holds.
pub(super) fn parts(path: &str) -> Result<Vec<&str>, Error> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = path.split('/').collect();
    let good = |part: &&str| {
        !matches!(*part, "" | "." | "..")
            && part.len() <= NAME_MAX_BYTES
            && !part.starts_with(PARTIAL)
            && !part.contains('\0')
    };
    if parts.iter().all(good) {
        Ok(parts)
    } else {
        Err(Error::InvalidInput(format!(
            "\"{}\" is not a path of plain names",
            path.escape_debug()
        )))
    }
}

/// An error of the file system, as a plugin sees it.
pub(super) fn failed(error: &std::io::Error, what: &dyn Display) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Error::NotFound(format!("there is no {what}")),
        Some(Errno::LOOP | Errno::XDEV) => {
            Error::Denied(format!("{what} is reached through a symbolic link or leads elsewhere"))
        }
        Some(Errno::ISDIR) => Error::InvalidInput(format!("{what} is a folder")),
        Some(Errno::NOTEMPTY | Errno::EXIST) => {
            Error::InvalidInput(format!("{what} is a folder that is not empty"))
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            Error::Denied(format!("the agent itself may not use {what}: {error}"))
        }
        _ => Error::Unavailable(format!("{what}: {error}")),
    }
}

fn errno(error: Errno, what: &dyn Display) -> Error {
    failed(&error.into(), what)
}

/// How every path is walked.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A folder, and everything below it.
pub(super) struct Beneath(OwnedFd);

impl Beneath {
    /// A folder that the operator or the agent named.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        super::open_folder(folder).map(Beneath).map_err(|e| errno(e, &folder.display()))
    }

    /// A folder below it, by a path of which nothing is known.
    pub(super) fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), BENEATH)
    }

    fn open_at(&self, parts: &[&str], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, BENEATH)
    }

    /// A regular file. Never waits for the other end of a pipe.
    fn file(&self, parts: &[&str], flags: OFlags) -> Result<std::fs::File, Error> {
        let what = parts.join("/");
        let create = flags.contains(OFlags::CREATE);
        let mode = if create { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open_at(parts, flags, mode).map_err(|e| errno(e, &what))?;
        let stat = rustix::fs::fstat(&file).map_err(|e| errno(e, &what))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            FileType::Directory => Err(Error::InvalidInput(format!("{what} is a folder"))),
            _ => Err(Error::Denied(format!("{what} is neither a file nor a folder"))),
        }
    }

    pub(super) fn read(
        &self,
        parts: &[&str],
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, Error> {
        let what = parts.join("/");
        let file = self.file(parts, OFlags::RDONLY)?;
        let size = file.metadata().map_err(|e| failed(&e, &what))?.len();
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut content = vec![0; there.min(length)];
        let mut filled = 0;
        while filled < content.len() {
            match file.read_at(&mut content[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error, &what)),
            }
        }
        content.truncate(filled);
        Ok(content)
    }

    /// The size of a file, and how many names of its path are missing.
    pub(super) fn there(&self, parts: &[&str]) -> Result<(u64, u64), Error> {
        for depth in (0..=parts.len()).rev() {
            match self.info(&parts[..depth]) {
                Ok(info) if depth == parts.len() => return Ok((info.size_bytes, 0)),
                Ok(_) => return Ok((0, (parts.len() - depth) as u64)),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((0, parts.len() as u64))
    }

    pub(super) fn info(&self, parts: &[&str]) -> Result<FileInfo, Error> {
        let what = parts.join("/");
        let stat = self
            .open_at(parts, OFlags::PATH, Mode::empty())
            .and_then(rustix::fs::fstat)
            .map_err(|e| errno(e, &what))?;
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let modified_ms =
            i128::from(stat.st_mtime) * 1000 + i128::from(stat.st_mtime_nsec) / 1_000_000;
        Ok(FileInfo {
            folder,
            size_bytes: if folder { 0 } else { size(&stat) },
            modified_ms: u64::try_from(modified_ms).unwrap_or(0),
        })
    }

    /// Appends, or replaces the file whole; makes folders that are missing on the way.
    pub(super) fn write(&self, parts: &[&str], append: bool, content: &[u8]) -> Result<(), Error> {
        let what = parts.join("/");
        let Some((name, way)) = parts.split_last() else {
            return Err(Error::InvalidInput("the folder itself is no file".to_owned()));
        };
        let parent = self.make_folders(way)?;
        let fail = |error: std::io::Error| failed(&error, &what);
        if append {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
            let mut file = parent.file(&[name], flags)?;
            file.write_all(content).map_err(fail)?;
            return file.sync_data().map_err(fail);
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let aside = format!("{PARTIAL}{}-{number}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let written = (|| {
            let file = parent.open_at(&[&aside], flags, Mode::RUSR | Mode::WUSR)?;
            let mut file = std::fs::File::from(file);
            file.write_all(content)?;
            file.sync_all()?;
            rustix::fs::renameat(&parent.0, aside.as_str(), &parent.0, *name)?;
            rustix::fs::fsync(&parent.0)?;
            Ok(())
        })();
        written.map_err(|error| {
            // The reason why it was not written matters more than what is left of it.
            let _ = rustix::fs::unlinkat(&parent.0, aside.as_str(), AtFlags::empty());
            fail(error)
        })
    }

    fn make_folders(&self, way: &[&str]) -> Result<Beneath, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        for depth in 1..=way.len() {
            let what = way[..depth].join("/");
            match self.open_at(&way[..depth], flags, Mode::empty()) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(errno(error, &what)),
            }
            let (name, before) = (way[depth - 1], &way[..depth - 1]);
            let parent = self.open_at(before, flags, Mode::empty()).map_err(|e| errno(e, &what))?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(errno(error, &what)),
            }
        }
        self.open_at(way, flags, Mode::empty()).map(Beneath).map_err(|e| errno(e, &way.join("/")))
    }

    /// Files and folders of a folder, by name; everything else is left out.
    pub(super) fn list(&self, parts: &[&str]) -> Result<Vec<Found>, Error> {
        let what = parts.join("/");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = self.open_at(parts, flags, Mode::empty()).map_err(|e| errno(e, &what))?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&folder).map_err(|e| errno(e, &what))? {
            let entry = entry.map_err(|e| errno(e, &what))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || name.starts_with(PARTIAL.as_bytes()) {
                continue;
            }
            // A name that is no text cannot be asked for either.
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It was removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(errno(error, &what)),
            };
            let found = |folder, size_bytes| Found { name: name.to_owned(), folder, size_bytes };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => entries.push(found(false, size(&stat))),
                FileType::Directory => entries.push(found(true, 0)),
                _ => {}
            }
            if entries.len() > LISTING_MAX {
                let text = format!("{what} has more than {LISTING_MAX} entries");
                return Err(Error::Failed(text));
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Removes a file or an empty folder.
    pub(super) fn delete(&self, parts: &[&str]) -> Result<(), Error> {
        let what = parts.join("/");
        let Some((name, way)) = parts.split_last() else {
            return Err(Error::Denied("the folder itself stays".to_owned()));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = self.open_at(way, flags, Mode::empty()).map_err(|e| errno(e, &what))?;
        let removed = match rustix::fs::unlinkat(&parent, *name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&parent, *name, AtFlags::REMOVEDIR),
            other => other,
        };
        removed.and_then(|()| rustix::fs::fsync(&parent)).map_err(|e| errno(e, &what))
    }
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Whether an entry of a folder is left from a write that a crash cut off.
pub(super) fn is_partial(name: &std::ffi::CStr) -> bool {
    std::ffi::OsStr::from_bytes(name.to_bytes()).as_bytes().starts_with(PARTIAL.as_bytes())
}
