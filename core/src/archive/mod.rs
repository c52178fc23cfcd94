//! The archive gate: which zip files are plugins, and how their contents are read.
//!
//! A zip file describes itself twice (local headers and central directory), may carry bytes
//! that neither describes, and has thirty years of extensions. Programs that resolve the
//! contradictions differently see different files in the same bytes, so a scanner can be
//! shown one plugin and a host another. This gate comes before any zip library and accepts
//! only archives with one possible reading:
//!
//! - first byte to last: local header and data of each entry in the order of the central
//!   directory, the central directory, the end record; nothing before, between or behind;
//! - local and central header agree in every field both have; no data descriptors, extra
//!   fields, comments, zip64, encryption or several disks;
//! - stored or deflate only; the deflate stream ends exactly at the declared sizes;
//! - entries are regular files. Folders are implied by names, so folder entries are refused
//!   (`zip -D` and Python's `zipfile.write` leave them out);
//! - names that every file system keeps apart and inside the folder (see [`path`]).
//!
//! What Python's `zipfile` and the `zip` crate write by default passes, and `zip -X -D` with
//! ASCII names (it does not mark others as UTF-8, so they would have two readings).
//!
//! [`Archive::open`] checks structure and limits and inflates nothing. [`Archive::unpack`]
//! is the fast path: one pass that inflates, checks size and CRC, hashes, and hands each
//! piece to the caller; [`Archive::file_list`] is the same without a receiver.
//!
//! Section numbers refer to PKWARE's APPNOTE.TXT, version 6.3.10.

mod error;
mod extract;
mod file_list;
mod format;
mod invariants;
#[cfg(not(target_arch = "wasm32"))]
mod pack;
pub mod path;

#[cfg(test)]
mod tests;

pub use error::{ArchiveError, UnpackError};
pub use extract::{Extractor, Part};
pub use file_list::{FileList, FileListError, FileRecord};
pub use format::Method;
pub use invariants::check_invariants;
#[cfg(not(target_arch = "wasm32"))]
pub use pack::{PackError, PackFile, pack};

/// Name of the manifest within an archive; [`pack()`] puts it first.
pub const MANIFEST_NAME: &str = "plugin.toml";

/// Largest archive: 50 MB, the published limit of an artifact.
pub const ARCHIVE_MAX_BYTES: usize = 50 * 1024 * 1024;
/// Largest sum of unpacked sizes. Five archives' worth: enough for a real plugin with
/// debug information, little enough that a host's disk does not notice one.
pub const UNPACKED_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Most entries, so that a host's inodes and the file list stay bounded.
pub const ENTRIES_MAX: usize = 4096;
/// Largest ratio of unpacked bytes to archive bytes. Deflate reaches 1,032; libraries and
/// text stay below 20.
pub const RATIO_MAX: u64 = 100;

/// An archive that passed the gate's structural rules. Borrows the bytes.
#[derive(Debug)]
pub struct Archive<'a> {
    entries: Vec<Entry<'a>>,
}

/// A regular file in an [`Archive`].
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    name: &'a str,
    size_bytes: u32,
    executable: bool,
    method: Method,
    crc32: u32,
    data: &'a [u8],
}

impl<'a> Archive<'a> {
    /// Checks structure, names and declared sizes; inflates nothing, so contents are still
    /// unproven. Costs one pass over the headers.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        format::read(bytes).map(|entries| Archive { entries })
    }

    /// Entries in the order they stand in the archive.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry<'a>> {
        self.entries.iter()
    }

    /// The entry with exactly this name.
    pub fn entry(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Reads one entry whole. Declared sizes are bounded by [`UNPACKED_MAX_BYTES`]; callers
    /// that want less look at [`Entry::size_bytes`] first.
    ///
    /// # Errors
    /// The contents are not what the headers declare.
    pub fn read(&self, entry: &Entry<'a>) -> Result<Vec<u8>, ArchiveError> {
        let mut content = Vec::new();
        Extractor::new()
            .extract(entry, |piece| {
                content.extend_from_slice(piece);
                Ok::<(), std::convert::Infallible>(())
            })
            .map_err(UnpackError::into_archive)?;
        Ok(content)
    }

    /// Inflates every entry in order and gives `receive` its pieces, checking declared sizes
    /// and CRCs and hashing on the way. An entry's end is only announced once its contents
    /// were proven, so a receiver that writes files can name them then.
    ///
    /// # Errors
    /// The contents are not what the headers declare, or `receive` failed.
    pub fn unpack<E>(
        &self,
        receive: impl FnMut(Part<'_, 'a>) -> Result<(), E>,
    ) -> Result<FileList, UnpackError<E>> {
        self.unpack_with(&mut Extractor::new(), receive)
    }

    /// As [`Archive::unpack`], with the buffers of an archive before: for small archives, to
    /// make them costs as much as to inflate.
    ///
    /// # Errors
    /// As [`Archive::unpack`].
    pub fn unpack_with<E>(
        &self,
        extractor: &mut Extractor,
        mut receive: impl FnMut(Part<'_, 'a>) -> Result<(), E>,
    ) -> Result<FileList, UnpackError<E>> {
        let mut records = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            receive(Part::Start(entry)).map_err(UnpackError::Receiver)?;
            let mut hasher = crate::digest::Hasher::new();
            extractor.extract(entry, |piece| {
                hasher.update(piece);
                receive(Part::Data(piece))
            })?;
            let record = FileRecord {
                name: entry.name.to_owned(),
                size_bytes: u64::from(entry.size_bytes),
                executable: entry.executable,
                sha256: hasher.finish(),
            };
            receive(Part::End(&record)).map_err(UnpackError::Receiver)?;
            records.push(record);
        }
        Ok(FileList::new(records))
    }

    /// Inflates and hashes everything and keeps only the list: the check that a scanner and
    /// `finalize` make.
    ///
    /// # Errors
    /// The contents are not what the headers declare.
    pub fn file_list(&self) -> Result<FileList, ArchiveError> {
        self.unpack(|_| Ok::<(), std::convert::Infallible>(())).map_err(UnpackError::into_archive)
    }
}

impl<'a> Entry<'a> {
    /// Relative path with `/` between segments; valid UTF-8 in NFC.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Declared unpacked size in bytes, enforced while inflating.
    pub fn size_bytes(&self) -> u64 {
        u64::from(self.size_bytes)
    }

    /// Size within the archive in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// How the contents are kept.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Whether any of the mode's three execute bits is set.
    pub fn executable(&self) -> bool {
        self.executable
    }
}
