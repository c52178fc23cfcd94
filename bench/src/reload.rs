//! Plugins replaced while calls come in: a real agent, its gateway, and a configuration that
//! changes. Each change loads another instance, which takes over the state of the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::error::Error;
use crate::fleet::{Caller, Fleet};
use crate::folders;
use crate::plain::Tier;
use crate::report::{Report, Row, Target};
use crate::stats;

/// Swaps of each tier.
const SWAPS: usize = 20;
/// Who calls at the same time.
const CALLERS: usize = 4;
/// Between two swaps.
const PAUSE: Duration = Duration::from_millis(200);
/// What one call in a hundred may take, of those that were under way while a plugin was
/// replaced: issue 5.
const P99_BELOW_MS: f64 = 100.0;

/// One call: when it began and ended, and whether it was answered.
type Seen = (Instant, Instant, bool);

/// Measures all tiers.
pub fn run() -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    runtime.block_on(Box::pin(measure()))
}

async fn measure() -> Result<Report, Error> {
    let mut report = Report::begin("reload");
    let scratch = folders::scratch()?;
    let mut fleet = Fleet::start(scratch.path(), Tier::ALL.len()).await?;
    for tier in Tier::ALL {
        let number = fleet.members.iter().position(|member| member.tier == tier);
        let number = number.ok_or_else(|| Error::Wrong {
            what: "a fleet",
            why: format!("nothing runs in the tier {}", tier.word()),
        })?;
        let callers = Callers::start(&fleet.caller(), &fleet.members[number].path);
        let mut swaps = Vec::new();
        for _ in 0..SWAPS {
            tokio::time::sleep(PAUSE).await;
            let begun = Instant::now();
            fleet.reload(number).await?;
            swaps.push((begun, Instant::now()));
        }
        tokio::time::sleep(PAUSE).await;
        let seen = callers.end().await?;
        add_rows(&mut report, tier, &swaps, &seen);
    }
    report.note(format!(
        "{SWAPS} swaps each with {CALLERS} callers over HTTP; a swap is a configuration that is \
         read anew: a sync, a new instance, before-load, snapshot, restore, health check"
    ));
    report.note("during: calls that were under way at any time of a swap; otherwise: the others");
    fleet.stop()?;
    Ok(report)
}

fn add_rows(report: &mut Report, tier: Tier, swaps: &[(Instant, Instant)], seen: &[Seen]) {
    let is_during =
        |(begun, ended, _): &&Seen| swaps.iter().any(|(start, end)| ended >= start && begun <= end);
    let (during, otherwise): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(is_during);
    let millis = |calls: &[&Seen]| -> Vec<f64> {
        calls.iter().map(|(begun, ended, _)| (*ended - *begun).as_secs_f64() * 1e3).collect()
    };
    let failed = seen.iter().filter(|(.., is_answered)| !is_answered).count();
    let what = |what: &str| format!("{}: {what}", tier.word());
    report.row(Row::new(what("calls"), "", seen.len() as f64));
    report.row(Row::new(what("failed calls"), "", failed as f64).target(Target::AtMost(0.0)));
    let (mut during, mut otherwise) = (millis(&during), millis(&otherwise));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
        let row = Row::new(
            what(&format!("call during a swap, {name}")),
            "ms",
            stats::quantile(&mut during, share),
        )
        .against("otherwise", stats::quantile(&mut otherwise, share));
        report.row(if name == "p99" { row.target(Target::Below(P99_BELOW_MS)) } else { row });
    }
    let took = swaps.iter().map(|(start, end)| (*end - *start).as_secs_f64() * 1e3).collect();
    report.row(Row::new(what("a swap, median"), "ms", stats::median(took)));
}

/// Who calls, until they are told to stop.
struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<Vec<Seen>, Error>>>,
}

impl Callers {
    fn start(caller: &Caller, path: &str) -> Callers {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (caller, path, stop) = (caller.clone(), path.to_owned(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let status = caller.call(&path).await?;
                    seen.push((begun, Instant::now(), status.is_success()));
                }
                Ok(seen)
            })
        };
        let tasks = (0..CALLERS).map(one).collect();
        Callers { stop, tasks }
    }

    async fn end(self) -> Result<Vec<Seen>, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.map_err(Error::wrong("a caller"))??);
        }
        Ok(all)
    }
}
