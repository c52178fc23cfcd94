//! Downloads on their way from the worker to the API: none is lost, none is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, response::IntoResponse as _};
use modunest_core::api::{DOWNLOADS_PATH, DownloadBatch};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_tests::process::until;
use modunest_tests::raw::Ask;
use modunest_tests::site::Server;
use serde_json::json;

use crate::objects::Objects;
use crate::shells::worker;

/// What the API does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Count,
    /// Nothing is counted.
    Refuse,
    /// It is counted, and nobody hears of it.
    CountAndFail,
}

#[derive(Default)]
struct Counted {
    turns: Vec<Turn>,
    told: Vec<DownloadBatch>,
    batches: BTreeSet<String>,
    blobs: BTreeMap<Digest, u32>,
}

type Shared = Arc<Mutex<Counted>>;

async fn count(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(batch): Json<DownloadBatch>,
) -> axum::response::Response {
    let mut counted = shared.lock().unwrap();
    if headers.get("authorization").is_none_or(|token| token != "Bearer mnt_for-counting") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    counted.told.push(batch.clone());
    let turn = if counted.turns.is_empty() { Turn::Count } else { counted.turns.remove(0) };
    // As the registry does: a batch that is repeated changes nothing.
    if turn != Turn::Refuse && counted.batches.insert(batch.id.to_string()) {
        for download in &batch.downloads {
            *counted.blobs.entry(download.blob).or_default() += download.count;
        }
    }
    let status = if turn == Turn::Count { 204 } else { 503 };
    StatusCode::from_u16(status).unwrap().into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_download_is_counted_once_whatever_fails() {
    let counted: Shared = Arc::default();
    let router = Router::new()
        .route(DOWNLOADS_PATH, post(count))
        .route("/readyz", get(|| async { "ready" }))
        .with_state(Arc::clone(&counted));
    let api = Server::start(router).await;
    let objects = Objects::new();
    let setup = worker(Some(&api.url)).secret("COUNT_TOKEN", "mnt_for-counting");
    let setup = setup.queue(json!({"maxBatchSize": 10, "maxBatchTimeout": 1, "retryDelay": 0}));
    let worker = objects
        .stored()
        .fold(setup, |setup, (key, content)| setup.object(&key, content))
        .start()
        .await;
    let blob = |name: &str| ObjectKey::Blob(objects.get(name).digest()).path();

    // More failures than the worker itself repeats: the batch goes back to the queue.
    counted.lock().unwrap().turns =
        vec![Turn::Refuse, Turn::CountAndFail, Turn::Refuse, Turn::Refuse];
    for name in ["small", "large", "small"] {
        assert_eq!(Ask::get(&blob(name)).answer(&worker.url).await.status, 200);
    }
    let first = |range: &str| Ask::get(&blob("large")).field("range", range);
    assert_eq!(first("bytes=0-99").answer(&worker.url).await.status, 206);
    // None of these hands out a blob's beginning.
    assert_eq!(first("bytes=100-").answer(&worker.url).await.status, 206);
    assert_eq!(Ask::new("HEAD", &blob("small")).answer(&worker.url).await.status, 200);
    let known = Ask::get(&blob("small")).field("if-none-match", "*");
    assert_eq!(known.answer(&worker.url).await.status, 304);
    assert_eq!(Ask::get("/head").answer(&worker.url).await.status, 200);

    let expected =
        BTreeMap::from([(objects.get("small").digest(), 2), (objects.get("large").digest(), 2)]);
    until("every download to be counted", async || {
        let counted = counted.lock().unwrap();
        (counted.turns.is_empty() && counted.blobs == expected).then_some(())
    })
    .await;
    // A batch that was counted without the worker hearing of it keeps its name.
    {
        let counted = counted.lock().unwrap();
        let ids: Vec<_> = counted.told.iter().map(|batch| batch.id.to_string()).collect();
        assert!(ids.len() >= 4, "{ids:?}");
        assert_eq!(ids[0], ids[1], "a repeated delivery has another name");
    }
    // Nothing comes later either.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(counted.lock().unwrap().blobs, expected);
}
