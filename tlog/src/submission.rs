//! What a log sends to a witness (<https://c2sp.org/tlog-witness>, "add-checkpoint").

use crate::hash::TreeHash;
use crate::proof::CONSISTENCY_MAX_HASHES;
use crate::tile::decimal;

/// Longest request that is read, in bytes: a checkpoint, 63 hashes, and room.
pub const SUBMISSION_MAX_BYTES: usize = 128 * 1024;
/// Path of the request below a witness's submission prefix.
pub const SUBMISSION_PATH: &str = "add-checkpoint";
/// Media type of the answer that says which size the witness knows.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A checkpoint to cosign, with the proof that the log only grew since the witness's last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Entries of the checkpoint that the witness cosigned last; zero for none.
    pub old_size: u64,
    /// The consistency proof.
    pub proof: Vec<TreeHash>,
    /// The new checkpoint, verbatim and unproven.
    pub checkpoint: Vec<u8>,
}

/// Why bytes are no submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a submission: {0}")]
pub struct SubmissionError(&'static str);

impl Submission {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`SubmissionError`], with the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, SubmissionError> {
        let wrong = |rule| Err(SubmissionError(rule));
        if bytes.len() > SUBMISSION_MAX_BYTES {
            return wrong("it is longer than any checkpoint with its proof");
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return wrong("it is not UTF-8") };
        let (first, mut rest) = text.split_once('\n').unwrap_or((text, ""));
        let Some(old_size) = first.strip_prefix("old ").and_then(decimal) else {
            return wrong("its first line is not \"old\" and a size in decimal");
        };
        let mut proof = Vec::new();
        loop {
            let Some((line, more)) = rest.split_once('\n') else {
                return wrong("no blank line comes before the checkpoint");
            };
            rest = more;
            if line.is_empty() {
                break;
            }
            if proof.len() == CONSISTENCY_MAX_HASHES {
                return wrong("its proof has more than 63 hashes");
            }
            match line.parse() {
                Ok(hash) => proof.push(hash),
                Err(_) => return wrong("a line of the proof is not the base64 of a hash"),
            }
        }
        Ok(Submission { old_size, proof, checkpoint: rest.as_bytes().to_vec() })
    }

    /// The request's body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            text.push_str(&format!("{hash}\n"));
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.checkpoint);
        bytes
    }
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a submission that is accepted is not written as it was read: that is a bug.
#[doc(hidden)]
pub fn check_submission_invariants(bytes: &[u8]) -> bool {
    let Ok(submission) = Submission::parse(bytes) else { return false };
    assert_eq!(submission.to_bytes(), bytes);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example() {
        let text = "old 20852014\n\
            PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
            jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            \n\
            example.com/behind-the-sofa\n20852163\n";
        let submission = Submission::parse(text.as_bytes()).unwrap();
        assert_eq!((submission.old_size, submission.proof.len()), (20_852_014, 2));
        assert_eq!(submission.to_bytes(), text.as_bytes());
    }

    #[test]
    fn other_texts_are_refused() {
        let many = format!("old 1\n{}\n", format!("{}\n", TreeHash::empty()).repeat(64));
        for bad in ["", "old\n\n", "old 01\n\n", "old 1\n", "old 1\nx\n\n", many.as_str()] {
            assert!(Submission::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
