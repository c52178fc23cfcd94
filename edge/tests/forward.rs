//! Requests below `/v1/`, passed to an API.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::StreamExt as _;
use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::problem::Code;
use reqwest::Method;
use support::{Server, Site, TRACE, TRACE_ID, field, problem};

/// Says what it was asked.
async fn echo(request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let headers = format!("{:?}", request.headers());
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let seen = [
        ("x-seen-line", line),
        ("x-seen-headers", headers),
        ("keep-alive", "timeout=1".to_owned()),
        ("x-dropped", "1".to_owned()),
        ("connection", "x-dropped".to_owned()),
    ];
    (axum::http::StatusCode::CREATED, seen, body).into_response()
}

/// One piece at once, and the other only after a while.
async fn drip() -> Response {
    let pieces = futures_util::stream::iter([0_u64, 400]).then(|wait_ms| async move {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        Ok::<_, std::convert::Infallible>(wait_ms.to_string())
    });
    Body::from_stream(pieces).into_response()
}

async fn site() -> (Site, Server) {
    let api = Router::new()
        .route("/v1/drip", get(drip))
        .route("/v1/{*rest}", any(echo))
        .route("/readyz", get(|| async { "ready" }))
        .route("/internal", get(|| async { "never to be reached" }));
    let api = Server::start(api).await;
    (Site::start(Some(api.origin())).await, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_whole_and_its_answer_comes_back() {
    let (site, api) = site().await;
    let response = site
        .request(Method::POST, "/v1/releases?dry=1&x=%20")
        .header("authorization", "Bearer token")
        .header("traceparent", TRACE)
        .header("x-forwarded-for", "192.0.2.1")
        .header("connection", "x-private")
        .header("x-private", "1")
        .body("the body")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(field(&response, "x-seen-line"), "POST /v1/releases?dry=1&x=%20");
    let seen = field(&response, "x-seen-headers").to_owned();
    assert!(seen.contains("Bearer token"), "{seen}");
    assert!(seen.contains(TRACE_ID) && !seen.contains(TRACE), "the next step: {seen}");
    assert!(seen.contains("192.0.2.1, 127.0.0.1"), "{seen}");
    assert!(seen.contains(&format!("\"host\": \"{}\"", api.address)), "{seen}");
    assert!(seen.contains("\"content-length\": \"8\""), "{seen}");
    assert!(!seen.contains("x-private"), "{seen}");
    assert_eq!(field(&response, "x-dropped"), "");
    assert_eq!(field(&response, "keep-alive"), "");
    assert_eq!(response.headers().get_all("traceparent").iter().count(), 1);
    assert!(field(&response, "traceparent").contains(TRACE_ID));
    assert_eq!(response.text().await.unwrap(), "the body");
    site.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streams() {
    let (site, api) = site().await;
    let mut body = site.get("/v1/drip").await.bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "0");
    let first_at = std::time::Instant::now();
    assert_eq!(body.next().await.unwrap().unwrap(), "400");
    assert!(first_at.elapsed() > Duration::from_millis(200), "the pieces came together");
    assert!(body.next().await.is_none());
    site.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_declared_or_not() {
    let (site, api) = site().await;
    let largest = vec![b'x'; BODY_MAX_BYTES];
    let response = site.request(Method::POST, "/v1/x").body(largest).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), BODY_MAX_BYTES);
    let declared = vec![b'x'; BODY_MAX_BYTES + 1];
    let response = site.request(Method::POST, "/v1/x").body(declared).send().await.unwrap();
    problem(response, Code::TooLarge).await;
    let pieces =
        (0..BODY_MAX_BYTES / 1024 + 1).map(|_| Ok::<_, std::convert::Infallible>(vec![b'x'; 1024]));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let response = site.request(Method::POST, "/v1/x").body(chunked).send().await.unwrap();
    problem(response, Code::TooLarge).await;
    site.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dot_segments_do_not_lead_out_of_the_api() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (site, api) = site().await;
    // By hand: a URL type would resolve the segments before they are sent.
    for path in ["/v1/../internal", "/v1/%2e%2e/internal", "/v1/x/../../internal"] {
        let mut stream = tokio::net::TcpStream::connect(site.edge.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    site.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_gone_is_said_so_and_files_go_on() {
    let (site, api) = site().await;
    let key = site.put_blob(b"x").await;
    let ready = site.get("/readyz").await;
    assert_eq!(ready.text().await.unwrap(), r#"{"status":"ready","bucket":"ready","api":"ready"}"#);
    api.stop().await;
    problem(site.get("/v1/whoami").await, Code::Unavailable).await;
    assert_eq!(site.get("/readyz").await.status(), 503);
    assert_eq!(site.get(&key.path()).await.status(), 200);
    site.stop().await;
}
