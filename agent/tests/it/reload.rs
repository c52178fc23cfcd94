//! Changes while calls come in: state handed over, refused, and taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modunest_agent::sync::Options;
use modunest_agent::{Agent, Error};

use crate::homes::Home;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::{plugin, runs, until_dead};
use crate::registry::{Registry, Release};
use crate::turns::Heard;
use crate::upkeep::wait_for;

const UPDATE: Options = Options { frozen: false, offline: false, update: true };

fn counter(version: &str, macros: &[&str], state: &str) -> Release {
    let macros: Vec<&str> = macros.iter().copied().chain(["STATE"]).collect();
    release("demo/counter", version, &macros, &(route("/count") + state))
}

fn state(version: u32, accepts: &[u32]) -> String {
    format!("\n[state]\nversion = {version}\naccepts = {accepts:?}\n")
}

async fn get(agent: &Agent, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", agent.gateway_addr())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Requests from several callers at once, until it is told to stop.
struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(u16, Duration)>>>,
}

impl Callers {
    fn start(agent: &Agent, path: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("http://{}{path}", agent.gateway_addr());
        let caller = |_| {
            let (stop, url) = (stop.clone(), url.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let answer = client.get(&url).send().await.unwrap();
                    let status = answer.status().as_u16();
                    answer.bytes().await.unwrap();
                    seen.push((status, started.elapsed()));
                }
                seen
            })
        };
        let tasks = (0..count).map(caller).collect();
        Callers { stop, tasks }
    }

    #[allow(clippy::print_stderr, reason = "a figure for whoever runs the test")]
    /// How many requests there were, after which not one has failed.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for task in self.tasks {
            seen.extend(task.await.unwrap());
        }
        let failed: Vec<_> = seen.iter().filter(|(status, _)| *status != 200).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), seen.len());
        seen.sort_by_key(|(_, took)| *took);
        let p99 = seen[seen.len() * 99 / 100].1;
        eprintln!("{} requests, none failed, p99 {p99:?}", seen.len());
        seen.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_moves_on_while_calls_come_in() {
    let registry = Registry::start().await;
    registry.publish(counter("1.0.0", &[], &state(1, &[])));
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(registry.config(folder.path(), &[("demo/counter", "^1")])).await;
    let agent = agent.unwrap();
    let callers = Callers::start(&agent, "/count", 8);
    let mut generation = 1;
    for (version, schema, accepts) in
        [("1.1.0", 2, &[1][..]), ("1.2.0", 2, &[]), ("1.3.0", 3, &[2])]
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
        registry.publish(counter(version, &[], &state(schema, accepts)));
        let synced = agent.sync_with(UPDATE).await.unwrap();
        generation += 1;
        assert_eq!((synced.generation, synced.changed), (generation, true));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let calls = callers.end().await;
    // Every single call has been counted, whichever instance it reached.
    assert_eq!(get(&agent, "/count").await.1, format!("demo/counter 1.3.0 counts {}", calls + 1));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_moves_on_in_every_home() {
    for home in Home::ALL {
        let registry = Registry::start().await;
        let counter = |version: &str, schema: u32, accepts: &[u32]| {
            let more = route("/counter") + &state(schema, accepts);
            home.release_at("demo/counter", version, &more)
        };
        registry.publish(counter("1.0.0", 1, &[]));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/counter", "^1")]);
        home.settle(&mut config);
        config.host.load_timeout = Duration::from_secs(60);
        let agent = Agent::start(config).await.unwrap();
        let callers = Callers::start(&agent, "/counter/count", 4);
        for (version, schema, accepts) in [("1.1.0", 2, &[1][..]), ("1.2.0", 2, &[])] {
            registry.publish(counter(version, schema, accepts));
            assert!(agent.sync_with(UPDATE).await.unwrap().changed);
            let seen = plugin(&agent, "demo/counter");
            assert_eq!((seen.version.as_str(), seen.tier.as_str()), (version, home.tier()));
        }
        let calls = callers.end().await;
        let next = (200, (calls + 1).to_string());
        assert_eq!(get(&agent, "/counter/count").await, next, "{home:?}");
        agent.shutdown().await;
    }
}

/// Counts to three, changes the release, and counts on to four.
async fn changed(
    schema: u32,
    accepts: &[u32],
    keep_old: Duration,
) -> (Registry, tempfile::TempDir, Agent) {
    let registry = Registry::start().await;
    registry.publish(counter("1.0.0", &[], &state(1, &[])));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/counter", "^1")]);
    config.host.lifecycle.keep_old = keep_old;
    let agent = Agent::start(config).await.unwrap();
    for count in 1..=3 {
        assert_eq!(counted(&agent).await, format!("demo/counter 1.0.0 counts {count}"));
    }
    registry.publish(counter("1.1.0", &[], &state(schema, accepts)));
    let before = runs(&agent, "demo/counter").pid.unwrap();
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(counted(&agent).await, "demo/counter 1.1.0 counts 4");
    if keep_old.is_zero() {
        until_dead(before).await;
    }
    (registry, folder, agent)
}

async fn counted(agent: &Agent) -> String {
    get(agent, "/count").await.1
}

/// Going back takes the state along where the old release knows its form, be its instance kept or
/// gone; where it does not, it goes on with the state that its kept instance had, and cannot be
/// gone back to once that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn going_back_never_begins_anew() {
    let kept = Duration::from_secs(120);
    for (schema, accepts, keep_old, expected) in [
        (1, &[][..], kept, Some(5)),
        (1, &[], Duration::ZERO, Some(5)),
        (2, &[1], kept, Some(4)),
        (2, &[1], Duration::ZERO, None),
    ] {
        let (_registry, _folder, agent) = changed(schema, accepts, keep_old).await;
        let back = agent.rollback(None).await;
        match expected {
            Some(count) => {
                assert!(back.unwrap().changed);
                assert_eq!(counted(&agent).await, format!("demo/counter 1.0.0 counts {count}"));
            }
            None => {
                let refused = back.unwrap_err();
                assert!(matches!(refused, Error::NotSwitched { .. }), "{refused}");
                let text = refused.to_string();
                let reason = "accepts states of version [1], and what runs keeps version 2";
                assert!(text.contains(reason), "{text}");
                assert_eq!(counted(&agent).await, "demo/counter 1.1.0 counts 5");
            }
        }
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_take_over_does_not() {
    let registry = Registry::start().await;
    registry.publish(counter("1.0.0", &[], &state(1, &[])));
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(registry.config(folder.path(), &[("demo/counter", "^1")])).await;
    let agent = agent.unwrap();
    let callers = Callers::start(&agent, "/count", 4);
    let mut seen = Vec::new();
    for (version, macros, schema) in [
        ("1.1.0", &[][..], state(3, &[2])),
        ("1.2.0", &["FAIL_RESTORE"], state(2, &[1])),
        ("1.3.0", &["SICK"], state(1, &[])),
        ("1.4.0", &["FAIL_CREATE"], state(1, &[])),
    ] {
        registry.publish(counter(version, macros, &schema));
        let error = agent.sync_with(UPDATE).await.unwrap_err();
        assert!(matches!(error, Error::Worse { .. } | Error::NotSwitched { .. }), "{error}");
        seen.push(error.to_string());
        assert_eq!(agent.status().plugins[0].version, "1.0.0");
    }
    insta::assert_snapshot!(seen.join("\n"));
    let calls = callers.end().await;
    assert_eq!(get(&agent, "/count").await.1, format!("demo/counter 1.0.0 counts {}", calls + 1));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_go_on_while_what_they_use_is_replaced() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(registry.config(folder.path(), &[("demo/front", "^1")])).await;
    let agent = agent.unwrap();
    let since = |agent: &Agent| agent.status().plugins[1].since.clone();
    let before = since(&agent);
    let callers = Callers::start(&agent, "/front", 4);
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    assert!(agent.sync_with(UPDATE).await.unwrap().changed);
    callers.end().await;
    let (_, text) = get(&agent, "/front").await;
    assert_eq!(text, "demo/front 1.0.0 says demo/front 1.0.0 via demo/back 1.1.0");
    assert_eq!(since(&agent), before);
    agent.shutdown().await;
}

/// A call that does not end keeps a state from being handed over: that is tried once, and not at each
/// look for news.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_stalls_its_plugin_once() {
    let registry = Registry::start().await;
    registry.publish(counter("1.0.0", &["HOLD_CALLS"], &state(1, &[])));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/counter", "^1")]);
    let heard = Heard::default();
    config.host.hooks = heard.hooks();
    config.host.check_every = Duration::from_millis(20);
    config.host.lifecycle.drain_timeout = Duration::from_millis(50);
    let agent = Agent::start_with(config, UPDATE).await.unwrap();
    let held = tokio::spawn(reqwest::get(format!("http://{}/count/hold", agent.gateway_addr())));
    wait_for("the call", async || plugin(&agent, "demo/counter").running == 1).await;
    registry.publish(counter("1.1.0", &[], &state(1, &[])));
    let told = |part: &str| {
        let error = agent.status().last_sync.and_then(|sync| sync.error);
        error.is_some_and(|error| error.contains(part))
    };
    wait_for("a try", async || told("1 calls did not end within 50 ms; the next try is in ")).await;
    registry.take_requests();
    wait_for("more looks for news", async || registry.requests() >= 5).await;
    assert!(told("; the next try is in "));
    assert_eq!(heard.count("demo/counter 1.0.0 switching"), 1);
    // An operator's word has it tried at once.
    let error = agent.sync().await.unwrap_err();
    assert!(matches!(error, Error::NotSwitched { .. }), "{error}");
    assert_eq!(heard.count("demo/counter 1.0.0 switching"), 2);
    assert_eq!(get(&agent, "/count/go").await.0, 200);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert!(agent.sync().await.unwrap().changed);
    assert_eq!(get(&agent, "/count").await.1, "demo/counter 1.1.0 counts 3");
    agent.shutdown().await;
}
