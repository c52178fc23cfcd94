//! Lifecycle hooks: of what a plugin is told, in which order; and hooks that hang, what the
//! plugin and those around it come to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::embed::Event;

use crate::homes::Home;
use crate::operator::Process;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::{get, plugin};
use crate::registry::Registry;
use crate::screens::config_file;
use crate::upkeep::wait_for;

/// What an observer has heard of states, as `plugin version state`.
type Heard = Arc<Mutex<Vec<String>>>;

/// `demo/user` needs `demo/hangs`, of which one hook hangs; `demo/alone` needs nothing.
async fn started(hook: &str, in_process: bool) -> (Registry, tempfile::TempDir, Agent, Heard) {
    let registry = Registry::start().await;
    let hang = format!("HANG_HOOK=\"{hook}\"");
    let more = route("/hangs") + ECHO;
    registry.publish(release("demo/hangs", "1.0.0", &[&hang, "FAIL_CALL"], &more));
    let more = uses("demo/hangs", "^1") + &route("/user");
    registry.publish(release("demo/user", "1.0.0", &["FORWARD_PLUGIN=\"demo/hangs\""], &more));
    registry.publish(release("demo/alone", "1.0.0", &[], &route("/alone")));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/user", ">=1"), ("demo/alone", "^1")];
    let mut config = registry.config(folder.path(), &wanted);
    config.host.lifecycle.hook_timeout = Duration::from_millis(300);
    config.host.lifecycle.keep_old = Duration::ZERO;
    if in_process {
        config.host.in_process = vec!["demo/*".parse().unwrap()];
    }
    let heard = Heard::default();
    let hears = heard.clone();
    let agent = Agent::builder(config)
        .observer(move |event: &Event<'_>| {
            if let Event::Plugin { plugin, version, state, .. } = event {
                hears.lock().unwrap().push(format!("{plugin} {version} {}", state.as_str()));
            }
        })
        .start()
        .await
        .unwrap();
    (registry, folder, agent, heard)
}

/// What the probe wrote to the log of the moments of its life.
fn moments<'l>(log: &'l str) -> Vec<&'l str> {
    let moment = |line: &'l str| Some(line.split_once("hears [")?.1.split_once(']')?.0);
    log.lines().filter_map(moment).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_told_of_each_moment_of_its_life_in_every_home() {
    for home in Home::ALL {
        let registry = Registry::start().await;
        registry.publish(home.release("demo/probe", &route("/probe")));
        let folder = tempfile::tempdir().unwrap();
        let config = config_file(&registry, folder.path(), &[("demo/probe", "^1")]);
        let mut text = std::fs::read_to_string(&config).unwrap();
        if home != Home::Near {
            text = text.replace("in_process = [\"demo/*\"]\n", "");
        }
        let own = if home == Home::Inside { "community" } else { "never" };
        text.push_str(&format!("[host.component]\nown_process = \"{own}\"\n"));
        std::fs::write(&config, text).unwrap();
        let process = Process::start_with(&config, [("MODUNEST_LOG", "debug")]).await;
        let tier = home.tier();
        assert_eq!(process.status().await.plugins[0].tier, tier);
        let mut told = vec!["before-load", "after-load"];
        assert_eq!(moments(&process.log()), told, "{tier}");
        let (status, text) = process.get("/probe/fail").await;
        assert!(status == 502 && text.contains("as it was told to"), "{tier}: {status} {text}");
        // Its caller has the answer before it hears of it.
        wait_for("on-error", async || moments(&process.log()).len() > told.len()).await;
        process.stop();
        told.extend(["on-error as it was told to", "before-unload", "after-unload", "stop"]);
        let log = std::fs::read_to_string(config.with_extension("log")).unwrap();
        assert_eq!(moments(&log), told, "{tier}");
    }
}

fn states(agent: &Agent) -> Vec<String> {
    let plugins = agent.status().plugins.into_iter();
    plugins.map(|p| format!("{} {}", p.plugin, p.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_first_hook_hangs_fails_and_takes_those_along_that_need_it() {
    for in_process in [true, false] {
        let (_registry, _folder, agent, _) = started("before-load", in_process).await;
        assert_eq!(states(&agent), ["demo/alone ready", "demo/hangs failed", "demo/user blocked"]);
        let late = "a lifecycle hook did not end within 300 ms";
        assert_eq!(plugin(&agent, "demo/hangs").reason.as_deref(), Some(late));
        let blocked = format!("needs demo/hangs 1.0.0, which failed: {late}");
        assert_eq!(plugin(&agent, "demo/user").reason, Some(blocked));
        assert_eq!(get(&agent, "/alone").await.0, 200);
        let (status, text) = get(&agent, "/user").await;
        assert!(status == 503 && text.contains(late), "{status} {text}");
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_only_tell_hold_up_nobody() {
    for in_process in [true, false] {
        for hook in ["after-load", "on-error"] {
            let (_registry, _folder, agent, _) = started(hook, in_process).await;
            let all = ["demo/alone ready", "demo/hangs ready", "demo/user ready"];
            assert_eq!(states(&agent), all, "{hook}");
            // More errors than may wait to be told.
            for _ in 0..20 {
                let (status, text) = get(&agent, "/hangs").await;
                let is_its_own =
                    text.contains("out of cheese") || text.contains("failed too often");
                assert!(status >= 500 && is_its_own, "{hook}: {status} {text}");
            }
            let (status, text) = get(&agent, "/alone").await;
            assert_eq!((status, text.as_str()), (200, "demo/alone 1.0.0 says hello"));
            assert_eq!(states(&agent), all, "{hook}");
            agent.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_last_hooks_hang_is_stopped_all_the_same() {
    for in_process in [true, false] {
        for hook in ["before-unload", "after-unload"] {
            let (registry, _folder, agent, heard) = started(hook, in_process).await;
            let has_heard = |what: &str| heard.lock().unwrap().iter().any(|one| one == what);
            // Another release takes its place, and it is stopped behind it.
            registry.publish(release("demo/hangs", "1.1.0", &[], ECHO));
            let update = modunest_agent::sync::Options { update: true, ..Default::default() };
            assert!(agent.sync_with(update).await.unwrap().changed);
            assert_eq!(
                get(&agent, "/user").await.1,
                "demo/user 1.0.0 says demo/user 1.0.0 via demo/hangs 1.1.0"
            );
            wait_for("its end", async || has_heard("demo/hangs 1.0.0 stopped")).await;
            let all = ["demo/alone ready", "demo/hangs ready", "demo/user ready"];
            assert_eq!(states(&agent), all, "{hook}");
            agent.shutdown().await;
            for ended in ["demo/alone 1.0.0", "demo/hangs 1.1.0", "demo/user 1.0.0"] {
                assert!(has_heard(&format!("{ended} stopped")), "{hook}: {ended}");
            }
        }
    }
}
