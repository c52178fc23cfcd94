//! Our side: calls of a loaded plugin, as the host makes them for whoever asks.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use modunest_agent::host::{Cell, Host};
use modunest_core::name::PluginName;
use modunest_sdk::abi::OwnedBuffer;
use serde::{Deserialize, Serialize};

use super::bare::{self, Pointers};
use super::{CALLS, Measured, PAYLOADS, Payload, echo_library};
use crate::error::Error;
use crate::plain::{self, Tier, call};
use crate::{folders, stats};

/// The plugin that echoes, and the one that calls it.
const ECHO: &str = "bench/echo";
const ASKS: &str = "bench/asks";
/// Calls from one plugin to another that one measurement makes.
const BETWEEN: [u32; 2] = [200_000, 20_000];
/// Parts of a measurement within the process: what is compared takes turns, so that a processor
/// that is slower for a while is so for all. Long parts do not do: one that copies 64 KiB, measured
/// against itself in parts of a third of a millisecond, differs by 20 ns a call.
const PARTS: [usize; 2] = [1_000, 2_000];
/// Calls of one part, by payload.
const CALLS_OF_PART: [u32; 2] = [500, 20];
/// Calls before each part, which bring back what those of others drove from the nearest caches.
const CALLS_BEFORE: u32 = 2;

/// What one process has measured of calls within it, by payload, in nanoseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Within {
    /// By the host.
    pub ours: Vec<f64>,
    /// By the pointer in the plugin's table.
    pub table: Vec<f64>,
    /// The plugin's work alone.
    pub work: Vec<f64>,
    /// The same, with the answer copied.
    pub copied: Vec<f64>,
    /// What the host's take longer than those by the pointer, in the same turn.
    pub above: Vec<f64>,
    /// One call by a plugin of another.
    pub between: Vec<f64>,
}

/// Measures calls within the process. For `shift` see [`Payload`].
pub fn within(work: &Path, shift: usize) -> Result<Within, Error> {
    let host = load(Tier::InProcess, work)?;
    let (echo, asks) = (plain::cell(&host, &name(ECHO)?)?, plain::cell(&host, &name(ASKS)?)?);
    let pointers = Pointers::open(work)?;
    let mut within = Within::default();
    for (at, size) in PAYLOADS.into_iter().enumerate() {
        let payload = Payload::new(size, shift);
        // Once: whoever calls has it at hand.
        let (echo, payload): (&Cell, &[u8]) = (echo, &payload);
        let request = bare::request(payload);
        let mut parts: [Vec<f64>; 4] = Default::default();
        for turn in 0..=PARTS[at] {
            for next in 0..parts.len() {
                // Each comes behind each other one.
                let next = (next + turn) % parts.len();
                let calls = CALLS_OF_PART[at];
                parts[next].push(match next {
                    0 => time(calls, size, || {
                        let mut answer = OwnedBuffer::EMPTY;
                        let called = echo.call_into(&call("echo", payload), &mut answer);
                        called.map(|()| answer.len()).map_err(Error::wrong("a call"))
                    }),
                    1 => time(calls, size, || pointers.table(&request)),
                    2 => time(calls, size, || pointers.work(payload)),
                    _ => time(calls, size, || pointers.copied(payload)),
                }?);
            }
        }
        // The first turn fills caches.
        let above = parts[0].iter().zip(&parts[1]).skip(1).map(|(ours, table)| ours - table);
        within.above.push(stats::median(above.collect()));
        let [ours, table, work, copied] = parts.map(|part| stats::median(part[1..].to_vec()));
        within.ours.push(ours);
        within.table.push(table);
        within.work.push(work);
        within.copied.push(copied);
        within.between.push(ask(asks, BETWEEN[at], size)?);
    }
    Ok(within)
}

/// Nanoseconds that one of so many calls takes, which answers as many bytes as it was given.
#[inline(always)]
fn time(
    calls: u32,
    size: usize,
    mut make: impl FnMut() -> Result<usize, Error>,
) -> Result<f64, Error> {
    let mut begun = Instant::now();
    for before in (0..calls + CALLS_BEFORE).rev() {
        let length = make()?;
        if length != size {
            let why = format!("{length} bytes");
            return Err(Error::Wrong { what: "an echo", why });
        }
        if before == calls {
            begun = Instant::now();
        }
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(calls))
}

/// Measures the calls of a tier whose plugins have processes. With `far`, they are put on that
/// processor.
pub fn run(tier: Tier, work: &Path, far: Option<usize>) -> Result<Measured, Error> {
    let host = load(tier, work)?;
    let (echo, asks) = (plain::cell(&host, &name(ECHO)?)?, plain::cell(&host, &name(ASKS)?)?);
    if let Some(far) = far {
        for pid in [echo, asks].map(|cell| cell.vitals().and_then(|seen| seen.pid)) {
            let pid = pid.ok_or_else(|| Error::Wrong {
                what: "a plugin's process",
                why: format!("there is none in the tier {}", tier.word()),
            })?;
            put_on(pid, far)?;
        }
    }
    let mut measured = Measured::default();
    for ((size, calls), between) in PAYLOADS.into_iter().zip(CALLS).zip(BETWEEN) {
        let payload = vec![b'x'; size];
        let mut make = || {
            let answer = echo.call(call("echo", &payload)).map_err(Error::wrong("a call"))?;
            Ok(answer.len())
        };
        // The first calls make lanes and fill caches.
        time(calls / 20, size, &mut make)?;
        measured.call_ns.push(time(calls, size, make)?);
        measured.between_ns.push(ask(asks, between / 20, size)?);
    }
    Ok(measured)
}

fn name(name: &str) -> Result<PluginName, Error> {
    name.parse().map_err(Error::wrong("a plugin's name"))
}

/// Both plugins, in a tier.
fn load(tier: Tier, work: &Path) -> Result<Host, Error> {
    let services = |name: &str| format!("\n[[service]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    let uses = format!(
        "\n[dependencies]\n\"{ECHO}\" = \"^1\"\n\n[[import]]\nplugin = \"{ECHO}\"\nservice = \"echo\"\n{}",
        services("ask")
    );
    let library = echo_library(work)?;
    let library = std::fs::read(&library).map_err(Error::io(&library))?;
    let prepared = vec![
        plain::native(&name(ECHO)?, &services("echo"), &library, work)?,
        plain::native(&name(ASKS)?, &uses, &library, work)?,
    ];
    plain::load(prepared, &tier.settings(work)?, work)
}

/// Nanoseconds of one of so many calls that a plugin makes of another.
fn ask(asks: &Cell, calls: u32, size: usize) -> Result<f64, Error> {
    let numbers = [calls, u32::try_from(size).unwrap_or(u32::MAX)];
    let mut payload: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    payload.extend_from_slice(ECHO.as_bytes());
    let answer = asks.call(call("ask", &payload)).map_err(Error::wrong("a call"))?;
    String::from_utf8_lossy(&answer).parse().map_err(Error::wrong("a measurement"))
}

/// Puts all threads of a process on a processor.
fn put_on(pid: u32, processor: usize) -> Result<(), Error> {
    let taskset = folders::program("taskset", "install Debian's util-linux")?;
    let mut command = Command::new(taskset);
    command.args(["--all-tasks", "--cpu-list", "--pid"]);
    command.args([processor.to_string(), pid.to_string()]);
    let output = command.output();
    let output = output.map_err(|source| Error::Io { what: "taskset".to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!(": {}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed { program: "taskset".to_owned(), status: output.status, said })
}
