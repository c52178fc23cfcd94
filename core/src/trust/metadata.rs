//! The signed envelope (TUF specification, section 4.2): signatures over the canonical JSON
//! of what a role says.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

use super::key::SigningKey;
use super::role::{Role, RoleName, Root};

/// Longest metadata that is read, in bytes: a root of 64 keys with as many signatures has a
/// third of that.
pub const METADATA_MAX_BYTES: usize = 64 * 1024;

/// Why metadata was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Longer than [`METADATA_MAX_BYTES`].
    #[error("metadata has at most {METADATA_MAX_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// Not the JSON that is written here.
    #[error("not {role} metadata as this registry writes it: {reason}")]
    Form {
        /// The role that was expected.
        role: RoleName,
        /// What the parser says.
        reason: String,
    },
    /// Metadata of another role.
    #[error("metadata of {found} stands where {expected} is expected")]
    Role {
        /// The role that was expected.
        expected: RoleName,
        /// The role that it says.
        found: RoleName,
    },
    /// A rule of the role is broken.
    #[error("the {role} metadata {rule}")]
    Rule {
        /// The role.
        role: RoleName,
        /// What it does.
        rule: String,
    },
    /// Too few of the role's keys signed.
    #[error("{role} version {version} has {found} of the {threshold} signatures that it needs")]
    Threshold {
        /// The role.
        role: RoleName,
        /// The version that is signed.
        version: u64,
        /// Good signatures by different keys of the role.
        found: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// A root that does not follow the one before.
    #[error(
        "root version {found} does not follow version {last}; every version in between is needed"
    )]
    Succession {
        /// The root before.
        last: u64,
        /// The root that was shown.
        found: u64,
    },
    /// A key that the root does not give the role.
    #[error("the key {key} is none of {role}; use one that the root names for it")]
    Key {
        /// The role.
        role: RoleName,
        /// The key's identifier.
        key: Digest,
    },
    /// No further version number is left.
    #[error(
        "{0} has the last version number that there is; take the file away if a thief signed it"
    )]
    Exhausted(RoleName),
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Identifier of the key.
    pub keyid: Digest,
    /// 64 bytes as 128 lower-case hexadecimal digits.
    pub sig: String,
}

/// What a role says, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed<T> {
    /// In the order of the key identifiers, at most one each.
    pub signatures: Vec<Signature>,
    /// What is signed.
    pub signed: T,
}

impl<T: Role> Signed<T> {
    /// Nobody signed it yet.
    pub const fn new(signed: T) -> Self {
        Signed { signatures: Vec::new(), signed }
    }

    /// Reads metadata. Signatures are the caller's to check: see [`Signed::check`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() > METADATA_MAX_BYTES {
            return Err(MetadataError::TooLong(bytes.len()));
        }
        let form = |reason: String| MetadataError::Form { role: T::NAME, reason };
        let read: Self = serde_json::from_slice(bytes).map_err(|error| form(error.to_string()))?;
        read.signed.common().check(T::NAME)?;
        // Fields that are unknown here would be signed and not read: then the signatures do not
        // fit what is read. This names the cause.
        let whole: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| form(error.to_string()))?;
        if whole.get("signed").map(canonical) != Some(canonical(&read.signed)) {
            return Err(form("it has a field or a spelling that is unknown here".to_owned()));
        }
        let keys: BTreeSet<&Digest> = read.signatures.iter().map(|one| &one.keyid).collect();
        if keys.len() != read.signatures.len() {
            return Err(form("one key signed twice".to_owned()));
        }
        read.signed.check_rules()?;
        Ok(read)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        json_line(self)
    }

    /// Adds or replaces the key's signature.
    pub fn sign(&mut self, key: &SigningKey) {
        let keyid = key.public().id();
        let sig = hex(&key.sign(&canonical(&self.signed)));
        self.signatures.retain(|signature| signature.keyid != keyid);
        let place = self.signatures.partition_point(|signature| signature.keyid < keyid);
        self.signatures.insert(place, Signature { keyid, sig });
    }

    /// The keys of the role, as `root` has it, whose signatures are good.
    pub fn signers(&self, root: &Root) -> BTreeSet<Digest> {
        let text = canonical(&self.signed);
        let allowed = &root.role(T::NAME).keyids;
        self.signatures
            .iter()
            .filter(|signature| allowed.contains(&signature.keyid))
            .filter(|signature| {
                root.keys
                    .get(&signature.keyid)
                    .zip(unhex(&signature.sig))
                    .is_some_and(|(key, bytes)| key.verifies(&text, &bytes))
            })
            .map(|signature| signature.keyid)
            .collect()
    }

    /// Whether enough of the role's keys signed, as `root` has them.
    ///
    /// # Errors
    /// [`MetadataError::Threshold`].
    pub fn check(&self, root: &Root) -> Result<(), MetadataError> {
        let (found, threshold) = (self.signers(root).len(), root.role(T::NAME).threshold);
        if found >= threshold {
            return Ok(());
        }
        let version = self.signed.common().version;
        Err(MetadataError::Threshold { role: T::NAME, version, found, threshold })
    }
}

impl Signed<Root> {
    /// Whether this root may follow `last`: the next version, signed by enough keys of both
    /// (TUF specification, section 5.3).
    ///
    /// # Errors
    /// [`MetadataError::Succession`] or [`MetadataError::Threshold`].
    pub fn check_follows(&self, last: &Root) -> Result<(), MetadataError> {
        let (last_version, found) = (last.common.version, self.signed.common.version);
        if last_version.checked_add(1) != Some(found) {
            return Err(MetadataError::Succession { last: last_version, found });
        }
        self.check(last)?;
        self.check(&self.signed)
    }
}

/// Canonical JSON (OLPC), which signatures and key identifiers are made over.
pub(super) fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let formatter = olpc_cjson::CanonicalFormatter::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => bytes,
        // Only numbers with fractions have no canonical form. Text that no signature can be
        // over: nothing verifies then.
        Err(_) => Vec::new(),
    }
}

/// JSON for files: indented, for people, with a last line end.
pub(super) fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing to memory does not fail, and all keys are strings.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// A signature's digits: two digests are as long.
fn hex(signature: &[u8; 64]) -> String {
    let half = |at: usize| {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&signature[at..at + 32]);
        Digest::from_bytes(bytes)
    };
    format!("{}{}", half(0), half(32))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (first, second) = text.split_at_checked(64)?;
    let (first, second): (Digest, Digest) = (first.parse().ok()?, second.parse().ok()?);
    Some([first.as_bytes().as_slice(), second.as_bytes()].concat())
}
