//! Kills at random moments under load. The seeds are committed, so that what fails once can be
//! looked at again; moments still vary with the machine, which only adds cases.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use modunest_core::archive::Archive;
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::scan::LIBRARY_NAME;
use modunest_tests::client::{Client, Publisher};
use modunest_tests::fixtures::{Package, Plugin};
use modunest_tests::process::until;
use modunest_tests::registry::{Registry, signing_key};
use modunest_tests::snapshot::Snapshot;
use tokio::task::JoinSet;

const PUBLISHERS: u64 = 20;
/// One round a seed.
const SEEDS: [u64; 10] = [3, 14, 159, 2653, 58979, 323846, 26433, 83279, 50288, 41971];
/// The kill comes after so many acknowledgements in its round, and so much later.
const KILL_AFTER: std::ops::Range<u64> = 1..12;
const KILL_AFTER_MS: std::ops::Range<u64> = 0..200;

/// A pseudo-random number within a range, from a seed (Vigna, "splitmix64").
fn drawn(seed: u64, range: &std::ops::Range<u64>) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    range.start + (z ^ (z >> 31)) % (range.end - range.start)
}

/// Releases of which a publisher was told that they are published, and those begun.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<(String, String)>,
    begun: Vec<(String, String)>,
}

#[derive(Clone)]
struct Load {
    library: Vec<u8>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Load {
    fn package(&self, name: &str, version: &str) -> Package {
        Plugin::new(name, version).library(self.library.clone()).pack()
    }

    fn acknowledged(&self) -> usize {
        self.ledger.lock().unwrap().acknowledged.len()
    }

    /// Publishes version after version of one plugin until the connection breaks.
    async fn publish(self, publisher: Publisher, number: u64, round: usize) {
        let name = format!("acme/plugin-{number}");
        for patch in 0.. {
            let version = format!("{round}.{patch}.0");
            self.ledger.lock().unwrap().begun.push((name.clone(), version.clone()));
            let package = self.package(&name, &version);
            loop {
                match publisher.try_attempt(&package).await {
                    Some(Ok(view)) if view.state == State::Published => break,
                    Some(Ok(view)) => {
                        // A version of the last round came to its end behind this one's back.
                        let problem = view.rejection.unwrap_or_else(|| panic!("{}", view.state));
                        assert_eq!(problem.code, Code::ChainConflict, "{problem:?}");
                    }
                    Some(Err(problem)) => {
                        let retried =
                            matches!(problem.code, Code::ChainConflict | Code::Unavailable);
                        assert!(retried || problem.status >= 500, "{problem:?}");
                        if problem.status >= 500 {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                    None => return,
                }
            }
            self.ledger.lock().unwrap().acknowledged.push((name.clone(), version));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kills_under_load() {
    let template = Plugin::new("acme/any", "1.0.0").pack();
    let archive = Archive::open(&template.archive).unwrap();
    let library = archive.read(archive.entry(LIBRARY_NAME).unwrap()).unwrap();
    let load = Load { library, ledger: Arc::default() };

    let mut registry = Registry::start().await;
    let keys = registry.keys().await;
    registry.publisher("acme").await;
    for (round, seed) in SEEDS.into_iter().enumerate() {
        let before = load.acknowledged();
        let client = Client::new(registry.started.url.clone(), Some(registry.admin_token()));
        let mut publishers = JoinSet::new();
        for number in 0..PUBLISHERS {
            let publisher = Publisher { client: client.clone(), key: signing_key("acme", 1) };
            publishers.spawn(load.clone().publish(publisher, number, round));
        }
        let enough = before + usize::try_from(drawn(seed, &KILL_AFTER)).unwrap();
        until("the load to get going", async || (load.acknowledged() >= enough).then_some(()))
            .await;
        tokio::time::sleep(Duration::from_millis(drawn(!seed, &KILL_AFTER_MS))).await;
        registry = registry.kill_and_restart().await;
        while let Some(ended) = publishers.join_next().await {
            ended.unwrap();
        }
        let snapshot = Snapshot::read(&registry.started.url, &keys).await;
        for (name, version) in &load.ledger.lock().unwrap().acknowledged {
            assert!(snapshot.has(name, version), "seed {seed}: {name} {version} is lost");
        }
    }
    let (acknowledged, begun) = {
        let ledger = load.ledger.lock().unwrap();
        (ledger.acknowledged.clone(), ledger.begun.clone())
    };
    // Whatever was cut off can be brought to its end by publishing it again.
    let publisher = Publisher { client: registry.admin(), key: signing_key("acme", 1) };
    let repeated = (0..PUBLISHERS).map(|number| {
        let name = format!("acme/plugin-{number}");
        let open: Vec<_> = begun
            .iter()
            .filter(|release| release.0 == name && !acknowledged.contains(release))
            .map(|(name, version)| load.package(name, version))
            .collect();
        let publisher = &publisher;
        async move {
            for package in open {
                publisher.publish(&package).await;
            }
        }
    });
    join_all(repeated).await;
    let snapshot = Snapshot::read(&registry.started.url, &keys).await;
    assert!(begun.iter().all(|(name, version)| snapshot.has(name, version)));
    let releases: usize = snapshot.plugins.values().map(|plugin| plugin.releases.len()).sum();
    assert_eq!(releases, begun.len());
}
