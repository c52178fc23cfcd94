//! The lock file: which release of each plugin, down to the bytes.

use std::collections::BTreeMap;

use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Name of the lock file.
pub const LOCK_NAME: &str = "modunest.lock";
/// Longest lock file, in bytes: 10,000 plugins with 3 KB each.
pub const LOCK_MAX_BYTES: usize = 32 * 1024 * 1024;
/// The format's version.
const FORMAT: u32 = 1;

/// What was resolved, under which head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this format.
    pub lock_format: u32,
    /// Origin of the registry.
    pub registry: String,
    /// Epoch of the head.
    pub epoch: u64,
    /// Index root that the head signs.
    pub index: Digest,
    /// When the head was signed.
    pub issued_at: Timestamp,
    /// The chosen releases, by name.
    pub plugins: Vec<Locked>,
}

/// One chosen release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: Version,
    /// Digest of the release statement.
    pub statement: Digest,
    /// Which build.
    pub target: BuildTarget,
    /// SHA-256 of the archive.
    pub archive: Digest,
    /// Size of the archive in bytes.
    pub size_bytes: u64,
    /// Digest of the file list; the store's name for it.
    pub files: Digest,
    /// Chosen plugins that it uses.
    pub uses: Vec<PluginName>,
}

impl Lock {
    /// A lock under a head.
    pub fn new(head: &modunest_core::index::Head, mut plugins: Vec<Locked>) -> Self {
        plugins.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        Lock {
            lock_format: FORMAT,
            registry: head.origin.clone(),
            epoch: head.epoch,
            index: head.index,
            issued_at: head.issued_at,
            plugins,
        }
    }

    /// The bytes, the same for the same lock: JSON that a person can read and compare.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers have no value that JSON cannot hold.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let lock: Lock = serde_json::from_slice(bytes)
            .map_err(|error| format!("the lock file is not valid: {error}"))?;
        if lock.lock_format != FORMAT {
            return Err(format!("lock format {} is not known here", lock.lock_format));
        }
        if !lock.plugins.is_sorted_by(|a, b| a.plugin < b.plugin) {
            return Err("the lock file's plugins do not ascend, each once".to_owned());
        }
        Ok(lock)
    }

    /// The chosen versions.
    pub fn versions(&self) -> BTreeMap<PluginName, Version> {
        self.plugins.iter().map(|p| (p.plugin.clone(), p.version.clone())).collect()
    }
}
