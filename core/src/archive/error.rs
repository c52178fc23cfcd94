//! One variant a broken rule.

use super::{ARCHIVE_MAX_BYTES, ENTRIES_MAX, RATIO_MAX, UNPACKED_MAX_BYTES, path};

/// Why an archive was refused. Names in the fields are escaped and shortened for display.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The archive is larger than the limit.
    #[error("the archive has {size_bytes} bytes; at most {ARCHIVE_MAX_BYTES} are allowed")]
    TooLarge {
        /// Size of the archive in bytes.
        size_bytes: usize,
    },
    /// The last 22 bytes are not an end record without comment.
    #[error(
        "the archive does not end with an end-of-central-directory record: it is cut short, \
         or has a comment or other bytes behind it"
    )]
    EndRecord,
    /// The end record speaks of several disks, or its two entry counts differ.
    #[error("the archive claims to be one of several disks")]
    Disks,
    /// Zip64 records or values.
    #[error("the archive uses zip64; archives of this size do not need it")]
    Zip64,
    /// The central directory is not where, or not as long as, the end record says.
    #[error("the central directory does not fill exactly the place that the end record names")]
    DirectoryPlace,
    /// A record is cut short or has another record's signature.
    #[error("the {record} of entry {index} is cut short or is something else")]
    Record {
        /// Kind of the record.
        record: &'static str,
        /// Position of the entry, from 0.
        index: usize,
    },
    /// No entries at all.
    #[error("the archive is empty")]
    Empty,
    /// More entries than the limit.
    #[error("the archive has {count} entries; at most {ENTRIES_MAX} are allowed")]
    TooManyEntries {
        /// Number of entries.
        count: usize,
    },
    /// An entry does not begin where the one before ended.
    #[error(
        "\"{name}\" starts at byte {found}, but the bytes before it end at {expected}: archives have no gaps and no overlaps"
    )]
    Place {
        /// The entry.
        name: String,
        /// Where it must start.
        expected: u64,
        /// Where it says it starts.
        found: u64,
    },
    /// The local header says something else than the central directory.
    #[error("the two headers of \"{name}\" disagree about its {field}")]
    Disagreement {
        /// The entry as the central directory names it.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// Encrypted contents or headers.
    #[error("\"{name}\" is encrypted")]
    Encrypted {
        /// The entry.
        name: String,
    },
    /// Sizes behind the data instead of before it.
    #[error(
        "\"{name}\" has its sizes behind its data (a data descriptor); write the archive to a file, not to a pipe"
    )]
    DataDescriptor {
        /// The entry.
        name: String,
    },
    /// A general purpose flag that no rule covers.
    #[error("\"{name}\" uses the general purpose flags {flags:#06x}; only 1, 2 and 11 are allowed")]
    Flags {
        /// The entry.
        name: String,
        /// All its flags.
        flags: u16,
    },
    /// A compression method other than stored and deflate.
    #[error(
        "\"{name}\" uses compression method {method}; only 0 (stored) and 8 (deflate) are allowed"
    )]
    Method {
        /// The entry.
        name: String,
        /// The method's number (APPNOTE 4.4.5).
        method: u16,
    },
    /// Needs a later version of the format than 2.0, or comes from an unknown system.
    #[error(
        "\"{name}\" needs a feature of zip that plugins may not use (version {needed}, made by {made_by:#06x})"
    )]
    Version {
        /// The entry.
        name: String,
        /// Version needed to extract, times ten.
        needed: u16,
        /// Version and system that made it.
        made_by: u16,
    },
    /// Extra fields.
    #[error("\"{name}\" has an extra field; use `zip -X`")]
    ExtraField {
        /// The entry.
        name: String,
    },
    /// A comment on an entry.
    #[error("\"{name}\" has a comment")]
    Comment {
        /// The entry.
        name: String,
    },
    /// A folder of its own.
    #[error("\"{name}\" is a folder; folders follow from file names, use `zip -D`")]
    Folder {
        /// The entry.
        name: String,
    },
    /// A symbolic link.
    #[error("\"{name}\" is a symbolic link")]
    SymbolicLink {
        /// The entry.
        name: String,
    },
    /// A device, socket, set-user-id file or anything else that is not a regular file.
    #[error("\"{name}\" is not a plain file (external attributes {attributes:#010x})")]
    Special {
        /// The entry.
        name: String,
        /// External file attributes (APPNOTE 4.4.15).
        attributes: u32,
    },
    /// A name that some system reads differently.
    #[error("\"{name}\" is not a name for a file in a plugin: {problem}")]
    Name {
        /// The refused name.
        name: String,
        /// The broken rule.
        problem: path::PathProblem,
    },
    /// Two names that a file system may take for one.
    #[error("\"{name}\" and \"{other}\" are the same file or folder on some systems")]
    Collision {
        /// The later entry.
        name: String,
        /// The earlier entry or folder.
        other: String,
    },
    /// A file that other entries use as a folder.
    #[error("\"{name}\" is both a file and a folder")]
    FileAndFolder {
        /// The name.
        name: String,
    },
    /// Stored contents whose two sizes differ.
    #[error("\"{name}\" is stored, but its two sizes differ")]
    StoredSize {
        /// The entry.
        name: String,
    },
    /// Unpacked contents are larger than the limit.
    #[error("the archive unpacks to {size_bytes} bytes; at most {UNPACKED_MAX_BYTES} are allowed")]
    UnpackedTooLarge {
        /// Declared size of all entries read so far, in bytes.
        size_bytes: u64,
    },
    /// Compressed further than anything honest.
    #[error(
        "the archive unpacks from {archive_bytes} to {unpacked_bytes} bytes, more than {RATIO_MAX} times its size"
    )]
    Ratio {
        /// Size of the archive in bytes.
        archive_bytes: u64,
        /// Declared size of all entries in bytes.
        unpacked_bytes: u64,
    },
    /// Not a deflate stream, or cut short.
    #[error("the contents of \"{name}\" are damaged")]
    Damaged {
        /// The entry.
        name: String,
    },
    /// Inflates to another size than declared.
    #[error("\"{name}\" does not unpack to the {declared_bytes} bytes that it declares")]
    Size {
        /// The entry.
        name: String,
        /// Declared size in bytes.
        declared_bytes: u64,
    },
    /// The deflate stream ends before the entry does.
    #[error("\"{name}\" has {trailing_bytes} bytes behind its compressed contents")]
    Trailing {
        /// The entry.
        name: String,
        /// Bytes that no deflate block covers.
        trailing_bytes: u64,
    },
    /// The contents' CRC-32 differs from the declared one.
    #[error("the contents of \"{name}\" do not have the checksum that it declares")]
    Checksum {
        /// The entry.
        name: String,
    },
}

/// Why unpacking stopped.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError<E> {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The receiver of the contents failed.
    #[error("{0}")]
    Receiver(E),
}

impl UnpackError<std::convert::Infallible> {
    /// For receivers that cannot fail.
    pub fn into_archive(self) -> ArchiveError {
        match self {
            UnpackError::Archive(error) => error,
            UnpackError::Receiver(never) => match never {},
        }
    }
}

/// Longest name shown in a message, in characters.
const SHOWN_MAX_CHARS: usize = 120;

/// A name as a message may show it: escaped, so that it cannot steer a terminal, and short.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String =
        text.chars().take(SHOWN_MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
