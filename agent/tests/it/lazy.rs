//! Plugins that are loaded when they are first used.

use std::time::Duration;

use modunest_agent::Agent;

use crate::homes::Home;
use crate::links::{commands, start, tell};
use crate::plugins::{ECHO, linked, release, route, uses};
use crate::process::{get, kill, plugin, until_again};
use crate::registry::Registry;
use crate::upkeep::wait_for;

fn states(agent: &Agent) -> Vec<String> {
    let plugins = agent.status().plugins.into_iter();
    plugins.map(|plugin| format!("{} {}", plugin.plugin, plugin.state)).collect()
}

const LAZY: &str = "\n[lifecycle]\nactivation = [\"route\", \"service\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_loads_a_plugin_and_what_it_calls() {
    let registry = Registry::start().await;
    registry.publish(release(
        "demo/back",
        "1.0.0",
        &["SLOW_CREATE_S=1"],
        &(ECHO.to_owned() + LAZY),
    ));
    let more = uses("demo/back", "^1") + &route("/front") + LAZY;
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    let more = route("/unused") + LAZY;
    registry.publish(release("demo/unused", "1.0.0", &[], &more));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/unused", "^1")]);
    let agent = Agent::start(config).await.unwrap();
    assert_eq!(states(&agent), ["demo/back idle", "demo/front idle", "demo/unused idle"]);
    assert_eq!(agent.status().ready, Ok(()));
    // Several at once wait for the one load.
    let url = format!("http://{}/front", agent.gateway_addr());
    let ask =
        |url: String| tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await });
    let first: Vec<_> = (0..6).map(|_| ask(url.clone())).collect();
    for answer in first {
        let text = answer.await.unwrap().unwrap();
        assert_eq!(text, "demo/front 1.0.0 says demo/front 1.0.0 via demo/back 1.0.0");
    }
    assert_eq!(states(&agent), ["demo/back ready", "demo/front ready", "demo/unused idle"]);
    agent.shutdown().await;
}

/// Nothing of it is made before.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_makes_a_plugin_wherever_it_runs() {
    for home in Home::ALL {
        let registry = Registry::start().await;
        registry.publish(home.release("demo/lazy", &(route("/lazy") + LAZY)));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/lazy", "^1")]);
        home.settle(&mut config);
        let agent = Agent::start(config).await.unwrap();
        assert_eq!(states(&agent), ["demo/lazy idle"], "{home:?}");
        assert_eq!(plugin(&agent, "demo/lazy").tier, home.tier());
        let url = format!("http://{}/lazy/echo", agent.gateway_addr());
        let answer = reqwest::Client::new().get(url).body("x").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "x", "{home:?}");
        assert_eq!(states(&agent), ["demo/lazy ready"], "{home:?}");
        assert_eq!(plugin(&agent, "demo/lazy").tier, home.tier());
        agent.shutdown().await;
    }
}

/// The probe takes a second to be made; the host gives half of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_asks_for_more_time_to_load_than_the_host_gives() {
    let asks = "\n[lifecycle]\nload_timeout_ms = 30000\n";
    for home in Home::ALL {
        for (more, allowed, state) in [
            ("", Duration::from_secs(60), "failed"),
            (asks, Duration::from_millis(500), "failed"),
            (asks, Duration::from_secs(60), "ready"),
        ] {
            let registry = Registry::start().await;
            registry.publish(home.release("demo/slow", more));
            let folder = tempfile::tempdir().unwrap();
            let mut config = registry.config(folder.path(), &[("demo/slow", "^1")]);
            home.settle(&mut config);
            config.host.load_timeout = Duration::from_millis(500);
            config.host.lifecycle.load_timeout_max = allowed;
            let slow = config.plugins.get_mut(&"demo/slow".parse().unwrap()).unwrap();
            slow.config = b"slow".to_vec();
            let agent = Agent::start(config).await.unwrap();
            let seen = plugin(&agent, "demo/slow");
            assert_eq!(seen.state, state, "{home:?} {more} {allowed:?}: {:?}", seen.reason);
            // A process that has to be started again has as much time.
            if let Some(pid) = seen.runs.and_then(|runs| runs.pid) {
                kill(pid);
                until_again(&agent, "demo/slow", 1).await;
            }
            agent.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_use_waits_no_longer_than_the_load_may_take() {
    let registry = Registry::start().await;
    let more = route("/slow") + "\n[lifecycle]\nactivation = [\"route\"]\nload_timeout_ms = 300\n";
    registry.publish(release("demo/slow", "1.0.0", &["SLOW_CREATE_S=3"], &more));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/slow", "^1")]);
    config.host.call_timeout = Duration::from_secs(20);
    let agent = Agent::start(config).await.unwrap();
    let answer = reqwest::get(format!("http://{}/slow", agent.gateway_addr())).await.unwrap();
    assert_eq!(answer.status(), 503);
    let text = answer.text().await.unwrap();
    assert!(text.contains("demo/slow is failed: it did not load within 300 ms"), "{text}");
    agent.shutdown().await;
}

/// `demo/one` is used in every way that a manifest may list but by the clock.
fn one(activation: &str) -> String {
    format!(
        "\n[dependencies]\n\"demo/pub\" = \"^1\"\n\n[lifecycle]\nactivation = [\"{activation}\"]\n\n[[event]]\nname = \"added\"\nfrom = \"demo/pub\"\n\n[[service]]\nname = \"plain\"\nversion = \"1.0.0\"\n\n[[guard]]\nname = \"allow\"\nexported = true\n"
    ) + &commands("/one", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_lists_loads_a_plugin_and_nothing_else_does() {
    let mut told = Vec::new();
    for listed in ["route", "service", "event"] {
        let registry = Registry::start().await;
        let publishes = "\n[[event]]\nname = \"added\"\n".to_owned() + &commands("/pub", "");
        registry.publish(linked("demo/pub", &publishes, vec![]));
        registry.publish(linked("demo/one", &one(listed), vec![]));
        let uses = "\n[dependencies]\n\"demo/one\" = \"^1\"\n\n[[import]]\nplugin = \"demo/one\"\nservice = \"plain\"\n".to_owned() + &commands("/user", "");
        registry.publish(linked("demo/user", &uses, vec![]));
        let (agent, _folder) = start(&registry, &["demo/user"], |_| {}).await;
        let state = || plugin(&agent, "demo/one").state;
        let events = || plugin(&agent, "demo/one").links.events;
        // Each way once; an event is there when somebody has heard of it or nobody will.
        let used = async |way: &str| match way {
            "route" => tell(&agent, "/one", "seen").await,
            "service" => tell(&agent, "/user", "call demo/one plain x").await,
            _ => {
                let before = events();
                let told = tell(&agent, "/pub", "publish added x").await;
                assert_eq!(told.0, 200, "{}", told.1);
                wait_for("the event", async || {
                    let now = events();
                    now.delivered + now.dead > before.delivered + before.dead
                })
                .await;
                let is_delivered = events().delivered > before.delivered;
                if is_delivered {
                    (200, String::new())
                } else {
                    (503, "it was given up".to_owned())
                }
            }
        };
        for way in ["route", "service", "event"].into_iter().filter(|way| *way != listed) {
            let (status, text) = used(way).await;
            assert_eq!((status, state().as_str()), (503, "idle"), "{way}, {listed}: {text}");
            told.push(format!("{way} while {listed} is listed\n  {text}"));
        }
        assert_eq!(used(listed).await.0, 200, "{listed}");
        assert_eq!(state(), "ready", "{listed}");
        // Once it is loaded, it is there for all.
        for way in ["route", "service", "event"] {
            assert_eq!(used(way).await.0, 200, "{way}, {listed}");
        }
        agent.shutdown().await;
    }
    insta::assert_snapshot!(told.join("\n"));
}

/// No list can name a guard, and what it guards must not stay shut.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_loads_its_plugin_whatever_is_listed() {
    let registry = Registry::start().await;
    let door = "\n[[guard]]\nname = \"allow\"\nexported = true\n".to_owned()
        + &commands("/door", "")
        + "\n[lifecycle]\nactivation = [\"schedule\"]\n";
    registry.publish(linked("demo/door", &door, vec![]));
    let more = "\n[dependencies]\n\"demo/door\" = \"^1\"\n".to_owned()
        + &commands("/page", "guards = [\"demo/door:allow\"]");
    registry.publish(linked("demo/page", &more, vec![]));
    let (agent, _folder) = start(&registry, &["demo/page"], |_| {}).await;
    assert_eq!(states(&agent), ["demo/door idle", "demo/page ready"]);
    assert_eq!(tell(&agent, "/page", "seen").await.0, 200);
    assert_eq!(states(&agent), ["demo/door ready", "demo/page ready"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_stays_loaded_over_a_change() {
    let registry = Registry::start().await;
    let publish = |version: &str| {
        for name in ["used", "unused"] {
            let more = route(&format!("/{name}")) + LAZY;
            registry.publish(release(&format!("demo/{name}"), version, &[], &more));
        }
    };
    publish("1.0.0");
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/used", "^1"), ("demo/unused", "^1")]);
    let agent = Agent::start(config).await.unwrap();
    assert_eq!(get(&agent, "/used").await.0, 200);
    assert_eq!(states(&agent), ["demo/unused idle", "demo/used ready"]);
    publish("1.1.0");
    let update = modunest_agent::sync::Options { update: true, ..Default::default() };
    assert!(agent.sync_with(update).await.unwrap().changed);
    assert_eq!(plugin(&agent, "demo/used").version, "1.1.0");
    assert_eq!(states(&agent), ["demo/unused idle", "demo/used ready"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_need_what_failed_at_its_first_use_say_so() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &["FAIL_CREATE"], &(ECHO.to_owned() + LAZY)));
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    let folder = tempfile::tempdir().unwrap();
    let agent =
        Agent::start(registry.config(folder.path(), &[("demo/front", "^1")])).await.unwrap();
    assert_eq!(plugin(&agent, "demo/front").reason, None);
    assert_eq!(get(&agent, "/front").await.0, 503);
    assert_eq!(states(&agent), ["demo/back failed", "demo/front ready"]);
    let reason = "needs demo/back 1.0.0, which failed: its start failed: no license server";
    assert_eq!(plugin(&agent, "demo/front").reason.as_deref(), Some(reason));
    agent.shutdown().await;
}
