//! Secrets in the configuration: seen by their plugin, and by nobody else.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use modunest_agent::Agent;
use modunest_agent::secrets::HostKey;

use crate::plugins::release;
use crate::registry::Registry;

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
