//! Frames: how the answer is written and, piece by piece, read.

use std::fmt;

use super::proof::PROOF_MAX_BYTES;
use crate::index::{
    BIN_MAX_BYTES, Bin, HEAD_MAX_BYTES, INDEX_FILE_MAX_BYTES, IndexError, NODE_COMPACT_MAX_BYTES,
    Node,
};
use crate::keys::ObjectKey;

/// Longest answer that is read, in bytes: what the widest limits allow
/// ([`super::Limits::NATIVE`]), a head, a proof, and the frames' lines.
pub const ANSWER_MAX_BYTES: usize = super::Limits::NATIVE.bytes
    + HEAD_MAX_BYTES
    + PROOF_MAX_BYTES
    + super::Limits::NATIVE.objects * LINE_MAX_BYTES;
/// Longest line: `index/`, 64 digits, a space, at most seven digits, and a line feed.
const LINE_MAX_BYTES: usize = 6 + 64 + 1 + 7 + 1;

/// What the proof's line says in place of a key.
const PROOF: &str = "proof";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The head, a node, a bin or an index file.
    Object(ObjectKey),
    /// The hashes that prove the statements of all index files of the answer.
    Proof,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Object(key) => key.fmt(f),
            Part::Proof => f.write_str(PROOF),
        }
    }
}

/// Appends a frame to an answer: its line, and its bytes as they are sent.
pub fn push_frame(answer: &mut Vec<u8>, part: Part, sent: &[u8]) {
    answer.extend_from_slice(format!("{part} {}\n", sent.len()).as_bytes());
    answer.extend_from_slice(sent);
}

/// One part of an answer, unproven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub part: Part,
    /// An object's bytes, as its file has them; the proof's hashes.
    pub bytes: Vec<u8>,
}

/// Why bytes are not an answer. Nothing after it can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame does not begin as one does.
    #[error("a frame begins with the key of an index object, a space and a length in decimal")]
    Line,
    /// Longer than its kind can be.
    #[error("{part} cannot have {length_bytes} bytes")]
    Length {
        /// The object, or the proof.
        part: Part,
        /// What its line says.
        length_bytes: u64,
    },
    /// The head is not the first frame, or not the only one of its kind.
    #[error("the head is the first frame, and no other")]
    Head,
    /// Something follows the proof.
    #[error("the proof is the last frame")]
    AfterProof,
    /// A node or a bin is not sent as such are.
    #[error("{part}: {error}")]
    Form {
        /// The object.
        part: Part,
        /// What is wrong with it.
        error: Box<IndexError>,
    },
    /// More than [`ANSWER_MAX_BYTES`].
    #[error("the answer has more than {ANSWER_MAX_BYTES} bytes")]
    TooLong,
    /// The answer ends inside a frame, or before the first.
    #[error("the answer breaks off")]
    Cut,
}

/// Reads frames from pieces of any size. Memory follows what has come, never what a line
/// announces.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// What has come and is no frame yet.
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed out.
    taken: usize,
    /// The line that was read: what comes and how many bytes it has.
    begun: Option<(Part, usize)>,
    proof_read: bool,
    total_bytes: usize,
    frames: usize,
}

impl FrameReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece. Take all frames before the next one, so that the buffer stays
    /// below one frame and one piece.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn push(&mut self, piece: &[u8]) -> Result<(), FrameError> {
        self.total_bytes = self.total_bytes.saturating_add(piece.len());
        if self.total_bytes > ANSWER_MAX_BYTES {
            return Err(FrameError::TooLong);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next frame that has come whole.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let (part, length) = match self.begun {
            Some(begun) => begun,
            None => {
                let Some((part, length, line_bytes)) = read_line(rest)? else { return Ok(None) };
                if (part == Part::Object(ObjectKey::Head)) != (self.frames == 0) {
                    return Err(FrameError::Head);
                }
                if self.proof_read {
                    return Err(FrameError::AfterProof);
                }
                self.taken += line_bytes;
                self.begun = Some((part, length));
                (part, length)
            }
        };
        let rest = &self.buffer[self.taken..];
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let bytes = match part {
            Part::Object(ObjectKey::Node(_)) => {
                Node::from_compact(bytes).map(|node| node.to_bytes())
            }
            Part::Object(ObjectKey::Bin(_)) => Bin::expand(bytes),
            Part::Object(_) | Part::Proof => Ok(bytes.to_vec()),
        };
        let bytes = bytes.map_err(|error| FrameError::Form { part, error: Box::new(error) })?;
        self.taken += length;
        self.begun = None;
        self.frames += 1;
        self.proof_read = part == Part::Proof;
        Ok(Some(Frame { part, bytes }))
    }

    /// The end of the answer, after the last frame was taken.
    ///
    /// # Errors
    /// [`FrameError::Cut`].
    pub fn finish(&self) -> Result<(), FrameError> {
        let at_rest = self.begun.is_none() && self.taken == self.buffer.len() && self.frames > 0;
        if at_rest { Ok(()) } else { Err(FrameError::Cut) }
    }
}

/// What comes, its length, and the line's own; `None` while the line may still go on.
fn read_line(bytes: &[u8]) -> Result<Option<(Part, usize, usize)>, FrameError> {
    let Some(end) = bytes.iter().take(LINE_MAX_BYTES).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX_BYTES { Ok(None) } else { Err(FrameError::Line) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| FrameError::Line)?;
    let (key, length) = line.split_once(' ').ok_or(FrameError::Line)?;
    let part = match key {
        PROOF => Part::Proof,
        key => Part::Object(ObjectKey::from_key(key).ok_or(FrameError::Line)?),
    };
    let canonical = !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    if !canonical {
        return Err(FrameError::Line);
    }
    let length_bytes: u64 = length.parse().map_err(|_| FrameError::Line)?;
    let max_bytes = match part {
        Part::Proof => PROOF_MAX_BYTES,
        Part::Object(ObjectKey::Head) => HEAD_MAX_BYTES,
        Part::Object(ObjectKey::Node(_)) => NODE_COMPACT_MAX_BYTES,
        Part::Object(ObjectKey::Bin(_)) => BIN_MAX_BYTES,
        Part::Object(ObjectKey::Index(_)) => INDEX_FILE_MAX_BYTES,
        Part::Object(
            ObjectKey::Checkpoint
            | ObjectKey::Tile(_)
            | ObjectKey::Trust(_)
            | ObjectKey::Blob(_)
            | ObjectKey::Report(_),
        ) => {
            return Err(FrameError::Line);
        }
    };
    match usize::try_from(length_bytes) {
        Ok(length) if length <= max_bytes => Ok(Some((part, length, end + 1))),
        _ => Err(FrameError::Length { part, length_bytes }),
    }
}

/// Every frame of `bytes`, handed over in pieces of a size, and how reading ended.
pub(super) fn read_in_pieces(
    bytes: &[u8],
    piece_bytes: usize,
) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        if let Err(error) = reader.push(piece) {
            return (frames, Err(error));
        }
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    let end = reader.finish();
    (frames, end)
}
