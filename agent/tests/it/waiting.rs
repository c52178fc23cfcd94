//! Components that wait in their host, or compute on and on: neither holds a thread that others
//! need, and both end at their deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use modunest_agent::Agent;
use modunest_agent::config::grants::Grant;
use modunest_agent::config::{Config, Pattern};
use modunest_sdk::operation as op;
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::outbound::Send;

use crate::homes::{Home, component};
use crate::plugins::{release, route};
use crate::process::plugin;
use crate::registry::Registry;
use crate::upkeep::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

/// Calls that wait at the same time.
const CALLS: usize = 32;

const WAITS: &str = "\n[capabilities]\nhttp = [\"granted.example\"]\n\n[[route]]\npath = \"/waits\"\nmethods = [\"GET\", \"POST\"]\n";

/// A component, a native neighbour, and a server that never answers.
struct Host {
    agent: Agent,
    _folder: tempfile::TempDir,
    port: u16,
    /// Requests that came to the server.
    came: Arc<AtomicUsize>,
    client: reqwest::Client,
}

impl Host {
    async fn start(change: impl FnOnce(&mut Config)) -> Host {
        let registry = Registry::start().await;
        registry.publish(component("demo/waits", WAITS));
        registry.publish(component("demo/other", &route("/other")));
        registry.publish(release("demo/native", "1.0.0", &[], &route("/native")));
        let folder = tempfile::tempdir().unwrap();
        let names = ["demo/waits", "demo/other", "demo/native"];
        let mut config = registry.config(folder.path(), &names.map(|name| (name, "^1")));
        Home::Inside.settle(&mut config);
        config.host.load_timeout = PATIENCE;
        config.gateway_limits.plugin_calls = 2 * CALLS;
        config.host.grants.rules.push(Grant {
            plugins: vec![Pattern::Plugin("demo/waits".parse().unwrap())],
            allow: vec!["http:granted.example".parse().unwrap()],
            defaults: true,
            quota: None,
        });
        config.host.grants.quota.http_concurrent = 2 * CALLS as u64;
        let outbound = &mut config.host.grants.outbound;
        outbound.networks = vec!["127.0.0.0/8".parse().unwrap()];
        outbound.addresses.insert("granted.example".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        let tiers = names.map(|name| plugin(&agent, name).tier);
        assert_eq!(tiers, ["component", "component", "process"]);
        let came = Arc::new(AtomicUsize::new(0));
        let port = serve(came.clone()).await;
        Host { agent, _folder: folder, port, came, client: reqwest::Client::new() }
    }

    fn ask(&self, path: &str, body: Vec<u8>) -> impl Future<Output = u16> + use<> {
        let url = format!("http://{}{path}", self.agent.gateway_addr());
        let request = self.client.get(url).body(body);
        async move { request.send().await.unwrap().status().as_u16() }
    }

    /// A call that asks the server that never answers.
    fn wait(&self) -> impl Future<Output = u16> + use<> {
        let never = Send::get(&format!("http://granted.example:{}/never", self.port)).encode();
        self.ask(&format!("/waits/ask/{}", op::HTTP_SEND), never)
    }

    /// Until so many requests have come to the server.
    async fn until_came(&self, count: usize) {
        let waiting = async {
            while self.came.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("all calls get there");
    }

    /// What the component counts, which is its state.
    async fn count(&self) -> String {
        let url = format!("http://{}/waits/count", self.agent.gateway_addr());
        let answer = self.client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    }
}

async fn serve(came: Arc<AtomicUsize>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let never = async move || {
        came.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<&'static str>().await
    };
    let router = Router::new().route("/never", get(never));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// Threads of this process, in which the agent is.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_hold_no_thread_and_end_with_their_clients() {
    let host = Host::start(|config| {
        config.host.component.stores.insert("demo/waits".parse().unwrap(), CALLS);
        // Nothing but its client's end ends a call.
        config.host.call_timeout = 10 * PATIENCE;
    })
    .await;
    // What is made at the first use is there before it is counted.
    let first = tokio::spawn(host.wait());
    host.until_came(1).await;
    assert_eq!(host.ask("/native", Vec::new()).await, 200);
    let before = threads();
    let waiting: Vec<_> = (1..CALLS).map(|_| tokio::spawn(host.wait())).collect();
    host.until_came(CALLS).await;
    // One more that waits for its turn holds none either.
    let queued = tokio::spawn(host.wait());
    for _ in 0..20 {
        assert_eq!(host.ask("/native", Vec::new()).await, 200);
        assert_eq!(host.ask("/other/now", Vec::new()).await, 200);
    }
    let more = threads().saturating_sub(before);
    assert!(more < CALLS / 4, "{more} threads more for {CALLS} calls");
    assert!(!first.is_finished() && waiting.iter().all(|call| !call.is_finished()));

    // Their clients go away: every store is free again, with what it kept.
    for call in waiting.into_iter().chain([first, queued]) {
        call.abort();
    }
    for _ in 0..CALLS {
        let count = tokio::time::timeout(PATIENCE, host.count()).await.expect("a store is free");
        assert!(count.parse::<usize>().unwrap() > 0);
    }
    assert_eq!(plugin(&host.agent, "demo/waits").restarts, Some(0));
    host.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_the_store_and_costs_no_state() {
    let host = Host::start(|config| config.host.call_timeout = 10 * PATIENCE).await;
    assert_eq!(host.count().await, "1");
    let client = tokio::spawn(host.wait());
    host.until_came(1).await;
    client.abort();
    let counted = tokio::time::timeout(PATIENCE, host.count()).await;
    assert_eq!(counted.expect("the store is free"), "2");
    host.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_open_no_breaker() {
    const LEAVE: usize = 6;
    let host = Host::start(|config| config.host.call_timeout = 10 * PATIENCE).await;
    let failures = modunest_agent::config::LifecycleSettings::default().breaker.failures;
    assert!(LEAVE > failures as usize, "{failures}");
    assert_eq!(host.count().await, "1");
    let running = async |count: u64| {
        let is_so = async || plugin(&host.agent, "demo/waits").running == count;
        wait_for("the calls", is_so).await;
    };
    // One has the only store, and the others wait for it.
    let held = tokio::spawn(host.wait());
    host.until_came(1).await;
    let queued: Vec<_> = (0..LEAVE).map(|_| tokio::spawn(host.wait())).collect();
    running(LEAVE as u64 + 1).await;
    queued.iter().for_each(tokio::task::JoinHandle::abort);
    running(1).await;
    let seen = plugin(&host.agent, "demo/waits");
    assert_eq!((seen.breaker.as_str(), seen.errors), ("closed", 0), "{seen:?}");
    assert_eq!(seen.outcomes["abandoned"], LEAVE as u64, "{seen:?}");
    assert!(!seen.outcomes.contains_key("late"), "{seen:?}");
    held.abort();
    let counted = tokio::time::timeout(PATIENCE, host.count()).await;
    assert_eq!(counted.expect("the plugin answers"), "2");
    host.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_call_that_waits_outside() {
    let host = Host::start(|config| config.host.call_timeout = Duration::from_secs(1)).await;
    for call in 1..=3 {
        let status = host.wait().await;
        // The host call may be the first to notice, and its caller then hears of it.
        assert!(status == 504 || status == 200, "{status}");
        host.until_came(call).await;
        // Whether its store was given up or not, it serves.
        host.count().await;
    }
    host.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_compute_without_end_stop_nobody_else() {
    const LOOPS: usize = 4;
    let host = Host::start(|config| {
        config.host.component.stores.insert("demo/waits".parse().unwrap(), LOOPS);
        config.host.call_timeout = Duration::from_secs(3);
    })
    .await;
    let loops: Vec<_> =
        (0..LOOPS).map(|_| tokio::spawn(host.ask("/waits/spin", Vec::new()))).collect();
    let mut answered = 0;
    while loops.iter().any(|call| !call.is_finished()) {
        assert_eq!(host.ask("/other/now", Vec::new()).await, 200);
        assert_eq!(host.ask("/native", Vec::new()).await, 200);
        answered += 1;
    }
    // Between two looks of theirs at the clock, others have their turn.
    assert!(answered > LOOPS, "{answered}");
    for call in loops {
        assert_eq!(call.await.unwrap(), 504);
    }
    assert!(plugin(&host.agent, "demo/waits").restarts <= Some(LOOPS as u64));
    host.agent.shutdown().await;
}
