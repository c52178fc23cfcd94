//! A registry: `modunest up` as a child process, and the commands of `modunest`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use modunest_core::Version;
use modunest_core::api::{
    CreateOrg, CreateToken, OrgView, RegisterKey, StatementResponse, TokenCreated,
};
use modunest_core::authorise::Scope;
use modunest_core::name::OrgName;
use modunest_tlog::{SigningKey, VerifyingKey};
use reqwest::Method;
use serde::Deserialize;
use tempfile::TempDir;
use url::Url;

use crate::client::{Client, Publisher};
use crate::process::{Finished, Process, program, run};

/// The origin of a registry that `modunest up` starts.
pub const ORIGIN: &str = "local.modunest";

/// What `modunest up --json` prints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Where it answers.
    pub url: Url,
    /// The administrator's profile.
    pub profile: PathBuf,
    /// Where its S3 service answers.
    pub s3: Url,
    /// Where its DynamoDB service answers.
    pub dynamodb: Url,
}

/// A registry's folder, which outlives its processes.
#[derive(Clone, Debug)]
pub struct Folder(Arc<TempDir>);

impl Folder {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no place for it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Folder {
        Folder(Arc::new(TempDir::new().unwrap()))
    }

    /// What the registry keeps.
    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// What it prints and logs.
    pub fn logs(&self) -> PathBuf {
        self.0.path().join("logs")
    }

    /// Any other file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another folder with the same content. The registry must not be running.
    ///
    /// # Panics
    /// When a file cannot be copied.
    pub fn copy(&self) -> Folder {
        let copy = Folder::new();
        copy_tree(&self.data(), &copy.data());
        copy
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A running registry.
pub struct Registry {
    /// Its process.
    pub process: Process,
    /// Where it keeps everything.
    pub folder: Folder,
    /// What it printed when it was ready.
    pub started: Started,
}

impl Registry {
    /// A new one in a folder of its own.
    pub async fn start() -> Registry {
        Registry::start_in(&Folder::new(), &[]).await
    }

    /// One in a folder that may hold an earlier one's data, with further environment.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_in(folder: &Folder, environment: &[(&str, &str)]) -> Registry {
        let mut process = Registry::spawn(folder, environment);
        let started = serde_json::from_value(process.first_value().await).unwrap();
        Registry { process, folder: folder.clone(), started }
    }

    /// A new one with the worker as its read side.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_with_worker() -> Registry {
        let folder = Folder::new();
        let mut process = Registry::spawn_with(&folder, &[], &["--edge", "workerd"]);
        let started = serde_json::from_value(process.first_value().await).unwrap();
        Registry { process, folder, started }
    }

    /// The process alone, which may come to nothing.
    pub fn spawn(folder: &Folder, environment: &[(&str, &str)]) -> Process {
        Registry::spawn_with(folder, environment, &[])
    }

    /// As [`Registry::spawn`], with further arguments.
    pub fn spawn_with(
        folder: &Folder,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Process {
        let mut command = command();
        command
            .args(["up", "--json", "--port", "0", "--data"])
            .arg(folder.data())
            .args(arguments)
            .envs(environment.iter().copied());
        Process::start("registry", command, &folder.logs())
    }

    /// Kills it, and starts another process on the same folder.
    pub async fn kill_and_restart(mut self) -> Registry {
        self.process.kill();
        Registry::start_in(&self.folder, &[]).await
    }

    /// The administrator's token.
    ///
    /// # Panics
    /// When its file is not there.
    pub fn admin_token(&self) -> String {
        admin_token(&self.folder)
    }

    /// The API, as the administrator.
    pub fn admin(&self) -> Client {
        Client::new(self.started.url.clone(), Some(self.admin_token()))
    }

    /// The API, as nobody.
    pub fn nobody(&self) -> Client {
        Client::new(self.started.url.clone(), None)
    }

    /// The registry's keys, of the log, of heads and of statements, from its own discovery
    /// document: this harness is the operator.
    ///
    /// # Panics
    /// When the document is not to be had.
    pub async fn keys(&self) -> Vec<VerifyingKey> {
        let discovery: serde_json::Value = self.nobody().get("/.well-known/modunest.json").await;
        let texts = discovery["keys"].as_array().unwrap();
        texts.iter().map(|text| text.as_str().unwrap().parse().unwrap()).collect()
    }

    /// Founds an organisation with a key, owned by the administrator.
    ///
    /// # Panics
    /// When the registry refuses.
    pub async fn publisher(&self, org: &str) -> Publisher {
        publisher(self.admin(), org).await
    }

    /// Makes a token of the administrator's with these scopes.
    ///
    /// # Panics
    /// When the registry refuses.
    pub async fn token(&self, scopes: &[Scope]) -> TokenCreated {
        let request = CreateToken {
            user: None,
            scopes: scopes.to_vec(),
            label: "a test".to_owned(),
            lifetime_secs: 3600,
        };
        self.admin().send(Method::POST, "/v1/tokens", &request).await.unwrap()
    }

    /// `modunest` with the administrator's profile.
    pub fn modunest(&self) -> Command {
        let mut command = command();
        command
            .arg("--profile")
            .arg(&self.started.profile)
            .env("XDG_CACHE_HOME", self.folder.file("cache"));
        command
    }

    /// Runs `modunest` with the administrator's profile.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(self.modunest().args(arguments))
    }

    /// Newest version of a plugin that the index shows.
    pub async fn newest(&self, plugin: &str) -> Option<Version> {
        let snapshot = crate::snapshot::Snapshot::read(&self.started.url, &self.keys().await).await;
        let state = snapshot.plugins.get(&plugin.parse().ok()?)?;
        state.releases.keys().next_back().cloned()
    }
}

/// Founds an organisation with a key, owned by whoever the client is.
///
/// # Panics
/// When the registry refuses.
pub async fn publisher(client: Client, org: &str) -> Publisher {
    let org: OrgName = org.parse().unwrap();
    let _founded: OrgView =
        client.send(Method::POST, "/v1/orgs", &CreateOrg { org: org.clone() }).await.unwrap();
    let key = signing_key(org.as_str(), 1);
    let _registered: StatementResponse = client
        .send(Method::POST, &format!("/v1/orgs/{org}/keys"), &registration(&org, &key))
        .await
        .unwrap();
    Publisher { client, key }
}

/// The administrator's token in a registry's folder.
///
/// # Panics
/// When its file is not there.
pub fn admin_token(folder: &Folder) -> String {
    std::fs::read_to_string(folder.data().join("admin.token")).unwrap().trim().to_owned()
}

/// `modunest`, with nothing of this machine's own settings.
pub fn command() -> Command {
    let mut command = Command::new(program("modunest"));
    for variable in ["MODUNEST_PROFILE", "MODUNEST_TOKEN", "MODUNEST_LOG", "MODUNEST_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command
}

/// A key that is the same in every run.
///
/// # Panics
/// When `name` cannot be a key's name.
pub fn signing_key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), &[seed; 32])
}

/// The request that registers a key.
///
/// # Panics
/// Never, for a key of [`signing_key`].
pub fn registration(org: &OrgName, key: &SigningKey) -> RegisterKey {
    let public = key.verifying_key().to_string();
    let proof = modunest_tlog::sign(&RegisterKey::proof_text(org, &public), &[key]).unwrap();
    RegisterKey { key: public, proof: String::from_utf8(proof).unwrap() }
}
