//! Files of the read side, bounded and tried again where that can help.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use modunest_core::index::{
    BIN_MAX_BYTES, HEAD_MAX_BYTES, INDEX_FILE_MAX_BYTES, IndexError, NODE_BYTES, prove,
};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::STATEMENT_MAX_BYTES;
use modunest_runtime::http::{self, BodyError};
use modunest_tlog::{
    BundleError, CHECKPOINT_MAX_BYTES, HASH_BYTES, Plan, TILE_MAX_BYTES, TILE_WIDTH, TileError,
    TileId, TileKind, Tiles, TreeHash, parse_entries,
};
use reqwest::{Client, StatusCode};
use url::Url;

/// Files fetched at the same time: small ones, so that latency is what counts.
const PARALLEL: usize = 16;
/// Pauses between tries while nobody answers.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How long a file may take in all: a bundle of 2 MB at 1 Mbit/s takes 16 s.
const FILE_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest bundle, in bytes: its entries are statements, each with two bytes of length.
const BUNDLE_MAX_BYTES: usize = TILE_WIDTH as usize * (2 + STATEMENT_MAX_BYTES);

/// Why a file was not read. That nobody answers is not that something is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer, or one that says to come again.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// It is not there, or cannot be had.
    #[error("{url}: status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// It is longer than such a file can be.
    #[error("{url}: longer than the {limit_bytes} bytes that such a file can have")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The bound.
        limit_bytes: usize,
    },
    /// It is not what its name says.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A tile of hashes has the wrong form.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A bundle of entries has the wrong form.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl From<ReadError> for crate::error::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unreachable { url, reason } => {
                crate::error::Error::Unreachable { what: url, why: reason }
            }
            other => crate::error::Error::Unproven(other.to_string()),
        }
    }
}

/// The files of one registry.
pub struct Files {
    base: Url,
    client: Client,
}

impl Files {
    /// The files at an address.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: Url) -> Result<Self, crate::error::Error> {
        let client =
            http::client().map_err(|error| crate::error::Error::Failed(http::reason(&error)))?;
        Ok(Files { base, client })
    }

    /// A file that must be there. One that is named by its content is proven to be it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get(&self, key: ObjectKey) -> Result<Vec<u8>, ReadError> {
        self.get_within(key, limit_bytes(&key)).await
    }

    /// As [`Files::get`], with a bound of the caller's.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get_within(
        &self,
        key: ObjectKey,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let url = format!("{}{}", self.base.as_str().trim_end_matches('/'), key.path());
        let mut pauses = PAUSES.iter();
        let bytes = loop {
            let answer = tokio::time::timeout(FILE_TIMEOUT, self.try_get(&url, limit_bytes)).await;
            match answer.unwrap_or_else(|_| {
                let reason = format!("no whole answer within {} s", FILE_TIMEOUT.as_secs());
                Err(ReadError::Unreachable { url: url.clone(), reason })
            }) {
                Err(ReadError::Unreachable { url, reason }) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(ReadError::Unreachable { url, reason }),
                },
                other => break other?,
            }
        };
        if let Some(digest) = key.content_digest() {
            prove("object", digest, &bytes)?;
        }
        Ok(bytes)
    }

    async fn try_get(&self, url: &str, limit_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let unreachable = |reason: String| ReadError::Unreachable { url: url.to_owned(), reason };
        let response = http::traced(self.client.get(url))
            .send()
            .await
            .map_err(|error| unreachable(http::reason(&error)))?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(unreachable(format!("status {}", status.as_u16())));
        }
        if status != StatusCode::OK {
            return Err(ReadError::Status { url: url.to_owned(), status: status.as_u16() });
        }
        http::body(response, limit_bytes).await.map_err(|error| match error {
            BodyError::TooLong(limit_bytes) => {
                ReadError::TooLong { url: url.to_owned(), limit_bytes }
            }
            broken @ BodyError::Broken(_) => unreachable(broken.to_string()),
        })
    }

    /// A tile. A partial one that is gone was replaced by the full one, of which it is the
    /// beginning: answered is which of both the bytes are.
    async fn tile(&self, tile: TileId) -> Result<(TileId, Vec<u8>), ReadError> {
        match self.get(ObjectKey::Tile(tile)).await {
            Err(ReadError::Status { status: 404, .. }) if !tile.is_full() => {
                let full = tile.full();
                Ok((full, self.get(ObjectKey::Tile(full)).await?))
            }
            other => Ok((tile, other?)),
        }
    }

    /// A tile of hashes: as many as its name says. Nothing is proven by having it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn hash_tile(&self, tile: TileId) -> Result<Vec<u8>, ReadError> {
        let (_, mut bytes) = self.tile(tile).await?;
        bytes.truncate(usize::from(tile.width()) * HASH_BYTES);
        Ok(bytes)
    }

    /// Tiles of hashes. Nothing is proven by having them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn tiles(&self, wanted: BTreeSet<TileId>) -> Result<Tiles, ReadError> {
        let fetched: Vec<(TileId, Vec<u8>)> = futures_util::stream::iter(wanted)
            .map(|tile| async move { Ok::<_, ReadError>((tile, self.hash_tile(tile).await?)) })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut tiles = Tiles::default();
        for (tile, bytes) in fetched {
            tiles.insert(tile, &bytes)?;
        }
        Ok(tiles)
    }

    /// The hashes of a plan: a proof to check, or a root to compare.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn hashes(&self, plan: &Plan) -> Result<Vec<TreeHash>, ReadError> {
        Ok(plan.hashes(&self.tiles(plan.tiles()).await?)?)
    }

    /// The entries of a bundle, of a log with at least the bundle's entries. Nothing is proven
    /// by having them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn entries(&self, bundle: TileId) -> Result<Vec<Vec<u8>>, ReadError> {
        let (tile, bytes) = self.tile(bundle).await?;
        let entries = parse_entries(tile, &bytes)?;
        Ok(entries.into_iter().take(bundle.width().into()).map(<[u8]>::to_vec).collect())
    }
}

fn limit_bytes(key: &ObjectKey) -> usize {
    match key {
        ObjectKey::Head => HEAD_MAX_BYTES,
        ObjectKey::Checkpoint => CHECKPOINT_MAX_BYTES,
        ObjectKey::Tile(tile) => match tile.kind() {
            TileKind::Hashes { .. } => TILE_MAX_BYTES,
            TileKind::Entries => BUNDLE_MAX_BYTES,
        },
        ObjectKey::Node(_) => NODE_BYTES,
        ObjectKey::Bin(_) => BIN_MAX_BYTES,
        ObjectKey::Index(_) => INDEX_FILE_MAX_BYTES,
        // What a statement says of these is their digest; nobody here reads the bytes.
        ObjectKey::Blob(_) | ObjectKey::Report(_) | ObjectKey::Trust(_) => 0,
    }
}
