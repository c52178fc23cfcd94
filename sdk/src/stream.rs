//! Bodies that do not fit into one message, server-sent events and WebSockets.
//!
//! Everything is a call, so that every tier has it alike, and whoever is slow slows down only
//! itself:
//!
//! - **Responses.** A response names a stream of the plugin's own
//!   ([`crate::HttpResponse::stream`]). The gateway calls [`crate::Plugin::stream`] for the next
//!   piece when the client has room for it, until the end; a client that goes away is told as
//!   [`StreamEvent::Closed`]. A source that has nothing now answers [`Piece::Wait`] and says
//!   later, by [`crate::Host::wake`], that it has: no thread waits meanwhile.
//! - **Server-sent events** are a response of type `text/event-stream` whose pieces are events.
//! - **WebSockets.** A response that accepts the connection
//!   ([`crate::HttpResponse::websocket`]) names a stream as well. Messages of the client come in
//!   as [`StreamEvent::Text`] and [`StreamEvent::Binary`], each answered by a piece; more are
//!   pulled as above. Every piece is one message.
//! - **Uploads.** A request to a route with `upload` in its `stream` list names an upload
//!   ([`crate::HttpRequest::upload`]) if its body is above [`crate::http::MAX_BODY_BYTES`]. The
//!   plugin reads it by [`crate::Host::read_upload`].
//!
//! ```text
//! a call of kind Stream     target next, text, binary or closed
//!   payload                 u64, little-endian: the stream; then the message, if there is one
//!   answer                  a byte: 0 bytes, 1 text, 2 wait, 3 end; then the piece, if there is one
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Error;

/// Bytes that [`crate::Host::read_upload`] answers at most, and a good size for a piece: large
/// enough that a call's cost disappears, small enough that thousands of streams fit.
pub const PIECE_BYTES: usize = 256 * 1024;

const ID_BYTES: usize = 8;

/// What a stream has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body; on a WebSocket, one binary message.
    Bytes(Vec<u8>),
    /// Text; on a WebSocket, one text message.
    Text(String),
    /// Nothing now: the host asks again when it is woken ([`crate::Host::wake`]), and now and
    /// then anyway.
    Wait,
    /// There is no more.
    End,
}

/// What is asked of a stream, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// The client has room for the next piece.
    Next,
    /// A text message of a WebSocket's client.
    Text(&'a str),
    /// A binary message of a WebSocket's client.
    Binary(&'a [u8]),
    /// The client went away, or the host gave the stream up. Nothing follows.
    Closed,
}

/// A call about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRequest<'a> {
    /// The plugin's own number of the stream.
    pub id: u64,
    /// What is asked, or told.
    pub event: StreamEvent<'a>,
}

impl<'a> StreamRequest<'a> {
    /// Target and payload of the call.
    #[must_use]
    pub fn encode(&self) -> (&'static str, Vec<u8>) {
        let (target, message): (_, &[u8]) = match self.event {
            StreamEvent::Next => ("next", &[]),
            StreamEvent::Text(text) => ("text", text.as_bytes()),
            StreamEvent::Binary(bytes) => ("binary", bytes),
            StreamEvent::Closed => ("closed", &[]),
        };
        let mut payload = Vec::with_capacity(ID_BYTES + message.len());
        payload.extend_from_slice(&self.id.to_le_bytes());
        payload.extend_from_slice(message);
        (target, payload)
    }

    /// The request that a call's target and payload are.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if they are malformed, [`Error::Unsupported`] if the target is
    /// unknown.
    pub fn decode(target: &str, payload: &'a [u8]) -> Result<Self, Error> {
        let (id, message) = payload
            .split_first_chunk::<ID_BYTES>()
            .ok_or_else(|| Error::invalid_input("the stream has no number"))?;
        let event = match target {
            "text" => StreamEvent::Text(
                std::str::from_utf8(message)
                    .map_err(|_| Error::invalid_input("the message is not UTF-8"))?,
            ),
            "binary" => StreamEvent::Binary(message),
            "next" | "closed" if !message.is_empty() => {
                return Err(Error::invalid_input(format!("`{target}` carries no message")));
            }
            "next" => StreamEvent::Next,
            "closed" => StreamEvent::Closed,
            other => {
                return Err(Error::Unsupported(format!("`{other}` is nothing to ask a stream")));
            }
        };
        Ok(Self { id: u64::from_le_bytes(*id), event })
    }
}

impl Piece {
    /// The answer of the call.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (tag, mut bytes) = match self {
            Self::Bytes(bytes) => (0, bytes),
            Self::Text(text) => (1, text.into_bytes()),
            Self::Wait => (2, Vec::new()),
            Self::End => (3, Vec::new()),
        };
        bytes.insert(0, tag);
        bytes
    }

    /// The piece that an answer is.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it is malformed.
    pub fn decode(answer: &[u8]) -> Result<Self, Error> {
        match answer.split_first() {
            Some((0, bytes)) => Ok(Self::Bytes(bytes.to_vec())),
            Some((1, text)) => std::str::from_utf8(text)
                .map(|text| Self::Text(text.to_owned()))
                .map_err(|_| Error::failed("a piece of text is not UTF-8")),
            Some((2, [])) => Ok(Self::Wait),
            Some((3, [])) => Ok(Self::End),
            _ => Err(Error::failed("a stream answered no piece")),
        }
    }
}

/// A body above the inline limit, to be read by [`crate::Host::read_upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    /// The host's number of it.
    pub id: u64,
    /// Its length in bytes, if the client said so.
    pub length: Option<u64>,
}

/// What [`crate::operation::UPLOAD_READ`] is asked with: the upload and the most bytes.
#[must_use]
pub fn encode_read(upload: u64, max: u32) -> [u8; 12] {
    let mut request = [0; 12];
    request[..ID_BYTES].copy_from_slice(&upload.to_le_bytes());
    request[ID_BYTES..].copy_from_slice(&max.to_le_bytes());
    request
}

/// Reads what [`encode_read`] wrote.
///
/// # Errors
///
/// [`Error::InvalidInput`] if it is malformed.
pub fn decode_read(request: &[u8]) -> Result<(u64, u32), Error> {
    let malformed = || Error::invalid_input("a read names an upload and a number of bytes");
    let (id, rest) = request.split_first_chunk::<ID_BYTES>().ok_or_else(malformed)?;
    let max = rest.try_into().map_err(|_| malformed())?;
    Ok((u64::from_le_bytes(*id), u32::from_le_bytes(max)))
}

/// Reads what [`crate::operation::STREAM_WAKE`] is asked with: the stream, as a little-endian
/// `u64`.
///
/// # Errors
///
/// [`Error::InvalidInput`] if it is malformed.
pub fn decode_wake(request: &[u8]) -> Result<u64, Error> {
    let id = request.try_into().map_err(|_| Error::invalid_input("a stream has a number"))?;
    Ok(u64::from_le_bytes(id))
}

/// One stream of a plugin. [`Streams`] calls it, one call at a time.
pub trait Stream: Send + 'static {
    /// What it has next.
    ///
    /// # Errors
    ///
    /// What went wrong: the client's connection is cut, so that it sees that the body is not
    /// whole.
    fn next(&mut self) -> Result<Piece, Error>;

    /// Takes a WebSocket's message: [`StreamEvent::Text`] or [`StreamEvent::Binary`].
    ///
    /// # Errors
    ///
    /// What went wrong: the connection is closed. By default no message is wanted.
    fn message(&mut self, message: StreamEvent<'_>) -> Result<Piece, Error> {
        let _ = message;
        Err(Error::invalid_input("no messages are wanted here"))
    }

    /// The client went away before the end.
    fn closed(&mut self) {}
}

/// Any iterator of pieces is a stream.
impl<I: Iterator<Item = Result<Vec<u8>, Error>> + Send + 'static> Stream for I {
    fn next(&mut self) -> Result<Piece, Error> {
        Iterator::next(self).map_or(Ok(Piece::End), |piece| piece.map(Piece::Bytes))
    }
}

type Open = Arc<Mutex<Box<dyn Stream>>>;

/// The open streams of a plugin: keep one of these, [`open`](Streams::open) streams in it, and
/// let [`crate::Plugin::stream`] answer [`serve`](Streams::serve).
#[derive(Default)]
pub struct Streams {
    open: Mutex<BTreeMap<u64, Open>>,
    last: AtomicU64,
}

impl Streams {
    /// Takes a stream in and answers its number, for [`crate::HttpResponse::streamed`] or
    /// [`crate::HttpResponse::websocket`]. It stays until it ends, fails or is closed.
    pub fn open(&self, stream: impl Stream) -> u64 {
        self.open_with(|_| stream)
    }

    /// As [`Streams::open`], for a stream that wants to know its own number, to
    /// [wake](crate::Host::wake) the host.
    pub fn open_with<S: Stream>(&self, make: impl FnOnce(u64) -> S) -> u64 {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.open).insert(id, Arc::new(Mutex::new(Box::new(make(id)))));
        id
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        lock(&self.open).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Answers a call about one of them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none of this number, else what the stream answered.
    pub fn serve(&self, request: StreamRequest<'_>) -> Result<Piece, Error> {
        // Copied out, so that one stream that works does not keep the others waiting.
        let open = lock(&self.open).get(&request.id).cloned();
        let open =
            open.ok_or_else(|| Error::NotFound(format!("there is no stream {}", request.id)))?;
        let mut stream = lock(&open);
        let piece = match request.event {
            StreamEvent::Next => stream.next(),
            StreamEvent::Closed => {
                stream.closed();
                Ok(Piece::End)
            }
            message => stream.message(message),
        };
        if matches!(piece, Err(_) | Ok(Piece::End)) {
            lock(&self.open).remove(&request.id);
        }
        piece
    }
}

/// A stream that panicked is asked no more: the host closes it. The map is never half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a fuzzer calls: decoding never panics, and what was decoded is written as it was.
pub fn check_decoders(bytes: &[u8]) {
    if let Ok(piece) = Piece::decode(bytes) {
        assert_eq!(piece.encode(), bytes);
    }
    for target in ["next", "text", "binary", "closed", "other"] {
        if let Ok(request) = StreamRequest::decode(target, bytes) {
            assert_eq!(request.encode(), (target, bytes.to_vec()));
        }
    }
    if let Ok((upload, max)) = decode_read(bytes) {
        assert_eq!(encode_read(upload, max), bytes);
    }
    if let Ok(id) = decode_wake(bytes) {
        assert_eq!(id.to_le_bytes(), bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Echo(Arc<AtomicU64>);

    impl Stream for Echo {
        fn next(&mut self) -> Result<Piece, Error> {
            Ok(Piece::Wait)
        }

        fn message(&mut self, message: StreamEvent<'_>) -> Result<Piece, Error> {
            match message {
                StreamEvent::Text("bye") => Ok(Piece::End),
                StreamEvent::Text(text) => Ok(Piece::Text(text.to_owned())),
                _ => Err(Error::failed("text only")),
            }
        }

        fn closed(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(streams: &Streams, id: u64, event: StreamEvent<'_>) -> Result<Piece, Error> {
        // Through the form on the wire, as a host does it.
        let (target, payload) = StreamRequest { id, event }.encode();
        let request = StreamRequest::decode(target, &payload)?;
        Piece::decode(&streams.serve(request)?.encode())
    }

    #[test]
    fn a_stream_is_pulled_to_its_end_and_then_gone() {
        let streams = Streams::default();
        let id = streams.open([b"one".to_vec(), b"two".to_vec()].into_iter().map(Ok));
        for expected in [Piece::Bytes(b"one".into()), Piece::Bytes(b"two".into()), Piece::End] {
            assert_eq!(ask(&streams, id, StreamEvent::Next).unwrap(), expected);
        }
        assert!(streams.is_empty());
        assert!(matches!(ask(&streams, id, StreamEvent::Next), Err(Error::NotFound(_))));
    }

    #[test]
    fn messages_are_answered_and_a_close_is_told() {
        let (streams, closed) = (Streams::default(), Arc::new(AtomicU64::new(0)));
        let [one, two, three] = [0; 3].map(|_| streams.open(Echo(closed.clone())));
        let hello = StreamEvent::Text("hello");
        assert_eq!(ask(&streams, one, hello).unwrap(), Piece::Text("hello".into()));
        assert_eq!(ask(&streams, one, StreamEvent::Next).unwrap(), Piece::Wait);
        assert_eq!(ask(&streams, one, StreamEvent::Closed).unwrap(), Piece::End);
        assert_eq!(ask(&streams, two, StreamEvent::Text("bye")).unwrap(), Piece::End);
        assert!(ask(&streams, three, StreamEvent::Binary(b"x")).is_err());
        assert_eq!((streams.len(), closed.load(Ordering::Relaxed)), (0, 1));
        let numbers = streams.open(std::iter::empty());
        assert!(ask(&streams, numbers, StreamEvent::Text("x")).is_err(), "no messages wanted");
    }

    #[test]
    fn malformed_calls_are_refused() {
        assert!(StreamRequest::decode("next", &[0; 7]).is_err());
        assert!(StreamRequest::decode("next", &[0; 9]).is_err());
        assert!(StreamRequest::decode("closed", &[0; 9]).is_err());
        assert!(StreamRequest::decode("text", &[0, 0, 0, 0, 0, 0, 0, 0, 0xff]).is_err());
        let other = StreamRequest::decode("other", &[0; 8]);
        assert!(matches!(other, Err(Error::Unsupported(_))));
        for wrong in [&[][..], &[4], &[2, 0], &[3, 0], &[1, 0xff]] {
            assert!(Piece::decode(wrong).is_err(), "{wrong:?}");
        }
        assert!(decode_read(&[0; 11]).is_err() && decode_read(&[0; 13]).is_err());
        assert_eq!(decode_read(&encode_read(7, 9)).unwrap(), (7, 9));
        assert!(decode_wake(&[0; 7]).is_err());
    }
}
