//! The running agent, asked over its admin API.

use std::time::Duration;

use modunest_agent::config::Listen;
use modunest_agent::{Config, Error};
use modunest_core::problem::Problem;
use modunest_runtime::http;
use serde::de::DeserializeOwned;

/// Largest answer that is read, in bytes: 10,000 plugins with 4 KB each.
const ANSWER_MAX_BYTES: usize = 40 * 1024 * 1024;
/// How long a question may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change may take: downloads and loads of many plugins.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// Where the agent of a configuration answers.
#[derive(Clone, Debug)]
pub(super) struct AgentClient {
    http: reqwest::Client,
    base: String,
    address: String,
}

impl AgentClient {
    /// Nothing is asked yet.
    pub(super) fn of(config: &Config) -> Result<Self, Error> {
        http::install_crypto();
        let builder = reqwest::Client::builder();
        let (builder, base) = match &config.admin {
            Listen::Tcp(address) => (builder, format!("http://{address}")),
            Listen::Unix(path) => (builder.unix_socket(path.as_path()), "http://localhost".into()),
        };
        let address = config.admin.to_string();
        let http = builder.build().map_err(|error| Error::NoAgent {
            address: address.clone(),
            reason: error.to_string(),
        })?;
        Ok(AgentClient { http, base, address })
    }

    /// What a path answers.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(self.http.get(format!("{}{path}", self.base)).timeout(READ_TIMEOUT)).await
    }

    /// What becomes of a change.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(self.http.post(format!("{}{path}", self.base)).timeout(CHANGE_TIMEOUT)).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Error> {
        let asked = http::traced(request).send().await;
        let answer = asked.map_err(|error| self.nobody(http::reason(&error)))?;
        let succeeded = answer.status().is_success();
        let body = http::body(answer, ANSWER_MAX_BYTES).await;
        let body = body.map_err(|error| self.nobody(error.to_string()))?;
        if !succeeded && let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
            return Err(Error::AgentRefused { detail: problem.detail, code: problem.code });
        }
        serde_json::from_slice(&body).map_err(|error| {
            self.nobody(format!("what answers is no agent of this version: {error}"))
        })
    }

    fn nobody(&self, reason: String) -> Error {
        Error::NoAgent { address: self.address.clone(), reason }
    }
}
