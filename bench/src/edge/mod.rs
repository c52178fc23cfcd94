//! The read side against nginx: the same files, the same headers, the same connections.
//!
//! The server has one processor, the load the other. Both servers take turns, so that a slow
//! moment of the machine hits both.

pub mod load;
mod nginx;
pub mod server;

use std::time::Duration;

use crate::error::Error;
use crate::process::{self, Server};
use crate::report::{Report, Row, Target};
use crate::stats;

/// Turns of each server; the figures are medians over them.
const ROUNDS: usize = 7;
/// Requests before the first figure: connections, caches, the allocator.
const WARM_UP: u32 = 2_000;
/// Connections of the load: enough to keep one processor busy.
const CONNECTIONS: u32 = 16;
/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const SERVER_PROCESSOR: usize = 1;
const LOAD_PROCESSOR: usize = 0;

/// One kind of request.
struct Case {
    what: &'static str,
    /// Requests a turn: about a second, so that the kernel's 10 ms ticks are 1 %.
    requests: u32,
    blob: bool,
    conditional: bool,
    target: Option<Target>,
}

const CASES: [Case; 3] = [
    Case {
        what: "4 KiB index file",
        requests: 60_000,
        blob: false,
        conditional: false,
        target: Some(Target::RatioMax(3.0)),
    },
    Case {
        what: "304 for it",
        requests: 60_000,
        blob: false,
        conditional: true,
        target: Some(Target::RatioMax(3.0)),
    },
    Case {
        what: "1 MiB blob",
        requests: 3_000,
        blob: true,
        conditional: false,
        target: Some(Target::RatioMax(1.5)),
    },
];

/// What one turn showed.
struct Turn {
    cpu_us: f64,
    load: load::Outcome,
}

/// Measures both.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("edge");
    let is_shared = report.cores < 2;
    if is_shared {
        report.note("one processor only: the load and the servers compete for it");
    }
    let processor = |number: usize| (!is_shared).then_some(number);
    let mut ours =
        Server::start(process::own(&["edge-server"], processor(SERVER_PROCESSOR))?, true)?;
    let site: server::Site = ours.hear(START_TIMEOUT)?;
    let nginx = nginx::start(&site, processor(SERVER_PROCESSOR))?;
    for case in &CASES {
        let path = if case.blob { &site.blob } else { &site.index };
        let measure = |id: u32, address: &str, requests: u32| -> Result<Turn, Error> {
            let tag = if case.conditional { Some(load::entity_tag(address, path)?) } else { None };
            let before = process::cpu_time(id)?;
            let plan = load::Plan {
                address: address.to_owned(),
                path: path.clone(),
                if_none_match: tag,
                requests,
                connections: CONNECTIONS,
                body_bytes: match (case.conditional, case.blob) {
                    (true, _) => 0,
                    (false, true) => server::BLOB_BYTES as u64,
                    (false, false) => server::INDEX_BYTES as u64,
                },
            };
            let load = process::ask(process::own(&plan.arguments(), processor(LOAD_PROCESSOR))?)?;
            let cpu = process::cpu_time(id)?.saturating_sub(before);
            Ok(Turn { cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(requests), load })
        };
        let (mut our_turns, mut their_turns) = (Vec::new(), Vec::new());
        measure(ours.id(), &site.address, WARM_UP.min(case.requests))?;
        measure(nginx.id(), &nginx.address, WARM_UP.min(case.requests))?;
        for _ in 0..ROUNDS {
            our_turns.push(measure(ours.id(), &site.address, case.requests)?);
            their_turns.push(measure(nginx.id(), &nginx.address, case.requests)?);
        }
        let pair = |what: &str, unit, get: fn(&Turn) -> f64| {
            let of = |turns: &[Turn]| stats::median(turns.iter().map(get).collect());
            Row::new(format!("{}: {what}", case.what), unit, of(&our_turns))
                .against("nginx", of(&their_turns))
        };
        let cpu = pair("CPU a request", "us", |turn| turn.cpu_us);
        report.row(match case.target {
            Some(target) => cpu.target(target),
            None => cpu,
        });
        report.row(pair("requests a second", "1/s", |turn| turn.load.per_second));
        report.row(pair("p50", "us", |turn| turn.load.p50_us));
        report.row(pair("p99", "us", |turn| turn.load.p99_us));
    }
    nginx.stop()?;
    ours.stop()?;
    report.note(format!(
        "{ROUNDS} turns each, {CONNECTIONS} kept connections; CPU is user and kernel time of the server process"
    ));
    report.note("targets: issue 2; the one for 304 is that of the file it is about");
    Ok(report)
}
