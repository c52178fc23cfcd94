//! Tiles that are proven before they answer: hash every tile once, compare it with the one
//! above it, and the topmost with the root.
//!
//! A proof by its own hashes ([`crate::Plan`]) hashes most of the tiles that it takes; many
//! proofs in one tree would hash the same nodes again and again. Here a tile is proven as a
//! whole, so that all of its hashes may be used afterwards: by as many proofs of inclusion as
//! there are leaves in it, and for the root of every earlier tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::TreeHash;
use crate::tile::{self, TILE_HEIGHT, TILE_WIDTH, TileError, TileId, TileKind, Tiles};
use crate::tree;

/// A tile's hashes, with the root over them where the tile is full. Making one is most of the
/// work of a proof and needs nothing else, so several can be made at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedTile {
    id: TileId,
    hashes: Vec<TreeHash>,
    /// Root of the complete subtree below it; `None` for a partial tile.
    root: Option<TreeHash>,
}

impl HashedTile {
    /// Reads a tile's bytes and hashes them.
    ///
    /// # Errors
    /// [`TileError::Length`] and [`TileError::Kind`].
    pub fn new(id: TileId, bytes: &[u8]) -> Result<Self, TileError> {
        let hashes = tile::parse(id, bytes)?;
        let root = id.is_full().then(|| tile::complete(&hashes));
        Ok(HashedTile { id, hashes, root })
    }
}

/// Why a tile was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The tiles at the right edge of the tree do not lead to its root.
    #[error(
        "the tiles at the edge lead to {found}, not to the root {expected}: at least one of them is forged"
    )]
    Edge {
        /// What was computed.
        found: TreeHash,
        /// The root.
        expected: TreeHash,
    },
    /// A tile is not what the one above it says.
    #[error("{tile} is forged: it hashes to {found}, the tree has {expected} there")]
    Forged {
        /// The tile.
        tile: TileId,
        /// What it hashes to.
        found: TreeHash,
        /// What the tile above says.
        expected: TreeHash,
    },
    /// A tile is missing that is needed to prove one of the others.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A tile that this tree does not have.
    #[error("a tree of {size} leaves has no {tile}")]
    Stranger {
        /// The tile.
        tile: TileId,
        /// Leaves of the tree.
        size: u64,
    },
}

/// The proven tiles of one tree.
#[derive(Debug, Clone)]
pub struct VerifiedTiles {
    size: u64,
    root: TreeHash,
    tiles: BTreeMap<TileId, Vec<TreeHash>>,
}

impl VerifiedTiles {
    /// The tree of `size` leaves with this root, which the caller believes. No tile is known.
    pub const fn new(size: u64, root: TreeHash) -> Self {
        VerifiedTiles { size, root, tiles: BTreeMap::new() }
    }

    /// Leaves of the tree.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub const fn root(&self) -> &TreeHash {
        &self.root
    }

    /// The tiles to hand to [`VerifiedTiles::add`] before the leaves at `indices` can be read.
    /// Indices outside of the tree need none.
    pub fn missing_for_leaves(&self, indices: impl IntoIterator<Item = u64>) -> BTreeSet<TileId> {
        let mut missing = BTreeSet::new();
        for index in indices {
            self.want(0, index / TILE_WIDTH, &mut missing);
        }
        missing
    }

    /// The tiles to hand to [`VerifiedTiles::add`] before [`VerifiedTiles::root_at`] answers
    /// for `size`.
    pub fn missing_for_root(&self, size: u64) -> BTreeSet<TileId> {
        let mut missing = BTreeSet::new();
        if size > self.size {
            return missing;
        }
        for node in tree::whole(size).nodes() {
            let first = node.index << (node.level % TILE_HEIGHT);
            self.want(node.level / TILE_HEIGHT, first / TILE_WIDTH, &mut missing);
        }
        missing
    }

    /// A tile and everything that proves it.
    fn want(&self, level: u8, index: u64, missing: &mut BTreeSet<TileId>) {
        let (mut level, mut index) = (level, index);
        while let Some(id) = TileId::hashes(level, index, self.size) {
            if self.tiles.contains_key(&id) {
                return;
            }
            let known = !missing.insert(id);
            if !id.is_full() {
                missing.extend(self.edge().filter(|id| !self.tiles.contains_key(id)));
                return;
            }
            if known {
                return;
            }
            (level, index) = (level + 1, index / TILE_WIDTH);
        }
    }

    /// The partial tiles, which prove one another.
    fn edge(&self) -> impl Iterator<Item = TileId> + use<> {
        crate::Frontier::tiles(self.size).into_iter()
    }

    /// Takes tiles that are what the tree says.
    ///
    /// # Errors
    /// [`VerifyError`], for the first tile that is not; those above it are taken.
    pub fn add(&mut self, tiles: impl IntoIterator<Item = HashedTile>) -> Result<(), VerifyError> {
        let (mut partial, mut full) = (BTreeMap::new(), Vec::new());
        for tile in tiles {
            let TileKind::Hashes { level } = tile.id.kind() else {
                return Err(TileError::Kind(tile.id).into());
            };
            if TileId::hashes(level, tile.id.index(), self.size) != Some(tile.id) {
                return Err(VerifyError::Stranger { tile: tile.id, size: self.size });
            }
            match tile.root {
                Some(root) => full.push((level, tile.id, root, tile.hashes)),
                None => {
                    partial.insert(tile.id, tile.hashes);
                }
            }
        }
        if !partial.is_empty() {
            self.add_edge(partial)?;
        }
        // What proves a tile stands a level above it.
        full.sort_by_key(|(level, ..)| std::cmp::Reverse(*level));
        for (level, tile, found, hashes) in full {
            let expected = self.hash(level + 1, tile.index())?;
            if found != expected {
                return Err(VerifyError::Forged { tile, found, expected });
            }
            self.tiles.insert(tile, hashes);
        }
        Ok(())
    }

    /// The edge is proven as one: the root is the hash of all that stands in it.
    fn add_edge(&mut self, partial: BTreeMap<TileId, Vec<TreeHash>>) -> Result<(), VerifyError> {
        let mut edge = Tiles::default();
        for id in self.edge() {
            let hashes = partial.get(&id).or_else(|| self.tiles.get(&id));
            let hashes = hashes.ok_or(TileError::Missing(id))?;
            edge.insert(id, &tile::to_bytes(hashes))?;
        }
        let found = crate::Frontier::load(self.size, &edge)?.root();
        if found != self.root {
            return Err(VerifyError::Edge { found, expected: self.root });
        }
        self.tiles.extend(partial);
        Ok(())
    }

    /// One hash of a level of tiles.
    fn hash(&self, level: u8, at: u64) -> Result<TreeHash, TileError> {
        let id = TileId::hashes(level, at / TILE_WIDTH, self.size);
        // Above a full tile there always is one: it counts there.
        let id = id.unwrap_or(TileId::at(level, at / TILE_WIDTH));
        let hashes = self.tiles.get(&id).ok_or(TileError::Missing(id))?;
        hashes.get((at % TILE_WIDTH) as usize).copied().ok_or(TileError::Missing(id))
    }

    /// The hash of a leaf.
    ///
    /// # Errors
    /// [`TileError::Missing`], also for a leaf that the tree does not have.
    pub fn leaf(&self, index: u64) -> Result<TreeHash, TileError> {
        self.hash(0, index)
    }

    /// The root of the tree that the first `size` leaves make: that of an earlier state of the
    /// same log.
    ///
    /// # Errors
    /// [`TileError::Missing`], also for a size that the tree has not reached.
    pub fn root_at(&self, size: u64) -> Result<TreeHash, TileError> {
        self.frontier_at(size).map(|frontier| frontier.root())
    }

    /// The edge of the tree that the first `size` leaves make, to go on from.
    ///
    /// # Errors
    /// As [`VerifiedTiles::root_at`].
    pub fn frontier_at(&self, size: u64) -> Result<crate::Frontier, TileError> {
        let mut edge = Tiles::default();
        for id in crate::Frontier::tiles(size) {
            let TileKind::Hashes { level } = id.kind() else { continue };
            let own = TileId::hashes(level, id.index(), self.size).unwrap_or(id);
            let hashes = self.tiles.get(&own).and_then(|all| all.get(..usize::from(id.width())));
            edge.insert(id, &tile::to_bytes(hashes.ok_or(TileError::Missing(own))?))?;
        }
        crate::Frontier::load(size, &edge)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Frontier;

    fn leaf(number: u64) -> TreeHash {
        TreeHash::of_leaf(&number.to_be_bytes())
    }

    /// Every tile of a tree of `size` leaves, and the roots at some sizes on the way.
    struct Log {
        tiles: BTreeMap<TileId, Vec<u8>>,
        roots: BTreeMap<u64, TreeHash>,
        size: u64,
    }

    const SIZES: [u64; 10] = [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537];

    /// Earlier sizes that are looked at.
    fn earlier(size: u64) -> [u64; 9] {
        [0, 1, 2, 255, 256, 257, size / 3, size - 1, size]
    }

    impl Log {
        fn new(size: u64) -> Self {
            let mut frontier = Frontier::new();
            let mut roots = BTreeMap::from([(0, frontier.root())]);
            for number in 0..size {
                frontier.append(leaf(number));
                if earlier(size).contains(&(number + 1)) {
                    roots.insert(number + 1, frontier.root());
                }
            }
            let tiles = frontier.take_tiles().into_iter().collect();
            Log { tiles, roots, size }
        }

        fn hashed(&self, wanted: &BTreeSet<TileId>) -> Vec<HashedTile> {
            wanted.iter().map(|id| HashedTile::new(*id, &self.tiles[id]).unwrap()).collect()
        }

        fn tree(&self) -> VerifiedTiles {
            VerifiedTiles::new(self.size, self.roots[&self.size])
        }
    }

    #[test]
    fn leaves_and_earlier_roots_at_awkward_sizes() {
        for size in SIZES {
            let log = Log::new(size);
            for index in [0, 1, 254, 255, 256, 257, size / 2, size.saturating_sub(1)] {
                let mut tree = log.tree();
                let wanted = tree.missing_for_leaves([index]);
                tree.add(log.hashed(&wanted)).unwrap();
                if index < size {
                    assert_eq!(tree.leaf(index), Ok(leaf(index)), "{index} of {size}");
                    assert!(tree.missing_for_leaves([index]).is_empty());
                } else {
                    assert!(tree.leaf(index).is_err());
                }
            }
            for old in earlier(size) {
                let mut tree = log.tree();
                let wanted = tree.missing_for_root(old);
                tree.add(log.hashed(&wanted)).unwrap();
                if old <= size {
                    assert_eq!(tree.root_at(old), Ok(log.roots[&old]), "{old} of {size}");
                } else {
                    assert!(tree.root_at(old).is_err());
                }
            }
        }
    }

    #[test]
    fn a_frontier_from_tiles_goes_on_like_its_own() {
        let log = Log::new(70_000);
        let mut tree = log.tree();
        let wanted = tree.missing_for_root(66_000);
        tree.add(log.hashed(&wanted)).unwrap();
        let mut frontier = tree.frontier_at(66_000).unwrap();
        for number in 66_000..70_000 {
            frontier.append(leaf(number));
        }
        assert_eq!(frontier.root(), log.roots[&70_000]);
    }

    #[test]
    fn every_forged_hash_is_noticed() {
        for size in SIZES {
            let log = Log::new(size);
            let index = size / 2;
            let wanted = log.tree().missing_for_leaves([index]);
            for forged in &wanted {
                let bytes = &log.tiles[forged];
                for at in [0, bytes.len() / 64 * 32, bytes.len() - 1] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1;
                    let tiles = wanted.iter().map(|id| {
                        let honest = &log.tiles[id];
                        let bytes = if id == forged { &bytes } else { honest };
                        HashedTile::new(*id, bytes).unwrap()
                    });
                    let refused = log.tree().add(tiles).unwrap_err();
                    assert!(
                        matches!(refused, VerifyError::Edge { .. } | VerifyError::Forged { .. }),
                        "{forged} of {size}: {refused}"
                    );
                }
            }
        }
    }

    #[test]
    fn tiles_of_other_trees_and_lone_ones_are_not_taken() {
        let log = Log::new(600);
        let mut tree = log.tree();
        let stranger = TileId::hashes(0, 2, 601).unwrap();
        let hashed = HashedTile::new(stranger, &vec![0; usize::from(stranger.width()) * 32]);
        assert!(matches!(tree.add([hashed.unwrap()]), Err(VerifyError::Stranger { .. })));
        let first = TileId::hashes(0, 0, 600).unwrap();
        let alone = HashedTile::new(first, &log.tiles[&first]).unwrap();
        assert!(matches!(tree.add([alone]), Err(VerifyError::Tile(TileError::Missing(_)))));
        assert!(tree.leaf(0).is_err());
        assert!(HashedTile::new(first, &[0; 31]).is_err());
        assert!(HashedTile::new(TileId::entries(0, 600).unwrap(), &[]).is_err());
    }
}
