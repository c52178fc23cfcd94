//! Bodies of requests: small ones in memory, large ones handed to the plugin piece by piece.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use modunest_sdk::Error;
use modunest_sdk::http::MAX_BODY_BYTES;
use modunest_sdk::stream::PIECE_BYTES;
use tokio::time::Instant;

use super::budget::{Budget, FREE_BYTES, Taken, full};
use super::pace::{Pace, Progress};
use super::{refuse, too_large};
use crate::host::{UploadBody, WINDOW_BYTES};

/// What an upload holds on its way: what the plugin has not read yet, and the next piece.
const UPLOAD_BYTES: usize = WINDOW_BYTES + FREE_BYTES;

/// A request's body.
pub(super) enum Received {
    /// All of it.
    Whole(Vec<u8>, Taken),
    /// One that is above [`MAX_BODY_BYTES`].
    Large(Large),
}

/// The beginning of a large body, and the rest.
pub(super) struct Large {
    beginning: Vec<Bytes>,
    rest: Arriving,
    taken: Taken,
}

/// A body on its way.
struct Arriving {
    body: Body,
    progress: Progress,
}

/// The length that a client names.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body as far as it fits into one message. One whose `named` length says that it does
/// not is left to [`feed`] from its first bytes on.
pub(super) async fn receive(
    body: Body,
    named: Option<u64>,
    takes_uploads: bool,
    budget: &Budget,
    pace: Pace,
) -> Result<Received, ProblemResponse> {
    let is_named_large = named.is_some_and(|length| length > MAX_BODY_BYTES as u64);
    let whole_max = if is_named_large { 0 } else { MAX_BODY_BYTES };
    let mut rest = Arriving { body, progress: Progress::new(pace) };
    let (mut whole, mut taken) = (Vec::new(), Taken::default());
    while let Some(piece) = rest.next().await? {
        let size = whole.len() + piece.len();
        let is_large = size > whole_max;
        if is_large && !takes_uploads {
            return Err(too_large(MAX_BODY_BYTES as u64));
        }
        let held = if is_large { size.max(UPLOAD_BYTES) } else { size };
        if !budget.cover(&mut taken, held) {
            return Err(full());
        }
        // Pieces are copied at once: a client that sends single bytes would have each of them
        // cost as much as many.
        whole.extend_from_slice(&piece);
        if is_large {
            let beginning = whole.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
            return Ok(Received::Large(Large { beginning, rest, taken }));
        }
    }
    Ok(Received::Whole(whole, taken))
}

impl Arriving {
    /// The body's next bytes; a client that is too slow is given up.
    async fn next(&mut self) -> Result<Option<Bytes>, ProblemResponse> {
        loop {
            let since = Instant::now();
            let frame = tokio::time::timeout(self.progress.left(), self.body.frame()).await;
            let Ok(frame) = frame else {
                let Pace { idle, least_bytes } = self.progress.pace();
                let idle_ms = idle.as_millis();
                let text =
                    format!("fewer than {least_bytes} bytes of the body came in {idle_ms} ms");
                return Err(refuse(Code::RequestTimeout, text));
            };
            let data = match frame {
                None => return Ok(None),
                // Trailers mean nothing to plugins.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    return Err(refuse(
                        Code::InvalidRequest,
                        format!("the body broke off: {error}"),
                    ));
                }
            };
            self.progress.note(since.elapsed(), data.len());
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// Hands a large body to its plugin, as fast as that reads: the beginning, then the rest. Its
/// memory is given back as it goes, and all of it once the body has come.
pub(super) async fn feed(upload: Arc<UploadBody>, large: Large, max_bytes: u64) {
    let Large { beginning, mut rest, mut taken } = large;
    let mut left: usize = beginning.iter().map(Bytes::len).sum();
    let mut size = left as u64;
    for piece in beginning {
        left -= piece.len();
        upload.push(piece).await;
        taken.shrink(left + UPLOAD_BYTES);
    }
    let end = loop {
        if size > max_bytes {
            break Err(Error::InvalidInput(format!("the body has more than {max_bytes} bytes")));
        }
        match rest.next().await {
            Ok(Some(piece)) => {
                size += piece.len() as u64;
                upload.push(piece).await;
            }
            Ok(None) => break Ok(()),
            Err(problem) => break Err(Error::InvalidInput(problem.0.detail)),
        }
    };
    drop(taken);
    upload.end(end);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    const PACE: Pace = Pace { idle: Duration::from_secs(60), least_bytes: 1 };

    /// How much of a budget is free.
    fn free_bytes(budget: &Budget) -> usize {
        let mut taken = Taken::default();
        let mut bytes = FREE_BYTES;
        while budget.cover(&mut taken, bytes + UPLOAD_BYTES) {
            bytes += UPLOAD_BYTES;
        }
        bytes - FREE_BYTES
    }

    async fn receive_all(body: Body, named: Option<u64>, budget: &Budget) -> Received {
        receive(body, named, true, budget, PACE).await.unwrap_or_else(|_| panic!("refused"))
    }

    #[tokio::test]
    async fn an_upload_holds_its_window_and_gives_it_back_at_its_end() {
        let budget = Budget::new(64 * UPLOAD_BYTES);
        let all = free_bytes(&budget);
        let piece = || Ok::<_, std::io::Error>(vec![1_u8; PIECE_BYTES]);
        for named in [Some(128 * PIECE_BYTES as u64), None] {
            let (go_on, mut going) = tokio::sync::mpsc::unbounded_channel::<bool>();
            let pieces = futures_util::stream::poll_fn(move |context| {
                going.poll_recv(context).map(|go| go.map(|_| piece()))
            });
            for _ in 0..65 {
                go_on.send(true).unwrap();
            }
            let Received::Large(large) =
                receive_all(Body::from_stream(pieces), named, &budget).await
            else {
                panic!("it is large");
            };
            let held = all - free_bytes(&budget);
            assert_eq!(held > 8 * UPLOAD_BYTES, named.is_none(), "{held} bytes for {named:?}");
            let upload = Arc::new(UploadBody::default());
            let feeding = tokio::spawn(feed(upload.clone(), large, u64::MAX));
            let mut read = 0;
            while read < 65 * PIECE_BYTES {
                read += upload.read(PIECE_BYTES).await.unwrap().len();
            }
            // It waits for the rest of the body, and everything that came has been read.
            let held = all - free_bytes(&budget);
            assert!(held > 0 && held <= 2 * UPLOAD_BYTES, "{held} bytes for {named:?}");
            // The plugin reads no more, and still nothing is held behind the body's end.
            go_on.send(true).unwrap();
            drop(go_on);
            feeding.await.unwrap();
            assert_eq!(free_bytes(&budget), all);
            assert_eq!(upload.read(usize::MAX).await.unwrap().len(), PIECE_BYTES);
        }
    }

    #[tokio::test]
    async fn a_trickle_is_given_up() {
        let pace = Pace { idle: Duration::from_millis(300), least_bytes: 1000 };
        let budget = Budget::new(UPLOAD_BYTES);
        // A byte every 20 ms, for 20 s.
        let bytes = futures_util::stream::unfold(0, |count| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            (count < 1000).then(|| (Ok::<_, std::io::Error>(vec![0_u8]), count + 1))
        });
        let received = receive(Body::from_stream(bytes), None, true, &budget, pace).await;
        let problem = received.err().unwrap();
        assert_eq!(problem.0.detail, "fewer than 1000 bytes of the body came in 300 ms");
    }
}
