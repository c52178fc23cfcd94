//! What the agent's own process takes of its machine, as the kernel says it.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Processor time since its start, in seconds.
    pub cpu_s: f64,
    /// Memory that is in use, in bytes.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// What this process takes; `None` where `/proc` is not to be had.
pub fn own() -> Option<Usage> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let (resident_bytes, threads) = fields(&status)?;
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    Some(Usage { cpu_s, resident_bytes, descriptors, threads })
}

/// `VmRSS` in bytes and `Threads` of a `/proc/<pid>/status` (proc_pid_status(5)).
fn fields(status: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    // The unit is written out, and is always kB.
    Some((field("VmRSS")? * 1024, field("Threads")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn fields_are_found_by_their_names() {
        let status = "Name:\tVmRSS: 7\nVmHWM:\t  9000 kB\nVmRSS:\t  8000 kB\nThreads:\t9\n";
        assert_eq!(fields(status), Some((8000 * 1024, 9)));
        assert_eq!(fields("Name:\tx\nVmRSS:\t  8000 kB\n"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let usage = own().unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(usage.descriptors >= 3 && usage.threads >= 1 && usage.cpu_s > 0.0, "{usage:?}");
    }
}
