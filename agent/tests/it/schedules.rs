//! Schedules, by the clock: a plugin is called at its minute, once; and what becomes of a minute
//! in which the agent did not run.

use std::time::Duration;

use modunest_core::time::Timestamp;
use rustix::process::Signal;

use crate::operator::Process;
use crate::plugins::{release, route};
use crate::registry::{Registry, now};
use crate::screens::config_file;

/// Minutes and a bit: a schedule's turn comes with the next look at the clock.
const LIMIT: Duration = Duration::from_secs(100);

/// When the plugin was called, as it was told.
async fn turns(process: &Process) -> Vec<String> {
    let (status, text) = process.get("/turns").await;
    assert_eq!(status, 200, "{text}");
    let at = |line: &str| {
        let told: serde_json::Value = serde_json::from_str(line).unwrap();
        told["at"].as_str().unwrap().to_owned()
    };
    text.lines().filter(|line| line.starts_with('{')).map(at).collect()
}

fn minute(number: u64) -> String {
    Timestamp::from_millis(number * 60_000).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_has_one_turn_also_when_the_agent_was_away_at_its_beginning() {
    let registry = Registry::start().await;
    let every = "\n[[schedule]]\nname = \"tick\"\ncron = \"* * * * *\"\n";
    // A year away, so never here.
    let never = "\n[[schedule]]\nname = \"never\"\ncron = \"0 0 29 2 *\"\n";
    let more = route("/turns") + every + never;
    registry.publish(release("demo/clock", "1.0.0", &["SCHEDULED=\"tick\""], &more));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/clock", "^1")]);
    let process = Process::start(&config).await;
    // What lies before the start is not made up for.
    let begun = now().as_secs() / 60;
    assert!(turns(&process).await.len() <= 1);
    let first = tokio::time::timeout(LIMIT, async {
        loop {
            let turns = turns(&process).await;
            if let Some(first) = turns.first() {
                return first.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let first = first.await.expect("its minute has come");
    let number = if first == minute(begun) { begun } else { begun + 1 };
    assert_eq!(first, minute(number));

    // Away over the beginning of the next minute, as a machine that sleeps.
    process.signal(Signal::STOP);
    while now().as_secs() / 60 <= number {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    process.signal(Signal::CONT);
    let second = tokio::time::timeout(LIMIT, async {
        loop {
            let turns = turns(&process).await;
            if turns.len() > 1 {
                return turns;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let all = second.await.expect("the minute is made up for");
    assert_eq!(all, [minute(number), minute(number + 1)]);
    process.stop();
}
