//! Bodies of requests: small ones in memory, with a bound on all of them together; large ones
//! handed to the plugin piece by piece.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use modunest_sdk::Error;
use modunest_sdk::http::MAX_BODY_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::resize;
use super::refuse;
use crate::host::UploadBody;

/// What one permit of the budget stands for.
const UNIT_BYTES: usize = 16 * 1024;

/// Memory for bodies.
pub(super) struct Budget(Arc<Semaphore>);

/// Memory that is taken; given back when dropped.
#[derive(Default)]
pub(super) struct Taken(Option<OwnedSemaphorePermit>);

/// A request's body.
pub(super) enum Received {
    /// All of it.
    Whole(Vec<u8>, Taken),
    /// The beginning of one that is above [`MAX_BODY_BYTES`], and the rest.
    Large(Vec<Bytes>, Body, Taken),
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Budget(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    /// Changes how much there is. To be called within a runtime.
    pub(super) fn resize(&self, before_bytes: usize, now_bytes: usize) {
        resize(&self.0, before_bytes / UNIT_BYTES, now_bytes / UNIT_BYTES);
    }

    /// Takes so much more that `taken` covers `bytes`; at once or not at all. Whether it does.
    fn cover(&self, taken: &mut Taken, bytes: usize) -> bool {
        let held = taken.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(more) = self.0.clone().try_acquire_many_owned(missing) else { return false };
        match &mut taken.0 {
            Some(permit) => permit.merge(more),
            None => taken.0 = Some(more),
        }
        true
    }
}

/// The length that a client names.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body as far as it fits into one message.
pub(super) async fn receive(
    mut body: Body,
    budget: &Budget,
    idle: Duration,
) -> Result<Received, ProblemResponse> {
    let (mut pieces, mut size, mut taken) = (Vec::new(), 0, Taken::default());
    while let Some(piece) = next(&mut body, idle).await? {
        size += piece.len();
        if !budget.cover(&mut taken, size) {
            let text = "the host holds as many bodies as it may; try again";
            return Err(refuse(Code::Unavailable, text));
        }
        pieces.push(piece);
        if size > MAX_BODY_BYTES {
            return Ok(Received::Large(pieces, body, taken));
        }
    }
    let mut whole = Vec::with_capacity(size);
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    Ok(Received::Whole(whole, taken))
}

/// The body's next bytes; a client that sends nothing for so long is given up.
async fn next(body: &mut Body, idle: Duration) -> Result<Option<Bytes>, ProblemResponse> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
            let text = format!("no byte of the body came for {} ms", idle.as_millis());
            refuse(Code::RequestTimeout, text)
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                // Trailers mean nothing to plugins.
                _ => {}
            },
            Some(Err(error)) => {
                return Err(refuse(Code::InvalidRequest, format!("the body broke off: {error}")));
            }
        }
    }
}

/// Hands a large body to its plugin, as fast as that reads: the beginning, then the rest.
pub(super) async fn feed(
    upload: Arc<UploadBody>,
    beginning: Vec<Bytes>,
    mut rest: Body,
    max_bytes: u64,
    idle: Duration,
) {
    let mut size = 0_u64;
    for piece in beginning {
        size += piece.len() as u64;
        upload.push(piece).await;
    }
    let end = loop {
        if size > max_bytes {
            break Err(Error::InvalidInput(format!("the body has more than {max_bytes} bytes")));
        }
        match next(&mut rest, idle).await {
            Ok(Some(piece)) => {
                size += piece.len() as u64;
                upload.push(piece).await;
            }
            Ok(None) => break Ok(()),
            Err(problem) => break Err(Error::InvalidInput(problem.0.detail)),
        }
    };
    upload.end(end);
}
