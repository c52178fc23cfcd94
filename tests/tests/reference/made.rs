//! Logs of awkward sizes, made with `modunest-tlog` and altered in one place each.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use modunest_tests::registry::signing_key;
use modunest_tests::site::Server;
use modunest_tlog::{Checkpoint, Frontier, TileId, TreeHash, VerifyingKey, push_entry};

use crate::reader::{Earlier, read, refusal};

const ORIGIN: &str = "log.example";

/// The log's files by their paths.
type Files = BTreeMap<String, Vec<u8>>;

struct Log {
    files: Files,
    key: VerifyingKey,
    /// Size and root at each size that was asked for.
    earlier: Vec<Earlier>,
}

impl Log {
    /// A log of `size` entries that keeps its states at the sizes of `earlier`.
    fn make(size: u64, earlier: &[u64]) -> Log {
        Log::with_entries((0..size).map(|number| format!("entry {number}\n")), size, earlier)
    }

    fn with_entries(entries: impl Iterator<Item = String>, size: u64, earlier: &[u64]) -> Log {
        let key = signing_key(ORIGIN, 3);
        let (mut files, mut kept) = (Files::new(), Vec::new());
        let mut frontier = Frontier::new();
        let mut bundle = Vec::new();
        for entry in entries {
            push_entry(&mut bundle, entry.as_bytes()).unwrap();
            let index = frontier.append(TreeHash::of_leaf(entry.as_bytes()));
            let tile = TileId::entries(index / 256, size).unwrap();
            if index % 256 + 1 == u64::from(tile.width()) {
                files.insert(tile.to_string(), std::mem::take(&mut bundle));
            }
            if earlier.contains(&frontier.size()) {
                kept.push((frontier.size(), frontier.root()));
            }
        }
        files.extend(frontier.take_tiles().into_iter().map(|(id, bytes)| (id.to_string(), bytes)));
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root: frontier.root() };
        let signed = checkpoint.sign(&key).unwrap();
        files.insert("checkpoint".to_owned(), signed.bytes().to_vec());
        Log { files, key: key.verifying_key(), earlier: kept }
    }

    async fn serve(&self) -> Server {
        let router = Router::new().fallback(file).with_state(Arc::new(self.files.clone()));
        Server::start(router).await
    }

    /// What the reader says of it when it believes it.
    async fn read(&self) -> String {
        let server = self.serve().await;
        let read = read(&server.url, &self.key, &self.earlier).await.good().stdout;
        server.stop().await;
        read
    }

    /// What the reader says of it when it refuses it.
    async fn refused(&self) -> String {
        let server = self.serve().await;
        let said = refusal(&server.url, &self.key, &self.earlier).await;
        server.stop().await;
        said
    }

    /// Changes one byte of a file.
    fn alter(&mut self, path: &str, at: usize) {
        self.files.get_mut(path).unwrap()[at] ^= 1;
    }
}

async fn file(State(files): State<Arc<Files>>, uri: Uri) -> Result<Bytes, StatusCode> {
    let path = uri.path().trim_start_matches('/');
    files.get(path).cloned().map(Bytes::from).ok_or(StatusCode::NOT_FOUND)
}

#[tokio::test]
async fn logs_around_the_border_of_a_tile_are_read() {
    for size in [1, 2, 255, 256, 257, 300, 511, 512, 513] {
        let log = Log::make(size, &[1, 2, 3, 255, 256, 257, size]);
        let (read, earlier) = (log.read().await, log.earlier.len());
        let expected = format!("{ORIGIN}: size {size}, root {}", log.earlier[earlier - 1].1);
        assert!(read.starts_with(&expected), "{read}");
        let expected = format!("{size} proven one by one, {earlier} earlier sizes consistent\n");
        assert!(read.ends_with(&expected), "{read}");
    }
}

#[tokio::test]
async fn a_log_with_tiles_on_three_levels_is_read() {
    // 257 full tiles, of which 256 make a full one above, and a start of a third level.
    let log = Log::make(66_000, &[1, 256, 65_535, 65_536, 65_537, 66_000]);
    assert!(log.files.contains_key("tile/2/000.p/1"));
    let read = log.read().await;
    assert!(read.contains(": size 66000, "), "{read}");
    assert!(read.ends_with("516 proven one by one, 6 earlier sizes consistent\n"), "{read}");
}

#[tokio::test]
async fn an_altered_entry_is_found() {
    let mut log = Log::make(300, &[]);
    // Behind the length of the first entry of the second bundle.
    log.alter("tile/entries/001.p/44", 2);
    let said = log.refused().await;
    assert!(said.starts_with("entry 256: "), "{said}");

    // In a large log not every entry is proven by itself, but all of them give the root.
    let mut log = Log::make(2_000, &[]);
    log.alter("tile/entries/003", 40);
    let said = log.refused().await;
    assert!(said.starts_with("the entries give root "), "{said}");
}

#[tokio::test]
async fn an_altered_tile_is_found() {
    for (size, tile) in [
        (300, "tile/0/000"),
        (300, "tile/0/001.p/44"),
        (300, "tile/1/000.p/1"),
        (2_000, "tile/0/003"),
        (2_000, "tile/0/007.p/208"),
        (2_000, "tile/1/000.p/7"),
    ] {
        let mut log = Log::make(size, &[]);
        log.alter(tile, 7);
        let said = log.refused().await;
        // Go's reader of tiles passes over some full ones at some sizes (CVE-2026-56865); the
        // proof that comes of those fails all the same.
        let found = ["downloaded inconsistent tile", "invalid transparency proof"];
        assert!(found.iter().any(|found| said.contains(found)), "{size}, {tile}: {said}");
    }
}

#[tokio::test]
async fn an_entry_that_is_left_out_or_added_is_found() {
    let mut log = Log::make(300, &[]);
    let bundle = log.files.get_mut("tile/entries/001.p/44").unwrap();
    push_entry(bundle, b"one more").unwrap();
    assert!(log.refused().await.contains("has 45 entries, not 44"));
}

#[tokio::test]
async fn a_fork_is_no_prefix() {
    // Two logs that differ in one early entry, shown to one reader at two times.
    let fork = Log::with_entries((0..270).map(|number| format!("fork {number}\n")), 270, &[260]);
    let mut log = Log::make(300, &[260]);
    assert!(log.read().await.ends_with("1 earlier sizes consistent\n"));
    log.earlier = fork.earlier;
    let said = log.refused().await;
    assert!(said.starts_with("size 260 is no prefix of size 300: "), "{said}");
}

#[tokio::test]
async fn a_checkpoint_that_another_key_signed_is_refused() {
    let mut log = Log::make(3, &[]);
    log.key = signing_key(ORIGIN, 4).verifying_key();
    assert!(log.refused().await.contains("note has no verifiable signatures"));
}
