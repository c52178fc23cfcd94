//! Running services and their clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use modunest_local::{Config, LocalServices, Subscription};
use sha2::{Digest, Sha256};

pub const BUCKET: &str = "registry";
pub const ACCESS_KEY: &str = "local-access";
pub const SECRET_KEY: &str = "local-secret-of-some-length";

pub struct Harness {
    pub services: LocalServices,
    pub s3: aws_sdk_s3::Client,
    pub dynamodb: aws_sdk_dynamodb::Client,
}

pub fn config(data_dir: Option<PathBuf>) -> Config {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config {
        data_dir,
        s3_listen: any_port,
        dynamodb_listen: any_port,
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        region: "local".into(),
        buckets: vec![BUCKET.into()],
    }
}

impl Harness {
    pub async fn ephemeral() -> Self {
        Self::start(None, Vec::new()).await
    }

    pub async fn start(data_dir: Option<PathBuf>, subscriptions: Vec<Subscription>) -> Self {
        let services = LocalServices::start(config(data_dir), subscriptions).await.unwrap();
        Self {
            s3: s3_client(&services.s3_endpoint(), SECRET_KEY),
            dynamodb: dynamodb_client(&services.dynamodb_endpoint()),
            services,
        }
    }

    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.s3
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(ByteStream::from(bytes.into()))
            .send()
            .await
            .unwrap();
    }

    pub async fn get(&self, key: &str) -> Option<Bytes> {
        get(&self.s3, key).await
    }

    pub async fn keys(&self) -> Vec<String> {
        keys(&self.s3).await
    }
}

pub async fn get(s3: &aws_sdk_s3::Client, key: &str) -> Option<Bytes> {
    match s3.get_object().bucket(BUCKET).key(key).send().await {
        Ok(found) => Some(found.body.collect().await.unwrap().into_bytes()),
        Err(error) => {
            assert_eq!(code(&error), "NoSuchKey", "{error:?}");
            None
        }
    }
}

pub async fn keys(s3: &aws_sdk_s3::Client) -> Vec<String> {
    let mut pages = s3.list_objects_v2().bucket(BUCKET).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    keys
}

pub fn s3_client(endpoint: &str, secret: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(Region::new("local"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

pub fn dynamodb_client(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::new()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(aws_sdk_dynamodb::config::Region::new("local"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// The S3 error code, or the status where an answer has no body.
pub fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    error.code().unwrap_or("none").to_owned()
}

pub fn status<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

pub fn sha256_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(bytes))
}

pub fn presigning(lifetime: Duration) -> PresigningConfig {
    PresigningConfig::expires_in(lifetime).unwrap()
}

/// A presigned upload as the registry makes them: length, checksum and condition are signed.
pub async fn presigned_upload(
    s3: &aws_sdk_s3::Client,
    key: &str,
    bytes: &[u8],
    lifetime: Duration,
) -> PresignedRequest {
    s3.put_object()
        .bucket(BUCKET)
        .key(key)
        .content_length(bytes.len() as i64)
        .checksum_sha256(sha256_base64(bytes))
        .if_none_match("*")
        .presigned(presigning(lifetime))
        .await
        .unwrap()
}

/// Sends a presigned request with its headers, after `change` had its way with them.
pub async fn send(
    request: &PresignedRequest,
    body: impl Into<Bytes>,
    change: impl FnOnce(&mut http::HeaderMap),
) -> (u16, String) {
    let mut headers = http::HeaderMap::new();
    for (name, value) in request.headers() {
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    change(&mut headers);
    let mut message = http::Request::builder()
        .method(request.method())
        .uri(request.uri())
        .body(Full::new(body.into()))
        .unwrap();
    *message.headers_mut() = headers;
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let response = client.request(message).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Bytes that tell their key, so that a mix-up shows.
pub fn content_of(key: &str, size: usize) -> Bytes {
    let seed = Sha256::digest(key.as_bytes());
    seed.iter().copied().cycle().take(size).collect()
}
