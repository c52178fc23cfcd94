//! What a runner is told beyond its messages. The agent writes it, and a runner believes its
//! agent.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
}

/// Writes a value into a memory file.
pub(crate) fn write<T: Serialize>(value: &T) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("modunest-setup", flags)?);
    file.write_all(&serde_json::to_vec(value)?)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Reads what [`write`] wrote.
pub(crate) fn read<T: DeserializeOwned>(file: OwnedFd) -> std::io::Result<T> {
    let mut file = File::from(file);
    std::io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
