//! Objects named by their content: proved once, and kept in memory while small.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::{Bytes, BytesMut};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::origin::{ORIGIN_DEADLINE, Opened, Origin, OriginError};

/// Largest object that is kept in memory, in bytes. Index files end at 1 MiB and three of
/// four archives are smaller; of larger ones a few would fill the cache.
const SMALL_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// What a cached object takes besides its bytes: key, list links, and allocation.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// A typical entry, in bytes: sizes the cache's tables, and limits nothing.
const ENTRY_TYPICAL_BYTES: u64 = 4 * 1024;
/// Objects read into memory at the same time: 32 of 2 MiB are 64 MiB at the very most.
const FILLS_MAX: usize = 32;

/// What is under a key.
pub(super) enum Found {
    /// These bytes, which hash to the key's digest.
    Small(Bytes),
    /// Bytes to be streamed.
    Large {
        /// How many.
        size_bytes: u64,
        /// The bytes themselves, for the request that found out how many there are.
        begun: Option<ByteStream>,
    },
    /// Nothing.
    Missing,
}

/// What is remembered of a key. Never that there is nothing.
#[derive(Clone)]
enum Known {
    Small(Bytes),
    Large(u64),
}

impl From<Known> for Found {
    fn from(known: Known) -> Found {
        match known {
            Known::Small(bytes) => Found::Small(bytes),
            Known::Large(size_bytes) => Found::Large { size_bytes, begun: None },
        }
    }
}

/// The objects of the bucket.
pub(super) struct Objects {
    origin: Arc<Origin>,
    cache: Cache<ObjectKey, Known, Weight>,
    fills: Semaphore,
}

#[derive(Clone)]
struct Weight;

impl Weighter<ObjectKey, Known> for Weight {
    fn weight(&self, _key: &ObjectKey, known: &Known) -> u64 {
        match known {
            Known::Small(bytes) => ENTRY_OVERHEAD_BYTES + bytes.len() as u64,
            Known::Large(_) => ENTRY_OVERHEAD_BYTES,
        }
    }
}

impl Objects {
    pub(super) fn new(origin: Arc<Origin>, capacity_bytes: u64) -> Self {
        let entries = usize::try_from(capacity_bytes / ENTRY_TYPICAL_BYTES).unwrap_or(usize::MAX);
        Objects {
            origin,
            cache: Cache::with_weighter(entries.max(1), capacity_bytes, Weight),
            fills: Semaphore::new(FILLS_MAX),
        }
    }

    /// What is under `key`. Requests that miss together make one read; when it fails or
    /// finds nothing, the next of them asks anew, since the object may have come meanwhile.
    pub(super) async fn find(&self, key: ObjectKey) -> Result<Found, OriginError> {
        if let Some(known) = self.cache.get(&key) {
            return Ok(known.into());
        }
        timeout(ORIGIN_DEADLINE, Box::pin(self.fill(key)))
            .await
            .unwrap_or(Err(OriginError::Deadline))
    }

    async fn fill(&self, key: ObjectKey) -> Result<Found, OriginError> {
        let guard = match self.cache.get_value_or_guard_async(&key).await {
            Ok(known) => return Ok(known.into()),
            Err(guard) => guard,
        };
        let found = self.fetch(key).await?;
        let known = match &found {
            Found::Small(bytes) => Known::Small(bytes.clone()),
            Found::Large { size_bytes, .. } => Known::Large(*size_bytes),
            Found::Missing => return Ok(found),
        };
        // Fails only when the entry was removed meanwhile; then it is not kept.
        drop(guard.insert(known));
        Ok(found)
    }

    async fn fetch(&self, key: ObjectKey) -> Result<Found, OriginError> {
        // Nobody closes the semaphore.
        let _permit = self.fills.acquire().await.map_err(|_closed| OriginError::Deadline)?;
        let Some(Opened { size_bytes, stream }) = self.origin.open(key).await? else {
            return Ok(Found::Missing);
        };
        if size_bytes > SMALL_MAX_BYTES {
            return Ok(Found::Large { size_bytes, begun: Some(stream) });
        }
        let bytes = collect(stream, size_bytes).await?;
        match key.content_digest() {
            Some(expected) => prove(expected, &bytes)?,
            None => return Err(OriginError::Incomplete("its digest")),
        }
        Ok(Found::Small(bytes))
    }

    /// The bytes of a large object, all or a range, as they come; `None` when it has gone.
    pub(super) async fn open_large(
        &self,
        key: ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<SdkBody>, OriginError> {
        let open = async {
            match range {
                Some(range) => self.origin.open_range(key, range).await,
                None => Ok(self.origin.open(key).await?.map(|opened| opened.stream.into_inner())),
            }
        };
        let body =
            timeout(ORIGIN_DEADLINE, Box::pin(open)).await.unwrap_or(Err(OriginError::Deadline))?;
        if body.is_none() {
            self.cache.remove(&key);
        }
        Ok(body)
    }
}

/// Reads exactly `size_bytes` into memory.
pub(super) async fn collect(mut stream: ByteStream, size_bytes: u64) -> Result<Bytes, OriginError> {
    let length = |found_bytes| OriginError::Length { expected_bytes: size_bytes, found_bytes };
    let mut bytes = BytesMut::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| OriginError::Failed(error.to_string()))?;
        let total_bytes = (bytes.len() + piece.len()) as u64;
        if total_bytes > size_bytes {
            return Err(length(total_bytes));
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() as u64 != size_bytes {
        return Err(length(bytes.len() as u64));
    }
    Ok(bytes.freeze())
}

fn prove(expected: Digest, bytes: &[u8]) -> Result<(), OriginError> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(OriginError::Digest { found }) }
}
