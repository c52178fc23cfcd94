//! The read side under load: our two shells, and whom they are measured against.
//!
//! The native shell stands beside nginx with the same files and header fields. Our worker
//! stands beside a worker that does nothing in the same runtime, and beside verdaccio with a
//! package whose metadata and archive have the same sizes. The servers have one processor, the
//! load the other. All take turns, so that a slow moment of the machine hits all.

mod cold;
pub mod load;
mod nginx;
pub mod server;
mod sink;
mod subject;
mod worker;

use std::time::Duration;

use self::subject::{Subject, Turn};
use crate::error::Error;
use crate::folders;
use crate::process::{self, Server};
use crate::report::{Report, Row, Target};
use crate::stats;
use crate::verdaccio::Verdaccio;

/// Turns of each server; the figures are medians over them.
const ROUNDS: usize = 5;
/// Seconds of a turn, so that the kernel's 10 ms ticks are 1 %.
const TURN_SECONDS: f64 = 1.0;
/// Requests before the first figure: connections, caches, compilers, the allocator. Twice, so
/// that the pace of a turn is not that of a cold start.
const WARM_UP: u32 = 500;
/// Connections of the load: enough to keep one processor busy.
const CONNECTIONS: u32 = 16;
/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const SERVER_PROCESSOR: usize = 1;
const LOAD_PROCESSOR: usize = 0;

const NATIVE: &str = "native shell";
const NGINX: &str = "nginx";
const WORKER: &str = "worker";
const BARE: &str = "bare worker";
const BUCKET: &str = "bare R2";
const VERDACCIO: &str = "verdaccio";

/// One kind of request.
struct Case {
    what: &'static str,
    is_blob: bool,
    is_conditional: bool,
    /// The most CPU time that the native shell may take, by nginx's.
    native_cpu_max: f64,
}

const CASES: [Case; 3] = [
    Case { what: "4 KiB index", is_blob: false, is_conditional: false, native_cpu_max: 3.0 },
    Case { what: "304 for it", is_blob: false, is_conditional: true, native_cpu_max: 3.0 },
    Case { what: "1 MiB blob", is_blob: true, is_conditional: false, native_cpu_max: 1.5 },
];

/// Who is shown beside whom.
const PAIRS: [(&str, &str); 4] =
    [(NATIVE, NGINX), (WORKER, BARE), (WORKER, BUCKET), (WORKER, VERDACCIO)];

/// The package that verdaccio has.
const PACKAGE: &str = "bench-edge";

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let mut report = Report::begin("edge");
    cold::functions(&mut report)?;
    let is_shared = report.cores < 2;
    if is_shared {
        report.note("one processor only: the load and the servers compete for it");
    }
    let processor = |number: usize| (!is_shared).then_some(number);
    let on = processor(SERVER_PROCESSOR);

    let api = sink::start()?;
    let mut native = Server::start(process::own(&["edge-server", &api], on)?, true)?;
    let site: server::Site = native.hear(START_TIMEOUT)?;
    cold::worker(&mut report, &site, &api)?;
    let nginx = nginx::start(&site, on)?;
    let ours = worker::ours(&site, &api, on)?;
    let bare = worker::bare(&site, &ours, &api, on)?;
    let folder = folders::scratch()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    let verdaccio = runtime.block_on(package(folder.path(), on))?;

    let subject = |name, process, address: &str, index: &str, blob: &str| Subject {
        name,
        process,
        address: address.to_owned(),
        index: index.to_owned(),
        blob: blob.to_owned(),
    };
    let of_bucket = |path: &str| format!("{}{path}", worker::BARE_BUCKET);
    let bare_id = bare.server.id();
    let subjects = [
        subject(NATIVE, native.id(), &site.address, &site.index, &site.blob),
        subject(NGINX, nginx.id(), &nginx.address, &site.index, &site.blob),
        subject(WORKER, ours.server.id(), &ours.address, &site.index, &site.blob),
        subject(BARE, bare_id, &bare.address, worker::BARE_INDEX, worker::BARE_BLOB),
        subject(BUCKET, bare_id, &bare.address, &of_bucket(&site.index), &of_bucket(&site.blob)),
        subject(
            VERDACCIO,
            verdaccio.server.id(),
            verdaccio.user.address(),
            &format!("/{PACKAGE}"),
            &format!("/{PACKAGE}/-/{PACKAGE}-1.0.0.tgz"),
        ),
    ];
    for case in &CASES {
        let turns = rounds(case, &subjects, processor(LOAD_PROCESSOR))?;
        for (one, other) in PAIRS {
            // Small objects come from our worker's memory, not from the bucket.
            if other == BUCKET && !case.is_blob {
                continue;
            }
            let of = |name| subjects.iter().zip(&turns).find(|(subject, _)| subject.name == name);
            if let (Some((_, one_turns)), Some((_, other_turns))) = (of(one), of(other)) {
                rows(&mut report, case, (one, one_turns), (other, other_turns));
            }
        }
    }
    nginx.stop()?;
    ours.server.stop()?;
    bare.server.stop()?;
    verdaccio.server.stop()?;
    native.stop()?;
    report.note(format!(
        "{ROUNDS} turns of about {TURN_SECONDS} s each, {CONNECTIONS} kept connections; CPU is \
         user and kernel time of the server's processes, launchers and simulated services included"
    ));
    report.note(
        "workers run in workerd and are asked directly; miniflare simulates R2 and the queue: \
         bare worker answers constants, bare R2 what the bucket has, both with our fields",
    );
    report.note("our shells count each download, and tell an API that forgets it");
    report.note("targets: issues 2 and 3; the one for 304 is that of the file it is about");
    Ok(report)
}

/// Verdaccio with a package: metadata as long as the index file, an archive as long as the blob.
async fn package(folder: &std::path::Path, processor: Option<usize>) -> Result<Verdaccio, Error> {
    let verdaccio = Verdaccio::start(folder, processor).await?;
    let user = &verdaccio.user;
    let archive = server::bytes(server::BLOB_BYTES);
    // A first package of as long a name tells how much the metadata has besides.
    let probe = "bench-size";
    user.publish_described(probe, "", &archive[..1]).await?;
    let besides = load::find(user.address(), &format!("/{probe}"))?.body_bytes;
    let missing = (server::INDEX_BYTES as u64).saturating_sub(besides);
    let description = "x".repeat(usize::try_from(missing).unwrap_or(0));
    user.publish_described(PACKAGE, &description, &archive).await?;
    Ok(verdaccio)
}

/// All turns of all subjects, in the subjects' order.
fn rounds(
    case: &Case,
    subjects: &[Subject],
    processor: Option<usize>,
) -> Result<Vec<Vec<Turn>>, Error> {
    let mut requests = Vec::new();
    for subject in subjects {
        subject.turn(case, WARM_UP, processor)?;
        let warm = subject.turn(case, WARM_UP, processor)?;
        // Connections may not outnumber requests.
        let pace = (warm.load.per_second * TURN_SECONDS) as u32;
        requests.push(pace.max(CONNECTIONS));
    }
    let mut turns: Vec<_> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((subject, requests), turns) in subjects.iter().zip(&requests).zip(&mut turns) {
            turns.push(subject.turn(case, *requests, processor)?);
        }
    }
    Ok(turns)
}

fn rows(report: &mut Report, case: &Case, one: (&str, &[Turn]), other: (&str, &[Turn])) {
    let row = |what: &str, unit, get: fn(&Turn) -> f64| {
        let of = |turns: &[Turn]| stats::median(turns.iter().map(get).collect());
        Row::new(format!("{}, {}: {what}", case.what, one.0), unit, of(one.1))
            .against(other.0, of(other.1))
    };
    let cpu = row("CPU a request", "us", |turn| turn.cpu_us);
    let per_second = row("requests a second", "1/s", |turn| turn.load.per_second);
    let (cpu, per_second) = match (one.0, other.0) {
        (_, NGINX) => (cpu.target(Target::RatioMax(case.native_cpu_max)), per_second),
        (_, BARE) => (cpu, per_second.target(Target::RatioMin(0.7))),
        (_, VERDACCIO) => {
            (cpu.target(Target::RatioMax(1.0)), per_second.target(Target::RatioMin(1.0)))
        }
        _ => (cpu, per_second),
    };
    report.row(cpu);
    report.row(per_second);
    report.row(row("p50", "us", |turn| turn.load.p50_us));
    report.row(row("p99", "us", |turn| turn.load.p99_us));
}
