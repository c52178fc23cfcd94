//! The four roles and what each signs (TUF specification, sections 4.3 to 4.6).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::time::{self, Timestamp as Time};

use super::config::CONFIG_MAX_BYTES;
use super::file::CONFIG_TARGET;
use super::key::PublicKey;
use super::metadata::MetadataError;

/// Version of the specification that is written; readers compare its first number only.
pub(super) const SPEC_VERSION: &str = "1.0.34";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root is valid. Its holders meet once a year at least.
pub const ROOT_LIVES_FOR: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How long targets metadata is valid: its holders are the root's, or meet with them.
pub const TARGETS_LIVE_FOR: Duration = ROOT_LIVES_FOR;
/// How long a snapshot is valid.
pub const SNAPSHOT_LIVES_FOR: Duration = Duration::from_secs(30 * DAY.as_secs());
/// From which age on a snapshot is signed again though nothing changed.
pub const SNAPSHOT_FRESH_FOR: Duration = Duration::from_secs(7 * DAY.as_secs());
/// How long a timestamp is valid: for so long can somebody hold a new configuration back, and
/// so long does a host go on that reaches no registry.
pub const TIMESTAMP_LIVES_FOR: Duration = Duration::from_secs(7 * DAY.as_secs());
/// From which age on a timestamp is signed again: six missed renewals are bridged.
pub const TIMESTAMP_FRESH_FOR: Duration = DAY;

/// A role of the trust root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Says which keys the roles have. Offline.
    Root,
    /// Says which configuration is right. Offline.
    Targets,
    /// Says which targets metadata is the newest. Online.
    Snapshot,
    /// Says which snapshot is the newest. Online.
    Timestamp,
}

impl RoleName {
    /// Every role.
    pub const ALL: [RoleName; 4] =
        [RoleName::Root, RoleName::Targets, RoleName::Snapshot, RoleName::Timestamp];

    /// The word in metadata and file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            RoleName::Root => "root",
            RoleName::Targets => "targets",
            RoleName::Snapshot => "snapshot",
            RoleName::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a role signs.
pub trait Role: Serialize + DeserializeOwned {
    /// Which role.
    const NAME: RoleName;

    /// The fields that every role has.
    fn common(&self) -> &Common;

    /// The rules of this role beyond the form.
    ///
    /// # Errors
    /// [`MetadataError::Rule`].
    fn check_rules(&self) -> Result<(), MetadataError>;
}

/// The fields that every role has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    #[serde(rename = "_type")]
    kind: RoleName,
    spec_version: String,
    /// Grows by one with every change.
    pub version: u64,
    /// From when on it must not be believed. Whole seconds.
    #[serde(with = "seconds")]
    pub expires: Time,
}

impl Common {
    /// The fields of a role's version.
    pub fn new(kind: RoleName, version: u64, expires: Time) -> Self {
        // The format has no fractions; rounded down, nothing lives longer than it was meant to.
        let expires = Time::from_millis(expires.as_secs() * 1000);
        Common { kind, spec_version: SPEC_VERSION.to_owned(), version, expires }
    }

    pub(super) fn check(&self, name: RoleName) -> Result<(), MetadataError> {
        if self.kind != name {
            return Err(MetadataError::Role { expected: name, found: self.kind });
        }
        if self.spec_version.split('.').next() != Some("1") {
            return Err(rule(name, "is of another version of TUF than 1"));
        }
        if self.version == 0 {
            return Err(rule(name, "has version 0; the first is 1"));
        }
        Ok(())
    }
}

fn rule(role: RoleName, rule: impl Into<String>) -> MetadataError {
    MetadataError::Rule { role, rule: rule.into() }
}

/// `2030-01-02T03:04:05Z` and nothing else (TUF specification, section 4.2, "date-time").
mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Time;

    pub fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time.to_string();
        let seconds = text.split('.').next().unwrap_or_default();
        serializer.collect_str(&format_args!("{seconds}Z"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        super::parse_seconds(&text)
            .ok_or_else(|| serde::de::Error::custom("a time is written 2030-01-02T03:04:05Z"))
    }
}

fn parse_seconds(text: &str) -> Option<Time> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let mut date = date.splitn(3, '-').map(number);
    let mut clock = clock.splitn(3, ':').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if year > 9999 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = time::days_from_civil(year, month, day)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let time = Time::from_millis(seconds * 1000);
    // Whatever is not written back the same is another spelling, or a day that does not exist.
    (time.to_string().strip_suffix(".000Z") == text.strip_suffix('Z')).then_some(time)
}

/// Which keys may sign for a role, and how many of them must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Identifiers of the keys.
    pub keyids: Vec<Digest>,
    /// How many different ones must sign.
    pub threshold: usize,
}

impl RoleKeys {
    /// A role with these keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a PublicKey>, threshold: usize) -> Self {
        let keyids: BTreeSet<Digest> = keys.into_iter().map(PublicKey::id).collect();
        RoleKeys { keyids: keyids.into_iter().collect(), threshold }
    }
}

/// The keys of each role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// Of the root.
    pub root: RoleKeys,
    /// Of the targets.
    pub targets: RoleKeys,
    /// Of the snapshot.
    pub snapshot: RoleKeys,
    /// Of the timestamp.
    pub timestamp: RoleKeys,
}

/// Root metadata: the keys of every role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What every role has.
    #[serde(flatten)]
    pub common: Common,
    consistent_snapshot: bool,
    /// Every key that a role names, by its identifier.
    pub keys: BTreeMap<Digest, PublicKey>,
    /// Who signs what.
    pub roles: Roles,
}

impl Root {
    /// A root with these keys. Keys that no role names are left out.
    ///
    /// # Errors
    /// [`MetadataError::Rule`], when the roles ask for what the keys cannot give.
    pub fn new<'a>(
        version: u64,
        expires: Time,
        keys: impl IntoIterator<Item = &'a PublicKey>,
        roles: Roles,
    ) -> Result<Self, MetadataError> {
        let mut root = Root {
            common: Common::new(RoleName::Root, version, expires),
            consistent_snapshot: true,
            keys: keys.into_iter().map(|key| (key.id(), *key)).collect(),
            roles,
        };
        let named: BTreeSet<Digest> =
            RoleName::ALL.iter().flat_map(|role| root.role(*role).keyids.clone()).collect();
        root.keys.retain(|id, _| named.contains(id));
        root.check_rules()?;
        Ok(root)
    }

    /// The keys of a role.
    pub const fn role(&self, role: RoleName) -> &RoleKeys {
        match role {
            RoleName::Root => &self.roles.root,
            RoleName::Targets => &self.roles.targets,
            RoleName::Snapshot => &self.roles.snapshot,
            RoleName::Timestamp => &self.roles.timestamp,
        }
    }
}

impl Role for Root {
    const NAME: RoleName = RoleName::Root;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check_rules(&self) -> Result<(), MetadataError> {
        let wrong = |text: String| Err(rule(RoleName::Root, text));
        if !self.consistent_snapshot {
            return wrong("does not say consistent_snapshot".to_owned());
        }
        if let Some((id, _)) = self.keys.iter().find(|(id, key)| **id != key.id()) {
            return wrong(format!("lists a key under {id}, which is not its identifier"));
        }
        for role in RoleName::ALL {
            let RoleKeys { keyids, threshold } = self.role(role);
            let distinct: BTreeSet<&Digest> = keyids.iter().collect();
            if distinct.len() != keyids.len() {
                return wrong(format!("names a key of {role} twice"));
            }
            if !(1..=keyids.len()).contains(threshold) {
                return wrong(format!(
                    "asks for {threshold} signatures of the {} keys of {role}",
                    keyids.len()
                ));
            }
            if let Some(id) = keyids.iter().find(|id| !self.keys.contains_key(id)) {
                return wrong(format!("names {id} for {role} and does not list that key"));
            }
        }
        // Whoever steals the online machine must not get the root with it.
        let offline = [&self.roles.root, &self.roles.targets];
        let online = [&self.roles.snapshot, &self.roles.timestamp];
        let mut offline = offline.iter().flat_map(|role| &role.keyids);
        let shared = offline.find(|id| online.iter().any(|role| role.keyids.contains(id)));
        match shared {
            Some(id) => wrong(format!("gives {id} to an offline and an online role")),
            None => Ok(()),
        }
    }
}

/// Length and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetMeta {
    /// In bytes.
    pub length: u64,
    hashes: Hashes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hashes {
    sha256: Digest,
}

impl TargetMeta {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        TargetMeta { length: bytes.len() as u64, hashes: Hashes { sha256: Digest::of(bytes) } }
    }

    /// SHA-256 of the file.
    pub const fn digest(&self) -> Digest {
        self.hashes.sha256
    }
}

/// Targets metadata: which configuration is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// What every role has.
    #[serde(flatten)]
    pub common: Common,
    targets: ConfigEntry,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigEntry {
    #[serde(rename = "config.json")]
    config: TargetMeta,
}

impl Targets {
    /// Names a configuration, by its bytes.
    pub fn new(version: u64, expires: Time, config: &[u8]) -> Self {
        let common = Common::new(RoleName::Targets, version, expires);
        Targets { common, targets: ConfigEntry { config: TargetMeta::of(config) } }
    }

    /// The configuration.
    pub const fn config(&self) -> &TargetMeta {
        &self.targets.config
    }
}

impl Role for Targets {
    const NAME: RoleName = RoleName::Targets;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check_rules(&self) -> Result<(), MetadataError> {
        if self.config().length > CONFIG_MAX_BYTES as u64 {
            return Err(rule(
                RoleName::Targets,
                format!("names a {CONFIG_TARGET} of more than {CONFIG_MAX_BYTES} bytes"),
            ));
        }
        Ok(())
    }
}

/// Version, length and hash of a role's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Its version.
    pub version: u64,
    /// In bytes.
    pub length: u64,
    hashes: Hashes,
}

impl Meta {
    /// Of metadata of this version with these bytes.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        let TargetMeta { length, hashes } = TargetMeta::of(bytes);
        Meta { version, length, hashes }
    }

    /// SHA-256 of the file.
    pub const fn digest(&self) -> Digest {
        self.hashes.sha256
    }
}

/// Snapshot metadata: which targets metadata is the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What every role has.
    #[serde(flatten)]
    pub common: Common,
    meta: TargetsEntry,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsEntry {
    #[serde(rename = "targets.json")]
    targets: Meta,
}

impl Snapshot {
    /// Names targets metadata.
    pub fn new(version: u64, expires: Time, targets: Meta) -> Self {
        let common = Common::new(RoleName::Snapshot, version, expires);
        Snapshot { common, meta: TargetsEntry { targets } }
    }

    /// The targets metadata.
    pub const fn targets(&self) -> &Meta {
        &self.meta.targets
    }
}

impl Role for Snapshot {
    const NAME: RoleName = RoleName::Snapshot;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check_rules(&self) -> Result<(), MetadataError> {
        Ok(())
    }
}

/// Timestamp metadata: which snapshot is the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// What every role has.
    #[serde(flatten)]
    pub common: Common,
    meta: SnapshotEntry,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotEntry {
    #[serde(rename = "snapshot.json")]
    snapshot: Meta,
}

impl Timestamp {
    /// Names a snapshot.
    pub fn new(version: u64, expires: Time, snapshot: Meta) -> Self {
        let common = Common::new(RoleName::Timestamp, version, expires);
        Timestamp { common, meta: SnapshotEntry { snapshot } }
    }

    /// The snapshot.
    pub const fn snapshot(&self) -> &Meta {
        &self.meta.snapshot
    }
}

impl Role for Timestamp {
    const NAME: RoleName = RoleName::Timestamp;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check_rules(&self) -> Result<(), MetadataError> {
        Ok(())
    }
}
