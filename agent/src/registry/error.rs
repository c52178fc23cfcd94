//! Why a registry's answer is not believed, or there is none.

use std::path::PathBuf;
use std::time::Duration;

use modunest_core::index::IndexError;
use modunest_core::statement::{FoldError, Subject};
use modunest_core::time::Timestamp;
use modunest_tlog::{CheckpointError, QuorumError, VerifyError};

use crate::trust;

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
    /// Check 1: the trust root does not say whom to believe.
    #[error(transparent)]
    Trust(Box<trust::Error>),
    /// Check 1: the trust root is another registry's.
    #[error("the trust root is that of {found}, configured is {expected}; check root and origin")]
    Origin {
        /// What the trust root says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// Check 2: the checkpoint is not signed by the log's key, is of another origin, or is
    /// malformed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Check 2: too few witnesses have cosigned the checkpoint.
    #[error("{0}; ask again later, or ask who runs the registry which witness is missing")]
    Cosignatures(#[from] QuorumError),
    /// Check 2: the newest cosignature is too old.
    #[error("the checkpoint was cosigned {} s ago, at most {} s are allowed: newer ones are held back, or the witnesses are down", .age.as_secs(), .most.as_secs())]
    CheckpointAge {
        /// Since the newest cosignature.
        age: Duration,
        /// The policy's bound.
        most: Duration,
    },
    /// Check 2: the newest cosignature is of the future.
    #[error(
        "the checkpoint was cosigned at {cosigned}, in the future of this clock ({now}): set the clock, or tell who runs the registry that a witness's is wrong"
    )]
    CheckpointAhead {
        /// When a witness says that it cosigned.
        cosigned: Timestamp,
        /// What this clock says.
        now: Timestamp,
    },
    /// Check 2: the log became smaller.
    #[error("the checkpoint went back from {kept} entries to {found}: somebody shows an old log")]
    CheckpointRollback {
        /// What it says.
        found: u64,
        /// What was believed before.
        kept: u64,
    },
    /// Check 2: the checkpoint does not reach as far as the head.
    #[error(
        "the checkpoint is over {found} entries and the head over {head}: one of them is held back; ask again later"
    )]
    CheckpointBehind {
        /// What it says.
        found: u64,
        /// What the head says.
        head: u64,
    },
    /// Check 3: the log shows two histories.
    #[error("the log shows two histories: {rule}. Both signed notes are kept, {} and {}: send them to who runs the registry and to its witnesses and monitors, and take nothing from this registry until it is explained", .a.display(), .b.display())]
    SplitView {
        /// What contradicts.
        rule: String,
        /// The note that was believed before.
        a: PathBuf,
        /// The note that was shown now.
        b: PathBuf,
    },
    /// Checks 3 and 5: a tile of the log is not what the checkpoint's root says.
    #[error("{0}; whoever answers for the registry serves wrong tiles, ask another mirror")]
    Tile(#[from] VerifyError),
    /// Check 4: the head is not signed by a head key, is of another origin, or is malformed.
    #[error("{0}")]
    Head(#[source] IndexError),
    /// Check 4: the head has expired or is from the future.
    #[error("{0}")]
    Stale(#[source] IndexError),
    /// Check 4: the head is older than the registry's policy allows.
    #[error("the head was signed {} s ago, at most {} s are allowed: the registry or a mirror is holding newer heads back, or this clock is ahead", .age.as_secs(), .most.as_secs())]
    HeadAge {
        /// Since it was signed.
        age: Duration,
        /// The policy's bound.
        most: Duration,
    },
    /// Check 4: this machine's clock was set back.
    #[error("it is {now}, and it has been {seen} before: this clock was set back, so nothing can be told to be fresh. Set the clock; if it is right now and was ahead before, remove {} and connect to a network that you trust", .path.display())]
    Clock {
        /// What the clock says.
        now: Timestamp,
        /// The highest time that was seen.
        seen: Timestamp,
        /// Where that is kept.
        path: PathBuf,
    },
    /// Check 4: the head is older than one believed before.
    #[error("{0}")]
    Rollback(#[source] IndexError),
    /// Check 4: the head is over another log than the checkpoint.
    #[error("the head's log of {size} entries is not that of the checkpoint: {rule}")]
    HeadLog {
        /// What the head says.
        size: u64,
        /// What contradicts.
        rule: String,
    },
    /// What was kept on disk is damaged.
    #[error("{} is damaged: {rule}. It keeps this host from believing older states; remove it only on a network that you trust", .path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// Check 5: the index lists what the log does not have.
    #[error(
        "the log has another entry at {position} than the statement that the index lists for {subject}"
    )]
    NotInLog {
        /// Whose statement.
        subject: Subject,
        /// Where the index says it is.
        position: u64,
    },
    /// Check 5: the index lists what comes behind the head's log.
    #[error(
        "the index lists a statement of {subject} at {position}, the head's log has {size} entries"
    )]
    IndexAhead {
        /// Whose statement.
        subject: Subject,
        /// Where the index says it is.
        position: u64,
        /// The head's log.
        size: u64,
    },
    /// Check 5: an index file does not continue the one that was believed before.
    #[error(
        "the index file of {subject} does not continue the one before: a statement was taken out or changed"
    )]
    Rewritten {
        /// Whose file.
        subject: Subject,
    },
    /// Check 5: a node, bin or index file is not what its digest says, or is malformed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Checks 5 and 6: statements do not follow one another, or are not signed by who must have.
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
    /// A file is no bundle, or cannot be read.
    #[error("{} is no bundle: {rule}; write it anew with `modunest-agent bundle`", .path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
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
            Error::Trust(error) => match error.kind() {
                trust::Kind::Unreachable => Kind::Unreachable,
                trust::Kind::Refused => Kind::Refused,
                trust::Kind::Failed => Kind::Failed,
            },
            Error::Unreachable { .. } | Error::Unavailable { .. } => Kind::Unreachable,
            Error::Status { .. }
            | Error::TooLong { .. }
            | Error::Origin { .. }
            | Error::Checkpoint(_)
            | Error::Cosignatures(_)
            | Error::CheckpointAge { .. }
            | Error::CheckpointAhead { .. }
            | Error::CheckpointRollback { .. }
            | Error::CheckpointBehind { .. }
            | Error::SplitView { .. }
            | Error::Tile(_)
            | Error::Head(_)
            | Error::Stale(_)
            | Error::HeadAge { .. }
            | Error::Clock { .. }
            | Error::Rollback(_)
            | Error::HeadLog { .. }
            | Error::Kept { .. }
            | Error::NotInLog { .. }
            | Error::IndexAhead { .. }
            | Error::Rewritten { .. }
            | Error::Index(_)
            | Error::Fold(_) => Kind::Refused,
            Error::NoHead
            | Error::Bundle { .. }
            | Error::Cache { .. }
            | Error::Client(_)
            | Error::Blocking(_) => Kind::Failed,
        }
    }
}
