//! The registry's API, for the requests that benchmarks need.

use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::Error;

/// A client with a token.
#[derive(Clone)]
pub struct Api {
    /// For requests that are not the API's.
    pub client: Client,
    base: Url,
    token: String,
}

impl Api {
    /// An API at `base`.
    pub fn new(base: Url, token: String) -> Result<Api, Error> {
        let client = modunest_runtime::http::client().map_err(Error::request("an HTTP client"))?;
        Ok(Api { client, base, token })
    }

    /// Sends JSON and reads JSON.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let url = self.base.join(path).map_err(Error::wrong("a path of the API"))?;
        let request = self.client.request(method, url).bearer_auth(&self.token).json(body);
        answer(path, request).await
    }
}

/// Sends a request whose answer is JSON; any other answer is an error with its text.
pub async fn answer<T: DeserializeOwned>(
    what: &str,
    request: reqwest::RequestBuilder,
) -> Result<T, Error> {
    let response = request.send().await.map_err(Error::request(what))?;
    let status = response.status();
    let body = response.bytes().await.map_err(Error::request(what))?;
    if !status.is_success() {
        let why = format!("{what}: status {status}: {}", String::from_utf8_lossy(&body));
        return Err(Error::Wrong { what: "an answer", why });
    }
    serde_json::from_slice(&body).map_err(Error::wrong("an answer"))
}
