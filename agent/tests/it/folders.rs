//! Private folders that native plugins write to by themselves, where no host is asked.

use std::path::Path;

use modunest_agent::{Agent, Config};

use crate::plugins::{hostile, route};
use crate::process::{get, plugin, runs, until, until_dead};
use crate::registry::Registry;

/// How many files are written, of 4 KiB each.
const FILES: usize = 1500;

/// How many files are in a folder.
fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Tells a plugin to write files, which it may not live to answer.
async fn scatter(agent: &Agent, path: &str, count: usize, folder: &Path) {
    let url = format!("http://{}{path}/scatter", agent.gateway_addr());
    let body = format!("{count} {}", folder.display());
    let asked = reqwest::Client::new().get(url).body(body);
    drop(asked.send().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fills_its_folder_by_itself_is_ended_and_its_files_stay() {
    let few: fn(&mut Config) = |config| config.host.grants.quota.files_count = 1000;
    let small: fn(&mut Config) = |config| config.host.grants.quota.files_bytes = 4_000_000;
    for (quota, what) in
        [(few, "in 1000 (files_count)"), (small, "its [quota] allows 4000000 (files_bytes)")]
    {
        let registry = Registry::start().await;
        let asks = "\n[capabilities]\nfiles = [\"private\"]\n";
        for (name, path) in [("demo/bad", "/bad/{action}"), ("demo/modest", "/modest/bad/{action}")]
        {
            registry.publish(hostile(name, &[], &(asks.to_owned() + &route(path))));
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().canonicalize().unwrap();
        let mut config = registry.config(&state, &[("demo/bad", "^1"), ("demo/modest", "^1")]);
        quota(&mut config);
        let agent = Agent::start(config).await.unwrap();
        let [bad, modest] = ["bad", "modest"].map(|name| state.join("private/demo").join(name));
        scatter(&agent, "/modest/bad", 500, &modest).await;
        assert_eq!(files(&modest), 500);
        let pid = runs(&agent, "demo/bad").pid.unwrap();
        scatter(&agent, "/bad", FILES, &bad).await;
        until(&agent, "demo/bad", "failed").await;
        until_dead(pid).await;
        let seen = plugin(&agent, "demo/bad");
        let reason = seen.reason.unwrap();
        let begins = format!(
            "its process was ended by the agent: the private folder {} of demo/bad holds ",
            bad.display()
        );
        assert!(reason.starts_with(&begins) && reason.contains(what), "{reason}");
        assert!(reason.ends_with("it is not started again"), "{reason}");
        assert_eq!(seen.runs.unwrap().pid, None);
        let left = files(&bad);
        assert!(left > 900 && left <= FILES, "{left}");
        let (status, text) = get(&agent, "/bad/ping").await;
        assert!(status == 503 && text.contains("files_bytes"), "{status} {text}");
        // Whoever keeps to the quota goes on.
        assert_eq!(get(&agent, "/modest/bad/ping").await, (200, "pong".to_owned()));
        assert_eq!((plugin(&agent, "demo/modest").state.as_str(), files(&modest)), ("ready", 500));
        // With room again, it is started when somebody says so.
        std::fs::remove_dir_all(&bad).unwrap();
        agent.restart(&"demo/bad".parse().unwrap()).await.unwrap();
        until(&agent, "demo/bad", "ready").await;
        assert_eq!(get(&agent, "/bad/ping").await, (200, "pong".to_owned()));
        agent.shutdown().await;
    }
}
