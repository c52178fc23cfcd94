//! How a plugin does, seen from outside it.

use super::process::Crash;
use super::tier::Tier;

/// What is known of a running plugin beside its calls. What a tier cannot know is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Where it runs.
    pub tier: Tier,
    /// Its process, where it has one of its own or of its group.
    pub pid: Option<u32>,
    /// How often it was started again since it was loaded.
    pub restarts: u64,
    /// Its last end that nobody asked for.
    pub last_crash: Option<Crash>,
    /// The trust group whose process it is in. Memory and processor time are then those of all
    /// plugins of the group.
    pub group: Option<String>,
    /// Memory that it holds, in bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time that it has used, in milliseconds. In the agent's own process, that of its
    /// calls, by a sample of them.
    pub cpu_ms: Option<u64>,
    /// Whether everything that confines it is in force.
    pub confined: bool,
    /// Whether a control group bounds the memory, the threads and the processor time of its process.
    pub control_group: bool,
}

impl Vitals {
    /// Of a plugin in the agent's own process, whose memory is not told from the agent's.
    pub fn in_process() -> Self {
        Vitals {
            tier: Tier::InProcess,
            pid: None,
            restarts: 0,
            last_crash: None,
            group: None,
            resident_bytes: None,
            cpu_ms: None,
            confined: false,
            control_group: false,
        }
    }
}

/// Memory and processor time of a process, as far as the system tells.
pub(super) fn of_process(pid: u32) -> (Option<u64>, Option<u64>) {
    let resident = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok().and_then(|text| {
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    });
    let cpu = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| {
        // The name in parentheses may hold anything; behind it come numbers.
        let mut numbers = text.rsplit_once(") ")?.1.split(' ').skip(11);
        let user: u64 = numbers.next()?.parse().ok()?;
        let system: u64 = numbers.next()?.parse().ok()?;
        Some((user + system) * 1000 / rustix::param::clock_ticks_per_second())
    });
    (resident, cpu)
}

/// What a process holds that is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) threads: u64,
    /// Memory that is no file's, in use or moved out to swap, in bytes.
    pub(super) memory_bytes: u64,
}

/// What a process holds, as far as the system tells; `None` for one that has ended.
pub(super) fn held_by(pid: u32) -> Option<Held> {
    held(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The same, of a `/proc/<pid>/status` (proc_pid_status(5)).
fn held(status: &str) -> Option<Held> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    // The unit is written out, and is always kB. Without swap in the kernel there is none to tell.
    let memory_kib = field("RssAnon")? + field("VmSwap").unwrap_or(0);
    Some(Held { threads: field("Threads")?, memory_bytes: memory_kib * 1024 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_process_holds_is_told() {
        let status = "Name:\tThreads: 7\nRssAnon:\t  8000 kB\nRssShmem:\t  900 kB\nVmSwap:\t  100 kB\nThreads:\t9\n";
        let held = super::Held { threads: 9, memory_bytes: 8100 * 1024 };
        assert_eq!(super::held(status), Some(held));
        assert_eq!(super::held("Name:\tx\nThreads:\t1\n"), None);
        let own = super::held_by(std::process::id());
        assert!(own.is_some_and(|own| own.threads > 0 && own.memory_bytes > 0), "{own:?}");
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let (resident, cpu) = super::of_process(std::process::id());
        assert!(resident.is_some_and(|bytes| bytes > 100_000), "{resident:?}");
        assert!(cpu.is_some());
        assert_eq!(super::of_process(u32::MAX), (None, None));
    }
}
