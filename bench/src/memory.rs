//! Memory of programs that do nothing: what every host pays for an agent without plugins, and
//! a developer for a registry.

use std::process::{Command, Stdio};
use std::time::Duration;

use modunest_core::api::Discovery;

use crate::api::answer;
use crate::error::Error;
use crate::folders;
use crate::process::{self, Memory, Server};
use crate::registry::Registry;
use crate::report::{Report, Row, Target};
use crate::verdaccio::Verdaccio;

/// How long everything is left alone before it is measured.
const IDLE: Duration = Duration::from_secs(10);
const MB: f64 = 1e6;
/// Resident megabytes of the idle agent: issue 2.
const AGENT_MAX_MB: f64 = 20.0;
/// Resident megabytes of the idle registry: issue 2.
const REGISTRY_MAX_MB: f64 = 100.0;

/// Measures both, and a peer.
pub fn run() -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    runtime.block_on(Box::pin(measure()))
}

async fn measure() -> Result<Report, Error> {
    let mut report = Report::begin("memory");
    let scratch = folders::scratch()?;
    let registry = Registry::start(&scratch.path().join("registry"), &[])?;
    let agent = agent(&registry, scratch.path()).await?;
    let folder = scratch.path().join("verdaccio");
    std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
    let verdaccio = Verdaccio::start(&folder, None).await?;
    tokio::time::sleep(IDLE).await;
    let of = |server: &Server| process::memory(server.id());
    let (agent_memory, ours, theirs) = (of(&agent)?, of(&registry.server)?, of(&verdaccio.server)?);
    let resident = |memory: Memory| memory.resident_bytes as f64 / MB;
    let proportional = |memory: Memory| memory.proportional_bytes as f64 / MB;
    let row = |what: &str, value| Row::new(what, "MB", value);
    report.row(
        row("idle agent, resident", resident(agent_memory)).target(Target::Below(AGENT_MAX_MB)),
    );
    report.row(row("idle agent, proportional", proportional(agent_memory)));
    report.row(
        row("idle registry, resident", resident(ours))
            .against("verdaccio", resident(theirs))
            .target(Target::Below(REGISTRY_MAX_MB)),
    );
    report.row(
        row("idle registry, proportional", proportional(ours))
            .against("verdaccio", proportional(theirs)),
    );
    report.note(format!(
        "{} s after the start; an agent without plugins, an empty registry",
        IDLE.as_secs()
    ));
    agent.stop()?;
    registry.server.stop()?;
    verdaccio.server.stop()?;
    Ok(report)
}

/// An agent that wants no plugins.
async fn agent(registry: &Registry, folder: &std::path::Path) -> Result<Server, Error> {
    let client = modunest_runtime::http::client().map_err(Error::request("an HTTP client"))?;
    let url = registry.url.join(modunest_core::keys::DISCOVERY_PATH);
    let url = url.map_err(Error::wrong("the registry's address"))?;
    let discovery: Discovery = answer("the discovery document", client.get(url)).await?;
    let file = folder.join("agent.toml");
    let port = process::free_port()?;
    let text = format!(
        "state_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n\
         [[registry]]\nname = \"local\"\nurl = {:?}\norigin = {:?}\nkeys = {:?}\n",
        folder.join("agent"),
        registry.url.as_str(),
        discovery.origin,
        discovery.keys
    );
    std::fs::write(&file, text).map_err(Error::io(&file))?;
    let mut command = Command::new(folders::sibling("modunest-agent")?);
    command.arg("run").arg("--config").arg(&file).stderr(Stdio::null());
    let server = Server::start(command, false)?;
    let until = std::time::Instant::now() + IDLE;
    let ready = format!("http://127.0.0.1:{port}{}", modunest_core::keys::READY_PATH);
    loop {
        match client.get(&ready).send().await {
            Ok(response) if response.status().is_success() => return Ok(server),
            answer if std::time::Instant::now() > until => {
                let said = match answer {
                    Ok(response) => format!("; its readiness check answers {}", response.status()),
                    Err(error) => format!("; {error}"),
                };
                let (program, seconds) = ("modunest-agent".to_owned(), IDLE.as_secs());
                return Err(Error::NotReady { program, seconds, said });
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
