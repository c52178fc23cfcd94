//! Records of the zip format, read under the gate's rules.

use super::error::shown;
use super::path::{self, NameSet};
use super::{ARCHIVE_MAX_BYTES, ArchiveError, ENTRIES_MAX, Entry, RATIO_MAX, UNPACKED_MAX_BYTES};

/// How an entry's contents are kept (APPNOTE 4.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Method 0: as they are.
    Stored,
    /// Method 8: one deflate stream (RFC 1951).
    Deflate,
}

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const ZIP64_LOCATOR_SIGNATURE: u32 = 0x0706_4b50;

/// Fixed part of a local file header, section 4.3.7.
const LOCAL_BYTES: usize = 30;
/// Fixed part of a central directory header, section 4.3.12.
const CENTRAL_BYTES: usize = 46;
/// End of central directory record without comment, section 4.3.16.
const END_BYTES: usize = 22;
/// Zip64 end of central directory locator, section 4.3.15.
const ZIP64_LOCATOR_BYTES: usize = 20;

/// Bits 1 and 2 (compression level, informative) and 11 (name is UTF-8), section 4.4.4.
const FLAGS_ALLOWED: u16 = 1 << 1 | 1 << 2 | FLAG_UTF8;
const FLAG_UTF8: u16 = 1 << 11;
const FLAG_DATA_DESCRIPTOR: u16 = 1 << 3;
/// Bits 0 (encrypted), 6 (strong encryption) and 13 (masked headers).
const FLAGS_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// Versions needed, section 4.4.3: 1.0 for a stored file, 2.0 for deflate.
const VERSIONS_NEEDED: [u16; 2] = [10, 20];
/// Systems whose attributes we understand, section 4.4.2: MS-DOS and Unix.
const SYSTEMS: [u16; 2] = [0, 3];

/// DOS attributes of a plain file: read-only and archive.
const DOS_ATTRIBUTES_ALLOWED: u32 = 0x21;
const DOS_FOLDER: u32 = 0x10;
const UNIX_TYPE: u32 = 0o170_000;
const UNIX_REGULAR: u32 = 0o100_000;
const UNIX_FOLDER: u32 = 0o040_000;
const UNIX_LINK: u32 = 0o120_000;
const UNIX_PERMISSIONS: u32 = 0o777;
const UNIX_EXECUTE: u32 = 0o111;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads all entries of an archive, or gives the first broken rule.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry<'_>>, ArchiveError> {
    if bytes.len() > ARCHIVE_MAX_BYTES {
        return Err(ArchiveError::TooLarge { size_bytes: bytes.len() });
    }
    let (files, mut directory, count) = end_record(bytes)?;
    let mut entries = Vec::with_capacity(count);
    let mut names = NameSet::default();
    let mut cursor = 0;
    let mut unpacked_bytes = 0u64;
    for index in 0..count {
        let central = central_header(&mut directory, index)?;
        let name = central.check()?;
        names.insert(name)?;
        let entry = central.entry(name, files, &mut cursor, index)?;
        unpacked_bytes += u64::from(entry.size_bytes);
        if unpacked_bytes > UNPACKED_MAX_BYTES {
            return Err(ArchiveError::UnpackedTooLarge { size_bytes: unpacked_bytes });
        }
        entries.push(entry);
    }
    if !directory.is_empty() || cursor != files.len() {
        return Err(ArchiveError::DirectoryPlace);
    }
    let archive_bytes = bytes.len() as u64;
    if unpacked_bytes > archive_bytes * RATIO_MAX {
        return Err(ArchiveError::Ratio { archive_bytes, unpacked_bytes });
    }
    Ok(entries)
}

/// Splits the archive into files, central directory, and the number of entries.
fn end_record(bytes: &[u8]) -> Result<(&[u8], &[u8], usize), ArchiveError> {
    let end_at = bytes.len().checked_sub(END_BYTES).ok_or(ArchiveError::EndRecord)?;
    let (before, end) = bytes.split_at(end_at);
    if u32_at(end, 0) != END_SIGNATURE || u16_at(end, 20) != 0 {
        return Err(ArchiveError::EndRecord);
    }
    let locator = before.len().checked_sub(ZIP64_LOCATOR_BYTES);
    if locator.is_some_and(|at| u32_at(before, at) == ZIP64_LOCATOR_SIGNATURE) {
        return Err(ArchiveError::Zip64);
    }
    let (count, size, offset) = (u16_at(end, 10), u32_at(end, 12), u32_at(end, 16));
    // Section 4.4.1.4: these values send a reader to the zip64 record.
    if count == u16::MAX || size == u32::MAX || offset == u32::MAX {
        return Err(ArchiveError::Zip64);
    }
    if u16_at(end, 4) != 0 || u16_at(end, 6) != 0 || u16_at(end, 8) != count {
        return Err(ArchiveError::Disks);
    }
    if u64::from(offset) + u64::from(size) != end_at as u64 {
        return Err(ArchiveError::DirectoryPlace);
    }
    let count = usize::from(count);
    if count == 0 {
        return Err(ArchiveError::Empty);
    }
    if count > ENTRIES_MAX {
        return Err(ArchiveError::TooManyEntries { count });
    }
    let (files, directory) = before.split_at(offset as usize);
    Ok((files, directory, count))
}

/// A central directory header that has its full length.
struct Central<'a> {
    fixed: &'a [u8],
    name: &'a [u8],
}

fn central_header<'a>(directory: &mut &'a [u8], index: usize) -> Result<Central<'a>, ArchiveError> {
    let cut = || ArchiveError::Record { record: "central directory header", index };
    let (fixed, rest) = directory.split_at_checked(CENTRAL_BYTES).ok_or_else(cut)?;
    if u32_at(fixed, 0) != CENTRAL_SIGNATURE {
        return Err(cut());
    }
    let (name, rest) = rest.split_at_checked(u16_at(fixed, 28).into()).ok_or_else(cut)?;
    *directory = rest;
    if u16_at(fixed, 30) != 0 {
        return Err(ArchiveError::ExtraField { name: shown(name) });
    }
    if u16_at(fixed, 32) != 0 {
        return Err(ArchiveError::Comment { name: shown(name) });
    }
    Ok(Central { fixed, name })
}

impl<'a> Central<'a> {
    /// Every rule that one header can break by itself; gives the checked name.
    fn check(&self) -> Result<&'a str, ArchiveError> {
        let fixed = self.fixed;
        let name = || shown(self.name);
        let (made_by, needed) = (u16_at(fixed, 4), u16_at(fixed, 6));
        let flags = u16_at(fixed, 8);
        if flags & FLAGS_ENCRYPTED != 0 {
            return Err(ArchiveError::Encrypted { name: name() });
        }
        if flags & FLAG_DATA_DESCRIPTOR != 0 {
            return Err(ArchiveError::DataDescriptor { name: name() });
        }
        if flags & !FLAGS_ALLOWED != 0 {
            return Err(ArchiveError::Flags { name: name(), flags });
        }
        if u32_at(fixed, 20) == u32::MAX
            || u32_at(fixed, 24) == u32::MAX
            || u32_at(fixed, 42) == u32::MAX
        {
            return Err(ArchiveError::Zip64);
        }
        if !VERSIONS_NEEDED.contains(&needed) || !SYSTEMS.contains(&(made_by >> 8)) {
            return Err(ArchiveError::Version { name: name(), needed, made_by });
        }
        if u16_at(fixed, 34) != 0 {
            return Err(ArchiveError::Disks);
        }
        self.check_attributes()?;
        let text = std::str::from_utf8(self.name)
            .ok()
            // Section 4.4.4, bit 11: without it the name is code page 437.
            .filter(|text| text.is_ascii() || flags & FLAG_UTF8 != 0)
            .ok_or_else(|| ArchiveError::Name {
                name: name(),
                problem: path::PathProblem::NotUtf8,
            })?;
        if text.ends_with('/') {
            return Err(ArchiveError::Folder { name: name() });
        }
        path::check(text)
            .map(|()| text)
            .map_err(|problem| ArchiveError::Name { name: name(), problem })
    }

    /// Sections 4.4.14 and 4.4.15. The high half is a Unix mode also where Python on Windows
    /// writes "MS-DOS" as the system, so it is judged under both.
    fn check_attributes(&self) -> Result<(), ArchiveError> {
        let name = || shown(self.name);
        let attributes = u32_at(self.fixed, 38);
        let mode = attributes >> 16;
        match mode & UNIX_TYPE {
            UNIX_LINK => return Err(ArchiveError::SymbolicLink { name: name() }),
            UNIX_FOLDER => return Err(ArchiveError::Folder { name: name() }),
            _ if attributes & DOS_FOLDER != 0 => return Err(ArchiveError::Folder { name: name() }),
            _ => {}
        }
        let regular = matches!(mode & UNIX_TYPE, 0 | UNIX_REGULAR)
            && mode & !(UNIX_TYPE | UNIX_PERMISSIONS) == 0
            && attributes & 0xffff & !DOS_ATTRIBUTES_ALLOWED == 0
            // Bit 0: "apparently text", set by Info-ZIP. The others have meanings elsewhere.
            && u16_at(self.fixed, 36) <= 1;
        if regular { Ok(()) } else { Err(ArchiveError::Special { name: name(), attributes }) }
    }

    /// Finds the local header and the data where the entry before ended, and nowhere else.
    fn entry(
        &self,
        name: &'a str,
        files: &'a [u8],
        cursor: &mut usize,
        index: usize,
    ) -> Result<Entry<'a>, ArchiveError> {
        let fixed = self.fixed;
        let found = u64::from(u32_at(fixed, 42));
        if found != *cursor as u64 {
            return Err(ArchiveError::Place {
                name: shown(self.name),
                expected: *cursor as u64,
                found,
            });
        }
        let cut = || ArchiveError::Record { record: "local header", index };
        let rest = &files[*cursor..];
        let (local, rest) = rest.split_at_checked(LOCAL_BYTES).ok_or_else(cut)?;
        if u32_at(local, 0) != LOCAL_SIGNATURE {
            return Err(cut());
        }
        // From "version needed" to "extra field length" both headers have the same layout.
        for (field, at, length) in SHARED_FIELDS {
            if fixed[at..at + length] != local[at - 2..at - 2 + length] {
                return Err(ArchiveError::Disagreement { name: shown(self.name), field });
            }
        }
        let (local_name, rest) = rest.split_at_checked(name.len()).ok_or_else(cut)?;
        if local_name != self.name {
            return Err(ArchiveError::Disagreement { name: shown(self.name), field: "name" });
        }
        let method = match u16_at(fixed, 10) {
            0 => Method::Stored,
            8 => Method::Deflate,
            method => return Err(ArchiveError::Method { name: shown(self.name), method }),
        };
        let (compressed_bytes, size_bytes) = (u32_at(fixed, 20), u32_at(fixed, 24));
        if method == Method::Stored && compressed_bytes != size_bytes {
            return Err(ArchiveError::StoredSize { name: shown(self.name) });
        }
        let data = rest
            .get(..compressed_bytes as usize)
            .ok_or(ArchiveError::Record { record: "data", index })?;
        *cursor += LOCAL_BYTES + name.len() + data.len();
        let mode = u32_at(fixed, 38) >> 16;
        Ok(Entry {
            name,
            size_bytes,
            executable: mode & UNIX_EXECUTE != 0,
            method,
            crc32: u32_at(fixed, 16),
            data,
        })
    }
}

/// Name, offset in the central header and length of each field that both headers have; in
/// the local header the offset is 2 less (it has no "version made by").
const SHARED_FIELDS: [(&str, usize, usize); 10] = [
    ("version needed", 6, 2),
    ("flags", 8, 2),
    ("compression method", 10, 2),
    ("modification time", 12, 2),
    ("modification date", 14, 2),
    ("checksum", 16, 4),
    ("compressed size", 20, 4),
    ("size", 24, 4),
    ("name length", 28, 2),
    ("extra field", 30, 2),
];
