//! What an agent remembers of releases that it tries beside those that run: which generation is
//! being tried, which one serves, and which releases were tried in vain.

use std::path::{Path, PathBuf};

use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::files;

/// Name of the file.
const NAME: &str = "tries.json";
/// Longest file, in bytes: a release each of 10,000 plugins with a long reason.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The format's version.
const FORMAT: u32 = 1;

/// Everything about trials that outlives a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tries {
    format: u32,
    /// The generation that serves, beside which others are tried.
    pub serving: Option<u64>,
    /// The generation with the releases that are being tried.
    pub candidate: Option<u64>,
    /// Releases that are not chosen, by plugin.
    pub condemned: Vec<Condemned>,
}

/// A release that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condemned {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: Version,
    /// Digest of the release statement.
    pub statement: Digest,
    /// When it was rolled back.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Default for Tries {
    fn default() -> Self {
        Tries { format: FORMAT, serving: None, candidate: None, condemned: Vec::new() }
    }
}

impl Tries {
    /// Reads what is remembered below a state folder; nothing where nothing was written.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Tries`] where the file is damaged: what was condemned is not
    /// known then, and must not be forgotten quietly.
    pub fn read(state_dir: &Path) -> Result<Tries, Error> {
        let path = path(state_dir);
        let bytes = files::read_limited(&path, MAX_BYTES).map_err(|e| Error::io(&path, e))?;
        let Some(bytes) = bytes else { return Ok(Tries::default()) };
        let parsed = serde_json::from_slice::<Tries>(&bytes).map_err(|error| error.to_string());
        let known = parsed.and_then(|tries| match tries.format {
            FORMAT => Ok(tries),
            other => Err(format!("its format {other} is not known here")),
        });
        known.map_err(|rule| Error::Tries { path, rule })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let path = path(state_dir);
        // Numbers, names and texts have no value that JSON cannot hold.
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::write_durable(&path, &bytes).map_err(|e| Error::io(&path, e))
    }

    /// Why a release is not chosen, if it is not.
    pub fn refusal(&self, plugin: &PluginName, statement: Digest) -> Option<String> {
        let mut condemned = self.condemned.iter();
        let found = condemned.find(|one| one.plugin == *plugin && one.statement == statement)?;
        Some(format!(
            "was rolled back by this host ({}); `modunest-agent canary forgive {plugin}` lets it be tried again",
            found.reason
        ))
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_condemned_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Tries::read(folder.path()).unwrap(), Tries::default());
        let plugin: PluginName = "demo/page".parse().unwrap();
        let (good, bad) = (Digest::of(b"good"), Digest::of(b"bad"));
        let tries = Tries {
            serving: Some(3),
            condemned: vec![Condemned {
                plugin: plugin.clone(),
                version: "1.1.0".parse().unwrap(),
                statement: bad,
                at: Timestamp::from_millis(1_700_000_000_000),
                reason: "it failed".to_owned(),
            }],
            ..Tries::default()
        };
        tries.write(folder.path()).unwrap();
        assert_eq!(Tries::read(folder.path()).unwrap(), tries);
        assert_eq!(tries.refusal(&plugin, good), None);
        assert!(tries.refusal(&plugin, bad).unwrap().contains("it failed"));
        // A file that says nothing is no file without condemned releases.
        std::fs::write(path(folder.path()), "{").unwrap();
        assert!(matches!(Tries::read(folder.path()), Err(Error::Tries { .. })));
    }
}
