//! Fetches an issuer's key set, by its address or by discovery (OpenID Connect Discovery 1.0).

use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use url::Url;

use super::keys::{KEY_SET_MAX_BYTES, KeySetError};
use crate::config::users::{IssuerSettings, KeysFrom, is_safe};

/// How long an issuer may take for one answer. Requests wait for it, once in a while.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest discovery document, in bytes.
const DISCOVERY_MAX_BYTES: usize = 64 * 1024;

pub(super) struct Fetcher {
    client: Client,
    issuer: String,
    keys: Option<Url>,
}

impl Fetcher {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, KeySetError> {
        let keys = match &settings.keys {
            KeysFrom::Url(url) => Some(url.clone()),
            KeysFrom::Discovery | KeysFrom::File(_) => None,
        };
        let client = modunest_runtime::http::client().map_err(KeySetError::Client)?;
        Ok(Fetcher { client, issuer: settings.expected.issuer.clone(), keys })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The set's bytes, or why they cannot be had.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, String> {
        let url = match &self.keys {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        self.get(&url, KEY_SET_MAX_BYTES).await
    }

    async fn discover(&self) -> Result<Url, String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: Url,
        }
        let address =
            format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let url = Url::parse(&address).map_err(|error| format!("{address}: {error}"))?;
        let bytes = self.get(&url, DISCOVERY_MAX_BYTES).await?;
        let Document { issuer, jwks_uri } =
            serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))?;
        if issuer != self.issuer {
            return Err(format!("{url} speaks for {issuer}"));
        }
        if !is_safe(&jwks_uri) {
            return Err(format!("{url} names {jwks_uri}, which is neither https nor loopback"));
        }
        Ok(jwks_uri)
    }

    async fn get(&self, url: &Url, max_bytes: usize) -> Result<Vec<u8>, String> {
        let answer = async {
            let request = modunest_runtime::http::traced(self.client.get(url.clone()));
            let response =
                request.send().await.map_err(|error| modunest_runtime::http::reason(&error))?;
            if response.status() != reqwest::StatusCode::OK {
                return Err(format!("it answered {}", response.status()));
            }
            let body = modunest_runtime::http::body(response, max_bytes).await;
            body.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|reason| format!("{url}: {reason}")),
            Err(_) => Err(format!("{url}: no answer within {} s", TIMEOUT.as_secs())),
        }
    }
}
