//! Work that is cut off at any point is finished by the sweep, exactly once.
//!
//! A worker's death is a future that is dropped: at its n-th poll, for every n in turn, so
//! that the cut falls before, between and behind all of its requests. What a request had set
//! going on the other side goes on, as it does when a process dies.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use modunest_core::problem::Code;
use modunest_core::publish::{ATTEMPTS_MAX, LEASE, State};
use modunest_core::statement::{Link, Statement};

use crate::package::{Package, package};
use crate::registry::{Publisher, Registry};

/// A process that dies: polls `work` at most `polls` times and then drops it. What it came to,
/// if it ended before.
pub async fn cut<F: Future>(work: F, polls: u32) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

async fn ready_to_check(
    registry: &Registry,
    publisher: &Publisher,
    package: &Package,
) -> (modunest_core::keys::SessionId, serde_json::Value) {
    let opened = registry.open(publisher, &package.sign(&publisher.key)).await;
    assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
    let id = opened.session.unwrap();
    (id, Registry::event(&format!("upload/{id}/{}", opened.uploads[0].archive)))
}

async fn published_once(
    registry: &Registry,
    publisher: &Publisher,
    id: modunest_core::keys::SessionId,
    plugin: &str,
) {
    let view = registry.session(publisher, id).await;
    assert_eq!(view.state, State::Published, "{plugin}: {view:?}");
    let file = &registry.index().await[&plugin.parse().unwrap()];
    let kinds: Vec<&Statement> = file.entries.iter().map(|(_, it)| it.statement()).collect();
    let whole = matches!(kinds[..], [Statement::Release(_), Statement::Verdict(_)]);
    assert!(whole, "{plugin}: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_anywhere() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let mut cut_off = 0;
    for polls in 1.. {
        let plugin = format!("demo/plugin-{polls}");
        let package = package(&plugin, "1.0.0", Link::FIRST);
        let (id, event) = ready_to_check(&registry, &publisher, &package).await;
        let worker = registry.another(false).await;
        let ended = cut(worker.finalize(&event), polls).await;
        drop(worker);
        if let Some(result) = ended {
            result.unwrap();
            published_once(&registry, &publisher, id, &plugin).await;
            break;
        }
        cut_off += 1;
        // Storage delivers an event until it is taken; then the lease runs out.
        let survivor = registry.another(false).await;
        survivor.finalize(&event).await.unwrap();
        registry.move_clock(LEASE + Duration::from_secs(1));
        survivor.sweep().await.unwrap();
        published_once(&registry, &publisher, id, &plugin).await;
        registry.move_clock(LEASE + Duration::from_secs(1));
        survivor.sweep().await.unwrap();
        assert_eq!(registry.staged().await, Vec::<String>::new(), "{plugin}");
    }
    assert!(cut_off > 5, "the work ended after {cut_off} polls");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_process_takes_over_at_once() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    for polls in [8, 14, 20, 26, 32] {
        let plugin = format!("demo/plugin-{polls}");
        let package = package(&plugin, "1.0.0", Link::FIRST);
        let (id, event) = ready_to_check(&registry, &publisher, &package).await;
        let worker = registry.another(true).await;
        let _ended = cut(worker.finalize(&event), polls).await;
        drop(worker);
        // No clock is moved: the lease of the dead worker still runs.
        let survivor = registry.another(true).await;
        survivor.sweep().await.unwrap();
        survivor.finalize(&event).await.unwrap();
        published_once(&registry, &publisher, id, &plugin).await;
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_request_that_is_cut_off_can_be_repeated() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    for polls in 1..14 {
        let plugin = format!("demo/plugin-{polls}");
        let package = package(&plugin, "1.0.0", Link::FIRST);
        let body = Registry::publish_body(&package.sign(&publisher.key));
        let call = registry.call("POST", "/v1/releases", Some(&publisher.token), Some(&body));
        let _ended = cut(call, polls).await;
        registry.publish_ok(&publisher, &package).await;
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_never_ends_is_given_up() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let (id, event) = ready_to_check(&registry, &publisher, &package).await;
    for attempt in 1..=ATTEMPTS_MAX {
        // Dies as soon as it has taken the lease.
        let worker = registry.another(false).await;
        for polls in 1.. {
            if registry.session(&publisher, id).await.attempt == attempt {
                break;
            }
            assert!(cut(worker.finalize(&event), polls).await.is_none());
        }
        registry.move_clock(LEASE + Duration::from_secs(1));
    }
    registry.functions.sweep().await.unwrap();
    let view = registry.session(&publisher, id).await;
    assert_eq!((view.state, view.attempt), (State::Rejected, ATTEMPTS_MAX));
    assert_eq!(view.rejection.unwrap().code, Code::Unavailable);
    assert_eq!(registry.staged().await, Vec::<String>::new());
    // The version is free again. A worker may have died behind the copy of its archive, which
    // had passed every check by then, so the upload may not be needed.
    let opened = registry.open(&publisher, &package.sign(&publisher.key)).await;
    for upload in &opened.uploads {
        assert_eq!(registry.upload(upload, &package.archive).await, 200);
    }
    for key in registry.staged().await {
        registry.functions.finalize(&Registry::event(&key)).await.unwrap();
    }
    let id = opened.session.unwrap();
    published_once(&registry, &publisher, id, "demo/markdown").await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_vanished_ends_the_session() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let (id, event) = ready_to_check(&registry, &publisher, &package).await;
    let key = registry.staged().await.remove(0);
    registry.s3.delete_object().bucket("staging").key(key).send().await.unwrap();
    registry.functions.finalize(&event).await.unwrap();
    let view = registry.session(&publisher, id).await;
    assert_eq!(view.rejection.unwrap().code, Code::SessionExpired);
    registry.stop().await;
}
