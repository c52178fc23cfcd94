//! What plugins in every home answer to the question after their health, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modunest_agent::Agent;

use crate::homes::Home;
use crate::links::{commands, plugin, start, tell};
use crate::registry::Registry;
use crate::upkeep::wait_for;

/// Clients that call a busy plugin all the time.
const CLIENTS: usize = 6;

/// One plugin, which is asked as often as the agent asks at all, and restarted where it fails to
/// answer so often in a row. It serves one call at a time, unless it is in the agent's own process
/// as a library.
async fn one(home: Home, failures: u32) -> (Agent, tempfile::TempDir) {
    let registry = Registry::start().await;
    registry.publish(home.release("demo/one", &commands("/one", "")));
    start(&registry, &["demo/one"], |config| {
        home.settle(config);
        config.host.process.calls_max = 1;
        config.host.process.restarts.first_pause = Duration::from_millis(10);
        config.host.lifecycle.hook_timeout = Duration::from_secs(1);
        // What hangs in a component is ended by it.
        config.host.call_timeout = Duration::from_secs(5);
        let health = &mut config.host.lifecycle.health;
        (health.every, health.failures) = (Duration::from_millis(1), failures);
        // Longer than an idle plugin takes, and shorter than the way to one that is busy.
        health.timeout = Duration::from_millis(50);
    })
    .await
}

async fn told(agent: &Agent, what: &str, payload: &str) -> String {
    let (status, text) = tell(agent, &format!("/one/{what}"), payload.to_owned()).await;
    assert_eq!(status, 200, "{what}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_plugin_is_not_restarted() {
    for home in Home::ALL {
        let (agent, _folder) = one(home, 2).await;
        let agent = Arc::new(agent);
        assert_eq!(plugin(&agent, "demo/one").tier, home.tier());
        assert_eq!(told(&agent, "count", "").await, "1");
        let over = Arc::new(AtomicBool::new(false));
        let call = || {
            let (agent, over) = (agent.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    told(&agent, "work", "25").await;
                }
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| call()).collect();
        let asked = async || told(&agent, "asked", "").await.parse::<u64>().unwrap();
        let before = asked().await;
        // By then, it was late as often as would be too often.
        wait_for("questions", async || asked().await >= before + 4).await;
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let seen = plugin(&agent, "demo/one");
        assert_eq!((seen.state.as_str(), seen.reason), ("ready", None), "{home:?}");
        assert_eq!(told(&agent, "count", "").await, "2", "{home:?} kept its state");
        Arc::into_inner(agent).unwrap().shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_well_or_hangs_is_restarted_wherever_it_runs() {
    for (home, ails) in Home::ALL.into_iter().flat_map(|home| [(home, "a cold"), (home, "hang")]) {
        let (agent, _folder) = one(home, 2).await;
        assert_eq!(told(&agent, "count", "").await, "1");
        let before = plugin(&agent, "demo/one").since;
        told(&agent, "ail", ails).await;
        let is_anew = async || {
            let seen = plugin(&agent, "demo/one");
            seen.state == "ready" && seen.since != before
        };
        wait_for(&format!("another one of {ails} in {home:?}"), is_anew).await;
        assert_eq!(told(&agent, "count", "").await, "1", "{home:?}: {ails}");
        agent.shutdown().await;
    }
}
