//! Trust groups: who shares a process, and who does not although the configuration says so.

use modunest_agent::sync::Options;
use modunest_agent::{Agent, Config};
use modunest_core::statement::TrustLevel;

use crate::homes::Home;
use crate::plugins::{release, route};
use crate::process::{get, plugin, runs};
use crate::registry::Registry;

/// Wants these plugins, all in one trust group.
fn grouped(registry: &Registry, folder: &tempfile::TempDir, names: &[&str]) -> Config {
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (*name, "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    config.host.process.share = vec![vec!["demo/*".parse().unwrap()]];
    config.host.load_timeout = std::time::Duration::from_secs(60);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_shares_no_process_with_native_code() {
    let registry = Registry::start().await;
    let names = ["demo/native", "demo/second", "demo/component", "demo/other"];
    for name in &names[..2] {
        registry.publish(Home::Native.release(name, ""));
    }
    for name in &names[2..] {
        let path = name.strip_prefix("demo").unwrap();
        registry.publish(Home::Runner.release(name, &route(&format!("{path}/{{action}}"))));
    }
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(grouped(&registry, &folder, &names)).await.unwrap();
    let [native, second, component, other] = names.map(|name| runs(&agent, name));
    assert_eq!((native.pid, component.pid), (second.pid, other.pid));
    assert!(native.pid.is_some() && component.pid.is_some() && native.pid != component.pid);
    assert_eq!(native.group.as_deref(), Some("group-0-native-community"));
    assert_eq!(component.group.as_deref(), Some("group-0-component-community"));
    for path in ["/component/now", "/other/now"] {
        assert_eq!(get(&agent, path).await.0, 200);
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_different_trust_levels_share_no_process() {
    let registry = Registry::start().await;
    let names = ["demo/one", "demo/two", "demo/trusted"];
    for name in names {
        registry.publish(release(name, "1.0.0", &[], ""));
    }
    registry.trust("demo/trusted", TrustLevel::Verified);
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(grouped(&registry, &folder, &names)).await.unwrap();
    let [one, two, trusted] = names.map(|name| runs(&agent, name));
    assert!(one.pid.is_some() && one.pid == two.pid && one.pid != trusted.pid);
    assert_eq!(one.group.as_deref(), Some("group-0-native-community"));
    assert_eq!(trusted.group.as_deref(), Some("group-0-native-verified"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_group_is_replaced_while_the_other_goes_on_serving() {
    let registry = Registry::start().await;
    registry.publish(release("demo/stays", "1.0.0", &[], &route("/stays")));
    registry.publish(release("demo/changes", "1.0.0", &[], &route("/changes")));
    let folder = tempfile::tempdir().unwrap();
    let names = ["demo/stays", "demo/changes"];
    let mut config = grouped(&registry, &folder, &names);
    config.host.lifecycle.keep_old = std::time::Duration::ZERO;
    let agent = Agent::start(config).await.unwrap();
    let before = names.map(|name| runs(&agent, name).pid);
    assert_eq!(before[0], before[1]);
    registry.publish(release("demo/changes", "1.1.0", &[], &route("/changes")));
    let update = Options { frozen: false, offline: false, update: true };
    let served = (200, "demo/stays 1.0.0 says hello".to_owned());
    {
        let mut changed = std::pin::pin!(async {
            agent.sync_with(update).await.unwrap();
            assert_eq!(get(&agent, "/changes").await.1, "demo/changes 1.1.0 says hello");
        });
        loop {
            tokio::select! {
                () = &mut changed => break,
                answer = get(&agent, "/stays") => assert_eq!(answer, served),
            }
        }
    }
    assert_eq!(get(&agent, "/stays").await, served);
    let after = names.map(|name| runs(&agent, name));
    assert_eq!((after[0].pid, plugin(&agent, names[0]).restarts), (before[0], Some(0)));
    assert!(after[1].pid.is_some() && after[1].pid != before[1]);
    for runs in after {
        assert_eq!(runs.group.as_deref(), Some("group-0"));
    }
    agent.shutdown().await;
}
