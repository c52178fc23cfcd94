//! Why the write side could not do what it was asked.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use modunest_core::index::IndexError;
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::StatementError;
use modunest_core::trust::MetadataError;
use modunest_tlog::{BundleError, CheckpointError, TileError, TileId};

/// "No" ([`Error::Refused`]), "cannot find out" ([`Error::Unavailable`]) and "found what must
/// not be" (the others) are different things.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule says no. The caller is told.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A service does not answer, or refuses what it should not. Trying again is right.
    #[error("{service} {operation}: {detail}")]
    Unavailable {
        /// `DynamoDB` or `S3`.
        service: &'static str,
        /// What was asked of it.
        operation: &'static str,
        /// What came back.
        detail: String,
    },
    /// A stored item is not what this code writes.
    #[error("the stored {entity} has a missing or malformed attribute \"{attribute}\"")]
    Damaged {
        /// Kind of item.
        entity: &'static str,
        /// The attribute.
        attribute: String,
    },
    /// An index object is not what its name says.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log's tiles are not what the log says.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A bundle of the log's entries is malformed, or an entry does not fit.
    #[error(transparent)]
    Entries(#[from] BundleError),
    /// A tile is there already, with other bytes: the table is older than the public bucket,
    /// as after a restore.
    #[error(
        "{0} is there already with other bytes: the table is older than the log that readers see (docs/deploy.md, \"Restore\")"
    )]
    Forked(TileId),
    /// The checkpoint could not be made, or the one that readers see not be read.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Too few witnesses cosigned the checkpoint.
    #[error("the checkpoint is not published: {0}")]
    Witnesses(#[from] crate::witness::Error),
    /// The published trust root is none, or not one of the online key here.
    #[error("trust root: {0}")]
    Trust(#[from] MetadataError),
    /// A statement of our own could not be made, or a stored one not be read.
    #[error("statement: {0}")]
    Statement(#[from] StatementError),
    /// A setting is wrong.
    #[error("setting {setting} {rule}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A promise within this process was broken.
    #[error("{0}")]
    Broken(&'static str),
}

impl Error {
    /// What a caller is told. Everything but a refusal is logged here, and not told in detail.
    pub(crate) fn into_refusal(self) -> Refusal {
        match self {
            Error::Refused(refusal) => refusal,
            Error::Unavailable { service, operation, detail } => {
                tracing::warn!(service, operation, detail, "a needed service does not answer");
                Refusal::new(
                    Code::Unavailable,
                    "a needed service does not answer; try again in a moment",
                )
            }
            other => {
                tracing::error!(error = %other, "internal error");
                Refusal::new(
                    Code::Internal,
                    "something failed on our side; the trace id leads us to it",
                )
            }
        }
    }

    /// Wraps what an AWS service answered. Keeps code, message and causes, and no request:
    /// a request may hold a signature.
    pub(crate) fn from_aws<E>(
        service: &'static str,
        operation: &'static str,
        error: &SdkError<E>,
    ) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let detail = match (error.code(), error.message()) {
            (Some(code), message) => format!("{code}: {}", message.unwrap_or("no message")),
            (None, _) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(error);
                while let Some(inner) = cause {
                    text.push_str(": ");
                    text.push_str(&inner.to_string());
                    cause = inner.source();
                }
                text
            }
        };
        Error::Unavailable { service, operation, detail }
    }
}
