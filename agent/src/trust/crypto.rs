//! The cryptography under `sigstore-tuf`: ours, which is strict, and nothing but what a trust
//! root here has.

use std::sync::OnceLock;

use modunest_core::trust::PublicKey;
use sha2::Digest as _;
use sigstore_crypto::{CryptoProvider, Error as CryptoError, HashContext, SigningScheme};
use sigstore_types::HashAlgorithm;

use super::Error;

/// Makes `sigstore-tuf` use what is below, once a process.
pub(super) fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    // It fails only when somebody else in this process chose before.
    let ours = INSTALLED.get_or_init(|| sigstore_crypto::install_default_provider(&Strict).is_ok());
    if *ours { Ok(()) } else { Err(Error::Provider) }
}

#[derive(Debug)]
struct Strict;

impl CryptoProvider for Strict {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>, CryptoError> {
        Ok(match algorithm {
            HashAlgorithm::Sha2256 => Box::new(Sha2(sha2::Sha256::new())),
            HashAlgorithm::Sha2384 => Box::new(Sha2(sha2::Sha384::new())),
            HashAlgorithm::Sha2512 => Box::new(Sha2(sha2::Sha512::new())),
            other => return Err(CryptoError::UnsupportedAlgorithm(format!("{other:?}"))),
        })
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        if scheme != SigningScheme::Ed25519 {
            return Err(unsupported(scheme));
        }
        let key = <&[u8; 32]>::try_from(key)
            .map_err(|_| CryptoError::InvalidKey("an Ed25519 key has 32 bytes".to_owned()))?;
        let key = PublicKey::from_bytes(key)
            .map_err(|error| CryptoError::InvalidKey(error.to_string()))?;
        if key.verifies(data, signature) {
            Ok(())
        } else {
            Err(CryptoError::Verification("the signature does not fit".to_owned()))
        }
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _key: &[u8],
        _digest: &[u8],
        _signature: &[u8],
    ) -> Result<(), CryptoError> {
        Err(unsupported(scheme))
    }
}

fn unsupported(scheme: SigningScheme) -> CryptoError {
    CryptoError::UnsupportedAlgorithm(format!("{scheme:?}; a trust root here has Ed25519 keys"))
}

struct Sha2<D>(D);

impl<D: sha2::Digest + Send> HashContext for Sha2<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}
