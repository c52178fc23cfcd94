//! What a plugin has open with clients of the gateway: uploads that it reads, and streams that it
//! wakes. And the operations by which it does so.
//!
//! Numbers mean something only together with the plugin that asks, so that none can reach into
//! another's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modunest_sdk::stream::{decode_read, decode_wake};
use modunest_sdk::{Error, Identity, operation};
use tokio::sync::Notify;

use super::drive::block_on_until;
use super::frame;
use super::operations::Deadline;

/// Bytes of an upload that are held between client and plugin: enough that neither waits for
/// every piece of the other.
pub(crate) const WINDOW_BYTES: usize = 1024 * 1024;

/// Pieces that are held between them, so that tiny ones do not cost more than their bytes.
const WINDOW_PIECES: usize = 256;

/// A plugin's uploads and streams.
#[derive(Default)]
pub(crate) struct Streams {
    uploads: Mutex<BTreeMap<u64, Arc<UploadBody>>>,
    wakers: Mutex<BTreeMap<u64, Arc<Notify>>>,
    last_upload: AtomicU64,
}

/// The body of an upload, on its way from a client's task to a plugin's thread.
#[derive(Default)]
pub(crate) struct UploadBody {
    state: Mutex<UploadState>,
    /// Told when there is something to read.
    filled: Notify,
    /// Told when there is room again.
    room: Notify,
}

#[derive(Default)]
struct UploadState {
    pieces: VecDeque<Bytes>,
    held_bytes: usize,
    end: Option<Result<(), Error>>,
}

/// An upload or stream that is open; closed when dropped.
pub(crate) struct Opened {
    streams: Arc<Streams>,
    is_upload: bool,
    pub(crate) id: u64,
}

impl Streams {
    /// Opens an upload, with a new number.
    pub(crate) fn open_upload(self: &Arc<Self>, body: Arc<UploadBody>) -> Opened {
        let id = self.last_upload.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.uploads).insert(id, body);
        Opened { streams: self.clone(), is_upload: true, id }
    }

    /// Opens a stream under the plugin's own number. `None` if it is open already: two clients
    /// would share its pieces.
    pub(crate) fn open_stream(self: &Arc<Self>, id: u64, waker: Arc<Notify>) -> Option<Opened> {
        let mut wakers = lock(&self.wakers);
        if wakers.contains_key(&id) {
            return None;
        }
        wakers.insert(id, waker);
        Some(Opened { streams: self.clone(), is_upload: false, id })
    }

    /// Wakes every stream: to look at what became of the plugin.
    pub(crate) fn wake_all(&self) {
        for waker in lock(&self.wakers).values() {
            waker.notify_one();
        }
    }

    /// [`operation::UPLOAD_READ`]: waits for the next bytes of an upload.
    pub(super) async fn read(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let (id, max) = decode_read(request)?;
        let body = lock(&self.uploads).get(&id).cloned();
        let body = body.ok_or_else(|| Error::NotFound(format!("there is no upload {id}")))?;
        body.read(max as usize).await
    }

    /// An operation from [`operation::IDENTITY`] on, asked by a thread that serves a call.
    pub(super) fn operate(&self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error> {
        match operation {
            operation::IDENTITY => Identity::encode(frame::current().identity.as_deref()),
            operation::UPLOAD_READ => {
                // A thread without a call has no deadline.
                let deadline = Deadline::at(frame::deadline_ms());
                let late = || Error::DeadlineExceeded("while the client was sending".to_owned());
                let left = deadline.left(Duration::MAX).map_err(|_| late())?;
                let until = Instant::now().checked_add(left);
                block_on_until(until, self.read(request)).unwrap_or_else(|| Err(late()))
            }
            operation::STREAM_WAKE => {
                // A stream that is gone needs no waking.
                if let Some(waker) = lock(&self.wakers).get(&decode_wake(request)?) {
                    waker.notify_one();
                }
                Ok(Vec::new())
            }
            other => Err(Error::Unsupported(format!("this host knows no operation {other}"))),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_upload {
            lock(&self.streams.wakers).remove(&self.id);
        } else if let Some(body) = lock(&self.streams.uploads).remove(&self.id) {
            body.end(Err(Error::NotFound("the request is over".to_owned())));
        }
    }
}

impl UploadBody {
    /// Hands over a piece, once there is room for it.
    pub(crate) async fn push(&self, piece: Bytes) {
        loop {
            let room = self.room.notified();
            {
                let mut state = lock(&self.state);
                if state.end.is_some() {
                    return;
                }
                if state.held_bytes < WINDOW_BYTES && state.pieces.len() < WINDOW_PIECES {
                    state.held_bytes += piece.len();
                    state.pieces.push_back(piece);
                    self.filled.notify_waiters();
                    return;
                }
            }
            room.await;
        }
    }

    /// There is no more, or it broke off. The first word holds.
    pub(crate) fn end(&self, end: Result<(), Error>) {
        lock(&self.state).end.get_or_insert(end);
        self.filled.notify_waiters();
        self.room.notify_one();
    }

    /// The next bytes; none at the end. Waits for them.
    pub(crate) async fn read(&self, max: usize) -> Result<Vec<u8>, Error> {
        if max == 0 {
            return Err(Error::InvalidInput("at least one byte has to be wanted".to_owned()));
        }
        loop {
            // It hears what is told from here on.
            let filled = self.filled.notified();
            if let Some(bytes) = self.take(max)? {
                return Ok(bytes);
            }
            filled.await;
        }
    }

    /// What is there of the next bytes; `None` where there may be some later.
    fn take(&self, max: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut state = lock(&self.state);
        if state.pieces.is_empty() {
            return state.end.clone().map(|end| end.map(|()| Vec::new())).transpose();
        }
        let mut bytes = Vec::with_capacity(max.min(state.held_bytes));
        while bytes.len() < max {
            let Some(mut piece) = state.pieces.pop_front() else { break };
            let taken = piece.split_to(piece.len().min(max - bytes.len()));
            bytes.extend_from_slice(&taken);
            if !piece.is_empty() {
                state.pieces.push_front(piece);
            }
        }
        state.held_bytes -= bytes.len();
        drop(state);
        self.room.notify_one();
        Ok(Some(bytes))
    }
}

/// Nothing is left half-changed by a panic while one of these was held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use modunest_sdk::stream::encode_read;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_upload_flows_within_its_window() {
        const PIECES: usize = 64;
        let (streams, body) = (Arc::new(Streams::default()), Arc::new(UploadBody::default()));
        let opened = streams.open_upload(body.clone());
        let id = opened.id;
        let feeder = tokio::spawn(async move {
            for number in 0..PIECES {
                body.push(vec![number as u8; 100_000].into()).await;
                assert!(lock(&body.state).held_bytes < WINDOW_BYTES + 100_000);
            }
            body.end(Ok(()));
        });
        let reader = tokio::task::spawn_blocking(move || {
            let mut whole = Vec::new();
            loop {
                let read = streams.operate(operation::UPLOAD_READ, &encode_read(id, 70_000));
                match read.unwrap() {
                    bytes if bytes.is_empty() => return whole,
                    bytes => whole.extend_from_slice(&bytes),
                }
            }
        });
        feeder.await.unwrap();
        let whole = reader.await.unwrap();
        let expected: Vec<u8> = (0..PIECES).flat_map(|n| vec![n as u8; 100_000]).collect();
        assert!(whole == expected, "{} bytes", whole.len());
    }

    #[test]
    fn an_upload_that_is_over_or_broke_off_says_so() {
        let (streams, body) = (Arc::new(Streams::default()), Arc::new(UploadBody::default()));
        let opened = streams.open_upload(body.clone());
        let ask = encode_read(opened.id, 9);
        assert!(streams.operate(operation::UPLOAD_READ, &encode_read(opened.id, 0)).is_err());
        let past = frame::Frame { deadline_ms: 1, ..frame::Frame::default() };
        let late = frame::within(past, || streams.operate(operation::UPLOAD_READ, &ask));
        assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
        body.end(Err(Error::InvalidInput("broke off".to_owned())));
        body.end(Ok(()));
        let broken = streams.operate(operation::UPLOAD_READ, &ask);
        assert_eq!(broken, Err(Error::InvalidInput("broke off".to_owned())));
        drop(opened);
        assert!(matches!(streams.operate(operation::UPLOAD_READ, &ask), Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn a_stream_is_woken_under_its_own_number_only() {
        let streams = Arc::new(Streams::default());
        let waker = Arc::new(Notify::new());
        let opened = streams.open_stream(7, waker.clone()).unwrap();
        assert!(streams.open_stream(7, waker.clone()).is_none());
        for id in [8_u64, 7] {
            streams.operate(operation::STREAM_WAKE, &id.to_le_bytes()).unwrap();
        }
        waker.notified().await;
        drop(opened);
        assert!(streams.open_stream(7, waker).is_some());
    }
}
