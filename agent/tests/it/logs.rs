//! What plugins write to the host's log: as much as they may, and nobody waits for whoever reads it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use crate::hostile::DOOR;
use crate::operator::Process;
use crate::plugins::hostile;
use crate::registry::Registry;
use crate::screens::config_file;
use crate::upkeep::wait_for;

/// A registry with `demo/bad`, which writes lines without end once it is told to, and a
/// configuration that runs it in a process of its own.
async fn bad(quota: &str) -> (Registry, tempfile::TempDir, PathBuf) {
    let registry = Registry::start().await;
    registry.publish(hostile("demo/bad", &[], DOOR));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&registry, folder.path(), &[("demo/bad", "^1")]);
    let settings = std::fs::read_to_string(&path).unwrap();
    let settings = settings.replace("in_process = [\"demo/*\"]", "call_timeout_ms = 1000");
    let more = "[host.process]\ngrace_ms = 200\nrestart_pause_ms = 1\n[quota]\n";
    std::fs::write(&path, settings + more + quota).unwrap();
    (registry, folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_above_the_quota_are_dropped_and_counted_and_it_is_said_once() {
    let quota = "log_lines_per_second = 10\nlog_lines_burst = 50\n";
    let (_registry, _folder, path) = bad(quota).await;
    let process = Process::start(&path).await;
    let since = Instant::now();
    assert_eq!(process.ask("/bad/flood").await.0, 200);
    let dropped = async || process.status().await.plugins[0].log_lines_dropped;
    wait_for("lines to be dropped", async || dropped().await > 5_000).await;
    wait_for("this to be said", async || process.log().contains("were dropped")).await;
    let log = process.log();
    let most = 50 + 10 * (since.elapsed().as_secs() as usize + 1);
    let written = log.lines().filter(|line| line.contains("\"message\":\"flood\"")).count();
    assert!((50..=most).contains(&written), "{written} of at most {most}");
    let said = log.lines().find(|line| line.contains("were dropped")).unwrap();
    let said: serde_json::Value = serde_json::from_str(said).unwrap();
    assert_eq!((&said["plugin"], &said["level"]), (&"demo/bad".into(), &"WARN".into()), "{said}");
    assert!(said["dropped"].as_u64().unwrap() > 50, "{said}");
    process.stop();
}

/// What reads the log has stopped, and a plugin fills it. The thread that would wait for it is the
/// one that ends processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let quota = "log_lines_per_second = 1000000\nlog_lines_burst = 1000000\n";
    let (_registry, _folder, path) = bad(quota).await;
    let (reader, writer) = std::io::pipe().unwrap();
    let process = Process::start_to(&path, Stdio::from(writer)).await;
    assert_eq!(process.ask("/bad/flood").await.0, 200);
    let is_full = async || rustix::io::ioctl_fionread(&reader).unwrap() > 60_000;
    wait_for("the pipe to be full", is_full).await;
    assert_eq!(process.ask("/bad/loop").await.0, 504);
    let restarts = async || process.status().await.plugins[0].restarts;
    wait_for("the process to be ended", async || restarts().await == Some(1)).await;
    wait_for("the next to serve", async || process.ask("/bad/ping").await.0 == 200).await;
    process.stop_unlogged();
}
