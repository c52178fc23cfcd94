//! Components that attack, in the agent's own process and in one of their own. Whatever one does
//! ends the call at most, and neighbours in all tiers answer throughout, without one error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::config::Config;
use modunest_core::statement::TrustLevel;
use reqwest::Body;
use tokio::task::JoinHandle;

use crate::homes::{Home, component};
use crate::hostile::call_on;
use crate::plugins::{release, route};
use crate::process::{plugin, runs, until, until_again};
use crate::registry::Registry;

/// Plugins that are called all the time, one in each tier.
const NEIGHBOURS: [&str; 3] = ["native", "inside", "runner"];

/// A component that attacks, and its neighbours.
struct Street {
    agent: Agent,
    home: Home,
    _folder: tempfile::TempDir,
    over: Arc<AtomicBool>,
    neighbours: Vec<JoinHandle<(Vec<Duration>, Vec<String>)>>,
}

impl Street {
    async fn new(home: Home, change: impl FnOnce(&mut Config)) -> Street {
        let registry = Registry::start().await;
        let more = "\n[[route]]\npath = \"/hostile\"\nmethods = [\"GET\", \"POST\"]\nstream = [\"upload\"]\n";
        registry.publish(component("demo/hostile", more));
        registry.trust("demo/hostile", home.trust());
        registry.publish(release("demo/native", "1.0.0", &[], &route("/native")));
        for name in ["inside", "runner"] {
            registry.publish(component(&format!("demo/{name}"), &route(&format!("/{name}"))));
        }
        registry.trust("demo/inside", TrustLevel::Verified);
        let folder = tempfile::tempdir().unwrap();
        let names = ["demo/hostile", "demo/native", "demo/inside", "demo/runner"];
        let mut config = registry.config(folder.path(), &names.map(|name| (name, "^1")));
        config.host.load_timeout = Duration::from_secs(30);
        let restarts = &mut config.host.process.restarts;
        restarts.first_pause = Duration::from_millis(10);
        restarts.pause_max = Duration::from_millis(10);
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        assert_eq!(plugin(&agent, "demo/hostile").tier, home.tier());
        let tiers = NEIGHBOURS.map(|name| plugin(&agent, &format!("demo/{name}")).tier);
        assert_eq!(tiers, ["process", "component", "component-process"]);
        let over = Arc::new(AtomicBool::new(false));
        let call = |name: &str| {
            let page = if name == "native" { name.to_owned() } else { format!("{name}/now") };
            let url = format!("http://{}/{page}", agent.gateway_addr());
            tokio::spawn(call_on(url, over.clone()))
        };
        let neighbours = NEIGHBOURS.map(call).into();
        Street { agent, home, _folder: folder, over, neighbours }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/hostile/{path}", self.agent.gateway_addr())
    }

    async fn act(&self, action: &str, body: impl Into<Body>) -> (u16, String) {
        let request = reqwest::Client::new().post(self.url(action)).body(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let detail = problem.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
        (status, detail.unwrap_or(text))
    }

    /// An attack, and what its caller hears; the plugin serves again behind it.
    async fn attack(&self, action: &str) -> String {
        let (status, text) = self.act(action, "").await;
        assert_eq!(self.act("echo", "still").await, (200, "still".to_owned()), "{action}");
        format!("{action}: {status} {text}")
    }

    /// The plugin's process; none where it has none of its own.
    fn pid(&self) -> Option<u32> {
        runs(&self.agent, "demo/hostile").pid
    }

    /// Ends it all; the neighbours must not have noticed anything.
    #[allow(clippy::print_stdout, reason = "the neighbours' p99 is shown, and not judged")]
    async fn end(self, name: &str) {
        let seen = NEIGHBOURS.map(|name| plugin(&self.agent, &format!("demo/{name}")));
        self.over.store(true, Ordering::Relaxed);
        for ((neighbour, which), seen) in self.neighbours.into_iter().zip(NEIGHBOURS).zip(seen) {
            let (mut times, errors) = neighbour.await.unwrap();
            assert_eq!(errors, Vec::<String>::new(), "{name}: {which}");
            assert_eq!(seen.restarts, Some(0), "{name}: {which}");
            assert_eq!(seen.runs.unwrap().last_crash, None, "{name}: {which}");
            assert!(!times.is_empty(), "{name}: {which} was not called");
            times.sort_unstable();
            let p99 = times[times.len() * 99 / 100];
            let (home, calls) = (self.home.tier(), times.len());
            println!(
                "{name} in {home}: {calls} calls of the neighbour {which}, no error, p99 {p99:?}"
            );
        }
        self.agent.shutdown().await;
    }
}

/// Attacks that end in a trap.
const TRAPS: [&str; 9] =
    ["panic", "abort", "wild-read", "recurse", "nest", "grow", "lie", "no-text", "log-no-text"];
/// Attacks that are refused, or that only cost the attacker.
const REFUSED: [&str; 5] = ["large", "log-much", "ask-much", "call-much", "read-file"];

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_ends_the_call_and_nothing_else() {
    let mut both = Vec::new();
    for home in Home::COMPONENTS {
        let street = Street::new(home, |config| {
            config.host.call_timeout = Duration::from_secs(2);
        })
        .await;
        let pid = street.pid();
        assert_eq!(pid.is_some(), home == Home::Runner);
        let mut heard = Vec::new();
        for attack in TRAPS {
            heard.push(street.attack(attack).await);
        }
        // Each trap costs the plugin its state, and is counted.
        assert_eq!(plugin(&street.agent, "demo/hostile").restarts, Some(TRAPS.len() as u64));
        for attack in REFUSED {
            heard.push(street.attack(attack).await);
        }
        assert_eq!(plugin(&street.agent, "demo/hostile").restarts, Some(TRAPS.len() as u64));
        // Its own end and its caller's patience come at the same time, so one of them says it.
        let spin = street.attack("spin").await;
        assert!(spin.starts_with("spin: 504"), "{spin}");
        assert_eq!(plugin(&street.agent, "demo/hostile").restarts, Some(TRAPS.len() as u64 + 1));
        both.push(heard.join("\n"));
        // However often, and whether or not it gets through in time.
        let storm = street.attack("storm").await;
        assert!(storm.starts_with("storm: 200") || storm.starts_with("storm: 504"), "{storm}");
        // None of it was the end of a process.
        assert_eq!(street.pid(), pid);
        assert_eq!(runs(&street.agent, "demo/hostile").last_crash, None);
        street.end("attacks").await;
    }
    assert_eq!(both[0], both[1]);
    insta::assert_snapshot!(both[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_granted_is_refused_in_both_homes() {
    let mut escapes = Vec::new();
    for home in Home::COMPONENTS {
        let street = Street::new(home, |_| ()).await;
        let port = street.agent.gateway_addr().port().to_string();
        let (status, lines) = street.act("escape", port.clone()).await;
        assert_eq!(status, 200, "{lines}");
        let lines = lines.replace(&port, "PORT");
        assert!(lines.lines().count() > 120, "{lines}");
        let done: Vec<&str> = lines.lines().filter(|line| line.ends_with("DONE")).collect();
        assert_eq!(done, Vec::<&str>::new(), "{home:?}");
        // Nothing that it tried reached anybody: it is the first call of its own.
        assert_eq!(street.act("count", "").await, (200, "1".to_owned()));
        escapes.push((lines, plugin(&street.agent, "demo/hostile").denials));
        street.end("escapes").await;
    }
    assert_eq!(escapes[0], escapes[1]);
    let (lines, denials) = &escapes[0];
    insta::assert_snapshot!(format!("{lines}{denials} denials counted"));
}

/// A runner that is ended from outside is started again like a native plugin's, and given up
/// when that happens too often.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runner_is_started_again_until_there_were_too_many() {
    let street = Street::new(Home::Runner, |config| {
        config.host.process.restarts.restarts_max = 2;
    })
    .await;
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    for restarts in 1..=2 {
        assert_eq!(street.act("count", "").await, (200, "1".to_owned()));
        let before = street.pid().unwrap();
        kill(before);
        until_again(&street.agent, "demo/hostile", restarts).await;
        assert_ne!(street.pid().unwrap(), before);
        let crash = runs(&street.agent, "demo/hostile").last_crash.unwrap();
        assert!(crash.reason.contains("SIGKILL"), "{crash:?}");
    }
    kill(street.pid().unwrap());
    let failed = until(&street.agent, "demo/hostile", "failed").await;
    assert!(failed.reason.unwrap().contains("crashed 3 times and is not started again"));
    assert_eq!(street.act("echo", "x").await.0, 503);
    street.end("dead runners").await;
}

/// Whichever limit is lower holds: the component's own, or that of its process.
#[tokio::test(flavor = "multi_thread")]
async fn memory_ends_at_the_limit_of_the_process_as_well() {
    let street = Street::new(Home::Runner, |config| {
        config.host.component.memory_max_bytes = 2 * 1024 * 1024 * 1024;
        config.host.process.memory_max_bytes = 128 * 1024 * 1024;
    })
    .await;
    for _ in 0..3 {
        let (status, text) = street.act("grow", "").await;
        // Where memory ends, the runner itself may be the one that finds none.
        assert!(matches!(status, 502 | 503), "{status} {text}");
        until(&street.agent, "demo/hostile", "ready").await;
        assert_eq!(street.act("echo", "still").await, (200, "still".to_owned()));
    }
    street.end("exhaustion").await;
}

/// A plugin that takes one piece of an upload and then no more holds up its own client only.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_itself() {
    for home in Home::COMPONENTS {
        let street = Street::new(home, |config| {
            // A call that waits for its turn has longer than an upload that never ends.
            config.gateway_limits.stream_timeout = Duration::from_secs(1);
            config.host.call_timeout = Duration::from_secs(60);
        })
        .await;
        for _ in 0..2 {
            let much = vec![1; 64 * 1024 * 1024];
            let request = reqwest::Client::new().post(street.url("upload?slow")).body(much);
            // Its connection may be closed before the client has read the answer.
            if let Ok(answer) = request.send().await {
                assert_eq!(answer.status(), 504, "{home:?}");
            }
            assert_eq!(street.act("echo", "still").await, (200, "still".to_owned()));
        }
        street.end("a slow reader").await;
    }
}
