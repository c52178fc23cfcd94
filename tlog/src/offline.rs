//! Proof files: one entry proven without a network (<https://c2sp.org/tlog-proof>).

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::hash::TreeHash;
use crate::key::VerifyingKey;
use crate::proof::{INCLUSION_MAX_HASHES, ProofError, verify_inclusion};
use crate::tile::decimal;

/// First line of a proof file.
const HEADER: &str = "c2sp.org/tlog-proof@v1\n";
/// Longest proof file that is read, in bytes: a checkpoint, 63 hashes, and as much again.
pub const PROOF_FILE_MAX_BYTES: usize = 128 * 1024;

/// Where an entry is, the hashes that prove it, and the checkpoint that they lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFile {
    /// Base64 that the format leaves to applications. Nobody has signed it.
    pub extra: Option<String>,
    /// Position of the entry in the log.
    pub index: u64,
    /// From the leaf's sibling upwards.
    pub hashes: Vec<TreeHash>,
    /// The checkpoint, verbatim and unproven.
    pub checkpoint: Vec<u8>,
}

/// Why a proof file proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// Malformed.
    #[error("not a proof file: {0}")]
    Form(&'static str),
    /// Its checkpoint is not believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its hashes do not lead to the root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl ProofFile {
    /// Reads a proof file. Nothing is proven yet.
    ///
    /// # Errors
    /// [`ProofFileError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let form = |rule| Err(ProofFileError::Form(rule));
        if bytes.len() > PROOF_FILE_MAX_BYTES {
            return form("it is longer than any proof");
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return form("it is not UTF-8") };
        let Some(mut rest) = text.strip_prefix(HEADER) else {
            return form("its first line is not c2sp.org/tlog-proof@v1");
        };
        let mut line = || {
            let (line, more) = rest.split_once('\n')?;
            rest = more;
            Some(line)
        };
        let mut next = line();
        let extra = next.and_then(|line| line.strip_prefix("extra ")).map(str::to_owned);
        if extra.is_some() {
            next = line();
        }
        let index = next.and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let Some(index) = index else { return form("it has no line with the index in decimal") };
        let mut hashes = Vec::new();
        loop {
            match line() {
                Some("") => break,
                Some(_) if hashes.len() == INCLUSION_MAX_HASHES => {
                    return form("it has more hashes than any log needs");
                }
                Some(hash) => match hash.parse() {
                    Ok(hash) => hashes.push(hash),
                    Err(_) => return form("a line of the proof is not the base64 of a hash"),
                },
                None => return form("no blank line comes before the checkpoint"),
            }
        }
        Ok(ProofFile { extra, index, hashes, checkpoint: rest.as_bytes().to_vec() })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = HEADER.to_owned();
        if let Some(extra) = &self.extra {
            text.push_str(&format!("extra {extra}\n"));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            text.push_str(&format!("{hash}\n"));
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.checkpoint);
        bytes
    }

    /// Proves that `entry` is in the log `origin`, by a checkpoint that one of `keys` signed.
    /// Whether enough witnesses cosigned it is for a [`crate::Policy`] to say.
    ///
    /// # Errors
    /// [`ProofFileError::Checkpoint`] and [`ProofFileError::Proof`].
    pub fn verify(
        &self,
        entry: &[u8],
        origin: &str,
        keys: &[VerifyingKey],
    ) -> Result<SignedCheckpoint, ProofFileError> {
        let signed = SignedCheckpoint::verify(&self.checkpoint, origin, keys)?;
        let leaf = TreeHash::of_leaf(entry);
        let checkpoint = &signed.checkpoint;
        verify_inclusion(&leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root)?;
        Ok(signed)
    }
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a file that is accepted is not written as it was read: that is a bug.
#[doc(hidden)]
pub fn check_proof_file_invariants(bytes: &[u8]) -> bool {
    let Ok(file) = ProofFile::parse(bytes) else { return false };
    assert_eq!(file.to_bytes(), bytes);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Checkpoint, SigningKey};

    fn file() -> (ProofFile, SigningKey) {
        let key = SigningKey::from_seed("example.org/log".parse().unwrap(), &[1; 32]);
        let (one, two) = (TreeHash::of_leaf(b"one"), TreeHash::of_leaf(b"two"));
        let root = TreeHash::of_node(&one, &two);
        let checkpoint = Checkpoint { origin: "example.org/log".to_owned(), size: 2, root };
        let checkpoint = checkpoint.sign(&key).unwrap().bytes().to_vec();
        (ProofFile { extra: Some("eA==".to_owned()), index: 1, hashes: vec![one], checkpoint }, key)
    }

    #[test]
    fn a_file_proves_its_entry_and_no_other() {
        let (file, key) = file();
        let again = ProofFile::parse(&file.to_bytes()).unwrap();
        assert_eq!(again, file);
        let keys = [key.verifying_key()];
        assert!(again.verify(b"two", "example.org/log", &keys).is_ok());
        assert!(matches!(
            again.verify(b"one", "example.org/log", &keys),
            Err(ProofFileError::Proof(_))
        ));
        assert!(matches!(again.verify(b"two", "other", &keys), Err(ProofFileError::Checkpoint(_))));
        assert!(again.verify(b"two", "example.org/log", &[]).is_err());
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "c2sp.org/tlog-proof@v1\n",
            "c2sp.org/tlog-proof@v1\nindex 01\n\n",
            "c2sp.org/tlog-proof@v1\nindex 1\n",
            "c2sp.org/tlog-proof@v1\nindex 1\nnot a hash\n\n",
            "c2sp.org/tlog-proof@v2\nindex 1\n\n",
            "c2sp.org/tlog-proof@v1\nextra x\nextra y\nindex 1\n\n",
        ] {
            assert!(
                matches!(ProofFile::parse(bad.as_bytes()), Err(ProofFileError::Form(_))),
                "{bad:?}"
            );
        }
    }
}
