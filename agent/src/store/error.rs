//! Why an archive, an entry of the store or a generation was refused.

use std::path::{Path, PathBuf};

use modunest_core::Version;
use modunest_core::archive::ArchiveError;
use modunest_core::digest::Digest;
use modunest_core::manifest::ManifestError;
use modunest_core::name::PluginName;
use modunest_core::statement::Disagreement;

/// Why something is not installed, or not to be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is remembered of releases that were tried cannot be read.
    #[error("{}: {rule}; delete it to let releases be tried again that were rolled back", .path.display())]
    Tries {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// An archive has another length than the release statement says.
    #[error("the archive has {found_bytes} bytes, the release statement says {expected_bytes}")]
    ArchiveSize {
        /// By the statement.
        expected_bytes: u64,
        /// What there is.
        found_bytes: u64,
    },
    /// An archive is not the one that the release statement names.
    #[error("the archive hashes to {found}, the release statement says {expected}")]
    ArchiveDigest {
        /// By the statement.
        expected: Digest,
        /// What there is.
        found: Digest,
    },
    /// The archive breaks a rule of the gate.
    #[error("the archive is refused: {0}")]
    Archive(#[from] ArchiveError),
    /// The archive's files are not those that the release statement lists.
    #[error("the list of files hashes to {found}, the release statement says {expected}")]
    FileList {
        /// By the statement.
        expected: Digest,
        /// What there is.
        found: Digest,
    },
    /// `plugin.toml` is missing, or not the one that was signed.
    #[error("plugin.toml is not the one that the release statement names")]
    ManifestDigest,
    /// `plugin.toml` breaks a rule.
    #[error("plugin.toml is not valid: {0}")]
    Manifest(#[from] ManifestError),
    /// `plugin.toml` and the release statement contradict each other.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// An entry is not in the store.
    #[error("the store has no entry {files}; run a sync to fetch it again")]
    Missing {
        /// Digest of its file list.
        files: Digest,
    },
    /// A file in the store is not what the proven list says.
    #[error("{} was changed since it was unpacked; delete its folder and sync again", .path.display())]
    File {
        /// The file.
        path: PathBuf,
    },
    /// A file in the store is on no list.
    #[error("{} is not of the plugin; delete its folder and sync again", .path.display())]
    Stranger {
        /// The file.
        path: PathBuf,
    },
    /// A generation's files are damaged or contradict one another.
    #[error("generation {number}: {rule}")]
    Generation {
        /// The generation.
        number: u64,
        /// What is wrong.
        rule: String,
    },
    /// The lock names a release that the kept statements do not prove.
    #[error("{plugin} {version}: {rule}")]
    Unproven {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: Version,
        /// What does not agree.
        rule: String,
    },
    /// The kept statements do not fold.
    #[error(transparent)]
    Registry(#[from] Box<crate::registry::Error>),
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), source }
    }

    /// Whether a proof failed, as against the disk.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Io { .. } | Error::Missing { .. } => false,
            Error::Registry(error) => error.kind() == crate::registry::Kind::Refused,
            _ => true,
        }
    }
}
