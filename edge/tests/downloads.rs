//! Downloads that readers make are told to the API, and nothing else is.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use modunest_core::api::DownloadBatch;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_edge::native::Downloads;
use reqwest::Method;
use support::{Server, Site, pattern};

type Told = Arc<Mutex<BTreeMap<Digest, u32>>>;

async fn take(State(told): State<Told>, Json(batch): Json<DownloadBatch>) -> StatusCode {
    let mut told = told.lock().unwrap();
    for entry in batch.downloads {
        *told.entry(entry.blob).or_default() += entry.count;
    }
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn what_begins_at_the_first_byte_of_a_blob_counts() {
    let told = Told::default();
    let router = Router::new().route("/v1/downloads", post(take)).with_state(Arc::clone(&told));
    let api = Server::start(router).await;
    let downloads = Downloads::start(api.origin(), "mnt_test".to_owned()).unwrap();
    let site = Site::start_counting(downloads.clone()).await;

    let small = site.put_blob(b"small").await;
    // Beyond what is kept in memory, so that it streams.
    let large = site.put_blob(&pattern(3 * 1024 * 1024)).await;
    let report = ObjectKey::Report(Digest::of(b"{}"));
    site.put(&report, *b"{}").await;
    for key in [small, large] {
        let get = || site.request(Method::GET, &key.path());
        let requests = [
            (get(), 200),
            (get().header("range", "bytes=0-1"), 206),
            (get().header("range", "bytes=2-"), 206),
            (get().header("range", "bytes=99999999-"), 416),
            (get().header("if-none-match", "*"), 304),
            (site.request(Method::HEAD, &key.path()), 200),
        ];
        for (request, status) in requests {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{key}");
            answer.bytes().await.unwrap();
        }
    }
    site.get(&report.path()).await;
    site.get(&ObjectKey::Blob(Digest::of(b"not there")).path()).await;
    site.stop().await;
    downloads.stop().await;
    let digests = [small, large].map(|key| (key.content_digest().unwrap(), 2));
    assert_eq!(*told.lock().unwrap(), BTreeMap::from(digests));
    api.stop().await;
}
