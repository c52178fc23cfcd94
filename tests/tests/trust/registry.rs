//! A registry that `modunest up` runs, followed and proven from nothing but its keys.

use std::time::Duration;

use modunest_core::statement::{RegistryKeys, TrustLevel};
use modunest_core::trust::{Config, TrustPolicy, WitnessPolicy};
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{Finished, run};
use modunest_tests::registry::{ORIGIN, Registry, command};
use modunest_tlog::{SigningKey, VerifyingKey};

/// Its keys, from its folder: this harness is the operator.
pub fn key(registry: &Registry, name: &str) -> VerifyingKey {
    let text = std::fs::read_to_string(registry.folder.data().join(name)).unwrap();
    text.trim().parse::<SigningKey>().unwrap().verifying_key()
}

fn trust(registry: &Registry) -> Config {
    let day = Duration::from_secs(24 * 60 * 60);
    Config {
        origin: ORIGIN.parse().unwrap(),
        log_key: key(registry, "log.key"),
        head_keys: RegistryKeys::in_use([key(registry, "head.key")]),
        statement_keys: RegistryKeys::in_use([key(registry, "statement.key")]),
        witnesses: WitnessPolicy::parse("quorum none\n".to_owned()).unwrap(),
        policy: TrustPolicy {
            head_max_age: day,
            checkpoint_max_age: day,
            verdict_required: true,
            lowest_level: TrustLevel::Community,
        },
    }
}

fn ask(registry: &Registry, arguments: &[&str]) -> Finished {
    let file = registry.folder.file("trust.json");
    std::fs::write(&file, trust(registry).to_bytes()).unwrap();
    run(command().args(arguments).arg("--json").arg("--trust").arg(file))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_registry_is_monitored_and_its_releases_are_verified() {
    let registry = Registry::start().await;
    let url = registry.started.url.as_str();
    let state = registry.folder.file("monitor");
    let monitor = |arguments: &[&str]| {
        let state = ["--state", state.to_str().unwrap()];
        ask(&registry, &[&["monitor", url], &state[..], arguments].concat())
    };
    let _empty = monitor(&[]).good();
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    publisher.publish(&Plugin::new("acme/one", "1.1.0").pack()).await;
    let report = monitor(&[]).good().json();
    // A key, and for each release a verdict.
    assert_eq!(report["statements"], 5, "{report}");
    assert_eq!(report["subjects"], 2, "{report}");

    let verified = ask(&registry, &["verify", "acme/one@1.0.0", "--url", url]).good().json();
    assert_eq!(verified["steps"].as_array().unwrap().len(), 9, "{verified}");

    publisher.publish(&Plugin::new("acme/one", "1.2.0").pack()).await;
    let report = monitor(&["--watch", "acme"]);
    assert_eq!(report.code, Some(8), "{report:?}");
    assert_eq!(report.json()["activity"][0]["what"], "acme/one 1.2.0 is released");
}
