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

use super::compress::gzip;
use super::current::Seen;
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
        /// The bytes themselves.
        begun: ByteStream,
    },
    /// Nothing.
    Missing,
}

/// An object in one of its forms.
type Slot = (ObjectKey, Form);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    Gzip,
}

/// The objects of the bucket. Only bytes that were proved are remembered of them: never that
/// there is nothing, and not how long something is, since a store may be wrong in that.
pub(super) struct Objects {
    origin: Arc<Origin>,
    cache: Cache<Slot, Bytes, Weight>,
    fills: Semaphore,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Slot, Bytes> for Weight {
    fn weight(&self, _slot: &Slot, bytes: &Bytes) -> u64 {
        ENTRY_OVERHEAD_BYTES + bytes.len() as u64
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
        if let Some(bytes) = self.cache.get(&(key, Form::Plain)) {
            return Ok(Found::Small(bytes));
        }
        timeout(ORIGIN_DEADLINE, Box::pin(self.fill(key)))
            .await
            .unwrap_or(Err(OriginError::Deadline))
    }

    async fn fill(&self, key: ObjectKey) -> Result<Found, OriginError> {
        let guard = match self.cache.get_value_or_guard_async(&(key, Form::Plain)).await {
            Ok(bytes) => return Ok(Found::Small(bytes)),
            Err(guard) => guard,
        };
        let found = self.fetch(key).await?;
        if let Found::Small(bytes) = &found {
            // Fails only when the entry was removed meanwhile; then it is not kept.
            drop(guard.insert(bytes.clone()));
        }
        Ok(found)
    }

    /// The gzip form of a small object, made by the first that asks.
    pub(super) async fn gzip(&self, key: ObjectKey, plain: Bytes) -> Result<Bytes, OriginError> {
        let slot = (key, Form::Gzip);
        if let Some(compressed) = self.cache.get(&slot) {
            return Ok(compressed);
        }
        match Box::pin(self.cache.get_value_or_guard_async(&slot)).await {
            Ok(compressed) => Ok(compressed),
            Err(guard) => {
                let made = tokio::task::spawn_blocking(move || gzip(&plain)).await;
                let made = made.map_err(|error| OriginError::Failed(error.to_string()))?;
                let made = made.map_err(|error| OriginError::Failed(error.to_string()))?;
                // Fails only when the entry was removed meanwhile; then it is not kept.
                drop(guard.insert(made.clone()));
                Ok(made)
            }
        }
    }

    /// An object that never changes and whose name does not say what it contains. It is not
    /// kept: who reads it proves it, and a wrong one must not stay.
    pub(super) async fn unproved(&self, key: ObjectKey) -> Result<Option<Seen>, OriginError> {
        let read = async {
            // Nobody closes the semaphore.
            let _permit = self.fills.acquire().await.map_err(|_closed| OriginError::Deadline)?;
            let Some(Opened { size_bytes, stream }) = self.origin.open(key).await? else {
                return Ok(None);
            };
            Seen::read(&key, size_bytes, stream).await.map(Some)
        };
        timeout(ORIGIN_DEADLINE, Box::pin(read)).await.unwrap_or(Err(OriginError::Deadline))
    }

    async fn fetch(&self, key: ObjectKey) -> Result<Found, OriginError> {
        // Nobody closes the semaphore.
        let _permit = self.fills.acquire().await.map_err(|_closed| OriginError::Deadline)?;
        let Some(Opened { size_bytes, stream }) = self.origin.open(key).await? else {
            return Ok(Found::Missing);
        };
        if size_bytes > SMALL_MAX_BYTES {
            return Ok(Found::Large { size_bytes, begun: stream });
        }
        let bytes = collect(stream, size_bytes).await?;
        match key.content_digest() {
            Some(expected) => prove(expected, &bytes)?,
            None => return Err(OriginError::Incomplete("its digest")),
        }
        Ok(Found::Small(bytes))
    }

    /// A part of a large object, as it comes; `None` when the object has gone.
    pub(super) async fn open_range(
        &self,
        key: ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<SdkBody>, OriginError> {
        timeout(ORIGIN_DEADLINE, Box::pin(self.origin.open_range(key, range)))
            .await
            .unwrap_or(Err(OriginError::Deadline))
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
