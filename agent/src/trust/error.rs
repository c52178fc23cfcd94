//! Why the trust root is not believed, one variant a cause.

use std::path::PathBuf;
use std::time::Duration;

use modunest_core::keys::ObjectKey;
use modunest_core::trust::ConfigError;

use crate::registry;

/// Why a refresh, or what is kept, did not come to a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pinned root cannot be read.
    #[error("cannot read the trust root {}: {source}; get it from whoever runs the registry, not from the network", .path.display())]
    RootFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The pinned root is no root, or not signed by its own keys.
    #[error("the pinned trust root is not valid: {0}; get it again from whoever runs the registry")]
    Root(String),
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(Box<registry::Error>),
    /// A refresh took too long.
    #[error("the trust root was not refreshed within {} s: whoever answers sends too slowly", .0.as_secs())]
    Slow(Duration),
    /// A file that the metadata names is not there.
    #[error(
        "the registry has no {0}, though signed metadata names it: a mirror is incomplete, or a publication broke off"
    )]
    Missing(ObjectKey),
    /// A file that is none of a trust root is asked for.
    #[error("the trust root's metadata asks for {0:?}, which no trust root here has")]
    Name(String),
    /// More new roots than can be.
    #[error(
        "there are more than {0} new roots; somebody answers without end, or this host must be given a newer root"
    )]
    Roots(u32),
    /// Too few of a role's keys signed.
    #[error(
        "{role}: {found} of {threshold} signatures are good; this was not made by the registry"
    )]
    Signatures {
        /// The role.
        role: String,
        /// Good signatures.
        found: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// Older metadata than was believed before.
    #[error("{role} went back from version {trusted} to {found}: somebody shows old files")]
    Rollback {
        /// The role.
        role: String,
        /// The version that was believed.
        trusted: u64,
        /// The version that was shown.
        found: u64,
    },
    /// A root that is not the next one.
    #[error("root version {found} was shown in place of the one after {trusted}")]
    Succession {
        /// The root that is believed.
        trusted: u64,
        /// What was shown.
        found: u64,
    },
    /// Metadata is older than it may be.
    #[error(
        "the {role} metadata expired at {expires}: newer ones are being held back, the registry does not renew them, or this clock is ahead"
    )]
    Expired {
        /// The role.
        role: String,
        /// When.
        expires: String,
    },
    /// Length, hash or version differs from what the metadata above says.
    #[error("files of the trust root do not fit together: {0}")]
    Mixed(String),
    /// Metadata that cannot be read.
    #[error("metadata of the trust root cannot be read: {0}")]
    Malformed(String),
    /// The targets metadata names no configuration.
    #[error("the trust root names no configuration")]
    NoConfig,
    /// The configuration is signed and breaks a rule all the same.
    #[error("the registry's trust configuration is signed and not valid: {0}")]
    Config(#[from] ConfigError),
    /// The cache folder cannot be used.
    #[error("cannot use the kept trust root {}: {source}", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A kept file was not signed under the pinned root, or is damaged.
    #[error("the kept file {} is not valid under the pinned root: {reason}; if the root was replaced by hand on purpose, delete the folder", .path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is kept yet.
    #[error("no trust configuration of this registry was ever fetched; connect once")]
    NothingKept,
    /// Another part of this process chose the cryptography.
    #[error(
        "another part of this process has set the cryptography of sigstore-tuf; the strict one must be"
    )]
    Provider,
}

/// What an error means for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There was no answer: what is kept may serve.
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
            Error::Fetch(error) => match error.kind() {
                registry::Kind::Unreachable => Kind::Unreachable,
                registry::Kind::Refused => Kind::Refused,
                registry::Kind::Failed => Kind::Failed,
            },
            // Whoever sends a byte a minute is as good as silent, and may be.
            Error::Slow(_) => Kind::Unreachable,
            Error::RootFile { .. } | Error::Cache { .. } | Error::NothingKept | Error::Provider => {
                Kind::Failed
            }
            Error::Root(_)
            | Error::Missing(_)
            | Error::Name(_)
            | Error::Roots(_)
            | Error::Signatures { .. }
            | Error::Rollback { .. }
            | Error::Succession { .. }
            | Error::Expired { .. }
            | Error::Mixed(_)
            | Error::Malformed(_)
            | Error::NoConfig
            | Error::Config(_)
            | Error::Kept { .. } => Kind::Refused,
        }
    }

    /// What the client library says, in our words.
    pub(super) fn of(error: sigstore_tuf::Error, roots_max: u32) -> Self {
        use sigstore_tuf::Error as Tuf;
        match error {
            Tuf::ThresholdNotMet { role, found, threshold } => {
                Error::Signatures { role, found, threshold }
            }
            Tuf::Rollback { role, trusted, new } => Error::Rollback { role, trusted, found: new },
            Tuf::BadRootVersion { trusted, new } => Error::Succession { trusted, found: new },
            Tuf::Expired { role, expires } => Error::Expired { role, expires: expires.to_string() },
            Tuf::IntegrityMismatch(reason) => Error::Mixed(reason),
            Tuf::TargetNotFound(_) => Error::NoConfig,
            // Our transport's errors come back as they went in; one that is not ours is the
            // library's own, when the chain of roots does not end.
            Tuf::Transport { source: Some(source), message } => match source.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::Malformed(format!("{message}: {other}")),
            },
            Tuf::Transport { source: None, .. } => Error::Roots(roots_max),
            other => Error::Malformed(chain(&other)),
        }
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
