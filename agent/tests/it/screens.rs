//! The commands that show a running agent, run as a user runs them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use modunest_agent::Agent;
use modunest_agent::config::{Config, Listen};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::operator::Process;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::plugin;
use crate::registry::{ORIGIN, Registry, registry_key};

/// A configuration file that wants these plugins, with the admin API where it is by default.
pub fn config_file(registry: &Registry, folder: &Path, wanted: &[(&str, &str)]) -> PathBuf {
    let path = folder.join("agent.toml");
    let plugins: String =
        wanted.iter().map(|(name, version)| format!("\"{name}\" = \"{version}\"\n")).collect();
    let text = format!(
        "state_dir = \"state\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n\
         [[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{ORIGIN}\"\nkeys = [\"{}\"]\n\
         [plugins]\n{plugins}[host]\nin_process = [\"demo/*\"]\nslots = 1\n[[grant]]\nplugins = [\"demo/*\"]\nallow = [\"http:api.example.org\"]\n",
        registry.url,
        registry_key().verifying_key()
    );
    std::fs::write(&path, text).unwrap();
    path
}

async fn started() -> (Registry, tempfile::TempDir, PathBuf, Agent) {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    registry.publish(release("demo/fails", "1.0.0", &["FAIL_CREATE"], ""));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&registry, folder.path(), &[("demo/front", "^1"), ("demo/fails", "^1")]);
    let agent = Agent::start(Config::load(&path).unwrap()).await.unwrap();
    (registry, folder, path, agent)
}

fn agent_command(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modunest-agent"));
    command.arg("--config").arg(config).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_works_and_what_does_not() {
    let (_registry, folder, config, agent) = started().await;
    assert!(
        matches!(agent.admin(), Listen::Unix(path) if *path == folder.path().join("state/admin.sock"))
    );
    let url = format!("http://{}/front", agent.gateway_addr());
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    let shown = text(&agent_command(&config, &["plugins"]));
    let first = shown.lines().nth(1).unwrap();
    assert!(first.starts_with("demo/fails  1.0.0    failed"), "{shown}");
    assert!(text(&agent_command(&config, &["plugins", "front"])).lines().count() == 2);
    assert!(text(&agent_command(&config, &["status"])).contains("2 ready, 1 failed"));
    let once = text(&agent_command(&config, &["top", "--once", "--interval", "0.2"]));
    assert!(once.contains("3 plugins:") && once.contains("demo/front"), "{once}");
    let json = agent_command(
        &config,
        &["top", "--once", "--interval", "0.2", "--json", "--sort", "state", "--filter", "demo/f"],
    );
    let report: serde_json::Value = serde_json::from_str(&text(&json)).unwrap();
    let names: Vec<&str> = report["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["plugin"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["demo/fails", "demo/front"]);
    assert!(report["plugins"][1]["p99_ms"].as_f64().unwrap() > 0.0, "{report}");
    agent.shutdown().await;
    let gone = agent_command(&config, &["top"]);
    assert_eq!(gone.status.code(), Some(4));
    let text = String::from_utf8_lossy(&gone.stderr);
    assert!(text.contains("no agent answers on unix:"), "{text}");
}

/// A process that ends by a signal is an error of its call.
#[tokio::test(flavor = "multi_thread")]
async fn top_counts_crashes_as_errors() {
    let registry = Registry::start().await;
    registry.publish(release("demo/crash", "1.0.0", &["CRASH_CALL"], &route("/crash")));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&registry, folder.path(), &[("demo/crash", "^1")]);
    let more = "[host.process]\nrestart_pause_ms = 1\nrestart_pause_max_ms = 1\n\
                restarts_max = 1000\n[lifecycle.breaker]\nfailures = 1000\n";
    let settings = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, settings.replace("in_process = [\"demo/*\"]\n", "") + more).unwrap();
    let mut config = Config::load(&path).unwrap();
    config.host.process.runner = Some(env!("CARGO_BIN_EXE_modunest-agent").into());
    let agent = Agent::start(config).await.unwrap();
    let looking = tokio::task::spawn_blocking(move || {
        agent_command(&path, &["top", "--once", "--interval", "1", "--json"])
    });
    let url = format!("http://{}/crash", agent.gateway_addr());
    while !looking.is_finished() {
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 503);
    }
    let report: serde_json::Value = serde_json::from_str(&text(&looking.await.unwrap())).unwrap();
    assert!(report["plugins"][0]["errors_s"].as_f64().unwrap() > 0.0, "{report}");
    let seen = plugin(&agent, "demo/crash");
    assert!(seen.outcomes["unavailable"] > 0, "{seen:?}");
    assert_eq!((seen.errors, seen.panics), (seen.outcomes["unavailable"], 0), "{seen:?}");
    agent.shutdown().await;
}

/// A child that ends with its test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
    }
}

/// `script` gives `top` a terminal of its own; what it draws comes back with the characters
/// that steer a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn top_listens_to_keys_in_a_terminal() {
    let (_registry, _folder, config, agent) = started().await;
    let inside = format!(
        "stty cols 150 rows 20; exec {} --config {} top --interval 0.2",
        env!("CARGO_BIN_EXE_modunest-agent"),
        config.display()
    );
    let top = Command::new("script")
        .args(["-qefc", &inside, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` of util-linux is needed for this test");
    let mut top = Ended(top);
    let (mut keys, mut screen) = (top.0.stdin.take().unwrap(), top.0.stdout.take().unwrap());
    let (drawn, draws) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            if drawn.send(String::from_utf8_lossy(&piece[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut seen = String::new();
    let mut until = |wanted: &str| {
        let since = Instant::now();
        while !seen.contains(wanted) {
            assert!(since.elapsed() < Duration::from_secs(60), "no {wanted} in {seen:?}");
            if let Ok(more) = draws.recv_timeout(Duration::from_millis(100)) {
                seen.push_str(&more);
            }
        }
        seen.clear();
    };
    // Only what changes is drawn, so whole words come where there was nothing like them.
    until("demo/front");
    keys.write_all(b"?").unwrap();
    until("─Keys─");
    keys.write_all(b"q").unwrap();
    assert!(top.0.wait().unwrap().success());
    agent.shutdown().await;
}

/// Starts an agent for which, and for all that it starts, the kernel has no Landlock: as below a
/// container engine that does not know these calls.
fn start_without_landlock(config: &Path) -> Process {
    let calls = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let processor = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, absent, processor).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let start = || {
        // It holds for this thread and what is started from it.
        seccompiler::apply_filter(&program).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(Process::start(config))
    };
    std::thread::scope(|scope| scope.spawn(start).join().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_cannot_confine_is_refused_or_told_of() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let settings = std::fs::read_to_string(&config).unwrap();
    let settings = settings.replace("in_process = [\"demo/*\"]\n", "");
    std::fs::write(&config, &settings).unwrap();
    let process = start_without_landlock(&config);
    let page = process.status().await.plugins.remove(0);
    let reason = page.reason.unwrap();
    assert!(page.state == "failed" && reason.contains("missing is Landlock"), "{reason}");
    process.stop();

    std::fs::write(&config, settings + "[host.process]\nunenforced = \"allow\"\n").unwrap();
    let process = start_without_landlock(&config);
    assert_eq!(process.get("/page").await, (200, "demo/page 1.0.0 says hello".to_owned()));
    let page = process.status().await.plugins.remove(0);
    assert!(page.state == "ready" && !page.runs.unwrap().confined);
    let log = process.log();
    let warned = |line: &&str| line.contains("is not confined") && line.contains("Landlock");
    assert_eq!(log.lines().filter(warned).count(), 1, "{log}");
    for (command, shown) in [
        (&["plugins"][..], "process (unconfined)"),
        (&["plugins", "unconfined"], "demo/page"),
        (&["status"], "UNCONFINED 1 of these"),
        (&["top", "--once", "--interval", "0.1"], "process (unconfined)"),
    ] {
        let output = text(&agent_command(&config, command));
        assert!(output.contains(shown), "{command:?}: {output}");
    }
    let socket = folder.path().join("state/admin.sock");
    let client = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let metrics =
        client.get("http://localhost/metrics").send().await.unwrap().text().await.unwrap();
    let labels = "plugin=\"demo/page\",version=\"1.0.0\",tier=\"process\"";
    let line = format!("modunest_plugin_confined{{{labels}}} 0\n");
    assert!(metrics.contains(&line), "{metrics}");
    process.stop();
}
