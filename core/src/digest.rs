//! SHA-256 digests (FIPS 180-4), the only content names in the system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Length of a digest in bytes.
pub const DIGEST_BYTES: usize = 32;

/// A SHA-256 digest. Written as 64 lower-case hexadecimal digits, and read only so:
/// a second spelling of the same digest would be a second key in every cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; DIGEST_BYTES]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a SHA-256 digest is 64 lower-case hexadecimal digits, not {length_bytes} bytes of other text"
)]
pub struct DigestError {
    /// Length of the refused text, in bytes.
    pub length_bytes: usize,
}

impl Digest {
    /// All zeros: stands for "no child" in index nodes, and names no content.
    pub const ZERO: Digest = Digest([0; DIGEST_BYTES]);

    /// Hashes `content`.
    pub fn of(content: &[u8]) -> Self {
        Digest(Sha256::digest(content).into())
    }

    /// Takes the 32 bytes of a digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Digest(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(DIGEST_BYTES * 2);
        self.push_hex(&mut text);
        text
    }

    /// Adds [`Digest::to_hex`] to a text.
    pub(crate) fn push_hex(&self, text: &mut String) {
        let mut digits = [0; DIGEST_BYTES * 2];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        // Never the default: these digits are ASCII.
        text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// What stands in [`VALUES`] for a byte that is no digit.
const NO_DIGIT: u8 = u8::MAX;
/// Values of the digits, by their bytes.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < HEX.len() {
        values[HEX[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Hashes content that arrives in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces in order.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || DigestError { length_bytes: text.len() };
        let digits = text.as_bytes();
        if digits.len() != DIGEST_BYTES * 2 {
            return Err(error());
        }
        let mut bytes = [0; DIGEST_BYTES];
        // One of the values has more than four bits as soon as one byte is no digit.
        let mut all_bits = 0;
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
            all_bits |= high | low;
            *byte = high << 4 | low;
        }
        if all_bits == NO_DIGIT { Err(error()) } else { Ok(Digest(bytes)) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.to_hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vector() {
        // FIPS 180-4 example "abc".
        assert_eq!(
            Digest::of(b"abc").to_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn one_spelling_only() {
        let hex = Digest::of(b"abc").to_hex();
        assert_eq!(hex.parse::<Digest>(), Ok(Digest::of(b"abc")));
        for bad in [hex.to_uppercase(), hex[1..].to_owned(), format!("{hex}0"), "g".repeat(64)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        // The neighbours of the digits, everywhere.
        for (at, other) in (0..hex.len()).flat_map(|at| ["/", ":", "`", "g"].map(|o| (at, o))) {
            let mut bad = hex.clone();
            bad.replace_range(at..=at, other);
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
