//! The log as a monitor reads it: from checkpoint and tiles alone.

use std::collections::BTreeMap;

use modunest_core::digest::Digest;
use modunest_core::index::{LogHead, Node, Update, update};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::SignedStatement;
use modunest_tlog::{
    Frontier, SignedCheckpoint, TILE_WIDTH, TileId, TreeHash, VerifyingKey, parse_entries,
};

use crate::registry::{ORIGIN, Registry};

/// Root of the tree over the first entries.
pub fn root_of(entries: &[SignedStatement]) -> Digest {
    let mut frontier = Frontier::new();
    for entry in entries {
        frontier.append(TreeHash::of_leaf(entry.bytes()));
    }
    Digest::from_bytes(*frontier.root().as_bytes())
}

/// Size and root that a checkpoint names.
pub fn checkpoint(bytes: &[u8], key: &VerifyingKey) -> LogHead {
    let signed = SignedCheckpoint::verify(bytes, ORIGIN, std::slice::from_ref(key)).unwrap();
    let checkpoint = signed.checkpoint;
    LogHead { size: checkpoint.size, root: Digest::from_bytes(*checkpoint.root.as_bytes()) }
}

impl Registry {
    /// Every entry. Every tile is what the entries give, the checkpoint's root and the head's
    /// as well, and the index is the fold of the entries that the head names.
    pub async fn log(&self) -> Vec<SignedStatement> {
        let head = self.head().await;
        let bytes = self.object(ObjectKey::Checkpoint).await.unwrap();
        let LogHead { size, root } = checkpoint(&bytes, &self.keys.log.verifying_key());
        let (mut log, mut frontier, mut tiles) = (Vec::new(), Frontier::new(), BTreeMap::new());
        for index in 0..size.div_ceil(TILE_WIDTH) {
            let id = TileId::entries(index, size).unwrap();
            let bundle = self.object(ObjectKey::Tile(id)).await.unwrap();
            for entry in parse_entries(id, &bundle).unwrap() {
                frontier.append(TreeHash::of_leaf(entry));
                log.push(SignedStatement::parse(entry.to_vec()).unwrap());
            }
            tiles.retain(|id: &TileId, _| id.is_full());
            tiles.extend(frontier.take_tiles());
        }
        assert_eq!(root_of(&log), root);
        for (id, expected) in tiles {
            assert_eq!(self.object(ObjectKey::Tile(id)).await, Some(expected), "{id}");
        }
        let known = usize::try_from(head.log.size).unwrap();
        assert_eq!(root_of(&log[..known]), head.log.root);
        assert_eq!(index_of(&log[..known]), head.index);
        let files = self.index().await;
        assert_eq!(files.values().map(|file| file.entries.len()).sum::<usize>(), known);
        log
    }
}

/// Root of the index that is built from nothing but the log.
fn index_of(log: &[SignedStatement]) -> Digest {
    if log.is_empty() {
        return Digest::of(&Node::EMPTY.to_bytes());
    }
    let additions: Vec<(u64, SignedStatement)> = (0..).zip(log.iter().cloned()).collect();
    match update(None, &additions, &BTreeMap::new()).unwrap() {
        Update::Done { root, .. } => root,
        need => panic!("an empty index needs {need:?}"),
    }
}
