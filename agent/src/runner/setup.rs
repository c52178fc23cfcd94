//! What a runner is told beyond its messages. The agent writes it, and a runner believes its
//! agent.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

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

/// Bytes of a number that says how long what follows is.
const LENGTH_BYTES: usize = 4;

/// What a runner loads, and how. What the plugin's `create` is given follows it in the message,
/// see [`Load::message`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// A native library: the file that was sent before is its sealed copy.
    Native {
        /// The folder with the plugin's files.
        assets: String,
    },
    /// A component: the file that was sent before is its machine code, which the agent made.
    Component {
        /// The plugin's files.
        assets: Assets,
        /// What its stores may take, and how long.
        settings: Settings,
    },
}

impl Load {
    /// The body of the message that tells a runner what to load and what to give to the plugin's
    /// `create`: the length of the first part in 4 bytes, little-endian, then both. Overwritten
    /// when dropped, for a configuration may hold secrets.
    pub(crate) fn message(&self, config: &[u8]) -> std::io::Result<Zeroizing<Vec<u8>>> {
        let how = serde_json::to_vec(self)?;
        let length = u32::try_from(how.len()).map_err(std::io::Error::other)?;
        // Reserved whole: growing would leave copies.
        let mut body = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + how.len() + config.len()));
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&how);
        body.extend_from_slice(config);
        Ok(body)
    }

    /// Takes apart what [`Load::message`] put together: what to load, and the configuration.
    pub(crate) fn parse(body: &[u8]) -> std::io::Result<(Load, &[u8])> {
        let parts = body
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let (how, config) = parts.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((serde_json::from_slice(how)?, config))
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_to_load_and_its_configuration_come_back_apart() {
        let load = Load::Native { assets: "/plugins/one".to_owned() };
        for config in [&b""[..], b"{\"token\":\"x\"}", &[0xff; 70_000]] {
            let body = load.message(config).unwrap();
            let (Load::Native { assets }, given) = Load::parse(&body).unwrap() else {
                panic!("it is another kind")
            };
            assert_eq!((assets.as_str(), given), ("/plugins/one", config));
        }
        let body = load.message(b"").unwrap();
        for length in 0..body.len() {
            assert!(Load::parse(&body[..length]).is_err(), "{length}");
        }
    }
}
