//! Many plugins at once: one sync, few descriptors, no thread a plugin.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use modunest_agent::host::{Plan, Prepared, Resources, State, load_all, prepare};
use modunest_agent::store::Fresh;
use modunest_agent::sync::{Options, Syncer};

use crate::plugins::{self, ECHO};
use crate::registry::Registry;

const PLUGINS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_plugins() {
    let registry = Registry::start().await;
    let first = plugins::release("demo/plugin-0", "1.0.0", &[], ECHO);
    for number in 0..PLUGINS {
        let mut release = crate::registry::Release {
            manifest: first.manifest.replace("plugin-0", &format!("plugin-{number}")),
            files: first.files.clone(),
        };
        if number > 0 {
            let used = format!("demo/plugin-{}", number / 2);
            release.manifest.push_str(&format!("\n[dependencies]\n\"{used}\" = \"^1\"\n"));
        }
        registry.publish(release);
    }
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..PLUGINS).map(|n| format!("demo/plugin-{n}")).collect();
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    config.host.in_process = vec!["demo/*".parse().unwrap()];
    let syncer = Syncer::open(&config).unwrap();
    let mut times = Vec::new();
    let mut time = |what: &str, started: Instant| times.push((what.to_owned(), started.elapsed()));

    let started = Instant::now();
    let outcome = syncer.sync(&config, Options::default(), &ProgressBar::hidden()).await.unwrap();
    time("resolve, fetch, prove, unpack", started);
    assert_eq!(outcome.fetched, PLUGINS);

    let started = Instant::now();
    let generation = syncer.generations().current().unwrap().unwrap();
    let proven = syncer.prove(&config, &generation).unwrap();
    time("prove the generation", started);
    let started = Instant::now();
    // As after a restart: nothing is fresh.
    let prepared = prepare(syncer.store(), proven.clone(), Fresh::default());
    time("prove lists and manifests", started);
    let fresh = prepare(syncer.store(), proven, outcome.fresh);
    let same = |(one, other): (&Prepared, &Prepared)| {
        let (one, other) = (one.installed.as_ref().unwrap(), other.installed.as_ref().unwrap());
        (&one.folder, &one.files, &one.manifest) == (&other.folder, &other.files, &other.manifest)
    };
    assert!(prepared.iter().zip(&fresh).all(same));
    let started = Instant::now();
    let resources = Resources::new(folder.path(), config.host.grants.outbound.clone());
    let plan = Plan::build(prepared, &config.plugins, &config.host, &resources, None);
    time("plan", started);
    // The server of this test holds a descriptor for each connection, too.
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let started = Instant::now();
    let host = load_all(plan, &config.host);
    time("load", started);
    assert_eq!(host.cells().filter(|cell| cell.status().state == State::Ready).count(), PLUGINS);
    let more = descriptors().saturating_sub(before);
    assert!(more < PLUGINS / 4, "{PLUGINS} plugins hold {more} descriptors");
    let started = Instant::now();
    host.stop(None, Duration::from_secs(20));
    time("stop", started);
    for (what, time) in times {
        println!("{what}: {time:?}");
    }
}
