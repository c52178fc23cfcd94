//! The end of the log: all that is needed to append to it. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::index::LogHead;
use modunest_core::statement::STATEMENT_MAX_BYTES;
use modunest_tlog::{
    Frontier, TILE_MAX_BYTES, TILE_WIDTH, TileId, TileKind, Tiles, TreeHash, parse_entries,
    push_entry,
};

use crate::error::Error;

/// Longest bundle of entries: 256 statements, each behind its length.
const ENTRIES_MAX_BYTES: u64 = TILE_WIDTH * (2 + STATEMENT_MAX_BYTES as u64);

/// The unfinished tiles of a log, and its unfinished bundle of entries.
#[derive(Clone, Debug)]
pub(super) struct LogEnd {
    frontier: Frontier,
    /// Bytes of the entries behind the last full bundle.
    entries: Vec<u8>,
    /// Bundles that became full since the last [`LogEnd::take_tiles`].
    full: Vec<(TileId, Vec<u8>)>,
}

impl LogEnd {
    /// The tiles that [`LogEnd::load`] takes for a log of `size` entries, and how long each
    /// may be.
    pub(super) fn tiles(size: u64) -> Vec<(TileId, u64)> {
        let hashes = Frontier::tiles(size).into_iter().map(|id| (id, TILE_MAX_BYTES as u64));
        let entries = TileId::entries(size / TILE_WIDTH, size);
        hashes.chain(entries.map(|id| (id, ENTRIES_MAX_BYTES))).collect()
    }

    /// The end of `log`, proven against its root.
    pub(super) fn load(log: &LogHead, found: &BTreeMap<TileId, Bytes>) -> Result<Self, Error> {
        let mut tiles = Tiles::default();
        let mut entries = Vec::new();
        let mut leaves = Vec::new();
        for (id, bytes) in found {
            match id.kind() {
                TileKind::Hashes { level } => {
                    tiles.insert(*id, bytes)?;
                    if level == 0 {
                        leaves.extend_from_slice(bytes);
                    }
                }
                TileKind::Entries => entries = bytes.to_vec(),
            }
        }
        let frontier = Frontier::load(log.size, &tiles)?;
        let of_entries = match TileId::entries(log.size / TILE_WIDTH, log.size) {
            None => Vec::new(),
            Some(id) => parse_entries(id, &entries)?
                .iter()
                .flat_map(|entry| *TreeHash::of_leaf(entry).as_bytes())
                .collect(),
        };
        let end = LogEnd { frontier, entries, full: Vec::new() };
        if end.head() == *log && of_entries == leaves {
            Ok(end)
        } else {
            Err(Error::Broken("the log's tiles do not give the root that the head item names"))
        }
    }

    /// Size and root.
    pub(super) fn head(&self) -> LogHead {
        LogHead {
            size: self.frontier.size(),
            root: Digest::from_bytes(*self.frontier.root().as_bytes()),
        }
    }

    /// Appends an entry; answers its position.
    pub(super) fn append(&mut self, entry: &[u8]) -> Result<u64, Error> {
        push_entry(&mut self.entries, entry)?;
        let position = self.frontier.append(TreeHash::of_leaf(entry));
        let size = self.frontier.size();
        if size.is_multiple_of(TILE_WIDTH)
            && let Some(id) = TileId::entries(position / TILE_WIDTH, size)
        {
            self.full.push((id, std::mem::take(&mut self.entries)));
        }
        Ok(position)
    }

    /// Every tile that changed since the last call: what became full, and what is partial.
    pub(super) fn take_tiles(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let mut tiles = std::mem::take(&mut self.full);
        let size = self.frontier.size();
        if let Some(id) = TileId::entries(size / TILE_WIDTH, size) {
            tiles.push((id, self.entries.clone()));
        }
        tiles.extend(self.frontier.take_tiles());
        tiles
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Vec<u8> {
        format!("entry {n}\n").into_bytes()
    }

    /// Appending in pieces of any length, with the end loaded anew from tiles before each,
    /// gives the tree that appending at once gives, and every entry stands in its bundle.
    #[test]
    fn what_is_loaded_goes_on_as_what_was_kept() {
        let pieces = [1, 1, 3, 250, 1, 1, 255, 256, 257, 700, 5];
        let mut store: BTreeMap<TileId, Bytes> = BTreeMap::new();
        let empty = LogHead { size: 0, root: Digest::from_bytes(*TreeHash::empty().as_bytes()) };
        let mut log = empty;
        let mut naive = Frontier::new();
        for piece in pieces {
            let found = LogEnd::tiles(log.size)
                .into_iter()
                .map(|(id, max_bytes)| {
                    let bytes = store[&id].clone();
                    assert!(bytes.len() as u64 <= max_bytes);
                    (id, bytes)
                })
                .collect();
            let mut end = LogEnd::load(&log, &found).unwrap();
            for _ in 0..piece {
                let position = end.append(&entry(end.head().size)).unwrap();
                naive.append(TreeHash::of_leaf(&entry(position)));
            }
            for (id, bytes) in end.take_tiles() {
                assert_eq!(store.insert(id, bytes.into()), None, "{id} was written twice");
            }
            log = end.head();
            assert_eq!(log.root.as_bytes(), naive.root().as_bytes());
        }
        for position in 0..log.size {
            let id = TileId::entries(position / TILE_WIDTH, log.size).unwrap();
            let entries = parse_entries(id, &store[&id]).unwrap();
            assert_eq!(entries[(position % TILE_WIDTH) as usize], entry(position));
        }
    }

    #[test]
    fn an_end_that_is_not_the_logs_is_refused() {
        let mut end = LogEnd::load(
            &LogHead { size: 0, root: Digest::from_bytes(*TreeHash::empty().as_bytes()) },
            &BTreeMap::new(),
        )
        .unwrap();
        for n in 0..3 {
            end.append(&entry(n)).unwrap();
        }
        let good: BTreeMap<TileId, Bytes> =
            end.take_tiles().into_iter().map(|(id, bytes)| (id, bytes.into())).collect();
        assert!(LogEnd::load(&end.head(), &good).is_ok());
        for id in good.keys() {
            let mut bad = good.clone();
            let mut bytes = bad[id].to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            bad.insert(*id, bytes.into());
            assert!(LogEnd::load(&end.head(), &bad).is_err(), "{id}");
            bad.remove(id);
            assert!(LogEnd::load(&end.head(), &bad).is_err(), "{id}");
        }
    }
}
