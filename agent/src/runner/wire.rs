//! What agent and runner say to each other: one message is one datagram, a head of fixed
//! length, three texts, and a body, which stays in shared memory where it is large.
//!
//! A runner is in its plugin's hands, so whatever comes from one is taken apart here with
//! every length checked against what there is and against a limit, before anything is
//! allocated for it.
//!
//! | At | Bytes | What |
//! |---|---|---|
//! | 0 | 2 | [`Kind`] |
//! | 2 | 2 | where the body is: 0 behind the texts, 1 in the lane's memory |
//! | 4 | 4 | which plugin of the runner |
//! | 8 | 4 | a code: the request's kind, a status, a level or an operation |
//! | 12 | 4 | length of the body |
//! | 16 | 6 | lengths of the three texts |
//! | 22 | 2 | zero |
//! | 24 | 8 | deadline in Unix milliseconds, or zero |
//!
//! Numbers are little-endian.

use modunest_sdk::abi::MAX_MESSAGE_BYTES;

/// Length of the head.
pub const HEAD_BYTES: usize = 32;
/// Longest text: names, paths of routes, and traces are far below.
pub const TEXT_MAX_BYTES: usize = 2048;
/// Longest body inside a message. A socket takes so much at once on every system, and copies it
/// several times faster than a file in memory is written and read.
pub const INLINE_MAX_BYTES: usize = 64 * 1024;
/// Longest message.
pub const MESSAGE_MAX_BYTES: usize = HEAD_BYTES + 3 * TEXT_MAX_BYTES + INLINE_MAX_BYTES;

/// Code of an answer to [`Kind::Load`] that is no status of the plugin's: the library cannot be
/// used.
pub const NOT_LOADED: u32 = 0x100;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// To the runner, once, over its first socket: what it may do. Settings in a memory file.
    Setup = 1,
    /// To the runner: a lane, as its socket and its memory.
    Lane = 2,
    /// To the runner: the file that the next [`Kind::Load`] is about.
    File = 3,
    /// To the agent: the sandbox is in force; the body says which.
    Ready = 4,
    /// To the zygote: fork a runner of the name in the first text, with its first socket and
    /// its output.
    Fork = 5,
    /// From the zygote: the fork's process, as the code.
    Forked = 6,
    /// From the zygote: there is no fork; the code is the system's error.
    NotForked = 7,
    /// To the runner: load a plugin; the body says how.
    Load = 16,
    /// To the runner: a call. Texts: target, trace, caller.
    Call = 17,
    /// To the runner: is it well?
    Health = 18,
    /// To the runner: write down your state.
    Snapshot = 19,
    /// To the runner: take over this state.
    Restore = 20,
    /// To the runner: end background work.
    Stop = 21,
    /// To the runner: free the plugin.
    Destroy = 22,
    /// To the runner: what became of what it asked; the code is a status.
    Answer = 32,
    /// To the agent: what became of what it asked; the code is a status.
    Done = 48,
    /// To the agent: a line for the log. No answer follows.
    Log = 49,
    /// To the agent: a call of another plugin's service. Texts: plugin, service, trace.
    Service = 50,
    /// To the agent: an operation; the code is its number.
    Operate = 51,
    /// To the agent: a component trapped, for the reason in the body, and is made anew. No
    /// answer follows.
    Remade = 52,
}

impl Kind {
    const ALL: [Kind; 20] = [
        Kind::Setup,
        Kind::Lane,
        Kind::File,
        Kind::Ready,
        Kind::Fork,
        Kind::Forked,
        Kind::NotForked,
        Kind::Load,
        Kind::Call,
        Kind::Health,
        Kind::Snapshot,
        Kind::Restore,
        Kind::Stop,
        Kind::Destroy,
        Kind::Answer,
        Kind::Done,
        Kind::Log,
        Kind::Service,
        Kind::Operate,
        Kind::Remade,
    ];

    fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// Where a message's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// In the message.
    Inline(&'a [u8]),
    /// So many bytes at the start of the lane's memory.
    Shared(usize),
}

impl Body<'_> {
    /// Length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Body::Inline(bytes) => bytes.len(),
            Body::Shared(length) => *length,
        }
    }
}

/// A message, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// Which plugin of the runner.
    pub plugin: u32,
    /// By its kind: the request's kind, a status, a level or an operation.
    pub code: u32,
    /// Unix milliseconds; zero for none.
    pub deadline_ms: u64,
    /// By its kind.
    pub texts: [&'a str; 3],
    /// Its body.
    pub body: Body<'a>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for a head.
    #[error("a message of {0} bytes is too short")]
    Short(usize),
    /// Too long for any message.
    #[error("a message of {0} bytes is above the limit of {MESSAGE_MAX_BYTES}")]
    Long(usize),
    /// No such kind.
    #[error("there are no messages of kind {0}")]
    Kind(u16),
    /// No such place.
    #[error("there is no place {0} for a body")]
    Place(u16),
    /// What must be zero is not.
    #[error("the bytes kept for later are not zero")]
    Reserved,
    /// A text is too long.
    #[error("a text of {0} bytes is above the limit of {TEXT_MAX_BYTES}")]
    Text(usize),
    /// A text is no text.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A body is too long.
    #[error("a body of {0} bytes is above the limit of {MAX_MESSAGE_BYTES}")]
    Body(usize),
    /// The lengths say another one than there is.
    #[error("a message of {found} bytes says that it has {said}")]
    Length {
        /// By its head.
        said: usize,
        /// What there is.
        found: usize,
    },
    /// It is of a kind that does not belong where it came.
    #[error("a message {0:?} does not belong here")]
    Unexpected(Kind),
}

impl<'a> Message<'a> {
    /// One without texts, code and deadline.
    pub fn new(kind: Kind, plugin: u32, body: Body<'a>) -> Self {
        Message { kind, plugin, code: 0, deadline_ms: 0, texts: [""; 3], body }
    }

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(Malformed::Long(bytes.len()));
        }
        let Some((head, mut rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(Malformed::Short(bytes.len()));
        };
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let long =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let kind = Kind::from_number(short(0)).ok_or(Malformed::Kind(short(0)))?;
        let length = long(12) as usize;
        let is_shared = match short(2) {
            0 => false,
            1 => true,
            other => return Err(Malformed::Place(other)),
        };
        if short(22) != 0 {
            return Err(Malformed::Reserved);
        }
        let limit = if is_shared { MAX_MESSAGE_BYTES } else { INLINE_MAX_BYTES };
        if length > limit {
            return Err(Malformed::Body(length));
        }
        let lengths = [16, 18, 20].map(|at| usize::from(short(at)));
        if let Some(length) = lengths.into_iter().find(|length| *length > TEXT_MAX_BYTES) {
            return Err(Malformed::Text(length));
        }
        let inline = if is_shared { 0 } else { length };
        let said = HEAD_BYTES + lengths.iter().sum::<usize>() + inline;
        if said != bytes.len() {
            return Err(Malformed::Length { said, found: bytes.len() });
        }
        let mut texts = [""; 3];
        for (text, length) in texts.iter_mut().zip(lengths) {
            let (own, behind) = rest.split_at(length);
            *text = std::str::from_utf8(own).map_err(|_| Malformed::Utf8)?;
            rest = behind;
        }
        let deadline_ms = u64::from(long(24)) | u64::from(long(28)) << 32;
        let body = if is_shared { Body::Shared(length) } else { Body::Inline(rest) };
        Ok(Message { kind, plugin: long(4), code: long(8), deadline_ms, texts, body })
    }

    /// Writes head and texts into `out`, in place of what it held. An inline body follows
    /// them in the datagram.
    ///
    /// # Errors
    /// When a text or the body is above its limit.
    pub fn write_head(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let (place, length) = match self.body {
            Body::Inline(bytes) if bytes.len() > INLINE_MAX_BYTES => {
                return Err(Malformed::Body(bytes.len()));
            }
            Body::Inline(bytes) => (0_u16, bytes.len()),
            Body::Shared(length) if length > MAX_MESSAGE_BYTES => {
                return Err(Malformed::Body(length));
            }
            Body::Shared(length) => (1, length),
        };
        out.clear();
        out.extend_from_slice(&(self.kind as u16).to_le_bytes());
        out.extend_from_slice(&place.to_le_bytes());
        out.extend_from_slice(&self.plugin.to_le_bytes());
        out.extend_from_slice(&self.code.to_le_bytes());
        // At most the limits above, which fit.
        out.extend_from_slice(&(length as u32).to_le_bytes());
        for text in self.texts {
            if text.len() > TEXT_MAX_BYTES {
                return Err(Malformed::Text(text.len()));
            }
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        }
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.deadline_ms.to_le_bytes());
        for text in self.texts {
            out.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

/// What holds for every input, for fuzzers and for the test that replays their corpus.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert!(message.body.length() <= MAX_MESSAGE_BYTES, "a body above the limit");
    let mut again = Vec::new();
    assert_eq!(message.write_head(&mut again), Ok(()), "what was read can be written");
    if let Body::Inline(body) = message.body {
        again.extend_from_slice(body);
    }
    assert_eq!(again, bytes, "one message has one spelling");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(body: Body<'a>) -> Message<'a> {
        let texts = ["echo", "", "demo/caller"];
        Message { code: 1, deadline_ms: u64::MAX - 1, texts, ..Message::new(Kind::Call, 7, body) }
    }

    fn bytes(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.write_head(&mut out).unwrap();
        if let Body::Inline(body) = message.body {
            out.extend_from_slice(body);
        }
        out
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for body in [Body::Inline(b"hello"), Body::Inline(b""), Body::Shared(MAX_MESSAGE_BYTES)] {
            let message = call(body);
            assert_eq!(Message::parse(&bytes(&message)), Ok(message));
        }
        for kind in Kind::ALL {
            let message = Message::new(kind, 0, Body::Inline(b""));
            assert_eq!(Message::parse(&bytes(&message)), Ok(message));
        }
    }

    #[test]
    fn every_lie_has_its_name() {
        let good = bytes(&call(Body::Inline(b"hello")));
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            Message::parse(&bad).unwrap_err().to_string()
        };
        let lies = [
            Message::parse(&good[..31]).unwrap_err().to_string(),
            Message::parse(&vec![0; MESSAGE_MAX_BYTES + 1]).unwrap_err().to_string(),
            with(0, 99),
            with(2, 2),
            with(22, 1),
            with(14, 1),
            with(17, 9),
            with(16, 5),
            with(32, 0xFF),
        ];
        insta::assert_snapshot!(lies.join("\n"));
    }

    #[test]
    fn the_corpus_of_the_fuzzer() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/runner");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let content = std::fs::read(&path).unwrap();
            check_invariants(&content);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Message::parse(&content).is_ok(), name.starts_with("good-"), "{name}");
            seen += 1;
        }
        assert!(seen > 0, "the corpus is empty");
    }
}
