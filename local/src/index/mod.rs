//! The index of buckets, objects and undelivered events: one SQLite file.
//!
//! One thread owns the writing connection, so writes are decided one after
//! another and a condition such as "only if absent" has exactly one winner.
//! That thread commits whatever has queued up as one transaction, so that many
//! concurrent writers share a sync. A write is acknowledged after the commit,
//! which with `synchronous = FULL` means: after the sync.

mod listing;
mod objects;
mod outbox;
mod schema;
mod writer;

pub(crate) use listing::{After, ListingQuery};
pub(crate) use objects::{
    Condition, Content, Deleted, Headers, NewObject, Object, Place, Put, Refusal,
};
pub(crate) use outbox::OutboxRow;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Notify;

use crate::error::IndexError;
use crate::files::{FileName, Files};
use crate::{Error, events::Interest};

/// The index's file name inside the data folder.
const INDEX_FILE: &str = "s3.sqlite";

/// The store's index. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Index {
    writer: Arc<writer::Writer>,
    /// One reader suffices: a lookup takes microseconds, and nothing is awaited under the lock.
    reader: Arc<Mutex<Connection>>,
    interest: Arc<Interest>,
}

impl Index {
    /// Opens or makes the index in `folder`. `committed` is notified after each
    /// commit that added events.
    pub(crate) fn open(
        folder: &Path,
        durable: bool,
        files: Files,
        interest: Arc<Interest>,
        committed: Arc<Notify>,
    ) -> Result<Self, Error> {
        let path = folder.join(INDEX_FILE);
        let damaged = |error: rusqlite::Error| damage(&path, &error);
        let writing = schema::open_writer(&path, durable)?;
        let reading = schema::open_reader(&path).map_err(damaged)?;
        Ok(Self {
            writer: Arc::new(writer::Writer::start(writing, files, committed)?),
            reader: Arc::new(Mutex::new(reading)),
            interest,
        })
    }

    /// Ends the writing thread after what it has accepted. Blocks.
    pub(crate) fn close(&self) -> Result<(), IndexError> {
        self.writer.close()
    }

    /// Every file that a row names.
    pub(crate) fn file_names(&self) -> Result<HashSet<FileName>, IndexError> {
        let reader = self.reader();
        let mut statement = reader.prepare("SELECT file FROM objects WHERE file IS NOT NULL")?;
        let mut rows = statement.query([])?;
        let mut names = HashSet::new();
        while let Some(row) = rows.next()? {
            names.insert(objects::file_name(&row.get::<_, String>(0)?)?);
        }
        Ok(names)
    }

    /// The bucket and key of the object that names `file`.
    pub(crate) fn object_of_file(
        &self,
        file: &FileName,
    ) -> Result<Option<(String, String)>, IndexError> {
        let reader = self.reader();
        let mut statement = reader.prepare("SELECT bucket, key FROM objects WHERE file = ?1")?;
        let mut rows = statement.query([file.as_str()])?;
        match rows.next()? {
            Some(row) => Ok(Some((row.get(0)?, row.get(1)?))),
            None => Ok(None),
        }
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        // A panic while reading leaves a connection that is still good.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells damage, a full disk and lack of permission apart, for the person who starts the services.
fn damage(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    let path = PathBuf::from(path);
    match error.sqlite_error_code() {
        Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly | SystemIoFailure) => {
            Error::Folder {
                action: "write",
                path,
                source: std::io::Error::other(error.to_string()),
            }
        }
        _ => Error::Damaged { file: path, reason: error.to_string() },
    }
}
