//! What can go wrong before the services serve, each with its place and a way out.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the embedded services did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another program listens on the address.
    #[error(
        "{service} cannot listen on {address}: the port is in use; \
         stop the program that holds it, or choose another with --port"
    )]
    PortInUse {
        /// Which service wanted the address.
        service: &'static str,
        /// The address that is taken.
        address: SocketAddr,
    },
    /// The address could not be bound for another reason than being in use.
    #[error("{service} cannot listen on {address}: {source}")]
    Bind {
        /// Which service wanted the address.
        service: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// The address is reachable from other machines; the embedded DynamoDB checks no signatures.
    #[error(
        "{service} may listen on a loopback address only, and {address} is not one; use 127.0.0.1"
    )]
    NotLoopback {
        /// Which service was given the address.
        service: &'static str,
        /// The address refused.
        address: SocketAddr,
    },
    /// The data folder, or something in it, cannot be made, read or written.
    #[error("cannot {action} {}: {source}; check the permissions and free space, or choose another folder with --data", path.display())]
    Folder {
        /// What was being done, as a verb: "create", "write", "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error(
        "the data folder {} is in use by {holder}; stop that process, or choose another folder with --data",
        folder.display()
    )]
    FolderInUse {
        /// The data folder.
        folder: PathBuf,
        /// The process that holds the lock, as it described itself: `process 1234`.
        holder: String,
    },
    /// A database file is not readable as what it should be.
    #[error(
        "{} is damaged: {reason}; restore the folder from a backup, \
         or move it away and start with an empty one",
        file.display()
    )]
    Damaged {
        /// The database file.
        file: PathBuf,
        /// What its reader said.
        reason: String,
    },
    /// The folder was written by a later version of this program.
    #[error(
        "{} has format {found} and this program knows up to {known}; use the newer program that wrote it",
        file.display()
    )]
    NewerFormat {
        /// The database file.
        file: PathBuf,
        /// The format found in it.
        found: i64,
        /// The newest format this program reads.
        known: i64,
    },
    /// A bucket name that S3 would refuse.
    #[error(
        "{name:?} is not a bucket name: 3 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit"
    )]
    BucketName {
        /// The name refused.
        name: String,
    },
    /// A subscription names a bucket that the configuration does not list.
    #[error(
        "a subscription names the bucket {bucket:?}, which is not among the configured buckets"
    )]
    UnknownBucket {
        /// The bucket the subscription names.
        bucket: String,
    },
    /// Two subscriptions would both match some keys.
    #[error(
        "two subscriptions to {bucket:?} overlap: the prefixes {first:?} and {second:?} match the same keys"
    )]
    OverlappingSubscriptions {
        /// The bucket of both.
        bucket: String,
        /// One prefix.
        first: String,
        /// The other prefix.
        second: String,
    },
    /// The access key or the secret is empty.
    #[error("the access key and the secret key must not be empty")]
    EmptyCredentials,
    /// A thread or runtime could not be started.
    #[error("cannot start the {name} thread: {source}")]
    Thread {
        /// Which thread.
        name: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The object index failed while starting or stopping.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The DynamoDB server ended by itself.
    #[error("the embedded DynamoDB stopped: {reason}")]
    DynamoDb {
        /// What it said.
        reason: String,
    },
}

/// Why the object index could not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// SQLite refused a statement: disk full, input or output error, damage.
    #[error("the object index failed: {0}")]
    Sqlite(std::sync::Arc<rusqlite::Error>),
    /// A row holds what this program never writes.
    #[error("the object index holds a row that cannot be read: {0}")]
    BadRow(String),
    /// The store is shutting down.
    #[error("the object index is closed")]
    Closed,
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(std::sync::Arc::new(error))
    }
}
