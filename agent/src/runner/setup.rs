//! What a runner is told beyond its messages. The agent writes it, and a runner believes its
//! agent.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::host::component::{Assets, Settings};
use crate::sandbox::SandboxPolicy;

/// What a runner may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The agent's process, with which the runner ends.
    pub(crate) agent: u32,
    /// The sandbox.
    pub(crate) policy: SandboxPolicy,
    /// Whether it goes on only where all of the sandbox is in force.
    pub(crate) must_enforce: bool,
}

/// What a runner loads, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// A native library: the file that was sent before is its sealed copy.
    Native {
        /// The folder with the plugin's files.
        assets: String,
        /// What its `create` is given.
        config: Vec<u8>,
    },
    /// A component: the file that was sent before is its machine code, which the agent made.
    Component {
        /// The plugin's files.
        assets: Assets,
        /// What its stores may take, and how long.
        settings: Settings,
        /// What its `create` is given.
        config: Vec<u8>,
    },
}

/// Writes a value into a memory file.
pub(crate) fn write<T: Serialize>(value: &T) -> std::io::Result<OwnedFd> {
    files::sealed("modunest-setup", &serde_json::to_vec(value)?)
}

/// Reads what [`write()`] wrote.
pub(crate) fn read<T: DeserializeOwned>(file: OwnedFd) -> std::io::Result<T> {
    let mut file = File::from(file);
    std::io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
