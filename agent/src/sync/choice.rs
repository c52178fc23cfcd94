//! What the operator says that makes other choices of the same index.

use std::path::Path;

use modunest_core::relation::HostFacts;
use serde::{Deserialize, Serialize};

use super::{Error, Policy};
use crate::config::Config;
use crate::{files, store};

/// Name of the file beside the lock file that says by which choice that was made.
const CHOICE_NAME: &str = "choice.json";
/// Longest such file, in bytes; it holds a handful of words.
const CHOICE_MAX_BYTES: usize = 4096;

/// Under another one, releases and builds are chosen anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    prefers_components: bool,
    policy: Policy,
}

impl Choice {
    pub(super) fn of(config: &Config) -> Self {
        Choice { prefers_components: config.host.component.prefer, policy: config.policy }
    }

    /// The one by which releases were last chosen in this folder. `None` where there was none, or
    /// another version of the agent wrote it differently: releases are chosen anew then.
    ///
    /// # Errors
    /// Why its file cannot be read.
    pub(super) fn last(state_dir: &Path) -> Result<Option<Self>, Error> {
        let path = state_dir.join(CHOICE_NAME);
        let bytes = files::read_limited(&path, CHOICE_MAX_BYTES);
        let bytes = bytes.map_err(|e| store::Error::io(&path, e))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Releases were chosen by it in this folder.
    ///
    /// # Errors
    /// Why its file cannot be written.
    pub(super) fn keep(self, state_dir: &Path) -> Result<(), Error> {
        let path = state_dir.join(CHOICE_NAME);
        // Plain words have no value that JSON cannot hold.
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        Ok(files::write_durable(&path, &bytes).map_err(|e| store::Error::io(&path, e))?)
    }
}

/// What this host can run, and what of it its operator prefers.
pub(super) fn facts(config: &Config) -> HostFacts {
    HostFacts { prefers_components: config.host.component.prefer, ..crate::host::facts() }
}
