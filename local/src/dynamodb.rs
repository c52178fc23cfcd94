//! The embedded DynamoDB: `dynoxide` on a thread and runtime of its own, because
//! its calls block.
//!
//! What holds: the database is SQLite in WAL mode with `synchronous = NORMAL`.
//! An acknowledged write is in the system's memory, so it survives the end of
//! this process in any way, `kill -9` too. After a power failure the file is
//! sound, and what may be lost is the last [`SYNC_INTERVAL`]: the log is synced
//! that often while there are writes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dynoxide::Database;
use tokio::sync::watch;

use crate::Error;
use crate::timer::Timer;

/// The database's file name inside the data folder.
const DATABASE_FILE: &str = "dynamodb.sqlite";

/// How often items whose time to live has passed are removed. DynamoDB itself promises days.
const TTL_INTERVAL: Duration = Duration::from_secs(60);

/// How often the write-ahead log is synced, if it changed.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long requests may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Threads for the sweep and the sync, which never run beside themselves.
const BLOCKING_THREADS: usize = 2;

/// The running service.
pub(crate) struct DynamoDb {
    stop: watch::Sender<()>,
    thread: JoinHandle<Result<(), Error>>,
}

impl DynamoDb {
    /// Opens the database (in memory without a folder) and serves it on `listener`. Blocks shortly.
    pub(crate) fn start(listener: TcpListener, folder: Option<&Path>) -> Result<Self, Error> {
        let file = folder.map(|folder| folder.join(DATABASE_FILE));
        let database = open(file.as_deref())?;
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || run(listener, &database, file, stopped))
            .map_err(|source| Error::Thread { name: "dynamodb", source })?;
        Ok(Self { stop, thread })
    }

    /// Stops serving and closes the database. Blocks until done.
    pub(crate) fn stop(self) -> Result<(), Error> {
        drop(self.stop);
        match self.thread.join() {
            Ok(result) => result,
            Err(_panic) => Err(Error::DynamoDb { reason: "its thread panicked".to_owned() }),
        }
    }
}

fn open(file: Option<&Path>) -> Result<Database, Error> {
    let Some(file) = file else {
        return Database::memory().map_err(|error| Error::DynamoDb { reason: error.to_string() });
    };
    // Tells a file that cannot be written from one that is damaged.
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)
        .map_err(|source| Error::Folder { action: "write", path: file.to_owned(), source })?;
    let damaged = |error: dynoxide::DynoxideError| Error::Damaged {
        file: file.to_owned(),
        reason: error.to_string(),
    };
    let database = Database::new(&file.to_string_lossy()).map_err(damaged)?;
    database.disable_bulk_loading().map_err(damaged)?;
    // One read of what matters finds damage now and not at the first request.
    database.table_count().map_err(damaged)?;
    Ok(database)
}

fn run(
    listener: TcpListener,
    database: &Database,
    file: Option<PathBuf>,
    stopped: watch::Receiver<()>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("dynamodb-work")
        .build()
        .map_err(|source| Error::Thread { name: "dynamodb", source })?;
    let served = runtime.block_on(serve(listener, database, file, stopped));
    // Connections that outlived the grace are dropped with the runtime.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    served
}

async fn serve(
    listener: TcpListener,
    database: &Database,
    file: Option<PathBuf>,
    stopped: watch::Receiver<()>,
) -> Result<(), Error> {
    let stopped_by_itself = |reason: String| Error::DynamoDb { reason };
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| stopped_by_itself(error.to_string()))?;
    let swept = database.clone();
    let sweep = Timer::every("dynamodb-ttl", TTL_INTERVAL, move || sweep_ttl(swept.clone()));
    let sync = file.map(|file| {
        let log = wal_of(&file);
        let mut synced = None;
        Timer::every("dynamodb-sync", SYNC_INTERVAL, move || {
            let changed = changed_since(&log, &mut synced);
            let log = log.clone();
            async move {
                if changed {
                    sync_log(log).await;
                }
            }
        })
    });
    let until = |mut stopped: watch::Receiver<()>| async move {
        // An error is the stop: the sender was dropped.
        let _ = stopped.changed().await;
    };
    let overdue = {
        let stopped = stopped.clone();
        async move {
            until(stopped).await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        }
    };
    let served = tokio::select! {
        served = dynoxide::server::serve_with_shutdown(listener, database.clone(), until(stopped)) => served,
        () = overdue => {
            tracing::warn!("DynamoDB requests still run at shutdown; they are cut off");
            Ok(())
        }
    };
    sweep.stop().await;
    if let Some(sync) = sync {
        sync.stop().await;
    }
    served.map_err(stopped_by_itself)
}

async fn sweep_ttl(database: Database) {
    match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
        Ok(Ok(0)) => {}
        Ok(Ok(removed)) => tracing::debug!(removed, "removed items whose time to live has passed"),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot remove items whose time to live has passed")
        }
        Err(error) => tracing::error!(%error, "the time-to-live sweep ended abnormally"),
    }
}

fn wal_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Compares with, and keeps, the log's length and time of change.
fn changed_since(log: &Path, synced: &mut Option<(u64, SystemTime)>) -> bool {
    let state = std::fs::metadata(log).and_then(|log| Ok((log.len(), log.modified()?))).ok();
    let changed = state.is_some() && state != *synced;
    *synced = state;
    changed
}

async fn sync_log(log: PathBuf) {
    let synced = tokio::task::spawn_blocking(move || std::fs::File::open(log)?.sync_data()).await;
    match synced {
        Ok(Ok(())) => {}
        // A checkpoint that ended with the database's last connection removes the log.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(Err(error)) => tracing::error!(%error, "cannot sync the DynamoDB log"),
        Err(error) => tracing::error!(%error, "syncing the DynamoDB log ended abnormally"),
    }
}
