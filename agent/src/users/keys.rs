//! A key set (RFC 7517) as keys that each verify by one algorithm.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Largest key set, in bytes: hundreds of keys with their certificates.
pub(super) const KEY_SET_MAX_BYTES: usize = 256 * 1024;
/// Most keys of a set. Issuers have two or three.
const KEYS_MAX: usize = 128;
/// Longest name of a key, in bytes.
const KEY_ID_MAX_BYTES: usize = 256;
/// Sizes of an RSA modulus, in bytes: 2,048 to 8,192 bits, as ring verifies them.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no key set.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No client can be made to fetch key sets.
    #[error("no HTTP client for key sets: {0}")]
    Client(#[source] reqwest::Error),
}

/// A key that verifies by one algorithm.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys of a set that verify signatures by one of `allowed`. Others are passed over: sets
/// hold keys for other purposes. At least one has to be left.
pub(super) fn parse(bytes: &[u8], allowed: &[Algorithm]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    if bytes.len() > KEY_SET_MAX_BYTES {
        return Err(format!("the key set has more than {KEY_SET_MAX_BYTES} bytes"));
    }
    let Set { keys } =
        serde_json::from_slice(bytes).map_err(|error| format!("this is no key set: {error}"))?;
    if keys.len() > KEYS_MAX {
        return Err(format!("the key set has {} keys, at most {KEYS_MAX} are read", keys.len()));
    }
    let usable: Vec<Key> = keys
        .into_iter()
        .filter_map(|value| serde_json::from_value::<Jwk>(value).ok())
        .filter_map(|jwk| usable(jwk, allowed))
        .collect();
    if usable.is_empty() {
        return Err("the key set has no key for signatures by an allowed algorithm".to_owned());
    }
    Ok(usable)
}

fn usable(jwk: Jwk, allowed: &[Algorithm]) -> Option<Key> {
    let other_use =
        jwk.common.public_key_use.as_ref().is_some_and(|found| *found != PublicKeyUse::Signature);
    let verifies = |all: &Vec<KeyOperations>| all.contains(&KeyOperations::Verify);
    if other_use || !jwk.common.key_operations.as_ref().is_none_or(verifies) {
        return None;
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (algorithm, key) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (modulus, exponent) = (bytes(&rsa.n)?, bytes(&rsa.e)?);
            // Some libraries write a leading zero; ring takes none.
            let plain = |number: &'_ [u8]| {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                number[zeros..].to_vec()
            };
            let (modulus, exponent) = (plain(&modulus), plain(&exponent));
            if !MODULUS_BYTES.contains(&modulus.len()) {
                return None;
            }
            (Algorithm::RS256, DecodingKey::from_rsa_raw_components(&modulus, &exponent))
        }
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            let is_coordinate = |text: &str| bytes(text).is_some_and(|bytes| bytes.len() == 32);
            if !is_coordinate(&point.x) || !is_coordinate(&point.y) {
                return None;
            }
            (Algorithm::ES256, DecodingKey::from_ec_components(&point.x, &point.y).ok()?)
        }
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            let point = bytes(&point.x).filter(|bytes| bytes.len() == 32)?;
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&point))
        }
        // Shared secrets above all: a public key set that has one has given it away.
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => Some(algorithm),
        Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
        Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
        Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
        Some(_) => None,
    };
    let id = jwk.common.key_id;
    let fits = named == Some(algorithm)
        && allowed.contains(&algorithm)
        && id.as_ref().is_none_or(|id| id.len() <= KEY_ID_MAX_BYTES);
    fits.then_some(Key { id, algorithm, key })
}

/// The key that a token names. A token without a name has the one key of its algorithm, if
/// there is exactly one.
pub(super) fn find<'k>(
    keys: &'k [Arc<Key>],
    id: Option<&str>,
    algorithm: Algorithm,
) -> Option<&'k Arc<Key>> {
    let Some(id) = id else {
        let mut fitting = keys.iter().filter(|key| key.algorithm == algorithm);
        return fitting.next().filter(|_| fitting.next().is_none());
    };
    // Two keys of one name and different kinds are allowed (RFC 7517, section 4.5).
    let named = |key: &&Arc<Key>| key.id.as_deref() == Some(id);
    let fits = |key: &&Arc<Key>| named(key) && key.algorithm == algorithm;
    keys.iter().find(fits).or_else(|| keys.iter().find(named))
}
