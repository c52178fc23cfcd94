//! Checkpoints: a log's size and root, signed (<https://c2sp.org/tlog-checkpoint>).

use std::fmt;

use crate::cosignature::{Cosignature, WitnessKey};
use crate::hash::TreeHash;
use crate::key::{SigningKey, VerifyingKey};
use crate::note::{Note, NoteError, sign};
use crate::tile::decimal;

/// Longest checkpoint that is read, in bytes: three short lines and a hundred signatures of
/// at most 400 bytes.
pub const CHECKPOINT_MAX_BYTES: usize = 64 * 1024;

/// How large a log is, and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: TreeHash,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than [`CHECKPOINT_MAX_BYTES`].
    #[error("the checkpoint has {0} bytes; at most {CHECKPOINT_MAX_BYTES} are read")]
    TooLong(usize),
    /// The note is malformed or not signed by the log.
    #[error("the checkpoint is not believed: {0}")]
    Note(#[from] NoteError),
    /// The text is not origin, size and root.
    #[error("the checkpoint's text is not three lines: origin, size in decimal, root in base64")]
    Form,
    /// It is of another log.
    #[error("the checkpoint is of the log {found}, not of {expected}")]
    Origin {
        /// What it says.
        found: String,
        /// Which log was meant.
        expected: String,
    },
    /// A witness that is known signed something else.
    #[error("the cosignature by {0} is wrong")]
    Cosignature(String),
}

/// A checkpoint that its log signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The whole note, verbatim.
    bytes: Vec<u8>,
}

impl Checkpoint {
    /// Reads a checkpoint's text. Extension lines are refused: nobody could audit them
    /// ("Note text", point 4), and this system has none.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let form = CheckpointError::Form;
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(form.clone())?.split('\n').collect();
        let [origin, size, root] = lines.as_slice() else { return Err(form) };
        if origin.is_empty() {
            return Err(form);
        }
        Ok(Checkpoint {
            origin: (*origin).to_owned(),
            size: decimal(size).ok_or(form.clone())?,
            root: root.parse().map_err(|_| form)?,
        })
    }

    /// Signs it as the log.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] when the origin cannot stand in a note.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedCheckpoint, CheckpointError> {
        let bytes = sign(&self.to_string(), &[key])?;
        Ok(SignedCheckpoint { checkpoint: self.clone(), bytes })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, self.root)
    }
}

impl SignedCheckpoint {
    /// Reads a checkpoint and proves that one of `keys` signed it as the log `origin`.
    ///
    /// # Errors
    /// [`CheckpointError`], for the first thing that is wrong.
    pub fn verify(
        bytes: &[u8],
        origin: &str,
        keys: &[VerifyingKey],
    ) -> Result<Self, CheckpointError> {
        if bytes.len() > CHECKPOINT_MAX_BYTES {
            return Err(CheckpointError::TooLong(bytes.len()));
        }
        let note = Note::parse(bytes)?;
        let verified = note.verify(keys)?;
        let checkpoint = Checkpoint::parse(verified.text)?;
        if checkpoint.origin != origin {
            let (found, expected) = (checkpoint.origin, origin.to_owned());
            return Err(CheckpointError::Origin { found, expected });
        }
        Ok(SignedCheckpoint { checkpoint, bytes: bytes.to_vec() })
    }

    /// The whole note, as it was read or signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The cosignatures by `witnesses`. Lines of others are passed over; a line of a known
    /// witness must be right.
    ///
    /// # Errors
    /// [`CheckpointError::Cosignature`].
    pub fn cosignatures<'w>(
        &self,
        witnesses: impl IntoIterator<Item = &'w WitnessKey>,
    ) -> Result<Vec<(&'w WitnessKey, Cosignature)>, CheckpointError> {
        let note = Note::parse(&self.bytes)?;
        let witnesses: Vec<&WitnessKey> = witnesses.into_iter().collect();
        let mut found: Vec<(&WitnessKey, Cosignature)> = Vec::new();
        for line in note.signatures() {
            let known = witnesses.iter().find(|w| *w.name() == line.name && w.hash() == line.hash);
            let Some(witness) = known else { continue };
            let cosignature = Cosignature::from_bytes(&line.bytes)
                .filter(|cosignature| witness.verifies(note.unverified_text(), cosignature))
                .ok_or_else(|| CheckpointError::Cosignature(witness.name().to_string()))?;
            if !found.iter().any(|(other, _)| other == witness) {
                found.push((witness, cosignature));
            }
        }
        Ok(found)
    }

    /// Adds a cosignature line that [`WitnessKey::verifies`].
    pub fn push(&mut self, witness: &WitnessKey, cosignature: &Cosignature) {
        self.bytes.extend_from_slice(cosignature.line(witness).as_bytes());
    }
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a text that is accepted is not written as it was read: that is a bug.
#[doc(hidden)]
pub fn check_checkpoint_invariants(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(checkpoint) = Checkpoint::parse(text) else { return false };
    assert_eq!(checkpoint.to_string(), text);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("example.com/behind-the-sofa".parse().unwrap(), &[seed; 32])
    }

    #[test]
    fn the_specifications_example() {
        let checkpoint = Checkpoint::parse(TEXT).unwrap();
        assert_eq!(checkpoint.size, 20_852_163);
        assert_eq!(checkpoint.to_string(), TEXT);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "\n",
            "a\n1\n",
            "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "a\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "a\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "a\n18446744073709551616\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "a\n1\nCsUYapGGPo4dkMgIAUqom\n",
            "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nextension\n",
            "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        ] {
            assert_eq!(Checkpoint::parse(bad), Err(CheckpointError::Form), "{bad:?}");
        }
    }

    #[test]
    fn only_the_log_s_own_signature_counts() {
        let signed = Checkpoint::parse(TEXT).unwrap().sign(&key(1)).unwrap();
        let (own, other) = (key(1).verifying_key(), key(2).verifying_key());
        let read =
            |origin, keys: &[VerifyingKey]| SignedCheckpoint::verify(signed.bytes(), origin, keys);
        assert_eq!(
            read("example.com/behind-the-sofa", std::slice::from_ref(&own)).unwrap(),
            signed
        );
        assert!(matches!(
            read("example.com/behind-the-sofa", &[other]),
            Err(CheckpointError::Note(_))
        ));
        assert!(matches!(
            read("example.com/elsewhere", &[own]),
            Err(CheckpointError::Origin { .. })
        ));
    }
}
