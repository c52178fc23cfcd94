//! Plugin hosts: publish, prove, load, call, and what goes on when something fails.

use modunest_core::problem::Code;
use modunest_tests::agent::Host;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{example_library, until};
use modunest_tests::registry::Registry;

#[tokio::test]
async fn plugins_are_published_loaded_and_called() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    for plugin in [
        Plugin::new("acme/base", "1.0.0").says(),
        Plugin::new("acme/base", "2.0.0").says(),
        Plugin::new("acme/page", "1.0.0").asks("acme/base", "^1").route("/page"),
    ] {
        publisher.publish(&plugin.pack()).await;
    }
    let host = Host::of(&registry).await.wants("acme/page", "*");
    let agent = host.start().await;
    // Version 2 of the base is newer, and not what the page was made for.
    assert_eq!(agent.text("/page").await, "acme/page 1.0.0 acme/base 1.0.0");
    assert!(agent.is_ready().await);
    let page = agent.plugin("acme/page").await;
    assert_eq!((&page["state"], &page["calls"]), (&"ready".into(), &1.into()), "{page:#}");
    assert_eq!(agent.get("/nothing").await.problem().code, Code::NotFound);
    let _verified = host.run(&["verify"]).good();
}

#[tokio::test]
async fn a_new_release_reaches_a_running_host() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").route("/one").pack()).await;
    let host = Host::of(&registry).await.wants("acme/one", "^1").curious();
    let agent = host.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.0.0");
    publisher.publish(&Plugin::new("acme/one", "1.1.0").route("/one").pack()).await;
    // What is locked stays until somebody lets go of it.
    until("the host to let go of its lock", async || {
        (host.run(&["sync", "--update"]).code == Some(0)).then_some(())
    })
    .await;
    until("the new version to serve", async || {
        (agent.text("/one").await == "acme/one 1.1.0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restarted_host_needs_no_registry() {
    let mut registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/base", "1.0.0").says().pack()).await;
    let page = Plugin::new("acme/page", "1.0.0").asks("acme/base", "^1").route("/page");
    publisher.publish(&page.pack()).await;
    let host = Host::of(&registry).await.wants("acme/page", "^1");
    let mut agent = host.start().await;
    assert_eq!(agent.text("/page").await, "acme/page 1.0.0 acme/base 1.0.0");
    agent.process.kill();
    registry.process.kill();

    let mut agent = host.start().await;
    assert_eq!(agent.text("/page").await, "acme/page 1.0.0 acme/base 1.0.0");
    let status = agent.status().await;
    let reason = status["last_sync"]["offline"].as_str().unwrap();
    assert!(reason.contains("could not reach"), "{reason}");
    assert!(agent.process.terminate().await.success());
    // Asked not to use the network, it does not even try.
    let agent = host.start_with(&["--offline"]).await;
    assert_eq!(agent.text("/page").await, "acme/page 1.0.0 acme/base 1.0.0");
    drop(agent);
    // What was never fetched cannot run.
    let stranger =
        Host::at(registry.started.url.clone(), vec![signing_key()]).wants("acme/page", "^1");
    let synced = stranger.run(&["sync"]);
    assert_eq!(synced.code, Some(4), "{synced:?}");
}

fn signing_key() -> modunest_tlog::VerifyingKey {
    modunest_tests::registry::signing_key(modunest_tests::registry::ORIGIN, 42).verifying_key()
}

#[tokio::test]
async fn what_fails_takes_only_its_dependants_along() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let panics = std::fs::read(example_library("panics")).unwrap();
    for plugin in [
        Plugin::new("acme/alone", "1.0.0").route("/alone"),
        Plugin::new("acme/fails", "1.0.0").says().fails("the database is away"),
        Plugin::new("acme/above", "1.0.0").asks("acme/fails", "^1").route("/above"),
        Plugin::new("acme/top", "1.0.0").needs("acme/above", "^1").route("/top"),
        Plugin::new("acme/panics", "1.0.0").says().route("/panics").library(panics.clone()),
        Plugin::new("acme/beside", "1.0.0").asks("acme/panics", "^1").route("/beside"),
        Plugin::new("acme/broken", "1.0.0").says().library(panics),
        Plugin::new("acme/on-broken", "1.0.0").needs("acme/broken", "^1").route("/on-broken"),
    ] {
        publisher.publish(&plugin.pack()).await;
    }
    let host = Host::of(&registry)
        .await
        .wants("acme/alone", "^1")
        .wants("acme/top", "^1")
        .wants("acme/beside", "^1")
        .wants("acme/on-broken", "^1")
        .wants_with("acme/broken", "^1", "{ panic = true }");
    let agent = host.start().await;

    // One cannot be made, with its reason; whoever needs it is not loaded, with the chain.
    let mut shown = String::new();
    for plugin in ["acme/fails", "acme/above", "acme/top", "acme/broken", "acme/on-broken"] {
        let status = agent.plugin(plugin).await;
        shown.push_str(&format!(
            "{plugin} {}: {}\n",
            status["state"].as_str().unwrap(),
            status["reason"].as_str().unwrap()
        ));
    }
    insta::assert_snapshot!(shown);
    assert_eq!(agent.get("/top").await.problem().code, Code::PluginUnavailable);

    // One panics when it is called: the call fails, and both it and its caller go on.
    for path in ["/panics", "/beside"] {
        for _ in 0..2 {
            let answer = agent.get(path).await;
            assert_eq!(answer.status, 502, "{path}: {answer:?}");
        }
    }
    let status = agent.plugin("acme/panics").await;
    assert_eq!((&status["state"], &status["panics"]), (&"ready".into(), &4.into()), "{status:#}");
    assert_eq!(agent.text("/alone").await, "acme/alone 1.0.0");
    assert!(agent.is_ready().await);
}

#[tokio::test]
async fn a_yank_keeps_locked_hosts_and_turns_new_ones_away() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").route("/one").pack()).await;
    publisher.publish(&Plugin::new("acme/one", "1.1.0").route("/one").pack()).await;
    let locked = Host::of(&registry).await.wants("acme/one", "^1");
    let mut agent = locked.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
    publisher.yank("acme/one", "1.1.0", true).await.unwrap();

    // Also after a restart, and with the registry at hand.
    agent.process.terminate().await;
    let agent = locked.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
    let newcomer = Host::of(&registry).await.wants("acme/one", "^1").start().await;
    assert_eq!(newcomer.text("/one").await, "acme/one 1.0.0");
    publisher.yank("acme/one", "1.0.0", true).await.unwrap();
    let resolved = Host::of(&registry).await.wants("acme/one", "^1").run(&["resolve"]);
    assert_eq!(resolved.code, Some(5));
    assert!(resolved.stderr.contains("yanked"), "{resolved:?}");
    publisher.yank("acme/one", "1.1.0", false).await.unwrap();
    let newcomer = Host::of(&registry).await.wants("acme/one", "^1").start().await;
    assert_eq!(newcomer.text("/one").await, "acme/one 1.1.0");
}
