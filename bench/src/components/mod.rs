//! 500 components: what was compiled before is loaded and called once by the agent's own
//! functions, against bare wasmtime with the same code, and against another plugin host; the
//! cost of a call; memory a plugin.
//!
//! Each measurement is a process of its own, and ours and theirs take turns. All components are
//! the probe of the agent's tests, each with a number of its own, so that nothing is shared.

pub mod bare;
pub mod extism;
pub mod ours;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::process_cpu_time;
use crate::report::{Report, Row, Target};
use crate::{folders, process, stats};

/// The component whose source is in `agent/tests/components/probe`.
pub const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");
/// Components of the largest run.
pub const COUNT: usize = 500;
/// Numbers of components whose memory is measured.
const COUNTS: [usize; 3] = [10, 100, COUNT];
/// Turns of each; the figures are medians over them. Processors change their speed for seconds, which
/// a few turns in a row do not show.
const ROUNDS: usize = 9;
/// Bytes of the payloads of calls.
const PAYLOADS: [usize; 2] = [64, 64 * 1024];
/// Calls of one measurement, by payload.
const CALLS: [u32; 2] = [20_000, 2_000];
/// What a load with its first call may take more than bare wasmtime.
const LOAD_RATIO_MAX: f64 = 2.0;
/// What a call may take more than bare wasmtime.
pub const CALL_RATIO_MAX: f64 = 1.5;
/// What a load and a call may take of what another plugin host takes.
const PEER_LOAD_RATIO_MAX: f64 = 0.2;
pub const PEER_CALL_RATIO_MAX: f64 = 0.1;
/// The service that is called.
pub const SERVICE: &str = "echo";

/// What one process has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Load and first call of all, by the clock on the wall.
    pub load_ms: f64,
    /// The same, of all processors.
    pub load_cpu_ms: f64,
    /// One call, by payload.
    pub call_ns: Vec<f64>,
    /// Memory that the process took for each component, private to it.
    pub memory_bytes: f64,
}

/// So many components: `N.wasm`, and `N.cwasm` once [`bare::compile`] has made it.
pub fn folder(count: usize) -> Result<tempfile::TempDir, Error> {
    let folder = folders::memory()?;
    for number in 0..count {
        let path = component(folder.path(), number);
        std::fs::write(&path, numbered(PROBE, number)).map_err(Error::io(&path))?;
    }
    Ok(folder)
}

/// A component or module with a custom section that holds a number.
fn numbered(bytes: &[u8], number: usize) -> Vec<u8> {
    let name = b"number";
    let digits = format!("{number:06}");
    let mut bytes = bytes.to_vec();
    // A custom section: zero, the length of what follows, the name with its length.
    bytes.extend([0, (1 + name.len() + digits.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(digits.as_bytes());
    bytes
}

/// Where a component is.
pub fn component(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.wasm"))
}

fn compiled(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.cwasm"))
}

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("components");
    let folder = folder(COUNT)?;
    let state = folders::memory()?;
    bare::compile(folder.path(), COUNT)?;
    let peer = extism::library()?;
    extism::echo()?;
    let turn = |which: &str, count: usize| -> Result<Measured, Error> {
        let mut command = process::own(&[which], None)?;
        command.arg(folder.path()).arg(state.path()).arg(count.to_string());
        if which == extism::CHILD {
            command.arg("--library").arg(&peer);
        }
        process::ask(command)
    };
    for count in COUNTS {
        let (mut ours, mut bare, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        // The first turn of each fills the caches: ours and the other host's compile.
        for round in 0..=ROUNDS {
            let turns = [
                turn("components-ours", count)?,
                turn("components-bare", count)?,
                turn(extism::CHILD, count)?,
            ];
            if round > 0 {
                let [one, two, three] = turns;
                ours.push(one);
                bare.push(two);
                theirs.push(three);
            }
        }
        let median = |all: &[Measured], get: &dyn Fn(&Measured) -> f64| {
            stats::median(all.iter().map(get).collect())
        };
        let row = |what: String, unit, peer: &str, get: &dyn Fn(&Measured) -> f64| {
            let theirs = if peer == "wasmtime" { &bare } else { &theirs };
            Row::new(what, unit, median(&ours, get)).against(peer, median(theirs, get))
        };
        let limits = [("wasmtime", LOAD_RATIO_MAX, CALL_RATIO_MAX)];
        let limits =
            limits.into_iter().chain([("extism", PEER_LOAD_RATIO_MAX, PEER_CALL_RATIO_MAX)]);
        for (peer, load_max, call_max) in limits {
            let what = format!("{count} components: load, first call");
            let load = row(what, "ms", peer, &|m| m.load_ms);
            // The other host is to be beaten where there are many.
            let is_judged = peer == "wasmtime" || count == COUNT;
            let target = Target::RatioMax(load_max);
            report.row(if is_judged { load.target(target) } else { load });
            report.row(row("of it CPU".to_owned(), "ms", peer, &|m| m.load_cpu_ms));
            report.row(row(format!("{count} components: memory each"), "KiB", peer, &|m| {
                m.memory_bytes / 1024.0
            }));
            if count == COUNT {
                for (at, payload) in PAYLOADS.iter().enumerate() {
                    let what = format!("call, {payload} B there and back");
                    let call = row(what, "ns", peer, &|m| m.call_ns[at]);
                    report.row(call.target(Target::RatioMax(call_max)));
                }
            }
        }
    }
    report.note(format!("medians of {ROUNDS} fresh processes each"));
    report.note(
        "wasmtime: read, Component::deserialize, instantiate, create, call, on one thread; no \
         proof of the code, no limits, no deadline; ours: load_all, on all processors",
    );
    report.note(extism::NOTE);
    Ok(report)
}

/// Measures a load of `count` components, and then calls of the first.
fn measure<L>(
    count: usize,
    load: impl FnOnce() -> Result<L, Error>,
    mut call: impl FnMut(&mut L, &[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Measured, Error> {
    let private = || process::memory(std::process::id()).map(|memory| memory.private_bytes as f64);
    let before = private()?;
    let (begun, cpu) = (Instant::now(), process_cpu_time());
    let mut loaded = load()?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let load_cpu_ms = (process_cpu_time() - cpu).as_secs_f64() * 1e3;
    let memory_bytes = (private()? - before) / count as f64;
    let mut call_ns = Vec::new();
    for (payload, calls) in PAYLOADS.into_iter().zip(CALLS) {
        let payload = vec![b'x'; payload];
        let mut call_all = |calls| {
            for _ in 0..calls {
                let answer = call(&mut loaded, &payload)?;
                if answer != payload {
                    let why = format!("{} bytes", answer.len());
                    return Err(Error::Wrong { what: "an echo", why });
                }
            }
            Ok(())
        };
        // The load has left the processor's caches full of other things.
        call_all(calls / 10)?;
        let begun = Instant::now();
        call_all(calls)?;
        call_ns.push(begun.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(Measured { load_ms, load_cpu_ms, call_ns, memory_bytes })
}
