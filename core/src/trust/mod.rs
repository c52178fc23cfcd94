//! The trust root: which keys an agent believes, and who may change them.
//!
//! The agent is given one file, a TUF root (The Update Framework, version 1.0 of its
//! specification, <https://theupdateframework.github.io/specification/>). Root keys, kept
//! offline, say who signs everything else; the targets keys sign one small file, the
//! [`Config`] with the registry's own keys and policies; the online keys sign, again and
//! again, which of these files are the newest ones (snapshot and timestamp).
//!
//! In scope: the configuration ([`Config`]), the four kinds of metadata as this registry
//! writes them ([`Root`], [`Targets`], [`Snapshot`], [`Timestamp`]) with their signatures
//! ([`Signed`]), their names ([`File`]), and the renewal that the online key makes
//! ([`renew()`]). Only what we write ourselves is read here: Ed25519, consistent snapshots, one
//! target, no delegations. Out of scope: the client's workflow, which is in the agent and
//! reads any TUF repository.

mod config;
mod file;
mod key;
mod metadata;
mod renew;
mod role;

pub use config::{
    CONFIG_MAX_BYTES, Config, ConfigError, KEYS_MAX, MAX_AGE_LARGEST, MAX_AGE_SMALLEST,
    TrustPolicy, WitnessPolicy,
};
pub use file::{CONFIG_TARGET, File};
pub use key::{PublicKey, SigningKey, TrustKeyError};
pub use metadata::{METADATA_MAX_BYTES, MetadataError, Signature, Signed};
pub use renew::{Current, Renewed, renew};
pub use role::{
    Common, Meta, ROOT_LIVES_FOR, Role, RoleKeys, RoleName, Roles, Root, SNAPSHOT_FRESH_FOR,
    SNAPSHOT_LIVES_FOR, Snapshot, TARGETS_LIVE_FOR, TIMESTAMP_FRESH_FOR, TIMESTAMP_LIVES_FOR,
    TargetMeta, Targets, Timestamp,
};

/// What holds for any bytes; the fuzz target and the corpus test call this. Whatever is read
/// is written so that it reads the same.
///
/// Answers whether the bytes were a configuration, metadata or a key at all.
///
/// # Panics
/// When a promise is broken: that is a bug in a parser.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    let config = Config::parse(bytes);
    if let Ok(config) = &config {
        assert_eq!(Config::parse(&config.to_bytes()).as_ref(), Ok(config));
    }
    let root = Signed::<Root>::parse(bytes);
    if let Ok(root) = &root {
        // A root that nobody signed is no root, whatever its threshold is.
        assert!(root.check(&root.signed).is_err() || !root.signatures.is_empty());
    }
    let mut read = config.is_ok();
    read |= reads_the_same::<Root>(bytes);
    read |= reads_the_same::<Targets>(bytes);
    read |= reads_the_same::<Snapshot>(bytes);
    read |= reads_the_same::<Timestamp>(bytes);
    if let Ok(key) = std::str::from_utf8(bytes).unwrap_or_default().parse::<PublicKey>() {
        assert_eq!(key.to_string().parse::<PublicKey>().as_ref(), Ok(&key));
        read = true;
    }
    read
}

fn reads_the_same<T: Role + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(read) = Signed::<T>::parse(bytes) else { return false };
    assert_eq!(Signed::<T>::parse(&read.to_bytes()).as_ref(), Ok(&read));
    true
}

#[cfg(test)]
mod tests;
