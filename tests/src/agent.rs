//! A plugin host: `modunest-agent` as a child process.

use std::path::{Path, PathBuf};
use std::process::Command;

use modunest_tlog::VerifyingKey;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use crate::client::{Answer, Client};
use crate::process::{Finished, Process, program, run, until};
use crate::registry::{ORIGIN, Registry};

/// An agent's folder and configuration, which outlive its processes.
pub struct Host {
    folder: TempDir,
    url: Url,
    keys: Vec<VerifyingKey>,
    root: Option<PathBuf>,
    plugins: Vec<(String, String)>,
    check_every_s: u64,
    sections: String,
}

impl Host {
    /// One that trusts a registry's keys and asks the registry itself.
    pub async fn of(registry: &Registry) -> Host {
        Host::at(registry.started.url.clone(), registry.keys().await)
    }

    /// One that trusts some keys and asks whoever answers at `url`.
    ///
    /// # Panics
    /// When the system has no place for it.
    pub fn at(url: Url, keys: Vec<VerifyingKey>) -> Host {
        let folder = TempDir::new().unwrap();
        let (plugins, sections) = (Vec::new(), String::new());
        Host { folder, url, keys, root: None, plugins, check_every_s: 3600, sections }
    }

    /// One that trusts a root file and asks whoever answers at `url`.
    pub fn rooted(url: Url, root: &Path) -> Host {
        Host { root: Some(root.to_owned()), ..Host::at(url, Vec::new()) }
    }

    /// Asks somebody else from now on.
    pub fn asks(&mut self, url: Url) {
        self.url = url;
    }

    /// Wants a plugin.
    #[must_use]
    pub fn wants(mut self, plugin: &str, requirement: &str) -> Host {
        self.plugins.push((plugin.to_owned(), format!("\"{requirement}\"")));
        self
    }

    /// Wants a plugin with this configuration, in TOML.
    #[must_use]
    pub fn wants_with(mut self, plugin: &str, requirement: &str, config: &str) -> Host {
        let entry = format!("{{ version = \"{requirement}\", config = {config} }}");
        self.plugins.push((plugin.to_owned(), entry));
        self
    }

    /// Looks for news every second; else a test says when.
    #[must_use]
    pub fn curious(mut self) -> Host {
        self.check_every_s = 1;
        self
    }

    /// With further sections of the configuration.
    #[must_use]
    pub fn section(mut self, text: &str) -> Host {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// Where the agent keeps everything.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Everything that agents of this folder have logged.
    ///
    /// # Panics
    /// When no agent ran here.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap()
    }

    fn configuration(&self) -> PathBuf {
        let path = self.folder.path().join("agent.toml");
        let plugins: String =
            self.plugins.iter().map(|(name, entry)| format!("\"{name}\" = {entry}\n")).collect();
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let trust = match &self.root {
            Some(root) => format!("root = {root:?}"),
            None => format!("keys = {keys:?}"),
        };
        let text = format!(
            "state_dir = \"state\"\n\
             [gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{ORIGIN}\"\n{trust}\n\
             [plugins]\n{plugins}\n[host]\ncheck_every_s = {}\n{}",
            self.url, self.check_every_s, self.sections
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("modunest-agent"));
        command.env_remove("MODUNEST_LOG").env_remove("MODUNEST_LOG_FORMAT");
        let (first, rest) = arguments.split_first().expect("a command");
        command.arg(first).arg("--config").arg(self.configuration()).args(rest);
        command
    }

    /// Runs a command of `modunest-agent` to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// Starts the agent and waits until it has tried to load what is wanted.
    pub async fn start(&self) -> Agent {
        self.start_with(&[]).await
    }

    /// As [`Host::start`], with further arguments.
    ///
    /// # Panics
    /// When it does not come so far.
    pub async fn start_with(&self, arguments: &[&str]) -> Agent {
        let command = self.command(&[&["run"], arguments].concat());
        let mut process = Process::start("agent", command, self.folder.path());
        let listening = process.logged("listening").await;
        let client = |field: &str| {
            let address = listening[field].as_str().unwrap();
            Client::new(format!("http://{address}/").parse().unwrap(), None)
        };
        let agent = Agent { gateway: client("gateway"), admin: client("admin"), process };
        until("the agent's first sync", async || {
            let status = agent.status().await;
            (!status["last_sync"].is_null()).then_some(())
        })
        .await;
        agent
    }
}

/// A running agent.
pub struct Agent {
    /// Its process.
    pub process: Process,
    gateway: Client,
    admin: Client,
}

impl Agent {
    /// What it says about itself.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn status(&self) -> Value {
        self.admin.get("/status").await
    }

    /// What it says about one plugin.
    ///
    /// # Panics
    /// When it knows no such plugin.
    pub async fn plugin(&self, name: &str) -> Value {
        let status = self.status().await;
        let plugins = status["plugins"].as_array().unwrap();
        let plugin = plugins.iter().find(|plugin| plugin["plugin"] == name);
        plugin.unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
    }

    /// Whether it is ready.
    pub async fn is_ready(&self) -> bool {
        self.admin.answer(Method::GET, "/readyz", None::<&()>).await.status == 200
    }

    /// What it has counted, as it tells Prometheus.
    pub async fn metrics(&self) -> Answer {
        self.admin.answer(Method::GET, "/metrics", None::<&()>).await
    }

    /// What a plugin's route answers.
    pub async fn get(&self, path: &str) -> Answer {
        self.gateway.answer(Method::GET, path, None::<&()>).await
    }

    /// What a plugin's route answers to the user of a token.
    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        let client = self.gateway.with_token(Some(token.to_owned()));
        client.answer(Method::GET, path, None::<&()>).await
    }

    /// The text that a plugin's route answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        String::from_utf8(answer.body.to_vec()).unwrap()
    }
}

/// A folder of the sample plugins.
///
/// # Panics
/// When it is not there.
pub fn sample(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/examples").join(name);
    folder.canonicalize().unwrap()
}
