//! Blobs stream: the first bytes are out before the last are in, and memory stays small.

use std::time::Duration;

use modunest_core::digest::{Digest, Hasher};
use modunest_core::keys::ObjectKey;
use modunest_tests::gate::Gate;
use modunest_tests::raw::Ask;
use modunest_tests::site::{Server, Store, noise};
use modunest_tests::workerd::Worker;
use url::Url;

use crate::objects::discovery;
use crate::shells::{worker, worker_over_http};

const MEBIBYTE: usize = 1024 * 1024;
/// The size of a large archive.
const LARGE: usize = 20 * MEBIBYTE;
/// Let through before the gate is shut. What a shell and the system's sockets hold on the way
/// is less than what is kept back.
const LET_THROUGH: usize = 8 * MEBIBYTE;
/// How many read at the same time.
const READERS: usize = 8;
/// What they may cost a process together: less than two whole blobs, where each reader having
/// one would be eight.
const GROWTH_MAX: u64 = 2 * LARGE as u64;

/// Reads a blob of which the origin gives only a part until the reader has seen some of it.
async fn comes_as_it_goes(base: &Url, gate: &Gate, key: &ObjectKey, content: &[u8]) {
    gate.hold_after(LET_THROUGH);
    let mut answer = Ask::get(&key.path()).open(base).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut received = Vec::new();
    while received.len() < LET_THROUGH / 2 {
        let piece = tokio::time::timeout(Duration::from_secs(20), answer.piece()).await;
        let piece = piece.unwrap_or_else(|_| {
            panic!("{} bytes came, and nothing more before the last is there", received.len())
        });
        received.extend_from_slice(&piece.unwrap().unwrap());
    }
    gate.open();
    while let Some(piece) = answer.piece().await.unwrap() {
        received.extend_from_slice(&piece);
    }
    assert!(received == content, "{} bytes that are others", received.len());
}

/// Many read at once; what it cost the processes that `peak` looks at.
async fn costs_little(base: &Url, key: &ObjectKey, digest: Digest, peak: impl Fn() -> u64) {
    let path = key.path();
    // Whatever the first read needs is there afterwards.
    Ask::get(&path).answer(base).await;
    let before = peak();
    let reads = (0..READERS).map(|_| async {
        let mut answer = Ask::get(&path).open(base).await.unwrap();
        let (mut hasher, mut pieces) = (Hasher::new(), 0);
        while let Some(piece) = answer.piece().await.unwrap() {
            hasher.update(&piece);
            pieces += 1;
        }
        assert!(pieces > 1);
        assert_eq!(hasher.finish(), digest);
    });
    futures_util::future::join_all(reads).await;
    let grown = peak().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "memory grew by {grown} bytes");
}

/// Largest resident set so far of a process, in bytes (proc(5), `VmHWM`).
fn peak_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn runtime_peak_bytes(worker: &Worker) -> u64 {
    let processes = worker.runtime_processes();
    assert!(!processes.is_empty());
    processes.iter().map(|id| peak_bytes(&id.to_string())).sum()
}

/// A store with a large blob.
async fn store() -> (Store, ObjectKey, Vec<u8>) {
    let content = noise(LARGE);
    let key = ObjectKey::Blob(Digest::of(&content));
    let store = Store::start().await;
    store.put(&key, &content).await;
    (store, key, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_native_shell() {
    let (mut store, key, content) = store().await;
    let gate = Gate::start(&store.settings.s3_endpoint.as_deref().unwrap().parse().unwrap()).await;
    store.settings.s3_endpoint = Some(gate.url.as_str().trim_end_matches('/').to_owned());
    let edge = Server::native(&store, None, discovery()).await;
    comes_as_it_goes(&edge.url, &gate, &key, &content).await;
    let digest = Digest::of(&content);
    drop(content);
    // The store and the readers are in this process too.
    costs_little(&edge.url, &key, digest, || peak_bytes("self")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_worker_over_http() {
    let (store, key, content) = store().await;
    let origin = Server::native(&store, None, discovery()).await;
    let gate = Gate::start(&origin.url).await;
    let worker = worker_over_http(&gate.url, None).await;
    comes_as_it_goes(&worker.url, &gate, &key, &content).await;
    costs_little(&worker.url, &key, Digest::of(&content), || runtime_peak_bytes(&worker)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_worker_over_r2() {
    let content = noise(LARGE);
    let digest = Digest::of(&content);
    let key = ObjectKey::Blob(digest);
    let worker = worker(None).object(&key, &content).start().await;
    costs_little(&worker.url, &key, digest, || runtime_peak_bytes(&worker)).await;
}
