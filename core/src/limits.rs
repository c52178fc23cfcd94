//! Limits that more than one room keeps.

/// Largest archive, in bytes: the 50 MB that publishers were promised, as 50 MiB.
pub const ARCHIVE_MAX_BYTES: u64 = 50 * 1024 * 1024;
