//! `modunest up --edge workerd`: the local registry behind the worker.

use modunest_core::api::Discovery;
use modunest_tests::agent::Host;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{run, until};
use modunest_tests::registry::{Folder, Registry, command};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn the_local_registry_answers_through_the_worker() {
    let mut registry = Registry::start_with_worker().await;
    let discovery: Discovery = registry.nobody().get("/.well-known/modunest.json").await;
    assert_eq!(discovery.files, registry.started.url.to_string());
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").route("/one").pack();
    publisher.publish(&package).await;
    let agent = Host::of(&registry).await.wants("acme/one", "^1").start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.0.0");
    until("the worker to have the download counted", async || {
        let path = "/v1/plugins/acme/one/downloads";
        let view: Value = registry.nobody().get(path).await;
        (view["total"] == 1).then_some(())
    })
    .await;
    let id = registry.process.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    assert!(registry.process.terminate().await.success());
    for child in children.split_whitespace() {
        assert!(!std::path::Path::new("/proc").join(child).exists(), "{child} goes on");
    }
}

#[test]
fn what_is_missing_is_named_with_the_way_to_it() {
    for (variable, way) in [
        ("MODUNEST_WORKER", "cargo xtask edge"),
        ("MODUNEST_NODE_MODULES", "cargo xtask tools"),
        ("MODUNEST_NODE", "node 22"),
    ] {
        let folder = Folder::new();
        let mut up = command();
        up.args(["up", "--edge", "workerd", "--port", "0", "--data"]).arg(folder.data());
        let finished = run(up.env(variable, "/nowhere"));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("/nowhere"), "{finished:?}");
        assert!(finished.stderr.contains(way), "{finished:?}");
    }
}
