//! From a publish to a reader who sees it.
//!
//! The real `modunest up`, and a reader that asks for the head every few milliseconds and
//! walks the proven index, as an agent does. Publishes begin at fixed times, whether or not
//! those before are done, so that a slow one is not hidden.

pub mod publisher;
mod reader;

use std::sync::Arc;
use std::time::{Duration, Instant};

use modunest_core::api::Discovery;

use self::publisher::Publisher;
use self::reader::Reader;
use crate::api::{Api, answer};
use crate::disk;
use crate::error::Error;
use crate::folders;
use crate::process;
use crate::registry::Registry;
use crate::report::{Report, Row};
use crate::stats;
use crate::verdaccio::{User, Verdaccio};

/// Seconds of load at each rate.
pub const SECONDS: u32 = 60;
/// Publishes a minute: issue 2.
const RATES: [u32; 2] = [25, 250];
/// How often readers look.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a publish may take until somebody sees it.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of data beside the library that deflate cannot shrink: an archive then has about
/// 72 KB, the median of real packages.
const DATA_BYTES: usize = 66 * 1024;

/// Times of publishes, in milliseconds.
#[derive(Default)]
struct Times {
    /// From the first request to a reader who sees it.
    visible: Vec<f64>,
    /// From the acknowledged upload to a reader who sees it.
    after_upload: Vec<f64>,
}

/// Measures all.
pub fn run(seconds: u32) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    runtime.block_on(Box::pin(measure(seconds)))
}

async fn measure(seconds: u32) -> Result<Report, Error> {
    let mut report = Report::begin("publish");
    let scratch = folders::scratch()?;
    let (sync_p50, sync_p99) = disk::sync_ms(scratch.path())?;
    let data = scratch.path().join("registry");
    let registry = Registry::start(&data, &[])?;
    let api = Api::new(registry.url.clone(), registry.secret("admin.token")?)?;
    let url = registry.url.join(modunest_core::keys::DISCOVERY_PATH);
    let url = url.map_err(Error::wrong("the registry's address"))?;
    let discovery: Discovery = answer("the discovery document", api.client.get(url)).await?;
    let publisher = Arc::new(Publisher::new(api).await?);
    let reader = Reader::start(&registry.url, &discovery)?;
    // The first publish warms connections and caches, and counts for nothing.
    let mut next = 0;
    drop(load(&publisher, &reader, &mut next, 60, 1).await?);

    let mut ours = Vec::new();
    let (objects, written) =
        (registry.objects().await?, process::written_bytes(registry.server.id())?);
    for rate in RATES {
        ours.push(load(&publisher, &reader, &mut next, rate, seconds).await?);
    }
    let published = f64::from(next - 1);
    let objects = (registry.objects().await? - objects) as f64 / published;
    let written = process::written_bytes(registry.server.id())? - written;
    reader.stop().await?;
    registry.server.stop()?;

    let folder = scratch.path().join("verdaccio");
    std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
    let verdaccio = Verdaccio::start(&folder, None).await?;
    let archive = publisher.package(0)?.bytes;
    drop(peer_load(&verdaccio.user, &archive, "warm-up", 60, 1).await?);
    for ((rate, mut ours), word) in RATES.into_iter().zip(ours).zip(["slow", "quick"]) {
        let mut theirs = peer_load(&verdaccio.user, &archive, word, rate, seconds).await?;
        let count = ours.visible.len();
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let theirs = stats::quantile(&mut theirs, share);
            let what = format!("{rate} a minute ({count}): to visible, {name}");
            let row = Row::new(what, "ms", stats::quantile(&mut ours.visible, share));
            report.row(row.against("verdaccio", theirs));
            let what = format!("{rate} a minute: of it after the upload, {name}");
            let row = Row::new(what, "ms", stats::quantile(&mut ours.after_upload, share));
            report.row(row.against("one sync, p50", sync_p50));
        }
    }
    verdaccio.server.stop()?;
    report.row(Row::new("a 4 KiB write and its sync on this disk, p50", "ms", sync_p50));
    report.row(Row::new("the same, p99", "ms", sync_p99));
    report.row(Row::new("objects that a publish adds to the public bucket", "", objects));
    let written = written as f64 / published / 1024.0;
    report.row(Row::new("written to the disk by the registry a publish", "KiB", written));
    report.note(format!(
        "archives of {} KiB; readers look every {} ms, ours proves the head and the index; \
         verdaccio proves and scans nothing and does not sync",
        archive.len() / 1024,
        LOOK_EVERY.as_millis()
    ));
    Ok(report)
}

/// Publishes at a rate, and waits until the last is seen.
async fn load(
    publisher: &Arc<Publisher>,
    reader: &Reader,
    next: &mut u32,
    rate: u32,
    seconds: u32,
) -> Result<Times, Error> {
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for number in 0..(rate * seconds / 60).max(1) {
        let due = begun + Duration::from_secs(60) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        let (publisher, watcher, own) = (Arc::clone(publisher), reader.watcher(), *next);
        *next += 1;
        tasks.push(tokio::spawn(async move {
            let package = publisher.package(own as usize)?;
            let seen = watcher.watch(package.manifest.name.clone());
            let asked = Instant::now();
            publisher.publish(&package).await?;
            let uploaded = Instant::now();
            let seen = tokio::time::timeout(VISIBLE_TIMEOUT, seen).await;
            let seen = seen.map_err(Error::wrong("a reader"))?.map_err(Error::wrong("a reader"))?;
            Ok::<_, Error>((seen - asked, seen.saturating_duration_since(uploaded)))
        }));
    }
    let mut times = Times::default();
    for task in tasks {
        let (visible, after_upload) = task.await.map_err(Error::wrong("a publish"))??;
        times.visible.push(visible.as_secs_f64() * 1e3);
        times.after_upload.push(after_upload.as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// The same for the peer.
async fn peer_load(
    user: &User,
    archive: &[u8],
    word: &str,
    rate: u32,
    seconds: u32,
) -> Result<Vec<f64>, Error> {
    let archive: Arc<[u8]> = archive.into();
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for number in 0..(rate * seconds / 60).max(1) {
        let due = begun + Duration::from_secs(60) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        let (user, archive) = (user.clone(), Arc::clone(&archive));
        let name = format!("bench-{word}-{number}");
        tasks.push(tokio::spawn(async move {
            let asked = Instant::now();
            let publish = user.publish(&name, &archive);
            let seen = async {
                while !user.shows(&name).await? {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(asked.elapsed())
            };
            let (published, seen) = tokio::join!(publish, seen);
            published?;
            seen
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        let seen = task.await.map_err(Error::wrong("verdaccio's publish"))??;
        times.push(seen.as_secs_f64() * 1e3);
    }
    Ok(times)
}
