//! Merkle tree hashes (RFC 6962, section 2.1).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// Domain bytes of leaves and of inner nodes (RFC 6962, section 2.1).
const LEAF: [u8; 1] = [0x00];
const NODE: [u8; 1] = [0x01];

/// A SHA-256 hash of the tree: of a leaf, of a subtree, or the root. Its text is base64, as
/// in checkpoints and proofs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash([u8; HASH_BYTES]);

/// The text is not the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree hash is the base64 of {HASH_BYTES} bytes: 44 characters")]
pub struct TreeHashError;

impl TreeHash {
    /// The root of the empty tree: the hash of nothing.
    pub fn empty() -> Self {
        TreeHash(Sha256::digest(b"").into())
    }

    /// The hash of an entry as a leaf.
    pub fn of_leaf(entry: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(LEAF);
        hasher.update(entry);
        TreeHash(hasher.finalize().into())
    }

    /// The hash of two neighbours.
    pub fn of_node(left: &TreeHash, right: &TreeHash) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(NODE);
        hasher.update(left.0);
        hasher.update(right.0);
        TreeHash(hasher.finalize().into())
    }

    /// Takes 32 bytes that were hashed elsewhere.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        TreeHash(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

impl FromStr for TreeHash {
    type Err = TreeHashError;

    fn from_str(text: &str) -> Result<Self, TreeHashError> {
        // Longer texts are refused before anything is allocated for them.
        if text.len() != 44 {
            return Err(TreeHashError);
        }
        let bytes = STANDARD.decode(text).map_err(|_| TreeHashError)?;
        bytes.try_into().map(TreeHash).map_err(|_| TreeHashError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_hashes() {
        // The root of the empty tree, RFC 6962's own example of MTH({}).
        assert_eq!(TreeHash::empty().to_string(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        // The empty leaf: certificate-transparency-go, merkle_test.
        assert_eq!(
            TreeHash::of_leaf(b"").to_string(),
            "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0="
        );
    }

    #[test]
    fn texts_have_one_spelling() {
        let hash = TreeHash::of_leaf(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "x", &hash.to_string()[..43], &format!("{hash} ")] {
            assert_eq!(bad.parse::<TreeHash>(), Err(TreeHashError));
        }
        // The last character of 44 carries four unused bits, which must be zero.
        let text = hash.to_string();
        let twin = format!("{}{}=", &text[..42], char::from(text.as_bytes()[42] + 1));
        assert_eq!(twin.parse::<TreeHash>(), Err(TreeHashError));
    }
}
