//! Bounds of a runner that has no control group: the agent looks now and again at what it holds,
//! and ends it where that is too much. What it takes and gives back between two looks is not seen,
//! and a burst is seen late; only a control group is a bound at every moment.

use std::time::Duration;

use super::super::vitals::Held;
use crate::config::ProcessSettings;

/// How often is looked. A look reads one small file of `/proc`.
pub(super) const EVERY: Duration = Duration::from_secs(1);

const MIB: u64 = 1024 * 1024;
/// Memory above the limit that is held against nobody, in bytes. What can be written is bounded by
/// the kernel; beside it are the first thread's stack and what became read-only once it was
/// relocated.
const MEMORY_MORE_BYTES: u64 = 64 * MIB;

/// What a runner may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    threads_max: u64,
    memory_max_bytes: u64,
}

impl Bounds {
    pub(super) fn of(settings: &ProcessSettings) -> Self {
        let ProcessSettings { threads_max, memory_max_bytes, .. } = *settings;
        Bounds { threads_max, memory_max_bytes }
    }

    /// Why a process that holds this is ended; `None` where it is within its bounds. `lanes` is how
    /// many threads it has because the agent wanted them.
    pub(super) fn broken_by(&self, held: Held, lanes: u64) -> Option<String> {
        let Bounds { threads_max, memory_max_bytes } = *self;
        if held.threads > threads_max.saturating_add(lanes) {
            let threads = held.threads;
            return Some(format!(
                "it had {threads} threads, {lanes} of them for calls, and threads_max is {threads_max}"
            ));
        }
        if held.memory_bytes > memory_max_bytes.saturating_add(MEMORY_MORE_BYTES) {
            return Some(format!(
                "it held {} MiB of memory, and memory_max_mib is {}",
                held.memory_bytes / MIB,
                memory_max_bytes / MIB
            ));
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_bounds_is_ended_for_it() {
        let bounds = Bounds { threads_max: 24, memory_max_bytes: 128 * MIB };
        let broken = |threads, mib, lanes| {
            bounds.broken_by(Held { threads, memory_bytes: mib * MIB }, lanes)
        };
        assert_eq!(broken(24, 128, 0), None);
        // Threads that the agent asked for, and memory that nothing bounds, are held against nobody.
        assert_eq!(broken(26, 192, 2), None);
        let reasons = [broken(27, 128, 2), broken(24, 193, 0)].map(Option::unwrap);
        assert_eq!(
            reasons,
            [
                "it had 27 threads, 2 of them for calls, and threads_max is 24",
                "it held 193 MiB of memory, and memory_max_mib is 128"
            ]
        );
    }
}
