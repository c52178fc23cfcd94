//! The bucket: changing, damaged, slow, large, or gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Code;
use modunest_tlog::TileId;
use reqwest::Method;
use support::{Site, field, pattern, problem};

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_seen_by_the_very_next_request() {
    let site = Site::start(None).await;
    for key in ObjectKey::CHANGING {
        changes(&site, key).await;
    }
    site.stop().await;
}

async fn changes(site: &Site, key: ObjectKey) {
    let path = key.path();
    let mut tag = String::from("\"none\"");
    for epoch in 0..40 {
        let content = format!("{key} {epoch}");
        site.put(&key, content.as_bytes()).await;
        // Many ask at once; each of them came after the write.
        let asked =
            (0..8).map(|_| site.request(Method::GET, &path).header("if-none-match", &tag).send());
        let mut next = String::new();
        for response in futures_util::future::join_all(asked).await {
            let response = response.unwrap();
            assert_eq!(response.status(), 200, "epoch {epoch}");
            assert_eq!(field(&response, "cache-control"), "public, max-age=1, must-revalidate");
            next = field(&response, "etag").to_owned();
            assert_eq!(response.text().await.unwrap(), content);
        }
        assert_eq!(next, format!("\"{}\"", Digest::of(content.as_bytes())));
        let again = site.request(Method::GET, &path).header("if-none-match", &next);
        assert_eq!(again.send().await.unwrap().status(), 304);
        tag = next;
    }
    site.delete(&key).await;
    problem(site.get(&path).await, Code::NotFound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_by_its_position_is_handed_on_and_not_kept() {
    let site = Site::start(None).await;
    let hashes = ObjectKey::Tile(TileId::hashes(0, 0, 256).unwrap());
    let entries = ObjectKey::Tile(TileId::entries(0, 3).unwrap());
    for key in [hashes, entries] {
        let path = key.path();
        problem(site.get(&path).await, Code::NotFound).await;
        for content in [pattern(8192), pattern(4096)] {
            site.put(&key, content.clone()).await;
            let response = site.get(&path).await;
            assert_eq!(response.status(), 200, "{key}");
            assert_eq!(field(&response, "cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(field(&response, "content-type"), "application/octet-stream");
            let tag = field(&response, "etag").to_owned();
            assert_eq!(tag, format!("\"{}\"", Digest::of(&content)));
            assert_eq!(response.bytes().await.unwrap(), content);
            let again = site.request(Method::GET, &path).header("if-none-match", tag);
            assert_eq!(again.send().await.unwrap().status(), 304);
            let part = site.request(Method::GET, &path).header("range", "bytes=4000-").send();
            let part = part.await.unwrap();
            assert_eq!(part.status(), 206);
            assert_eq!(part.bytes().await.unwrap(), content[4000..]);
        }
        site.delete(&key).await;
        problem(site.get(&path).await, Code::NotFound).await;
    }
    // No tile of hashes is that long.
    site.put(&hashes, pattern(8193)).await;
    problem(site.get(&hashes.path()).await, Code::Unavailable).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_refused_until_it_is_whole() {
    let site = Site::start(None).await;
    let key = ObjectKey::Index(Digest::of(b"right"));
    site.put(&key, *b"wrong").await;
    for _ in 0..2 {
        let refused = problem(site.get(&key.path()).await, Code::Unavailable).await;
        assert!(refused.detail.contains("damaged"), "{}", refused.detail);
    }
    site.put(&key, *b"right").await;
    assert_eq!(site.get(&key.path()).await.text().await.unwrap(), "right");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_gone_is_said_so_and_memory_goes_on() {
    let mut site = Site::start(None).await;
    let kept = site.put_blob(b"kept").await;
    assert_eq!(site.get(&kept.path()).await.status(), 200);
    site.put(&ObjectKey::Head, *b"head").await;
    assert_eq!(site.get("/head").await.status(), 200);
    site.stop_s3().await;
    let missing = ObjectKey::Blob(Digest::of(b"never asked for"));
    for path in [missing.path(), "/head".to_owned()] {
        problem(site.get(&path).await, Code::Unavailable).await;
    }
    assert_eq!(site.get(&kept.path()).await.text().await.unwrap(), "kept");
    assert_eq!(site.get("/healthz").await.status(), 200);
    let response = site.get("/readyz").await;
    assert_eq!(response.status(), 503);
    assert!(response.text().await.unwrap().contains(r#""bucket":"unavailable""#));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_unavailable_and_not_missing_files() {
    let site = Site::start(None).await;
    site.s3.delete_bucket().bucket(support::BUCKET).send().await.unwrap();
    problem(site.get("/head").await, Code::Unavailable).await;
    let key = ObjectKey::Blob(Digest::of(b"x"));
    problem(site.get(&key.path()).await, Code::Unavailable).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_come_together_all_get_it() {
    let site = Site::start(None).await;
    let content = pattern(1024 * 1024);
    let key = site.put_blob(&content).await;
    let path = key.path();
    let answers = futures_util::future::join_all((0..50).map(|_| site.get(&path))).await;
    for answer in answers {
        assert!(answer.bytes().await.unwrap() == content);
    }
    // From then on the bucket is not asked.
    site.delete(&key).await;
    assert!(site.get(&path).await.bytes().await.unwrap() == content);
    // A reader with no memory finds it gone.
    let forgetful = site.another_edge(0).await;
    let url = format!("http://{}{path}", forgetful.address);
    problem(site.client.get(url).send().await.unwrap(), Code::NotFound).await;
    forgetful.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_come_together_cost_one_read() {
    const READERS: usize = 50;
    let site = Site::start(None).await;
    let content = pattern(64 * 1024);
    let key = site.put_blob(&content).await;
    site.put(&ObjectKey::Head, *b"head").await;
    let (edge, gets) = site.slow_edge().await;
    let get_all = async |path: &str| {
        let url = format!("http://{}{path}", edge.address);
        let answers = (0..READERS).map(|_| site.client.get(&url).send());
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
        gets.swap(0, Ordering::SeqCst)
    };
    assert_eq!(get_all(&key.path()).await, 1);
    assert_eq!(get_all(&key.path()).await, 0);
    // The head is asked for anew by whoever comes after a question was put; how many
    // questions that makes depends on when the readers arrive.
    let questions = get_all("/head").await;
    assert!((1..=READERS / 5).contains(&questions), "{questions} questions for {READERS} readers");
    edge.stop().await;
    site.stop().await;
}

/// Largest resident set so far, in bytes (proc(5), `VmHWM`).
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_streams_in_little_memory() {
    const SIZE: usize = 20 * 1024 * 1024;
    const READERS: usize = 8;
    let site = Site::start(None).await;
    let content = pattern(SIZE);
    let digest = Digest::of(&content);
    let key = site.put_blob(&content).await;
    drop(content);
    let before = peak_memory_bytes();
    let path = key.path();
    let reads = (0..READERS).map(|_| async {
        let mut body = site.get(&path).await.bytes_stream();
        let mut hasher = modunest_core::digest::Hasher::new();
        while let Some(piece) = body.next().await {
            hasher.update(&piece.unwrap());
        }
        assert_eq!(hasher.finish(), digest);
    });
    futures_util::future::join_all(reads).await;
    let grown = peak_memory_bytes() - before;
    // Eight whole copies would be 160 MiB; the client and the store are in this process too.
    assert!(grown < SIZE as u64 * 2, "memory grew by {grown} bytes");
    site.stop().await;
}
