//! Tables and settings of the index file.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::damage;
use crate::Error;

/// The format this program writes, kept in SQLite's `user_version`.
const FORMAT: i64 = 1;

/// Page cache of each of the two connections. The system's cache does the rest,
/// and an idle registry is to stay small.
const CACHE_KIB: i64 = 2048;

/// The write-ahead log is cut back to this size once a burst is over.
const WAL_LIMIT_BYTES: i64 = 16 * 1024 * 1024;

/// Only a backup tool that holds the file can make a statement wait.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Compiled statements kept by a connection: more than there are distinct ones.
const STATEMENT_CACHE: usize = 48;

/// Keys compare as bytes (SQLite's default collation), which for UTF-8 is the
/// order that S3 lists in. Inline bytes have a table of their own, so that
/// listing does not read past them.
const TABLES: &str = "
CREATE TABLE buckets (
    name        TEXT PRIMARY KEY,
    created_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE objects (
    bucket      TEXT NOT NULL,
    key         TEXT NOT NULL,
    size        INTEGER NOT NULL,
    etag        TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    sequencer   INTEGER NOT NULL,
    checksum_algorithm TEXT NOT NULL,
    checksum    TEXT NOT NULL,
    headers     TEXT NOT NULL,
    content     INTEGER,
    file        TEXT,
    PRIMARY KEY (bucket, key),
    CHECK ((content IS NULL) <> (file IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX objects_file ON objects (file) WHERE file IS NOT NULL;
CREATE TABLE contents (
    id          INTEGER PRIMARY KEY,
    bytes       BLOB NOT NULL
) STRICT;
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket      TEXT NOT NULL,
    key         TEXT NOT NULL,
    event       TEXT NOT NULL
) STRICT;
CREATE TABLE sequence (last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
";

pub(super) fn open_writer(path: &Path, durable: bool) -> Result<Connection, Error> {
    let damaged = |error: rusqlite::Error| damage(path, &error);
    let connection = Connection::open(path).map_err(damaged)?;
    let prepare = || -> rusqlite::Result<i64> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_query_value(None, "user_version", |row| row.get(0))
    };
    match prepare().map_err(damaged)? {
        0 => {
            connection
                .execute_batch(&format!("BEGIN;{TABLES}PRAGMA user_version = {FORMAT};COMMIT;"))
                .map_err(damaged)?;
        }
        FORMAT => {}
        found => {
            return Err(Error::NewerFormat { file: path.to_owned(), found, known: FORMAT });
        }
    }
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Reading one row of each table finds a file that is not what it should be now, not at the first request.
    for table in ["buckets", "objects", "contents", "outbox"] {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} LIMIT 1)");
        connection.query_row(&sql, [], |row| row.get::<_, bool>(0))?;
    }
    Ok(connection)
}
