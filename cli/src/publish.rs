//! Publishing one package: sign, declare, upload, follow.

use std::time::Duration;

use modunest_agent::registry::Client as Registry;
use modunest_core::api::{
    PublishRequest, PublishResponse, SessionView, StatementRequest, StatementResponse, Upload,
};
use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{Build, Link, SignedStatement, Statement};
use modunest_tlog::SigningKey;
use reqwest::{Body, Method, StatusCode};
use serde::Serialize;

use crate::api::{Api, unreachable};
use crate::error::Error;
use crate::output::{self, Output};
use crate::package::{Package, Source};

/// How often a statement is signed anew because another one of the same plugin came first.
const CHAIN_TRIES_MAX: u32 = 8;
/// How often one archive's upload is tried.
const UPLOAD_TRIES_MAX: u32 = 4;
/// Pause before the session is asked for the second time; it doubles up to
/// [`POLL_MAX`], so that a quick publish is noticed at once and a slow one costs little.
const POLL_FIRST: Duration = Duration::from_millis(10);
/// Longest pause between two questions.
const POLL_MAX: Duration = Duration::from_secs(1);

/// What came of a publish.
#[derive(Debug, Serialize)]
pub struct Published {
    /// The plugin.
    pub plugin: PluginName,
    /// The version.
    pub version: String,
    /// Where it stands; `published` unless it was a dry run.
    pub state: State,
    /// Whether this release was there before, byte for byte.
    pub already_there: bool,
    /// SHA-256 of the archive of the first build.
    pub archive: Digest,
    /// Size of that archive.
    pub size_bytes: u64,
    /// Every build, in the order of the release statement.
    pub builds: Vec<Build>,
    /// Epoch of the first head that shows it.
    pub epoch: Option<u64>,
    /// What the scan noticed.
    pub findings: Vec<String>,
}

/// What the next statement of a plugin's owner must say and be signed with.
pub struct Standing {
    /// The organisation whose keys sign for the plugin.
    pub owner: OrgName,
    /// Place of its next statement.
    pub next: Link,
}

/// A registry, as a publisher uses it.
pub struct Publisher {
    /// The API.
    pub api: Api,
    /// The files, proven.
    pub registry: Registry,
    /// The key that signs.
    pub key: SigningKey,
}

impl Publisher {
    /// Publishes a package, or runs every check that can be run before the upload.
    ///
    /// # Errors
    /// When the registry refuses, is out of reach, or shows what cannot be proven.
    pub async fn publish(
        &self,
        source: &Source,
        package: &Package,
        dry_run: bool,
        output: &Output,
    ) -> Result<Published, Error> {
        for _ in 0..CHAIN_TRIES_MAX {
            match self.publish_once(source, package, dry_run, output).await {
                Err(Error::Refused(problem)) if problem.code == Code::ChainConflict => {}
                other => return other,
            }
        }
        Err(Error::Failed(format!(
            "other statements about {} keep coming first; try again when its other publishes are done",
            source.manifest.name
        )))
    }

    async fn publish_once(
        &self,
        source: &Source,
        package: &Package,
        dry_run: bool,
        output: &Output,
    ) -> Result<Published, Error> {
        let manifest = &source.manifest;
        let Standing { owner, next } = self.standing(&manifest.name).await?;
        let statement = Statement::Release(std::sync::Arc::new(package.release(source, next)));
        let signed = self.sign(&statement, &owner)?;
        let request = PublishRequest { statement: text(&signed)?, dry_run };
        let answer: PublishResponse = self.api.send(Method::POST, "/v1/releases", &request).await?;
        let mut published = Published {
            plugin: manifest.name.clone(),
            version: manifest.version.to_string(),
            state: answer.state,
            already_there: answer.state == State::Published,
            archive: package.first.build.archive,
            size_bytes: package.first.build.size_bytes,
            builds: package.archives().map(|archive| archive.build.clone()).collect(),
            epoch: None,
            findings: package.archives().flat_map(|a| a.findings.iter().cloned()).collect(),
        };
        let Some(session) = answer.session else { return Ok(published) };
        for upload in &answer.uploads {
            self.upload(upload, package, output).await?;
        }
        let view = self.follow(session, output).await?;
        published.state = view.state;
        published.epoch = view.epoch;
        Ok(published)
    }

    /// Whose a plugin is and what its next statement follows, from the proven index.
    ///
    /// # Errors
    /// When the index cannot be read or proven.
    pub async fn standing(&self, plugin: &PluginName) -> Result<Standing, Error> {
        self.registry.refresh().await.map_err(crate::commands::registry_error)?;
        let state = self.registry.plugin(plugin).await.map_err(crate::commands::registry_error)?;
        Ok(match state {
            Some(state) => Standing { owner: state.owner, next: state.next },
            None => Standing { owner: plugin.org(), next: Link::FIRST },
        })
    }

    /// Says something as a plugin's owner: signs it behind the newest statement, and again
    /// when another one comes first.
    ///
    /// # Errors
    /// When the registry refuses, is out of reach, or shows what cannot be proven.
    pub async fn say(
        &self,
        plugin: &PluginName,
        statement: impl Fn(Link) -> Statement,
    ) -> Result<StatementResponse, Error> {
        for _ in 0..CHAIN_TRIES_MAX {
            let Standing { owner, next } = self.standing(plugin).await?;
            let signed = self.sign(&statement(next), &owner)?;
            let request = StatementRequest { statement: text(&signed)? };
            match self.api.send(Method::POST, "/v1/statements", &request).await {
                Err(Error::Refused(problem)) if problem.code == Code::ChainConflict => {}
                other => return other,
            }
        }
        Err(Error::Failed(format!("other statements about {plugin} keep coming first; try again")))
    }

    fn sign(&self, statement: &Statement, owner: &OrgName) -> Result<SignedStatement, Error> {
        if self.key.name().as_str() != owner.as_str() {
            return Err(Error::Input(format!(
                "the key is {}'s, and {} belongs to {owner}; sign with a key of {owner}",
                self.key.name(),
                statement.subject()
            )));
        }
        statement.sign(&self.key).map_err(|error| Error::Input(error.to_string()))
    }

    async fn upload(
        &self,
        upload: &Upload,
        package: &Package,
        output: &Output,
    ) -> Result<(), Error> {
        let asked = package.archives().find(|archive| archive.build.archive == upload.archive);
        let archive = asked.ok_or_else(|| {
            Error::Failed(format!(
                "the registry asks for {}, which is no part of this release",
                upload.archive
            ))
        })?;
        let mut last = None;
        for attempt in 0..UPLOAD_TRIES_MAX {
            tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            let bar = output.bytes("uploading", upload.size_bytes);
            let mut request = self.api.client().put(&upload.url);
            for (name, value) in &upload.headers {
                request = request.header(name, value);
            }
            match request.body(body(archive.bytes.clone(), bar.clone())).send().await {
                Ok(answer) if answer.status().is_success() => {
                    bar.finish_and_clear();
                    return Ok(());
                }
                // The object is there: an earlier try arrived, though its answer did not.
                Ok(answer) if answer.status() == StatusCode::PRECONDITION_FAILED => return Ok(()),
                Ok(answer) if answer.status().is_client_error() => {
                    let status = answer.status();
                    let said = answer.text().await.unwrap_or_default();
                    return Err(Error::Failed(format!(
                        "the upload of {} was refused with status {status}: {said}",
                        upload.archive
                    )));
                }
                Ok(answer) => {
                    last = Some(Error::Failed(format!(
                        "the upload was answered with status {}",
                        answer.status()
                    )))
                }
                // The URL is a secret for as long as it is valid, so it is not shown.
                Err(error) => last = Some(unreachable("the upload", &error.without_url())),
            }
        }
        Err(last.unwrap_or_else(|| Error::Failed("the upload was not tried".to_owned())))
    }

    /// Follows a session to its end.
    ///
    /// # Errors
    /// When it does not end as published.
    pub async fn follow(&self, session: SessionId, output: &Output) -> Result<SessionView, Error> {
        let path = format!("/v1/sessions/{session}");
        let spinner = output.spinner("waiting");
        let mut pause = POLL_FIRST;
        loop {
            let view: SessionView = self.api.ask(Method::GET, &path).await?;
            spinner.set_message(format!("{} {}: {}", view.plugin, view.version, view.state));
            if view.state.is_end() {
                spinner.finish_and_clear();
                return ended(view);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }
}

fn ended(view: SessionView) -> Result<SessionView, Error> {
    match (view.state, view.rejection) {
        (State::Published, rejection) => Ok(SessionView { rejection, ..view }),
        (_, Some(problem)) => Err(Error::Refused(Box::new(problem))),
        (state, None) => {
            Err(Error::Failed(format!("{} {} ended as {state}", view.plugin, view.version)))
        }
    }
}

/// A statement as the API takes it.
fn text(signed: &SignedStatement) -> Result<String, Error> {
    String::from_utf8(signed.bytes().to_owned()).map_err(|error| Error::Failed(error.to_string()))
}

/// A body that moves a bar as it is sent, in pieces of 64 KiB: what a socket takes at once.
fn body(bytes: Vec<u8>, bar: indicatif::ProgressBar) -> Body {
    const PIECE_BYTES: usize = 64 * 1024;
    let bytes = bytes::Bytes::from(bytes);
    let pieces = (0..bytes.len()).step_by(PIECE_BYTES).map(move |start| {
        let piece = bytes.slice(start..(start + PIECE_BYTES).min(bytes.len()));
        bar.inc(piece.len() as u64);
        Ok::<_, std::io::Error>(piece)
    });
    Body::wrap_stream(futures_util::stream::iter(pieces))
}

/// The line that people read. What the scan noticed is `modunest check`'s to show.
pub fn line(published: &Published) -> String {
    let outcome = match (published.state, published.already_there) {
        (State::Published, true) => "is there already, byte for byte".to_owned(),
        (State::Published, false) => "published".to_owned(),
        (state, _) => format!("passes every check before the upload (state would be {state})"),
    };
    let mut line = format!(
        "{} {} {outcome}, {}, sha256 {}",
        published.plugin,
        published.version,
        output::size(published.size_bytes),
        published.archive
    );
    for build in published.builds.iter().skip(1) {
        let size = output::size(build.size_bytes);
        line.push_str(&format!("\n  and {}: {size}, sha256 {}", build.target, build.archive));
    }
    line
}
