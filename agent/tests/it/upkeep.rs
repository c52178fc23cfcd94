//! What becomes of plugins while they run: quarantine, going back, restarts, another
//! configuration.

use std::time::{Duration, Instant};

use modunest_agent::config::RetrySettings;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, Config};

use crate::plugins::{ECHO, hostile, release, route, uses};
use crate::process::{plugin, runs};
use crate::registry::Registry;

const UPDATE: Options = Options { frozen: false, offline: false, update: true };

async fn get(agent: &Agent, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", agent.gateway_addr())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn states(agent: &Agent) -> Vec<String> {
    let plugins = agent.status().plugins.into_iter();
    let one = |plugin: modunest_agent::status::PluginStatus| {
        let reason = plugin.reason.unwrap_or_default();
        format!("{} {} {reason}", plugin.plugin, plugin.state).trim().to_owned()
    };
    plugins.map(one).collect()
}

/// `demo/user` needs `demo/bad`; `demo/good` needs nothing.
async fn three_plugins() -> (Registry, tempfile::TempDir, Config) {
    let registry = Registry::start().await;
    registry.publish(release("demo/bad", "1.0.0", &[], &(ECHO.to_owned() + &route("/bad"))));
    let more = uses("demo/bad", "^1") + &route("/user");
    registry.publish(release("demo/user", "1.0.0", &["FORWARD_PLUGIN=\"demo/bad\""], &more));
    registry.publish(release("demo/good", "1.0.0", &[], &route("/good")));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/user", "^1"), ("demo/good", "^1")]);
    (registry, folder, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_release_is_unloaded_although_nothing_takes_its_place() {
    let (registry, _folder, config) = three_plugins().await;
    let agent = Agent::start(config).await.unwrap();
    registry.quarantine("demo/bad", "1.0.0", true);
    // There is no other release, so there is no new generation either.
    assert!(agent.sync().await.is_err());
    insta::assert_snapshot!(states(&agent).join("\n"));
    assert_eq!(get(&agent, "/good").await.0, 200);
    for path in ["/bad", "/user"] {
        let (status, text) = get(&agent, path).await;
        assert!(status >= 400 && text.contains("it phones home"), "{status} {text}");
    }
    // Once that is over, it is loaded anew.
    registry.quarantine("demo/bad", "1.0.0", false);
    agent.sync().await.unwrap();
    assert_eq!(states(&agent), ["demo/bad ready", "demo/good ready", "demo/user ready"]);
    assert_eq!(get(&agent, "/user").await.0, 200);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_release_can_also_be_denied_or_warned_of() {
    use modunest_agent::config::OnQuarantine;
    let why = "its release was quarantined: it phones home";
    let needs = format!("demo/user ready needs demo/bad 1.0.0, which is denied: {why}");
    for (policy, state, user, status) in [
        (OnQuarantine::Deny, "denied", needs.as_str(), 403),
        (OnQuarantine::Warn, "ready", "demo/user ready", 200),
    ] {
        let (registry, _folder, mut config) = three_plugins().await;
        config.host.lifecycle.on_quarantine = policy;
        let agent = Agent::start(config).await.unwrap();
        registry.quarantine("demo/bad", "1.0.0", true);
        assert!(agent.sync().await.is_err());
        let bad = format!("demo/bad {state} {why}");
        assert_eq!(states(&agent), [bad.as_str(), "demo/good ready", user]);
        assert_eq!(get(&agent, "/bad").await.0, status);
        assert_eq!(get(&agent, "/user").await.0, status);
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_stayed_with_until_somebody_says_otherwise() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/page", "^1")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    registry.publish(release("demo/page", "1.1.0", &[], &route("/page")));
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.1.0 says hello");

    let back = agent.rollback(None).await.unwrap();
    assert_eq!((back.generation, back.changed), (1, true));
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.0.0 says hello");
    agent.shutdown().await;
    // A start is no word of the operator's, whatever it is asked to do.
    let agent = Agent::start_with(config, UPDATE).await.unwrap();
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.0.0 says hello");
    let kept = modunest_agent::kept_generations(folder.path()).unwrap();
    let kept: Vec<_> = kept.iter().map(|one| (one.number, one.current, one.pinned)).collect();
    assert_eq!(kept, [(2, false, false), (1, true, true)]);
    // A sync is.
    agent.sync_with(UPDATE).await.unwrap();
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.1.0 says hello");
    let kept = modunest_agent::kept_generations(folder.path()).unwrap();
    assert!(kept.iter().all(|one| !one.pinned));
    assert!(agent.rollback(Some(77)).await.is_err());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_well_is_shown_and_restarted() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &["SICK_AFTER=2", "STATE"], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/page", "^1")]);
    let health = &mut config.host.lifecycle.health;
    (health.every, health.failures, health.restarts) = (Duration::from_millis(1), 1, 1);
    let agent = Agent::start(config).await.unwrap();
    for count in 1..=3 {
        assert_eq!(get(&agent, "/page").await.1, format!("demo/page 1.0.0 counts {count}"));
    }
    // It falls ill by being asked, is replaced once, begins to count anew, and falls ill again.
    wait_for("another instance", async || get(&agent, "/page").await.1.ends_with("counts 1")).await;
    for _ in 0..5 {
        get(&agent, "/page").await;
    }
    wait_for("the end of restarts", async || states(&agent)[0].contains("unhealthy")).await;
    assert_eq!(
        states(&agent),
        ["demo/page unhealthy its health check failed: failed: it has had enough"]
    );
    // It serves as well as it can.
    assert_eq!(get(&agent, "/page").await.0, 200);
    agent.restart(&"demo/page".parse().unwrap()).await.unwrap();
    assert_eq!(get(&agent, "/page").await.1, "demo/page 1.0.0 counts 1");
    agent.shutdown().await;
}

pub async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets whatever fails be loaded anew at the next look.
fn retried_at_once(mut config: Config) -> Config {
    let soon = Duration::from_millis(1);
    config.host.lifecycle.retry = RetrySettings { first: soon, max: soon };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_loaded_is_loaded_anew_with_those_that_need_it() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let license = folder.path().join("license");
    let needs = format!("NEEDS_FILE=\"{}\"", license.display());
    registry.publish(release("demo/base", "1.0.0", &[&needs], ECHO));
    let more = uses("demo/base", "^1") + &route("/user");
    registry.publish(release("demo/user", "1.0.0", &["FORWARD_PLUGIN=\"demo/base\""], &more));
    registry.publish(release("demo/good", "1.0.0", &[], &route("/good")));
    let config = registry.config(folder.path(), &[("demo/user", "^1"), ("demo/good", "^1")]);
    let mut config = retried_at_once(config);
    // There, a plugin sees the files of the host.
    config.host.in_process = vec!["demo/*".parse().unwrap()];
    let agent = Agent::start(config).await.unwrap();
    let reason = "its start failed: no license file";
    assert_eq!(
        states(&agent),
        [
            format!("demo/base failed {reason}"),
            "demo/good ready".to_owned(),
            format!("demo/user blocked needs demo/base 1.0.0, which failed: {reason}"),
        ]
    );
    let since = agent.status().plugins[1].since.clone();
    std::fs::write(&license, "").unwrap();
    wait_for("what it needs", async || get(&agent, "/user").await.0 == 200).await;
    assert_eq!(states(&agent), ["demo/base ready", "demo/good ready", "demo/user ready"]);
    // What served has been left alone.
    assert_eq!(agent.status().plugins[1].since, since);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_once_too_often_is_loaded_anew() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &(route("/bad/{action}") + ECHO)));
    let folder = tempfile::tempdir().unwrap();
    let mut config = retried_at_once(registry.config(folder.path(), &[("demo/bad", "^1")]));
    config.host.process.restarts.restarts_max = 0;
    let agent = Agent::start(config).await.unwrap();
    let before = runs(&agent, "demo/bad").pid.unwrap();
    assert_eq!(get(&agent, "/bad/exit").await.0, 503);
    let is_back = async || {
        let seen = plugin(&agent, "demo/bad");
        seen.state == "ready"
            && seen.runs.and_then(|runs| runs.pid).is_some_and(|pid| pid != before)
    };
    wait_for("another process", is_back).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_read_anew_while_plugins_run() {
    let registry = Registry::start().await;
    for name in ["demo/one", "demo/two"] {
        let path = format!("/{}", name.split('/').next_back().unwrap());
        registry.publish(release(name, "1.0.0", &[], &route(&path)));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let write = |admin: &str, plugins: &str| {
        let text = format!(
            "state_dir = \"state\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{admin}\"\n[[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{}\"\nkeys = [\"{}\"]\n[host]\nin_process = [\"demo/*\"]\n[plugins]\n{plugins}",
            registry.url,
            crate::registry::ORIGIN,
            crate::registry::registry_key().verifying_key(),
        );
        std::fs::write(&path, text).unwrap();
    };
    write("127.0.0.1:0", "\"demo/one\" = \"^1\"\n");
    let agent = Agent::start(Config::load(&path).unwrap()).await.unwrap();
    assert_eq!(get(&agent, "/two").await.0, 404);
    let since = agent.status().plugins[0].since.clone();

    write("127.0.0.1:9", "\"demo/one\" = \"^1\"\n\"demo/two\" = \"^1\"\n");
    let reloaded = agent.reload().await.unwrap();
    assert_eq!(
        (reloaded.applied, reloaded.needs_restart),
        (vec!["plugins".into()], vec!["admin".into()])
    );
    assert_eq!(get(&agent, "/two").await.0, 200);
    // What has not changed goes on.
    assert_eq!(agent.status().plugins[0].since, since);

    write("127.0.0.1:0", "\"demo/one\" = \"latest\"\n");
    let error = agent.reload().await.unwrap_err().to_string();
    assert!(error.contains("agent.toml:"), "{error}");
    assert_eq!(get(&agent, "/two").await.0, 200);

    // Another configuration of a plugin is another instance of it.
    write("127.0.0.1:0", "\"demo/one\" = { version = \"^1\", config = { a = 1 } }\n");
    agent.reload().await.unwrap();
    assert_eq!(get(&agent, "/two").await.0, 404);
    assert_ne!(agent.status().plugins[0].since, since);
    agent.shutdown().await;
}
