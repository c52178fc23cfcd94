//! Why a registry's answer is not believed, or there is none.

use std::path::PathBuf;

use modunest_core::index::IndexError;
use modunest_core::statement::FoldError;

/// Why a read did not come to a proven answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answered, or the answer broke off.
    #[error("could not reach {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The registry answered that it cannot answer now.
    #[error("{url} answered with status {status}; trying again later may help")]
    Unavailable {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The registry answered with a status that does not fit the question.
    #[error("{url} answered with status {status}, though the signed index names it")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is longer than anything of its kind.
    #[error("{url} answered with more than the {limit_bytes} bytes that it can have")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The bound that was passed.
        limit_bytes: u64,
    },
    /// The head is not signed by a pinned key, is of another origin, or is malformed.
    #[error("{0}")]
    Head(#[source] IndexError),
    /// The head has expired or is from the future.
    #[error("{0}")]
    Stale(#[source] IndexError),
    /// The head is older than one believed before.
    #[error("{0}")]
    Rollback(#[source] IndexError),
    /// The head that was kept on disk cannot be proven with the configured keys.
    #[error("the kept head in {} is not valid: {error}; if the registry's keys were changed on purpose, delete the file", .path.display())]
    KeptHead {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: IndexError,
    },
    /// A node, bin or index file is not what its digest says, or is malformed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Statements do not follow one another, or are not signed by who must have.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// Nothing was read yet, and no head is kept from before.
    #[error("no head of this registry was ever read; connect once")]
    NoHead,
    /// The cache folder cannot be used.
    #[error("cannot use the cache {}: {source}", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// A helper thread ended without an answer.
    #[error(transparent)]
    Blocking(#[from] crate::blocking::Lost),
}

/// What an error means for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There was no answer: what is kept from before may serve.
    Unreachable,
    /// There was an answer, and it is not to be believed.
    Refused,
    /// Something on this machine failed.
    Failed,
}

impl Error {
    /// What the error means.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unreachable { .. } | Error::Unavailable { .. } => Kind::Unreachable,
            Error::Status { .. }
            | Error::TooLong { .. }
            | Error::Head(_)
            | Error::Stale(_)
            | Error::Rollback(_)
            | Error::KeptHead { .. }
            | Error::Index(_)
            | Error::Fold(_) => Kind::Refused,
            Error::NoHead | Error::Cache { .. } | Error::Client(_) | Error::Blocking(_) => {
                Kind::Failed
            }
        }
    }
}
