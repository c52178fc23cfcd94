//! Tiles of the log, fetched and proven as wholes: for consistency, and for the inclusion of
//! every statement that is relied on.
//!
//! Full tiles never change and are kept on disk, once they are proven. Partial ones are held in
//! memory for as long as their checkpoint is the newest.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::Subject;
use modunest_tlog::{
    HASH_BYTES, HashedTile, SignedCheckpoint, TILE_MAX_BYTES, TileId, TreeHash, VerifiedTiles,
};

use super::{Client, Error, fetch};

/// Tiles below which one thread is quicker than several: hashing one takes some 30 µs, a
/// thread's start about as long.
const TILES_PER_THREAD_MIN: usize = 16;

/// A statement's place in the log, and its hash as a leaf.
pub(super) struct Leaf {
    pub(super) subject: Subject,
    pub(super) position: u64,
    pub(super) hash: TreeHash,
}

/// Tiles with their bytes, and whether they are from the disk.
type Read = BTreeMap<TileId, (Vec<u8>, bool)>;

impl Client {
    /// The verified tiles under `checkpoint`, begun anew when it is another one than before.
    pub(super) async fn tiles_of(
        &self,
        checkpoint: &SignedCheckpoint,
    ) -> tokio::sync::MappedMutexGuard<'_, VerifiedTiles> {
        let (size, root) = (checkpoint.checkpoint.size, checkpoint.checkpoint.root);
        let held = self.tiles.lock().await;
        tokio::sync::MutexGuard::map(held, |tiles| {
            if (tiles.size(), *tiles.root()) != (size, root) {
                *tiles = VerifiedTiles::new(size, root);
            }
            tiles
        })
    }

    /// Proves that the log has each of these statements where the index says.
    ///
    /// # Errors
    /// [`Error::NotInLog`], [`Error::Tile`], or why a tile is not to be had.
    pub(super) async fn prove_leaves(
        &self,
        checkpoint: &SignedCheckpoint,
        leaves: &[Leaf],
    ) -> Result<(), Error> {
        if leaves.is_empty() {
            return Ok(());
        }
        let mut tiles = self.tiles_of(checkpoint).await;
        let wanted = tiles.missing_for_leaves(leaves.iter().map(|leaf| leaf.position));
        self.add_tiles(&mut tiles, wanted).await?;
        for Leaf { subject, position, hash } in leaves {
            if !tiles.leaf(*position).is_ok_and(|found| found == *hash) {
                let (subject, position) = (subject.clone(), *position);
                return Err(Error::NotInLog { subject, position });
            }
        }
        Ok(())
    }

    /// Proves that the newest checkpoint's log begins with its own first `size` entries: reads
    /// all that a host needs which knows the log up to there.
    ///
    /// # Errors
    /// [`Error::NoHead`], [`Error::Tile`], or why a tile is not to be had.
    pub(crate) async fn prove_growth_from(&self, size: u64) -> Result<(), Error> {
        let kept = self.kept().ok_or(Error::NoHead)?;
        let mut tiles = self.tiles_of(&kept.checkpoint).await;
        let wanted = tiles.missing_for_root(size);
        self.add_tiles(&mut tiles, wanted).await
    }

    /// Fetches and proves tiles.
    ///
    /// # Errors
    /// [`Error::Tile`], or why one is not to be had.
    pub(super) async fn add_tiles(
        &self,
        tiles: &mut VerifiedTiles,
        wanted: BTreeSet<TileId>,
    ) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        let read = self.read_tiles(&wanted, true).await?;
        let from_disk = read.values().any(|(_, from_disk)| *from_disk);
        match self.take_tiles(tiles, read).await {
            Err(Error::Tile(error)) if from_disk => {
                tracing::warn!(%error, "a tile in the cache may be damaged; fetching them again");
                let read = self.read_tiles(&wanted, false).await?;
                self.take_tiles(tiles, read).await
            }
            taken => taken,
        }
    }

    async fn take_tiles(&self, tiles: &mut VerifiedTiles, read: Read) -> Result<(), Error> {
        let (read, hashed) = crate::blocking::run(move || {
            let hashed = hash(&read);
            (read, hashed)
        })
        .await?;
        tiles.add(hashed?)?;
        for (id, (bytes, from_disk)) in &read {
            if id.is_full() && !from_disk {
                self.cache.keep(ObjectKey::Tile(*id), bytes)?;
            }
        }
        Ok(())
    }

    async fn read_tiles(&self, wanted: &BTreeSet<TileId>, cached: bool) -> Result<Read, Error> {
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let reads: Vec<_> = wanted
            .iter()
            .map(|&id| async move {
                let key = ObjectKey::Tile(id);
                let kept = match cached && id.is_full() {
                    true => self.cache.object(key, TILE_MAX_BYTES)?,
                    false => None,
                };
                match kept {
                    Some(bytes) => Ok((id, (bytes, true))),
                    None => Ok::<_, Error>((id, (self.tile(id).await?, false))),
                }
            })
            .collect();
        futures_util::stream::iter(reads).buffer_unordered(fetch::PARALLEL).try_collect().await
    }

    /// A tile's bytes, unproven. A partial one may be gone once the full one is there.
    async fn tile(&self, id: TileId) -> Result<Vec<u8>, Error> {
        let own = usize::from(id.width()) * HASH_BYTES;
        match self.fetcher.object(ObjectKey::Tile(id), TILE_MAX_BYTES).await {
            Err(Error::Status { status: 404, .. }) if !id.is_full() => {
                let full = ObjectKey::Tile(id.full());
                let mut bytes = self.fetcher.object(full, TILE_MAX_BYTES).await?;
                bytes.truncate(own);
                Ok(bytes)
            }
            other => other,
        }
    }
}

/// Hashes tiles on all processors.
fn hash(read: &Read) -> Result<Vec<HashedTile>, Error> {
    let tiles: Vec<(TileId, &[u8])> =
        read.iter().map(|(id, (bytes, _))| (*id, bytes.as_slice())).collect();
    let one = |&(id, bytes): &(TileId, &[u8])| {
        HashedTile::new(id, bytes).map_err(|error| Error::Tile(error.into()))
    };
    super::parallel::map(&tiles, TILES_PER_THREAD_MIN, one).into_iter().collect()
}
