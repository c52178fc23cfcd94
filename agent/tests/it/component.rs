//! Components: what an agent does with a release that has nothing else.

use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::config::Config;
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::TrustLevel;

use crate::homes::component;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::{plugin, runs};
use crate::registry::Registry;

fn state_of(agent: &Agent, plugin: &str) -> String {
    let status = agent.status();
    let plugin = status.plugins.into_iter().find(|p| p.plugin.as_str() == plugin).unwrap();
    format!("{} {}", plugin.state, plugin.reason.unwrap_or_default()).trim().to_owned()
}

async fn ask(agent: &Agent, path: &str, body: &str) -> (u16, String) {
    let url = format!("http://{}{path}", agent.gateway_addr());
    let request = reqwest::Client::new().get(url).body(body.to_owned());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn start(registry: &Registry, folder: &std::path::Path, plugins: &[(&str, &str)]) -> Agent {
    Agent::start(config(registry, folder, plugins)).await.unwrap()
}

fn config(registry: &Registry, folder: &std::path::Path, plugins: &[(&str, &str)]) -> Config {
    let mut config = registry.config(folder, plugins);
    // Only what the trust level says.
    config.host.in_process = vec!["demo/native".parse().unwrap()];
    config.host.load_timeout = Duration::from_secs(30);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_proven_compiled_once_and_serves() {
    let registry = Registry::start().await;
    registry.publish(release("demo/native", "1.0.0", &[], ECHO));
    registry.publish(component("demo/probe", &(route("/probe") + &uses("demo/native", "^1"))));
    registry.trust("demo/probe", TrustLevel::Verified);
    let folder = tempfile::tempdir().unwrap();
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    assert_eq!(state_of(&agent, "demo/probe"), "ready");
    assert_eq!(ask(&agent, "/probe/echo", "hello").await, (200, "hello".to_owned()));
    assert_eq!(ask(&agent, "/probe/count", "").await, (200, "1".to_owned()));
    assert_eq!(ask(&agent, "/probe/count", "").await, (200, "2".to_owned()));
    assert_eq!(ask(&agent, "/probe/asset", "assets/a").await, (200, "A".to_owned()));
    let (status, listed) = ask(&agent, "/probe/assets", "").await;
    assert_eq!((status, listed.as_str()), (200, "assets/a\nlib/plugin.wasm\nplugin.toml"));
    let (status, native) = ask(&agent, "/probe/service", "demo/native echo").await;
    assert_eq!(status, 200, "{native}");
    assert!(native.contains("from probe"), "{native}");
    let (status, denied) = ask(&agent, "/probe/service", "demo/native other").await;
    assert_eq!(status, 403, "{denied}");
    agent.shutdown().await;

    // The second start takes what the first compiled.
    let compiled = || {
        let files = std::fs::read_dir(folder.path().join("compiled")).unwrap();
        let mut files: Vec<_> = files
            .map(|file| {
                let file = file.unwrap();
                (file.file_name(), file.metadata().unwrap().modified().unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let first = compiled();
    // A key, the code, and the proof of it.
    assert_eq!(first.len(), 3, "{first:?}");
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    assert_eq!(ask(&agent, "/probe/echo", "again").await, (200, "again".to_owned()));
    assert_eq!(compiled(), first);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_says_where_a_component_runs_and_a_changed_one_runs_nowhere() {
    let registry = Registry::start().await;
    registry.publish(component("demo/probe", &route("/probe")));
    let folder = tempfile::tempdir().unwrap();
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    assert_eq!(state_of(&agent, "demo/probe"), "ready");
    assert_eq!(plugin(&agent, "demo/probe").tier, "component-process");
    assert_eq!(ask(&agent, "/probe/asset", "assets/a").await, (200, "A".to_owned()));
    assert_eq!(ask(&agent, "/probe/asset", "../plugin.toml").await.0, 404);
    let seen = runs(&agent, "demo/probe");
    assert!(seen.confined, "{seen:?}");
    let pid = seen.pid.unwrap();
    let process = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert!(process("cmdline").starts_with("modunest-runner demo/probe\0"));
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(process("status").contains(line), "{}", process("status"));
    }
    agent.shutdown().await;

    registry.trust("demo/probe", TrustLevel::Internal);
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&registry, folder.path(), &[("demo/probe", "^1")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    assert_eq!(state_of(&agent, "demo/probe"), "ready");
    assert_eq!(plugin(&agent, "demo/probe").tier, "component");
    assert_eq!(runs(&agent, "demo/probe").pid, None);
    agent.shutdown().await;

    // The operator's word goes before the trust level, in both directions.
    for (in_process, runner, tier) in [
        (&["demo/*"][..], &["demo/probe"][..], "component-process"),
        (&[], &["demo/*"], "component-process"),
        (&["demo/probe"], &["other/*"], "component"),
    ] {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        config.host.in_process = patterns(in_process);
        config.host.component.runner = patterns(runner);
        let agent = Agent::start(config.clone()).await.unwrap();
        assert_eq!(plugin(&agent, "demo/probe").tier, tier, "{in_process:?} {runner:?}");
        assert_eq!(ask(&agent, "/probe/echo", "x").await, (200, "x".to_owned()));
        agent.shutdown().await;
    }

    // What was compiled is gone, and the component in the store is another one.
    std::fs::remove_dir_all(folder.path().join("compiled")).unwrap();
    let store = std::fs::read_dir(folder.path().join("store")).unwrap();
    let component = store
        .map(|entry| entry.unwrap().path().join(COMPONENT_NAME))
        .find(|path| path.is_file())
        .unwrap();
    let mut bytes = std::fs::read(&component).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&component).unwrap();
    std::fs::write(&component, bytes).unwrap();
    for runner in [vec![], vec!["demo/*".parse().unwrap()]] {
        config.host.component.runner = runner;
        let agent = Agent::start(config.clone()).await.unwrap();
        let state = state_of(&agent, "demo/probe");
        assert!(
            state.starts_with("failed") && state.contains("changed since it was proven"),
            "{state}"
        );
        agent.shutdown().await;
    }
}
