//! Publishing, as a third party's client sees it.

use futures_util::future::join_all;
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{Link, Statement};
use modunest_tests::client::{Publisher, request};
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::{Registry, signing_key};
use modunest_tests::snapshot::Snapshot;
use reqwest::Method;

async fn snapshot(registry: &Registry) -> Snapshot {
    Snapshot::read(&registry.started.url, &registry.keys().await).await
}

#[tokio::test]
async fn a_release_is_published_and_proven() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let before = snapshot(&registry).await;
    let view = publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    assert_eq!((view.state, view.rejection), (State::Published, None));
    let after = snapshot(&registry).await;
    // A session shows `published` only when readers can see the release.
    assert!(view.epoch.unwrap() <= after.head.epoch);
    assert_eq!(after.head.epoch, before.head.epoch + 1);
    assert!(after.has("acme/one", "1.0.0"));
}

#[tokio::test]
async fn the_same_version_again_is_answered_as_before() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let signed = publisher.sign(&package, Link::FIRST);
    let first = publisher.attempt_signed(&signed, &package).await.unwrap();
    let before = snapshot(&registry).await;

    let again = publisher.open(&signed).await.unwrap();
    assert_eq!((again.session, again.state), (Some(first.session), State::Published));
    assert!(again.uploads.is_empty());
    // Signed anew behind its own first release, it is still the same release.
    let link = publisher.next_link(&package.manifest.name).await;
    let again = publisher.open(&publisher.sign(&package, link)).await.unwrap();
    assert_eq!((again.session, again.state), (Some(first.session), State::Published));
    assert_eq!(snapshot(&registry).await, before);
}

#[tokio::test]
async fn the_same_version_with_other_bytes_changes_nothing() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    let before = snapshot(&registry).await;

    let other = Plugin::new("acme/one", "1.0.0").file("data/other.txt", b"other").pack();
    let link = publisher.next_link(&other.manifest.name).await;
    for link in [Link::FIRST, link] {
        let problem = publisher.open(&publisher.sign(&other, link)).await.unwrap_err();
        assert_eq!(problem.code, Code::VersionConflict, "{problem:?}");
    }
    assert_eq!(snapshot(&registry).await, before);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let before = snapshot(&registry).await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let mut body = request(&publisher.sign(&package, Link::FIRST));
    body.dry_run = true;
    let answer: modunest_core::api::PublishResponse =
        publisher.client.send(Method::POST, "/v1/releases", &body).await.unwrap();
    assert_eq!((answer.session, answer.uploads.len()), (None, 0));
    assert_eq!(snapshot(&registry).await, before);
    publisher.publish(&package).await;
}

#[tokio::test]
async fn only_the_organisations_keys_sign_for_it() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let before = snapshot(&registry).await;

    let stranger = Publisher { key: signing_key("acme", 99), ..publisher.clone() };
    let problem = stranger.open(&stranger.sign(&package, Link::FIRST)).await.unwrap_err();
    assert_eq!(problem.code, Code::InvalidSignature);

    // A good signature over other words.
    let good = modunest_tests::client::text(&publisher.sign(&package, Link::FIRST));
    let forged = good.replacen("1.0.0", "1.0.1", 1);
    let body = modunest_core::api::PublishRequest { statement: forged, dry_run: false };
    let answer = publisher.client.answer(Method::POST, "/v1/releases", Some(&body)).await;
    assert_eq!(answer.problem().code, Code::InvalidSignature);
    assert_eq!(snapshot(&registry).await, before);
}

#[tokio::test]
async fn a_statement_follows_the_newest_one() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    let next = Plugin::new("acme/one", "1.1.0").pack();
    let problem = publisher.open(&publisher.sign(&next, Link::FIRST)).await.unwrap_err();
    assert_eq!(problem.code, Code::ChainConflict, "{problem:?}");
}

#[tokio::test]
async fn names_that_look_alike_are_taken() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/gallery-one", "1.0.0").pack()).await;
    let package = Plugin::new("acme/ga11ery-one", "1.0.0").pack();
    let problem = publisher.open(&publisher.sign(&package, Link::FIRST)).await.unwrap_err();
    assert_eq!(problem.code, Code::NameTaken, "{problem:?}");
}

#[tokio::test]
async fn a_declared_size_above_the_limit_is_refused() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let limit = modunest_core::archive::ARCHIVE_MAX_BYTES as u64;
    // The signing side refuses it as well, so the text is put together by hand.
    let size = package.build.size_bytes;
    let text =
        Statement::Release(std::sync::Arc::new(package.release(Link::FIRST))).text().unwrap();
    let text =
        text.replace(&format!("\"size_bytes\":{size}"), &format!("\"size_bytes\":{}", limit + 1));
    let signed = modunest_tlog::sign(&text, &[&publisher.key]).unwrap();
    let body = modunest_core::api::PublishRequest {
        statement: String::from_utf8(signed).unwrap(),
        dry_run: false,
    };
    let answer = publisher.client.answer(Method::POST, "/v1/releases", Some(&body)).await;
    let problem = answer.problem();
    assert!(
        answer.status.is_client_error() && problem.detail.contains(&limit.to_string()),
        "{problem:?}"
    );

    let long = "x".repeat(modunest_core::api::BODY_MAX_BYTES);
    let body = modunest_core::api::PublishRequest { statement: long, dry_run: false };
    let answer = publisher.client.answer(Method::POST, "/v1/releases", Some(&body)).await;
    assert_eq!(answer.problem().code, Code::TooLarge);
}

#[tokio::test]
async fn two_versions_of_a_plugin_at_once_both_appear() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let versions = ["1.0.0", "1.1.0", "2.0.0"];
    let packages = versions.map(|version| Plugin::new("acme/one", version).pack());
    join_all(packages.iter().map(|package| publisher.publish(package))).await;
    let snapshot = snapshot(&registry).await;
    assert!(versions.iter().all(|version| snapshot.has("acme/one", version)));
}

#[tokio::test]
async fn one_version_twice_at_once_is_one_release() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let views = join_all((0..4).map(|_| publisher.publish(&package))).await;
    assert!(views.iter().all(|view| view.session == views[0].session), "{views:?}");
    let snapshot = snapshot(&registry).await;
    assert_eq!(snapshot.plugins.len(), 1);
    assert!(snapshot.has("acme/one", "1.0.0"));
}

#[tokio::test]
async fn thirty_plugins_at_once_all_appear() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let template = Plugin::new("acme/any", "1.0.0").pack();
    let archive = modunest_core::archive::Archive::open(&template.archive).unwrap();
    let library = archive.read(archive.entry(modunest_core::scan::LIBRARY_NAME).unwrap()).unwrap();
    let names: Vec<String> =
        (0..30).map(|n| format!("acme/plugin-{n}-{}", "x".repeat(n % 7 + 1))).collect();
    let packages: Vec<_> = names
        .iter()
        .map(|name| Plugin::new(name, "1.0.0").library(library.clone()).pack())
        .collect();
    join_all(packages.iter().map(|package| publisher.publish(package))).await;
    let snapshot = snapshot(&registry).await;
    assert_eq!(snapshot.plugins.len(), names.len());
    assert!(names.iter().all(|name| snapshot.has(name, "1.0.0")));
}

#[tokio::test]
async fn an_archive_that_is_there_is_not_uploaded_again() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    publisher.publish(&package).await;
    // The next version has its own manifest, and so its own archive; this one has the first's.
    let next = Plugin::new("acme/one", "1.1.0").pack();
    let link = publisher.next_link(&next.manifest.name).await;
    let reused = next.with_archive(package.archive.clone());
    let opened = publisher.open(&publisher.sign(&reused, link)).await.unwrap();
    assert!(opened.uploads.is_empty(), "{opened:?}");
    // It is checked all the same.
    let view = publisher.follow(opened.session.unwrap()).await;
    assert_eq!(view.state, State::Rejected);
}
