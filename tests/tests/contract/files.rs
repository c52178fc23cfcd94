//! Files, documents and checks.

use url::Url;

use crate::objects::Objects;
use crate::shells::{Native, worker_over_http, worker_over_r2};
use crate::table::{Names, differences, read};

const TABLE: &str = include_str!("files.http");

/// The table twice: the second time from whatever the first has left in memory.
async fn keeps_the_table(shell: &str, base: &Url, objects: &Objects) {
    let cases = read(TABLE, &Names { objects, further: Vec::new() });
    for time in ["first", "second"] {
        let wrong = differences(&cases, base, objects).await;
        assert!(
            wrong.is_empty(),
            "{shell}, {time} time: {} of {} answers differ\n\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_shell() {
    let objects = Objects::new();
    let native = Native::start(&objects, None).await;
    keeps_the_table("native", &native.server.url, &objects).await;
    native.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_over_r2() {
    let objects = Objects::new();
    let worker = worker_over_r2(&objects, None).await;
    keeps_the_table("worker over R2", &worker.url, &objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_over_an_http_origin() {
    let objects = Objects::new();
    let native = Native::start(&objects, None).await;
    let worker = worker_over_http(&native.server.url, None).await;
    keeps_the_table("worker over HTTP", &worker.url, &objects).await;
    drop(worker);
    native.stop().await;
}
