//! Closures: core walks the index, this reads the objects and sends them as they come.

use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use js_sys::Uint8Array;
use modunest_core::closure::{
    Closure, ClosureError, ClosureRequest, ClosureStep, Part, REQUEST_MAX_BYTES, RequestError,
    push_frame,
};
use modunest_core::keys::ObjectKey;
use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::futures::JsFuture;
use worker::web_sys::{Request, Response};

use super::call::Call;
use super::env::Edge;
use super::glue::{self, text_of};
use super::objects::{Found, find, without_digest};
use super::origin::OriginError;
use super::{log, respond};
use crate::plan;

/// How long a request's body may take, in milliseconds: it fits a handful of packets.
const BODY_TIMEOUT_MS: u32 = 10_000;
/// Objects that one closure reads at the same time: the platform opens six connections for
/// a request, and lets the others wait.
const PARALLEL: usize = 6;
/// From this size on, what has come is sent, though more is ready.
const PIECE_BYTES: usize = 64 * 1024;

/// Why an answer is not made, or broken off.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error("{key}: {error}")]
    Origin { key: ObjectKey, error: OriginError },
    #[error("{0} is larger than an index file may be")]
    TooLarge(ObjectKey),
    #[error("there is no head")]
    NoHead,
    #[error("the client went away: {0}")]
    Client(String),
}

/// An object's bytes; `None` where there is none.
type ReadBytes = Result<Option<Vec<u8>>, WalkError>;

/// Answers one request.
pub async fn answer(
    edge: Rc<Edge>,
    request: &Request,
    call: &Rc<Call>,
) -> Result<Response, JsValue> {
    let request = match read_request(request).await {
        Ok(request) => request,
        Err(error) => return respond::empty(plan::closure_refused(&error), call),
    };
    let (first, mut walk) = match Walk::begin(edge, request, Rc::clone(call)).await {
        Ok(begun) => begun,
        Err(error) => {
            let error = error.to_string();
            log::warn("no closure could be begun", &call.trace, &[("error", &error)]);
            return respond::empty(plan::closure_unavailable(), call);
        }
    };
    let pipe = glue::pipe();
    let writer = pipe.get(1);
    call.afterwards(async move {
        if let Err(error) = walk.send(first, &writer).await {
            let error = error.to_string();
            // Without its proper end, so that nobody takes it for whole.
            glue::break_off(&writer);
            log::warn("a closure was broken off", &walk.call.trace, &[("error", &error)]);
        }
    });
    respond::stream(&plan::closure_answer(), &pipe.get(0).unchecked_into(), call)
}

async fn read_request(request: &Request) -> Result<ClosureRequest, RequestError> {
    let limit = u32::try_from(REQUEST_MAX_BYTES).unwrap_or(u32::MAX);
    match JsFuture::from(glue::read_body(request, limit, BODY_TIMEOUT_MS)).await {
        Ok(body) if body.is_undefined() => Err(RequestError::TooLarge),
        Ok(body) => ClosureRequest::parse(&body.unchecked_into::<Uint8Array>().to_vec()),
        Err(_late_or_cut_off) => Err(RequestError::Rule {
            place: "body".to_owned(),
            rule: format!("it did not come whole within {} seconds", BODY_TIMEOUT_MS / 1_000),
        }),
    }
}

/// An answer in the making. It reads only while the client takes what it reads.
struct Walk {
    edge: Rc<Edge>,
    call: Rc<Call>,
    closure: Closure,
    /// Needed, and not being read yet.
    waiting: VecDeque<ObjectKey>,
    reads: FuturesUnordered<LocalBoxFuture<'static, (ObjectKey, ReadBytes)>>,
}

impl Walk {
    /// Reads the head and the root, so that a store that does not answer is said with a
    /// status.
    async fn begin(
        edge: Rc<Edge>,
        request: ClosureRequest,
        call: Rc<Call>,
    ) -> Result<(Vec<u8>, Walk), WalkError> {
        let head = without_digest(&edge, &ObjectKey::Head, &call).await;
        let head = head.map_err(|error| WalkError::Origin { key: ObjectKey::Head, error })?;
        let head = head.ok_or(WalkError::NoHead)?.to_vec().await;
        let head = head.map_err(|thrown| unread(ObjectKey::Head, thrown))?;
        let closure = Closure::new(request, &head, edge.settings.closure_limits())?;
        let mut begun = Vec::new();
        push_frame(&mut begun, Part::Object(ObjectKey::Head), &head);
        let reads = FuturesUnordered::new();
        let mut walk = Walk { edge, call, closure, waiting: VecDeque::new(), reads };
        if let Some(root) = walk.piece().await? {
            begun.extend_from_slice(&root);
        }
        Ok((begun, walk))
    }

    async fn send(&mut self, first: Vec<u8>, writer: &JsValue) -> Result<(), WalkError> {
        let gone = |thrown: JsValue| WalkError::Client(text_of(&thrown));
        let mut next = Some(first);
        while let Some(piece) = next {
            let written = glue::write(writer, &Uint8Array::from(piece.as_slice()));
            JsFuture::from(written).await.map_err(gone)?;
            next = self.piece().await?;
        }
        JsFuture::from(glue::close(writer)).await.map_err(gone)?;
        Ok(())
    }

    /// The next frames: at least one, and whatever else is there without waiting; `None`
    /// after the last.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, WalkError> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            if let ClosureStep::Need(keys) = self.closure.step() {
                self.waiting.extend(keys);
            }
            while self.reads.len() < PARALLEL
                && let Some(key) = self.waiting.pop_front()
            {
                let (edge, call) = (Rc::clone(&self.edge), Rc::clone(&self.call));
                self.reads.push(Box::pin(async move { (key, read(&edge, key, &call).await) }));
            }
            let next = if piece.is_empty() {
                self.reads.next().await
            } else {
                match futures_util::FutureExt::now_or_never(self.reads.next()) {
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
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

/// An object's bytes, proved if its name is its hash.
async fn read(edge: &Rc<Edge>, key: ObjectKey, call: &Call) -> ReadBytes {
    if let ObjectKey::Tile(_) = key {
        let tile = without_digest(edge, &key, call).await;
        return match tile.map_err(|error| WalkError::Origin { key, error })? {
            Some(tile) => tile.to_vec().await.map(Some).map_err(|thrown| unread(key, thrown)),
            None => Ok(None),
        };
    }
    match find(edge, key, call).await.map_err(|error| WalkError::Origin { key, error })? {
        Found::Small(small) => small.to_vec().await.map(Some).map_err(|thrown| unread(key, thrown)),
        Found::Large { begun, .. } => {
            glue::drop(&begun);
            Err(WalkError::TooLarge(key))
        }
        Found::Missing => Ok(None),
    }
}

/// What the runtime does not let be read.
fn unread(key: ObjectKey, thrown: JsValue) -> WalkError {
    WalkError::Origin { key, error: thrown.into() }
}
