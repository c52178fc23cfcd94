//! Closures: core walks the index, this reads the objects and sends them as they come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use modunest_core::closure::{
    Closure, ClosureError, ClosureRequest, ClosureStep, Limits, Part, REQUEST_MAX_BYTES,
    RequestError, push_frame,
};
use modunest_core::index::{INDEX_FILE_MAX_BYTES, IndexError, prove};
use modunest_core::keys::ObjectKey;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::dispatch::Edge;
use super::objects::{Found, collect};
use super::origin::{ORIGIN_DEADLINE, OriginError};
use super::respond;
use crate::plan;

/// Closures in the making at the same time. Each holds some megabytes at the most usual, and
/// as much as [`Limits::NATIVE`] at the very most; whoever is refused reads single objects.
pub(super) const CLOSURES_MAX: usize = 64;
/// How long a request's body may take: it fits a handful of packets.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Objects that one closure reads at the same time: half of what all requests may.
const PARALLEL: usize = 16;
/// From this size on, what has come is sent, though more is ready.
const PIECE_BYTES: usize = 64 * 1024;

/// Why an answer is not made, or broken off.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error("{key}: {error}")]
    Origin { key: ObjectKey, error: OriginError },
    #[error(transparent)]
    Damaged(#[from] IndexError),
    #[error("there is no head")]
    NoHead,
    #[error("{CLOSURES_MAX} closures are in the making")]
    Busy,
}

/// An object's bytes; `None` where there is none.
type ReadBytes = Result<Option<Bytes>, WalkError>;

/// Answers one request.
pub(super) async fn answer(edge: Arc<Edge>, request: Request) -> Response {
    let request = match read_request(request).await {
        Ok(request) => request,
        Err(error) => return respond::empty(plan::closure_refused(&error)),
    };
    match begin(edge, request).await {
        Ok((first, walk)) => {
            let first = futures_util::stream::once(async { Ok(first) });
            let rest = futures_util::stream::try_unfold(walk, |mut walk| async {
                Ok(walk.piece().await?.map(|piece| (piece, walk)))
            });
            // An error ends the connection without the mark of the last chunk, so that the
            // client sees an answer that broke off.
            let pieces = first.chain(rest).inspect_err(|error: &WalkError| {
                tracing::warn!(%error, "a closure was broken off");
            });
            respond::body(plan::closure_answer(), Body::from_stream(pieces))
        }
        Err(error) => {
            tracing::warn!(%error, "no closure could be begun");
            respond::empty(plan::closure_unavailable())
        }
    }
}

async fn read_request(request: Request) -> Result<ClosureRequest, RequestError> {
    let body = Limited::new(request.into_body(), REQUEST_MAX_BYTES).collect();
    let body = match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(RequestError::TooLarge),
        Ok(Err(_)) | Err(_) => {
            return Err(RequestError::Rule {
                place: "body".to_owned(),
                rule: format!("it did not come whole within {} seconds", BODY_TIMEOUT.as_secs()),
            });
        }
    };
    ClosureRequest::parse(&body)
}

/// Reads the head and the root, so that a store that does not answer is said with a status.
async fn begin(edge: Arc<Edge>, request: ClosureRequest) -> Result<(Bytes, Walk), WalkError> {
    let permit = Arc::clone(&edge.closures).try_acquire_owned().map_err(|_| WalkError::Busy)?;
    let head = edge.head().await;
    let head = head.map_err(|error| WalkError::Origin { key: ObjectKey::Head, error })?;
    let head = head.ok_or(WalkError::NoHead)?.bytes;
    let closure = Closure::new(request, &head, Limits::NATIVE)?;
    let mut begun = Vec::new();
    push_frame(&mut begun, Part::Object(ObjectKey::Head), &head);
    let mut walk = Walk {
        edge,
        closure,
        waiting: VecDeque::new(),
        reads: FuturesUnordered::new(),
        _permit: permit,
    };
    if let Some(root) = walk.piece().await? {
        begun.extend_from_slice(&root);
    }
    Ok((begun.into(), walk))
}

/// An answer in the making. It reads only while the client takes what it reads.
struct Walk {
    edge: Arc<Edge>,
    closure: Closure,
    /// Needed, and not being read yet.
    waiting: VecDeque<ObjectKey>,
    reads: FuturesUnordered<BoxFuture<'static, (ObjectKey, ReadBytes)>>,
    _permit: OwnedSemaphorePermit,
}

impl Walk {
    /// The next frames: at least one, and whatever else is there without waiting; `None`
    /// after the last.
    async fn piece(&mut self) -> Result<Option<Bytes>, WalkError> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            if let ClosureStep::Need(keys) = self.closure.step() {
                self.waiting.extend(keys);
            }
            while self.reads.len() < PARALLEL
                && let Some(key) = self.waiting.pop_front()
            {
                let edge = Arc::clone(&self.edge);
                self.reads.push(async move { (key, read(&edge, key).await) }.boxed());
            }
            let next = if piece.is_empty() {
                self.reads.next().await
            } else {
                match self.reads.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                }
            };
            // Nothing is being read, so nothing is needed: only the proof is left.
            let Some((key, bytes)) = next else {
                if let Some((part, hashes)) = self.closure.proof() {
                    push_frame(&mut piece, part, &hashes);
                }
                break;
            };
            let Some(bytes) = bytes? else {
                self.closure.missing(key)?;
                continue;
            };
            if let Some((part, sent)) = self.closure.provide(key, &bytes)? {
                push_frame(&mut piece, part, &sent);
            }
        }
        Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
    }
}

/// An object's bytes, proven if its name is its hash.
async fn read(edge: &Edge, key: ObjectKey) -> ReadBytes {
    let failed = |error| WalkError::Origin { key, error };
    if let ObjectKey::Tile(_) = key {
        let tile = edge.objects.unproved(key).await.map_err(failed)?;
        return Ok(tile.map(|tile| tile.bytes));
    }
    let (size_bytes, begun) = match edge.objects.find(key).await.map_err(failed)? {
        Found::Small(bytes) => return Ok(Some(bytes)),
        Found::Large { size_bytes, begun } => (size_bytes, begun),
        Found::Missing => return Ok(None),
    };
    if size_bytes > INDEX_FILE_MAX_BYTES as u64 {
        let expected_bytes = INDEX_FILE_MAX_BYTES as u64;
        return Err(failed(OriginError::Length { expected_bytes, found_bytes: size_bytes }));
    }
    let bytes = timeout(ORIGIN_DEADLINE, collect(begun, size_bytes))
        .await
        .unwrap_or(Err(OriginError::Deadline))
        .map_err(failed)?;
    if let Some(digest) = key.content_digest() {
        prove("index file", digest, &bytes)?;
    }
    Ok(Some(bytes))
}
