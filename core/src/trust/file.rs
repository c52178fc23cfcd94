//! Names of the files below `/trust/` (TUF specification, section 6.1, "Consistent
//! snapshots": everything but the timestamp carries its version or its hash in its name).

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

use super::role::RoleName;

/// The one target, as it is listed in the targets metadata.
pub const CONFIG_TARGET: &str = "config.json";
/// The folder of targets.
const TARGETS_FOLDER: &str = "targets/";

/// A file of the trust root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// Root metadata of a version.
    Root(u64),
    /// Targets metadata of a version.
    Targets(u64),
    /// Snapshot metadata of a version.
    Snapshot(u64),
    /// The timestamp: the only one that changes.
    Timestamp,
    /// A configuration, named by its content.
    Config(Digest),
}

impl File {
    /// The file of a role's version.
    pub const fn of(role: RoleName, version: u64) -> File {
        match role {
            RoleName::Root => File::Root(version),
            RoleName::Targets => File::Targets(version),
            RoleName::Snapshot => File::Snapshot(version),
            RoleName::Timestamp => File::Timestamp,
        }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            File::Root(version) => write!(f, "{version}.root.json"),
            File::Targets(version) => write!(f, "{version}.targets.json"),
            File::Snapshot(version) => write!(f, "{version}.snapshot.json"),
            File::Timestamp => f.write_str("timestamp.json"),
            File::Config(digest) => write!(f, "{TARGETS_FOLDER}{digest}.{CONFIG_TARGET}"),
        }
    }
}

/// The text names no file of the trust root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a trust root has N.root.json, N.targets.json, N.snapshot.json, timestamp.json and targets/HASH.{CONFIG_TARGET}"
)]
pub struct FileError;

impl FromStr for File {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, FileError> {
        if text == "timestamp.json" {
            return Ok(File::Timestamp);
        }
        if let Some(target) = text.strip_prefix(TARGETS_FOLDER) {
            let hex = target.strip_suffix(CONFIG_TARGET).and_then(|hex| hex.strip_suffix('.'));
            let digest = hex.and_then(|hex| hex.parse().ok());
            return digest.map(File::Config).ok_or(FileError);
        }
        let (number, rest) = text.split_once('.').ok_or(FileError)?;
        let version: u64 = number.parse().map_err(|_| FileError)?;
        // One spelling only: no sign, no leading zero, no version 0.
        if version == 0 || number != version.to_string() {
            return Err(FileError);
        }
        match rest {
            "root.json" => Ok(File::Root(version)),
            "targets.json" => Ok(File::Targets(version)),
            "snapshot.json" => Ok(File::Snapshot(version)),
            _ => Err(FileError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_is_one() {
        for file in [
            File::Root(1),
            File::Targets(u64::MAX),
            File::Snapshot(7),
            File::Timestamp,
            File::Config(Digest::of(b"x")),
        ] {
            assert_eq!(file.to_string().parse(), Ok(file));
        }
        for bad in [
            "",
            "root.json",
            "0.root.json",
            "01.root.json",
            "+1.root.json",
            "1.root.json/",
            "1.timestamp.json",
            "1.mirrors.json",
            "18446744073709551616.root.json",
            "targets/config.json",
            "targets/00.config.json",
            "targets/../timestamp.json",
        ] {
            assert_eq!(bad.parse::<File>(), Err(FileError), "{bad}");
        }
    }
}
