//! The worker in its real runtime: workerd, started by the launcher that stands beside it.

use std::path::Path;
use std::process::Command;

use modunest_core::keys::ObjectKey;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use url::Url;

use crate::process::Process;
use crate::tools;

/// How a worker is to run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    vars: Map<String, Value>,
    secrets: Map<String, Value>,
    queue: Option<Value>,
    port: u16,
    objects: Vec<(String, Vec<u8>)>,
}

impl Setup {
    /// One with nothing set.
    pub fn new() -> Setup {
        Setup::default()
    }

    /// With a variable, as in `wrangler.toml`.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.vars.insert(name.to_owned(), value.into().into());
        self
    }

    /// With a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.secrets.insert(name.to_owned(), value.into().into());
        self
    }

    /// With settings of the queue's batches.
    #[must_use]
    pub fn queue(mut self, settings: Value) -> Setup {
        self.queue = Some(settings);
        self
    }

    /// With a port of its front's own, where it must be known before.
    #[must_use]
    pub fn port(mut self, port: u16) -> Setup {
        self.port = port;
        self
    }

    /// With an object in R2.
    #[must_use]
    pub fn object(mut self, key: &ObjectKey, content: &[u8]) -> Setup {
        self.objects.push((key.to_string(), content.to_vec()));
        self
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// When it does not, or something it needs is not there.
    pub async fn start(self) -> Worker {
        let folder = TempDir::new().unwrap();
        let seed = folder.path().join("seed");
        std::fs::create_dir(&seed).unwrap();
        for (key, content) in &self.objects {
            write(&seed.join(key), content);
        }
        let mut config = json!({
            "worker": tools::worker(),
            "host": "127.0.0.1",
            "port": self.port,
            "vars": self.vars,
            "secrets": self.secrets,
            "seed": seed,
            "control": true,
        });
        if let Some(queue) = self.queue {
            config["queue"] = queue;
        }
        let file = folder.path().join("config.json");
        write(&file, config.to_string().as_bytes());
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge/workerd/serve.mjs");
        let mut command = Command::new(tools::node());
        command.arg(launcher).arg("--config").arg(file);
        command.env("MODUNEST_NODE_MODULES", tools::node_modules());
        let mut process = Process::start_with_input("workerd", command, folder.path());
        let ready = process.first_value().await;
        let url = |field: &str| match ready[field].as_str() {
            Some(url) => url.parse().unwrap(),
            None => panic!("the launcher said no {field}: {ready}"),
        };
        let (url, front, control) = (url("direct"), url("ready"), url("control"));
        Worker {
            url,
            front,
            control,
            http: modunest_runtime::http::client().unwrap(),
            process,
            folder,
        }
    }
}

fn write(file: &Path, content: &[u8]) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// A running worker.
pub struct Worker {
    /// Where it answers itself.
    pub url: Url,
    /// Where it answers behind an imitation of the network's front, which adds the client's
    /// address to requests, and compresses answers by its own rules.
    pub front: Url,
    /// The launcher.
    pub process: Process,
    control: Url,
    http: reqwest::Client,
    #[allow(dead_code, reason = "removed when the worker ends")]
    folder: TempDir,
}

impl Worker {
    /// Puts an object into R2.
    ///
    /// # Panics
    /// When that fails.
    pub async fn put(&self, key: &ObjectKey, content: &[u8]) {
        let url = self.control.join(&key.to_string()).unwrap();
        let answer = self.http.put(url).body(content.to_vec()).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Removes an object from R2.
    ///
    /// # Panics
    /// When that fails.
    pub async fn delete(&self, key: &ObjectKey) {
        let url = self.control.join(&key.to_string()).unwrap();
        let answer = self.http.delete(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Sends something to the launcher's control endpoint.
    ///
    /// # Panics
    /// When that fails.
    pub async fn control<B: Serialize>(&self, path: &str, body: &B) -> Value {
        let url = self.control.join(path).unwrap();
        let answer = self.http.post(url).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.unwrap_or(Value::Null)
    }

    /// Identifiers of the runtime's processes: children of the launcher.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn runtime_processes(&self) -> Vec<u32> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}
