//! Changes that are tried for a share of the calls: promoted, rolled back, decided by hand.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use modunest_agent::config::{CanaryRule, CanarySettings, Config, Listen};
use modunest_agent::status::PluginStatus;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, Error, TrialWord};

use crate::homes::Home;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::{get, plugin};
use crate::registry::{Registry, Release};
use crate::turns::Heard;
use crate::upkeep::wait_for;

const UPDATE: Options = Options { frozen: false, offline: false, update: true };

/// Nothing is decided before it has served so many calls.
fn rule(share_percent: u32, calls: u64) -> CanarySettings {
    let common =
        CanaryRule { share_percent, watch: Duration::ZERO, calls, failures: 3, errors_percent: 5 };
    CanarySettings { common, plugins: Vec::new() }
}

fn page(version: &str, macros: &[&str]) -> Release {
    release("demo/page", version, macros, &route("/page"))
}

const KEPT: &str = "\n[state]\nversion = 1\naccepts = []\n";

fn counter(version: &str, macros: &[&str]) -> Release {
    let macros: Vec<&str> = macros.iter().copied().chain(["STATE"]).collect();
    release("demo/page", version, &macros, &(route("/page") + KEPT))
}

/// An agent that runs `first`, and tries `second` from now on.
async fn trying(first: Release, second: Release, rules: CanarySettings) -> (Registry, Setup) {
    trying_with(first, second, rules, |_| ()).await
}

async fn trying_with(
    first: Release,
    second: Release,
    rules: CanarySettings,
    change: impl FnOnce(&mut Config),
) -> (Registry, Setup) {
    let registry = Registry::start().await;
    registry.publish(first);
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/page", "^1")]);
    config.host.lifecycle.canary = rules;
    config.host.lifecycle.health.every = Duration::from_millis(1);
    config.host.lifecycle.health.failures = 1;
    change(&mut config);
    let agent = Agent::start(config.clone()).await.unwrap();
    registry.publish(second);
    let synced = agent.sync_with(UPDATE).await.unwrap();
    // What serves is as before.
    assert_eq!((synced.generation, synced.changed), (1, false));
    (registry, Setup { agent, config, _folder: folder })
}

struct Setup {
    agent: Agent,
    config: Config,
    _folder: tempfile::TempDir,
}

impl Setup {
    fn page(&self) -> PluginStatus {
        plugin(&self.agent, "demo/page")
    }

    /// Waits until what was tried is promoted or rolled back.
    async fn decided(&self) -> PluginStatus {
        let is_decided =
            |page: &PluginStatus| page.version != "1.0.0" || page.rolled_back.is_some();
        wait_for("the end of the trial", async || is_decided(&self.page())).await;
        self.page()
    }

    async fn status(&self) -> u16 {
        get(&self.agent, "/page").await.0
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let Listen::Tcp(admin) = self.agent.admin().clone() else { panic!("a TCP address") };
        let url = format!("http://{admin}{path}");
        let answer = match path {
            "/metrics" | "/plugins" | "/generations" => reqwest::get(url).await.unwrap(),
            _ => reqwest::Client::new().post(url).send().await.unwrap(),
        };
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_change_is_promoted_and_the_old_instance_keeps_the_state_until_then() {
    let (_registry, setup) =
        trying(counter("1.0.0", &[]), counter("1.1.0", &[]), rule(25, 5)).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(get(&setup.agent, "/page").await.1);
    }
    // Every fourth call is the new instance's, which counts on in a copy of its own.
    let old = |count: usize| format!("demo/page 1.0.0 counts {count}");
    let new = |count: usize| format!("demo/page 1.1.0 counts {count}");
    let expected = (0..20).map(|call| {
        let round = call / 4;
        if call % 4 == 3 { new(round + 1) } else { old(round * 3 + call % 4 + 1) }
    });
    assert_eq!(seen, expected.collect::<Vec<_>>());
    let page = setup.decided().await;
    assert_eq!((page.version.as_str(), page.rolled_back), ("1.1.0", None));
    // Its generation is told when the switch is done.
    wait_for("its generation", async || setup.agent.status().generation == Some(2)).await;
    // It goes on from the state of the old one.
    assert_eq!(get(&setup.agent, "/page").await.1, new(16));
    // A start begins with what was promoted.
    setup.agent.shutdown().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    assert_eq!(get(&agent, "/page").await.1, new(1));
    assert_eq!(plugin(&agent, "demo/page").canary, None);
    agent.shutdown().await;
}

/// Both ends of a trial, wherever the plugin runs: the same source as both releases, of which
/// the new one is asked for what fails where it shall fail.
#[tokio::test(flavor = "multi_thread")]
async fn trials_end_the_same_in_every_home() {
    for home in Home::ALL {
        let at = |version: &str| home.release_at("demo/page", version, &(route("/page") + KEPT));
        let settle = |config: &mut Config| {
            home.settle(config);
            config.host.load_timeout = Duration::from_secs(60);
        };
        let (_registry, setup) = trying_with(at("1.0.0"), at("1.1.0"), rule(50, 100), settle).await;
        assert_eq!(setup.page().tier, home.tier());
        for failures in 1..=3 {
            // By turns, and the old one goes first.
            let count = get(&setup.agent, "/page/count").await;
            assert_eq!(count, (200, failures.to_string()), "{home:?}");
            assert_eq!(get(&setup.agent, "/page/fail").await.0, 502, "{home:?}");
        }
        let after = setup.decided().await;
        let why = after.rolled_back.unwrap().reason;
        assert!(why.starts_with("3 of its 3 calls failed"), "{home:?}: {why}");
        let count = get(&setup.agent, "/page/count").await;
        assert_eq!((after.version.as_str(), count), ("1.0.0", (200, "4".to_owned())));
        setup.agent.shutdown().await;

        let (_registry, setup) = trying_with(at("1.0.0"), at("1.1.0"), rule(50, 2), settle).await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(get(&setup.agent, "/page/count").await.1);
        }
        // The new one counts in a copy of its own, which is let go of.
        assert_eq!(seen, ["1", "1", "2", "2"], "{home:?}");
        let after = setup.decided().await;
        assert_eq!((after.version.as_str(), after.rolled_back), ("1.1.0", None), "{home:?}");
        assert_eq!(get(&setup.agent, "/page/count").await.1, "3", "{home:?}");
        assert_eq!(setup.page().tier, home.tier());
        setup.agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_is_rolled_back_and_not_chosen_again() {
    let bad = page("1.1.0", &["FAIL_CALL"]);
    let (registry, setup) = trying(page("1.0.0", &[]), bad, rule(50, 100)).await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(setup.status().await);
    }
    // Three failures of every second call are enough; everybody else had an answer.
    assert_eq!(seen, [200, 502, 200, 502, 200, 502, 200, 200, 200, 200, 200, 200]);
    let after = setup.decided().await;
    assert_eq!((after.version.as_str(), after.state.as_str()), ("1.0.0", "ready"));
    let why = after.rolled_back.unwrap();
    assert_eq!(why.version, "1.1.0");
    assert!(why.reason.starts_with("3 of its 3 calls failed, and 0 of"), "{}", why.reason);
    let (_, metrics) = setup.admin("/metrics").await;
    let rolled_back = metrics.lines().find(|line| line.starts_with("modunest_plugin_rolled_back{"));
    assert!(rolled_back.unwrap().ends_with(" 1.0"), "{metrics}");

    // Neither an update nor another process chooses it again.
    let synced = setup.agent.sync_with(UPDATE).await.unwrap();
    assert_eq!((synced.generation, synced.changed, setup.page().canary), (1, false, None));
    setup.agent.shutdown().await;
    let agent = Agent::start_with(setup.config.clone(), UPDATE).await.unwrap();
    let again = plugin(&agent, "demo/page");
    assert_eq!(
        (again.version.as_str(), again.rolled_back.unwrap().version.as_str()),
        ("1.0.0", "1.1.0")
    );
    // The next release is, and so is this one after an operator's word.
    registry.publish(page("1.2.0", &[]));
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(plugin(&agent, "demo/page").canary.unwrap().version, "1.2.0");
    let name = "demo/page".parse().unwrap();
    agent.decide_trial(&name, TrialWord::Abort).await.unwrap();
    assert!(!agent.sync_with(UPDATE).await.unwrap().changed);
    assert_eq!(plugin(&agent, "demo/page").canary, None);
    agent.decide_trial(&name, TrialWord::Forgive).await.unwrap();
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(plugin(&agent, "demo/page").canary.unwrap().version, "1.2.0");
    agent.shutdown().await;
}

/// A call that runs at the moment of promotion is no fault of what is tried: its trial goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_change_is_not_condemned_for_a_call_that_does_not_end() {
    let heard = Heard::default();
    let settle = |config: &mut Config| {
        config.host.hooks = heard.hooks();
        config.host.lifecycle.drain_timeout = Duration::from_millis(50);
    };
    let holding = |version: &str| counter(version, &["HOLD_CALLS"]);
    let (_registry, setup) =
        trying_with(holding("1.0.0"), holding("1.1.0"), rule(50, 1), settle).await;
    let began = setup.page().canary.unwrap().since;
    // Its state was copied.
    assert_eq!(heard.count("demo/page 1.0.0 switching"), 1);
    let held = tokio::spawn(reqwest::get(crate::gateway::url(&setup.agent, "/page/hold")));
    wait_for("the call", async || setup.page().running == 1).await;
    assert_eq!(get(&setup.agent, "/page").await.1, "demo/page 1.1.0 counts 1");
    heard.until_counted("demo/page 1.0.0 switching", 2).await;
    // It waits for the end of that try, and fails alike.
    let name = "demo/page".parse().unwrap();
    let error = setup.agent.decide_trial(&name, TrialWord::Promote).await.unwrap_err();
    assert!(matches!(error, Error::NotSwitched { .. }), "{error}");
    let page = setup.page();
    assert_eq!((page.version.as_str(), page.rolled_back), ("1.0.0", None));
    assert_eq!(page.canary.unwrap().since, began);
    // One of two calls is the old one's.
    for _ in 0..2 {
        assert_eq!(get(&setup.agent, "/page/go").await.0, 200);
    }
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    // Nobody has tried it again by himself.
    assert_eq!(heard.count("demo/page 1.0.0 switching"), 3);
    setup.agent.decide_trial(&name, TrialWord::Promote).await.unwrap();
    assert_eq!(get(&setup.agent, "/page").await.1, "demo/page 1.1.0 counts 3");
    setup.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_falls_ill_or_crashes_or_does_not_load_is_rolled_back() {
    let well = rule(50, 1000);
    for (macros, reason) in [
        (&["SICK_AFTER=2"][..], "its health check failed: failed: it has had enough"),
        (&["CRASH_CALL"], "what it runs in ended: "),
    ] {
        let bad = counter("1.1.0", macros);
        let (_registry, setup) = trying(counter("1.0.0", &[]), bad, well.clone()).await;
        let (mut old, mut calls) = (0, 0);
        while setup.page().canary.is_some() {
            let (status, text) = get(&setup.agent, "/page").await;
            calls += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(calls < 4000, "nobody notices: {:?}", setup.page());
            if text.starts_with("demo/page 1.0.0") {
                old += 1;
                // The old instance answers and counts as if nothing were tried.
                assert_eq!((status, text), (200, format!("demo/page 1.0.0 counts {old}")));
            }
        }
        let after = setup.decided().await;
        let why = after.rolled_back.unwrap().reason;
        assert!(why.starts_with(reason), "{why}");
        assert!(
            calls - old < 4 || macros[0] != "CRASH_CALL",
            "{calls} calls, {old} of the old one"
        );
        let next = get(&setup.agent, "/page").await.1;
        assert_eq!(next, format!("demo/page 1.0.0 counts {}", old + 1));
        setup.agent.shutdown().await;
    }
    for (macros, reason) in [
        (&["SICK"][..], "is not healthy: failed: it has a cold"),
        (&["FAIL_CREATE"], "failed: "),
        (&["FAIL_RESTORE"], "cannot take over: failed: it cannot read that"),
    ] {
        let bad = counter("1.1.0", macros);
        let (_registry, setup) = trying(counter("1.0.0", &[]), bad, well.clone()).await;
        let page = setup.page();
        assert_eq!((page.canary, page.version.as_str()), (None, "1.0.0"));
        let why = page.rolled_back.unwrap().reason;
        assert!(why.starts_with(reason), "{why}");
        assert_eq!(get(&setup.agent, "/page").await.1, "demo/page 1.0.0 counts 1");
        setup.agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_decides_by_hand_and_sees_both() {
    let never = rule(50, 1_000_000);
    let (registry, setup) = trying(page("1.0.0", &[]), page("1.1.0", &[]), never).await;
    for _ in 0..4 {
        assert_eq!(setup.status().await, 200);
    }
    let canary = setup.page().canary.unwrap();
    assert_eq!((canary.version.as_str(), canary.state.as_str()), ("1.1.0", "ready"));
    assert_eq!((canary.share_percent, canary.calls, canary.old_calls), (50, 2, 2));
    let (_, metrics) = setup.admin("/metrics").await;
    for line in [
        "modunest_plugin_calls_total{plugin=\"demo/page\",version=\"1.0.0\",tier=\"process\",outcome=\"answered\"} 2",
        "modunest_plugin_calls_total{plugin=\"demo/page\",version=\"1.1.0\",tier=\"process\",variant=\"canary\",outcome=\"answered\"} 2",
        "modunest_plugin_canary_share_ratio{plugin=\"demo/page\",version=\"1.0.0\",tier=\"process\"} 0.5",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    // An update that brings nothing else is no other trial.
    let began = canary.since;
    assert!(!setup.agent.sync_with(UPDATE).await.unwrap().changed);
    assert_eq!(setup.page().canary.unwrap().since, began);
    let (status, text) = setup.admin("/plugins/demo/page/canary/promote").await;
    assert_eq!((status, text.as_str()), (200, r#"{"plugin":"demo/page","version":"1.1.0"}"#));
    assert_eq!(setup.page().version, "1.1.0");
    assert_eq!(setup.admin("/plugins/demo/page/canary/promote").await.0, 404);

    registry.publish(page("1.2.0", &[]));
    setup.agent.sync_with(UPDATE).await.unwrap();
    let (status, text) = setup.admin("/plugins/demo/page/canary/abort").await;
    assert_eq!((status, text.as_str()), (200, r#"{"plugin":"demo/page","version":"1.1.0"}"#));
    let page = setup.page();
    assert_eq!(page.rolled_back.unwrap().reason, "an operator ended its trial");
    assert_eq!(setup.admin("/plugins/demo/page/canary/forgive").await.0, 200);
    assert_eq!(setup.page().rolled_back, None);
    setup.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_decides_too() {
    let registry = Registry::start().await;
    registry.publish(page("1.0.0", &[]));
    let folder = tempfile::tempdir().unwrap();
    let path = crate::screens::config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let text = std::fs::read_to_string(&path).unwrap() + "[lifecycle.canary]\nshare_percent = 50\n";
    std::fs::write(&path, text).unwrap();
    let agent = Agent::start(Config::load(&path).unwrap()).await.unwrap();
    let run = |arguments: &[&str]| run(&path, arguments);
    registry.publish(page("1.1.0", &[]));
    agent.sync_with(UPDATE).await.unwrap();
    assert!(run(&["plugins"]).contains("tries 1.1.0 for 50 of 100 calls: 0 served"));
    let below = |line: &str| {
        let top = run(&["top", "--once", "--interval", "0.1"]);
        let mut lines = top.lines().skip_while(|line| !line.starts_with("demo/page  1.0.0"));
        assert_eq!(lines.nth(1), Some(line), "{top}");
    };
    below("  └ 1.1.0 trying with 50% of calls: 0 served, 0 failed");
    assert_eq!(run(&["canary", "abort", "demo/page"]), "demo/page stays 1.0.0\n");
    let plugins = run(&["plugins"]);
    assert!(plugins.contains("1.1.0 was rolled back: an operator ended its trial"), "{plugins}");
    below("  └ 1.1.0 rolled back: an operator ended its trial");
    assert!(run(&["canary", "forgive", "demo/page"]).starts_with("demo/page is 1.0.0;"));
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(run(&["canary", "promote", "demo/page"]), "demo/page is 1.1.0 now\n");
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.1.0 says hello");
    agent.shutdown().await;
}

fn run(config: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modunest-agent"));
    let output = command.arg("--config").arg(config).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_started_anew_goes_on_trying() {
    let never = rule(50, 1_000_000);
    let (_registry, setup) = trying(page("1.0.0", &[]), page("1.1.0", &[]), never.clone()).await;
    setup.agent.shutdown().await;
    for options in [Options::default(), UPDATE] {
        let agent = Agent::start_with(setup.config.clone(), options).await.unwrap();
        let page = plugin(&agent, "demo/page");
        assert_eq!(
            (page.version.as_str(), page.canary.unwrap().version.as_str()),
            ("1.0.0", "1.1.0")
        );
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(get(&agent, "/page").await.1);
        }
        let answer = |version: &str| format!("demo/page {version} says hello");
        assert_eq!(seen, ["1.0.0", "1.1.0", "1.0.0", "1.1.0"].map(answer));
        agent.shutdown().await;
    }
    // Without the section, what is new is what serves.
    let mut config = setup.config.clone();
    config.host.lifecycle.canary = CanarySettings::default();
    let agent = Agent::start_with(config, UPDATE).await.unwrap();
    assert_eq!(plugin(&agent, "demo/page").version, "1.1.0");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_one_of_both_only_is_not_tried_beside_the_other() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let front = |version: &str, needs: &str| {
        let more = uses("demo/back", needs) + &route("/front");
        release("demo/front", version, &["FORWARD_PLUGIN=\"demo/back\""], &more)
    };
    registry.publish(front("1.0.0", "^1"));
    registry.publish(release("demo/other", "1.0.0", &[], &route("/other")));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/front", ">=1"), ("demo/other", "^1")];
    let mut config = registry.config(folder.path(), &wanted);
    config.host.lifecycle.canary = rule(50, 1_000_000);
    let at_once = CanaryRule { share_percent: 0, ..config.host.lifecycle.canary.common };
    let others = vec![("demo/other".parse().unwrap(), at_once)];
    config.host.lifecycle.canary.plugins = others;
    let agent = Agent::start(config).await.unwrap();

    // Services that both have alike are shared as well, and the rest is changed at once.
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    registry.publish(release("demo/other", "1.1.0", &[], &route("/other")));
    assert!(agent.sync_with(UPDATE).await.unwrap().changed);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(get(&agent, "/front").await.1);
    }
    let answer =
        |back: &str| format!("demo/front 1.0.0 says demo/front 1.0.0 via demo/back {back}");
    assert_eq!(seen, ["1.0.0", "1.1.0", "1.0.0", "1.1.0"].map(answer));
    assert_eq!(get(&agent, "/other").await.1, "demo/other 1.1.0 says hello");

    registry.publish(release("demo/back", "2.0.0", &[], ECHO));
    registry.publish(front("2.0.0", "^2"));
    let error = agent.sync_with(UPDATE).await.unwrap_err();
    assert!(matches!(error, Error::NotSwitched { .. }), "{error}");
    insta::assert_snapshot!(error.to_string());
    assert!(get(&agent, "/front").await.1.starts_with("demo/front 1.0.0"));
    agent.shutdown().await;
}
