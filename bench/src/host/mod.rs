//! 500 native plugins: proven, unpacked, loaded and called once by the agent's own functions,
//! against the same steps by bare library calls, and against opening alone.
//!
//! Then [`tiers`]: the same number of plugins in each tier.
//!
//! Each measurement is a process of its own, because the dynamic linker remembers. The three
//! take turns. Downloads are left out: archives and statements are read from files.

pub mod bare;
pub mod ours;
pub mod plugins;
pub mod tiers;

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

/// Time that all processors have spent on this process so far.
pub fn process_cpu_time() -> Duration {
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

/// Turns of one kind, in one place.
#[derive(Default)]
struct Turns(Vec<Steps>);

impl Turns {
    /// Median over the turns of what `get` makes of the steps that are counted.
    fn median(&self, get: fn(&Step) -> f64, counts: impl Fn(&str) -> bool) -> f64 {
        let one = |steps: &Steps| {
            let counted = steps.iter().zip(STEPS).filter(|(_, name)| counts(name));
            counted.map(|(step, _)| get(step)).sum()
        };
        stats::median(self.0.iter().map(one).collect())
    }
}

/// What was measured in one place.
struct Place {
    ours: Turns,
    /// Bare steps on all processors, and on one.
    bare: Turns,
    bare_one: Turns,
    open: Turns,
    /// Copies to memory, sealed and hashed.
    seal: Turns,
}

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("host");
    let plugins = plugins::folder()?;
    let memory = folders::memory()?;
    let disk = folders::scratch()?;
    let in_memory = measure(&plugins, memory.path())?;
    let on_disk = measure(&plugins, disk.path())?;
    let wall: fn(&Step) -> f64 = |step| step.wall_ms;
    let cpu: fn(&Step) -> f64 = |step| step.cpu_ms;
    let target = Target::RatioMax(RATIO_MAX);
    let count = plugins::COUNT;
    for (place, Place { ours, bare, bare_one, open, seal }) in
        [("memory", in_memory), ("disk", on_disk)]
    {
        let row = |what: &str,
                   get,
                   (name, theirs): (&str, &Turns),
                   counts: &dyn Fn(&str) -> bool| {
            Row::new(format!("{count} plugins, {place}: {what}"), "ms", ours.median(get, counts))
                .against(name, theirs.median(get, counts))
        };
        let all = |_: &str| true;
        let but_sync = |name: &str| name != "sync";
        report.row(row("CPU", cpu, ("bare steps", &bare_one), &but_sync).target(target));
        report.row(row("time", wall, ("bare steps", &bare), &but_sync).target(target));
        report.row(row("time", wall, ("bare, one thread", &bare_one), &but_sync));
        if place == "disk" {
            report.row(row("time with the sync", wall, ("bare steps", &bare), &all));
        }
        report.row(row("time", wall, ("bare dlopen", &open), &but_sync));
        let opening = |name: &str| matches!(name, "load" | "call");
        let sealed = seal.median(cpu, opening);
        let apart = format!("{count} plugins, {place}: opened and called, CPU, seals apart");
        report.row(
            Row::new(apart, "ms", ours.median(cpu, opening) - sealed)
                .against("bare dlopen", open.median(cpu, opening))
                .target(target),
        );
        let apart = format!("{count} plugins, {place}: sealed copies that are hashed, CPU");
        report.row(Row::new(apart, "ms", sealed));
        for name in STEPS.into_iter().filter(|name| place == "disk" || *name != "sync") {
            let this = |other: &str| other == name;
            report.row(row(&format!("of it {name}, CPU"), cpu, ("bare steps", &bare_one), &this));
            report.row(row(&format!("of it {name}, time"), wall, ("bare steps", &bare), &this));
        }
    }
    let threads = processors();
    report.note(format!(
        "medians of {ROUNDS} fresh processes each; bare steps: time on {threads} threads (opening \
         on one), CPU on one; the sync is one syncfs in both"
    ));
    report.note(
        "seals apart: what a loader takes besides that copies each library to memory, seals it, \
         hashes it as it lies there and opens nothing; it is measured by bare calls",
    );
    report.note(
        "bare: fs::read, sha2, verify_strict, zip crate, fs::write, dlopen, call; no gate, no \
         manifest, no list of files, no sealed copy that is hashed again before it is opened",
    );
    let size = std::fs::metadata(plugins::library(&plugins, 0)).map(|file| file.len());
    let size = size.map_err(Error::io(Path::new("a library")))?;
    report.note(format!("each library has {size} bytes"));
    tiers::report(&mut report)?;
    Ok(report)
}

fn measure(plugins: &Path, work: &Path) -> Result<Place, Error> {
    let mut number = 0;
    // What was unpacked stays until the end: file systems are slow for minutes after many files
    // were removed, because they do not use their numbers again at once.
    let mut turn = |which: &str, threads: Option<usize>| -> Result<Steps, Error> {
        number += 1;
        let mut command = process::own(&[which], None)?;
        command.arg(plugins);
        if !matches!(which, "host-open" | "host-seal") {
            let folder = work.join(number.to_string());
            std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
            command.arg(folder);
        }
        command.args(threads.map(|threads| threads.to_string()));
        process::ask(command)
    };
    let [mut ours, mut bare, mut bare_one, mut open, mut seal] =
        std::array::from_fn(|_| Turns::default());
    // The first turn of each only warms the caches.
    for round in 0..=ROUNDS {
        let turns = [
            (&mut ours, turn("host-ours", None)?),
            (&mut bare, turn("host-bare", Some(processors()))?),
            (&mut bare_one, turn("host-bare", Some(1))?),
            (&mut open, turn("host-open", None)?),
            (&mut seal, turn("host-seal", None)?),
        ];
        for (all, steps) in turns.into_iter().filter(|_| round > 0) {
            all.0.push(steps);
        }
    }
    Ok(Place { ours, bare, bare_one, open, seal })
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
