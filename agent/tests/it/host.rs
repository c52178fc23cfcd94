//! Loading: order, failure chains, deadlines, conflicts, permission.

use std::time::{Duration, Instant};

use modunest_agent::Agent;
use modunest_agent::config::Listen;
use modunest_agent::status::Readiness;
use modunest_core::archive::PackFile;

use crate::plugins::{ECHO, hostile, release, route, uses};
use crate::process::{get, observed, until};
use crate::registry::{Registry, Release};
use crate::upkeep::wait_for;

fn states(agent: &Agent) -> String {
    let lines: Vec<String> = agent
        .status()
        .plugins
        .into_iter()
        .map(|p| format!("{} {} {}", p.plugin, p.state, p.reason.unwrap_or_default()).trim().into())
        .collect();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_takes_down_those_that_need_it_and_nothing_else() {
    let registry = Registry::start().await;
    registry.publish(release("demo/base", "1.0.0", &["FAIL_CREATE"], ECHO));
    registry.publish(release("demo/middle", "1.0.0", &[], &(uses("demo/base", "^1") + ECHO)));
    registry.publish(release("demo/top", "1.0.0", &[], &uses("demo/middle", "^1")));
    let optional = "\n[dependencies]\n\"demo/base\" = { version = \"^1\", optional = true }\n";
    registry.publish(release("demo/easy", "1.0.0", &[], optional));
    registry.publish(release("demo/hangs", "1.0.0", &["SLOW_CREATE_S=3"], ECHO));
    registry.publish(release("demo/waits", "1.0.0", &[], &uses("demo/hangs", "^1")));
    registry.publish(release("demo/alone", "1.0.0", &[], ""));
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["demo/top", "demo/easy", "demo/waits", "demo/alone"].map(|name| (name, "^1"));
    let mut config = registry.config(folder.path(), &wanted);
    config.host.load_timeout = Duration::from_millis(500);
    let started = Instant::now();
    let agent = Agent::start(config).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "the deadline did not hold");
    insta::assert_snapshot!(states(&agent));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_found_before_loading() {
    let registry = Registry::start().await;
    registry.publish(release("demo/first", "1.0.0", &[], &route("/page/{id}")));
    registry.publish(release("demo/second", "1.0.0", &[], &route("/page/{name}")));
    let guarded = "\n[[guard]]\nname = \"door\"\n\n[[route]]\npath = \"/guarded\"\nmethods = [\"GET\"]\nguards = [\"door\"]\n";
    registry.publish(release("demo/guarded", "1.0.0", &[], guarded));
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["demo/first", "demo/second", "demo/guarded"].map(|n| (n, "^1"));
    let config = registry.config(folder.path(), &wanted);
    let agent = Agent::start(config).await.unwrap();
    insta::assert_snapshot!(states(&agent));
    let url = format!("http://{}/page/7", agent.gateway_addr());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert_eq!(text, "demo/first 1.0.0 says hello");
    agent.shutdown().await;
}

/// A release whose archive also has this file.
fn with_file(mut release: Release, name: &str, content: &str) -> Release {
    release.files.push(PackFile {
        name: name.to_owned(),
        content: content.as_bytes().to_vec(),
        executable: false,
    });
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_held_against_its_schema_before_anything_is_loaded() {
    let schema = r#"{
        "type": "object",
        "required": ["title", "size"],
        "properties": {
            "title": { "type": "string" },
            "size": { "type": "integer", "minimum": 1 },
            "token": { "type": "string", "pattern": "^[a-z]{4}$" }
        },
        "additionalProperties": false
    }"#;
    let registry = Registry::start().await;
    // Whoever runs has found its configuration to be good.
    let more = route("/page") + ECHO + "\n[config]\nschema = \"config.json\"\n";
    registry.publish(with_file(release("demo/page", "1.0.0", &[], &more), "config.json", schema));
    registry.publish(release("demo/user", "1.0.0", &[], &uses("demo/page", "^1")));
    registry.publish(release("demo/alone", "1.0.0", &[], ""));
    let mut seen = Vec::new();
    let sealed = format!("sealed:v1:{}", "A".repeat(80));
    for config in [
        String::new(),
        r#"{ "title": 7, "size": 0, "colour": "red" }"#.to_owned(),
        format!(r#"{{ "title": "x", "size": "{sealed}", "token": "abc1" }}"#),
        r#"{ "title": "x", "size": 3 }"#.to_owned(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let wanted = [("demo/page", "^1"), ("demo/user", "^1"), ("demo/alone", "^1")];
        let mut settings = registry.config(folder.path(), &wanted);
        settings.plugins.get_mut(&"demo/page".parse().unwrap()).unwrap().config =
            config.clone().into_bytes();
        let agent = Agent::start(settings).await.unwrap();
        seen.push(format!("{config}\n{}", states(&agent)));
        agent.shutdown().await;
    }
    insta::assert_snapshot!(seen.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_in_a_plugins_way_is_told_at_once() {
    let registry = Registry::start().await;
    registry.publish(release("demo/aa", "1.0.0", &[], &(route("/one") + &route("/two"))));
    let old = "\n[[service]]\nname = \"echo\"\nversion = \"1.2.0\"\n";
    registry.publish(release("demo/back", "1.0.0", &[], old));
    let more = "\n[dependencies]\n\"demo/back\" = \"^1\"\n\n\
        [[import]]\nplugin = \"demo/back\"\nservice = \"echo\"\nversion = \"^2\"\n\n\
        [[import]]\nplugin = \"demo/back\"\nservice = \"sing\"\n\n\
        [[service]]\nname = \"talk\"\nversion = \"1.0.0\"\nrequest = \"ask.json\"\nresponse = \"say.json\"\n\n\
        [config]\nschema = \"config.json\"\n"
        .to_owned()
        + &route("/one")
        + &route("/two");
    let mut bad = release("demo/bad", "1.0.0", &[], &more);
    for (name, content) in [
        ("ask.json", "{"),
        ("say.json", r#"{ "type": "thing" }"#),
        ("config.json", r#"{ "required": ["title"] }"#),
    ] {
        bad = with_file(bad, name, content);
    }
    registry.publish(bad);
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["demo/aa", "demo/bad"].map(|name| (name, "^1"));
    let agent = Agent::start(registry.config(folder.path(), &wanted)).await.unwrap();
    insta::assert_snapshot!(states(&agent).replace("; ", ";\n"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_for_those_that_import_them() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    // Calls a plugin that its manifest does not import.
    let forward = ["FORWARD_PLUGIN=\"demo/back\""];
    registry.publish(release("demo/thief", "1.0.0", &forward, &route("/thief")));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/thief", "^1"), ("demo/back", "^1")]);
    let agent = Agent::start(config).await.unwrap();
    let answer = reqwest::get(format!("http://{}/thief", agent.gateway_addr())).await.unwrap();
    assert_eq!(answer.status(), 403);
    let text = answer.text().await.unwrap();
    assert!(text.contains("demo/thief does not import echo of demo/back"), "{text}");
    agent.shutdown().await;
}

/// The same release, perhaps as one without which its host is not ready.
pub fn critical(mut release: Release, is_critical: bool) -> Release {
    let line = format!("license = \"MIT\"\ncritical = {is_critical}\n");
    release.manifest = release.manifest.replace("license = \"MIT\"\n", &line);
    release
}

pub async fn readiness(agent: &Agent) -> (u16, Option<String>) {
    let Listen::Tcp(address) = agent.admin().clone() else { panic!("a TCP address") };
    let answer = reqwest::get(format!("http://{address}/readyz")).await.unwrap();
    let status = answer.status().as_u16();
    let readiness: Readiness = answer.json().await.unwrap();
    assert_eq!(readiness.ready, status == 200);
    (status, readiness.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_not_ready_where_a_critical_plugin_could_not_be_loaded() {
    let lazy = "\n[lifecycle]\nactivation = [\"route\"]\n";
    for more in ["", lazy] {
        for is_critical in [true, false] {
            let registry = Registry::start().await;
            let more = route("/key") + more;
            let key = release("demo/key", "1.0.0", &["FAIL_CREATE"], &more);
            registry.publish(critical(key, is_critical));
            let folder = tempfile::tempdir().unwrap();
            let config = registry.config(folder.path(), &[("demo/key", "^1")]);
            let agent = Agent::start(config).await.unwrap();
            let reason = "demo/key is critical and failed: its start failed: no license server";
            let expected = if is_critical { (503, Some(reason.to_owned())) } else { (200, None) };
            assert_eq!(readiness(&agent).await, expected, "{more}");
            agent.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_not_ready_while_a_critical_plugin_is_started_again() {
    for is_critical in [true, false] {
        let registry = Registry::start().await;
        registry.publish(critical(hostile("demo/bad", &[], &route("/bad/{action}")), is_critical));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/bad", "^1")]);
        // Long enough to be looked at.
        config.host.process.restarts.first_pause = Duration::from_secs(3);
        let agent = Agent::start(config).await.unwrap();
        assert_eq!(readiness(&agent).await, (200, None));
        assert_eq!(get(&agent, "/bad/abort").await.0, 503);
        until(&agent, "demo/bad", "restarting").await;
        let (status, reason) = readiness(&agent).await;
        if is_critical {
            let reason = reason.unwrap();
            let begins = "demo/bad is critical and restarting: its process was killed by SIGABRT";
            assert!(status == 503 && reason.starts_with(begins), "{status} {reason}");
        } else {
            assert_eq!((status, reason), (200, None));
        }
        wait_for("its restart", async || readiness(&agent).await.0 == 200).await;
        until(&agent, "demo/bad", "ready").await;
        assert_eq!(readiness(&agent).await, (200, None));
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_loaded_at_once_than_there_are_slots() {
    const NAMES: [&str; 8] =
        ["demo/aa", "demo/bb", "demo/cc", "demo/dd", "demo/ee", "demo/ff", "demo/gg", "demo/hh"];
    for in_process in [false, true] {
        let registry = Registry::start().await;
        for name in NAMES {
            registry.publish(release(name, "1.0.0", &["SLOW_CREATE_MS=300"], ""));
        }
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &NAMES.map(|name| (name, "^1")));
        config.host.slots = 2;
        if in_process {
            config.host.in_process = vec!["demo/*".parse().unwrap()];
        }
        let (agent, heard) = observed(config).await;
        let (mut loading, mut most, mut ready) = (0, 0, 0);
        for line in heard.lock().unwrap().iter() {
            match line.split_once(' ').unwrap().1 {
                "loading" => loading += 1,
                "ready" => (loading, ready) = (loading - 1, ready + 1),
                other => panic!("{other}"),
            }
            most = most.max(loading);
        }
        assert_eq!((most, loading, ready), (2, 0, NAMES.len()), "in process: {in_process}");
        agent.shutdown().await;
    }
}
