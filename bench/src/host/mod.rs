//! 500 native plugins: proven, unpacked, loaded and called once by the agent's own functions,
//! against the same steps by bare library calls, and against opening alone.
//!
//! Each measurement is a process of its own, because the dynamic linker remembers. The three
//! take turns. Downloads are left out: archives and statements are read from files.

pub mod bare;
pub mod ours;
pub mod plugins;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::folders;
use crate::process;
use crate::report::{Report, Row, Target};
use crate::stats;

/// Turns of each; the figures are medians over them.
const ROUNDS: usize = 9;
/// What we may take more than the bare steps.
const RATIO_MAX: f64 = 1.5;

/// The steps, in order.
const STEPS: [&str; 5] = ["verify", "unpack", "sync", "load", "call"];

/// Time of one step.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// By the clock on the wall, in milliseconds.
    pub wall_ms: f64,
    /// Of all processors, in milliseconds.
    pub cpu_ms: f64,
}

/// Times of a whole run: as many as [`STEPS`].
pub type Steps = Vec<Step>;

/// Measures the steps of a run.
pub struct Watch {
    steps: Steps,
    begun: Instant,
    cpu: Duration,
}

impl Watch {
    /// Begins the first step.
    pub fn start() -> Watch {
        Watch { steps: Steps::new(), begun: Instant::now(), cpu: process_cpu_time() }
    }

    /// Ends a step and begins the next.
    pub fn step(&mut self) {
        let (now, cpu) = (Instant::now(), process_cpu_time());
        self.steps.push(Step {
            wall_ms: (now - self.begun).as_secs_f64() * 1e3,
            cpu_ms: (cpu - self.cpu).as_secs_f64() * 1e3,
        });
        (self.begun, self.cpu) = (now, cpu);
    }

    /// All steps.
    pub fn end(self) -> Steps {
        self.steps
    }
}

fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processors that work can be spread over.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each item on so many threads, which take the next item when they are done
/// with one; answers in the items' order, or the first error.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            done.push((at, work(item)?));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = worker()?;
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Error>(all)
    })?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, answer)| answer).collect())
}

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("host");
    let plugins = plugins::folder()?;
    let turn = |which: &str, threads: Option<usize>| -> Result<Steps, Error> {
        let work = folders::scratch()?;
        let mut command = process::own(&[which], None)?;
        command.arg(&plugins);
        if which != "host-open" {
            command.arg(work.path());
        }
        command.args(threads.map(|threads| threads.to_string()));
        let steps: Steps = process::ask(command)?;
        Ok(steps)
    };
    let threads = processors();
    let (mut ours, mut bare, mut bare_one, mut open) = (vec![], vec![], vec![], vec![]);
    // The first turn of each only warms the caches of disk and page tables.
    for round in 0..=ROUNDS {
        let turns = [
            turn("host-ours", None)?,
            turn("host-bare", Some(threads))?,
            turn("host-bare", Some(1))?,
            turn("host-open", None)?,
        ];
        if round > 0 {
            for (all, turn) in
                [&mut ours, &mut bare, &mut bare_one, &mut open].into_iter().zip(turns)
            {
                all.push(turn);
            }
        }
    }
    let total = |runs: &[Steps], get: fn(&Step) -> f64, with_sync: bool| {
        let one = |steps: &Steps| {
            let counted = steps.iter().zip(STEPS).filter(|(_, name)| with_sync || *name != "sync");
            counted.map(|(step, _)| get(step)).sum()
        };
        stats::median(runs.iter().map(one).collect())
    };
    let wall: fn(&Step) -> f64 = |step| step.wall_ms;
    let cpu: fn(&Step) -> f64 = |step| step.cpu_ms;
    let target = Target::RatioMax(RATIO_MAX);
    let count = plugins::COUNT;
    let row = |what: &str, ours: f64, name: &str, theirs: f64| {
        Row::new(format!("{count} plugins: {what}"), "ms", ours).against(name, theirs)
    };
    let of_all = |get, sync| total(&ours, get, sync);
    report.row(
        row("CPU", of_all(cpu, false), "bare steps", total(&bare_one, cpu, false)).target(target),
    );
    report.row(
        row("time", of_all(wall, false), "bare steps", total(&bare, wall, false)).target(target),
    );
    report.row(row("time", of_all(wall, false), "bare, 1 thread", total(&bare_one, wall, false)));
    report.row(row(
        "time with the sync",
        of_all(wall, true),
        "bare steps",
        total(&bare, wall, true),
    ));
    report.row(row("time", of_all(wall, false), "bare dlopen", total(&open, wall, true)));
    for (at, name) in STEPS.iter().enumerate() {
        let step = |runs: &[Steps], get: fn(&Step) -> f64| {
            stats::median(runs.iter().filter_map(|steps| steps.get(at)).map(get).collect())
        };
        let what = format!("of it {name}: CPU");
        report.row(row(&what, step(&ours, cpu), "bare steps", step(&bare_one, cpu)));
        let what = format!("of it {name}: time");
        report.row(row(&what, step(&ours, wall), "bare steps", step(&bare, wall)));
    }
    report.note(format!(
        "medians of {ROUNDS} fresh processes each; time: both on {threads} threads, opening on one; \
         the sync is one syncfs in both, and the disk's own time"
    ));
    report.note("bare: fs::read, sha2, verify_strict, zip crate and fs::write, dlopen, call; no gate, no manifest, no sealed copy");
    let size = std::fs::metadata(plugins::library(&plugins, 0)).map(|file| file.len());
    let size = size.map_err(Error::io(Path::new("a library")))?;
    report.note(format!("each library has {size} bytes"));
    Ok(report)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parallel_work_answers_in_order_and_with_the_error() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = in_parallel(&items, 3, |n| Ok(n * 2)).unwrap();
        assert_eq!(doubled, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let failed = in_parallel(&items, 3, |&n| match n {
            57 => Err(Error::Wrong { what: "item", why: n.to_string() }),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().to_string(), "item: 57");
    }
}
