//! Contents: inflated in pieces, with declared size and CRC enforced.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::error::shown;
use super::{ArchiveError, Entry, FileRecord, Method, UnpackError};

/// Bytes handed on at once. The inflater copies its 32 KiB window at the end of each call,
/// so a piece is several windows; the hash that follows should still find it in the cache.
const PIECE_BYTES: usize = 256 * 1024;

/// What [`super::Archive::unpack`] tells its receiver.
#[derive(Debug)]
pub enum Part<'p, 'a> {
    /// A file begins.
    Start(&'p Entry<'a>),
    /// The file's next bytes, at most 256 KiB.
    Data(&'p [u8]),
    /// The file ended, and its size and checksum are as declared.
    End(&'p FileRecord),
}

/// Inflates entries one after the other with the same buffers.
pub struct Extractor {
    inflater: Decompress,
    piece: Vec<u8>,
}

impl Default for Extractor {
    fn default() -> Self {
        Self::new()
    }
}

impl Extractor {
    /// An extractor with empty buffers; they grow to what the entries need, 256 KiB at most.
    pub fn new() -> Self {
        Extractor { inflater: Decompress::new(false), piece: Vec::new() }
    }

    /// Gives `receive` the contents of `entry` in pieces. Everything handed over is
    /// provisional until this returns `Ok`: the checksum is only known at the end.
    ///
    /// # Errors
    /// The contents are not what the headers declare, or `receive` failed.
    pub fn extract<E>(
        &mut self,
        entry: &Entry<'_>,
        mut receive: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), UnpackError<E>> {
        let mut crc = Crc::new();
        let mut pass_on = |piece: &[u8]| {
            crc.update(piece);
            receive(piece).map_err(UnpackError::Receiver)
        };
        match entry.method {
            // `open` has checked that the sizes agree.
            Method::Stored => entry.data.chunks(PIECE_BYTES).try_for_each(&mut pass_on)?,
            Method::Deflate => self.inflate(entry, pass_on)?,
        }
        if crc.sum() != entry.crc32 {
            return Err(ArchiveError::Checksum { name: shown(entry.name.as_bytes()) }.into());
        }
        Ok(())
    }

    fn inflate<E>(
        &mut self,
        entry: &Entry<'_>,
        mut pass_on: impl FnMut(&[u8]) -> Result<(), UnpackError<E>>,
    ) -> Result<(), UnpackError<E>> {
        let name = || shown(entry.name.as_bytes());
        let wrong_size =
            || ArchiveError::Size { name: name(), declared_bytes: entry.size_bytes.into() };
        self.inflater.reset(false);
        let mut input = entry.data;
        let mut remaining = entry.size_bytes as usize;
        loop {
            // One byte more than may come, so that a stream that is too long shows itself.
            let room = (remaining + 1).min(PIECE_BYTES);
            if self.piece.len() < room {
                self.piece.resize(room, 0);
            }
            let (in_before, out_before) = (self.inflater.total_in(), self.inflater.total_out());
            let status = self
                .inflater
                .decompress(input, &mut self.piece[..room], FlushDecompress::None)
                .map_err(|_| ArchiveError::Damaged { name: name() })?;
            let consumed = (self.inflater.total_in() - in_before) as usize;
            let produced = (self.inflater.total_out() - out_before) as usize;
            input = &input[consumed..];
            remaining = remaining.checked_sub(produced).ok_or_else(wrong_size)?;
            if produced > 0 {
                pass_on(&self.piece[..produced])?;
            }
            match status {
                Status::StreamEnd if remaining > 0 => return Err(wrong_size().into()),
                Status::StreamEnd if !input.is_empty() => {
                    let trailing_bytes = input.len() as u64;
                    return Err(ArchiveError::Trailing { name: name(), trailing_bytes }.into());
                }
                Status::StreamEnd => return Ok(()),
                // All input was on offer: no progress means that there is no more.
                Status::Ok | Status::BufError if consumed == 0 && produced == 0 => {
                    return Err(ArchiveError::Damaged { name: name() }.into());
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }
}
