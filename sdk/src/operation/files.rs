//! Files, by operations: what a component has instead of a file system, and what a native
//! plugin may use as well.
//!
//! A relative path is meant from the plugin's private folder (`files:private`), an absolute
//! one on the host (`files:read:/…`, `files:write:/…`). Paths are separated by `/` and name
//! what they name: no `.`, no `..`, and nothing is reached through a symbolic link.

use std::path::PathBuf;

use super::form::{Form as _, answer, form};
use super::{FILE_DELETE, FILE_INFO, FILE_LIST, FILE_PRIVATE_FOLDER, FILE_READ, FILE_WRITE};
use crate::{Error, Host};

/// Longest path, in bytes.
pub const PATH_MAX_BYTES: usize = 1024;
/// Most bytes of one read or write: half of the largest message.
pub const PIECE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most entries of a folder that are listed; longer ones are refused.
pub const LISTING_MAX: usize = 10_000;

form! {
    /// A piece of a file.
    Read<'a> {
        /// The path.
        path: &'a str,
        /// Where the piece begins.
        offset: u64,
        /// Its length; less is answered only at the file's end.
        length: u32,
    }
}
form! {
    /// New content.
    Write<'a> {
        /// The path. Folders that are missing on the way are made.
        path: &'a str,
        /// Whether to append; else the file is replaced whole, so that others and a crash see
        /// the old content or the new.
        append: bool,
        /// The content.
        content: &'a [u8],
    }
}
form! {
    /// A file or a folder.
    Named<'a> {
        /// The path; empty for the private folder itself.
        path: &'a str,
    }
}
form! {
    /// What a folder holds.
    Listing {
        /// Its entries, by name.
        entries: Vec<Found>,
    }
}
form! {
    /// An entry of a folder.
    Found {
        /// Its name.
        name: String,
        /// Whether it is a folder.
        folder: bool,
        /// Its size in bytes; zero for a folder.
        size_bytes: u64,
    }
}
form! {
    /// What is known about a file or folder.
    FileInfo {
        /// Whether it is a folder.
        folder: bool,
        /// Its size in bytes; zero for a folder.
        size_bytes: u64,
        /// When its content last changed, in milliseconds since 1970.
        modified_ms: u64,
    }
}

/// The plugin's files. Copies are free.
///
/// Every method fails with [`Error::Denied`] where the path is not granted, with
/// [`Error::NotFound`] where there is nothing, with [`Error::InvalidInput`] for a path that is
/// none or above a limit, and with [`Error::Unavailable`] above the quota or when the disk
/// fails.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    host: Host,
}

impl Host {
    /// The plugin's files.
    #[must_use]
    pub const fn files(&self) -> Files {
        Files { host: *self }
    }
}

impl Files {
    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// As for every method, and [`Error::Failed`] for a longer file.
    pub fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        loop {
            let room = (limit - content.len()).saturating_add(1).min(PIECE_MAX_BYTES);
            let piece = self.read_piece(path, content.len() as u64, room as u32)?;
            content.extend_from_slice(&piece);
            if content.len() > limit {
                return Err(Error::Failed(format!("{path} has more than {limit} bytes")));
            }
            if piece.len() < room {
                return Ok(content);
            }
        }
    }

    /// Reads a piece; it is shorter than `length` only at the file's end.
    ///
    /// # Errors
    /// As for every method.
    pub fn read_piece(&self, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        self.host.operate(FILE_READ, &Read { path, offset, length }.encode())
    }

    /// Replaces a file whole, and makes the folders on its way.
    ///
    /// # Errors
    /// As for every method.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        self.put(path, false, content)
    }

    /// Appends to a file, which is made if it is missing.
    ///
    /// # Errors
    /// As for every method.
    pub fn append(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        self.put(path, true, content)
    }

    fn put(&self, path: &str, append: bool, content: &[u8]) -> Result<(), Error> {
        self.host.operate(FILE_WRITE, &Write { path, append, content }.encode()).map(drop)
    }

    /// Lists a folder; the empty path is the private folder.
    ///
    /// # Errors
    /// As for every method.
    pub fn list(&self, path: &str) -> Result<Vec<Found>, Error> {
        let bytes = self.host.operate(FILE_LIST, &Named { path }.encode())?;
        Ok(answer::<Listing>(&bytes)?.entries)
    }

    /// Removes a file or an empty folder.
    ///
    /// # Errors
    /// As for every method.
    pub fn delete(&self, path: &str) -> Result<(), Error> {
        self.host.operate(FILE_DELETE, &Named { path }.encode()).map(drop)
    }

    /// What is known about a file or folder.
    ///
    /// # Errors
    /// As for every method.
    pub fn info(&self, path: &str) -> Result<FileInfo, Error> {
        answer(&self.host.operate(FILE_INFO, &Named { path }.encode())?)
    }

    /// The private folder's path, for a native plugin that opens its files itself.
    ///
    /// # Errors
    /// [`Error::Denied`] without `files:private`, [`Error::Unsupported`] where there is no file
    /// system.
    pub fn private_folder(&self) -> Result<PathBuf, Error> {
        let bytes = self.host.operate(FILE_PRIVATE_FOLDER, &[])?;
        let path = String::from_utf8(bytes)
            .map_err(|_| Error::Failed("the folder's path is not UTF-8".to_owned()))?;
        Ok(PathBuf::from(path))
    }
}
