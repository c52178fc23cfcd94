//! 500 components: what was compiled before is loaded and called once by the agent's own
//! functions, against bare wasmtime with the same code; the cost of a call; memory a plugin.
//!
//! Each measurement is a process of its own, and ours and theirs take turns. All components are
//! the probe of the agent's tests, each with a number of its own, so that nothing is shared.

pub mod bare;
pub mod ours;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::process_cpu_time;
use crate::report::{Report, Row, Target};
use crate::{folders, process, stats};

/// The component whose source is in `agent/tests/components/probe`.
const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");
/// Components of the largest run.
const COUNT: usize = 500;
/// Numbers of components whose memory is measured.
const COUNTS: [usize; 3] = [10, 100, COUNT];
/// Turns of each; the figures are medians over them.
const ROUNDS: usize = 5;
/// Bytes of the payloads of calls.
const PAYLOADS: [usize; 2] = [64, 64 * 1024];
/// Calls of one measurement, by payload.
const CALLS: [u32; 2] = [20_000, 2_000];
/// What a load with its first call may take more than bare wasmtime.
const LOAD_RATIO_MAX: f64 = 2.0;
/// What a call may take more than bare wasmtime.
const CALL_RATIO_MAX: f64 = 1.5;
/// The service that is called.
const SERVICE: &str = "echo";

/// What one process has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Load and first call of all, by the clock on the wall.
    load_ms: f64,
    /// The same, of all processors.
    load_cpu_ms: f64,
    /// One call, by payload.
    call_ns: Vec<f64>,
    /// Memory that the process took for each component, private to it.
    memory_bytes: f64,
}

/// The components, written once: `N.wasm`, and `N.cwasm` for the peer.
pub fn folder() -> Result<tempfile::TempDir, Error> {
    let folder = folders::memory()?;
    for number in 0..COUNT {
        let path = component(folder.path(), number);
        std::fs::write(&path, numbered(number)).map_err(Error::io(&path))?;
    }
    Ok(folder)
}

/// The probe with a custom section that holds a number.
fn numbered(number: usize) -> Vec<u8> {
    let name = b"number";
    let digits = format!("{number:06}");
    let mut bytes = PROBE.to_vec();
    // A custom section: zero, the length of what follows, the name with its length.
    bytes.extend([0, (1 + name.len() + digits.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(digits.as_bytes());
    bytes
}

fn component(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.wasm"))
}

fn compiled(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.cwasm"))
}

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("components");
    let folder = folder()?;
    let state = folders::memory()?;
    bare::compile(folder.path())?;
    let turn = |which: &str, count: usize| -> Result<Measured, Error> {
        let mut command = process::own(&[which], None)?;
        command.arg(folder.path()).arg(state.path()).arg(count.to_string());
        process::ask(command)
    };
    for count in COUNTS {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        // The first turn of each fills the caches: ours compiles.
        for round in 0..=ROUNDS {
            let pair = (turn("components-ours", count)?, turn("components-bare", count)?);
            if round > 0 {
                ours.push(pair.0);
                bare.push(pair.1);
            }
        }
        let row = |what: String, unit, get: &dyn Fn(&Measured) -> f64| {
            let median = |all: &[Measured]| stats::median(all.iter().map(get).collect());
            Row::new(what, unit, median(&ours)).against("wasmtime", median(&bare))
        };
        let load = Target::RatioMax(LOAD_RATIO_MAX);
        report.row(
            row(format!("{count} components: load, first call"), "ms", &|m| m.load_ms).target(load),
        );
        report.row(row("of it CPU".to_owned(), "ms", &|m| m.load_cpu_ms));
        report.row(row(format!("{count} components: memory each"), "KiB", &|m| {
            m.memory_bytes / 1024.0
        }));
        if count == COUNT {
            for (at, payload) in PAYLOADS.iter().enumerate() {
                let what = format!("call, {payload} B there and back");
                let target = Target::RatioMax(CALL_RATIO_MAX);
                report.row(row(what, "ns", &|m| m.call_ns[at]).target(target));
            }
        }
    }
    report.note(format!("medians of {ROUNDS} fresh processes each"));
    report.note(
        "wasmtime: read, Component::deserialize, instantiate, create, call, on one thread; no \
         proof of the code, no limits, no deadline; ours: load_all, on all processors",
    );
    Ok(report)
}

/// Memory of this process that is its own, in bytes.
fn private_bytes() -> Result<f64, Error> {
    let path = Path::new("/proc/self/smaps_rollup");
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let missing = || Error::Wrong { what: "smaps_rollup", why: "a line is missing".to_owned() };
    let clean = of("Private_Clean:").ok_or_else(missing)?;
    let dirty = of("Private_Dirty:").ok_or_else(missing)?;
    Ok((clean + dirty) * 1024.0)
}

/// Measures a load of `count` components, and then calls of the first.
fn measure<L>(
    count: usize,
    load: impl FnOnce() -> Result<L, Error>,
    mut call: impl FnMut(&mut L, &[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Measured, Error> {
    let before = private_bytes()?;
    let (begun, cpu) = (Instant::now(), process_cpu_time());
    let mut loaded = load()?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let load_cpu_ms = (process_cpu_time() - cpu).as_secs_f64() * 1e3;
    let memory_bytes = (private_bytes()? - before) / count as f64;
    let mut call_ns = Vec::new();
    for (payload, calls) in PAYLOADS.into_iter().zip(CALLS) {
        let payload = vec![b'x'; payload];
        let begun = Instant::now();
        for _ in 0..calls {
            let answer = call(&mut loaded, &payload)?;
            if answer != payload {
                let why = format!("{} bytes", answer.len());
                return Err(Error::Wrong { what: "an echo", why });
            }
        }
        call_ns.push(begun.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(Measured { load_ms, load_cpu_ms, call_ns, memory_bytes })
}
