//! A peer: verdaccio, the npm registry that people run themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use crate::api::answer;
use crate::error::Error;
use crate::folders;
use crate::process::{self, Server};

/// The last series that runs on Debian's node 18 and newer.
const VERSION: &str = "6.1.6";
/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running verdaccio.
pub struct Verdaccio {
    /// The process.
    pub server: Server,
    /// A user of it.
    pub user: User,
}

/// A user who may publish.
#[derive(Clone)]
pub struct User {
    client: reqwest::Client,
    base: String,
    token: String,
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// The program, installed into the cache on first use.
fn installed() -> Result<PathBuf, Error> {
    let folder = folders::cache()?.join(format!("verdaccio-{VERSION}"));
    let program = folder.join("node_modules/verdaccio/bin/verdaccio");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("installing verdaccio {VERSION} into {}, once", folder.display());
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let manifest = folder.join("package.json");
    // A dependency of this release names a tag, not a version; the tag is not everywhere.
    let text = json!({ "private": true, "overrides": { "node-fetch": "2.7.0" } });
    fs::write(&manifest, text.to_string()).map_err(Error::io(&manifest))?;
    let mut npm = Command::new(folders::program("npm", "install Debian's npm")?);
    npm.current_dir(&folder).args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
    npm.args(["--omit=optional", "--save-exact", &format!("verdaccio@{VERSION}")]);
    npm.stdout(Stdio::null());
    let status = npm.status().map_err(|source| Error::Io { what: "npm".to_owned(), source })?;
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::Failed { program: "npm".to_owned(), status, said: String::new() })
}

impl Verdaccio {
    /// Starts it over an empty folder, without uplinks, and makes a user. It gets one processor
    /// if one is named.
    pub async fn start(folder: &Path, processor: Option<usize>) -> Result<Verdaccio, Error> {
        let program = installed()?;
        let file = folder.join("config.yaml");
        // Signed tokens: with the older kind, each publish would hash a password.
        let text = "storage: ./storage\nauth:\n  htpasswd:\n    file: ./htpasswd\nuplinks: {}\n\
                    security:\n  api:\n    legacy: false\n    jwt:\n      sign:\n        expiresIn: 1d\n\
                    packages:\n  '**':\n    access: $all\n    publish: $authenticated\n\
                    max_body_size: 60mb\nlog: { type: stdout, format: json, level: error }\n";
        fs::write(&file, text).map_err(Error::io(&file))?;
        let port = process::free_port()?;
        let mut command = Command::new(folders::program("node", "install Debian's nodejs")?);
        command.arg(program).arg("--config").arg(&file);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        if let Some(number) = processor {
            command = process::pinned(&command, number)?;
        }
        command.stderr(Stdio::null());
        let server = Server::start(command, false)?;
        let client = modunest_runtime::http::client().map_err(Error::request("an HTTP client"))?;
        let base = format!("http://127.0.0.1:{port}");
        let until = Instant::now() + START_TIMEOUT;
        let ping = format!("{base}/-/ping");
        while client.get(&ping).send().await.is_err() {
            if Instant::now() > until {
                let (program, seconds) = ("verdaccio".to_owned(), START_TIMEOUT.as_secs());
                return Err(Error::NotReady { program, seconds, said: String::new() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let url = format!("{base}/-/user/org.couchdb.user:bench");
        let user = json!({ "name": "bench", "password": "only for this run" });
        let login: Login = answer("verdaccio's login", client.put(url).json(&user)).await?;
        Ok(Verdaccio { server, user: User { client, base, token: login.token } })
    }
}

impl User {
    /// Publishes a package with one version, as npm does.
    pub async fn publish(&self, name: &str, archive: &[u8]) -> Result<(), Error> {
        self.publish_described(name, "", archive).await
    }

    /// Publishes a package with one version that has a description.
    pub async fn publish_described(
        &self,
        name: &str,
        description: &str,
        archive: &[u8],
    ) -> Result<(), Error> {
        let file = format!("{name}-1.0.0.tgz");
        let tarball = format!("{}/{name}/-/{file}", self.base);
        let digest = modunest_core::digest::Digest::of(archive);
        let integrity = format!("sha256-{}", STANDARD.encode(digest.as_bytes()));
        let version = json!({
            "name": name, "version": "1.0.0", "_id": format!("{name}@1.0.0"),
            "description": description,
            "dist": { "integrity": integrity, "tarball": tarball },
        });
        let body = json!({
            "_id": name, "name": name, "dist-tags": { "latest": "1.0.0" },
            "versions": { "1.0.0": version },
            "_attachments": { file: {
                "content_type": "application/octet-stream",
                "data": STANDARD.encode(archive), "length": archive.len(),
            } },
        });
        let request = self.client.put(format!("{}/{name}", self.base)).bearer_auth(&self.token);
        let _said: serde_json::Value = answer("verdaccio's publish", request.json(&body)).await?;
        Ok(())
    }

    /// Address and port.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Whether readers see the version.
    pub async fn shows(&self, name: &str) -> Result<bool, Error> {
        let response = self.client.get(format!("{}/{name}", self.base)).send().await;
        let response = response.map_err(Error::request("verdaccio's packument"))?;
        if !response.status().is_success() {
            return Ok(false);
        }
        let text = response.text().await.map_err(Error::request("verdaccio's packument"))?;
        let document: serde_json::Value =
            serde_json::from_str(&text).map_err(Error::wrong("verdaccio's packument"))?;
        Ok(document["versions"]["1.0.0"].is_object())
    }
}
