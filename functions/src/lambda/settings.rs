//! What a function is told by its environment.

use std::fmt;

use modunest_runtime::aws;
use modunest_tlog::KeyName;
use url::Url;

use crate::kms::KmsKeyId;

/// What the functions are told, each by an environment variable.
///
/// | Variable | Meaning |
/// |---|---|
/// | `MODUNEST_ORIGIN` | name of the registry, and of its keys |
/// | `MODUNEST_TABLE` | the DynamoDB table |
/// | `MODUNEST_STAGING_BUCKET` | the bucket that publishers upload to |
/// | `MODUNEST_PUBLIC_BUCKET` | the bucket that readers read from |
/// | `MODUNEST_KEYS_BUCKET` | the private bucket with the registry's keys: `statement.key`, `log.key` and `head.key` where those are not in KMS, and `online.key` of the trust root, once there is one |
/// | `MODUNEST_LOG_KEY` | the log's key in AWS KMS, as `kms:ARN`; optional |
/// | `MODUNEST_HEAD_KEY` | the head key in AWS KMS, as `kms:ARN`; optional |
/// | `MODUNEST_TRUST_CONFIG` | name of the trust configuration in that bucket; optional |
/// | `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | set by Lambda |
/// | `AWS_SESSION_TOKEN` | set by Lambda; optional elsewhere |
/// | `MODUNEST_S3_ENDPOINT` | S3 elsewhere than in AWS; optional |
/// | `MODUNEST_DYNAMODB_ENDPOINT` | DynamoDB elsewhere than in AWS; optional |
/// | `MODUNEST_KMS_ENDPOINT` | KMS elsewhere than in AWS; optional |
/// | `MODUNEST_PUBLIC_S3_ENDPOINT` | where publishers reach S3, if elsewhere; optional |
///
/// A variable that is set to nothing counts as not set: templates cannot leave one out.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) origin: KeyName,
    pub(super) table: String,
    pub(super) staging_bucket: String,
    pub(super) public_bucket: String,
    pub(super) keys_bucket: String,
    pub(super) log_key: Option<KmsKeyId>,
    pub(super) head_key: Option<KmsKeyId>,
    pub(super) trust_config: Option<String>,
    pub(super) aws: aws::Settings,
    pub(super) public_s3_endpoint: Option<String>,
}

/// Everything that is wrong with the environment, so that one look is enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Reads variables, and notes what is wrong with them. No value is repeated in a note: some
/// are secrets.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    wrong: Vec<String>,
}

impl Reader<'_> {
    fn optional(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.is_empty())
    }

    fn required(&mut self, variable: &str) -> String {
        self.optional(variable).unwrap_or_else(|| {
            self.wrong.push(format!("{variable} is not set"));
            String::new()
        })
    }

    fn kms_key(&mut self, variable: &str) -> Option<KmsKeyId> {
        let id = self.optional(variable)?.parse();
        id.map_err(|error| self.wrong.push(format!("{variable} {error}"))).ok()
    }

    fn endpoint(&mut self, variable: &str) -> Option<String> {
        let value = self.optional(variable)?;
        let good = value.parse::<Url>().is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/"
        });
        if !good {
            self.wrong.push(format!("{variable} is not of the form http(s)://HOST[:PORT]"));
        }
        Some(value)
    }
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`SettingsError`], with every variable that is missing or malformed.
    pub fn from_environment() -> Result<Self, SettingsError> {
        Self::read(&|variable| std::env::var(variable).ok())
    }

    /// Reads the variables that `lookup` knows.
    ///
    /// # Errors
    /// [`SettingsError`], with every variable that is missing or malformed.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut reader = Reader { lookup, wrong: Vec::new() };
        let origin_text = reader.required("MODUNEST_ORIGIN");
        let origin = origin_text.parse::<KeyName>();
        if let (Err(error), false) = (&origin, origin_text.is_empty()) {
            reader.wrong.push(format!("MODUNEST_ORIGIN: {error}"));
        }
        let table = reader.required("MODUNEST_TABLE");
        let staging_bucket = reader.required("MODUNEST_STAGING_BUCKET");
        let public_bucket = reader.required("MODUNEST_PUBLIC_BUCKET");
        let keys_bucket = reader.required("MODUNEST_KEYS_BUCKET");
        if !public_bucket.is_empty() && public_bucket == staging_bucket {
            reader.wrong.push(
                "MODUNEST_STAGING_BUCKET and MODUNEST_PUBLIC_BUCKET are the same: whoever may \
                 upload could publish"
                    .to_owned(),
            );
        }
        if !keys_bucket.is_empty() && [&staging_bucket, &public_bucket].contains(&&keys_bucket) {
            reader.wrong.push(
                "MODUNEST_KEYS_BUCKET is one of the other buckets: the registry's keys are for \
                 the functions alone"
                    .to_owned(),
            );
        }
        let aws = aws::Settings {
            region: reader.required("AWS_REGION"),
            access_key_id: reader.required("AWS_ACCESS_KEY_ID"),
            secret_access_key: reader.required("AWS_SECRET_ACCESS_KEY"),
            session_token: reader.optional("AWS_SESSION_TOKEN"),
            s3_endpoint: reader.endpoint("MODUNEST_S3_ENDPOINT"),
            dynamodb_endpoint: reader.endpoint("MODUNEST_DYNAMODB_ENDPOINT"),
            kms_endpoint: reader.endpoint("MODUNEST_KMS_ENDPOINT"),
        };
        let log_key = reader.kms_key("MODUNEST_LOG_KEY");
        let head_key = reader.kms_key("MODUNEST_HEAD_KEY");
        let trust_config = reader.optional("MODUNEST_TRUST_CONFIG");
        let public_s3_endpoint = reader.endpoint("MODUNEST_PUBLIC_S3_ENDPOINT");
        match origin {
            Ok(origin) if reader.wrong.is_empty() => Ok(Settings {
                origin,
                table,
                staging_bucket,
                public_bucket,
                keys_bucket,
                log_key,
                head_key,
                trust_config,
                aws,
                public_s3_endpoint,
            }),
            _ => Err(SettingsError(reader.wrong)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn good() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("MODUNEST_ORIGIN", "registry.example.org"),
            ("MODUNEST_TABLE", "modunest"),
            ("MODUNEST_STAGING_BUCKET", "staging"),
            ("MODUNEST_PUBLIC_BUCKET", "public"),
            ("MODUNEST_KEYS_BUCKET", "keys"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hush-secret"),
        ])
    }

    fn read(variables: &BTreeMap<&str, &str>) -> Result<Settings, String> {
        Settings::read(&|name| variables.get(name).map(|value| (*value).to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let nothing = read(&BTreeMap::new()).unwrap_err();
        for name in good().keys() {
            assert!(nothing.contains(&format!("{name} is not set")), "{nothing}");
            let mut variables = good();
            variables.insert(name, "");
            assert_eq!(read(&variables).unwrap_err(), format!("{name} is not set"));
        }
    }

    #[test]
    fn malformed_variables_are_named_with_the_rule() {
        for (name, value, said) in [
            ("MODUNEST_ORIGIN", "two words", "MODUNEST_ORIGIN: "),
            ("MODUNEST_S3_ENDPOINT", "localhost:9000", "MODUNEST_S3_ENDPOINT is not of the form"),
            ("MODUNEST_DYNAMODB_ENDPOINT", "ftp://x", "MODUNEST_DYNAMODB_ENDPOINT is not"),
            ("MODUNEST_KMS_ENDPOINT", "http://", "MODUNEST_KMS_ENDPOINT is not"),
            ("MODUNEST_LOG_KEY", "log.key", "MODUNEST_LOG_KEY is not of the form kms:arn:"),
            (
                "MODUNEST_HEAD_KEY",
                "kms:alias/head",
                "MODUNEST_HEAD_KEY is not of the form kms:arn:",
            ),
            ("MODUNEST_PUBLIC_S3_ENDPOINT", "http://x/y", "MODUNEST_PUBLIC_S3_ENDPOINT is not"),
            ("MODUNEST_PUBLIC_BUCKET", "staging", "are the same"),
            ("MODUNEST_KEYS_BUCKET", "public", "MODUNEST_KEYS_BUCKET is one of the other"),
        ] {
            let mut variables = good();
            variables.insert(name, value);
            let error = read(&variables).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn optional_variables_may_be_empty_and_secrets_are_not_shown() {
        let mut variables = good();
        variables.insert("MODUNEST_S3_ENDPOINT", "http://127.0.0.1:9000");
        variables.insert("MODUNEST_DYNAMODB_ENDPOINT", "");
        variables.insert("AWS_SESSION_TOKEN", "hush-token");
        let settings = read(&variables).unwrap();
        assert_eq!(settings.aws.s3_endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(settings.aws.dynamodb_endpoint, None);
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
