//! The real registry, as `modunest up` starts it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use modunest_runtime::aws::Settings;
use serde::Deserialize;
use url::Url;

use crate::error::Error;
use crate::folders;
use crate::process::Server;

/// How long a start may take. The first start of the demo builds its plugins.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// A running registry.
pub struct Registry {
    /// The process.
    pub server: Server,
    /// Where it answers.
    pub url: Url,
    /// Where its S3 answers.
    pub s3: String,
    data: PathBuf,
}

/// What `modunest up --json` prints.
#[derive(Deserialize)]
struct Started {
    url: Url,
    s3: String,
}

impl Registry {
    /// Starts one on free ports and waits until it answers. `more` are further flags.
    pub fn start(data: &Path, more: &[&str]) -> Result<Registry, Error> {
        let mut command = Command::new(folders::sibling("modunest")?);
        command.args(["up", "--json", "--port", "0"]).args(more).arg("--data").arg(data);
        // Its log is not what is measured, but writing it is: a file, as a service has one.
        let log = data.with_extension("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io(&log))?;
        command.stderr(Stdio::from(log));
        let mut server = Server::start(command, true)?;
        let Started { url, s3 } = server.hear(START_TIMEOUT)?;
        Ok(Registry { server, url, s3, data: data.to_owned() })
    }

    /// A secret that the registry wrote into its data folder.
    pub fn secret(&self, file: &str) -> Result<String, Error> {
        let path = self.data.join(file);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        Ok(text.trim().to_owned())
    }

    /// Objects that readers can reach.
    pub async fn objects(&self) -> Result<i64, Error> {
        let settings = Settings {
            region: "local".to_owned(),
            access_key_id: "modunest-local".to_owned(),
            secret_access_key: self.secret("s3.secret")?,
            session_token: None,
            s3_endpoint: Some(self.s3.clone()),
            dynamodb_endpoint: None,
            kms_endpoint: None,
        };
        objects(&settings, "modunest-public").await
    }
}

/// Objects in a bucket.
pub async fn objects(settings: &Settings, bucket: &str) -> Result<i64, Error> {
    let s3 = modunest_runtime::aws::s3(settings);
    let mut pages = s3.list_objects_v2().bucket(bucket).into_paginator().send();
    let mut count = 0;
    while let Some(page) = pages.next().await {
        count +=
            i64::from(page.map_err(Error::wrong("the list of objects"))?.key_count.unwrap_or(0));
    }
    Ok(count)
}
