//! The registry's keys as a configuration names them: by their public halves, which are given, or
//! which KMS is asked for.

use std::str::FromStr;

use modunest_functions::{KmsKey, KmsKeyId};
use modunest_runtime::aws;
use modunest_tlog::{KeyName, VerifyingKey};

use crate::error::Error;

/// One of the registry's keys.
#[derive(Clone, Debug)]
pub enum Given {
    /// Its public half.
    Public(VerifyingKey),
    /// Where in KMS it is.
    Kms(KmsKeyId),
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if KmsKeyId::is_meant(text) {
            return text.parse().map(Given::Kms).map_err(|error| format!("it {error}"));
        }
        text.parse().map(Given::Public).map_err(|error| format!("{error}"))
    }
}

impl Given {
    /// The public half, under the registry's name.
    pub async fn public(&self, origin: &KeyName) -> Result<VerifyingKey, Error> {
        match self {
            Given::Public(key) => Ok(key.clone()),
            Given::Kms(id) => {
                let settings = settings(&|name| std::env::var(name).ok())?;
                let opened = KmsKey::open(&settings, id.clone(), origin.clone()).await;
                let key = opened.map_err(|error| Error::Failed(format!("{id}: {error}")))?;
                Ok(key.public().clone())
            }
        }
    }
}

/// Who we are to AWS, as its own command line is told by the environment. The region is the
/// key's.
fn settings(lookup: &dyn Fn(&str) -> Option<String>) -> Result<aws::Settings, Error> {
    let optional = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let required = |name: &str| {
        optional(name).ok_or_else(|| {
            Error::Usage(format!(
                "{name} is not set, and KMS must be asked for a key's public half; `aws configure export-credentials --format env` prints what to set"
            ))
        })
    };
    Ok(aws::Settings {
        region: String::new(),
        access_key_id: required("AWS_ACCESS_KEY_ID")?,
        secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
        session_token: optional("AWS_SESSION_TOKEN"),
        s3_endpoint: None,
        dynamodb_endpoint: None,
        kms_endpoint: optional("MODUNEST_KMS_ENDPOINT"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_public_half_or_a_place_in_kms() {
        let kms = "kms:arn:aws:kms:eu-central-1:123456789012:key/1";
        assert!(matches!(kms.parse(), Ok(Given::Kms(_))));
        let wrong = "kms:alias/log".parse::<Given>().unwrap_err();
        assert!(wrong.contains("kms:arn:PARTITION:kms:REGION:ACCOUNT:key/ID"), "{wrong}");
        assert!("registry.example.org".parse::<Given>().is_err());
    }

    #[test]
    fn credentials_come_from_the_environment() {
        let error = settings(&|_| None).unwrap_err().to_string();
        assert!(error.starts_with("AWS_ACCESS_KEY_ID is not set"), "{error}");
        let given = settings(&|name| (name != "AWS_SESSION_TOKEN").then(|| name.to_owned()));
        let given = given.unwrap();
        assert_eq!(given.secret_access_key, "AWS_SECRET_ACCESS_KEY");
        assert_eq!(given.session_token, None);
    }
}
