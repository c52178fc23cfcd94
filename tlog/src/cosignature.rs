//! Cosignatures: a witness says that a log only grew (<https://c2sp.org/tlog-cosignature>,
//! the Ed25519 type).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{self, KeyError, KeyName, PUBLIC_KEY_BYTES, SEED_BYTES, TYPE_COSIGNATURE};
use crate::note::LINE_START;

/// Largest time in a cosignature ("Format").
const TIME_MAX: u64 = i64::MAX as u64;

/// A witness's statement, when it was made, and its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Seconds since the epoch.
    pub time_secs: u64,
    signature: [u8; 64],
}

impl Cosignature {
    /// Reads what stands in a signature line behind the key's hash: the time, big-endian, and
    /// the signature. `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, signature) = bytes.split_first_chunk::<8>()?;
        let time_secs = u64::from_be_bytes(*time);
        let signature = signature.try_into().ok()?;
        (time_secs <= TIME_MAX).then_some(Cosignature { time_secs, signature })
    }

    /// The signature line, with its line feed.
    pub fn line(&self, witness: &WitnessKey) -> String {
        let mut bytes = [0; 4 + 8 + 64];
        bytes[..4].copy_from_slice(&witness.hash());
        bytes[4..12].copy_from_slice(&self.time_secs.to_be_bytes());
        bytes[12..].copy_from_slice(&self.signature);
        format!("{LINE_START}{} {}\n", witness.name(), STANDARD.encode(bytes))
    }
}

/// The text that is signed ("Ed25519 signed message").
fn message(time_secs: u64, checkpoint: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_secs}\n{checkpoint}").into_bytes()
}

/// A witness's public key, never weak. Its text is `name+hash+base64(0x04 || key)`: another
/// type than a log's key, so that neither can stand in for the other.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: KeyName,
    hash: [u8; 4],
    key: ed25519_dalek::VerifyingKey,
}

impl WitnessKey {
    /// Takes a public key under a name.
    ///
    /// # Errors
    /// [`KeyError::Weak`].
    pub fn new(name: KeyName, public: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        let key = key::strong(public)?;
        Ok(WitnessKey { hash: key::hash(name.as_str(), TYPE_COSIGNATURE, public), name, key })
    }

    /// The witness's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The four bytes in front of each of its signatures.
    pub fn hash(&self) -> [u8; 4] {
        self.hash
    }

    /// The 32 bytes of the public key.
    pub fn public_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.key.as_bytes()
    }

    /// Whether the witness signed this checkpoint's text at that time.
    pub fn verifies(&self, checkpoint: &str, cosignature: &Cosignature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&cosignature.signature);
        self.key.verify_strict(&message(cosignature.time_secs, checkpoint), &signature).is_ok()
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key::text(&self.name, self.hash, TYPE_COSIGNATURE, self.public_bytes()))
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKey({self})")
    }
}

impl FromStr for WitnessKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, hash, bytes) = key::decode(text, TYPE_COSIGNATURE)?;
        let witness = WitnessKey::new(name, &bytes)?;
        if key::hex(witness.hash) == hash { Ok(witness) } else { Err(KeyError::Hash) }
    }
}

/// A witness's signing key. `Debug` never shows it; its text form, which files hold, comes
/// only from [`WitnessSigningKey::expose`].
#[derive(Clone)]
pub struct WitnessSigningKey {
    public: WitnessKey,
    key: ed25519_dalek::SigningKey,
}

impl WitnessSigningKey {
    /// Makes the key pair of a seed; the caller takes the seed from a secure random source.
    /// One that signs notes must not sign cosignatures too: use another seed.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifying = key.verifying_key();
        let hash = key::hash(name.as_str(), TYPE_COSIGNATURE, verifying.as_bytes());
        WitnessSigningKey { public: WitnessKey { name, hash, key: verifying }, key }
    }

    /// The public half.
    pub fn witness_key(&self) -> &WitnessKey {
        &self.public
    }

    /// Signs a checkpoint's text. Whoever calls has checked that the log only grew.
    pub fn cosign(&self, checkpoint: &str, time_secs: u64) -> Cosignature {
        use ed25519_dalek::Signer as _;
        let time_secs = time_secs.min(TIME_MAX);
        let signature = self.key.sign(&message(time_secs, checkpoint)).to_bytes();
        Cosignature { time_secs, signature }
    }

    /// The text form, with the secret in it.
    pub fn expose(&self) -> String {
        let public = &self.public;
        key::private_text(&public.name, public.hash, TYPE_COSIGNATURE, self.key.as_bytes())
    }
}

impl fmt::Debug for WitnessSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessSigningKey({}, …)", self.public.name)
    }
}

impl FromStr for WitnessSigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, hash, seed) = key::decode_private(text, TYPE_COSIGNATURE)?;
        let key = WitnessSigningKey::from_seed(name, &seed);
        if key::hex(key.public.hash) == hash { Ok(key) } else { Err(KeyError::Hash) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::note::Note;

    /// The example of the specification: its line has a time and a signature of the right
    /// lengths; the witness's key is not published there.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    #[test]
    fn the_specifications_example_has_its_time() {
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        let cosignature = Cosignature::from_bytes(&note.signatures()[0].bytes).unwrap();
        assert_eq!(cosignature.time_secs, 1_679_315_147);
    }

    #[test]
    fn a_cosignature_is_of_one_text_one_time_and_one_witness() {
        let key = WitnessSigningKey::from_seed("witness.example".parse().unwrap(), &[1; 32]);
        let other = WitnessSigningKey::from_seed("witness.example".parse().unwrap(), &[2; 32]);
        let cosignature = key.cosign("text\n", 7);
        assert!(key.witness_key().verifies("text\n", &cosignature));
        assert!(!key.witness_key().verifies("text2\n", &cosignature));
        assert!(!other.witness_key().verifies("text\n", &cosignature));
        let later = Cosignature { time_secs: 8, ..cosignature };
        assert!(!key.witness_key().verifies("text\n", &later));
        let beyond = [&[0x80][..], &[0; 71]].concat();
        assert_eq!(Cosignature::from_bytes(&beyond), None);
    }

    #[test]
    fn keys_of_logs_are_no_keys_of_witnesses() {
        let key = WitnessSigningKey::from_seed("w".parse().unwrap(), &[1; 32]);
        let text = key.witness_key().to_string();
        assert_eq!(text.parse::<WitnessKey>().as_ref(), Ok(key.witness_key()));
        assert_eq!(text.parse::<crate::VerifyingKey>(), Err(KeyError::Type(4)));
        assert_eq!(
            key.expose().parse::<WitnessSigningKey>().unwrap().witness_key(),
            key.witness_key()
        );
        assert!(key.expose().parse::<crate::SigningKey>().is_err());
        assert_eq!(format!("{key:?}"), "WitnessSigningKey(w, …)");
    }
}
