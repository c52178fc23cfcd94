//! The read side over HTTP, as every cache and reader relies on it.

use modunest_core::api::Discovery;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Code;
use modunest_tests::client::{Answer, answer};
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::Registry;
use reqwest::Method;

async fn ask(registry: &Registry, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = registry.nobody().request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request).await.unwrap()
}

async fn get(registry: &Registry, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(registry, Method::GET, path, headers).await
}

#[tokio::test]
async fn files_answer_as_caches_need_it() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    publisher.publish(&package).await;
    let blob = ObjectKey::Blob(package.build.archive).path();

    let whole = get(&registry, &blob, &[]).await;
    assert_eq!((whole.status.as_u16(), &*whole.body), (200, &*package.archive));
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    let etag = whole.header("etag").to_owned();
    assert_eq!(whole.header("content-length"), package.archive.len().to_string());

    let same = get(&registry, &blob, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), etag);

    let head = ask(&registry, Method::HEAD, &blob, &[]).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), package.archive.len().to_string());

    let part = get(&registry, &blob, &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status.as_u16(), &*part.body), (206, &package.archive[10..20]));
    let total = package.archive.len();
    assert_eq!(part.header("content-range"), format!("bytes 10-19/{total}"));
    let end = get(&registry, &blob, &[("range", "bytes=-5")]).await;
    assert_eq!(&*end.body, &package.archive[total - 5..]);
    let beyond = get(&registry, &blob, &[("range", &format!("bytes={total}-"))]).await;
    assert_eq!(beyond.problem().code, Code::RangeNotSatisfiable);
    // A range of something else than what the reader has is the whole.
    let stale = get(&registry, &blob, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
    assert_eq!((stale.status.as_u16(), stale.body.len()), (200, total));

    let manifest = ObjectKey::Blob(package.manifest_digest).path();
    let manifest = get(&registry, &manifest, &[]).await;
    assert_eq!(Digest::of(&manifest.body), package.manifest_digest);
}

#[tokio::test]
async fn the_head_changes_and_is_asked_for_again() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let before = get(&registry, "/head", &[]).await;
    assert_eq!(before.header("cache-control"), "public, max-age=1, must-revalidate");
    let etag = before.header("etag").to_owned();
    assert_eq!(get(&registry, "/head", &[("if-none-match", &etag)]).await.status, 304);
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    // Published means visible: at once, and through every cache of the registry's own.
    let after = get(&registry, "/head", &[("if-none-match", &etag)]).await;
    assert_eq!(after.status, 200);
    assert_ne!(after.header("etag"), etag);
}

#[tokio::test]
async fn discovery_and_health_answer() {
    let registry = Registry::start().await;
    let discovery: Discovery = registry.nobody().get("/.well-known/modunest.json").await;
    assert_eq!(discovery.origin, modunest_tests::registry::ORIGIN);
    assert_eq!(discovery.files, registry.started.url.to_string());
    for path in ["/healthz", "/readyz"] {
        let answer = get(&registry, path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let registry = Registry::start().await;
    let absent = Digest::of(b"absent");
    for path in [
        ObjectKey::Blob(absent).path(),
        ObjectKey::Index(absent).path(),
        "/blob/sha256/../../head".to_owned(),
        "/blob/sha256/%2e%2e%2fhead".to_owned(),
        "/upload/x".to_owned(),
        "/index.html".to_owned(),
    ] {
        let answer = get(&registry, &path, &[]).await;
        if path.contains("..") && answer.status == 200 {
            // The client has folded the dots before it asked.
            continue;
        }
        assert_eq!(answer.problem().code, Code::NotFound, "{path}");
    }
    let written = ask(&registry, Method::PUT, "/head", &[]).await;
    assert_eq!(written.problem().code, Code::MethodNotAllowed);
    assert!(written.header("allow").contains("GET"));
}
