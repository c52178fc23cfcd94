//! Components that attack, in the agent's own process and in one of their own. Whatever one does
//! ends the call at most, and neighbours in all tiers answer throughout, without one error.

use std::time::Duration;

use modunest_agent::config::Config;

use crate::homes::{Home, component};
use crate::process::{plugin, runs, until, until_again};
use crate::registry::Registry;
use crate::street::Street;

/// Manifest lines for the route where it is told what to do.
const DOOR: &str =
    "\n[[route]]\npath = \"/hostile\"\nmethods = [\"GET\", \"POST\"]\nstream = [\"upload\"]\n";

/// A street with a component that attacks. `more` is appended to its manifest.
async fn street_with(home: Home, more: &str, change: impl FnOnce(&mut Config)) -> Street {
    let registry = Registry::start().await;
    registry.publish(component("demo/hostile", &(DOOR.to_owned() + more)));
    registry.trust("demo/hostile", home.trust());
    let street = Street::start(registry, "demo/hostile", change).await;
    assert_eq!(plugin(&street.agent, "demo/hostile").tier, home.tier());
    street
}

async fn street(home: Home, change: impl FnOnce(&mut Config)) -> Street {
    street_with(home, "", change).await
}

async fn act(street: &Street, action: &str, body: &str) -> (u16, String) {
    street.post(&format!("/hostile/{action}"), body.to_owned()).await
}

/// An attack, and what its caller hears; the plugin serves again behind it.
async fn attack(street: &Street, action: &str) -> String {
    let (status, text) = street.during(action, act(street, action, "")).await;
    assert_eq!(act(street, "echo", "still").await, (200, "still".to_owned()), "{action}");
    format!("{action}: {status} {text}")
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
        let street = street(home, |config| {
            config.host.call_timeout = Duration::from_secs(2);
        })
        .await;
        let pid = street.pid();
        assert_eq!(pid.is_some(), home == Home::Runner);
        let mut heard = Vec::new();
        for action in TRAPS {
            heard.push(attack(&street, action).await);
        }
        // Each trap costs the plugin its state, and is counted.
        assert_eq!(street.restarts(), TRAPS.len() as u64);
        for action in REFUSED {
            heard.push(attack(&street, action).await);
        }
        assert_eq!(street.restarts(), TRAPS.len() as u64);
        // Its own end and its caller's patience come at the same time, so one of them says it.
        let spin = attack(&street, "spin").await;
        assert!(spin.starts_with("spin: 504"), "{spin}");
        assert_eq!(street.restarts(), TRAPS.len() as u64 + 1);
        both.push(heard.join("\n"));
        // However often, and whether or not it gets through in time.
        let storm = attack(&street, "storm").await;
        assert!(storm.starts_with("storm: 200") || storm.starts_with("storm: 504"), "{storm}");
        // None of it was the end of a process.
        assert_eq!(street.pid(), pid);
        assert_eq!(runs(&street.agent, "demo/hostile").last_crash, None);
        street.end().await;
    }
    assert_eq!(both[0], both[1]);
    insta::assert_snapshot!(both[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_granted_is_refused_in_both_homes() {
    let mut escapes = Vec::new();
    for home in Home::COMPONENTS {
        let street = street(home, |_| ()).await;
        let port = street.agent.gateway_addr().port().to_string();
        let (status, lines) = street.during("escape", act(&street, "escape", &port)).await;
        assert_eq!(status, 200, "{lines}");
        let lines = lines.replace(&port, "PORT");
        assert!(lines.lines().count() > 120, "{lines}");
        let done: Vec<&str> = lines.lines().filter(|line| line.ends_with("DONE")).collect();
        assert_eq!(done, Vec::<&str>::new(), "{home:?}");
        // Nothing that it tried reached anybody: it is the first call of its own.
        assert_eq!(act(&street, "count", "").await, (200, "1".to_owned()));
        escapes.push((lines, plugin(&street.agent, "demo/hostile").denials));
        street.end().await;
    }
    assert_eq!(escapes[0], escapes[1]);
    let (lines, denials) = &escapes[0];
    insta::assert_snapshot!(format!("{lines}{denials} denials counted"));
}

/// What comes before the first call is no less watched: a start that never ends is late.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_start_fails_and_holds_nobody_up() {
    for home in Home::COMPONENTS {
        let brief = "\n[lifecycle]\nload_timeout_ms = 1000\n";
        let name = "demo/hostile".parse().unwrap();
        let street = street_with(home, brief, |config| {
            config.plugins.get_mut(&name).unwrap().config = b"spin".to_vec();
        })
        .await;
        assert_eq!(plugin(&street.agent, "demo/hostile").state, "failed");
        // Once more, while the neighbours are watched.
        let started = street.agent.restart(&name);
        let started = street.during("spin at its start", started).await;
        let seen = plugin(&street.agent, "demo/hostile");
        let reason = seen.reason.unwrap_or_default();
        assert_eq!(seen.state, "failed", "{home:?}: {started:?} {reason}");
        assert!(reason.contains("did not"), "{home:?}: {reason}");
        assert_eq!(act(&street, "echo", "x").await.0, 503);
        street.end().await;
    }
}

/// A runner that is ended from outside is started again like a native plugin's, and given up
/// when that happens too often.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runner_is_started_again_until_there_were_too_many() {
    let street = street(Home::Runner, |config| {
        config.host.process.restarts.restarts_max = 2;
    })
    .await;
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    for restarts in 1..=2 {
        assert_eq!(act(&street, "count", "").await, (200, "1".to_owned()));
        let before = street.pid().unwrap();
        let killed = async {
            kill(before);
            until_again(&street.agent, "demo/hostile", restarts).await;
        };
        street.during("its process is killed", killed).await;
        assert_ne!(street.pid().unwrap(), before);
        let crash = runs(&street.agent, "demo/hostile").last_crash.unwrap();
        assert!(crash.reason.contains("SIGKILL"), "{crash:?}");
    }
    kill(street.pid().unwrap());
    let failed = until(&street.agent, "demo/hostile", "failed").await;
    assert!(failed.reason.unwrap().contains("crashed 3 times and is not started again"));
    assert_eq!(act(&street, "echo", "x").await.0, 503);
    street.end().await;
}

/// Whichever limit is lower holds: the component's own, or that of its process.
#[tokio::test(flavor = "multi_thread")]
async fn memory_ends_at_the_limit_of_the_process_as_well() {
    let street = street(Home::Runner, |config| {
        config.host.component.memory_max_bytes = 2 * 1024 * 1024 * 1024;
        config.host.process.memory_max_bytes = 128 * 1024 * 1024;
    })
    .await;
    for _ in 0..3 {
        let (status, text) = street.during("grow", act(&street, "grow", "")).await;
        // Where memory ends, the runner itself may be the one that finds none.
        assert!(matches!(status, 502 | 503), "{status} {text}");
        until(&street.agent, "demo/hostile", "ready").await;
        assert_eq!(act(&street, "echo", "still").await, (200, "still".to_owned()));
    }
    street.end().await;
}

/// A plugin that takes one piece of an upload and then no more holds up its own client only.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_itself() {
    for home in Home::COMPONENTS {
        let street = street(home, |config| {
            // A call that waits for its turn has longer than an upload that never ends.
            config.gateway_limits.stream_timeout = Duration::from_secs(1);
            config.host.call_timeout = Duration::from_secs(60);
        })
        .await;
        for _ in 0..2 {
            let much = vec![1; 64 * 1024 * 1024];
            let url = street.url("/hostile/upload?slow");
            let request = reqwest::Client::new().post(url).body(much).send();
            // Its connection may be closed before the client has read the answer.
            if let Ok(answer) = street.during("a slow reader", request).await {
                assert_eq!(answer.status(), 504, "{home:?}");
            }
            assert_eq!(act(&street, "echo", "still").await, (200, "still".to_owned()));
        }
        street.end().await;
    }
}
