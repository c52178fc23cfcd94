//! The head: a signed note over the whole index, and the only part of it that changes.

use std::time::Duration;

use modunest_tlog::{Note, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::IndexError;
use crate::digest::Digest;
use crate::statement::RegistryKeys;
use crate::time::Timestamp;

const FIRST_LINE: &str = "modunest/head/v1";
/// Longest head, in bytes: its few fields and a handful of signatures.
pub const HEAD_MAX_BYTES: usize = 8 * 1024;

/// How long a head is valid: an agent that was shown nothing newer for so long stops
/// believing (a freeze). One day bridges an outage of the registry.
pub const HEAD_LIVES_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// When a registry signs its head again though nothing changed: well before it expires, so
/// that an outage of half the time is bridged.
pub const HEAD_FRESH_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// Size and root of the log that the index was folded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    /// Number of entries.
    pub size: u64,
    /// Merkle tree hash (RFC 6962, section 2.1).
    pub root: Digest,
}

/// What the head says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Name of the registry: the key's name and the first contact's check.
    pub origin: String,
    /// Grows by one with every head that differs in more than its times.
    pub epoch: u64,
    /// The log that the index was folded from.
    pub log: LogHead,
    /// Digest of the root node.
    pub index: Digest,
    /// Digest of the revocation feed; absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<Digest>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// From when on it must not be believed.
    pub expires_at: Timestamp,
}

impl Head {
    /// Signs the head.
    ///
    /// # Errors
    /// [`IndexError::Head`].
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, IndexError> {
        modunest_tlog::sign(&self.text()?, &[key])
            .map_err(|error| IndexError::Head(error.to_string()))
    }

    /// The text that is signed.
    ///
    /// # Errors
    /// [`IndexError::Head`].
    pub fn text(&self) -> Result<String, IndexError> {
        let json =
            serde_json::to_string(self).map_err(|error| IndexError::Head(error.to_string()))?;
        Ok(format!("{FIRST_LINE}\n{json}\n"))
    }

    /// Reads a head that one of `keys` signed. Times and epoch are the caller's to judge:
    /// see [`Head::check_fresh`] and [`Head::check_newer`].
    ///
    /// # Errors
    /// [`IndexError::Head`], with the reason.
    pub fn verify(bytes: &[u8], origin: &str, keys: &[VerifyingKey]) -> Result<Head, IndexError> {
        let bad = |reason: String| IndexError::Head(reason);
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(bad(format!(
                "it has {} bytes, at most {HEAD_MAX_BYTES} are read",
                bytes.len()
            )));
        }
        let note = Note::parse(bytes).map_err(|error| bad(error.to_string()))?;
        let verified = note.verify(keys).map_err(|error| bad(error.to_string()))?;
        let head = Head::parse_text(verified.text)?;
        if head.origin != origin {
            return Err(bad(format!(
                "it is by \"{}\", the registry's origin is \"{origin}\"",
                head.origin
            )));
        }
        Ok(head)
    }

    /// Reads a head that was signed by one of the keys which are believed at its log's size: a
    /// key that was retired is believed below the size at which it ended. Nothing is read before
    /// a signature is proven.
    ///
    /// # Errors
    /// [`IndexError::Head`], with the reason.
    pub fn verify_at_its_size(
        bytes: &[u8],
        origin: &str,
        keys: &RegistryKeys,
    ) -> Result<Head, IndexError> {
        let all: Vec<VerifyingKey> = keys.0.iter().map(|key| key.key.clone()).collect();
        let head = Head::verify(bytes, origin, &all)?;
        let believed: Vec<VerifyingKey> = keys.at(head.log.size).cloned().collect();
        if believed.len() == all.len() {
            return Ok(head);
        }
        Head::verify(bytes, origin, &believed)
    }

    /// Reads what a head says, unproven: for who hands it on and believes nothing of it.
    ///
    /// # Errors
    /// [`IndexError::Head`], when the bytes are no head.
    pub fn read_unproven(bytes: &[u8]) -> Result<Head, IndexError> {
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(IndexError::Head(format!("it has more than {HEAD_MAX_BYTES} bytes")));
        }
        let note = Note::parse(bytes).map_err(|error| IndexError::Head(error.to_string()))?;
        Head::parse_text(note.unverified_text())
    }

    fn parse_text(text: &str) -> Result<Head, IndexError> {
        let (first, json) = text.split_once('\n').unwrap_or((text, ""));
        if first != FIRST_LINE {
            return Err(IndexError::Head(format!("its first line is not {FIRST_LINE}")));
        }
        serde_json::from_str(json).map_err(|error| IndexError::Head(error.to_string()))
    }

    /// Whether the head may be believed at `now`.
    ///
    /// # Errors
    /// When it has expired, or was signed more than `clock_skew` in the future.
    pub fn check_fresh(&self, now: Timestamp, clock_skew: Duration) -> Result<(), IndexError> {
        if now >= self.expires_at {
            return Err(IndexError::Head(format!(
                "it expired at {} and it is {now}: the registry or a mirror is holding newer heads back, or this clock is ahead",
                self.expires_at
            )));
        }
        if self.issued_at > now.plus(clock_skew) {
            return Err(IndexError::Head(format!(
                "it was signed at {}, in the future of this clock ({now}); set the clock",
                self.issued_at
            )));
        }
        Ok(())
    }

    /// Whether the head may follow `last`, the newest one that was believed before.
    ///
    /// # Errors
    /// When the epoch went back, or one epoch shows two indexes.
    pub fn check_newer(&self, last: &Head) -> Result<(), IndexError> {
        if self.epoch < last.epoch {
            return Err(IndexError::Head(format!(
                "its epoch went back from {} to {}: somebody shows an old index",
                last.epoch, self.epoch
            )));
        }
        if self.epoch == last.epoch
            && (self.index, self.log, self.revocations) != (last.index, last.log, last.revocations)
        {
            return Err(IndexError::Head(format!(
                "epoch {} was shown with two different indexes",
                self.epoch
            )));
        }
        Ok(())
    }
}
