//! From nothing to an answer, and what happens afterwards.

use std::time::Duration;

use indicatif::ProgressBar;
use modunest_agent::config::Listen;
use modunest_agent::sync::{self, Options, Syncer};
use modunest_agent::{Agent, EXIT_NO_SOLUTION, EXIT_UNREACHABLE, Error};

use crate::configured::Given;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::plugin;
use crate::registry::{Lie, Registry};
use crate::upkeep::wait_for;

/// `demo/front` at `/front`, which needs `demo/back`; of that, 1.0.0, 1.1.0 and 2.0.0 exist.
async fn two_plugins() -> Registry {
    let registry = Registry::start().await;
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        registry.publish(release("demo/back", version, &[], ECHO));
    }
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    registry
}

async fn get(agent: &Agent, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", agent.gateway_addr())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_head_to_an_answer() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    let agent = Agent::start(config).await.unwrap();

    let (status, text) = get(&agent, "/front/below?x=1").await;
    assert_eq!(
        (status, text.as_str()),
        (200, "demo/front 1.0.0 says demo/front 1.0.0 via demo/back 1.1.0")
    );
    let (status, problem) = get(&agent, "/elsewhere").await;
    let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, problem["code"].as_str().unwrap()), (404, "not-found"));
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
    let url = format!("http://{}/front", agent.gateway_addr());
    let post = reqwest::Client::new().post(url).send().await.unwrap();
    assert_eq!((post.status().as_u16(), post.headers()["allow"].as_bytes()), (405, &b"GET"[..]));

    assert_eq!(registry.untraced(), 0);
    let Listen::Tcp(admin) = agent.admin().clone() else { panic!("a TCP address") };
    let status = reqwest::get(format!("http://{admin}/status")).await.unwrap();
    let status: modunest_agent::status::AgentStatus = status.json().await.unwrap();
    assert_eq!(status.ready, Ok(()));
    let states: Vec<_> = status
        .plugins
        .iter()
        .map(|p| (p.plugin.as_str(), p.version.as_str(), p.state.as_str(), p.calls))
        .collect();
    assert_eq!(states, [("demo/back", "1.1.0", "ready", 1), ("demo/front", "1.0.0", "ready", 1)]);
    for path in ["healthz", "readyz"] {
        let answer = reqwest::get(format!("http://{admin}/{path}")).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_twice() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    registry.take_requests();
    agent.sync().await.unwrap();
    let paths = |requests: Vec<(String, Option<String>)>| -> Vec<String> {
        requests.into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(paths(registry.take_requests()), ["/head"]);
    agent.shutdown().await;

    // Another process over the same folder asks for the head alone, too.
    let agent = Agent::start(config).await.unwrap();
    assert_eq!(paths(registry.take_requests()), ["/head"]);
    // After a publish elsewhere, only the new entries of the log are fetched.
    let before = registry.size();
    registry.publish(release("demo/other", "1.0.0", &[], ""));
    let synced = agent.sync().await.unwrap();
    assert!(!synced.changed);
    assert_eq!(before, 9);
    assert_eq!(paths(registry.take_requests()), ["/head", "/checkpoint", "/tile/entries/000.p/11"]);
    registry.publish(release("demo/more", "1.0.0", &[], ""));
    agent.sync().await.unwrap();
    // Only the new bytes of a bundle that was read before.
    let requests = registry.take_requests();
    let ranges: Vec<_> = requests.iter().map(|(_, range)| range.as_deref()).collect();
    let known = registry.get("/tile/entries/000.p/11").len();
    assert_eq!(ranges, [None, None, Some(format!("bytes={known}-").as_str())], "{requests:?}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_from_store_and_lock() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    Agent::start(config.clone()).await.unwrap().shutdown().await;
    registry.stop();

    let agent = Agent::start(config.clone()).await.unwrap();
    assert_eq!(get(&agent, "/front").await.0, 200);
    let status = agent.status();
    let offline = status.last_sync.unwrap().offline.unwrap();
    assert!(offline.starts_with("could not reach http://127.0.0.1"), "{offline}");
    assert!(status.head.is_some());
    agent.shutdown().await;

    // What was never synced cannot be run offline, and says why.
    let more = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/new", "^1")]);
    let syncer = Syncer::open(&more).unwrap();
    let outcome = syncer.sync(&more, Options::default(), &ProgressBar::hidden()).await;
    let error = Error::from(outcome.unwrap_err());
    assert_eq!(error.exit_code(), EXIT_UNREACHABLE);
    assert!(
        error.to_string().ends_with("what is on this machine does not do: demo/new is missing")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_use_no_network_uses_none_whatever_is_asked_later() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    Agent::start(config.clone()).await.unwrap().shutdown().await;
    assert!(!registry.take_requests().is_empty());
    let given = Given::new(config);
    let agent = Agent::builder(given.clone()).offline().start().await.unwrap();
    agent.sync().await.unwrap();
    given.change(|config| config.host.slots += 1);
    assert_eq!(agent.reload().await.unwrap().applied, ["host"]);
    assert_eq!(get(&agent, "/front").await.0, 200);
    let requests = registry.take_requests();
    assert!(requests.is_empty(), "{requests:?}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_versions_stay_until_an_update() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/back", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    let version = async |options: Options| {
        let outcome = syncer.sync(&config, options, &ProgressBar::hidden()).await?;
        let version = outcome.generation.lock.plugins[0].version.to_string();
        Ok::<_, sync::Error>((version, outcome.generation.number, outcome.warnings.len()))
    };
    let plain = Options::default();
    let frozen = Options { frozen: true, ..plain };
    assert!(matches!(version(frozen).await, Err(sync::Error::Frozen(_))));
    assert_eq!(version(plain).await.unwrap(), ("1.1.0".to_owned(), 1, 0));
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    assert_eq!(version(plain).await.unwrap(), ("1.1.0".to_owned(), 1, 0));
    assert_eq!(version(frozen).await.unwrap().0, "1.1.0");
    // A yanked release stays where it is locked, with a warning, and is not chosen anew.
    registry.yank("demo/back", "1.1.0");
    assert_eq!(version(plain).await.unwrap(), ("1.1.0".to_owned(), 1, 1));
    let update = Options { update: true, ..plain };
    assert_eq!(version(update).await.unwrap(), ("1.2.0".to_owned(), 2, 0));
    let generation = syncer.generations().current().unwrap().unwrap();
    assert_eq!(syncer.verify(&config, &generation).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_is_taken_into_service() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let front = |version: &str, macros: &[&str]| {
        let more = uses("demo/back", "^1") + &route("/front");
        let forward = "FORWARD_PLUGIN=\"demo/back\"";
        let macros: Vec<&str> = macros.iter().copied().chain([forward]).collect();
        release("demo/front", version, &macros, &more)
    };
    registry.publish(front("1.0.0", &[]));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/front", "=1.0.0")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    let before = agent.status().plugins[0].since.clone();
    agent.shutdown().await;

    // The lock holds an agent to what it has; what it wants otherwise changes it.
    registry.publish(front("1.1.0", &[]));
    config = registry.config(folder.path(), &[("demo/front", "=1.1.0")]);
    let agent = Agent::start(config).await.unwrap();
    assert!(get(&agent, "/front").await.1.starts_with("demo/front 1.1.0"));
    assert_ne!(agent.status().plugins[0].since, before);
    assert_eq!(agent.status().generation, Some(2));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_reported_whole() {
    let registry = two_plugins().await;
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/back", "^2")]);
    let syncer = Syncer::open(&config).unwrap();
    let error = Error::from(syncer.resolve(&config, false).await.unwrap_err());
    assert_eq!(error.exit_code(), EXIT_NO_SOLUTION);
    let text = error.to_string();
    for part in ["demo/front 1.0.0 needs demo/back ^1", "the request needs demo/back ^2"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_broke_off() {
    let registry = Registry::start().await;
    let build = registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let path = format!("/blob/sha256/{}", build.archive);
    registry.lie(&path, 2, Lie::Break(1000));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/back", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    let outcome = syncer.sync(&config, Options::default(), &ProgressBar::hidden()).await.unwrap();
    assert_eq!(outcome.fetched, 1);
    let ranges: Vec<_> = registry
        .take_requests()
        .into_iter()
        .filter(|(asked, _)| *asked == path)
        .map(|(_, range)| range)
        .collect();
    assert_eq!(ranges[0], None);
    assert!(ranges[1..].iter().all(|range| range.as_deref() == Some("bytes=1000-")), "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_plugins_answer_problems_and_others_go_on() {
    let registry = Registry::start().await;
    for (name, macros) in [
        ("demo/fails", &["FAIL_CALL"][..]),
        ("demo/panics", &["PANIC_CALL"]),
        ("demo/slow", &["SLOW_CALL_S=2"]),
        ("demo/sorry", &["HTTP_STATUS=500"]),
        ("demo/works", &[]),
        ("demo/broken", &["FAIL_CREATE"]),
    ] {
        let path = format!("/{}", name.split('/').next_back().unwrap());
        registry.publish(release(name, "1.0.0", macros, &route(&path)));
    }
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["fails", "panics", "slow", "sorry", "works", "broken"];
    let wanted = wanted.map(|name| format!("demo/{name}"));
    let wanted: Vec<_> = wanted.iter().map(|name| (name.as_str(), "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    config.host.call_timeout = Duration::from_millis(300);
    let agent = Agent::start(config).await.unwrap();
    let mut seen = Vec::new();
    for path in ["/works", "/fails", "/panics", "/slow", "/sorry", "/broken", "/works"] {
        let (status, text) = get(&agent, path).await;
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or(&text);
        // Gateway and host watch the same deadline; either may be the first to say so.
        let late = "deadline exceeded: /slow of demo/slow did not end in time";
        let detail = detail.replace(&format!("demo/slow 1.0.0: {late}"), "no answer within 300 ms");
        seen.push(format!("{path} {status} {detail}"));
    }
    insta::assert_snapshot!(seen.join("\n"));
    // The gateway may have answered before the host has seen that the call is late.
    let is_counted = async || plugin(&agent, "demo/slow").errors == 1;
    wait_for("the late call to be counted", is_counted).await;
    let counts: Vec<_> = agent
        .status()
        .plugins
        .into_iter()
        .map(|p| format!("{} {} {} {} {}", p.plugin, p.calls, p.errors, p.panics, p.faults))
        .collect();
    assert_eq!(
        counts,
        [
            "demo/broken 0 0 0 0",
            "demo/fails 1 1 0 0",
            "demo/panics 1 1 1 0",
            "demo/slow 1 1 0 0",
            "demo/sorry 1 1 0 1",
            "demo/works 2 0 0 0"
        ]
    );
    agent.shutdown().await;
}
