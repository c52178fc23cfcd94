//! Starts of the demo: what a stranger waits for.

use std::time::Instant;

use crate::error::Error;
use crate::folders;
use crate::registry::Registry;
use crate::report::{Report, Row, Target};
use crate::stats;

/// Starts on data that are there.
const ROUNDS: usize = 5;
/// What the second start takes at most, in milliseconds: issue 2.
const SECOND_START_MAX_MS: f64 = 1_000.0;
const FLAGS: [&str; 3] = ["--demo", "--gateway-port", "0"];

/// Measures starts from spawning the process to the printed answer of the demo's page.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("demo");
    let scratch = folders::scratch()?;
    let timed = |folder: &str, flags: &[&str]| -> Result<f64, Error> {
        let begun = Instant::now();
        let registry = Registry::start(&scratch.path().join(folder), flags)?;
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        registry.server.stop()?;
        Ok(took_ms)
    };
    let empty = timed("empty", &[])?;
    let empty_again = timed("empty", &[])?;
    let first = timed("demo", &FLAGS)?;
    let mut later = Vec::new();
    for _ in 0..ROUNDS {
        later.push(timed("demo", &FLAGS)?);
    }
    let second = later.first().copied().unwrap_or(0.0);
    let row = |what: &str, value| Row::new(what, "ms", value);
    let target = Target::Below(SECOND_START_MAX_MS);
    report.row(row("second start of the demo, to its answer", second).target(target));
    report.row(row("later starts, median", stats::median(later)).target(target));
    report.row(row("first start of the demo, with building the samples", first));
    report.row(row("of it an empty registry's first start", empty));
    report.row(row("an empty registry's second start", empty_again));
    report.note("building the samples is quick when cargo has built them before");
    Ok(report)
}
