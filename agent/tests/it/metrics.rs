//! What Prometheus is told of real plugins.

use std::collections::BTreeSet;

use modunest_agent::Agent;
use modunest_agent::config::Listen;
use modunest_core::statement::TrustLevel;

use crate::homes::{Home, component};
use crate::links::tell;
use crate::plugins::route;
use crate::process::{plugin, until_again};
use crate::registry::Registry;
use crate::upkeep::wait_for;

/// A body that takes a plugin some time to read and to answer.
const LARGE_BYTES: usize = 1024 * 1024;

pub async fn metrics(agent: &Agent) -> String {
    let Listen::Tcp(admin) = agent.admin().clone() else { panic!("a TCP address") };
    reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap()
}

/// The value of a plugin's series whose labels contain `labels`.
pub fn value(text: &str, family: &str, plugin: &str, labels: &str) -> Option<f64> {
    let begin = format!("{family}{{plugin=\"{plugin}\",");
    let mut lines = text.lines().filter(|line| line.starts_with(&begin) && line.contains(labels));
    let line = lines.next()?;
    assert_eq!(lines.next(), None, "more than one series beside {line}");
    line.rsplit_once(' ').unwrap().1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_memory_and_restarts_are_told_of_every_tier() {
    let path = |name: &str| route(&format!("/{name}")).replace("GET", "POST");
    let registry = Registry::start().await;
    registry.publish(Home::Native.release("demo/process", &path("process")));
    registry.publish(Home::Native.release("demo/library", &path("library")));
    registry.publish(component("demo/inside", &path("inside")));
    registry.publish(component("demo/runner", &path("runner")));
    registry.trust("demo/inside", TrustLevel::Verified);
    let folder = tempfile::tempdir().unwrap();
    let names = ["process", "library", "inside", "runner"];
    let wanted = names.map(|name| format!("demo/{name}"));
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|name| (name.as_str(), "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    config.host.in_process = vec!["demo/library".parse().unwrap()];
    config.host.process.restarts.first_pause = std::time::Duration::from_millis(10);
    let agent = Agent::start(config).await.unwrap();
    let tiers = [
        ("process", "process"),
        ("library", "in-process"),
        ("inside", "component"),
        ("runner", "component-process"),
    ];
    let (cpu, memory, restarts) = (
        "modunest_plugin_cpu_seconds_total",
        "modunest_plugin_resident_memory_bytes",
        "modunest_plugin_restarts_total",
    );
    for (name, tier) in tiers {
        let (whole, of_tier) = (format!("demo/{name}"), format!("tier=\"{tier}\""));
        let used = async || {
            let (status, answer) =
                tell(&agent, &format!("/{name}/echo"), vec![b'x'; LARGE_BYTES]).await;
            assert_eq!((status, answer.len()), (200, LARGE_BYTES));
            value(&metrics(&agent).await, cpu, &whole, &of_tier).unwrap() > 0.0
        };
        wait_for("processor time", used).await;
        let text = metrics(&agent).await;
        let is_library = name == "library";
        let held = value(&text, memory, &whole, &of_tier);
        assert_eq!(held.is_some_and(|bytes| bytes > 0.0), !is_library, "{name}: {held:?}");
        assert_eq!(
            plugin(&agent, &whole).runs.unwrap().memory_unknown.is_some(),
            is_library,
            "{name}"
        );
        if is_library {
            assert_eq!(value(&text, restarts, &whole, ""), None);
            continue;
        }
        assert_eq!(value(&text, restarts, &whole, &of_tier), Some(0.0), "{name}");
        assert_ne!(tell(&agent, &format!("/{name}/abort"), "").await.0, 200);
        // A component is made anew for its next call, and a process by itself.
        if name == "process" {
            until_again(&agent, &whole, 1).await;
        }
        assert_eq!(tell(&agent, &format!("/{name}/count"), "").await, (200, "1".to_owned()));
        let is_counted =
            async || value(&metrics(&agent).await, restarts, &whole, &of_tier) == Some(1.0);
        wait_for("the restart to be counted", is_counted).await;
    }
    // Whatever is told can be looked up.
    let page = include_str!("../../../docs/operations.md");
    let text = metrics(&agent).await;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let unknown: Vec<&str> =
        families.filter(|family| !page.contains(&format!("`{family}`"))).collect();
    assert_eq!(unknown, [""; 0]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plugins_take_that_share_a_process_is_marked() {
    let registry = Registry::start().await;
    let names = ["demo/one", "demo/two", "demo/alone"];
    for name in names {
        registry.publish(Home::Native.release(name, ""));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &names.map(|name| (name, "^1")));
    let group = ["demo/one", "demo/two"].map(|name| name.parse().unwrap());
    config.host.process.share = vec![group.to_vec()];
    let agent = Agent::start(config).await.unwrap();
    let text = metrics(&agent).await;
    for family in ["modunest_plugin_cpu_seconds_total", "modunest_plugin_resident_memory_bytes"] {
        let marked: BTreeSet<&str> = names
            .into_iter()
            .filter(|name| value(&text, family, name, "group=\"group-0\"").is_some())
            .collect();
        assert_eq!(marked, BTreeSet::from(["demo/one", "demo/two"]), "{family}");
        assert!(value(&text, family, "demo/alone", "").is_some());
    }
    let runs = names.map(|name| plugin(&agent, name).runs.unwrap());
    assert_eq!(runs[0].pid, runs[1].pid);
    let groups = runs.map(|runs| runs.group);
    assert_eq!(groups, [Some("group-0".to_owned()), Some("group-0".to_owned()), None]);
    agent.shutdown().await;
}
