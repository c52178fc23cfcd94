//! Plugins in processes of their own: found in the status, started again, given up, shared,
//! ended with their agent.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modunest_agent::embed::Event;
use modunest_agent::host::{Plan, Resources, State, load_all, prepare};
use modunest_agent::status::{PluginStatus, Runs};
use modunest_agent::store::Fresh;
use modunest_agent::sync::{Options, Syncer};
use modunest_agent::{Agent, Config};
use modunest_sdk::Status;
use modunest_sdk::abi::MAX_MESSAGE_BYTES;

use crate::homes::Home;
use crate::host::{critical, readiness};
use crate::plugins::{ECHO, hostile, release, route, uses};
use crate::registry::{ORIGIN, Registry, registry_key};
use crate::upkeep::wait_for;

/// How long anything may take that is expected to happen, on a machine that compiles beside it.
const LIMIT: Duration = Duration::from_secs(60);

pub fn plugin(agent: &Agent, name: &str) -> PluginStatus {
    agent.status().plugins.into_iter().find(|plugin| plugin.plugin == name).unwrap()
}

pub fn runs(agent: &Agent, name: &str) -> Runs {
    plugin(agent, name).runs.unwrap()
}

pub async fn get(agent: &Agent, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", agent.gateway_addr())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until a plugin is in a state.
pub async fn until(agent: &Agent, name: &str, state: &str) -> PluginStatus {
    let started = Instant::now();
    loop {
        let seen = plugin(agent, name);
        if seen.state == state {
            return seen;
        }
        assert!(started.elapsed() < LIMIT, "{name} is not {state}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a plugin serves again after so many restarts: it counts as ready until its end is
/// known.
pub async fn until_again(agent: &Agent, name: &str, restarts: u64) {
    let started = Instant::now();
    loop {
        let seen = plugin(agent, name);
        if seen.restarts == Some(restarts) && seen.state == "ready" {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{name} was not restarted: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn is_alive(pid: u32) -> bool {
    // A process that ended and that nobody has waited for is still listed.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

pub async fn until_dead(pid: u32) {
    let started = Instant::now();
    while is_alive(pid) {
        assert!(started.elapsed() < LIMIT, "{pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_routes_cross_processes() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let forward = ["FORWARD_PLUGIN=\"demo/back\""];
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &forward, &more));
    registry.publish(release("demo/inside", "1.0.0", &[], &route("/inside")));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/front", "^1"), ("demo/inside", "^1")];
    let mut config = registry.config(folder.path(), &wanted);
    config.host.in_process = vec!["demo/inside".parse().unwrap()];
    let agent = Agent::start(config).await.unwrap();
    let text = "demo/front 1.0.0 says demo/front 1.0.0 via demo/back 1.0.0".to_owned();
    assert_eq!(get(&agent, "/front").await, (200, text));
    assert_eq!(get(&agent, "/inside").await, (200, "demo/inside 1.0.0 says hello".to_owned()));
    let (front, back, inside) =
        (runs(&agent, "demo/front"), runs(&agent, "demo/back"), runs(&agent, "demo/inside"));
    let tier = |name: &str| plugin(&agent, name).tier;
    assert_eq!((tier("demo/front"), tier("demo/inside")), ("process".into(), "in-process".into()));
    assert!(plugin(&agent, "demo/front").memory_bytes.unwrap() > 0);
    assert!(front.confined && back.confined && !inside.confined);
    assert!(front.last_crash.is_none());
    let (one, other) = (front.pid.unwrap(), back.pid.unwrap());
    assert_ne!(one, other);
    let name = std::fs::read_to_string(format!("/proc/{one}/cmdline")).unwrap();
    assert!(name.starts_with("modunest-runner demo/front\0"), "{name}");
    // Nothing of the agent's environment, only how it is to keep memory, and to copy where the
    // processor needs to be told.
    let environment = std::fs::read_to_string(format!("/proc/{one}/environ")).unwrap();
    let mut variables: Vec<&str> = environment.split_terminator('\0').collect();
    variables.retain(|one| !one.starts_with("GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold="));
    variables.sort_unstable();
    let keeps = ["ARENA_MAX=2", "MMAP_THRESHOLD_=1048576", "TRIM_THRESHOLD_=1048576"];
    assert_eq!(variables, keeps.map(|keeps| format!("MALLOC_{keeps}")));
    let status = std::fs::read_to_string(format!("/proc/{one}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    agent.shutdown().await;
    until_dead(one).await;
    until_dead(other).await;
}

/// The processes that plugins' processes are forked from, of this process.
fn zygotes() -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path().join("children");
        // A thread may have ended since.
        let children = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"modunest-runner zygote\0")
    });
    found
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_kills_what_runners_are_forked_from_stops_nothing() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    registry.publish(release("demo/calm", "1.0.0", &[], &route("/calm")));
    let folder = tempfile::tempdir().unwrap();
    let plugins = [("demo/bad", "^1"), ("demo/calm", "^1")];
    let mut config = registry.config(folder.path(), &plugins);
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    let agent = Agent::start(config).await.unwrap();
    // One for both.
    let before = zygotes();
    assert_eq!(before.len(), 1, "{before:?}");
    kill(before[0]);
    until_dead(before[0]).await;
    // What was forked from it goes on.
    assert_eq!(get(&agent, "/calm").await, (200, "demo/calm 1.0.0 says hello".to_owned()));
    let pid = runs(&agent, "demo/bad").pid.unwrap();
    assert_eq!(get(&agent, "/bad/abort").await.0, 503);
    until_again(&agent, "demo/bad", 1).await;
    assert_ne!(runs(&agent, "demo/bad").pid.unwrap(), pid);
    assert_eq!(get(&agent, "/bad/ping").await, (200, "pong".to_owned()));
    let after = zygotes();
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_and_followed_by_a_restart_until_there_are_too_many() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/bad", "^1")]);
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    config.host.process.restarts.restarts_max = 2;
    let agent = Agent::start(config).await.unwrap();
    for restarts in 1..=2 {
        let before = runs(&agent, "demo/bad").pid.unwrap();
        let (status, text) = get(&agent, "/bad/abort").await;
        assert_eq!(status, 503, "{text}");
        assert!(
            text.contains(
                "was killed by SIGABRT (it gave up by itself); its last words: my last words"
            ),
            "{text}"
        );
        until_again(&agent, "demo/bad", restarts).await;
        let after = runs(&agent, "demo/bad");
        assert_eq!(plugin(&agent, "demo/bad").restarts, Some(restarts));
        assert_ne!(after.pid.unwrap(), before);
        let crash = after.last_crash.unwrap();
        assert_eq!(crash.last_words, "first words\nmy last words");
        assert_eq!(get(&agent, "/bad/ping").await, (200, "pong".to_owned()));
    }
    assert_eq!(get(&agent, "/bad/exit").await.0, 503);
    let failed = until(&agent, "demo/bad", "failed").await;
    let reason = failed.reason.unwrap();
    assert_eq!(
        reason,
        "its process crashed 3 times and is not started again: it ended by itself with exit code 3"
    );
    let (status, text) = get(&agent, "/bad/ping").await;
    assert!(status == 503 && text.contains("is not started again"), "{status} {text}");
    agent.shutdown().await;
}

/// What an observer has heard of states, as `plugin state`.
pub type Heard = Arc<Mutex<Vec<String>>>;

/// Starts an agent that is observed.
pub async fn observed(config: Config) -> (Agent, Heard) {
    let heard = Heard::default();
    let hears = heard.clone();
    let builder = Agent::builder(config).observer(move |event: &Event<'_>| {
        if let Event::Plugin { plugin, state, .. } = event {
            hears.lock().unwrap().push(format!("{plugin} {}", state.as_str()));
        }
    });
    (builder.start().await.unwrap(), heard)
}

/// Waits until an observer has heard so much, and answers it.
async fn all_heard(heard: &Heard, count: usize) -> Vec<String> {
    wait_for("what is heard", async || heard.lock().unwrap().len() >= count).await;
    heard.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_hears_of_crashes_and_of_what_follows() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/bad", "^1")]);
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    config.host.process.restarts.restarts_max = 1;
    let (agent, heard) = observed(config).await;
    assert_eq!(get(&agent, "/bad/abort").await.0, 503);
    until_again(&agent, "demo/bad", 1).await;
    assert_eq!(get(&agent, "/bad/abort").await.0, 503);
    let states = ["loading", "ready", "restarting", "ready", "failed"];
    let expected = states.map(|state| format!("demo/bad {state}"));
    assert_eq!(all_heard(&heard, expected.len()).await, expected);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_well_and_crashes_too_often_has_failed() {
    let registry = Registry::start().await;
    registry.publish(release("demo/sick", "1.0.0", &["SICK", "CRASH_CALL"], &route("/sick")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/sick", "^1")]);
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    config.host.process.restarts.restarts_max = 1;
    let health = &mut config.host.lifecycle.health;
    (health.every, health.failures, health.restart) = (Duration::from_millis(1), 1, false);
    let (agent, heard) = observed(config).await;
    for _ in 0..2 {
        until(&agent, "demo/sick", "unhealthy").await;
        assert_eq!(get(&agent, "/sick").await.0, 503);
        let is_still = async || plugin(&agent, "demo/sick").state == "unhealthy";
        wait_for("its end to be known", async || !is_still().await).await;
    }
    let failed = until(&agent, "demo/sick", "failed").await;
    let reason = failed.reason.unwrap();
    assert!(reason.starts_with("its process crashed 2 times and is not started again"), "{reason}");
    let states = ["loading", "ready", "unhealthy", "restarting", "ready", "unhealthy", "failed"];
    let expected = states.map(|state| format!("demo/sick {state}"));
    assert_eq!(all_heard(&heard, expected.len()).await, expected);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_need_what_failed_while_it_ran_say_so() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &(route("/bad/{action}") + ECHO)));
    registry.publish(release("demo/user", "1.0.0", &[], &(uses("demo/bad", "^1") + ECHO)));
    registry.publish(critical(release("demo/top", "1.0.0", &[], &uses("demo/user", "^1")), true));
    let optional = "\n[dependencies]\n\"demo/bad\" = { version = \"^1\", optional = true }\n";
    registry.publish(release("demo/easy", "1.0.0", &[], optional));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/top", "^1"), ("demo/easy", "^1")];
    let mut config = registry.config(folder.path(), &wanted);
    config.host.process.restarts.restarts_max = 0;
    let agent = Agent::start(config).await.unwrap();
    let of = |name: &str| {
        let PluginStatus { state, reason, .. } = plugin(&agent, name);
        (state, reason)
    };
    let ready = "ready".to_owned();
    for name in ["demo/bad", "demo/easy", "demo/top", "demo/user"] {
        assert_eq!(of(name), (ready.clone(), None));
    }
    assert_eq!(readiness(&agent).await, (200, None));
    assert_eq!(get(&agent, "/bad/exit").await.0, 503);
    until(&agent, "demo/bad", "failed").await;
    let bad = "needs demo/bad 1.0.0, which failed: its process crashed once and is not started again: it ended by itself with exit code 3";
    assert_eq!(of("demo/user"), (ready.clone(), Some(bad.to_owned())));
    assert_eq!(
        of("demo/top"),
        (ready.clone(), Some(format!("needs demo/user 1.0.0, which {bad}")))
    );
    assert_eq!(of("demo/easy"), (ready, None));
    // A critical one that lacks what it cannot be without does not make a host ready.
    let reason = format!("demo/top is critical and needs demo/user 1.0.0, which {bad}");
    assert_eq!(readiness(&agent).await, (503, Some(reason)));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_says_why() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/missing", &["LIE=1"], ""));
    registry.publish(hostile("demo/wild", &["LIE=2"], ""));
    registry.publish(hostile("demo/nowhere", &["LIE=3"], ""));
    registry.publish(hostile("demo/aborts", &["CONSTRUCTOR_ABORTS"], ""));
    let mut text = release("demo/text", "1.0.0", &[], "");
    text.files[0].content = b"no library".to_vec();
    registry.publish(text);
    let folder = tempfile::tempdir().unwrap();
    let names = ["demo/missing", "demo/wild", "demo/nowhere", "demo/aborts", "demo/text"];
    let mut config = registry.config(folder.path(), &names.map(|name| (name, "^1")));
    let agent = Agent::start(config.clone()).await.unwrap();
    let mut lines: Vec<String> = agent
        .status()
        .plugins
        .into_iter()
        .map(|p| format!("{}: {}: {}", p.plugin, p.state, p.reason.unwrap_or_default()))
        .collect();
    agent.shutdown().await;
    // Another program than a runner, and none at all.
    for program in ["/bin/true", "/nowhere/at/all"] {
        config.host.process.runner = Some(program.into());
        config.plugins.retain(|name, _| name.as_str() == "demo/text");
        let agent = Agent::start(config.clone()).await.unwrap();
        lines.push(plugin(&agent, "demo/text").reason.unwrap());
        agent.shutdown().await;
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_group_shares_a_process_and_its_fate() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    registry.publish(release("demo/mate", "1.0.0", &[], &route("/mate")));
    registry.publish(release("demo/alone", "1.0.0", &[], &route("/alone")));
    let folder = tempfile::tempdir().unwrap();
    let names = ["demo/bad", "demo/mate", "demo/alone"].map(|name| (name, "^1"));
    let mut config = registry.config(folder.path(), &names);
    config.host.process.share =
        vec![vec!["demo/bad".parse().unwrap(), "demo/mate".parse().unwrap()]];
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    let agent = Agent::start(config).await.unwrap();
    let pid = |name: &str| runs(&agent, name).pid;
    assert_eq!(pid("demo/bad"), pid("demo/mate"));
    assert_ne!(pid("demo/bad"), pid("demo/alone"));
    let alone = pid("demo/alone");
    assert_eq!(get(&agent, "/bad/segfault").await.0, 503);
    for name in ["demo/bad", "demo/mate"] {
        until_again(&agent, name, 1).await;
    }
    assert_eq!(get(&agent, "/mate").await, (200, "demo/mate 1.0.0 says hello".to_owned()));
    assert_eq!((plugin(&agent, "demo/mate").restarts, pid("demo/alone")), (Some(1), alone));
    agent.shutdown().await;
}

/// What a plugin's process holds beside its standard streams: sockets and memory that it shares
/// with its agent, and nothing that the agent itself has open.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_no_descriptor_of_its_agents() {
    let links = |pid: u32| -> Vec<String> {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        // A descriptor may have been closed since.
        let links = open.filter_map(|open| std::fs::read_link(open.unwrap().path()).ok());
        links.map(|link| link.to_str().unwrap().to_owned()).collect()
    };
    let registry = Registry::start().await;
    registry.publish(release("demo/native", "1.0.0", &[], &route("/native")));
    registry.publish(Home::Runner.release("demo/component", &route("/component")));
    let folder = tempfile::tempdir().unwrap();
    // Opened by code that has never heard of other programs.
    let secret = std::fs::File::create(folder.path().join("secret")).unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let (_socket, _other) = {
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        rustix::io::fcntl_setfd(&pair.0, rustix::io::FdFlags::empty()).unwrap();
        pair
    };
    let names = [("demo/native", "^1"), ("demo/component", "^1")];
    let mut config = registry.config(&folder.path().join("state"), &names);
    config.host.load_timeout = LIMIT;
    let agent = Agent::start(config).await.unwrap();
    assert_eq!(get(&agent, "/native").await.0, 200);
    assert_eq!(get(&agent, "/component/now").await.0, 200);
    let own = links(std::process::id());
    assert!(own.iter().any(|link| link.ends_with("/secret")), "{own:?}");
    let plugins = ["demo/native", "demo/component"].map(|name| runs(&agent, name).pid.unwrap());
    for pid in plugins.into_iter().chain(zygotes()) {
        let held = links(pid);
        let foreign = |link: &&String| {
            let is_socket = link.starts_with("socket:");
            // Each end of a pair has a number of its own.
            (is_socket && own.contains(link))
                || !(is_socket
                    || link.starts_with("pipe:")
                    || link.starts_with("/memfd:modunest-")
                    || link.as_str() == "/dev/null")
        };
        let foreign: Vec<_> = held.iter().filter(foreign).collect();
        assert_eq!(foreign, Vec::<&String>::new(), "{pid}: {held:?}");
        // More would be somebody else's.
        let count = |kind: &str| held.iter().filter(|link| link.starts_with(kind)).count();
        assert!(count("pipe:") <= 2, "{held:?}");
    }
    agent.shutdown().await;
}

/// Bytes of which none looks like its neighbour.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Where a body is too large for a socket's message and goes through shared memory, and the most
/// that any may have.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_length_arrive_whole_in_both_directions() {
    const INLINE: usize = 64 * 1024;
    for home in Home::ALL {
        let registry = Registry::start().await;
        registry.publish(home.release("demo/probe", ECHO));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/probe", "^1")]);
        home.settle(&mut config);
        config.host.load_timeout = LIMIT;
        config.host.call_timeout = LIMIT;
        let agent = Agent::start(config).await.unwrap();
        assert_eq!(plugin(&agent, "demo/probe").tier, home.tier());
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, MAX_MESSAGE_BYTES] {
            let body = pattern(length);
            let answer = agent.call_service("demo/probe", "echo", body.clone()).await.unwrap();
            assert!(answer == body, "{home:?}: {length} bytes");
        }
        let much = vec![0; MAX_MESSAGE_BYTES + 1];
        let error = agent.call_service("demo/probe", "echo", much).await.unwrap_err();
        assert_eq!(error.status(), Status::InvalidInput, "{home:?}: {error}");
        let answer = agent.call_service("demo/probe", "echo", b"still".to_vec()).await;
        assert_eq!(answer, Ok(b"still".to_vec()), "{home:?}");
        agent.shutdown().await;
    }
}

/// The same for answers that are larger than what they answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_as_long_as_a_message_may_be_and_no_longer() {
    for in_process in [vec![], vec!["demo/*".parse().unwrap()]] {
        let registry = Registry::start().await;
        let more = "\n[[service]]\nname = \"as-long\"\nversion = \"1.0.0\"\n";
        registry.publish(hostile("demo/long", &[], more));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/long", "^1")]);
        config.host.in_process = in_process;
        let agent = Agent::start(config).await.unwrap();
        let ask = async |length: usize| {
            agent.call_service("demo/long", "as-long", length.to_string()).await
        };
        for length in [64 * 1024, 64 * 1024 + 1, MAX_MESSAGE_BYTES] {
            assert!(ask(length).await.unwrap() == pattern(length), "{length} bytes");
        }
        let error = ask(MAX_MESSAGE_BYTES + 1).await.unwrap_err();
        assert_eq!(error.status(), Status::Failed, "{error}");
        assert!(error.text().contains("16777217 bytes is above the limit"), "{error}");
        assert_eq!(ask(5).await, Ok(pattern(5)));
        assert_eq!(runs(&agent, "demo/long").last_crash, None);
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_are_served_at_once() {
    let registry = Registry::start().await;
    let more = route("/slow");
    registry.publish(release("demo/slow", "1.0.0", &["SLOW_CALL_S=1"], &more));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/slow", "^1")]);
    let agent = Agent::start(config).await.unwrap();
    let started = Instant::now();
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let url = format!("http://{}/slow", agent.gateway_addr());
            tokio::spawn(async move { reqwest::get(url).await.unwrap().status().as_u16() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert!(started.elapsed() < Duration::from_secs(14), "they ran one after the other");
    agent.shutdown().await;
}

/// The agent as a program of its own, so that it can be killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_its_agent() {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], &route("/bad/{action}")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let socket = folder.path().join("admin.sock");
    let key = registry_key().verifying_key();
    let text = format!(
        "state_dir = \"state\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"unix:{}\"\n[[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{ORIGIN}\"\nkeys = [\"{key}\"]\n[plugins]\n\"demo/bad\" = \"^1\"\n",
        socket.display(),
        registry.url,
    );
    std::fs::write(&path, text).unwrap();
    let program = env!("CARGO_BIN_EXE_modunest-agent");
    let mut agent = std::process::Command::new(program)
        .arg("--config")
        .arg(&path)
        .arg("run")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = until_running(program, &path).await;
    // A plugin that would hang on must go as well.
    agent.kill().unwrap();
    agent.wait().unwrap();
    until_dead(pid).await;
}

async fn until_running(program: &str, config: &Path) -> u32 {
    let started = Instant::now();
    loop {
        let shown = std::process::Command::new(program)
            .args(["--json", "plugins", "--config"])
            .arg(config)
            .output()
            .unwrap();
        let plugins: Vec<PluginStatus> = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        let pid = plugins.first().and_then(|plugin| plugin.runs.as_ref()?.pid);
        if let Some(pid) = pid {
            return pid;
        }
        assert!(started.elapsed() < LIMIT, "{}", String::from_utf8_lossy(&shown.stderr));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As many as a large host has.
const MANY: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_processes() {
    let registry = Registry::start().await;
    let first = release("demo/plugin-0", "1.0.0", &[], ECHO);
    for number in 0..MANY {
        registry.publish(crate::registry::Release {
            manifest: first.manifest.replace("plugin-0", &format!("plugin-{number}")),
            files: first.files.clone(),
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..MANY).map(|number| format!("demo/plugin-{number}")).collect();
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    config.host.load_timeout = LIMIT;
    let syncer = Syncer::open(&config).unwrap();
    let progress = indicatif::ProgressBar::hidden();
    let outcome = syncer.sync(&config, Options::default(), &progress).await.unwrap();
    let prepared = prepare(syncer.store(), outcome.proven, Fresh::default());
    let resources = Resources::new(folder.path(), config.host.grants.outbound.clone());
    let plan = Plan::build(prepared, &config.plugins, &config.host, &resources, None);
    let started = Instant::now();
    let host = load_all(plan, &config.host);
    println!("{MANY} processes loaded in {:?}", started.elapsed());
    let ready = host.cells().filter(|cell| cell.status().state == State::Ready).count();
    assert_eq!(ready, MANY);
    let pids: Vec<u32> = host.cells().map(|cell| cell.vitals().unwrap().pid.unwrap()).collect();
    let private: u64 = pids.iter().map(|pid| private_bytes(*pid)).sum();
    println!("{} KiB private a plugin", private / 1024 / MANY as u64);
    host.stop(None, LIMIT);
    for pid in pids {
        until_dead(pid).await;
    }
}

fn private_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib = lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
    kib.sum::<u64>() * 1024
}
