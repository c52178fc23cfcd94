//! What a witness decides about a submission: pure, in the order of the specification.

use modunest_tlog::{
    Checkpoint, Note, ProofError, SignedCheckpoint, Submission, TreeHash, VerifyingKey,
    verify_consistency,
};

/// Why a submission is refused, one variant a status of the protocol and its cause
/// (<https://c2sp.org/tlog-witness>, "add-checkpoint").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a submission, or not of a checkpoint.
    #[error("{0}")]
    Malformed(String),
    /// No such log is known here.
    #[error("this witness does not know the log {0}")]
    UnknownLog(String),
    /// None of the log's keys signed.
    #[error("{0}")]
    Unsigned(String),
    /// The old size is larger than the new one.
    #[error("the old size {old} is larger than the checkpoint's size {new}")]
    OldSize {
        /// The submission's.
        old: u64,
        /// The checkpoint's.
        new: u64,
    },
    /// The old size is not that of the checkpoint cosigned last.
    #[error("the checkpoint cosigned last has size {known}")]
    Stale {
        /// That size; zero for none.
        known: u64,
    },
    /// The size is that of the checkpoint cosigned last, and the root is another.
    #[error("at size {known} the log was cosigned with the root {root}: it shows two trees")]
    Forked {
        /// The size.
        known: u64,
        /// The root that was cosigned.
        root: TreeHash,
    },
    /// The new tree is not proven to continue the old one.
    #[error("the log is not proven to have only grown: {0}")]
    Inconsistent(#[from] ProofError),
}

impl Refusal {
    /// Whether the log's own signature is on what should not be, or may be: a proof that
    /// fails can also be a clumsy one.
    pub const fn accuses_the_log(&self) -> bool {
        matches!(self, Refusal::Forked { .. } | Refusal::Inconsistent(_))
    }
}

/// A submission whose checkpoint a known log signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submitted {
    old_size: u64,
    proof: Vec<TreeHash>,
    /// The checkpoint.
    pub(super) signed: SignedCheckpoint,
}

impl Submitted {
    /// Reads a request's body. `keys_of` answers the keys of a known log by its origin.
    ///
    /// # Errors
    /// Every variant of [`Refusal`] that does not need to know what was cosigned before.
    pub(super) fn read<'k>(
        body: &[u8],
        keys_of: impl Fn(&str) -> Option<&'k [VerifyingKey]>,
    ) -> Result<Self, Refusal> {
        let submission =
            Submission::parse(body).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let note = Note::parse(&submission.checkpoint)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let claimed = Checkpoint::parse(note.unverified_text())
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let origin = claimed.origin;
        let keys = keys_of(&origin).ok_or_else(|| Refusal::UnknownLog(origin.clone()))?;
        let signed = SignedCheckpoint::verify(&submission.checkpoint, &origin, keys)
            .map_err(|error| Refusal::Unsigned(error.to_string()))?;
        let (old, new) = (submission.old_size, signed.checkpoint.size);
        if old > new {
            return Err(Refusal::OldSize { old, new });
        }
        Ok(Submitted { old_size: old, proof: submission.proof, signed })
    }

    /// Whether the checkpoint continues the one that was cosigned last.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Forked`], [`Refusal::Inconsistent`].
    pub(super) fn judge(&self, last: Option<&Checkpoint>) -> Result<(), Refusal> {
        let new = &self.signed.checkpoint;
        let (known, root) = last.map_or((0, TreeHash::empty()), |last| (last.size, last.root));
        if self.old_size != known {
            return Err(Refusal::Stale { known });
        }
        if last.is_some() && new.size == known && new.root != root {
            return Err(Refusal::Forked { known, root });
        }
        verify_consistency((known, &root), (new.size, &new.root), &self.proof)?;
        Ok(())
    }
}
