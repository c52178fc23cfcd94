//! Tiles: the tree as files (<https://c2sp.org/tlog-tiles>).
//!
//! A tile is trusted by nobody: whoever reads hashes from tiles makes a proof of them and
//! checks that proof against a signed root. So a forged tile makes a proof that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::hash::{HASH_BYTES, TreeHash};
use crate::tree::{self, NodeId, Range};

/// Levels of the tree in one tile.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes, or entries, in a full tile.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
/// Bytes of a full tile.
pub const TILE_MAX_BYTES: usize = TILE_WIDTH as usize * HASH_BYTES;
/// Largest level in a path ("APIs", "Merkle Tree").
const LEVEL_MAX: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of the tree, [`TILE_HEIGHT`] levels higher than those of the level below.
    Hashes {
        /// The level: 0 for hashes of leaves.
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

/// Names a tile. `Display` is its path without a leading slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why bytes are not the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Wrong length.
    #[error("{tile} has {found_bytes} bytes, not {expected_bytes}")]
    Length {
        /// The tile.
        tile: TileId,
        /// What it must have.
        expected_bytes: usize,
        /// What it has.
        found_bytes: usize,
    },
    /// It holds entries, not hashes.
    #[error("{0} holds entries, not hashes")]
    Kind(TileId),
    /// A tile that is needed was not given.
    #[error("{0} is needed and was not given")]
    Missing(TileId),
}

impl TileId {
    /// The tile of hashes at `level` and `index` in a tree of `size` leaves; `None` when the
    /// tree has none there.
    pub fn hashes(level: u8, index: u64, size: u64) -> Option<TileId> {
        let count = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
        TileId::sized(TileKind::Hashes { level }, index, count)
    }

    /// The bundle of entries at `index` in a tree of `size` leaves.
    pub fn entries(index: u64, size: u64) -> Option<TileId> {
        TileId::sized(TileKind::Entries, index, size)
    }

    /// The full tile at a place, whether a tree has it or not.
    pub(crate) const fn at(level: u8, index: u64) -> TileId {
        TileId { kind: TileKind::Hashes { level }, index, width: TILE_WIDTH as u16 }
    }

    fn sized(kind: TileKind, index: u64, count: u64) -> Option<TileId> {
        let left = count.checked_sub(index.checked_mul(TILE_WIDTH)?)?;
        let width = left.min(TILE_WIDTH) as u16;
        (width > 0).then_some(TileId { kind, index, width })
    }

    /// What it holds.
    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its position within its level.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it has: 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether it will never grow.
    pub const fn is_full(&self) -> bool {
        self.width as u64 == TILE_WIDTH
    }

    /// The same tile once it is full: what replaces a partial one that is gone.
    pub const fn full(&self) -> TileId {
        TileId { width: TILE_WIDTH as u16, ..*self }
    }

    /// Reads a path without a leading slash. Every tile has one spelling.
    pub fn from_path(path: &str) -> Option<TileId> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes {
                level: decimal(level)?.try_into().ok().filter(|l| *l <= LEVEL_MAX)?,
            },
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                let width = decimal(width).filter(|w| (1..TILE_WIDTH).contains(w))?;
                (index, width as u16)
            }
            None => (rest, TILE_WIDTH as u16),
        };
        Some(TileId { kind, index: index_of(index)?, width })
    }
}

/// A decimal number without leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Groups of three digits, all but the last behind an `x`; no superfluous group.
fn index_of(text: &str) -> Option<u64> {
    let mut index: u64 = 0;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if first && digits == "000" && groups.peek().is_some() {
            return None;
        }
        first = false;
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut power: u64 = 1;
        while self.index / power >= 1000 {
            power *= 1000;
        }
        while power > 1 {
            write!(f, "x{:03}/", self.index / power % 1000)?;
            power /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Hashes read from tiles. Nothing here is proven: see the module.
#[derive(Debug, Clone, Default)]
pub struct Tiles {
    hashes: BTreeMap<TileId, Vec<TreeHash>>,
}

impl Tiles {
    /// Adds a tile's bytes.
    ///
    /// # Errors
    /// [`TileError::Length`] and [`TileError::Kind`].
    pub fn insert(&mut self, tile: TileId, bytes: &[u8]) -> Result<(), TileError> {
        self.hashes.insert(tile, parse(tile, bytes)?);
        Ok(())
    }

    pub(crate) fn tile(&self, tile: TileId) -> Result<&[TreeHash], TileError> {
        self.hashes.get(&tile).map(Vec::as_slice).ok_or(TileError::Missing(tile))
    }

    fn node(&self, node: NodeId, size: u64) -> Result<TreeHash, TileError> {
        let (tile, at, count) = place(node, size);
        let hashes = self.tile(tile)?;
        let hashes = hashes.get(at..at + count).ok_or(TileError::Missing(tile))?;
        Ok(complete(hashes))
    }

    fn range(&self, range: Range, size: u64) -> Result<TreeHash, TileError> {
        let mut hash: Option<TreeHash> = None;
        for node in range.nodes().into_iter().rev() {
            let left = self.node(node, size)?;
            hash = Some(hash.map_or(left, |right| TreeHash::of_node(&left, &right)));
        }
        Ok(hash.unwrap_or_else(TreeHash::empty))
    }
}

/// A proof that is still to be made, or a root: which tiles it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    ranges: Vec<Range>,
    size: u64,
}

impl Plan {
    /// The root of the tree of `size` leaves.
    pub fn root(size: u64) -> Plan {
        Plan { ranges: vec![tree::whole(size)], size }
    }

    /// The proof that leaf `index` is in the tree of `size` leaves; `None` when it is not.
    pub fn inclusion(index: u64, size: u64) -> Option<Plan> {
        Some(Plan { ranges: tree::inclusion(index, size)?, size })
    }

    /// The proof that the tree of `old` leaves is the beginning of the one of `new`, by the
    /// tiles of the newer; `None` when `old` is larger.
    pub fn consistency(old: u64, new: u64) -> Option<Plan> {
        Some(Plan { ranges: tree::consistency(old, new)?, size: new })
    }

    /// The proof that the leaves at all of these indices are in the tree of `size` leaves, for
    /// [`crate::verify_leaves`]; `None` when there is no index, they do not ascend, or one is
    /// outside of the tree. What several leaves have in common is in it once.
    pub fn leaves(indices: &[u64], size: u64) -> Option<Plan> {
        Some(Plan { ranges: tree::leaves(indices, size)?, size })
    }

    /// How many hashes it has.
    pub fn length(&self) -> usize {
        self.ranges.len()
    }

    /// The tiles it takes.
    pub fn tiles(&self) -> BTreeSet<TileId> {
        let nodes = self.ranges.iter().flat_map(|range| range.nodes());
        nodes.map(|node| place(node, self.size).0).collect()
    }

    /// The hashes: of a proof in its order, or the one root.
    ///
    /// # Errors
    /// [`TileError::Missing`].
    pub fn hashes(&self, tiles: &Tiles) -> Result<Vec<TreeHash>, TileError> {
        self.ranges.iter().map(|range| tiles.range(*range, self.size)).collect()
    }
}

/// The tile that holds a complete subtree of a tree of `size` leaves, and which of its hashes
/// are the subtree's.
fn place(node: NodeId, size: u64) -> (TileId, usize, usize) {
    let (level, height) = (node.level / TILE_HEIGHT, node.level % TILE_HEIGHT);
    let first = node.index << height;
    let (index, at) = (first / TILE_WIDTH, first % TILE_WIDTH);
    let count = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
    let width = count.saturating_sub(index * TILE_WIDTH).min(TILE_WIDTH) as u16;
    (TileId { kind: TileKind::Hashes { level }, index, width }, at as usize, 1 << height)
}

/// The root over a power of two of hashes.
pub(crate) fn complete(hashes: &[TreeHash]) -> TreeHash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            TreeHash::of_node(&complete(left), &complete(right))
        }
    }
}

/// Reads a tile of hashes, which must have exactly the tile's width.
pub(crate) fn parse(tile: TileId, bytes: &[u8]) -> Result<Vec<TreeHash>, TileError> {
    if tile.kind == TileKind::Entries {
        return Err(TileError::Kind(tile));
    }
    let expected_bytes = usize::from(tile.width) * HASH_BYTES;
    if bytes.len() != expected_bytes {
        return Err(TileError::Length { tile, expected_bytes, found_bytes: bytes.len() });
    }
    let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
    Ok(hashes.iter().copied().map(TreeHash::from_bytes).collect())
}

/// A tile's bytes.
pub(crate) fn to_bytes(hashes: &[TreeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// What holds for any text; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a path has a second spelling: that is a bug in the parser.
#[doc(hidden)]
pub fn check_tile_path_invariants(path: &str) -> bool {
    let Some(tile) = TileId::from_path(path) else { return false };
    assert_eq!(tile.to_string(), path);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn published_paths() {
        // "Merkle Tree" and "Partial Tiles" of the specification.
        let tile = |path: &str| TileId::from_path(path).unwrap();
        assert_eq!(tile("tile/0/x001/x234/067").index(), 1_234_067);
        assert_eq!(tile("tile/entries/000").kind(), TileKind::Entries);
        for path in
            ["tile/0/x001/x234/067", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
        {
            assert_eq!(tile(path).to_string(), path);
        }
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/00/000",
            "tile/64/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/-1/000",
            "tile/0/x/000",
            "/tile/0/000",
            "tile/0/+01",
            "tile/entries/x001",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(TileId::from_path(bad), None, "{bad}");
        }
        assert_eq!(
            TileId { kind: TileKind::Entries, index: u64::MAX, width: 256 }.to_string(),
            "tile/entries/x018/x446/x744/x073/x709/x551/615"
        );
    }

    #[test]
    fn widths_of_the_specification() {
        // A tree of 70,000: 273 full tiles and one of 112, then 1 full and one of 17, then 1.
        let text = |level, index| TileId::hashes(level, index, 70_000).map(|tile| tile.to_string());
        assert_eq!(text(0, 272).as_deref(), Some("tile/0/272"));
        assert_eq!(text(0, 273).as_deref(), Some("tile/0/273.p/112"));
        assert_eq!(text(0, 274), None);
        assert_eq!(text(1, 0).as_deref(), Some("tile/1/000"));
        assert_eq!(text(1, 1).as_deref(), Some("tile/1/001.p/17"));
        assert_eq!(text(2, 0).as_deref(), Some("tile/2/000.p/1"));
        assert_eq!(text(3, 0), None);
        // 256: a full one and one of width 1.
        assert_eq!(TileId::hashes(0, 0, 256).unwrap().to_string(), "tile/0/000");
        assert_eq!(TileId::hashes(1, 0, 256).unwrap().to_string(), "tile/1/000.p/1");
        assert_eq!(TileId::hashes(0, 1, 256), None);
        assert_eq!(TileId::entries(u64::MAX, 5), None);
    }
}
