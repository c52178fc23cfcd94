//! Plugins that attack, in processes of their own. Whatever one does, what it may not do is
//! refused, or its process ends and is started again; and a neighbour answers throughout,
//! without one error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modunest_agent::Agent;
use modunest_agent::config::Config;
use tokio::task::JoinHandle;

use crate::plugins::{hostile, release, route};
use crate::process::{get, is_alive, plugin, runs, until};
use crate::registry::Registry;

/// A plugin that attacks, and a neighbour that is called all the time.
pub struct Street {
    pub agent: Agent,
    folder: tempfile::TempDir,
    over: Arc<AtomicBool>,
    neighbour: JoinHandle<(Vec<Duration>, Vec<String>)>,
}

impl Street {
    pub async fn new(macros: &[&str], change: impl FnOnce(&mut Config)) -> Street {
        let registry = Registry::start().await;
        registry.publish(hostile("demo/bad", macros, &route("/bad/{action}")));
        registry.publish(release("demo/good", "1.0.0", &[], &route("/good")));
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut config = registry.config(&state, &[("demo/bad", "^1"), ("demo/good", "^1")]);
        // What the plugin is after: a file of the agent's.
        let target = state.join("index/kept");
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, "a secret").unwrap();
        set_target(&mut config, &target.display().to_string());
        let restarts = &mut config.host.process.restarts;
        restarts.first_pause = Duration::from_millis(10);
        restarts.pause_max = Duration::from_millis(10);
        restarts.restarts_max = 100;
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let neighbour =
            tokio::spawn(call_on(format!("http://{}/good", agent.gateway_addr()), over.clone()));
        Street { agent, folder, over, neighbour }
    }

    pub async fn act(&self, action: &str) -> (u16, String) {
        get(&self.agent, &format!("/bad/{action}")).await
    }

    /// An action that ends the plugin's process; answers what is told of the crash.
    pub async fn dies_of(&self, action: &str) -> String {
        let before = plugin(&self.agent, "demo/bad").restarts;
        let (status, text) = self.act(action).await;
        assert!(status == 503 || status == 504, "{action}: {status} {text}");
        let started = Instant::now();
        while plugin(&self.agent, "demo/bad").restarts == before {
            assert!(started.elapsed() < Duration::from_secs(60), "{action}: no restart");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until(&self.agent, "demo/bad", "ready").await;
        assert_eq!(self.act("ping").await, (200, "pong".to_owned()), "after {action}");
        runs(&self.agent, "demo/bad").last_crash.unwrap().reason
    }

    /// Ends it all; the neighbour must not have noticed anything.
    #[allow(clippy::print_stdout, reason = "the neighbour's p99 is shown, and not judged")]
    pub async fn end(self, name: &str) {
        let good = plugin(&self.agent, "demo/good");
        self.over.store(true, Ordering::Relaxed);
        let (mut times, errors) = self.neighbour.await.unwrap();
        assert_eq!(errors, Vec::<String>::new(), "{name}");
        assert_eq!((good.restarts, good.runs.unwrap().last_crash), (Some(0), None), "{name}");
        let secret = self.folder.path().join("state/index/kept");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "a secret", "{name}");
        assert!(!times.is_empty(), "{name}: the neighbour was not called");
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        println!("{name}: {} calls of the neighbour, no error, p99 {p99:?}", times.len());
        self.agent.shutdown().await;
    }
}

fn set_target(config: &mut Config, target: &str) {
    let bad = config.plugins.get_mut(&"demo/bad".parse().unwrap()).unwrap();
    bad.config = format!("{{\"target\":\"{target}\"}}").into_bytes();
}

/// Calls a page until it is over; answers how long each call took, and every failure.
pub async fn call_on(url: String, over: Arc<AtomicBool>) -> (Vec<Duration>, Vec<String>) {
    let client = reqwest::Client::new();
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => times.push(started.elapsed()),
            Ok(answer) => errors.push(answer.text().await.unwrap_or_default()),
            Err(error) => errors.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (times, errors)
}

/// Every line of an attack says that it was refused.
fn assert_refused(attack: &str) {
    assert!(attack.lines().count() > 40, "{attack}");
    let done: Vec<&str> = attack.lines().filter(|line| line.ends_with("DONE")).collect();
    assert_eq!(done, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_may_not_do_is_refused() {
    let street = Street::new(&["CONSTRUCTOR"], |_| ()).await;
    // The constructor ran before the configuration was there, and knows no target.
    let (status, constructed) = street.act("constructed").await;
    assert_eq!(status, 200, "{constructed}");
    assert_refused(&constructed);
    let (status, attack) = street.act("attack").await;
    assert_eq!(status, 200, "{attack}");
    assert_refused(&attack);
    insta::assert_snapshot!(attack);
    let (status, ordinary) = street.act("ordinary").await;
    assert_eq!(status, 200, "{ordinary}");
    insta::assert_snapshot!(ordinary);
    assert_eq!(plugin(&street.agent, "demo/bad").restarts, Some(0));
    street.end("attacks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_plugin_ends_its_process_alone() {
    let street = Street::new(&[], |_| ()).await;
    let mut deaths = Vec::new();
    for action in ["abort", "segfault", "overflow", "exit", "wild-answer"] {
        deaths.push(format!("{action}: {}", street.dies_of(action).await));
    }
    insta::assert_snapshot!(deaths.join("\n"));
    street.end("crashes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_ended() {
    let street = Street::new(&[], |config| {
        config.host.call_timeout = Duration::from_secs(2);
        config.host.process.grace = Duration::from_millis(200);
    })
    .await;
    for action in ["loop", "sleep", "write-without-end"] {
        let death = street.dies_of(action).await;
        assert!(death.contains("was still running 200 ms after its deadline"), "{action}: {death}");
    }
    street.end("endless calls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_its_sender() {
    let street = Street::new(&[], |config| {
        config.host.call_timeout = Duration::from_secs(5);
    })
    .await;
    let mut deaths = Vec::new();
    for action in ["malformed", "oversize", "lying-length", "hang-up", "unread"] {
        deaths.push(format!("{action}: {}", street.dies_of(action).await));
    }
    insta::assert_snapshot!(deaths.join("\n"));
    let (status, text) = street.act("large").await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("is above the limit of 16777216"), "{text}");
    assert_eq!(street.act("unknown-status").await.0, 502);
    street.end("messages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_is_the_plugins_own() {
    let street = Street::new(&[], |config| {
        config.host.process.memory_max_bytes = 128 * 1024 * 1024;
    })
    .await;
    assert_eq!(street.act("files").await, (200, "bounded".to_owned()));
    assert_eq!(street.act("threads").await, (200, "bounded".to_owned()));
    // Where memory ends, the runner itself may be the one that finds none.
    let (status, text) = street.act("memory").await;
    assert!(status == 503 || (status, text.as_str()) == (200, "bounded"), "{status} {text}");
    street.end("exhaustion").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_stay_with_their_sender() {
    let street = Street::new(&[], |_| ()).await;
    assert_eq!(street.act("flood").await, (200, "flood: DONE\n".to_owned()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(street.act("ping").await, (200, "pong".to_owned()));
    street.end("a flood of log lines").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_cannot_be_killed() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    registry.publish(release("demo/good", "1.0.0", &[], &route("/good")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/bad", "^1"), ("demo/good", "^1")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    let sibling = runs(&agent, "demo/good").pid.unwrap();
    // Another agent's plugin, of the same user, is told whom to kill.
    set_target(&mut config, &sibling.to_string());
    config.state_dir = folder.path().join("second");
    config.plugins.retain(|name, _| name.as_str() == "demo/bad");
    let second = Agent::start(config).await.unwrap();
    let refused = (200, "kill: Operation not permitted\n".to_owned());
    assert_eq!(get(&second, "/bad/kill-target").await, refused);
    assert!(is_alive(sibling));
    assert_eq!(get(&agent, "/good").await.0, 200);
    second.shutdown().await;
    agent.shutdown().await;
}
