//! Guards that hang.

use std::path::Path;
use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::config::Config;

use crate::homes::{Home, component};
use crate::links::{commands, guards, plugin, start, tell};
use crate::plugins::linked_with;
use crate::registry::{Registry, Release};
use crate::upkeep::wait_for;

/// Longer than any answer takes, on a machine that compiles beside it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls at the same time that the gateway has places for.
const PLACES: usize = 2;

/// A plugin whose guard `late` decides nothing before the file `go` is there, which a component
/// never sees.
fn door(home: Home, go: &Path) -> Release {
    let more = guards(&["late"]);
    match home {
        Home::Near | Home::Native => {
            let go = format!("GO=\"{}\"", go.display());
            linked_with("demo/door", &[&go], &more, vec![])
        }
        Home::Inside | Home::Runner => component("demo/door", &more),
    }
}

/// A page behind that guard, and another plugin.
async fn house(
    home: Home,
    go: &Path,
    change: impl FnOnce(&mut Config),
) -> (Agent, tempfile::TempDir) {
    let registry = Registry::start().await;
    registry.publish(door(home, go));
    let needs = "\n[dependencies]\n\"demo/door\" = \"^1\"\n".to_owned();
    let page = needs + &commands("/page", "guards = [\"demo/door:late\"]");
    registry.publish(home.release("demo/page", &page));
    registry.publish(home.release("demo/other", &commands("/other", "")));
    start(&registry, &["demo/page", "demo/other"], |config| {
        home.settle(config);
        config.gateway_limits.calls = PLACES;
        config.host.call_timeout = PATIENCE;
        config.host.links.guard_timeout = Duration::from_millis(200);
        change(config);
    })
    .await
}

async fn ask(agent: &Agent, path: &str) -> (u16, String) {
    let answer = tokio::time::timeout(PATIENCE, tell(agent, path, "seen"));
    answer.await.unwrap_or_else(|_| panic!("{path} was not answered"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_hangs_denies_and_keeps_no_place() {
    for home in Home::ALL {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let (agent, _state) = house(home, &go, |_| {}).await;
        assert_eq!(plugin(&agent, "demo/door").tier, home.tier());
        for number in 1..=2 * PLACES + 1 {
            let (status, text) = ask(&agent, "/page").await;
            assert_eq!(status, 503, "{home:?}, {number}: {text}");
            assert!(text.contains("the guard demo/door:late could not decide"), "{text}");
            assert_eq!(ask(&agent, "/other").await.0, 200, "{home:?}, {number}");
        }
        if home == Home::Near {
            // They hang still, and count all the same.
            let is_open = async || plugin(&agent, "demo/door").breaker == "open";
            wait_for("the breaker of the guard's plugin", is_open).await;
            assert_eq!(plugin(&agent, "demo/door").running, 2 * PLACES as u64 + 1);
        }
        assert_eq!(plugin(&agent, "demo/page").calls, 0, "{home:?}");
        assert_eq!(plugin(&agent, "demo/page").links.undecided, 2 * PLACES as u64 + 1);
        std::fs::write(go, "").unwrap();
        wait_for("the guard's end", async || plugin(&agent, "demo/door").running == 0).await;
        agent.shutdown().await;
    }
}

/// Where no breaker keeps them away, they would take thread after thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_guards_hang_too_often_is_not_asked() {
    /// As many as the agent lets hang.
    const OVERDUE_MAX: u64 = 16;
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let (agent, _state) = house(Home::Near, &go, |config| {
        config.host.links.guard_timeout = Duration::from_millis(50);
        config.host.lifecycle.breaker.failures = 1000;
    })
    .await;
    let running = || plugin(&agent, "demo/door").running;
    let mut hanging = 0;
    let is_refused = async || {
        assert_eq!(ask(&agent, "/page").await.0, 503);
        std::mem::replace(&mut hanging, running()) == running()
    };
    wait_for("a guard that is not asked", is_refused).await;
    assert!(hanging >= OVERDUE_MAX, "{hanging}");
    assert_eq!(ask(&agent, "/page").await.0, 503);
    assert_eq!(running(), hanging);
    std::fs::write(go, "").unwrap();
    wait_for("their end", async || running() == 0).await;
    // Nothing is held against it any more.
    assert_eq!(ask(&agent, "/page").await.0, 200);
    agent.shutdown().await;
}
