//! What the online key signs again and again: snapshot and timestamp.

use std::time::Duration;

use crate::time::Timestamp as Time;

use super::file::File;
use super::key::SigningKey;
use super::metadata::{MetadataError, Signed};
use super::role::{
    Meta, Role, RoleName, Root, SNAPSHOT_FRESH_FOR, SNAPSHOT_LIVES_FOR, Snapshot,
    TIMESTAMP_FRESH_FOR, TIMESTAMP_LIVES_FOR, Targets, Timestamp,
};

/// The newest files, as they are published.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// Root metadata. It is believed: take it from where only the operator writes.
    pub root: &'a [u8],
    /// Targets metadata.
    pub targets: &'a [u8],
    /// Snapshot metadata; absent before the first one.
    pub snapshot: Option<&'a [u8]>,
    /// Timestamp metadata; absent before the first one.
    pub timestamp: Option<&'a [u8]>,
}

/// What is to be written, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Names and bytes; empty when nothing is due.
    pub files: Vec<(File, Vec<u8>)>,
}

/// Signs snapshot and timestamp anew where that is due: when what they name has changed, when
/// the root gave their role another key, or when they have reached the age at which they are
/// renewed ([`SNAPSHOT_FRESH_FOR`], [`TIMESTAMP_FRESH_FOR`]).
///
/// Versions go on from what `current` has, whoever signed that: a file's name never comes back
/// with other content. What it says counts only if the role's present keys signed it: after a
/// stolen key was replaced, whatever the thief signed is as if it were not there, for every
/// client too.
///
/// # Errors
/// When the root or the targets metadata are not signed by enough keys, when `keys` are not
/// those of the two roles, or when something is no metadata at all.
pub fn renew(
    current: Current<'_>,
    keys: &[SigningKey],
    now: Time,
) -> Result<Renewed, MetadataError> {
    let root = Signed::<Root>::parse(current.root)?;
    root.check(&root.signed)?;
    let root = root.signed;
    let targets = Signed::<Targets>::parse(current.targets)?;
    targets.check(&root)?;
    let targets = Meta::of(targets.signed.common.version, current.targets);

    let mut renewed = Renewed::default();
    let last = Last::<Snapshot>::read(current.snapshot, &root)?;
    if let Some(believed) = &last.believed
        && believed.targets().version > targets.version
    {
        return Err(MetadataError::Rule {
            role: RoleName::Targets,
            rule: format!(
                "is version {}, the published snapshot names version {}; fetch the newest files first",
                targets.version,
                believed.targets().version
            ),
        });
    }
    let is_kept = last.believed.as_ref().is_some_and(|it| {
        *it.targets() == targets && is_fresh(it, SNAPSHOT_LIVES_FOR, SNAPSHOT_FRESH_FOR, now)
    });
    let snapshot = match current.snapshot {
        Some(bytes) if is_kept => Meta::of(last.version, bytes),
        _ => {
            let version = last.next()?;
            let snapshot = Snapshot::new(version, now.plus(SNAPSHOT_LIVES_FOR), targets);
            let bytes = sign(snapshot, &root, keys)?;
            let meta = Meta::of(version, &bytes);
            renewed.files.push((File::Snapshot(version), bytes));
            meta
        }
    };
    let last = Last::<Timestamp>::read(current.timestamp, &root)?;
    let is_kept = last.believed.as_ref().is_some_and(|it| {
        *it.snapshot() == snapshot && is_fresh(it, TIMESTAMP_LIVES_FOR, TIMESTAMP_FRESH_FOR, now)
    });
    if !is_kept {
        let timestamp = Timestamp::new(last.next()?, now.plus(TIMESTAMP_LIVES_FOR), snapshot);
        renewed.files.push((File::Timestamp, sign(timestamp, &root, keys)?));
    }
    Ok(renewed)
}

/// What is published of a role.
struct Last<T> {
    /// 0 where nothing is.
    version: u64,
    /// What it says, if the role's present keys signed it.
    believed: Option<T>,
}

impl<T: Role> Last<T> {
    fn read(bytes: Option<&[u8]>, root: &Root) -> Result<Self, MetadataError> {
        let Some(bytes) = bytes else { return Ok(Last { version: 0, believed: None }) };
        let read = Signed::<T>::parse(bytes)?;
        let is_believed = read.check(root).is_ok();
        let version = read.signed.common().version;
        Ok(Last { version, believed: is_believed.then_some(read.signed) })
    }

    fn next(&self) -> Result<u64, MetadataError> {
        self.version.checked_add(1).ok_or(MetadataError::Exhausted(T::NAME))
    }
}

/// Whether metadata that lives for `life` was signed less than `fresh` ago.
fn is_fresh<T: Role>(signed: &T, life: Duration, fresh: Duration, now: Time) -> bool {
    let expires = signed.common().expires;
    // What lives longer was signed with another rule, or by somebody else: it is replaced.
    now < expires && expires.since(now) <= life && now.plus(life - fresh) < expires
}

fn sign<T: Role>(signed: T, root: &Root, keys: &[SigningKey]) -> Result<Vec<u8>, MetadataError> {
    let mut signed = Signed::new(signed);
    let allowed = &root.role(T::NAME).keyids;
    for key in keys.iter().filter(|key| allowed.contains(&key.public().id())) {
        signed.sign(key);
    }
    if let (true, Some(key)) = (signed.signatures.is_empty(), keys.first()) {
        return Err(MetadataError::Key { role: T::NAME, key: key.public().id() });
    }
    signed.check(root)?;
    Ok(signed.to_bytes())
}
