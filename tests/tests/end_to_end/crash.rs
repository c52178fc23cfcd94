//! `kill -9` of the registry before and after every single write of a publish, of a yank and
//! of a first start. Whatever was acknowledged is there afterwards, nothing is half there, and
//! doing it again comes to the right end.

use std::process::ExitStatus;
use std::time::Duration;

use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{Link, Status};
use modunest_functions::faults::KILL_VARIABLE;
use modunest_tests::client::{Client, Publisher};
use modunest_tests::fixtures::{Package, Plugin};
use modunest_tests::process::{Process, until};
use modunest_tests::registry::{Folder, Registry, Started, admin_token, signing_key};
use modunest_tests::snapshot::Snapshot;

/// More fault points than anything that is tested here passes: an endless loop ends.
const POINTS_MAX: u64 = 400;
/// Fewer fault points than a publish must have: opening, checking, copying, committing and
/// showing are two dozen writes with two points each.
const POINTS_MIN: u64 = 30;
/// How long after its acknowledgement a publish may still tidy up.
const TAIL: Duration = Duration::from_millis(700);
/// The points are shared among tests that run side by side.
const SHARES: u64 = 4;

/// A registry's process that will be killed at a point, unless it is not passed.
struct Doomed {
    process: Process,
    started: Option<Started>,
}

impl Doomed {
    async fn start(folder: &Folder, point: u64) -> Doomed {
        let mut process = Registry::spawn(folder, &[(KILL_VARIABLE, &point.to_string())]);
        let started = until("the registry to start or to be killed", async || {
            let ended = process.ended();
            match serde_json::from_str(&process.output()) {
                Ok(started) => Some(Some(started)),
                Err(_) => ended.map(|status| {
                    assert_killed(status);
                    None
                }),
            }
        })
        .await;
        Doomed { process, started }
    }

    /// Whether it was killed by now or soon.
    async fn is_dead(&mut self) -> bool {
        let end = std::time::Instant::now() + TAIL;
        while std::time::Instant::now() < end {
            if let Some(status) = self.process.ended() {
                assert_killed(status);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

fn assert_killed(status: ExitStatus) {
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(9), "the registry ended by itself: {status}");
}

fn publisher(started: &Started, folder: &Folder) -> Publisher {
    let client = Client::new(started.url.clone(), Some(admin_token(folder)));
    Publisher { client, key: signing_key("acme", 1) }
}

async fn snapshot(registry: &Registry) -> Snapshot {
    Snapshot::read(&registry.started.url, &registry.keys().await).await
}

/// A registry that has an organisation and one release, not running.
async fn prepared() -> Folder {
    let mut registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    assert!(registry.process.terminate().await.success());
    registry.folder.clone()
}

/// Kills a publish at every `SHARES`th point from `first` on.
async fn kill_publishes(first: u64) {
    let template = prepared().await;
    let package = Plugin::new("acme/one", "1.1.0").pack();
    for point in (first..POINTS_MAX).step_by(usize::try_from(SHARES).unwrap()) {
        let folder = template.copy();
        let mut doomed = Doomed::start(&folder, point).await;
        let acknowledged = match &doomed.started {
            Some(started) => {
                let outcome = publisher(started, &folder).try_attempt(&package).await;
                let view =
                    outcome.map(|view| view.unwrap_or_else(|p| panic!("point {point}: {p:?}")));
                view.is_some_and(|view| {
                    assert_eq!(view.state, State::Published, "point {point}: {view:?}");
                    true
                })
            }
            None => false,
        };
        if !doomed.is_dead().await {
            assert!(acknowledged, "point {point}: not killed, and not published");
            assert!(point > POINTS_MIN, "{point} fault points; is modunest built with them? {HOW}");
            return;
        }
        drop(doomed);
        recovers(&folder, &package, acknowledged, point).await;
    }
    panic!("a publish has more than {POINTS_MAX} fault points");
}

const HOW: &str = "cargo build -p modunest -p modunest-agent -p modunest-tests";

async fn recovers(folder: &Folder, package: &Package, acknowledged: bool, point: u64) {
    let registry = Registry::start_in(folder, &[]).await;
    let before = snapshot(&registry).await;
    assert!(before.has("acme/one", "1.0.0"), "point {point}: an old release is lost");
    if acknowledged {
        assert!(before.has("acme/one", "1.1.0"), "point {point}: a release is lost");
    }
    let publisher = publisher(&registry.started, folder);
    let view = publisher.publish(package).await;
    assert_eq!(view.state, State::Published, "point {point}");
    let after = snapshot(&registry).await;
    let plugin = &after.plugins[&package.manifest.name];
    let versions: Vec<String> = plugin.releases.keys().map(ToString::to_string).collect();
    assert_eq!(versions, ["1.0.0", "1.1.0"], "point {point}");
    assert_eq!(plugin.next.sequence, 3, "point {point}: a statement stands twice");
    if before.has("acme/one", "1.1.0") {
        // The crash left a whole release: publishing it again was answered, not repeated.
        assert_eq!(after.files, before.files, "point {point}");
    }
}

#[tokio::test]
async fn a_publish_survives_a_kill_at_any_write_1() {
    kill_publishes(1).await;
}

#[tokio::test]
async fn a_publish_survives_a_kill_at_any_write_2() {
    kill_publishes(2).await;
}

#[tokio::test]
async fn a_publish_survives_a_kill_at_any_write_3() {
    kill_publishes(3).await;
}

#[tokio::test]
async fn a_publish_survives_a_kill_at_any_write_4() {
    kill_publishes(4).await;
}

/// A release that is rejected ends as rejected, whenever the registry dies.
#[tokio::test]
async fn a_rejection_survives_a_kill_at_any_write() {
    let template = prepared().await;
    let good = Plugin::new("acme/bad", "1.0.0").pack();
    let mut cut = good.archive.clone();
    cut.truncate(cut.len() - 1);
    let package = good.with_archive(cut);
    for point in 1..POINTS_MAX {
        let folder = template.copy();
        let mut doomed = Doomed::start(&folder, point).await;
        let mut session = None;
        if let Some(started) = &doomed.started {
            let publisher = publisher(started, &folder);
            let signed = publisher.sign(&package, Link::FIRST);
            let outcome = publisher.try_attempt_signed(&signed, &package).await;
            session = outcome.map(|view| view.unwrap().session);
        }
        let dead = doomed.is_dead().await;
        drop(doomed);
        let registry = Registry::start_in(&folder, &[]).await;
        let publisher = publisher(&registry.started, &folder);
        if let Some(session) = session {
            assert_eq!(publisher.session(session).await.state, State::Rejected, "point {point}");
        }
        let signed = publisher.sign(&package, Link::FIRST);
        let view = publisher.attempt_signed(&signed, &package).await.unwrap();
        assert_eq!(view.state, State::Rejected, "point {point}");
        let snapshot = snapshot(&registry).await;
        assert!(!snapshot.plugins.contains_key(&package.manifest.name), "point {point}");
        if !dead {
            return;
        }
    }
    panic!("a rejection has more than {POINTS_MAX} fault points");
}

#[tokio::test]
async fn a_yank_survives_a_kill_at_any_write() {
    let template = prepared().await;
    for point in 1..POINTS_MAX {
        let folder = template.copy();
        let mut doomed = Doomed::start(&folder, point).await;
        let mut acknowledged = false;
        if let Some(started) = &doomed.started {
            let publisher = publisher(started, &folder);
            let outcome = publisher.try_yank("acme/one", "1.0.0", true).await;
            acknowledged = outcome.is_some_and(|outcome| outcome.is_ok());
        }
        if !doomed.is_dead().await {
            assert!(acknowledged, "point {point}");
            return;
        }
        drop(doomed);
        let registry = Registry::start_in(&folder, &[]).await;
        let publisher = publisher(&registry.started, &folder);
        let is_yanked = async || {
            let snapshot = snapshot(&registry).await;
            let plugin = snapshot.plugins.values().next().unwrap();
            plugin.releases.values().any(|release| plugin.status(release) != Status::Active)
        };
        if acknowledged {
            assert!(is_yanked().await, "point {point}: a yank is lost");
        }
        if !is_yanked().await {
            publisher.yank("acme/one", "1.0.0", true).await.unwrap();
            assert!(is_yanked().await, "point {point}");
        }
    }
    panic!("a yank has more than {POINTS_MAX} fault points");
}

#[tokio::test]
async fn a_first_start_survives_a_kill_at_any_write() {
    for point in 1..POINTS_MAX {
        let folder = Folder::new();
        let mut doomed = Doomed::start(&folder, point).await;
        let was_ready = doomed.started.is_some();
        let dead = doomed.is_dead().await;
        drop(doomed);
        let registry = Registry::start_in(&folder, &[]).await;
        // Whoever runs the registry can administer it, whenever its first start was cut off.
        let publisher = registry.publisher("acme").await;
        let problem = publisher.yank("acme/one", "1.0.0", true).await.unwrap_err();
        assert_eq!(problem.code, Code::NotFound, "point {point}");
        assert!(snapshot(&registry).await.plugins.is_empty());
        if !dead {
            assert!(was_ready && point > 1);
            return;
        }
    }
    panic!("a first start has more than {POINTS_MAX} fault points");
}
