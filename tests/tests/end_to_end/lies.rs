//! Whoever stands between a host and the registry may lie; the host then refuses, says why,
//! and goes on with what it has proven.

use bytes::Bytes;
use modunest_core::keys::ObjectKey;
use modunest_tests::agent::Host;
use modunest_tests::client::Publisher;
use modunest_tests::fixtures::Plugin;
use modunest_tests::liar::Liar;
use modunest_tests::registry::Registry;
use modunest_tests::snapshot::object;
use modunest_tests::stable::stable;

struct Scene {
    registry: Registry,
    publisher: Publisher,
    liar: Liar,
}

impl Scene {
    async fn start() -> Scene {
        let registry = Registry::start().await;
        let publisher = registry.publisher("acme").await;
        publisher.publish(&Plugin::new("acme/one", "1.0.0").route("/one").pack()).await;
        let liar = Liar::start(registry.started.url.clone()).await;
        Scene { registry, publisher, liar }
    }

    async fn host(&self) -> Host {
        Host::at(self.liar.url.clone(), self.registry.keys().await).wants("acme/one", "^1")
    }
}

/// Changes one byte in the middle.
fn altered(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_objects_are_refused_and_the_truth_is_taken() {
    let scene = Scene::start().await;
    let mut shown = String::new();
    for kind in ["head", "node/", "bin/", "index/", "blob/"] {
        let host = scene.host().await;
        let prefix = format!("/{kind}");
        scene
            .liar
            .lie(move |path, body| if path.starts_with(&prefix) { altered(&body) } else { body });
        let synced = host.run(&["sync"]);
        assert_eq!(synced.code, Some(3), "{kind}: {synced:?}");
        shown.push_str(&format!("{kind}: {}\n", synced.stderr.trim()));
        scene.liar.repent();
        let _synced = host.run(&["sync"]).good();
    }
    insta::assert_snapshot!(stable(&shown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_and_endless_bodies_are_refused() {
    let scene = Scene::start().await;
    for lie in [
        (|body: Bytes| body.slice(..body.len() / 2)) as fn(Bytes) -> Bytes,
        |body| [body.as_ref(), &[0; 4096]].concat().into(),
        |_| vec![0; 64 * 1024 * 1024].into(),
    ] {
        let host = scene.host().await;
        scene.liar.lie(move |path, body| if path.starts_with("/blob/") { lie(body) } else { body });
        let synced = host.run(&["sync"]);
        // A body that is cut may also be a connection that broke.
        assert!(matches!(synced.code, Some(3 | 4)), "{synced:?}");
        assert!(!host.state().join("current").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_head_is_refused_and_the_host_goes_on() {
    let scene = Scene::start().await;
    let old = object(&scene.publisher.client, ObjectKey::Head).await;
    scene.publisher.publish(&Plugin::new("acme/one", "1.1.0").route("/one").pack()).await;
    let host = scene.host().await;
    let agent = host.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");

    let shown = old.clone();
    scene.liar.lie(move |path, body| if path == "/head" { shown.clone() } else { body });
    let synced = host.run(&["sync"]);
    assert_eq!(synced.code, Some(3), "{synced:?}");
    insta::assert_snapshot!(stable(&synced.stderr));
    // The running one serves on, and a restart does not fall for it either.
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_registry_s_head_is_refused() {
    let scene = Scene::start().await;
    let other = Registry::start().await;
    let foreign = object(&other.nobody(), ObjectKey::Head).await;
    let host = scene.host().await;
    scene.liar.lie(move |path, body| if path == "/head" { foreign.clone() } else { body });
    let synced = host.run(&["sync"]);
    assert_eq!(synced.code, Some(3), "{synced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_believes_no_liar_either() {
    let scene = Scene::start().await;
    let profile = std::fs::read_to_string(&scene.registry.started.profile).unwrap();
    let url = scene.registry.started.url.as_str();
    let lying = scene.registry.folder.file("lying.toml");
    std::fs::write(&lying, profile.replace(url, scene.liar.url.as_str())).unwrap();
    scene.liar.lie(|path, body| if path.starts_with("/index/") { altered(&body) } else { body });
    let mut command = modunest_tests::registry::command();
    command.arg("--profile").arg(&lying).args(["info", "acme/one"]);
    command.env("XDG_CACHE_HOME", scene.registry.folder.file("another cache"));
    let shown = modunest_tests::process::run(&mut command);
    assert_eq!(shown.code, Some(6), "{shown:?}");
    assert!(shown.stderr.contains("could not be proven"), "{shown:?}");
}
