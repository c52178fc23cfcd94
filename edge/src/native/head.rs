//! The head: the one object that changes, and so the one that is asked for every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::compress::gzip;
use super::objects::collect;
use super::origin::{ORIGIN_DEADLINE, Opened, Origin, OriginError, Revalidated};
use crate::plan::EntityTag;

/// Longest head that is handed out, in bytes: agents read no more than 8 KiB.
const HEAD_MAX_BYTES: u64 = 16 * 1024;

/// The head as it stands in the bucket.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) bytes: Bytes,
    pub(super) tag: EntityTag,
    /// The gzip form, which is asked for only of a head that is long enough.
    pub(super) gzip: Bytes,
}

/// Asks the bucket for the head, once for all that wait.
///
/// A request takes an answer only from a question that was put after the request came:
/// whoever was told that a release is published then sees it, from every reader.
pub(super) struct CurrentHead {
    origin: Arc<Origin>,
    /// How many questions were begun.
    begun: AtomicU64,
    /// Held while a question is open, so that questions follow one another.
    latest: Mutex<Latest>,
}

struct Latest {
    /// Number of the question that was answered last.
    question: u64,
    answer: Result<Option<Head>, OriginError>,
    /// The last head seen, with the bucket's own tag for it.
    known: Option<(Head, String)>,
}

impl CurrentHead {
    pub(super) fn new(origin: Arc<Origin>) -> Self {
        let latest = Latest { question: 0, answer: Ok(None), known: None };
        CurrentHead { origin, begun: AtomicU64::new(0), latest: Mutex::new(latest) }
    }

    /// The head as it is now; `None` before the first publish.
    pub(super) async fn now(&self) -> Result<Option<Head>, OriginError> {
        timeout(ORIGIN_DEADLINE, Box::pin(self.ask())).await.unwrap_or(Err(OriginError::Deadline))
    }

    async fn ask(&self) -> Result<Option<Head>, OriginError> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut latest = self.latest.lock().await;
        if latest.question > begun_before {
            return latest.answer.clone();
        }
        let question = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = self.revalidate(&mut latest.known).await;
        latest.question = question;
        latest.answer = answer.clone();
        answer
    }

    async fn revalidate(
        &self,
        known: &mut Option<(Head, String)>,
    ) -> Result<Option<Head>, OriginError> {
        let known_tag = known.as_ref().map(|(_, tag)| tag.as_str());
        match self.origin.head(known_tag).await? {
            Revalidated::Unchanged => match known {
                Some((head, _)) => Ok(Some(head.clone())),
                None => Err(OriginError::Incomplete("what has not changed")),
            },
            Revalidated::Missing => {
                *known = None;
                Ok(None)
            }
            Revalidated::New { opened: Opened { size_bytes, stream }, origin_tag } => {
                if size_bytes > HEAD_MAX_BYTES {
                    let (expected_bytes, found_bytes) = (HEAD_MAX_BYTES, size_bytes);
                    return Err(OriginError::Length { expected_bytes, found_bytes });
                }
                let bytes = collect(stream, size_bytes).await?;
                let gzip = gzip(&bytes).map_err(|error| OriginError::Failed(error.to_string()))?;
                let head = Head { tag: EntityTag::of(&bytes), bytes, gzip };
                *known = Some((head.clone(), origin_tag));
                Ok(Some(head))
            }
        }
    }
}
