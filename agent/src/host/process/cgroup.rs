//! A control group a runner, below a folder that the operator has delegated: memory, processes
//! and processor time are then counted and bounded by the kernel, whatever the runner does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::ProcessSettings;

/// How long a processor's share is measured, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// A runner's group.
#[derive(Debug)]
pub(super) struct Group(PathBuf);

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
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = name.replace(['/', '*', ' '], ".");
        let group = Group(folder.join(format!("{name}-{}-{number}", std::process::id())));
        let cannot = |what: &str, error: std::io::Error| {
            format!(
                "cannot be put into a control group: {what}: {error}; delegate {} to the agent's user with the controllers memory, pids and cpu, or leave cgroup out of [host.process]",
                folder.display()
            )
        };
        let controllers = folder.join("cgroup.subtree_control");
        std::fs::write(&controllers, "+memory +pids +cpu")
            .map_err(|error| cannot("cgroup.subtree_control", error))?;
        std::fs::create_dir(&group.0).map_err(|error| cannot("a group of its own", error))?;
        let cpu = match settings.cpu_max_percent {
            Some(percent) => format!("{} {PERIOD_US}", u64::from(percent) * PERIOD_US / 100),
            None => format!("max {PERIOD_US}"),
        };
        let memory = settings.memory_max_bytes.to_string();
        let threads = settings.threads_max.to_string();
        let set = [
            ("memory.max", memory.as_str()),
            ("pids.max", &threads),
            ("cpu.max", &cpu),
            ("cgroup.procs", &pid.to_string()),
        ]
        .into_iter()
        .try_for_each(|(file, value)| {
            std::fs::write(group.0.join(file), value).map_err(|error| cannot(file, error))
        });
        set.inspect_err(|_| group.leave())?;
        Ok(group)
    }

    /// Removes the group, once its process has ended.
    pub(super) fn leave(&self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            tracing::warn!(group = %self.0.display(), %error, "a control group is left behind");
        }
    }
}
