//! A publisher of our own: the API and the upload URLs as any third party would use them.

use std::time::Duration;

use bytes::Bytes;
use modunest_core::Version;
use modunest_core::api::{
    PublishRequest, PublishResponse, SessionView, StatementRequest, StatementResponse, Upload,
};
use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::name::PluginName;
use modunest_core::problem::{Code, PROBLEM_CONTENT_TYPE, Problem};
use modunest_core::publish::State;
use modunest_core::statement::{
    Chain, Deprecation, Link, Ownership, SignedStatement, Statement, Yank,
};
use modunest_runtime::http::traced;
use modunest_tlog::SigningKey;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::fixtures::Package;
use crate::process::until;

/// How often a statement is signed anew because another came first: more than a test has
/// publishers of one plugin.
const CHAIN_TRIES: usize = 20;

/// Pause before a session is asked about again; it doubles each time up to [`POLL_MAX`].
const POLL: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(200);

/// An answer, whatever it is.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A header's value.
    ///
    /// # Panics
    /// When the header is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// The problem that it is.
    ///
    /// # Panics
    /// When it is none, or breaks the form of problems.
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), PROBLEM_CONTENT_TYPE, "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.trace_id.len(), 32, "{problem:?}");
        problem
    }

    /// The value that it is, or the problem.
    ///
    /// # Errors
    /// The problem.
    ///
    /// # Panics
    /// When it is neither.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if !self.status.is_success() {
            return Err(self.problem());
        }
        let body: &[u8] = if self.body.is_empty() { b"null" } else { &self.body };
        Ok(serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {self:?}")))
    }
}

/// A registry's API, with or without a token.
#[derive(Clone)]
pub struct Client {
    /// Carries everything out.
    pub http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// The API at `base`.
    ///
    /// # Panics
    /// When the system's certificates cannot be read.
    pub fn new(base: Url, token: Option<String>) -> Client {
        Client { http: modunest_runtime::http::client().unwrap(), base, token }
    }

    /// The same as another user, or as nobody.
    #[must_use]
    pub fn with_token(&self, token: Option<String>) -> Client {
        Client { token, ..self.clone() }
    }

    /// A request, not sent yet.
    ///
    /// # Panics
    /// When `path` is none.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = traced(self.http.request(method, self.base.join(path).unwrap()));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Whatever is answered to a request with a JSON body. `None` when the connection breaks.
    pub async fn try_answer<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Option<Answer> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        answer(request).await
    }

    /// Whatever is answered to a request with a JSON body.
    ///
    /// # Panics
    /// When nothing is.
    pub async fn answer<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Answer {
        self.try_answer(method, path, body).await.expect("the registry to answer")
    }

    /// What a request with a JSON body comes to.
    ///
    /// # Errors
    /// The problem that the registry answers.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Problem> {
        self.answer(method, path, Some(body)).await.value()
    }

    /// What is to be read at a path.
    ///
    /// # Panics
    /// When the registry refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.answer(Method::GET, path, None::<&()>).await.value().unwrap()
    }
}

/// Sends a request. `None` when the connection breaks.
pub async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status(), response.headers().clone());
    Some(Answer { status, headers, body: response.bytes().await.ok()? })
}

/// Somebody who publishes for an organisation.
#[derive(Clone)]
pub struct Publisher {
    /// The API.
    pub client: Client,
    /// The organisation's key.
    pub key: SigningKey,
}

impl Publisher {
    /// Place of a plugin's next statement.
    ///
    /// # Panics
    /// When the registry does not answer.
    pub async fn next_link(&self, plugin: &PluginName) -> Link {
        self.try_next_link(plugin).await.expect("the registry to answer")
    }

    /// As [`Publisher::next_link`]; `None` when the connection breaks.
    pub async fn try_next_link(&self, plugin: &PluginName) -> Option<Link> {
        let file = crate::snapshot::file_of(&self.client, plugin).await?;
        let entries = file.map(|file| file.entries).unwrap_or_default();
        // What the registry says of the plugin is a chain of its own.
        let mut owners = entries.iter().rev().map(|(_, signed)| signed);
        let last = owners.find(|signed| signed.statement().chain() == Chain::Owner);
        Some(last.map_or(Link::FIRST, SignedStatement::next_link))
    }

    /// The release statement of a package at a place.
    ///
    /// # Panics
    /// When the package breaks a rule of statements.
    pub fn sign(&self, package: &Package, link: Link) -> SignedStatement {
        Statement::Release(std::sync::Arc::new(package.release(link))).sign(&self.key).unwrap()
    }

    /// Opens a session, or takes one up.
    ///
    /// # Errors
    /// The problem that the registry answers.
    pub async fn open(&self, signed: &SignedStatement) -> Result<PublishResponse, Problem> {
        self.client.send(Method::POST, "/v1/releases", &request(signed)).await
    }

    /// Uploads to a presigned URL, as it was told to.
    ///
    /// # Panics
    /// When S3 does not answer.
    pub async fn upload(&self, upload: &Upload, bytes: Vec<u8>) -> Answer {
        self.try_upload(upload, bytes).await.expect("S3 to answer")
    }

    /// As [`Publisher::upload`]; `None` when the connection breaks.
    pub async fn try_upload(&self, upload: &Upload, bytes: Vec<u8>) -> Option<Answer> {
        let method: Method = upload.method.parse().unwrap();
        let mut request = self.client.http.request(method, &upload.url);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        answer(request.body(bytes)).await
    }

    /// Where a session stands.
    pub async fn session(&self, session: SessionId) -> SessionView {
        self.client.get(&format!("/v1/sessions/{session}")).await
    }

    /// Waits for a session's end.
    pub async fn follow(&self, session: SessionId) -> SessionView {
        until("the session to end", async || {
            Some(self.session(session).await).filter(|view| view.state.is_end())
        })
        .await
    }

    /// Opens a session for a package, uploads, and waits for its end, whatever that is.
    ///
    /// # Errors
    /// The problem that the registry answers to the first request.
    ///
    /// # Panics
    /// When an upload is refused.
    pub async fn attempt(&self, package: &Package) -> Result<SessionView, Problem> {
        let link = self.next_link(&package.manifest.name).await;
        self.attempt_signed(&self.sign(package, link), package).await
    }

    /// As [`Publisher::attempt`], with a statement of the caller's.
    ///
    /// # Errors
    /// The problem that the registry answers to the first request.
    ///
    /// # Panics
    /// When an upload is refused.
    pub async fn attempt_signed(
        &self,
        signed: &SignedStatement,
        package: &Package,
    ) -> Result<SessionView, Problem> {
        self.try_attempt_signed(signed, package).await.expect("the registry to answer")
    }

    /// As [`Publisher::attempt`]; `None` when the connection breaks on the way, wherever.
    pub async fn try_attempt(&self, package: &Package) -> Option<Result<SessionView, Problem>> {
        let link = self.try_next_link(&package.manifest.name).await?;
        self.try_attempt_signed(&self.sign(package, link), package).await
    }

    /// As [`Publisher::attempt_signed`]; `None` when the connection breaks on the way.
    ///
    /// # Panics
    /// When an upload is refused.
    pub async fn try_attempt_signed(
        &self,
        signed: &SignedStatement,
        package: &Package,
    ) -> Option<Result<SessionView, Problem>> {
        let request = request(signed);
        let answer = self.client.try_answer(Method::POST, "/v1/releases", Some(&request));
        let opened: PublishResponse = match answer.await?.value() {
            Ok(opened) => opened,
            Err(problem) => return Some(Err(problem)),
        };
        for upload in &opened.uploads {
            let answer = self.try_upload(upload, package.archive.clone()).await?;
            let there = answer.status == StatusCode::PRECONDITION_FAILED;
            assert!(answer.status.is_success() || there, "{answer:?}");
        }
        let path = format!("/v1/sessions/{}", opened.session.unwrap());
        let mut pause = POLL;
        loop {
            let answer = self.client.try_answer(Method::GET, &path, None::<&()>).await?;
            match answer.value::<SessionView>() {
                Ok(view) if view.state.is_end() => return Some(Ok(view)),
                Ok(_) => tokio::time::sleep(pause).await,
                Err(problem) => return Some(Err(problem)),
            }
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Publishes a package, behind whatever is published of its plugin meanwhile.
    ///
    /// # Panics
    /// When it does not end as published.
    pub async fn publish(&self, package: &Package) -> SessionView {
        for _ in 0..CHAIN_TRIES {
            let problem = match self.attempt(package).await {
                Ok(view) if view.state == State::Published => return view,
                Ok(view) => view.rejection.unwrap_or_else(|| panic!("ended as {}", view.state)),
                Err(problem) => problem,
            };
            assert_eq!(problem.code, Code::ChainConflict, "{problem:#?}");
        }
        panic!("{CHAIN_TRIES} other statements came first");
    }

    /// Yanks a release, or takes a yank back.
    ///
    /// # Errors
    /// The problem that the registry answers.
    ///
    /// # Panics
    /// When nothing is answered.
    pub async fn yank(
        &self,
        plugin: &str,
        version: &str,
        yanked: bool,
    ) -> Result<StatementResponse, Problem> {
        self.try_yank(plugin, version, yanked).await.expect("the registry to answer")
    }

    /// As [`Publisher::yank`]; `None` when the connection breaks.
    ///
    /// # Panics
    /// When `plugin` or `version` is none.
    pub async fn try_yank(
        &self,
        plugin: &str,
        version: &str,
        yanked: bool,
    ) -> Option<Result<StatementResponse, Problem>> {
        let plugin: PluginName = plugin.parse().unwrap();
        let version: Version = version.parse().unwrap();
        let reason = yanked.then(|| "for a test".to_owned());
        let Link { sequence, previous } = self.try_next_link(&plugin).await?;
        let yank = Yank { plugin, version, sequence, previous, yanked, reason };
        self.try_say(&Statement::Yank(yank)).await
    }

    /// Deprecates a release, or a whole plugin, with a message; without one, takes that back.
    ///
    /// # Errors
    /// The problem that the registry answers.
    ///
    /// # Panics
    /// When nothing is answered, or `plugin` or `version` is none.
    pub async fn deprecate(
        &self,
        plugin: &str,
        version: Option<&str>,
        message: Option<&str>,
    ) -> Result<StatementResponse, Problem> {
        let plugin: PluginName = plugin.parse().unwrap();
        let version = version.map(|version| version.parse().unwrap());
        let Link { sequence, previous } = self.next_link(&plugin).await;
        let (deprecated, message) = (message.is_some(), message.map(str::to_owned));
        self.say(&Statement::Deprecation(Deprecation {
            plugin,
            version,
            sequence,
            previous,
            deprecated,
            message,
        }))
        .await
    }

    /// Gives a plugin to another organisation.
    ///
    /// # Errors
    /// The problem that the registry answers.
    ///
    /// # Panics
    /// When nothing is answered, or `plugin` or `owner` is none.
    pub async fn give(&self, plugin: &str, owner: &str) -> Result<StatementResponse, Problem> {
        let plugin: PluginName = plugin.parse().unwrap();
        let owner = owner.parse().unwrap();
        let Link { sequence, previous } = self.next_link(&plugin).await;
        self.say(&Statement::Ownership(Ownership { plugin, sequence, previous, owner })).await
    }

    /// Says something as a plugin's owner.
    ///
    /// # Errors
    /// The problem that the registry answers.
    ///
    /// # Panics
    /// When nothing is answered, or the statement breaks a rule.
    pub async fn say(&self, statement: &Statement) -> Result<StatementResponse, Problem> {
        self.try_say(statement).await.expect("the registry to answer")
    }

    async fn try_say(&self, statement: &Statement) -> Option<Result<StatementResponse, Problem>> {
        let request = StatementRequest { statement: text(&statement.sign(&self.key).unwrap()) };
        let sent = self.client.try_answer(Method::POST, "/v1/statements", Some(&request));
        Some(sent.await?.value())
    }
}

/// A statement as the API takes it.
///
/// # Panics
/// Never: notes are UTF-8.
pub fn text(signed: &SignedStatement) -> String {
    String::from_utf8(signed.bytes().to_vec()).unwrap()
}

/// The request that publishes a release.
pub fn request(signed: &SignedStatement) -> PublishRequest {
    PublishRequest { statement: text(signed), dry_run: false }
}

/// SHA-256 as S3's checksum headers have it.
pub fn checksum(digest: &Digest) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(digest.as_bytes())
}
