//! Schedules, by the clock: a plugin is called at its minute, once; and what becomes of a minute
//! in which the agent did not run, or in which the turn before still ran.

use std::path::Path;
use std::time::Duration;

use modunest_core::time::Timestamp;
use rustix::process::Signal;

use crate::operator::Process;
use crate::plugins::{release, route};
use crate::registry::{Registry, now};
use crate::screens::config_file;
use crate::upkeep::wait_for;

/// Minutes and a bit: a schedule's turn comes with the next look at the clock.
const LIMIT: Duration = Duration::from_secs(100);

/// When the plugin was called, as it was told.
async fn turns(process: &Process, path: &str) -> Vec<String> {
    let (status, text) = process.get(path).await;
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
    assert!(turns(&process, "/turns").await.len() <= 1);
    let first = tokio::time::timeout(LIMIT, async {
        loop {
            let turns = turns(&process, "/turns").await;
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
            let turns = turns(&process, "/turns").await;
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

fn minute_of(at: &str) -> i64 {
    at.parse::<jiff::Timestamp>().unwrap().as_second() / 60
}

/// Makes twenty minutes of the wall clock out of one. How often the agent looks at it, and how
/// long it waits for anything, stays as it is.
const HASTE: [(&str, &str); 2] = [("FAKETIME", "+0 x20"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];

/// Debian's library that stands between a program and its clock, for programs with threads.
fn fast_clock() -> String {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    let library = format!("{folder}/libfaketimeMT.so.1");
    let is_there = Path::new(&library).is_file();
    assert!(is_there, "there is no {library}; run: apt-get install libfaketime");
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_left_out_while_the_one_before_still_runs() {
    let registry = Registry::start().await;
    let every = "\n[[schedule]]\nname = \"tick\"\ncron = \"* * * * *\"\n";
    let slow = route("/turns") + &route("/go") + every;
    let macros = ["SCHEDULED=\"tick\"", "HOLD_TURNS"];
    registry.publish(release("demo/slow", "1.0.0", &macros, &slow));
    let other = route("/other") + every;
    registry.publish(release("demo/other", "1.0.0", &["SCHEDULED=\"tick\""], &other));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/slow", "^1"), ("demo/other", "^1")];
    let config = config_file(&registry, folder.path(), &wanted);
    let library = fast_clock();
    let haste = HASTE.into_iter().chain([("LD_PRELOAD", library.as_str())]);
    let process = Process::start_with(&config, haste).await;

    let left_out = |plugin: &str| {
        let log = process.log();
        let lines = log.lines().filter(|line| {
            line.contains("its last turn has not ended, so this one is left out")
                && line.contains(plugin)
                && line.contains("tick")
        });
        lines.count()
    };
    wait_for("two turns to be left out", async || left_out("demo/slow") >= 2).await;
    let held = turns(&process, "/turns").await;
    assert_eq!(held.len(), 1, "{held:?}");
    // A schedule of the same name that another plugin has goes on.
    wait_for("its neighbour", async || turns(&process, "/other").await.len() > 2).await;
    assert_eq!(left_out("demo/other"), 0);

    // Once the turn ends, a minute has one again; those that were left out get none.
    assert_eq!(process.get("/go").await.0, 200);
    wait_for("another turn", async || turns(&process, "/turns").await.len() > 1).await;
    let all = turns(&process, "/turns").await;
    let minutes: Vec<i64> = all.iter().map(|at| minute_of(at)).collect();
    assert!(minutes[1] > minutes[0] + 2, "{all:?}");
    assert!(minutes.is_sorted_by(|one, next| one < next), "{all:?}");
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_loads_a_plugin_that_lists_it_and_no_other() {
    let registry = Registry::start().await;
    let every = "\n[[schedule]]\nname = \"tick\"\ncron = \"* * * * *\"\n";
    let publish = |name: &str, listed: &str| {
        let activation = format!("\n[lifecycle]\nactivation = [\"{listed}\"]\n");
        let more = route(&format!("/{name}")) + every + &activation;
        let name = format!("demo/{name}");
        registry.publish(release(&name, "1.0.0", &["SCHEDULED=\"tick\""], &more));
    };
    publish("clock", "schedule");
    publish("page", "route");
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/clock", "^1"), ("demo/page", "^1")];
    let config = config_file(&registry, folder.path(), &wanted);
    let library = fast_clock();
    let haste = HASTE.into_iter().chain([("LD_PRELOAD", library.as_str())]);
    let process = Process::start_with(&config, haste).await;
    let states = async || -> Vec<String> {
        let plugins = process.status().await.plugins.into_iter();
        plugins.map(|plugin| format!("{} {}", plugin.plugin, plugin.state)).collect()
    };
    let loaded = ["demo/clock ready", "demo/page idle"];
    wait_for("the first turn", async || states().await == loaded).await;
    wait_for("more turns", async || turns(&process, "/clock").await.len() > 2).await;
    assert_eq!(states().await, loaded);
    // Once it is loaded, its turns come; those that were left out do not.
    assert_eq!(turns(&process, "/page").await, Vec::<String>::new());
    wait_for("a turn", async || !turns(&process, "/page").await.is_empty()).await;
    process.stop();
}
