//! A real agent with a hundred plugins in all tiers, under random calls, replacements and
//! kills, for as long as is asked for: what it takes of the machine must be level.
//!
//! What is random follows from a seed. Native plugins in the agent's own process are called and
//! not replaced: their libraries stay mapped by design, so each replacement takes memory for
//! good.

mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use self::sample::Sample;
use crate::error::Error;
use crate::fleet::{self, Caller, Fleet};
use crate::folders;
use crate::plain::Tier;
use crate::report::{Report, Row, Target};

/// Seconds of steady state: issue 5.
pub const SECONDS: u64 = 1200;
/// What chooses, where nothing else is asked for.
pub const SEED: u64 = 20_261_128;
/// Plugins: issue 5.
const PLUGINS: usize = 100;
/// Who calls at the same time.
const CALLERS: u64 = 4;
/// Longest pause between two calls of one caller, in milliseconds.
const CALL_PAUSE_MAX_MS: u64 = 8;
/// Longest pause between two changes, in milliseconds.
const CHANGE_PAUSE_MAX_MS: u64 = 600;
/// How long a killed plugin may refuse calls: its next start, and a breaker that has opened.
const EXCUSED: Duration = Duration::from_secs(5);
/// How often is looked, while all goes on.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How long all is left alone before it is measured at rest: idle threads end after ten seconds.
const REST: Duration = Duration::from_secs(12);
/// How often it is looked again then, a second apart; the look with the fewest threads counts.
const LOOKS_AT_REST: usize = 5;
/// What may be more at the end than at the start, and still counts as level: an allocator does
/// not give back every page.
const LEVEL_RATIO: f64 = 1.05;
/// The same of descriptors. A process keeps two for each call that it ever served beside others,
/// so their number follows the machine's load, up to four calls of each plugin.
const LEVEL_DESCRIPTORS_RATIO: f64 = 1.1;

/// Runs for so many seconds behind a warm-up.
pub fn run(seconds: u64, seed: u64) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    runtime.block_on(Box::pin(measure(seconds, seed)))
}

async fn measure(seconds: u64, seed: u64) -> Result<Report, Error> {
    let mut report = Report::begin("soak");
    let scratch = folders::scratch()?;
    let mut fleet = Fleet::start(scratch.path(), PLUGINS).await?;
    let warm_up = Duration::from_secs((seconds / 4).clamp(10, 120));
    let mut random = Random(seed);
    let mut counts = Counts::default();
    disturb(&mut fleet, warm_up, &mut random, &mut counts).await?;
    let start = at_rest(&fleet).await?;
    let mut counts = Counts::default();
    let time = Duration::from_secs(seconds);
    let samples = disturb(&mut fleet, time, &mut random, &mut counts).await?;
    let end = at_rest(&fleet).await?;
    add_counts(&mut report, &counts);
    sample::add_rows(&mut report, &start, &end, &samples);
    report.note(format!(
        "{seconds} s behind {} s of warm-up, seed {seed}; {PLUGINS} plugins, as many of each tier; \
         at rest: nothing is called, replaced instances are gone, and {} s have passed",
        warm_up.as_secs(),
        REST.as_secs(),
    ));
    report.note(format!(
        "calls that fail within {} s behind a kill of their plugin are excused; native plugins \
         in the agent's process are called and not replaced",
        EXCUSED.as_secs()
    ));
    fleet.stop()?;
    Ok(report)
}

/// What was done.
#[derive(Default)]
struct Counts {
    calls: u64,
    excused: u64,
    failed: Vec<String>,
    reloads: u64,
    kills: u64,
}

fn add_counts(report: &mut Report, counts: &Counts) {
    let row = |what: &str, value: u64| Row::new(what, "", value as f64);
    report.row(row("calls", counts.calls));
    report.row(row("replacements", counts.reloads));
    report.row(row("processes killed", counts.kills));
    report.row(row("calls that failed behind a kill", counts.excused));
    let failed = counts.failed.len() as u64;
    report.row(row("calls that failed without a cause", failed).target(Target::AtMost(0.0)));
    for failed in counts.failed.iter().take(5) {
        report.note(format!("failed without a cause: {failed}"));
    }
}

/// Waits until nothing happens any more, and looks.
async fn at_rest(fleet: &Fleet) -> Result<Sample, Error> {
    fleet.until_quiet().await?;
    tokio::time::sleep(REST).await;
    fleet.until_quiet().await?;
    // Questions after health start threads for a moment, and with them their stacks.
    let mut calmest = Sample::take(fleet.agent.id())?;
    for _ in 0..LOOKS_AT_REST {
        tokio::time::sleep(Duration::from_secs(1)).await;
        calmest = calmest.calmer(Sample::take(fleet.agent.id())?);
    }
    Ok(calmest)
}

/// Calls, replaces and kills for a time; answers what was seen meanwhile.
async fn disturb(
    fleet: &mut Fleet,
    time: Duration,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<Vec<Sample>, Error> {
    let begun = Instant::now();
    let ledger = Arc::new(Ledger::new(fleet));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| ledger.clone().caller(fleet.caller(), Random(random.next())))
        .collect();
    let mut samples = Vec::new();
    let mut sampled = begun;
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(random.below(CHANGE_PAUSE_MAX_MS))).await;
        let number = random.below(fleet.members.len() as u64) as usize;
        let tier = fleet.members[number].tier;
        if tier.has_processes() && random.below(2) == 0 {
            counts.kills += u64::from(kill(fleet, number, &ledger).await?);
        } else if tier != Tier::InProcess {
            fleet.reload(number).await?;
            counts.reloads += 1;
        }
        if sampled.elapsed() >= SAMPLE_EVERY {
            sampled = Instant::now();
            samples.push(Sample::take(fleet.agent.id())?);
        }
    }
    ledger.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let seen = caller.await.map_err(Error::wrong("a caller"))??;
        counts.calls += seen.calls;
        counts.excused += seen.excused;
        counts.failed.extend(seen.failed);
    }
    Ok(samples)
}

/// Kills the process of a plugin; answers whether it had one.
async fn kill(fleet: &Fleet, number: usize, ledger: &Ledger) -> Result<bool, Error> {
    let status = fleet.status().await?;
    let name = fleet.members[number].name.to_string();
    let pid = status.plugins.iter().find(|plugin| plugin.plugin == name).and_then(fleet::pid);
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    // While it is started again, there is none.
    let Some(pid) = pid else { return Ok(false) };
    ledger.note_kill(number);
    // It may have ended since.
    Ok(kill_process(pid, Signal::KILL).is_ok())
}

/// What callers and whoever kills tell one another.
struct Ledger {
    stop: AtomicBool,
    begun: Instant,
    /// By plugin: its path, and milliseconds from the beginning to behind its last kill; zero
    /// for never.
    plugins: Vec<(String, AtomicU64)>,
}

/// What one caller has seen.
#[derive(Default)]
struct Seen {
    calls: u64,
    excused: u64,
    failed: Vec<String>,
}

impl Ledger {
    fn new(fleet: &Fleet) -> Ledger {
        let plugins = fleet.members.iter().map(|one| (one.path.clone(), AtomicU64::new(0)));
        Ledger { stop: AtomicBool::new(false), begun: Instant::now(), plugins: plugins.collect() }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn note_kill(&self, number: usize) {
        self.plugins[number].1.store(self.now_ms() + 1, Ordering::SeqCst);
    }

    fn caller(
        self: Arc<Self>,
        caller: Caller,
        mut random: Random,
    ) -> JoinHandle<Result<Seen, Error>> {
        tokio::spawn(async move {
            let mut seen = Seen::default();
            while !self.stop.load(Ordering::Relaxed) {
                let number = random.below(self.plugins.len() as u64) as usize;
                let (path, killed) = &self.plugins[number];
                let status = caller.call(path).await?;
                seen.calls += 1;
                if !status.is_success() {
                    let killed = killed.load(Ordering::SeqCst);
                    let excused_ms = EXCUSED.as_millis() as u64;
                    if killed > 0 && self.now_ms() <= killed + excused_ms {
                        seen.excused += 1;
                    } else {
                        let at = self.now_ms();
                        seen.failed.push(format!("{path}: {status}, {at} ms from the start"));
                    }
                }
                let pause = Duration::from_millis(random.below(CALL_PAUSE_MAX_MS));
                tokio::time::sleep(pause).await;
            }
            Ok(seen)
        })
    }
}

/// Numbers that follow from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_chooses_the_same() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..100).map(|_| random.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!((0..7).all(|number| draw(1).contains(&number)));
    }
}
