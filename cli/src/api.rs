//! The registry's API, as a client sees it.

use std::time::Duration;

use modunest_core::problem::{PROBLEM_CONTENT_TYPE, Problem};
use modunest_runtime::http::traced;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::Error;
use crate::profile::Profile;

/// A connection to the API.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: Url,
    token: String,
}

impl Api {
    /// Takes address and token from a profile.
    ///
    /// # Errors
    /// When there is no token, or no client can be made.
    pub fn of(profile: &Profile) -> Result<Api, Error> {
        Api::new(profile.url.clone(), profile.token()?)
    }

    /// An API at `base`, spoken to with `token`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(base: Url, token: String) -> Result<Api, Error> {
        let client =
            modunest_runtime::http::client().map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Api { client, base, token })
    }

    /// The client, for requests that are not the API's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request with a JSON body.
    ///
    /// # Errors
    /// [`Error::Refused`] with the registry's problem, or [`Error::Unreachable`].
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let request = self.request(method, path)?.json(body);
        answer(path, self.carry_out(path, request).await?).await
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        let request = self.request(method, path)?;
        answer(path, self.carry_out(path, request).await?).await
    }

    /// Reads what the API shows to everybody, without a token. What is merely of interest
    /// must not be waited for long.
    ///
    /// # Errors
    /// As [`Api::send`], and [`Error::Unreachable`] when there is no answer within `time`.
    pub async fn read_public<T: DeserializeOwned>(
        base: &Url,
        path: &str,
        time: Duration,
    ) -> Result<T, Error> {
        let api = Api::new(base.clone(), String::new())?;
        let url = base.join(path).map_err(|error| Error::Usage(format!("{path}: {error}")))?;
        let reading = async {
            let request = traced(api.client.get(url));
            answer(path, api.carry_out(path, request).await?).await
        };
        tokio::time::timeout(time, reading).await.unwrap_or_else(|_elapsed| {
            let why = format!("no answer within {} seconds", time.as_secs());
            Err(Error::Unreachable { what: path.to_owned(), why })
        })
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Error> {
        let url = self.base.join(path).map_err(|error| Error::Usage(format!("{path}: {error}")))?;
        Ok(traced(self.client.request(method, url).bearer_auth(&self.token)))
    }

    async fn carry_out(&self, path: &str, request: RequestBuilder) -> Result<Response, Error> {
        let whole = self.base.join(path).map_or_else(|_| path.to_owned(), String::from);
        request.send().await.map_err(|error| unreachable(&whole, &error))
    }
}

/// Why a request came to nothing, down to the system's own word.
pub fn unreachable(what: &str, error: &reqwest::Error) -> Error {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        why = deeper.to_string();
        source = deeper.source();
    }
    Error::Unreachable { what: what.to_owned(), why }
}

async fn answer<T: DeserializeOwned>(path: &str, response: Response) -> Result<T, Error> {
    let status = response.status();
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(PROBLEM_CONTENT_TYPE.as_bytes()));
    let body = response.bytes().await.map_err(|error| unreachable(path, &error))?;
    if is_problem {
        let problem: Problem = serde_json::from_slice(&body).map_err(|error| {
            Error::Failed(format!("{path}: status {status} with an unreadable problem: {error}"))
        })?;
        return Err(Error::Refused(Box::new(problem)));
    }
    if !status.is_success() {
        return Err(Error::Failed(format!(
            "{path}: status {status}; is this the address of a registry?"
        )));
    }
    let body: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(body).map_err(|error| {
        Error::Failed(format!("{path}: the answer is not what this version understands: {error}"))
    })
}
