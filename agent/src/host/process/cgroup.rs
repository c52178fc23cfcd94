//! A control group a runner, below a folder that the operator has delegated: memory, processes
//! and processor time are then counted and bounded by the kernel, whatever the runner does.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::child::lock;
use crate::config::ProcessSettings;

/// How long a processor's share is measured, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// How the name of a runner's group begins. The runner's name, the agent's process and a number
/// follow.
const PREFIX: &str = "modunest.";

/// A runner's group.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    memory_max_bytes: u64,
}

impl Group {
    /// Makes a group and puts a process into it.
    ///
    /// The error says what the operator can do.
    pub(super) fn join(
        folder: &Path,
        name: &str,
        pid: u32,
        settings: &ProcessSettings,
    ) -> Result<Group, String> {
        let cannot = |what: &str, error: std::io::Error| {
            format!(
                "cannot be put into a control group: {what}: {error}; delegate {} to the agent's user with the controllers memory, pids and cpu, or leave cgroup out of [host.process]",
                folder.display()
            )
        };
        let controllers = folder.join("cgroup.subtree_control");
        std::fs::write(&controllers, "+memory +pids +cpu")
            .map_err(|error| cannot("cgroup.subtree_control", error))?;
        sweep(folder);
        let own = make(folder, name).map_err(|error| cannot("a group of its own", error))?;
        let group = Group { folder: own, memory_max_bytes: settings.memory_max_bytes };
        let cpu = match settings.cpu_max_percent {
            Some(percent) => format!("{} {PERIOD_US}", u64::from(percent) * PERIOD_US / 100),
            None => format!("max {PERIOD_US}"),
        };
        let memory = settings.memory_max_bytes.to_string();
        let threads = settings.threads_max.to_string();
        // A kernel without swap has no such file.
        let has_swap = group.folder.join("memory.swap.max").exists();
        let set = [
            ("memory.max", memory.as_str()),
            ("pids.max", &threads),
            ("cpu.max", &cpu),
            ("cgroup.procs", &pid.to_string()),
        ]
        .into_iter()
        // What is moved out to swap would not count.
        .chain(has_swap.then_some(("memory.swap.max", "0")))
        .try_for_each(|(file, value)| {
            std::fs::write(group.folder.join(file), value).map_err(|error| cannot(file, error))
        });
        set.inspect_err(|_| group.leave())?;
        Ok(group)
    }

    /// Why the kernel has ended its process; `None` where it has not, or not for the group's limit.
    pub(super) fn ended_for(&self) -> Option<String> {
        let events = std::fs::read_to_string(self.folder.join("memory.events")).ok()?;
        is_over_its_limit(&events).then(|| {
            let mib = self.memory_max_bytes / (1024 * 1024);
            format!("its control group needed more memory than memory_max_mib, which is {mib}")
        })
    }

    /// Removes the group, once its process has ended.
    pub(super) fn leave(&self) {
        if let Err(error) = std::fs::remove_dir(&self.folder) {
            tracing::warn!(group = %self.folder.display(), %error, "a control group is left behind");
        }
    }
}

/// Makes a group's folder. A name that is taken, such as by a process of the same number before, is
/// left alone.
fn make(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = name.replace(['/', '*', ' '], ".");
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = folder.join(format!("{PREFIX}{name}-{}-{number}", std::process::id()));
        match std::fs::create_dir(&own) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| own),
        }
    }
}

/// Removes the groups of agents that were killed, which nobody else removes. Once for each folder,
/// before this agent has any group there.
fn sweep(folder: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    // Held until it is done, so that nobody makes a group meanwhile.
    let mut swept = lock(&SWEPT);
    if !swept.insert(folder.to_owned()) {
        return;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in entries {
        let name = entry.file_name();
        let Some(agent) = name.to_str().and_then(agent_of) else { continue };
        let is_another = agent != std::process::id();
        if is_another && Path::new(&format!("/proc/{agent}")).exists() {
            continue;
        }
        // The kernel removes none that still has a process.
        match std::fs::remove_dir(entry.path()) {
            Ok(()) => {
                tracing::info!(group = %entry.path().display(), "a control group that was left behind is removed");
            }
            Err(error) => {
                tracing::warn!(group = %entry.path().display(), %error, "a control group that was left behind is not removed");
            }
        }
    }
}

/// The process of the agent that made a group of this name; `None` where none did.
fn agent_of(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.rsplitn(3, '-');
    let _number: u64 = parts.next()?.parse().ok()?;
    let agent = parts.next()?.parse().ok()?;
    parts.next().map(|_| agent)
}

/// Whether a process was ended because the group itself was at its limit, by its `memory.events`
/// (cgroup-v2, "Memory Interface Files"): where the whole machine was, only `oom_kill` counts.
fn is_over_its_limit(events: &str) -> bool {
    let count = |what: &str| {
        let line = events.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    count("oom").is_some_and(|n| n > 0) && count("oom_kill").is_some_and(|n| n > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A number that no process has.
    const NOBODY: u32 = u32::MAX;

    #[test]
    fn a_group_that_was_at_its_limit_is_told_from_a_machine_that_was() {
        let events = |oom, killed| {
            format!("low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {killed}\noom_group_kill 0\n")
        };
        assert!(is_over_its_limit(&events(1, 1)));
        assert!(!is_over_its_limit(&events(0, 1)));
        assert!(!is_over_its_limit(&events(1, 0)));
        assert!(!is_over_its_limit(""));
    }

    #[test]
    fn what_killed_agents_left_behind_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let of_init = "modunest.demo.bad-1-0".to_owned();
        let kept = [of_init.as_str(), "agent", "demo.bad-4294967295-0", "modunest.agent.service"];
        let busy = format!("modunest.demo.busy-{own}-2");
        let gone = [format!("modunest.demo.a-b-{own}-0"), format!("modunest.demo.bad-{NOBODY}-7")];
        for name in kept.into_iter().chain(gone.iter().map(String::as_str)).chain([busy.as_str()]) {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        // Stands for a process, with which a folder cannot be removed either.
        std::fs::write(folder.path().join(&busy).join("process"), "").unwrap();
        sweep(folder.path());
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<BTreeSet<_>>()
        };
        let left: BTreeSet<_> =
            kept.into_iter().chain([busy.as_str()]).map(str::to_owned).collect();
        assert_eq!(names(), left);
        // From then on the folder has groups of this agent's own.
        std::fs::create_dir(folder.path().join(&gone[0])).unwrap();
        sweep(folder.path());
        assert!(names().contains(&gone[0]));
    }

    #[test]
    fn a_name_that_is_taken_keeps_nobody_from_a_group() {
        let folder = tempfile::tempdir().unwrap();
        // Whatever number is next.
        let taken = |number| format!("modunest.demo.bad-{}-{number}", std::process::id());
        for number in 0..100 {
            std::fs::create_dir(folder.path().join(taken(number))).unwrap();
        }
        let made = make(folder.path(), "demo/bad").unwrap();
        assert!(made.is_dir());
        assert!((0..100).all(|number| made != folder.path().join(taken(number))));
    }
}
