//! What a call costs, tier by tier, against what is below it: the plugin's function by its
//! pointer, a bare socket between two processes, bare wasmtime, and another plugin host.
//!
//! Each measurement is a process of its own, and all take turns. Both ends of a socket are on
//! the same processors as ours: once on one, once on two.

pub mod bare;
pub mod ours;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::ours::Within;
use crate::components::turns::{Peer, Turns};
use crate::components::{self, extism};
use crate::error::Error;
use crate::report::{Report, Row, Target};
use crate::{folders, process, stats};

/// Bytes of the payloads of calls, there and back.
pub const PAYLOADS: [usize; 2] = [64, 64 * 1024];
/// Calls of one measurement between processes, by payload.
pub const CALLS: [u32; 2] = [20_000, 4_000];
/// Turns of each; the figures are medians over them.
const ROUNDS: usize = 9;
/// Turns of what stays in the process, where nanoseconds count. In each, payloads and answers lie
/// elsewhere: how they lie to one another makes tens of nanoseconds for large ones.
const ROUNDS_WITHIN: usize = 11;
/// How much further they lie in each turn, in bytes; no power of two, so that no two turns are alike.
const SHIFT_BYTES: usize = 1_040;
/// What a call in the host's process may take more than the plugin's function by its pointer.
const ABOVE_POINTER_MAX_NS: f64 = 10.0;
/// What a call of another process may take more than a bare round trip.
const PROCESS_RATIO_MAX: f64 = 2.0;
/// The processors, for what is to be kept on them.
const NEAR: usize = 0;
const FAR: usize = 1;

const SOURCE: &str = include_str!("echo.c");
const HEADER: &str = include_str!("../../../sdk/include/modunest.h");

/// What one process has measured, by payload.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// One call by the host, in nanoseconds.
    pub call_ns: Vec<f64>,
    /// One call by a plugin of another, in nanoseconds; of ours only.
    pub between_ns: Vec<f64>,
}

/// A payload for calls within the process, in a page of its own and so many bytes behind its start.
/// What is allocated from now on lies as much further.
struct Payload {
    bytes: Vec<u8>,
    at: usize,
    size: usize,
}

impl Payload {
    fn new(size: usize, shift: usize) -> Self {
        const PAGE_BYTES: usize = 4096;
        std::mem::forget(Vec::<u8>::with_capacity(shift));
        let bytes = vec![b'x'; size + 2 * PAGE_BYTES];
        let at = bytes.as_ptr().align_offset(PAGE_BYTES) + shift % PAGE_BYTES;
        Payload { bytes, at, size }
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.size]
    }
}

/// The plugin that all measure, compiled into `work` where it is not there yet.
pub fn echo_library(work: &Path) -> Result<PathBuf, Error> {
    let library = work.join("echo.so");
    if library.exists() {
        return Ok(library);
    }
    for (name, content) in [("echo.c", SOURCE), ("modunest.h", HEADER)] {
        let path = work.join(name);
        std::fs::write(&path, content).map_err(Error::io(&path))?;
    }
    let compiler = folders::program("cc", "install Debian's gcc or clang")?;
    let mut command = Command::new(compiler);
    command.current_dir(work).args(["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-s"]);
    command.args(["-Wl,-z,relro,-z,now", "-o", "echo.so.new", "echo.c"]);
    let output = command.output();
    let output = output.map_err(|source| Error::Io { what: "cc".to_owned(), source })?;
    if !output.status.success() {
        let said = format!(": {}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::Failed { program: "cc".to_owned(), status: output.status, said });
    }
    std::fs::rename(work.join("echo.so.new"), &library).map_err(Error::io(&library))?;
    Ok(library)
}

/// Runs a child with these arguments on the first processor, or on any.
fn ask<T: DeserializeOwned>(arguments: &[&str], path: &Path, pinned: bool) -> Result<T, Error> {
    let mut command = process::own(&arguments[..1], pinned.then_some(NEAR))?;
    command.arg(path).args(&arguments[1..]);
    process::ask(command)
}

/// The median over turns of one payload's figure.
fn median(turns: &[Vec<f64>], at: usize) -> f64 {
    stats::median(turns.iter().filter_map(|turn| turn.get(at).copied()).collect())
}

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("calls");
    let work = folders::memory()?;
    let work = work.path();
    echo_library(work)?;
    in_process(&mut report, work)?;
    processes(&mut report, work)?;
    component(&mut report)?;
    report.note(format!(
        "medians of {ROUNDS} fresh processes each, in-process {ROUNDS_WITHIN}, in each of \
         which payloads and answers lie elsewhere, and what is compared takes turns; payloads there \
         and back"
    ));
    report.note(
        "pointer: the function by which hosts call the plugin, by its pointer in the plugin's table, \
         with a request made before; its work alone: the echo without that function, with what it \
         allocates and frees, its answer read where it lies, as ours is; a copy: taken over into \
         memory of the caller's own before; from plugin to plugin, the import, the grant and the \
         operator's rules are looked up at each call",
    );
    report.note(
        "socket: send and receive of the whole payload between two processes, nothing else; one \
         processor: both ends on it; two: one end on each",
    );
    Ok(report)
}

fn in_process(report: &mut Report, work: &Path) -> Result<(), Error> {
    let turns = (0..ROUNDS_WITHIN).map(|round| {
        let shift = (round * SHIFT_BYTES).to_string();
        ask(&["calls-within", "--shift", &shift], work, true)
    });
    let turns: Vec<Within> = turns.collect::<Result<_, Error>>()?;
    for (at, payload) in PAYLOADS.into_iter().enumerate() {
        let of = |get: &dyn Fn(&Within) -> &Vec<f64>| {
            stats::median(turns.iter().filter_map(|turn| get(turn).get(at).copied()).collect())
        };
        let (ours, between) = (of(&|turn| &turn.ours), of(&|turn| &turn.between));
        let (table, alone) = (of(&|turn| &turn.table), of(&|turn| &turn.work));
        let copied = of(&|turn| &turn.copied);
        let above = of(&|turn| &turn.above);
        let what = |what: &str| format!("in-process, {payload} B: {what}");
        report.row(Row::new(what("call"), "ns", ours).against("pointer", table));
        let target = Target::AtMost(ABOVE_POINTER_MAX_NS);
        report.row(Row::new(what("above the pointer"), "ns", above).target(target));
        report.row(Row::new(what("call"), "ns", ours).against("its work alone", alone));
        report.row(Row::new(what("call"), "ns", ours).against("work, a copy", copied));
        report
            .row(Row::new(what("from plugin to plugin"), "ns", between).against("pointer", table));
    }
    Ok(())
}

fn processes(report: &mut Report, work: &Path) -> Result<(), Error> {
    let far = FAR.to_string();
    let two = crate::host::processors() > FAR;
    for (what, far) in [("one processor", None), ("two processors", Some(far.as_str()))] {
        if far.is_some() && !two {
            report.note("this machine has one processor only");
            continue;
        }
        let far: Vec<&str> = far.into_iter().flat_map(|far| ["--far", far]).collect();
        let (mut ours, mut between, mut bare) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let arguments = [&["calls-ours", "process"], &far[..]].concat();
            let turn: Measured = ask(&arguments, work, true)?;
            ours.push(turn.call_ns);
            between.push(turn.between_ns);
            let mut command = process::own(&["calls-socket"], Some(NEAR))?;
            command.args(&far);
            let turn: Measured = process::ask(command)?;
            bare.push(turn.call_ns);
        }
        for (at, payload) in PAYLOADS.into_iter().enumerate() {
            let row = |name: &str, turns: &[Vec<f64>]| {
                let text = format!("process, {payload} B, {what}: {name}");
                Row::new(text, "us", median(turns, at) / 1e3)
                    .against("bare socket", median(&bare, at) / 1e3)
            };
            report.row(row("call", &ours).target(Target::RatioMax(PROCESS_RATIO_MAX)));
            report.row(row("from plugin to plugin", &between));
        }
    }
    Ok(())
}

fn component(report: &mut Report) -> Result<(), Error> {
    let folder = components::plugins::folder(&components::plugins::echo()?, 1)?;
    let state = folders::memory()?;
    components::bare::compile(folder.path(), 1)?;
    let library = extism::library()?;
    let turns = Turns::take(folder.path(), state.path(), &library, 1, Some(NEAR))?;
    for (at, payload) in PAYLOADS.into_iter().enumerate() {
        for peer in Peer::ALL {
            let what = format!("component, {payload} B: call");
            let row = turns.row(what, "ns", peer, &|measured| measured.call_ns[at]);
            report.row(row.target(peer.call_target()));
        }
    }
    report.note(extism::NOTE);
    Ok(())
}
