//! Events between real plugins.

use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::host::EventCounters;
use modunest_core::archive::PackFile;

use crate::links::{commands, only, plugin, start, tell};
use crate::plugins::{linked, linked_with};
use crate::process::{kill, runs};
use crate::registry::Registry;

fn publisher(more: &str) -> String {
    format!("\n[[event]]\nname = \"added\"\n{more}\n") + &commands("/pub", "")
}

/// A receiver at `/NAME` with room for so many events.
fn receiver(name: &str, queue: usize) -> String {
    format!(
        "\n[dependencies]\n\"demo/pub\" = \"^1\"\n[[event]]\nname = \"added\"\nfrom = \"demo/pub\"\nqueue = {queue}\n"
    ) + &commands(&format!("/{name}"), "")
}

fn counters(agent: &Agent, name: &str) -> EventCounters {
    plugin(agent, name).links.events
}

/// Waits until a plugin's events are what they shall become.
async fn until(agent: &Agent, name: &str, so: impl Fn(&EventCounters) -> bool) {
    let waiting = async {
        while !so(&counters(agent, name)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err() {
        panic!("{name}: {:?}", counters(agent, name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_are_tried_again() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked("demo/one", &receiver("one", 64), vec![]));
    registry.publish(linked("demo/two", &receiver("two", 64), vec![]));
    let (agent, _folder) = start(&registry, &["demo/one", "demo/two"], |config| {
        config.host.links.event_attempts = 3;
    })
    .await;
    for payload in ["a", "slow b", "twice c", "d", "never e", "bad f", "g"] {
        let (status, text) = tell(&agent, "/pub", format!("publish added {payload}")).await;
        assert_eq!((status, text.as_str()), (200, ""));
    }
    let mut seen = Vec::new();
    for name in ["one", "two"] {
        until(&agent, &format!("demo/{name}"), |c| c.delivered + c.dead == 7).await;
        seen.push(tell(&agent, &format!("/{name}"), "seen").await.1);
        let EventCounters { delivered, retried, dead, waiting, .. } =
            counters(&agent, &format!("demo/{name}"));
        assert_eq!((delivered, retried, dead, waiting), (5, 4, 2, 0));
    }
    insta::assert_snapshot!(seen.join("\n"));
    let published = counters(&agent, "demo/pub");
    assert_eq!((published.published, published.refused), (7, 0));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_the_publisher_and_nobody_gets_the_event() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked("demo/quick", &receiver("quick", 64), vec![]));
    registry.publish(linked("demo/slow", &receiver("slow", 2), vec![]));
    let (agent, _folder) = start(&registry, &["demo/quick", "demo/slow"], |_| {}).await;
    let (mut taken, mut refused) = (0, Vec::new());
    // Two have room at least, and with five refusals the publisher's own breaker would open.
    for n in 0..6 {
        match tell(&agent, "/pub", format!("publish added slow {n}")).await {
            (200, _) => taken += 1,
            (_, text) => refused.push(text),
        }
    }
    assert!(taken >= 2 && !refused.is_empty(), "{taken} {refused:?}");
    insta::assert_snapshot!(refused[0]);
    for name in ["demo/quick", "demo/slow"] {
        // An event waits no more before its delivery is counted.
        until(&agent, name, |c| c.waiting == 0 && c.delivered >= taken).await;
        assert_eq!(counters(&agent, name).delivered, taken);
    }
    assert_eq!(counters(&agent, "demo/pub").refused, refused.len() as u64);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_may_wait_for_room_until_its_deadline() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher("when_full = \"wait\""), vec![]));
    registry.publish(linked("demo/slow", &receiver("slow", 1), vec![]));
    let (agent, _folder) = start(&registry, &["demo/slow"], |config| {
        config.host.call_timeout = Duration::from_secs(20);
    })
    .await;
    for n in 0..5 {
        let (status, text) = tell(&agent, "/pub", format!("publish added slow {n}")).await;
        assert_eq!((status, text.as_str()), (200, ""));
    }
    until(&agent, "demo/slow", |c| c.delivered == 5).await;
    assert_eq!(counters(&agent, "demo/pub").refused, 0);
    agent.shutdown().await;

    let (agent, _folder) = start(&registry, &["demo/slow"], |config| {
        config.host.call_timeout = Duration::from_millis(300);
        config.host.links.event_attempts = 20;
    })
    .await;
    let mut last = (200, String::new());
    for n in 0..6 {
        last = tell(&agent, "/pub", format!("publish added never {n}")).await;
        if last.0 != 200 {
            break;
        }
    }
    assert_eq!(last.0, 504, "{}", last.1);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_have_a_limit_and_a_schema() {
    let registry = Registry::start().await;
    let schema = PackFile {
        name: "added.json".to_owned(),
        content: br#"{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}"#
            .to_vec(),
        executable: false,
    };
    let more = publisher("schema = \"added.json\"") + "\n[[event]]\nname = \"free\"\n";
    registry.publish(linked("demo/pub", &more, vec![schema]));
    registry.publish(linked("demo/one", &receiver("one", 64), vec![]));
    let (agent, _folder) = start(&registry, &["demo/one"], |_| {}).await;
    let mut told = Vec::new();
    for command in [
        r#"publish added {"id":7}"#.to_owned(),
        r#"publish added {"id":"7"}"#.to_owned(),
        "publish added text".to_owned(),
        "publish free text".to_owned(),
        "publish removed text".to_owned(),
        format!("publish free {}", "x".repeat(256 * 1024)),
        format!("publish free {}", "x".repeat(256 * 1024 + 1)),
    ] {
        let shown: String = command.chars().take(40).collect();
        let (status, text) = tell(&agent, "/pub", command).await;
        told.push(format!("{shown}\n  {status} {text}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    until(&agent, "demo/one", |c| c.delivered == 1).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_failed_to_load_keeps_nobody_waiting() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked_with("demo/dead", &["FAIL_CREATE"], &receiver("dead", 1), vec![]));
    let (agent, _folder) = start(&registry, &["demo/dead"], |_| {}).await;
    for n in 0..5 {
        let (status, text) = tell(&agent, "/pub", format!("publish added {n}")).await;
        assert_eq!((status, text.as_str()), (200, ""));
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_events_go_over_to_the_next_generation() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked_with("demo/one", &["HOLDS"], &receiver("one", 64), vec![]));
    let (agent, folder) = start(&registry, &["demo/one"], |config| {
        config.host.links.event_attempts = 20;
    })
    .await;
    for payload in ["a", "hold b", "c", "d"] {
        assert_eq!(tell(&agent, "/pub", format!("publish added {payload}")).await.0, 200);
    }
    until(&agent, "demo/one", |c| c.delivered == 1 && c.retried > 0).await;
    assert_eq!(tell(&agent, "/one", "seen").await.1, "event a\n");
    let mut next = linked("demo/one", &receiver("one", 64), vec![]);
    next.manifest = next.manifest.replace("version = \"1.0.0\"", "version = \"1.1.0\"");
    registry.publish(next);
    // The lock file holds an agent to what it has.
    std::fs::remove_file(folder.path().join("modunest.lock")).unwrap();
    assert!(agent.sync().await.unwrap().changed);
    until(&agent, "demo/one", |c| c.delivered == 4).await;
    assert_eq!(tell(&agent, "/one", "seen").await.1, "event hold b\nevent c\nevent d\n");
    assert_eq!(counters(&agent, "demo/one").dead, 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_crashes_gets_what_waits_when_it_is_back() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked("demo/one", &receiver("one", 64), vec![]));
    let (agent, _folder) = start(&registry, &["demo/one"], |config| {
        // Longer than all attempts at an event together.
        config.host.process.restarts.first_pause = Duration::from_secs(2);
    })
    .await;
    for n in 0..8 {
        let (status, text) = tell(&agent, "/pub", format!("publish added slow {n}")).await;
        assert_eq!((status, text.as_str()), (200, ""));
    }
    until(&agent, "demo/one", |c| c.delivered >= 1).await;
    kill(runs(&agent, "demo/one").pid.unwrap());
    until(&agent, "demo/one", |c| c.delivered + c.dead == 8).await;
    assert_eq!(counters(&agent, "demo/one").dead, 0);
    assert_eq!(plugin(&agent, "demo/one").restarts, Some(1));
    // All but those that its first life had dealt with.
    let (_, seen) = tell(&agent, "/one", "seen").await;
    assert!(seen.ends_with("event slow 6\nevent slow 7\n"), "{seen}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_can_deal_with_leaves_the_rest_of_its_receiver() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked("demo/one", &receiver("one", 64), vec![]));
    let (agent, _folder) = start(&registry, &["demo/one"], |_| {}).await;
    for payload in ["never a", "b", "never c", "d"] {
        assert_eq!(tell(&agent, "/pub", format!("publish added {payload}")).await.0, 200);
    }
    until(&agent, "demo/one", |c| c.delivered + c.dead == 4).await;
    let EventCounters { delivered, retried, dead, .. } = counters(&agent, "demo/one");
    assert_eq!((delivered, retried, dead), (2, 8, 2));
    assert_eq!(tell(&agent, "/one", "seen").await, (200, "event b\nevent d\n".to_owned()));
    assert_eq!(plugin(&agent, "demo/one").breaker, "closed");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_withholds_events_of_others() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/pub", &publisher(""), vec![]));
    registry.publish(linked("demo/needs", &receiver("needs", 64), vec![]));
    let optional =
        |name: &str| receiver(name, 64).replace("\"^1\"", "{ version = \"^1\", optional = true }");
    registry.publish(linked("demo/easy", &optional("easy"), vec![]));
    registry.publish(linked("demo/lucky", &optional("lucky"), vec![]));
    let capability = "events:demo/pub:added";
    let names = ["demo/needs", "demo/easy", "demo/lucky", "demo/pub"];
    let (agent, _folder) = start(&registry, &names, |config| {
        let mut rules = only(&[capability]);
        rules[0].plugins = vec!["demo/lucky".parse().unwrap()];
        rules.extend(only(&[]));
        config.host.grants.rules = rules;
    })
    .await;
    let needs = plugin(&agent, "demo/needs");
    let reason = needs.reason.unwrap();
    let begins = format!("it needs {capability}, which it is not granted");
    assert!(needs.state == "failed" && reason.starts_with(&begins), "{reason}");
    assert_eq!(tell(&agent, "/pub", "publish added a").await, (200, String::new()));
    until(&agent, "demo/lucky", |counters| counters.delivered == 1).await;
    assert_eq!(tell(&agent, "/lucky", "seen").await.1, "event a\n");
    // All receivers get an event at once, so this one would have it waiting at least.
    assert_eq!(counters(&agent, "demo/easy"), EventCounters::default());
    assert_eq!(tell(&agent, "/easy", "seen").await, (200, String::new()));
    agent.shutdown().await;
}
