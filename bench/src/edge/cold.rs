//! What a cold start costs: the functions' programs, and the worker.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::{load, server, worker};
use crate::error::Error;
use crate::folders;
use crate::report::{Report, Row, Target};
use crate::stats;

/// The functions' programs.
const FUNCTIONS: [&str; 4] =
    ["modunest-api", "modunest-finalize", "modunest-sequence", "modunest-sweep"];
/// Starts of each; the figure is the median.
const FUNCTION_STARTS: usize = 21;
const WORKER_STARTS: usize = 7;
/// The most time to the first poll, in milliseconds: issue 3.
const FUNCTION_MS_MAX: f64 = 30.0;
/// What a function asks the runtime for when it is ready (Lambda runtime API, "Next invocation").
const FIRST_POLL: &[u8] = b"GET /2018-06-01/runtime/invocation/next ";
/// How long a function may take to ask.
const POLL_TIMEOUT: Duration = Duration::from_secs(10);

/// What Lambda sets, and what the template sets.
const ENVIRONMENT: [(&str, &str); 13] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ACCESS_KEY_ID", "bench"),
    ("AWS_SECRET_ACCESS_KEY", "bench"),
    ("MODUNEST_ORIGIN", "bench.modunest"),
    ("MODUNEST_TABLE", "bench"),
    ("MODUNEST_STAGING_BUCKET", "bench-staging"),
    ("MODUNEST_PUBLIC_BUCKET", "bench-public"),
    ("MODUNEST_KEYS_BUCKET", "bench-keys"),
];

/// From spawning each program to its first poll of a runtime that only listens.
pub fn functions(report: &mut Report) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(socket)?;
    for name in FUNCTIONS {
        let mut times = Vec::new();
        for _ in 0..FUNCTION_STARTS {
            times.push(runtime.block_on(first_poll_ms(name))?);
        }
        let what = format!("{name}: start to first poll");
        let row = Row::new(what, "ms", stats::median(times));
        report.row(row.target(Target::Below(FUNCTION_MS_MAX)));
    }
    Ok(())
}

/// Ends with the value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Ended by itself is as good.
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

async fn first_poll_ms(name: &str) -> Result<f64, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(socket)?;
    let address = listener.local_addr().map_err(socket)?.to_string();
    let mut command = Command::new(folders::sibling(name)?);
    command.env_clear().envs(ENVIRONMENT).env("AWS_LAMBDA_RUNTIME_API", &address);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let spawned = command.spawn();
    let function = Killed(spawned.map_err(|source| Error::Io { what: name.to_owned(), source })?);
    let poll = async {
        let (mut stream, _) = listener.accept().await?;
        let mut head = vec![0; FIRST_POLL.len()];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    let head = tokio::time::timeout(POLL_TIMEOUT, poll).await;
    let elapsed = begun.elapsed();
    drop(function);
    let head = head.map_err(Error::wrong("the first poll"))?.map_err(socket)?;
    if head != FIRST_POLL {
        let why = String::from_utf8_lossy(&head).into_owned();
        return Err(Error::Wrong { what: "the first poll", why });
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}

fn socket(source: std::io::Error) -> Error {
    Error::Io { what: "a socket".to_owned(), source }
}

/// From starting the launcher to the first answer, ours beside a worker that does nothing but
/// ask the same bucket for the same object.
pub fn worker(report: &mut Report, site: &server::Site, api: &str) -> Result<(), Error> {
    let of_bucket = format!("{}{}", worker::BARE_BUCKET, site.index);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let (mut our_answers, mut bare_answers) = (Vec::new(), Vec::new());
    for _ in 0..WORKER_STARTS {
        let (start, answer, our_worker) = start_ms(&site.index, || worker::ours(site, api, None))?;
        ours.push(start);
        our_answers.push(answer);
        let start = || worker::bare(site, &our_worker, api, None);
        let (start, answer, bare_worker) = start_ms(&of_bucket, start)?;
        bare.push(start);
        bare_answers.push(answer);
        our_worker.server.stop()?;
        bare_worker.server.stop()?;
    }
    let row = |what, ours, bare| {
        Row::new(what, "ms", stats::median(ours)).against(super::BUCKET, stats::median(bare))
    };
    report.row(row("worker: launcher's start to first answer", ours, bare));
    report.row(row("worker: first answer of a started one", our_answers, bare_answers));
    Ok(())
}

fn start_ms(
    path: &str,
    start: impl FnOnce() -> Result<worker::Worker, Error>,
) -> Result<(f64, f64, worker::Worker), Error> {
    let begun = Instant::now();
    let worker = start()?;
    let ready = Instant::now();
    load::find(&worker.address, path)?;
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    Ok((ms(begun), ms(ready), worker))
}
