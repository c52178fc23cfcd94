//! Archives made by hand, field by field, and what to break in them.

use std::io::Write as _;

/// An archive made by hand, field by field.
#[derive(Clone)]
pub(super) struct File {
    pub(super) name: Vec<u8>,
    /// Bytes as they stand in the archive.
    pub(super) data: Vec<u8>,
    pub(super) size: u32,
    pub(super) crc: u32,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) attributes: u32,
    pub(super) local_extra: Vec<u8>,
    pub(super) central_extra: Vec<u8>,
    pub(super) comment: Vec<u8>,
    /// Bytes between the file before and this one's header.
    pub(super) gap: Vec<u8>,
}

pub(super) const REGULAR: u32 = 0o100_644 << 16;

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(super) fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

impl File {
    pub(super) fn stored(name: &str, content: &[u8]) -> Self {
        File {
            name: name.into(),
            data: content.into(),
            size: content.len() as u32,
            crc: crc32(content),
            method: 0,
            flags: if name.is_ascii() { 0 } else { 1 << 11 },
            attributes: REGULAR,
            local_extra: vec![],
            central_extra: vec![],
            comment: vec![],
            gap: vec![],
        }
    }

    pub(super) fn deflated(name: &str, content: &[u8]) -> Self {
        File { data: deflate(content), method: 8, ..Self::stored(name, content) }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// The bytes, and where each record starts.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) locals: Vec<usize>,
    pub(super) centrals: Vec<usize>,
    pub(super) end: usize,
}

pub(super) fn make(files: &[File]) -> Made {
    let mut made = Made { bytes: vec![], locals: vec![], centrals: vec![], end: 0 };
    let shared = |file: &File, extra: usize| {
        let mut header = Vec::new();
        for value in [20, file.flags, file.method, 0, 0x21] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        for value in [file.crc, file.data.len() as u32, file.size] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        header.extend_from_slice(&(file.name.len() as u16).to_le_bytes());
        header.extend_from_slice(&(extra as u16).to_le_bytes());
        header
    };
    for file in files {
        made.bytes.extend_from_slice(&file.gap);
        made.locals.push(made.bytes.len());
        made.bytes.extend_from_slice(b"PK\x03\x04");
        made.bytes.extend(shared(file, file.local_extra.len()));
        for part in [&file.name, &file.local_extra, &file.data] {
            made.bytes.extend_from_slice(part);
        }
    }
    let directory = made.bytes.len();
    for (file, &local) in files.iter().zip(&made.locals) {
        made.centrals.push(made.bytes.len());
        made.bytes.extend_from_slice(b"PK\x01\x02\x14\x03");
        made.bytes.extend(shared(file, file.central_extra.len()));
        made.bytes.extend_from_slice(&(file.comment.len() as u16).to_le_bytes());
        made.bytes.extend_from_slice(&[0; 4]);
        made.bytes.extend_from_slice(&file.attributes.to_le_bytes());
        made.bytes.extend_from_slice(&(local as u32).to_le_bytes());
        for part in [&file.name, &file.central_extra, &file.comment] {
            made.bytes.extend_from_slice(part);
        }
    }
    made.end = made.bytes.len();
    let count = (files.len() as u16).to_le_bytes();
    made.bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    made.bytes.extend_from_slice(&count);
    made.bytes.extend_from_slice(&count);
    made.bytes.extend_from_slice(&((made.end - directory) as u32).to_le_bytes());
    made.bytes.extend_from_slice(&(directory as u32).to_le_bytes());
    made.bytes.extend_from_slice(&[0; 2]);
    made
}

impl Made {
    pub(super) fn patch(mut self, at: usize, value: &[u8]) -> Self {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self
    }

    pub(super) fn central(self, field: usize, value: &[u8]) -> Self {
        let at = self.centrals[0] + field;
        self.patch(at, value)
    }

    pub(super) fn local(self, field: usize, value: &[u8]) -> Self {
        let at = self.locals[0] + field;
        self.patch(at, value)
    }

    /// A field that both headers have, by its offset in the central one.
    pub(super) fn both(self, field: usize, value: &[u8]) -> Self {
        self.central(field, value).local(field - 2, value)
    }

    pub(super) fn end(self, field: usize, value: &[u8]) -> Self {
        let at = self.end + field;
        self.patch(at, value)
    }
}

pub(super) fn one() -> Made {
    make(&[File::deflated("plugin.toml", b"hello hello hello hello")])
}
