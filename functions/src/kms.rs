//! Keys in AWS KMS: who runs this code can have something signed, and cannot take the key away.
//!
//! Such a key has the specification `ECC_NIST_EDWARDS25519`, the usage `SIGN_VERIFY`, and signs
//! with `ED25519_SHA_512` over the message itself, which is plain Ed25519 (RFC 8032): whoever
//! verifies cannot tell where a key is kept. KMS signs messages of at most 4,096 bytes; a
//! checkpoint and a head have a few hundred.

use std::fmt;
use std::str::FromStr;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, MessageType, SigningAlgorithmSpec};
use modunest_runtime::aws;
use modunest_tlog::{KeyName, PUBLIC_KEY_BYTES, VerifyingKey};

use crate::error::Error;

const KMS: &str = "KMS";
/// What stands before a setting's key in KMS.
const PREFIX: &str = "kms:";
/// An Ed25519 public key in DER (RFC 8410) is these bytes and the key.
const SPKI_PREFIX: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];

/// Names a key in KMS: `kms:` and the key's ARN. An alias will not do: it can be pointed at
/// another key, and a policy cannot be bound to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKeyId {
    arn: String,
}

/// Why a text names no key in KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not of the form kms:arn:PARTITION:kms:REGION:ACCOUNT:key/ID")]
pub struct KmsKeyIdError;

impl KmsKeyId {
    /// Whether a text means a key in KMS, well-formed or not.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The key's ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }
}

impl FromStr for KmsKeyId {
    type Err = KmsKeyIdError;

    fn from_str(text: &str) -> Result<Self, KmsKeyIdError> {
        let arn = text.strip_prefix(PREFIX).ok_or(KmsKeyIdError)?;
        let parts: Vec<&str> = arn.split(':').collect();
        let word = |part: &str, also: &[u8]| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
            !part.is_empty() && part.bytes().all(good)
        };
        let ["arn", partition, "kms", region, account, resource] = parts[..] else {
            return Err(KmsKeyIdError);
        };
        let id = resource.strip_prefix("key/").ok_or(KmsKeyIdError)?;
        let digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        if word(partition, b"-") && word(region, b"-") && digits && word(id, b"-") {
            Ok(KmsKeyId { arn: arn.to_owned() })
        } else {
            Err(KmsKeyIdError)
        }
    }
}

impl fmt::Display for KmsKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.arn)
    }
}

/// A key in KMS, with the public half that it was found to have.
#[derive(Clone)]
pub struct KmsKey {
    client: Client,
    id: KmsKeyId,
    public: VerifyingKey,
}

impl KmsKey {
    /// Asks KMS for the key's public half. The client speaks to the region that the key is in.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when KMS does not answer or refuses, [`Error::Config`] for a key of
    /// another specification.
    pub async fn open(
        settings: &aws::Settings,
        id: KmsKeyId,
        name: KeyName,
    ) -> Result<Self, Error> {
        let region = id.region().to_owned();
        let client = aws::kms(&aws::Settings { region, ..settings.clone() });
        let answer = Box::pin(client.get_public_key().key_id(id.arn()).send())
            .await
            .map_err(|error| failed("GetPublicKey", &error))?;
        let wrong = Error::Config {
            setting: "the key in KMS",
            rule: "must have the specification ECC_NIST_EDWARDS25519 and the usage SIGN_VERIFY",
        };
        let signs = answer.signing_algorithms().contains(&SigningAlgorithmSpec::Ed25519Sha512);
        if answer.key_spec() != Some(&KeySpec::EccNistEdwards25519) || !signs {
            return Err(wrong);
        }
        let public = answer.public_key().and_then(|der| public_bytes(der.as_ref()));
        let public = public.and_then(|bytes| VerifyingKey::new(name, &bytes).ok()).ok_or(wrong)?;
        Ok(KmsKey { client, id, public })
    }

    /// The public half.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Has a message signed.
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        let request = self
            .client
            .sign()
            .key_id(self.id.arn())
            .message(Blob::new(message))
            .message_type(MessageType::Raw)
            .signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512);
        let answer = Box::pin(request.send()).await.map_err(|error| failed("Sign", &error))?;
        let signature = answer.signature().and_then(|blob| blob.as_ref().try_into().ok());
        signature.ok_or_else(|| Error::Unavailable {
            service: KMS,
            operation: "Sign",
            detail: "the answer holds no Ed25519 signature".to_owned(),
        })
    }
}

impl fmt::Debug for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsKey({}, {})", self.id, self.public)
    }
}

fn public_bytes(der: &[u8]) -> Option<[u8; PUBLIC_KEY_BYTES]> {
    der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

fn failed<E>(operation: &'static str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Error::from_aws(KMS, operation, error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str =
        "kms:arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn keys_are_named_by_their_arn_and_nothing_else() {
        let id: KmsKeyId = GOOD.parse().unwrap();
        assert_eq!(id.to_string(), GOOD);
        assert_eq!(id.region(), "eu-central-1");
        for good in [
            "kms:arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234abcd",
            "kms:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1",
        ] {
            assert!(good.parse::<KmsKeyId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "kms:",
            &GOOD[4..],
            "kms:alias/log",
            "kms:arn:aws:kms:eu-central-1:123456789012:alias/log",
            "kms:arn:aws:kms::123456789012:key/1",
            "kms:arn:aws:kms:eu-central-1:12345:key/1",
            "kms:arn:aws:kms:eu-central-1:123456789012:key/",
            "kms:arn:aws:kms:eu-central-1:123456789012:key/*",
            "kms:arn:aws:s3:eu-central-1:123456789012:key/1",
            "kms:arn:aws:kms:eu-central-1:123456789012:key/1:2",
        ] {
            assert_eq!(bad.parse::<KmsKeyId>(), Err(KmsKeyIdError), "{bad}");
        }
    }

    #[test]
    fn public_halves_are_read_from_one_form_of_der() {
        let key = [7; PUBLIC_KEY_BYTES];
        let der = [&SPKI_PREFIX[..], &key].concat();
        assert_eq!(public_bytes(&der), Some(key));
        assert_eq!(public_bytes(&der[1..]), None);
        assert_eq!(public_bytes(&der[..43]), None);
        assert_eq!(public_bytes(&[&der[..], &[0]].concat()), None);
    }
}
