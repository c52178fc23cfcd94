//! The proof at the end of an answer: that the log has every statement in it.
//!
//! Tiles are files that every cache may keep, and hold 256 hashes of which a proof takes a few.
//! Here the hashes stand alone, and those that prove several statements stand once
//! ([`Plan::leaves`]). The leaves are the statements of the index files that were sent, so
//! their positions need not be said again.

use std::collections::BTreeSet;

use modunest_tlog::{HASH_BYTES, Plan, TileError, TileId, Tiles, TreeHash};

/// Longest proof, in bytes: 65,536 hashes, so those of some 10,000 statements far from one
/// another.
pub(super) const PROOF_MAX_BYTES: usize = 65_536 * HASH_BYTES;

/// A proof in the making, on the side that knows the tiles.
pub(super) struct ProofMaker {
    /// Statements before this position are proven already.
    since: u64,
    /// Size of the log that the head names.
    size: u64,
    leaves: BTreeSet<u64>,
    tiles: Tiles,
    state: State,
}

enum State {
    /// Leaves are still coming.
    Open,
    /// Tiles are being read.
    Begun(Plan),
    /// It was handed out, or cannot be made.
    Over,
}

impl ProofMaker {
    pub(super) fn new(since: u64, size: u64) -> Self {
        let (leaves, tiles) = (BTreeSet::new(), Tiles::default());
        ProofMaker { since, size, leaves, tiles, state: State::Open }
    }

    /// A statement at this position is in the answer.
    pub(super) fn leaf(&mut self, position: u64) {
        if position >= self.since {
            self.leaves.insert(position);
        }
    }

    /// No more leaves come. Answers the tiles that it takes, once; none when there is nothing to
    /// prove, or it would take more than `tiles_max` tiles or have more than
    /// [`PROOF_MAX_BYTES`].
    pub(super) fn begin(&mut self, tiles_max: usize) -> BTreeSet<TileId> {
        if !matches!(self.state, State::Open) {
            return BTreeSet::new();
        }
        self.state = State::Over;
        let leaves: Vec<u64> = std::mem::take(&mut self.leaves).into_iter().collect();
        let Some(plan) = Plan::leaves(&leaves, self.size) else { return BTreeSet::new() };
        let tiles = plan.tiles();
        if tiles.len() > tiles_max || plan.length() > PROOF_MAX_BYTES / HASH_BYTES {
            return BTreeSet::new();
        }
        self.state = State::Begun(plan);
        tiles
    }

    /// Takes a tile's bytes, unproven: a wrong one makes a proof that proves nothing.
    pub(super) fn tile(&mut self, id: TileId, bytes: &[u8]) -> Result<(), TileError> {
        self.tiles.insert(id, bytes)
    }

    /// A tile is not to be had.
    pub(super) fn give_up(&mut self) {
        self.state = State::Over;
    }

    /// The hashes, once, when all tiles came.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let State::Begun(plan) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let hashes = plan.hashes(&self.tiles).ok()?;
        Some(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
    }
}

/// The hashes of a proof; `None` where the bytes are no hashes.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<TreeHash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    rest.is_empty().then(|| hashes.iter().copied().map(TreeHash::from_bytes).collect())
}
