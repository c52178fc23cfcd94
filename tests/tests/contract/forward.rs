//! Requests that an edge passes on to the API: whole, both ways, as they come.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::problem::Code;
use modunest_tests::client::Answer;
use modunest_tests::raw::{Ask, Outgoing};
use modunest_tests::site::{Server, Store};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use url::Url;

use crate::objects::{Objects, discovery};
use crate::shells::{worker_over_http, worker_over_r2};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Between two pieces of an answer that is made slowly.
const PAUSE: Duration = Duration::from_millis(400);
/// Longer than any edge waits for the API.
const NEVER: Duration = Duration::from_secs(45);

/// Says what it was asked.
async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut fields = serde_json::Map::new();
    for name in parts.headers.keys() {
        let lines: Vec<&str> =
            parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        fields.insert(name.to_string(), lines.join(", ").into());
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let seen = json!({
        "line": format!("{} {}", parts.method, parts.uri),
        "fields": fields,
        "body": String::from_utf8_lossy(&body),
    });
    let own = [
        ("x-answered", "yes"),
        ("content-type", "application/json"),
        ("keep-alive", "timeout=1"),
        ("x-dropped", "1"),
        ("connection", "x-dropped"),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
    ];
    (StatusCode::CREATED, own, seen.to_string()).into_response()
}

/// One piece at once, and the other only after a while.
async fn drip() -> Response {
    let pieces = futures_util::stream::iter([Duration::ZERO, PAUSE]).then(|pause| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>("piece ")
    });
    Body::from_stream(pieces).into_response()
}

/// Says when the first and when the last piece of a request came.
async fn timed(request: Request) -> Response {
    let mut body = request.into_body().into_data_stream();
    let (mut first, mut last) = (None, Instant::now());
    while let Some(piece) = body.next().await {
        piece.unwrap();
        last = Instant::now();
        first.get_or_insert(last);
    }
    let between = last.duration_since(first.unwrap_or(last));
    between.as_millis().to_string().into_response()
}

async fn refuse() -> Response {
    let fields = [
        ("content-type", "application/problem+json"),
        ("retry-after", "7"),
        ("www-authenticate", "Bearer"),
        ("cache-control", "no-store"),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, fields, r#"{"code":"of its own"}"#).into_response()
}

async fn api() -> Server {
    let router = Router::new()
        .route("/v1/drip", get(drip))
        .route("/v1/timed", post(timed))
        .route("/v1/refuse", get(refuse))
        .route("/v1/elsewhere", get(|| async { (StatusCode::SEE_OTHER, [("location", "/head")]) }))
        .route("/v1/never", get(|| tokio::time::sleep(NEVER)))
        .route("/v1/{*rest}", any(echo))
        .route("/readyz", get(|| async { "ready" }))
        .route("/internal", any(|| async { "never to be reached" }));
    Server::start(router).await
}

/// Everything that forwarding promises, from the edge at `base` in front of `api`.
async fn forwards(base: &Url, api: Server) {
    // Beside everything else, since it takes so long.
    let never = Ask::get("/v1/never").field("traceparent", TRACE);
    let began = Instant::now();
    let never = never.answer(base);
    let others = async {
        whole_both_ways(base, &api).await;
        answers_pass_as_they_are(base).await;
        streams(base).await;
        too_large(base).await;
        stays_below_the_prefix(base).await;
        let ready: Value = Ask::get("/readyz").answer(base).await.value().unwrap();
        assert_eq!(ready["api"], "ready");
    };
    let (never, ()) = tokio::join!(never, others);
    unavailable(&never);
    assert!(began.elapsed() < NEVER, "the edge waited for ever");

    api.stop().await;
    unavailable(&Ask::get("/v1/whoami").field("traceparent", TRACE).answer(base).await);
    let ready = Ask::get("/readyz").answer(base).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    let ready: Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((&ready["bucket"], &ready["api"]), (&json!("ready"), &json!("unavailable")));
    // Whoever reads does not notice.
    assert_eq!(Ask::get("/.well-known/modunest.json").answer(base).await.status, 200);
}

fn unavailable(answer: &Answer) {
    let problem = answer.problem();
    assert_eq!((problem.code, problem.trace_id.as_str()), (Code::Unavailable, TRACE_ID));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.header("traceparent").contains(TRACE_ID));
}

async fn whole_both_ways(base: &Url, api: &Server) {
    let answer = Ask::new("POST", "/v1/releases?dry=1&x=%20&y=a+b")
        .field("authorization", "Bearer token")
        .field("content-type", "application/json")
        .field("traceparent", TRACE)
        .field("x-forwarded-for", "192.0.2.1")
        .field("connection", "x-private")
        .field("x-private", "1")
        .body("the body")
        .answer(base)
        .await;
    assert_eq!(answer.status, 201);
    let seen: Value = answer.value().unwrap();
    assert_eq!(seen["line"], "POST /v1/releases?dry=1&x=%20&y=a+b");
    assert_eq!(seen["body"], "the body");
    let fields = &seen["fields"];
    assert_eq!(fields["authorization"], "Bearer token");
    assert_eq!(fields["content-type"], "application/json");
    assert_eq!(fields["host"], api.url.authority());
    assert_eq!(fields["content-length"], "8");
    let trace = fields["traceparent"].as_str().unwrap();
    assert!(trace.contains(TRACE_ID) && trace != TRACE, "not the trace's next step: {trace}");
    let hops = fields["x-forwarded-for"].as_str().unwrap();
    assert_eq!(hops, "192.0.2.1, 127.0.0.1", "the peer is not the last that is named");
    assert_eq!(fields["x-private"], Value::Null, "a field of one connection went on");

    assert_eq!(answer.header("x-answered"), "yes");
    assert_eq!(answer.header("content-type"), "application/json");
    for name in ["x-dropped", "keep-alive"] {
        assert!(answer.headers.get(name).is_none(), "{name} came back");
    }
    let steps: Vec<_> = answer.headers.get_all("traceparent").iter().collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(steps[0].to_str().unwrap().contains(TRACE_ID), "{steps:?}");

    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = Ask::new(method, "/v1/x%2Fy/z").answer(base).await;
        let seen: Value = answer.value().unwrap();
        assert_eq!(seen["line"], format!("{method} /v1/x%2Fy/z"));
    }
    let head = Ask::new("HEAD", "/v1/x").answer(base).await;
    assert_eq!((head.status.as_u16(), head.header("x-answered")), (201, "yes"));
    // Every other request starts a trace of its own.
    let seen: Value = Ask::get("/v1/x").answer(base).await.value().unwrap();
    let trace = seen["fields"]["traceparent"].as_str().unwrap();
    assert!(trace.len() == 55 && !trace.contains(TRACE_ID), "{trace}");
}

async fn answers_pass_as_they_are(base: &Url) {
    let answer = Ask::get("/v1/refuse").answer(base).await;
    assert_eq!(answer.status, 503);
    assert_eq!(&*answer.body, br#"{"code":"of its own"}"#);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    // Where to go is for the client to decide.
    let answer = Ask::get("/v1/elsewhere").answer(base).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/head"));
}

async fn streams(base: &Url) {
    let mut answer = Ask::get("/v1/drip").open(base).await.unwrap();
    assert_eq!(answer.piece().await.unwrap().unwrap(), "piece ");
    let first = Instant::now();
    assert_eq!(answer.piece().await.unwrap().unwrap(), "piece ");
    assert!(first.elapsed() > PAUSE / 2, "the pieces came together");
    assert!(answer.piece().await.unwrap().is_none());

    let (pieces, body) = mpsc::channel(1);
    let request = Ask::new("POST", "/v1/timed");
    let (answer, ()) = tokio::join!(request.open_with(base, outgoing(body)), async {
        pieces.send(Bytes::from_static(b"first")).await.unwrap();
        tokio::time::sleep(PAUSE).await;
        pieces.send(Bytes::from_static(b"last")).await.unwrap();
        drop(pieces);
    });
    let answer = answer.unwrap().read().await.unwrap();
    let between: u128 = std::str::from_utf8(&answer.body).unwrap().parse().unwrap();
    assert!(between > PAUSE.as_millis() / 2, "the request's pieces came together");
}

fn outgoing(pieces: mpsc::Receiver<Bytes>) -> Outgoing {
    let frames = futures_util::stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (Ok(Frame::data(piece)), pieces))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn too_large(base: &Url) {
    let post = |size| Ask::new("POST", "/v1/x").body(vec![b'x'; size]);
    let seen: Value = post(BODY_MAX_BYTES).answer(base).await.value().unwrap();
    assert_eq!(seen["body"].as_str().unwrap().len(), BODY_MAX_BYTES);
    let declared = post(BODY_MAX_BYTES + 1).field("traceparent", TRACE).answer(base).await;
    let problem = declared.problem();
    assert_eq!((problem.code, problem.trace_id.as_str()), (Code::TooLarge, TRACE_ID));

    let pieces =
        (0..=BODY_MAX_BYTES / 1024).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1024]))));
    let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync();
    let undeclared = Ask::new("POST", "/v1/x").open_with(base, body).await.unwrap();
    let undeclared = undeclared.read().await.unwrap();
    assert_eq!(undeclared.problem().code, Code::TooLarge);
}

/// No spelling of a path leads out of the API's own.
async fn stays_below_the_prefix(base: &Url) {
    for path in
        ["/v1/../internal", "/v1/%2e%2e/internal", "/v1/x/../../internal", "/v1/.%2E/internal"]
    {
        let answer = Ask::get(path).answer(base).await;
        // A runtime may fold the segments before it asks us; then there is nothing there.
        let code = answer.problem().code;
        assert!(matches!(code, Code::InvalidRequest | Code::NotFound), "{path}: {answer:?}");
    }
}

/// All at once, since each waits half a minute for an API that never answers.
#[tokio::test(flavor = "multi_thread")]
async fn every_shell_forwards() {
    tokio::join!(native_forwards(), worker_over_r2_forwards(), worker_over_http_forwards());
}

async fn native_forwards() {
    let (store, api) = (Store::start().await, api().await);
    let edge = Server::native(&store, Some(api.url.clone()), discovery()).await;
    forwards(&edge.url, api).await;
}

async fn worker_over_r2_forwards() {
    let api = api().await;
    let worker = worker_over_r2(&Objects::new(), Some(&api.url)).await;
    forwards(&worker.front, api).await;
}

async fn worker_over_http_forwards() {
    let (store, api) = (Store::start().await, api().await);
    let origin = Server::native(&store, None, discovery()).await;
    let worker = worker_over_http(&origin.url, Some(&api.url)).await;
    forwards(&worker.front, api).await;
}
