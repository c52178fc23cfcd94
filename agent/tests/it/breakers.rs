//! Circuit breakers of real plugins: what opens them, whom they keep out, and how they close.

use modunest_agent::Agent;
use modunest_agent::config::Config;
use modunest_agent::host::BreakerSettings;
use modunest_sdk::Error;

use crate::homes::{Home, component};
use crate::links::tell;
use crate::metrics::{metrics, value};
use crate::plugins::route;
use crate::process::plugin;
use crate::registry::{Registry, Release};
use crate::upkeep::wait_for;

/// What a caller hears whom a breaker keeps out.
const REFUSAL: &str = "failed too often and is left alone";

/// A component that answers below `/NAME`, and exports services that fail and that do not.
fn release(name: &str) -> Release {
    let service = |name: &str| format!("\n[[service]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    let short = name.split('/').next_back().unwrap();
    let route = route(&format!("/{short}")).replace("GET", "POST");
    component(name, &(route + &["fail", "echo"].map(service).concat()))
}

async fn start(names: &[&str], change: impl FnOnce(&mut Config)) -> (Agent, tempfile::TempDir) {
    let registry = Registry::start().await;
    for name in names {
        let mut release = release(name);
        if *name == "demo/critical" {
            release.manifest = release.manifest.replacen("license", "critical = true\nlicense", 1);
        }
        registry.publish(release);
    }
    let folder = tempfile::tempdir().unwrap();
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (*name, "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    Home::Inside.settle(&mut config);
    change(&mut config);
    (Agent::start(config).await.unwrap(), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_keeps_nobody_from_the_rest_of_its_plugin() {
    let (agent, _folder) = start(&["demo/back", "demo/other"], |_| {}).await;
    for _ in 0..5 {
        let failed = agent.call_service("demo/back", "fail", b"").await;
        assert!(matches!(failed, Err(Error::Failed(_))), "{failed:?}");
    }
    let Err(Error::Unavailable(text)) = agent.call_service("demo/back", "fail", b"").await else {
        panic!("its breaker opened")
    };
    assert!(text.starts_with(&format!("fail of demo/back {REFUSAL}")), "{text}");
    let seen = plugin(&agent, "demo/back");
    assert_eq!((seen.calls, seen.refused, seen.breaker.as_str()), (5, 1, "closed"));
    assert_eq!(seen.service_breakers["fail"], "open");
    assert_eq!(agent.call_service("demo/back", "echo", b"x").await, Ok(b"x".to_vec()));
    assert_eq!(tell(&agent, "/back/count", "").await, (200, "1".to_owned()));

    // A route has no breaker of its own: behind it is the whole plugin.
    for _ in 0..5 {
        assert_eq!(tell(&agent, "/other/fail", "").await.0, 502);
    }
    let (status, text) = tell(&agent, "/other/count", "").await;
    assert!(status == 503 && text.contains(&format!("demo/other {REFUSAL}")), "{status} {text}");
    let refused = agent.call_service("demo/other", "echo", b"x").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let seen = plugin(&agent, "demo/other");
    assert_eq!((seen.calls, seen.refused, seen.breaker.as_str()), (5, 2, "open"));
    assert!(seen.breaker_open_until.is_some() && seen.service_breakers.is_empty());

    let text = metrics(&agent).await;
    let standing = |family: &str, name: &str, service: &str| {
        let states = ["closed", "open", "half_open"].into_iter();
        let mut is_in_it = states.filter(|state| {
            let labels = format!("{service}state=\"{state}\"");
            value(&text, family, name, &labels) == Some(1.0)
        });
        (is_in_it.next(), is_in_it.next())
    };
    let of_plugin = |name| standing("modunest_plugin_breaker", name, "");
    assert_eq!(of_plugin("demo/back"), (Some("closed"), None));
    assert_eq!(of_plugin("demo/other"), (Some("open"), None));
    let of_service = |service: &str| {
        let service = format!("service=\"{service}\",");
        standing("modunest_service_breaker", "demo/back", &service)
    };
    assert_eq!(of_service("fail"), (Some("open"), None));
    assert_eq!(of_service("echo"), (Some("closed"), None));
    assert_eq!(value(&text, "modunest_plugin_breaker_open", "demo/other", ""), Some(1.0));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_waits_tries_and_closes() {
    let brief = |settings| BreakerSettings { open_ms: 300, ..settings };
    let (agent, _folder) = start(&["demo/common", "demo/critical"], |config| {
        config.host.lifecycle.breaker = brief(config.host.lifecycle.breaker);
        config.host.lifecycle.critical_breaker = brief(config.host.lifecycle.critical_breaker);
    })
    .await;
    for (name, failures) in [("demo/common", 5), ("demo/critical", 10)] {
        let path = name.replace("demo", "");
        let standing = || plugin(&agent, name).breaker;
        for failure in 1..=failures {
            assert_eq!(standing(), "closed", "{name} before its failure {failure}");
            assert_eq!(tell(&agent, &format!("{path}/fail"), "").await.0, 502);
        }
        assert_eq!(standing(), "open", "{name}");
        // Whoever comes too early is refused, and the first behind it is let in.
        let mut refused = 0;
        let mut tried = async |what: &str| {
            let mut answer = (0, String::new());
            let is_through = async || {
                answer = tell(&agent, &format!("{path}/{what}"), "").await;
                let is_refused = answer.1.contains(REFUSAL);
                refused += u64::from(is_refused);
                !is_refused
            };
            wait_for("a probe", is_through).await;
            answer
        };
        // One that fails opens it anew.
        assert_eq!(tried("fail").await.0, 502);
        assert_eq!(standing(), "open", "{name}");
        assert_eq!(tried("count").await, (200, "1".to_owned()));
        assert_eq!(standing(), "closed", "{name}");
        let seen = plugin(&agent, name);
        assert_eq!((seen.calls, seen.errors), (failures + 2, failures + 1), "{name}");
        assert_eq!((seen.refused, seen.breaker_open_until), (refused, None), "{name}");
    }
    agent.shutdown().await;
}
