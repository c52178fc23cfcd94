//! Plugins loaded and called once, tier by tier: how long it takes, and what each takes of the
//! machine's memory.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::plugins;
use crate::components;
use crate::error::Error;
use crate::plain::{self, Tier, call};
use crate::process;
use crate::report::{Report, Row, Target};
use crate::{folders, stats};

/// Numbers of plugins.
const COUNTS: [usize; 3] = [10, 100, plugins::COUNT];
/// Turns of each; the figures are medians over them.
const ROUNDS: usize = 3;
/// Seconds in which so many processes are to be there, on two processors.
const PROCESSES_MAX_S: f64 = 3.0;

/// What one process has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Load and first call of all, by the clock on the wall.
    load_ms: f64,
    /// The same, of all processors, with that of plugins' processes.
    load_cpu_ms: f64,
    /// Memory of each plugin that nobody shares, in its process and in the host's.
    private_bytes: f64,
    /// Memory of each plugin, where what is shared is divided among those who share it.
    proportional_bytes: f64,
}

/// Loads so many plugins into a tier and calls each once. `components` is their folder where
/// they are components.
pub fn run(tier: Tier, components: &Path, state: &Path, count: usize) -> Result<Measured, Error> {
    let settings = tier.settings(state)?;
    let mut prepared = Vec::new();
    let mut names = Vec::new();
    let libraries = plugins::folder()?;
    for number in 0..count {
        let (name, path) = if tier.has_components() {
            (components::ours::name(number)?, components::plugins::component(components, number))
        } else {
            (plugins::name(number)?, plugins::library(&libraries, number))
        };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        prepared.push(if tier.has_components() {
            plain::component(&name, "", &bytes, state)?
        } else {
            plain::native(&name, "", &bytes, state)?
        });
        names.push(name);
    }
    let own = std::process::id();
    let (before, cpu) = (process::memory_of_tree(own)?, process::cpu_time_of_tree(own)?);
    let begun = Instant::now();
    let host = plain::load(prepared, &settings, state)?;
    for (number, name) in names.iter().enumerate() {
        let wrong = |why: String| Error::Wrong { what: "a loaded plugin", why };
        let cell = plain::cell(&host, name)?;
        let (service, payload, expected) = if tier.has_components() {
            (components::SERVICE, &b"x"[..], "x".to_owned())
        } else {
            (plugins::SERVICE, &b""[..], number.to_string())
        };
        let answer = cell.call(call(service, payload)).map_err(Error::wrong("a call"))?;
        if *answer != *expected.as_bytes() {
            return Err(wrong(format!("{name} answered {answer:?}")));
        }
    }
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let load_cpu_ms = (process::cpu_time_of_tree(own)? - cpu).as_secs_f64() * 1e3;
    let after = process::memory_of_tree(own)?;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / count as f64;
    let measured = Measured {
        load_ms,
        load_cpu_ms,
        private_bytes: each(after.private_bytes, before.private_bytes),
        proportional_bytes: each(after.proportional_bytes, before.proportional_bytes),
    };
    host.stop(None, std::time::Duration::from_secs(20));
    Ok(measured)
}

/// Measures all tiers with all numbers of plugins.
pub fn report(report: &mut Report) -> Result<(), Error> {
    let folder = components::plugins::folder(components::plugins::PROBE, plugins::COUNT)?;
    for tier in Tier::ALL {
        let state = folders::memory()?;
        for count in COUNTS {
            let mut turns: Vec<Measured> = Vec::new();
            // The first turn only fills the caches.
            for round in 0..=ROUNDS {
                let mut command = process::own(&["host-tier", tier.word()], None)?;
                command.arg(folder.path()).arg(state.path()).arg(count.to_string());
                let measured = process::ask(command)?;
                if round > 0 {
                    turns.push(measured);
                }
            }
            let median = |get: fn(&Measured) -> f64| stats::median(turns.iter().map(get).collect());
            let what = |what: &str| format!("{count} in the tier {}: {what}", tier.word());
            let load = Row::new(what("load, first call"), "s", median(|m| m.load_ms) / 1e3);
            report.row(if tier == Tier::Process && count == plugins::COUNT {
                load.target(Target::AtMost(PROCESSES_MAX_S))
            } else {
                load
            });
            report.row(Row::new(what("of it CPU"), "s", median(|m| m.load_cpu_ms) / 1e3));
            let kib = median(|m| m.private_bytes) / 1024.0;
            report.row(Row::new(what("memory each, private"), "KiB", kib));
            let kib = median(|m| m.proportional_bytes) / 1024.0;
            report.row(Row::new(what("memory each, proportional"), "KiB", kib));
        }
    }
    report.note(format!(
        "tiers: medians of {ROUNDS} fresh hosts each, files in memory, components compiled before; \
         memory is that of the host and all processes below it, without the kernel's own"
    ));
    Ok(())
}
