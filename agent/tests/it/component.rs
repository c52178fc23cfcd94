//! Components: what an agent does with a release that has nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modunest_agent::Agent;
use modunest_agent::config::Config;
use modunest_core::archive::PackFile;
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::TrustLevel;

use crate::plugins::{ECHO, release, route, uses};
use crate::registry::{Registry, Release};

/// The component whose source is in `tests/components/probe`.
const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");

/// A release of it. `more` is appended to the manifest.
fn probe(name: &str, more: &str) -> Release {
    let manifest = format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"A component that exists for tests\"\nauthors = [\"Ada Example\"]\nlicense = \"MIT\"\n\n[host]\nabi = 1\n{more}\n[build]\nwasm = {{ library = \"probe\", world = \"1.0.0\" }}\n"
    );
    let file = |name: &str, content: &[u8]| PackFile {
        name: name.to_owned(),
        content: content.to_vec(),
        executable: false,
    };
    Release { manifest, files: vec![file(COMPONENT_NAME, PROBE), file("assets/a", b"A")] }
}

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
    registry.publish(probe("demo/probe", &(route("/probe") + &uses("demo/native", "^1"))));
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
    assert_eq!(first.len(), 2, "{first:?}");
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    assert_eq!(ask(&agent, "/probe/echo", "again").await, (200, "again".to_owned()));
    assert_eq!(compiled(), first);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attacked_plugin_comes_back_and_its_neighbours_never_notice() {
    let registry = Registry::start().await;
    for (name, path) in [("demo/hostile", "/hostile"), ("demo/neighbour", "/neighbour")] {
        registry.publish(probe(name, &route(path)));
        registry.trust(name, TrustLevel::Verified);
    }
    registry.publish(release("demo/native", "1.0.0", &[], &route("/native")));
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["demo/hostile", "demo/neighbour", "demo/native"].map(|name| (name, "^1"));
    let mut config = config(&registry, folder.path(), &wanted);
    config.host.call_timeout = Duration::from_millis(500);
    let agent = Agent::start(config).await.unwrap();

    let over = AtomicBool::new(false);
    let watch = async {
        let mut times = Vec::new();
        while !over.load(Ordering::Relaxed) {
            for path in ["/neighbour/echo", "/native"] {
                let since = Instant::now();
                let (status, text) = ask(&agent, path, "x").await;
                assert_eq!(status, 200, "{text}");
                times.push(since.elapsed());
            }
        }
        times
    };
    let attack = async {
        for attack in ["panic", "abort", "grow", "recurse", "large", "lie", "spin", "storm"] {
            let (status, text) = ask(&agent, &format!("/hostile/{attack}"), "").await;
            assert!(matches!(status, 502 | 504) || attack == "storm", "{attack}: {status} {text}");
            let (status, text) = ask(&agent, "/hostile/echo", "still").await;
            assert_eq!((status, text.as_str()), (200, "still"), "{attack}");
        }
        over.store(true, Ordering::Relaxed);
    };
    let (mut times, ()) = tokio::join!(watch, attack);
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    eprintln!("neighbours: {} calls, no error, p99 {p99:?}", times.len());
    assert!(!times.is_empty());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_says_where_a_component_runs_and_a_changed_one_runs_nowhere() {
    let registry = Registry::start().await;
    registry.publish(probe("demo/probe", &route("/probe")));
    let folder = tempfile::tempdir().unwrap();
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    insta::assert_snapshot!(state_of(&agent, "demo/probe"));
    agent.shutdown().await;

    registry.trust("demo/probe", TrustLevel::Internal);
    let folder = tempfile::tempdir().unwrap();
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    assert_eq!(state_of(&agent, "demo/probe"), "ready");
    agent.shutdown().await;

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
    let agent = start(&registry, folder.path(), &[("demo/probe", "^1")]).await;
    let state = state_of(&agent, "demo/probe");
    assert!(
        state.starts_with("failed") && state.contains("changed since it was proven"),
        "{state}"
    );
    agent.shutdown().await;
}
