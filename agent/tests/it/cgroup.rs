//! Control groups as a kernel has them, with all that the agent uses of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guest;
use crate::hostile::{act, dies_of, street_beside};
use crate::process::runs;

/// What an operator delegates to the agent.
const DELEGATED: &str = "/sys/fs/cgroup/modunest";
const NAME: &str = "cgroup::a_group_bounds_what_its_plugin_uses";

/// The group that a process is in.
fn group_of(pid: u32) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.trim().strip_prefix("0::/").unwrap();
    Path::new("/sys/fs/cgroup").join(path)
}

fn read(group: &Path, file: &str) -> String {
    std::fs::read_to_string(group.join(file)).unwrap().trim().to_owned()
}

/// A number that the kernel counts for a group.
fn counted(group: &Path, file: &str, what: &str) -> u64 {
    let text = read(group, file);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{what} ")));
    line.unwrap_or_else(|| panic!("no {what} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "what the guest said, where the test fails")]
async fn a_group_bounds_what_its_plugin_uses() {
    if !guest::is_here() {
        let libraries: &[(&str, &[&str])] =
            &[("hostile.c", &[]), ("plugin.c", &["NAME=\"demo/process 1.0.0\""])];
        let (said, passed) = guest::run(NAME, libraries);
        println!("{said}");
        assert!(passed, "the test did not pass in its guest");
        return;
    }
    let root = Path::new("/sys/fs/cgroup");
    std::fs::write(root.join("cgroup.subtree_control"), "+memory +pids +cpu").unwrap();
    // As one leaves it behind that was killed, with the number that this agent has now.
    let left_behind =
        Path::new(DELEGATED).join(format!("modunest.demo.bad-{}-0", std::process::id()));
    std::fs::create_dir_all(&left_behind).unwrap();
    // Components would have to be compiled, which takes minutes here.
    let street = street_beside(&["process"], &[], "", |config| {
        let process = &mut config.host.process;
        process.cgroup = Some(DELEGATED.into());
        process.memory_max_bytes = 128 * 1024 * 1024;
        process.threads_max = 24;
        process.cpu_max_percent = Some(20);
        process.grace = Duration::from_millis(500);
        config.host.call_timeout = Duration::from_secs(10);
    })
    .await;
    let pid = runs(&street.agent, "demo/bad").pid.unwrap();
    let group = group_of(pid);
    assert_eq!(group.parent(), Some(Path::new(DELEGATED)));
    assert_eq!(read(&group, "cgroup.procs"), pid.to_string());
    assert_eq!(read(&group, "memory.max"), (128 * 1024 * 1024).to_string());
    if group.join("memory.swap.max").exists() {
        assert_eq!(read(&group, "memory.swap.max"), "0");
    }
    assert!(runs(&street.agent, "demo/bad").control_group);
    assert_eq!(read(&group, "pids.max"), "24");
    assert_eq!(read(&group, "cpu.max"), "20000 100000");
    // Each plugin has one of its own, and the agent is in none of them.
    let good = group_of(runs(&street.agent, "demo/process").pid.unwrap());
    assert_ne!(good, group);
    assert_eq!(group_of(std::process::id()), root);

    // Threads: the kernel refuses them by the group's number, and counts that.
    assert_eq!(act(&street, "threads", "").await, (200, "bounded".to_owned()));
    assert!(counted(&group, "pids.events", "max") > 0);
    assert_eq!(counted(&good, "pids.events", "max"), 0);

    // Processor time: a call that computes is held back.
    let before = counted(&group, "cpu.stat", "nr_throttled");
    let (started, used) = (Instant::now(), counted(&group, "cpu.stat", "usage_usec"));
    let looping = dies_of(&street, "loop");
    let watched = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let used = Duration::from_micros(counted(&group, "cpu.stat", "usage_usec") - used);
        (used, started.elapsed(), counted(&group, "cpu.stat", "nr_throttled"))
    };
    let (death, (used, took, throttled)) = tokio::join!(looping, watched);
    assert!(death.contains("was still running 500 ms after its deadline"), "{death}");
    assert!(throttled > before, "{throttled}");
    // A fifth of a processor, with one period more for where it began.
    assert!(used <= took / 5 + Duration::from_millis(200), "{used:?} of {took:?}");

    // It was ended, and its successor has another group; the old one is gone.
    let successor = group_of(runs(&street.agent, "demo/bad").pid.unwrap());
    assert_ne!(successor, group);
    assert!(!group.exists());

    // Memory: the kernel ends it at the group's limit, also for what no limit of a process counts.
    // It has the whole processor for that, so that it is there before its time is over.
    std::fs::write(successor.join("cpu.max"), "max").unwrap();
    let before = counted(&good, "memory.events", "oom_kill");
    let death = dies_of(&street, "memory-read-only").await;
    let limit = "its control group needed more memory than memory_max_mib, which is 128";
    assert_eq!(death, format!("was killed by the kernel: {limit}"));
    assert_eq!(counted(&good, "memory.events", "oom_kill"), before);
    assert!(!successor.exists());
    street.end().await;
    let left: Vec<_> = std::fs::read_dir(DELEGATED)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}
