//! `modunest witness serve` as a child process.

use std::path::{Path, PathBuf};

use modunest_tests::process::{Process, run};
use modunest_tests::registry::command;
use modunest_tlog::{Submission, VerifyingKey, WitnessKey};
use serde_json::Value;
use tempfile::TempDir;

use crate::ledger::{Ledger, log_key};

/// A witness, with a folder that outlives its processes.
pub struct Witness {
    pub process: Process,
    pub key: WitnessKey,
    pub url: String,
    pub name: String,
    log: VerifyingKey,
    folder: TempDir,
}

/// An answer of a witness.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Witness {
    /// One that follows the ledger's log.
    pub async fn start(name: &str) -> Witness {
        Witness::of(name, log_key().verifying_key()).await
    }

    /// One that follows the log of a key.
    pub async fn of(name: &str, log: VerifyingKey) -> Witness {
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("witness.key");
        let _made = run(command().args(["witness", "key", "new", name, "--out"]).arg(&key)).good();
        Witness::start_in(folder, name, log, "127.0.0.1:0").await
    }

    async fn start_in(folder: TempDir, name: &str, log: VerifyingKey, listen: &str) -> Witness {
        let mut process = Witness::spawn_of(folder.path(), &log, listen);
        let started = process.first_value().await;
        let text = |field: &str| Value::as_str(&started[field]).unwrap().to_owned();
        Witness {
            process,
            key: text("key").parse().unwrap(),
            url: text("url"),
            name: name.to_owned(),
            log,
            folder,
        }
    }

    /// A process on a folder, which may come to nothing.
    pub fn spawn(folder: &Path) -> Process {
        Witness::spawn_of(folder, &log_key().verifying_key(), "127.0.0.1:0")
    }

    fn spawn_of(folder: &Path, log: &VerifyingKey, listen: &str) -> Process {
        let mut command = command();
        command
            .args(["witness", "serve", "--json", "--listen", listen, "--key"])
            .arg(folder.join("witness.key"))
            .arg("--state")
            .arg(folder.join("state"))
            .args(["--log", &log.to_string()]);
        Process::start("witness", command, &folder.join("logs"))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with what it cosigned last; `None` before that.
    pub fn state_file(&self) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.folder.path().join("state")).ok()?;
        files
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|ending| ending == "checkpoint"))
    }

    /// Kills it, and starts another process on the same folder.
    pub async fn kill_and_restart(self) -> Witness {
        let Witness { mut process, folder, name, log, .. } = self;
        process.kill();
        drop(process);
        Witness::start_in(folder, &name, log, "127.0.0.1:0").await
    }

    /// Starts another process where a killed one was, at its address too.
    pub async fn back(self) -> Witness {
        let Witness { process, folder, name, log, url, .. } = self;
        drop(process);
        let listen = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Witness::start_in(folder, &name, log, &listen).await
    }

    /// Its line in a policy.
    pub fn policy_line(&self) -> String {
        format!("witness {} {} {}\n", self.name, self.key, self.url)
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        let url = format!("{}add-checkpoint", self.url);
        let client = modunest_runtime::http::client().unwrap();
        let answer = client.post(url).body(body).send().await.unwrap();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let status = answer.status().as_u16();
        Answer { status, content_type, body: answer.text().await.unwrap() }
    }

    pub async fn submit(&self, ledger: &Ledger, old_size: u64) -> Answer {
        self.post(submission(ledger, old_size)).await
    }
}

/// A log's checkpoint with the proof from an earlier size.
pub fn submission(ledger: &Ledger, old_size: u64) -> Vec<u8> {
    let checkpoint = ledger.checkpoint().sign(&log_key()).unwrap().bytes().to_vec();
    let proof = if old_size <= ledger.size() { ledger.consistency(old_size) } else { Vec::new() };
    Submission { old_size, proof, checkpoint }.to_bytes()
}
