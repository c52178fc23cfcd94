//! Keys of the trust root. They are no note keys: a key file of one kind is refused as the
//! other, so that one key never signs both.
//!
//! Files are PEM (RFC 7468) around the DER of RFC 8410: what `openssl genpkey -algorithm
//! ed25519` writes, and what other TUF tools read.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

use super::metadata::canonical;

/// The only key type and scheme (TUF specification, section 4.2, "Keys").
const ED25519: &str = "ed25519";
/// DER of a `PrivateKeyInfo` up to the seed (RFC 8410, section 7).
const PRIVATE_DER: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// DER of a `SubjectPublicKeyInfo` up to the key (RFC 8410, section 4).
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// What a PEM text says that it holds (RFC 7468, sections 10 and 13).
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustKeyError {
    /// No PEM text of the kind that is needed.
    #[error("not a PEM text with one {0}; `modunest trust key new` makes key files")]
    Pem(&'static str),
    /// PEM, but no Ed25519 key in it.
    #[error("the PEM text holds no Ed25519 key (RFC 8410), the only kind that is used here")]
    Der,
    /// Not 64 lower-case hexadecimal digits.
    #[error("an Ed25519 public key is 64 lower-case hexadecimal digits")]
    Hex,
    /// The bytes are no point of the curve, or one of small order.
    #[error("the Ed25519 public key is not a usable point: malformed or of small order")]
    Weak,
    /// Another type or scheme than Ed25519.
    #[error("a key of type {0} is not used here; only ed25519 is")]
    Type(String),
}

/// An Ed25519 public key that is not weak. Its text is a PEM `PUBLIC KEY`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeyObject", into = "KeyObject")]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// A key as it stands in root metadata (TUF specification, section 4.2).
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyObject {
    keytype: String,
    keyval: KeyValue,
    scheme: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    public: String,
}

impl PublicKey {
    /// Takes the 32 bytes of a key.
    ///
    /// # Errors
    /// [`TrustKeyError::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, TrustKeyError> {
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| TrustKeyError::Weak)?;
        if key.is_weak() { Err(TrustKeyError::Weak) } else { Ok(PublicKey(key)) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's identifier in metadata: SHA-256 of the canonical JSON of the key object, as
    /// other TUF tools compute it (TUF specification, section 4.2, "KEYID").
    pub fn id(&self) -> Digest {
        Digest::of(&canonical(&KeyObject::from(*self)))
    }

    /// Strict verification (RFC 8032, section 5.1.7, without cofactor).
    ///
    /// The agent's TUF client checks with this too.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(text, &signature).is_ok())
    }
}

impl From<PublicKey> for KeyObject {
    fn from(key: PublicKey) -> Self {
        // A digest is 32 bytes too, and one place writes and reads their digits.
        let public = Digest::from_bytes(*key.as_bytes()).to_hex();
        KeyObject {
            keytype: ED25519.to_owned(),
            keyval: KeyValue { public },
            scheme: ED25519.to_owned(),
        }
    }
}

impl TryFrom<KeyObject> for PublicKey {
    type Error = TrustKeyError;

    fn try_from(object: KeyObject) -> Result<Self, TrustKeyError> {
        for word in [object.keytype, object.scheme] {
            if word != ED25519 {
                return Err(TrustKeyError::Type(word));
            }
        }
        let bytes: Digest = object.keyval.public.parse().map_err(|_| TrustKeyError::Hex)?;
        PublicKey::from_bytes(bytes.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_pem(PUBLIC_LABEL, &PUBLIC_DER, self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl FromStr for PublicKey {
    type Err = TrustKeyError;

    fn from_str(text: &str) -> Result<Self, TrustKeyError> {
        PublicKey::from_bytes(&from_pem(text, PUBLIC_LABEL, &PUBLIC_DER)?)
    }
}

/// An Ed25519 signing key. `Debug` never shows it; its PEM text comes only from
/// [`SigningKey::expose`].
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Makes the key of a seed; the caller takes the seed from a secure random source.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The PEM text, with the secret in it.
    pub fn expose(&self) -> String {
        to_pem(PRIVATE_LABEL, &PRIVATE_DER, self.0.as_bytes())
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.0.sign(text).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, …)", self.public().id())
    }
}

impl FromStr for SigningKey {
    type Err = TrustKeyError;

    fn from_str(text: &str) -> Result<Self, TrustKeyError> {
        Ok(SigningKey::from_seed(&from_pem(text, PRIVATE_LABEL, &PRIVATE_DER)?))
    }
}

fn to_pem(label: &str, prefix: &[u8], key: &[u8; 32]) -> String {
    let body = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The key in a PEM text: one line of Base64 is all that so short a key takes.
fn from_pem(text: &str, label: &'static str, prefix: &[u8]) -> Result<[u8; 32], TrustKeyError> {
    let body = text
        .trim()
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.strip_prefix(label)?.strip_prefix("-----"))
        .and_then(|rest| rest.strip_suffix("-----")?.strip_suffix(label))
        .and_then(|rest| rest.strip_suffix("-----END "))
        .ok_or(TrustKeyError::Pem(label))?;
    let der = STANDARD.decode(body.trim()).map_err(|_| TrustKeyError::Pem(label))?;
    der.strip_prefix(prefix).and_then(|key| key.try_into().ok()).ok_or(TrustKeyError::Der)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.3 and 10.1: a private key and its public half.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn published_keys() {
        let key: SigningKey = PRIVATE.parse().unwrap();
        assert_eq!(key.public().to_string(), PUBLIC);
        assert_eq!(key.expose(), PRIVATE);
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap(), key.public());
        assert!(format!("{key:?}").ends_with(", …)"));
    }

    #[test]
    fn signatures_are_checked_strictly() {
        let key = SigningKey::from_seed(&[1; 32]);
        let signature = key.sign(b"text");
        assert!(key.public().verifies(b"text", &signature));
        assert!(!key.public().verifies(b"tex", &signature));
        assert!(!key.public().verifies(b"text", &signature[..63]));
        assert!(!SigningKey::from_seed(&[2; 32]).public().verifies(b"text", &signature));
    }

    #[test]
    fn bad_keys_say_why() {
        let public = |text: &str| text.parse::<PublicKey>().unwrap_err();
        assert_eq!(public(""), TrustKeyError::Pem(PUBLIC_LABEL));
        assert_eq!(public(PRIVATE), TrustKeyError::Pem(PUBLIC_LABEL));
        assert_eq!(public(&PUBLIC.replace("MCow", "MCox")), TrustKeyError::Der);
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(TrustKeyError::Weak));
        assert!(PUBLIC.parse::<SigningKey>().is_err());
        let object = serde_json::to_string(&SigningKey::from_seed(&[1; 32]).public()).unwrap();
        for (from, to) in [("\"scheme\":\"ed25519\"", "\"scheme\":\"rsa\""), ("8a", "8A")] {
            let changed = object.replacen(from, to, 1);
            assert_ne!(changed, object);
            assert!(serde_json::from_str::<PublicKey>(&changed).is_err(), "{changed}");
        }
    }
}
