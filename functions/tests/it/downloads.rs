//! Downloads count once, whoever tells of them how often.

use std::time::Duration;

use futures_util::future::join_all;
use modunest_core::api::{Day, DownloadsView};
use modunest_core::digest::Digest;
use modunest_core::problem::Code;
use modunest_core::statement::Link;
use serde_json::{Value, json};

use crate::faulty::Death;
use crate::package::package;
use crate::registry::{Registry, send};

const PATH: &str = "/v1/downloads";

fn id(number: u32) -> String {
    format!("{number:032x}")
}

fn today() -> Day {
    Day::of(modunest_runtime::clock::now())
}

fn batch(number: u32, downloads: &[(Digest, Day, u32)]) -> Value {
    let downloads: Vec<Value> = downloads
        .iter()
        .map(|(blob, day, count)| json!({"blob": blob, "day": day, "count": count}))
        .collect();
    json!({"id": id(number), "downloads": downloads})
}

impl Registry {
    async fn tell(&self, body: &Value) {
        let (status, value) = self.call("POST", PATH, Some(&self.admin), Some(body)).await;
        assert_eq!((status.as_u16(), value), (204, Value::Null));
    }

    async fn downloads(&self, plugin: &str) -> DownloadsView {
        self.public(&format!("/v1/plugins/{plugin}/downloads")).await
    }

    async fn released(&self, plugin: &str, versions: &[&str]) -> Vec<Digest> {
        let publisher = self.publisher(plugin.split('/').next().unwrap()).await;
        let mut archives = Vec::new();
        let mut link = Link::FIRST;
        for version in versions {
            let package = package(plugin, version, link);
            self.publish_ok(&publisher, &package).await;
            archives.push(Digest::of(&package.archive));
            link = self.plugin_state(plugin).await.next;
        }
        archives
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_plugin_version_and_day() {
    let registry = Registry::start().await;
    let archives = registry.released("demo/plugin", &["1.0.0", "1.10.0", "1.9.0"]).await;
    assert_eq!(registry.downloads("demo/plugin").await, DownloadsView::default());
    let (today, before) = (today(), today().back(2));
    let unknown = Digest::of(b"a README, say");
    let body = batch(
        1,
        &[
            (archives[0], today, 2),
            (archives[1], today, 3),
            (unknown, today, 100),
            (archives[1], before, 4),
            (archives[1], today, 1),
        ],
    );
    for _ in 0..3 {
        registry.tell(&body).await;
    }
    let view = registry.downloads("demo/plugin").await;
    assert_eq!(
        serde_json::to_value(&view).unwrap(),
        json!({
            "total": 10,
            "versions": [{"version": "1.10.0", "total": 8}, {"version": "1.0.0", "total": 2}],
            "days": [{"day": before, "count": 4}, {"day": today, "count": 6}],
        })
    );
    // Another batch of the same is another.
    registry.tell(&batch(2, &[(archives[2], today, 5)])).await;
    assert_eq!(registry.downloads("demo/plugin").await.total, 15);
    // Markers live fourteen days, and a batch of today is refused long before.
    registry.move_clock(Duration::from_secs(5 * 24 * 60 * 60));
    let refused = registry.refused("POST", PATH, Some(&registry.admin), Some(&body)).await;
    assert_eq!(refused.code, Code::InvalidRequest);
    // Days that are long past are shown no more; the total stays.
    registry.move_clock(Duration::from_secs(90 * 24 * 60 * 60));
    let view = registry.downloads("demo/plugin").await;
    assert_eq!((view.total, view.days), (15, vec![]));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_count_does() {
    let registry = Registry::start().await;
    let body = batch(1, &[(Digest::of(b"x"), today(), 1)]);
    assert_eq!(registry.refused("POST", PATH, None, Some(&body)).await.code, Code::Unauthenticated);
    let publishes = registry.token("admin", &["publish", "manage", "admin"]).await;
    let refused = registry.refused("POST", PATH, Some(&publishes), Some(&body)).await;
    assert_eq!(refused.code, Code::Forbidden);
    let counts = registry.token("admin", &["count"]).await;
    let (status, _) = registry.call("POST", PATH, Some(&counts), Some(&body)).await;
    assert_eq!(status.as_u16(), 204);
    // A token that counts does nothing else.
    let org = json!({"org": "demo"});
    let refused = registry.refused("POST", "/v1/orgs", Some(&counts), Some(&org)).await;
    assert_eq!(refused.code, Code::Forbidden);
    // And is for administrators only.
    let user = json!({"user": "eve"});
    registry.ok::<Value>("POST", "/v1/users", &registry.admin, Some(&user)).await;
    let wish = json!({"user": "eve", "scopes": ["count"], "label": "x", "lifetime_secs": 60});
    let refused = registry.refused("POST", "/v1/tokens", Some(&registry.admin), Some(&wish)).await;
    assert_eq!(refused.code, Code::Forbidden);

    let day = today();
    for bad in [
        json!({"id": "1", "downloads": []}),
        batch(1, &[(Digest::of(b"x"), day, 0)]),
        batch(1, &[(Digest::of(b"x"), day, 1_000_001)]),
        batch(1, &[(Digest::of(b"x"), day.back(4), 1)]),
        batch(1, &[(Digest::of(b"x"), day.ahead(2), 1)]),
        json!({"id": id(1), "downloads": [{"blob": Digest::of(b"x"), "day": "2026-02-30", "count": 1}]}),
    ] {
        let refused = registry.refused("POST", PATH, Some(&registry.admin), Some(&bad)).await;
        assert_eq!(refused.code, Code::InvalidRequest, "{bad}");
    }
    for (path, code) in [
        ("/v1/plugins/demo/nothing/downloads", Code::NotFound),
        ("/v1/plugins/demo/-x-/downloads", Code::InvalidName),
    ] {
        assert_eq!(registry.refused("GET", path, None, None).await.code, code);
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_batches_lose_nothing() {
    let registry = Registry::start().await;
    let archives = registry.released("demo/plugin", &["1.0.0"]).await;
    let day = today();
    // Each of ten batches comes twice, all at the same time.
    let bodies: Vec<Value> = (0..20).map(|n| batch(n / 2, &[(archives[0], day, 1)])).collect();
    let answers = join_all(
        bodies.iter().map(|body| registry.call("POST", PATH, Some(&registry.admin), Some(body))),
    );
    for (status, value) in answers.await {
        assert_eq!(status.as_u16(), 204, "{value}");
    }
    assert_eq!(registry.downloads("demo/plugin").await.total, 10);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_cut_off_is_counted_once() {
    let registry = Registry::start().await;
    let archives = registry.released("demo/plugin", &["1.0.0", "2.0.0"]).await;
    let day = today();
    // Several parts: what is no archive takes its place in them as well.
    let mut entries: Vec<(Digest, Day, u32)> =
        (0_u32..120).map(|number| (Digest::of(&number.to_be_bytes()), day, 1)).collect();
    for (archive, back) in archives.iter().flat_map(|a| (0..4).map(move |back| (*a, back))) {
        entries.push((archive, day.back(back), 1));
    }
    let mut batches = 0;
    for death in (1..).flat_map(|write| [Death::After(write), Death::Before(write)]) {
        batches += 1;
        let mut body = batch(batches, &entries);
        let faulty = registry.faulty(0).await;
        let worker = registry.through(&faulty, false).await.router();
        let call = send(&worker, "POST", PATH, Some(&registry.admin), Some(&body));
        let ended = faulty.live(Some(death), call).await;
        // Whoever gets no answer sends it again; in whichever order.
        body["downloads"].as_array_mut().unwrap().reverse();
        registry.tell(&body).await;
        let expected = u64::from(batches) * 8;
        assert_eq!(registry.downloads("demo/plugin").await.total, expected, "{death:?}");
        if ended.is_some() {
            break;
        }
    }
    // Dead behind the first write, before it, and then behind the last.
    assert!(batches >= 3, "nothing died");
    registry.stop().await;
}
