//! The right edge of a growing tree: all that appending needs.

use std::collections::BTreeMap;

use crate::hash::TreeHash;
use crate::tile::{self, TILE_WIDTH, TileError, TileId, TileKind, Tiles};

/// The unfinished tiles of a log, one a level. Appends leaves, and says which tiles of hashes
/// that makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// For each level, the hashes of its last tile while that is not full.
    levels: Vec<Vec<TreeHash>>,
    /// Tiles that became full since [`Frontier::take_tiles`].
    full: BTreeMap<TileId, Vec<TreeHash>>,
    /// How many of the levels, from the lowest, changed since then.
    touched: usize,
}

impl Frontier {
    /// The edge of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tiles that [`Frontier::load`] takes for a tree of `size` leaves: the partial ones.
    pub fn tiles(size: u64) -> Vec<TileId> {
        let levels = (0..u64::BITS.div_ceil(u32::from(tile::TILE_HEIGHT))).map(|level| level as u8);
        let last = |level: u8| {
            let count = size.checked_shr(u32::from(level) * u32::from(tile::TILE_HEIGHT))?;
            TileId::hashes(level, count / TILE_WIDTH, size)
        };
        levels.filter_map(last).collect()
    }

    /// The edge of a tree of `size` leaves, from its partial tiles. What they say is not
    /// proven: compare [`Frontier::root`] with the root of a checkpoint.
    ///
    /// # Errors
    /// [`TileError::Missing`].
    pub fn load(size: u64, tiles: &Tiles) -> Result<Self, TileError> {
        let mut frontier = Frontier { size, ..Frontier::default() };
        for id in Frontier::tiles(size) {
            let TileKind::Hashes { level } = id.kind() else { continue };
            frontier.levels.resize(usize::from(level) + 1, Vec::new());
            frontier.levels[usize::from(level)] = tiles.tile(id)?.to_vec();
        }
        Ok(frontier)
    }

    /// Leaves so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; answers its index.
    pub fn append(&mut self, leaf: TreeHash) -> u64 {
        let index = self.size;
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(hash);
            self.touched = self.touched.max(level + 1);
            if (self.levels[level].len() as u64) < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(&mut self.levels[level]);
            hash = tile::complete(&hashes);
            let count = self.size >> (level * usize::from(tile::TILE_HEIGHT));
            if let Some(id) = TileId::hashes(level as u8, count / TILE_WIDTH - 1, self.size) {
                self.full.insert(id, hashes);
            }
        }
        index
    }

    /// The root of the tree.
    pub fn root(&self) -> TreeHash {
        // From the right: what is in a lower level stands to the right of all above it.
        let mut root: Option<TreeHash> = None;
        for level in &self.levels {
            let mut rest = level.as_slice();
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let (part, more) = rest.split_at(1 << rest.len().ilog2());
                parts.push(tile::complete(part));
                rest = more;
            }
            for part in parts.iter().rev() {
                root = Some(root.map_or(*part, |right| TreeHash::of_node(part, &right)));
            }
        }
        root.unwrap_or_else(TreeHash::empty)
    }

    /// The tiles of hashes that changed since the last call, with their bytes: those that
    /// became full, and the partial ones at this size.
    pub fn take_tiles(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let full = std::mem::take(&mut self.full);
        let mut tiles: Vec<_> =
            full.into_iter().map(|(id, hashes)| (id, tile::to_bytes(&hashes))).collect();
        let touched = std::mem::take(&mut self.touched);
        let changed = self.partial_tiles().into_iter().filter(|(id, _)| match id.kind() {
            TileKind::Hashes { level } => usize::from(level) < touched,
            TileKind::Entries => false,
        });
        tiles.extend(changed);
        tiles
    }

    /// The partial tiles at this size, with their bytes: what [`Frontier::load`] takes.
    pub fn partial_tiles(&self) -> Vec<(TileId, Vec<u8>)> {
        let tiles = Frontier::tiles(self.size).into_iter();
        tiles
            .filter_map(|id| match id.kind() {
                TileKind::Hashes { level } => {
                    Some((id, tile::to_bytes(&self.levels[usize::from(level)])))
                }
                TileKind::Entries => None,
            })
            .collect()
    }
}
