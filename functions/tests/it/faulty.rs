//! Services between which and a process things go wrong: a proxy that is slow, loses answers,
//! fails, and tells when the process is to die, by a seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Longest body that passes.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Random numbers that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How often what goes wrong, in percent of the requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Answered by a failure, and not carried out.
    pub failed: u64,
    /// Carried out, and answered by a failure.
    pub lost: u64,
    /// Carried out after some milliseconds.
    pub slow: u64,
}

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Before its n-th write, from 1.
    Before(u64),
    /// When its n-th write was carried out, before it learns of that.
    After(u64),
}

struct Plan {
    weather: Weather,
    random: Random,
    death: Option<Death>,
}

struct Shared {
    plan: Mutex<Plan>,
    writes: AtomicU64,
    dead: Notify,
    http: reqwest::Client,
}

/// The way of one process to its services.
pub struct Faulty {
    shared: Arc<Shared>,
    pub s3: String,
    pub dynamodb: String,
    servers: [JoinHandle<()>; 2],
}

impl Faulty {
    pub async fn start(s3: &str, dynamodb: &str, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            plan: Mutex::new(Plan {
                weather: Weather::default(),
                random: Random(seed),
                death: None,
            }),
            writes: AtomicU64::new(0),
            dead: Notify::new(),
            http: modunest_runtime::http::client().unwrap(),
        });
        let (s3, first) = serve(&shared, s3).await;
        let (dynamodb, second) = serve(&shared, dynamodb).await;
        Faulty { shared, s3, dynamodb, servers: [first, second] }
    }

    pub fn weather(&self, weather: Weather) {
        self.shared.plan.lock().unwrap().weather = weather;
    }

    /// Does `work` until it ends or dies. `None`: it died, and there was no answer.
    pub async fn live<T>(&self, death: Option<Death>, work: impl Future<Output = T>) -> Option<T> {
        self.shared.writes.store(0, Ordering::SeqCst);
        self.shared.plan.lock().unwrap().death = death;
        tokio::select! {
            biased;
            () = self.shared.dead.notified() => None,
            done = work => Some(done),
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(shared: &Arc<Shared>, to: &str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = (Arc::clone(shared), to.trim_end_matches('/').to_owned());
    let router = Router::new().fallback(pass).with_state(state);
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, server)
}

async fn pass(
    State((shared, to)): State<(Arc<Shared>, String)>,
    request: Request,
) -> Response<Body> {
    let target = request.headers().get("x-amz-target").and_then(|it| it.to_str().ok());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD)
        || target.is_some_and(|it| it.ends_with(".GetItem") || it.ends_with(".Query"));
    let (failed, lost, pause, death) = {
        let mut plan = shared.plan.lock().unwrap();
        let weather = plan.weather;
        let failed = plan.random.chance(weather.failed);
        let lost = plan.random.chance(weather.lost);
        let slow = plan.random.chance(weather.slow);
        let pause = if slow { 1 + plan.random.below(40) } else { 0 };
        (failed, lost, Duration::from_millis(pause), plan.death)
    };
    let write = if reads { 0 } else { shared.writes.fetch_add(1, Ordering::SeqCst) + 1 };
    if !reads && death.is_some_and(|death| matches!(death, Death::Before(n) if n <= write)) {
        shared.dead.notify_one();
        return std::future::pending().await;
    }
    tokio::time::sleep(pause).await;
    if failed {
        return broken();
    }
    let answer = forward(&shared.http, &to, request).await;
    if !reads && death.is_some_and(|death| matches!(death, Death::After(n) if n <= write)) {
        shared.dead.notify_one();
        return std::future::pending().await;
    }
    if lost { broken() } else { answer }
}

/// What a service answers when it stumbles; the SDK tries again.
fn broken() -> Response<Body> {
    Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(Body::empty()).unwrap()
}

async fn forward(http: &reqwest::Client, to: &str, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES).await.unwrap();
    // The host stays as the process signed it.
    let sent = http
        .request(parts.method, format!("{to}{}", parts.uri))
        .headers(parts.headers)
        .body(body)
        .send()
        .await;
    let Ok(answer) = sent else { return broken() };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "connection" {
            response = response.header(name, value);
        }
    }
    match answer.bytes().await {
        Ok(bytes) => response.body(Body::from(bytes)).unwrap(),
        Err(_) => broken(),
    }
}
