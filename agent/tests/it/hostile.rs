//! Native plugins that attack, in processes of their own and in the agent's. Whatever one does,
//! what it may not do is refused, or its process ends and is started again; and neighbours in
//! all tiers answer throughout, without one error.

use std::time::{Duration, Instant};

use modunest_agent::config::Config;
use modunest_agent::sync::Options;

use crate::homes::Home;
use crate::links::{start, tell};
use crate::plugins::{hostile, library_of, release_of};
use crate::process::{is_alive, plugin, runs, until};
use crate::registry::Registry;
use crate::street::{Street, TIERS};

const UPDATE: Options = Options { frozen: false, offline: false, update: true };

/// Manifest lines for the route where it is told what to do.
pub const DOOR: &str = "\n[[route]]\npath = \"/bad/{action}\"\nmethods = [\"POST\"]\n";

/// Memory that it is given where it uses up all of it.
const MEMORY_MAX_MIB: u64 = 128;

/// How long anything may take that is expected to happen, on a machine that compiles beside it.
const LIMIT: Duration = Duration::from_secs(60);

/// A street with a native plugin that attacks, and neighbours in these tiers. `more` is appended
/// to its manifest.
pub async fn street_beside(
    tiers: &[&str],
    macros: &[&str],
    more: &str,
    change: impl FnOnce(&mut Config),
) -> Street {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", macros, &(DOOR.to_owned() + more)));
    Street::beside(tiers, registry, "demo/bad", |config| {
        // What the plugin is after.
        let target = config.state_dir.join("index/kept");
        let bad = config.plugins.get_mut(&"demo/bad".parse().unwrap()).unwrap();
        bad.config = format!("{{\"target\":\"{}\"}}", target.display()).into_bytes();
        change(config);
    })
    .await
}

async fn street(macros: &[&str], change: impl FnOnce(&mut Config)) -> Street {
    street_beside(&TIERS, macros, "", change).await
}

/// One action that does not end the plugin.
pub async fn act(street: &Street, action: &str, body: &str) -> (u16, String) {
    let body = body.to_owned();
    street.during(action, street.post(&format!("/bad/{action}"), body)).await
}

async fn ping(street: &Street) -> (u16, String) {
    street.post("/bad/ping", "").await
}

fn pong() -> (u16, String) {
    (200, "pong".to_owned())
}

/// An action that ends the plugin's process; answers what is told of the crash.
pub async fn dies_of(street: &Street, action: &str) -> String {
    let (before, errors) = (street.restarts(), plugin(&street.agent, "demo/bad").errors);
    let attack = async {
        let (status, text) = street.post(&format!("/bad/{action}"), "").await;
        assert!(status == 503 || status == 504, "{action}: {status} {text}");
        until_restarted(street, before, action).await;
    };
    street.during(action, attack).await;
    assert_eq!(ping(street).await, pong(), "after {action}");
    // Whoever looks on sees that it fails.
    let seen = plugin(&street.agent, "demo/bad");
    assert_eq!(seen.errors, errors + 1, "{action}: {:?}", seen.outcomes);
    runs(&street.agent, "demo/bad").last_crash.unwrap().reason
}

async fn until_restarted(street: &Street, before: u64, action: &str) {
    let started = Instant::now();
    while street.restarts() == before {
        assert!(started.elapsed() < LIMIT, "{action}: no restart");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&street.agent, "demo/bad", "ready").await;
}

/// Every line of an attack says that it was refused.
fn assert_refused(attack: &str) {
    assert!(attack.lines().count() > 40, "{attack}");
    let done: Vec<&str> = attack.lines().filter(|line| line.ends_with("DONE")).collect();
    assert_eq!(done, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_may_not_do_is_refused() {
    let street = street(&["CONSTRUCTOR"], |_| ()).await;
    // Whom it attacks is the agent itself, which is this process.
    assert_eq!(act(&street, "parent", "").await, (200, std::process::id().to_string()));
    // The constructor ran before the configuration was there, and knows no target.
    let (status, constructed) = act(&street, "constructed", "").await;
    assert_eq!(status, 200, "{constructed}");
    assert_refused(&constructed);
    let (status, attack) = act(&street, "attack", "").await;
    assert_eq!(status, 200, "{attack}");
    assert_refused(&attack);
    insta::assert_snapshot!(attack);
    let (status, ordinary) = act(&street, "ordinary", "").await;
    assert_eq!(status, 200, "{ordinary}");
    insta::assert_snapshot!(ordinary);
    assert_eq!(street.restarts(), 0);
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_plugin_ends_its_process_alone() {
    let street = street(&[], |_| ()).await;
    let mut deaths = Vec::new();
    for action in ["abort", "segfault", "overflow", "exit", "wild-answer"] {
        deaths.push(format!("{action}: {}", dies_of(&street, action).await));
    }
    insta::assert_snapshot!(deaths.join("\n"));
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_ended() {
    let street = street(&[], |config| {
        config.host.call_timeout = Duration::from_secs(2);
        config.host.process.grace = Duration::from_millis(200);
    })
    .await;
    for action in ["loop", "sleep", "write-without-end"] {
        let death = dies_of(&street, action).await;
        assert!(death.contains("was still running 200 ms after its deadline"), "{action}: {death}");
    }
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_its_sender() {
    let street = street(&[], |config| {
        config.host.call_timeout = Duration::from_secs(5);
    })
    .await;
    let mut deaths = Vec::new();
    for action in ["malformed", "oversize", "lying-length", "hang-up", "unread"] {
        deaths.push(format!("{action}: {}", dies_of(&street, action).await));
    }
    insta::assert_snapshot!(deaths.join("\n"));
    let (status, text) = act(&street, "large", "").await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("is above the limit of 16777216"), "{text}");
    assert_eq!(act(&street, "unknown-status", "").await.0, 502);
    assert_eq!(ping(&street).await, pong());
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_is_the_plugins_own() {
    let private = "\n[capabilities]\nfiles = [\"private\"]\n";
    let street = street_beside(&TIERS, &[], private, |config| {
        config.host.process.memory_max_bytes = MEMORY_MAX_MIB * 1024 * 1024;
        config.host.process.file_max_bytes = 16 * 1024 * 1024;
    })
    .await;
    let file = street.secret().ancestors().nth(2).unwrap().join("private/demo/bad/long");
    let (status, text) = act(&street, "fill", file.to_str().unwrap()).await;
    assert_eq!((status, text.as_str()), (200, "16 MiB: File too large"));
    assert_eq!(std::fs::metadata(file).unwrap().len(), 16 * 1024 * 1024);
    assert_eq!(act(&street, "files", "").await, (200, "bounded".to_owned()));
    assert_eq!(serves_again(&street).await, pong(), "after files");
    // What the kernel would count as nobody's is not to be had.
    for action in ["memory-shared", "memory-stack"] {
        let refused = (200, "0 MiB: Operation not permitted".to_owned());
        assert_eq!(act(&street, action, "").await, refused, "{action}");
    }
    // Where memory ends, the runner itself may be the one that finds none.
    let (status, text) = act(&street, "memory", "").await;
    let mib = text.split_once(" MiB: Cannot allocate memory").map(|(mib, _)| mib.parse().unwrap());
    let is_bounded = mib.is_some_and(|mib: u64| mib <= MEMORY_MAX_MIB);
    assert!(status == 503 || (status == 200 && is_bounded), "{status} {text}");
    assert_eq!(serves_again(&street).await, pong(), "after memory");
    street.end().await;
}

/// What the kernel does not count at all, the agent sees.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_beyond_its_bounds_ends_its_process() {
    let street = street_beside(&["process"], &[], "", |config| {
        config.host.process.memory_max_bytes = MEMORY_MAX_MIB * 1024 * 1024;
    })
    .await;
    let death = dies_of(&street, "memory-read-only").await;
    assert!(death.contains(" MiB of memory, and memory_max_mib is 128"), "{death}");
    let death = dies_of(&street, "threads").await;
    assert!(death.contains(" of them for calls, and threads_max is 128"), "{death}");
    assert!(!runs(&street.agent, "demo/bad").control_group);
    street.end().await;
}

/// The first answer of the plugin, once its process is there again if it ended.
async fn serves_again(street: &Street) -> (u16, String) {
    let started = Instant::now();
    loop {
        let answer = ping(street).await;
        if answer.0 != 503 || started.elapsed() > LIMIT {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_stay_with_their_sender() {
    let street = street(&[], |_| ()).await;
    let flood = async {
        let begun = (200, "flood: DONE\n".to_owned());
        assert_eq!(street.post("/bad/flood", "").await, begun);
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    street.during("flood", flood).await;
    assert_eq!(ping(&street).await, pong());
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_siblings_nor_their_agent_can_be_killed() {
    let street = street(&[], |_| ()).await;
    let siblings = ["demo/process", "demo/component-process"];
    let pids = siblings.map(|name| runs(&street.agent, name).pid.unwrap());
    for (what, pid) in [
        ("kill a sibling", pids[0]),
        ("kill a component's process", pids[1]),
        ("kill the agent", std::process::id()),
    ] {
        let refused = (200, "kill: Operation not permitted\n".to_owned());
        let killed = street.during(what, street.post("/bad/kill", pid.to_string())).await;
        assert_eq!(killed, refused);
        assert!(is_alive(pid));
    }
    assert_eq!(siblings.map(|name| runs(&street.agent, name).pid.unwrap()), pids);
    street.end().await;
}

/// What a library may be that its loader refuses: macros, in the order of the versions.
const REFUSED: [(&str, &[&str]); 7] = [
    ("a missing function", &["LIE=1"]),
    ("a table that is too short", &["LIE=4"]),
    ("a table of another ABI", &["LIE=5"]),
    ("a table of an ABI before the first", &["LIE=10"]),
    ("a wild create", &["LIE=2"]),
    ("a wild table", &["LIE=3"]),
    ("a constructor that aborts", &["CONSTRUCTOR_ABORTS"]),
];

/// Publishes the plugin's version `1.NUMBER.0` with these macros, and takes it into service.
async fn updated(street: &Street, number: usize, macros: &[&str]) -> Result<(), String> {
    let version = format!("1.{number}.0");
    let library = library_of("hostile.c", macros);
    street.registry.publish(release_of("demo/bad", &version, library, DOOR));
    street.agent.sync_with(UPDATE).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_lies_does_not_take_the_place_of_one_that_serves() {
    let street = street(&[], |_| ()).await;
    let pid = street.pid();
    let mut heard = Vec::new();
    for (number, (what, macros)) in REFUSED.iter().enumerate() {
        let refused = street.during(what, updated(&street, number + 1, macros)).await;
        heard.push(format!("{what}: {}", refused.unwrap_err()));
        // The one before goes on, in the process that it had.
        assert_eq!(ping(&street).await, pong(), "after {what}");
        assert_eq!(
            (plugin(&street.agent, "demo/bad").version.as_str(), street.pid()),
            ("1.0.0", pid)
        );
    }
    insta::assert_snapshot!(heard.join("\n"));
    street.end().await;
}

/// What a later version of the same ABI has more is behind all that this host knows. It is not
/// looked at: here it leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_with_a_longer_table_of_the_same_abi_serves() {
    for home in [Home::Native, Home::Near] {
        let registry = Registry::start().await;
        registry.publish(hostile("demo/bad", &["LIE=9"], DOOR));
        let (agent, _folder) = start(&registry, &["demo/bad"], |config| home.settle(config)).await;
        let seen = plugin(&agent, "demo/bad");
        assert_eq!((seen.state.as_str(), seen.tier.as_str()), ("ready", home.tier()));
        assert_eq!(seen.reason, None);
        assert_eq!(tell(&agent, "/bad/ping", "").await, pong());
        agent.shutdown().await;
    }
}

/// Functions and buffers that only show what they are when they are used.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_lies_later_ends_its_process_alone() {
    let street = street(&[], |_| ()).await;
    // Its hooks are the first calls that reach it.
    let refused = street.during("a wild call", updated(&street, 1, &["LIE=6"])).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("was killed by SIGSEGV"), "{refused}");
    assert_eq!(ping(&street).await, pong());

    let frees = async {
        updated(&street, 2, &["LIE=7"]).await.unwrap();
        for _ in 0..3 {
            let before = street.restarts();
            // The answer may be on its way already when the process ends.
            let (status, text) = ping(&street).await;
            assert!(status == 503 || (status, text) == pong(), "{status}");
            until_restarted(&street, before, "a wild free").await;
        }
    };
    street.during("a wild free", frees).await;
    let crash = runs(&street.agent, "demo/bad").last_crash.unwrap();
    assert!(crash.reason.contains("was killed by SIGSEGV"), "{crash:?}");

    // A capacity is its owner's own word to itself, and nobody else's.
    let lying = async {
        updated(&street, 3, &["LIE=8"]).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ping(&street).await, pong());
        }
    };
    street.during("a lying capacity", lying).await;
    assert_eq!(runs(&street.agent, "demo/bad").last_crash, None);
    street.end().await;
}

/// What can be contained without a process between: answers that are none, tables that are
/// none, panics, and calls that never end.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_agents_own_process_the_border_holds() {
    let street = street(&[], |config| {
        config.host.in_process.push("demo/bad".parse().unwrap());
        config.host.call_timeout = Duration::from_secs(2);
        config.host.lifecycle.breaker.failures = 3;
    })
    .await;
    assert_eq!(plugin(&street.agent, "demo/bad").tier, "in-process");
    let (status, text) = act(&street, "large", "").await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("is above the limit of 16777216"), "{text}");
    let (status, text) = act(&street, "unknown-status", "").await;
    assert_eq!(status, 502, "{text}");
    // Only what its table says before it is used can be looked at.
    let mut heard = Vec::new();
    for (number, (what, macros)) in REFUSED.iter().take(4).enumerate() {
        let refused = street.during(what, updated(&street, number + 1, macros)).await;
        heard.push(format!("{what}: {}", refused.unwrap_err()));
        assert_eq!(ping(&street).await, pong(), "after {what}");
    }
    insta::assert_snapshot!(heard.join("\n"));

    // Nobody can end such a call, and nobody waits for it: it counts when its time is over. Only for
    // this test's own end, it ends when a file is there.
    let over = street.secret().with_file_name("over");
    for in_a_row in [1, 3] {
        assert_eq!(ping(&street).await, pong(), "before {in_a_row} of them");
        for _ in 0..in_a_row {
            let (status, text) = act(&street, "loop-until", over.to_str().unwrap()).await;
            assert_eq!(status, 504, "{text}");
        }
    }
    let (status, text) = act(&street, "loop-until", over.to_str().unwrap()).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("failed too often and is left alone"), "{text}");
    assert_eq!(plugin(&street.agent, "demo/bad").breaker, "open");
    let seen = plugin(&street.agent, "demo/bad");
    std::fs::write(over, "").unwrap();
    // None of them has ended yet, and two answers before them were none.
    assert_eq!((seen.errors, seen.running), (6, 4), "{:?}", seen.outcomes);
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_agents_own_process_ends_at_the_border() {
    let registry = Registry::start().await;
    registry.publish(Home::Native.release("demo/bad", DOOR));
    let street = Street::start(registry, "demo/bad", |config| {
        config.host.in_process.push("demo/bad".parse().unwrap());
    })
    .await;
    assert_eq!(plugin(&street.agent, "demo/bad").tier, "in-process");
    for panics in 1..=3 {
        let (status, text) = act(&street, "panic", "").await;
        assert_eq!(status, 502, "{text}");
        assert!(text.contains("panicked: as it was told to"), "{text}");
        let seen = plugin(&street.agent, "demo/bad");
        assert_eq!((seen.panics, seen.errors), (panics, panics));
        // The same instance goes on.
        assert_eq!(street.post("/bad/count", "").await, (200, panics.to_string()));
    }
    street.end().await;
}
