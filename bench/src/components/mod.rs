//! 500 components: what was compiled before is loaded and called once by the agent's own
//! functions, against bare wasmtime with the same code, and against another plugin host; the
//! cost of a call; memory a plugin.
//!
//! Each measurement is a process of its own, and ours and theirs take turns. All run the same echo,
//! each copy with a number of its own, so that nothing is shared; and then ours and bare wasmtime a
//! larger component, the probe of the agent's tests.

pub mod bare;
pub mod extism;
pub mod ours;
pub mod plugins;
pub mod turns;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use self::plugins::PROBE;
use self::turns::{Peer, Turns};
use crate::error::Error;
use crate::host::process_cpu_time;
use crate::report::Report;
use crate::{folders, process};

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
const CALL_RATIO_MAX: f64 = 1.5;
/// What a load and a call may take of what another plugin host takes.
const PEER_LOAD_RATIO_MAX: f64 = 0.2;
const PEER_CALL_RATIO_MAX: f64 = 0.1;
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

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("components");
    let echo = plugins::echo()?;
    let theirs = extism::echo()?;
    let library = extism::library()?;
    let runs = [("echo", echo.as_slice(), &COUNTS[..]), ("probe", PROBE, &[COUNT])];
    for (plugin, bytes, counts) in runs {
        let folder = plugins::folder(bytes, COUNT)?;
        let state = folders::memory()?;
        bare::compile(folder.path(), COUNT)?;
        for &count in counts {
            let turns = Turns::take(folder.path(), state.path(), &library, count, None)?;
            for peer in Peer::ALL {
                let row = |what: &str, unit, get: &dyn Fn(&Measured) -> f64| {
                    let what = format!("{count} of the {plugin}: {what}");
                    turns.row(what, unit, peer, get)
                };
                // The other host runs an echo, and is to be beaten where there are many.
                let is_alike = peer == Peer::Wasmtime || plugin == "echo";
                let is_judged = is_alike && (peer == Peer::Wasmtime || count == COUNT);
                let load = row("load, first call", "ms", &|m| m.load_ms);
                report.row(if is_judged { load.target(peer.load_target()) } else { load });
                report.row(row("of it CPU", "ms", &|m| m.load_cpu_ms));
                report.row(row("memory each", "KiB", &|m| m.memory_bytes / 1024.0));
                if count != COUNT {
                    continue;
                }
                for (at, payload) in PAYLOADS.iter().enumerate() {
                    let what = format!("call, {payload} B there and back");
                    let call = row(&what, "ns", &|m| m.call_ns[at]);
                    report.row(if is_alike { call.target(peer.call_target()) } else { call });
                }
            }
        }
    }
    report.note(format!("medians of {ROUNDS} fresh processes each"));
    report.note(format!(
        "echo: {} B made with our kit, {} B with extism's; probe: {} B, beside extism's echo",
        echo.len(),
        theirs.len(),
        PROBE.len(),
    ));
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
