//! Secrets in the configuration: seen by their plugin, and by nobody else.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::secrets::HostKey;

use crate::homes::Home;
use crate::operator::Process;
use crate::plugins::{release, route};
use crate::process::{kill, plugin, runs, until, until_again};
use crate::registry::Registry;
use crate::screens::config_file;
use crate::upkeep::wait_for;

const SECRET: &str = "correct-horse-battery-staple";

/// Every file below a folder that holds the text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_its_plugin_and_nothing_else() {
    let registry = Registry::start().await;
    let expected = format!("CHECK_CONFIG=\"{{\\\"token\\\":\\\"{SECRET}\\\"}}\"");
    registry.publish(release("demo/knows", "1.0.0", &[&expected], ""));
    registry.publish(release("demo/leaks", "1.0.0", &["LEAK_CONFIG"], ""));
    registry.publish(release("demo/wrong", "1.0.0", &[&expected], ""));
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["demo/knows", "demo/leaks", "demo/wrong"].map(|name| (name, "^1"));
    let mut config = registry.config(folder.path(), &wanted);
    let host = HostKey::create(folder.path()).unwrap().public();
    let seal = |plugin: &str| host.seal(&plugin.parse().unwrap(), SECRET.as_bytes()).unwrap();
    let mut set = |plugin: &str, sealed: String| {
        let wanted = config.plugins.get_mut(&plugin.parse().unwrap()).unwrap();
        wanted.config = serde_json::to_vec(&serde_json::json!({ "token": sealed })).unwrap();
    };
    set("demo/knows", seal("demo/knows"));
    set("demo/leaks", seal("demo/leaks"));
    // Copied from another plugin's table.
    set("demo/wrong", seal("demo/knows"));
    assert!(!format!("{config:?}").contains(SECRET));
    let agent = Agent::start(config.clone()).await.unwrap();
    let status = agent.status();
    let plugin = |name: &str| {
        let found = status.plugins.iter().find(|plugin| plugin.plugin == name).unwrap();
        (found.state.as_str(), found.reason.clone().unwrap_or_default())
    };
    assert_eq!(plugin("demo/knows"), ("ready", String::new()));
    let (state, reason) = plugin("demo/leaks");
    assert_eq!((state, reason.as_str()), ("failed", "its start failed: {\"token\":\"…\"}"));
    let (state, reason) = plugin("demo/wrong");
    assert_eq!(state, "failed");
    assert!(reason.starts_with("a sealed value opens neither on this host nor for"), "{reason}");
    let json = serde_json::to_string(&status).unwrap();
    assert!(!json.contains(SECRET));
    agent.shutdown().await;
    // Compiled into the test's plugins, whose archives and libraries hold it for that reason.
    let found = files_with(folder.path(), SECRET);
    assert!(found.iter().all(|path| path.ends_with(".so") || path.contains("/blob")), "{found:?}");
}

/// Bytes of memory that are read at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

/// How often a text is in the memory that a process may write.
fn times_in_memory(pid: u32, text: &str) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut times = 0;
    let mut piece = vec![0; PIECE_BYTES];
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [mut at, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut found = Vec::new();
        while at < end {
            let length = usize::try_from(end - at).unwrap().min(PIECE_BYTES);
            // It may have been given back since.
            let Ok(read @ 1..) = memory.read_at(&mut piece[..length], at) else { break };
            found.extend(places(&piece[..read], text).into_iter().map(|place| at + place as u64));
            // What a piece cuts through is in the next one as a whole.
            let step =
                if read < length || at + read as u64 == end { read } else { read - PAGE_BYTES };
            at += step as u64;
        }
        found.sort_unstable();
        found.dedup();
        times += found.len();
    }
    times
}

/// Where a text begins in what was read. Most of memory is empty, and looked through by pages.
fn places(piece: &[u8], text: &str) -> Vec<usize> {
    const EMPTY: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let mut places = Vec::new();
    for (page, bytes) in piece.chunks(PAGE_BYTES).enumerate() {
        if *bytes == EMPTY[..bytes.len()] {
            continue;
        }
        let start = page * PAGE_BYTES;
        // It may go on in the next page.
        let end = (start + bytes.len() + text.len() - 1).min(piece.len());
        let windows = piece[start..end].windows(text.len()).enumerate();
        let found = windows.filter(|(_, window)| *window == text.as_bytes());
        places.extend(found.map(|(at, _)| start + at));
    }
    places
}

/// Of plugins behind a wall, the agent's process has no copy of a secret once it has handed it
/// over, after the first load and after another one.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_memory_has_no_secret_of_a_plugin_in_a_process_of_its_own() {
    let registry = Registry::start().await;
    let names = ["demo/native", "demo/component"];
    registry.publish(Home::Native.release(names[0], &route("/native/{action}")));
    registry.publish(Home::Runner.release(names[1], &route("/component/{action}")));
    let folder = tempfile::tempdir().unwrap();
    // Made here, so that no program and no file holds it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let secret = format!("of-{}-at-{}-nobody-else", std::process::id(), now.as_nanos());
    let config = config_file(&registry, folder.path(), &names.map(|name| (name, "^1")));
    let host = HostKey::create(&folder.path().join("state")).unwrap().public();
    let mut text = std::fs::read_to_string(&config).unwrap();
    text = text.replace("in_process = [\"demo/*\"]\n", "load_timeout_ms = 60000\n");
    for name in names {
        let sealed = host.seal(&name.parse().unwrap(), secret.as_bytes()).unwrap();
        let with = format!("{{ version = \"^1\", config = {{ token = \"{sealed}\" }} }}");
        text = text.replace(&format!("\"{name}\" = \"^1\""), &format!("\"{name}\" = {with}"));
    }
    std::fs::write(&config, text).unwrap();
    let process = Process::start(&config).await;
    let seen = async |name: &str| {
        let plugins = process.status().await.plugins;
        plugins.into_iter().find(|plugin| plugin.plugin == name).unwrap()
    };
    for restarts in 0..2 {
        for name in names {
            wait_for("the plugin", async || {
                let seen = seen(name).await;
                seen.state == "ready" && seen.restarts == Some(restarts)
            })
            .await;
            // The plugin got it, and what looks for it finds it there.
            let pid = seen(name).await.runs.unwrap().pid.unwrap();
            assert!(times_in_memory(pid, &secret) > 0, "{name}");
        }
        assert_eq!(times_in_memory(process.pid(), &secret), 0, "after {restarts} restarts");
        if restarts == 0 {
            for name in names {
                kill(seen(name).await.runs.unwrap().pid.unwrap());
            }
        }
    }
    for path in ["/native/config", "/component/config"] {
        assert_eq!(process.get(path).await, (200, format!("{{\"token\":\"{secret}\"}}")));
    }
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_opened_anew_for_each_start_of_a_process() {
    let registry = Registry::start().await;
    registry.publish(Home::Native.release("demo/probe", &route("/probe/{action}")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/probe", "^1")]);
    config.host.process.restarts.first_pause = Duration::from_millis(10);
    config.host.process.restarts.restarts_max = 2;
    let name = "demo/probe".parse().unwrap();
    let host = HostKey::create(folder.path()).unwrap().public();
    let sealed = host.seal(&name, SECRET.as_bytes()).unwrap();
    config.plugins.get_mut(&name).unwrap().config =
        serde_json::to_vec(&serde_json::json!({ "token": sealed })).unwrap();
    let agent = Agent::start(config).await.unwrap();
    kill(runs(&agent, "demo/probe").pid.unwrap());
    until_again(&agent, "demo/probe", 1).await;
    let answer = crate::process::get(&agent, "/probe/config").await;
    assert_eq!(answer, (200, format!("{{\"token\":\"{SECRET}\"}}")));
    // Without its key, the host cannot give it the secret.
    std::fs::remove_file(folder.path().join("secret.key")).unwrap();
    kill(runs(&agent, "demo/probe").pid.unwrap());
    until(&agent, "demo/probe", "failed").await;
    let reason = plugin(&agent, "demo/probe").reason.unwrap();
    assert!(
        reason.contains("did not start again: demo/probe: this host has no key for secrets"),
        "{reason}"
    );
    let status = serde_json::to_string(&agent.status()).unwrap();
    assert!(!status.contains(SECRET), "{status}");
    agent.shutdown().await;
}

/// Runs the agent's own program.
fn agent(config: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_modunest-agent"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_at_the_command_line() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let key = crate::registry::registry_key().verifying_key();
    let head = format!(
        "state_dir = \"state\"\n[[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{}\"\nkeys = [\"{key}\"]\n",
        registry.url,
        crate::registry::ORIGIN
    );
    std::fs::write(&path, &head).unwrap();
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let seal = ["secret", "seal", "--plugin", "demo/knows"];
    let without = agent(&path, &seal, SECRET);
    assert!(!without.status.success());
    let error = String::from_utf8(without.stderr).unwrap();
    assert!(error.contains("make one with `modunest-agent secret init`"), "{error}");
    let made = agent(&path, &["secret", "init"], "");
    assert!(made.status.success());
    assert_eq!(text(&made), text(&agent(&path, &["secret", "public"], "")));
    assert!(!agent(&path, &["secret", "init"], "").status.success());
    let sealed = text(&agent(&path, &seal, &format!("{SECRET}\n")));
    let sealed = sealed.trim();
    assert!(sealed.starts_with("sealed:v1:") && !sealed.contains(SECRET), "{sealed}");
    let elsewhere =
        text(&agent(&path, &[&seal[..], &["--host", text(&made).trim()]].concat(), "x"));
    assert!(elsewhere.starts_with("sealed:v1:"), "{elsewhere}");
    // The configuration takes it, and finds one that was cut.
    let table = |value: &str| {
        format!(
            "{head}[plugins]\n\"demo/knows\" = {{ version = \"^1\", config = {{ token = \"{value}\" }} }}\n"
        )
    };
    std::fs::write(&path, table(sealed)).unwrap();
    assert!(agent(&path, &["config", "check"], "").status.success());
    std::fs::write(&path, table(&sealed[..40])).unwrap();
    let refused = agent(&path, &["config", "check"], "");
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        error.contains("agent.toml:8:54: plugins: a sealed value is cut or altered"),
        "{error}"
    );
}
