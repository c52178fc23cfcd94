//! The objects that change, and so are asked for every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use modunest_core::keys::ObjectKey;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::compress::gzip;
use super::objects::collect;
use super::origin::{ORIGIN_DEADLINE, Opened, Origin, OriginError, Revalidated};
use crate::plan::{self, EntityTag, Facts};

/// An object as it stands in the bucket.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) bytes: Bytes,
    pub(super) tag: EntityTag,
    /// The gzip form, which is asked for only of what is long enough.
    pub(super) gzip: Bytes,
}

impl Seen {
    /// Reads an object whose name does not say what it contains.
    pub(super) async fn read(
        key: &ObjectKey,
        size_bytes: u64,
        stream: ByteStream,
    ) -> Result<Seen, OriginError> {
        let expected_bytes = plan::unproved_max_bytes(key);
        if size_bytes > expected_bytes {
            return Err(OriginError::Length { expected_bytes, found_bytes: size_bytes });
        }
        let bytes = collect(stream, size_bytes).await?;
        let tag = EntityTag::of(&bytes);
        let gzip = match Facts::object(key, size_bytes, tag).is_compressible() {
            true => gzip(&bytes).map_err(|error| OriginError::Failed(error.to_string()))?,
            false => Bytes::new(),
        };
        Ok(Seen { bytes, tag, gzip })
    }
}

/// Asks the bucket for an object that changes, once for all that wait.
///
/// A request takes an answer only from a question that was put after the request came:
/// whoever was told that a release is published then sees it, from every reader.
pub(super) struct Current {
    key: ObjectKey,
    origin: Arc<Origin>,
    /// How many questions were begun.
    begun: AtomicU64,
    /// Held while a question is open, so that questions follow one another.
    latest: Mutex<Latest>,
}

struct Latest {
    /// Number of the question that was answered last.
    question: u64,
    answer: Result<Option<Seen>, OriginError>,
    /// What was seen last, with the bucket's own tag for it.
    known: Option<(Seen, String)>,
}

impl Current {
    pub(super) fn new(key: ObjectKey, origin: Arc<Origin>) -> Self {
        let latest = Latest { question: 0, answer: Ok(None), known: None };
        Current { key, origin, begun: AtomicU64::new(0), latest: Mutex::new(latest) }
    }

    /// The object as it is now; `None` before there is one.
    pub(super) async fn now(&self) -> Result<Option<Seen>, OriginError> {
        timeout(ORIGIN_DEADLINE, Box::pin(self.ask())).await.unwrap_or(Err(OriginError::Deadline))
    }

    async fn ask(&self) -> Result<Option<Seen>, OriginError> {
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
        known: &mut Option<(Seen, String)>,
    ) -> Result<Option<Seen>, OriginError> {
        let known_tag = known.as_ref().map(|(_, tag)| tag.as_str());
        match self.origin.if_changed(self.key, known_tag).await? {
            Revalidated::Unchanged => match known {
                Some((seen, _)) => Ok(Some(seen.clone())),
                None => Err(OriginError::Incomplete("what has not changed")),
            },
            Revalidated::Missing => {
                *known = None;
                Ok(None)
            }
            Revalidated::New { opened: Opened { size_bytes, stream }, origin_tag } => {
                let seen = Seen::read(&self.key, size_bytes, stream).await?;
                *known = Some((seen.clone(), origin_tag));
                Ok(Some(seen))
            }
        }
    }
}
