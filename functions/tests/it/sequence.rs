//! Many at once, and many processes: nothing is lost, and the head never goes back.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use modunest_core::api::PublishResponse;
use modunest_core::index::HEAD_FRESH_FOR;
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{Link, SignedStatement, Statement, Trust, TrustLevel};

use crate::package::package;
use crate::registry::Registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_plugins_at_once_are_all_in_the_index() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let packages: Vec<_> =
        (0..20).map(|n| package(&format!("demo/plugin-{n}"), "1.0.0", Link::FIRST)).collect();
    let views =
        join_all(packages.iter().map(|package| registry.publish(&publisher, package))).await;
    assert!(views.iter().all(|view| view.state == State::Published), "{views:?}");
    let index = registry.index().await;
    assert_eq!(index.len(), 21);
    // A key, and of each plugin a release with its verdict.
    let mut lengths: Vec<usize> = index.values().map(|file| file.entries.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [&[1][..], &[2; 20]].concat());
    let head = registry.head().await;
    assert_eq!(head.log.size, 41);
    assert!(views.iter().all(|view| view.epoch.unwrap() <= head.epoch));
    registry.log().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_version_published_at_once_has_one_session() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let signed = package.sign(&publisher.key);
    let opened: Vec<PublishResponse> =
        join_all((0..6).map(|_| registry.open(&publisher, &signed))).await;
    let sessions: BTreeSet<_> = opened.iter().map(|answer| answer.session.unwrap()).collect();
    assert_eq!(sessions.len(), 1);
    let statuses =
        join_all(opened.iter().map(|answer| registry.upload(&answer.uploads[0], &package.archive)))
            .await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    let view = registry.follow(&publisher, *sessions.first().unwrap()).await;
    assert_eq!(view.state, State::Published);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_behind_one_statement_cannot_both_get_in() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let packages = [
        package("demo/markdown", "1.0.0", Link::FIRST),
        package("demo/markdown", "2.0.0", Link::FIRST),
    ];
    let mut opened = Vec::new();
    for package in &packages {
        opened.push(registry.open(&publisher, &package.sign(&publisher.key)).await);
    }
    let mut views = Vec::new();
    for (package, answer) in packages.iter().zip(&opened) {
        assert_eq!(registry.upload(&answer.uploads[0], &package.archive).await, 200);
        views.push(registry.follow(&publisher, answer.session.unwrap()).await);
    }
    assert_eq!(views[0].state, State::Published);
    assert_eq!(views[1].state, State::Rejected);
    assert_eq!(views[1].rejection.as_ref().unwrap().code, Code::ChainConflict);
    // Signed again behind the newest, it gets in without another upload.
    let again = package("demo/markdown", "2.0.0", packages[0].sign(&publisher.key).next_link());
    let view = registry.publish_ok(&publisher, &again).await;
    assert_ne!(view.session, views[1].session);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_the_work() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let processes = [
        registry.another(false).await,
        registry.another(false).await,
        registry.another(false).await,
    ];
    let packages: Vec<_> =
        (0..9).map(|n| package(&format!("demo/plugin-{n}"), "1.0.0", Link::FIRST)).collect();
    let work = packages.iter().enumerate().map(|(n, package)| {
        let (registry, publisher, process) = (&registry, &publisher, &processes[n % 3]);
        async move {
            let opened = registry.open(publisher, &package.sign(&publisher.key)).await;
            assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
            let id = opened.session.unwrap();
            process
                .finalize(&Registry::event(&format!("upload/{id}/{}", opened.uploads[0].archive)))
                .await
                .unwrap();
            registry.session(publisher, id).await
        }
    });
    let views = join_all(work).await;
    assert!(views.iter().all(|view| view.state == State::Published), "{views:?}");
    assert_eq!(registry.index().await.len(), 10);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_head_is_signed_again() {
    let registry = Registry::start_silent().await;
    registry.functions.sweep().await.unwrap();
    let first = registry.head().await;
    registry.functions.sequence().await.unwrap();
    assert_eq!(registry.head().await, first);
    registry.move_clock(HEAD_FRESH_FOR + Duration::from_secs(1));
    registry.functions.sequence().await.unwrap();
    let second = registry.head().await;
    assert_eq!((second.epoch, second.index), (first.epoch, first.index));
    assert!(second.issued_at > first.issued_at);
    // A head that went missing is shown again.
    registry.s3.delete_object().bucket("public").key("head").send().await.unwrap();
    registry.functions.sweep().await.unwrap();
    assert_eq!(registry.head().await.epoch, first.epoch);
    registry.stop().await;
}

/// A table that was restored to before what readers have seen must not take them back there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_older_than_the_head_is_not_shown() {
    let registry = Registry::start_silent().await;
    registry.functions.sweep().await.unwrap();
    let publisher = registry.publisher("acme").await;
    let seen = registry.head().await;
    assert!(seen.epoch > 1);
    registry.set_head_epoch(seen.epoch - 1).await;
    for clock in [Duration::ZERO, HEAD_FRESH_FOR + Duration::from_secs(1)] {
        registry.move_clock(clock);
        let error = registry.functions.sequence().await.unwrap_err().to_string();
        assert!(error.contains("older than the one that readers see"), "{error}");
        assert_eq!(registry.head().await, seen);
    }
    registry.set_head_epoch(seen.epoch).await;
    registry.functions.sequence().await.unwrap();
    assert_eq!(registry.head().await.epoch, seen.epoch);
    drop(publisher);
    registry.stop().await;
}

/// More statements than a page of the queue holds, of one chain and of others around it: all get
/// into the log, each chain in its order, however its pages cut them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_over_several_pages_stays_whole() {
    const LONG: usize = 2_100;
    const OTHERS: usize = 300;
    let registry = Registry::start_silent().await;
    registry.functions.sweep().await.unwrap();
    let size = registry.head().await.log.size;
    let long = levels(&registry, "demo/long", LONG);
    let others = (0..OTHERS).flat_map(|n| levels(&registry, &format!("demo/other-{n}"), 2));
    let mut statements: Vec<_> = long.iter().cloned().chain(others).collect();
    // The last ones first: the order in which they come is not the chains'.
    statements.reverse();
    registry.functions.hand_in(&statements).await.unwrap();
    let sequenced = registry.functions.sequence().await.unwrap();
    assert_eq!((sequenced.added, sequenced.refused), (statements.len(), 0));
    assert_eq!(registry.head().await.log.size, size + statements.len() as u64);
    let log = registry.log().await;
    let in_log: Vec<_> = log
        .iter()
        .filter(|entry| entry.statement().subject() == long[0].statement().subject())
        .collect();
    assert!(in_log.iter().copied().eq(&long));
    registry.stop().await;
}

/// A chain with a gap that nobody fills: what stands behind the gap is refused, nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_behind_a_gap_is_refused() {
    let registry = Registry::start_silent().await;
    registry.functions.sweep().await.unwrap();
    let mut statements = levels(&registry, "demo/gap", 5);
    statements.remove(2);
    registry.functions.hand_in(&statements).await.unwrap();
    let sequenced = registry.functions.sequence().await.unwrap();
    assert_eq!((sequenced.added, sequenced.refused), (2, 2));
    let sequenced = registry.functions.sequence().await.unwrap();
    assert_eq!((sequenced.added, sequenced.refused), (0, 0));
    registry.stop().await;
}

/// A chain of trust levels that the registry gave a plugin, one after another.
fn levels(registry: &Registry, plugin: &str, count: usize) -> Vec<SignedStatement> {
    let mut link = Link::FIRST;
    let one = |level| {
        let signed = Statement::Trust(Trust {
            plugin: plugin.parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            level,
            reason: None,
        })
        .sign(&registry.keys.statement)
        .unwrap();
        link = signed.next_link();
        signed
    };
    [TrustLevel::Verified, TrustLevel::Community].into_iter().cycle().take(count).map(one).collect()
}
