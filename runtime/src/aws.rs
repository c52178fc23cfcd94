//! AWS clients, over rustls with ring: the SDK's own choice would bring a second crypto
//! library into every program.

use std::fmt;

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{BehaviorVersion, Region, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

/// Where the services are and who we are to them.
#[derive(Clone)]
pub struct Settings {
    /// Region, for example `eu-central-1`.
    pub region: String,
    /// Access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Token of temporary credentials, as Lambda has them.
    pub session_token: Option<String>,
    /// S3 elsewhere than in AWS; such endpoints are spoken to in path style.
    pub s3_endpoint: Option<String>,
    /// DynamoDB elsewhere than in AWS.
    pub dynamodb_endpoint: Option<String>,
    /// KMS elsewhere than in AWS.
    pub kms_endpoint: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("region", &self.region)
            .field("s3_endpoint", &self.s3_endpoint)
            .field("dynamodb_endpoint", &self.dynamodb_endpoint)
            .field("kms_endpoint", &self.kms_endpoint)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn credentials(&self) -> Credentials {
        Credentials::new(
            &self.access_key_id,
            &self.secret_access_key,
            self.session_token.clone(),
            None,
            "modunest",
        )
    }
}

fn http_client() -> SharedHttpClient {
    crate::http::install_crypto();
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// An S3 client.
pub fn s3(settings: &Settings) -> aws_sdk_s3::Client {
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials())
        .http_client(http_client());
    if let Some(endpoint) = &settings.s3_endpoint {
        config = config.endpoint_url(endpoint).force_path_style(true);
    }
    aws_sdk_s3::Client::from_conf(config.build())
}

/// A DynamoDB client.
pub fn dynamodb(settings: &Settings) -> aws_sdk_dynamodb::Client {
    let mut config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .region(aws_sdk_dynamodb::config::Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials())
        .http_client(http_client());
    if let Some(endpoint) = &settings.dynamodb_endpoint {
        config = config.endpoint_url(endpoint);
    }
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// A KMS client.
pub fn kms(settings: &Settings) -> aws_sdk_kms::Client {
    let mut config = aws_sdk_kms::Config::builder()
        .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
        .region(aws_sdk_kms::config::Region::new(settings.region.clone()))
        .credentials_provider(settings.credentials())
        .http_client(http_client());
    if let Some(endpoint) = &settings.kms_endpoint {
        config = config.endpoint_url(endpoint);
    }
    aws_sdk_kms::Client::from_conf(config.build())
}
