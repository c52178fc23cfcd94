//! A real agent with many plugins in all tiers, from a real registry: started, called, changed,
//! and looked at from outside.

mod members;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modunest_agent::admin::{RELOAD_PATH, STATUS_PATH};
use modunest_agent::status::{AgentStatus, PluginStatus};
use modunest_core::api::Discovery;
use reqwest::{Client, StatusCode};

pub use members::Member;

use crate::api::{Api, answer};
use crate::error::Error;
use crate::folders;
use crate::plain::Tier;
use crate::process::{self, Server};
use crate::publish::publisher::Publisher;
use crate::registry::Registry;

/// How long all plugins may take to be ready: some are compiled first.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a request may take, with a swap in between.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the agent is asked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a replaced instance is kept, in seconds.
const KEEP_OLD_S: u32 = 2;

/// A running agent, with its registry.
pub struct Fleet {
    /// The agent's process.
    pub agent: Server,
    /// The plugins.
    pub members: Vec<Member>,
    registry: Registry,
    discovery: Discovery,
    client: Client,
    gateway: String,
    admin: String,
    folder: PathBuf,
}

impl Fleet {
    /// Publishes so many plugins, in all tiers by turns, and starts an agent with them.
    pub async fn start(folder: &Path, count: usize) -> Result<Fleet, Error> {
        let registry = Registry::start(&folder.join("registry"), &[])?;
        let api = Api::new(registry.url.clone(), registry.secret("admin.token")?)?;
        let url = registry.url.join(modunest_core::keys::DISCOVERY_PATH);
        let url = url.map_err(Error::wrong("the registry's address"))?;
        let discovery: Discovery = answer("the discovery document", api.client.get(url)).await?;
        let publisher = Publisher::new(api).await?;
        let members = members::publish(&publisher, folder, count).await?;
        let client = Client::builder().timeout(CALL_TIMEOUT).build();
        let client = client.map_err(Error::request("an HTTP client"))?;
        let (gateway, admin) = (address()?, address()?);
        let file = folder.join("agent.toml");
        let mut command = Command::new(folders::sibling("modunest-agent")?);
        let log = folder.join("agent.log");
        let log = std::fs::File::create(&log).map_err(Error::io(&log))?;
        command.arg("run").arg("--config").arg(&file).stderr(Stdio::from(log));
        let folder = folder.to_owned();
        configure(&folder, &registry, &discovery, (&gateway, &admin), &members)?;
        let agent = Server::start(command, false)?;
        let fleet = Fleet { agent, members, registry, discovery, client, gateway, admin, folder };
        fleet.until_all_ready().await?;
        Ok(fleet)
    }

    /// For whoever calls from a task of their own.
    pub fn caller(&self) -> Caller {
        Caller { client: self.client.clone(), gateway: self.gateway.clone() }
    }

    /// What the agent says.
    pub async fn status(&self) -> Result<AgentStatus, Error> {
        let url = format!("http://{}{STATUS_PATH}", self.admin);
        answer("the agent's status", self.client.get(url)).await
    }

    /// Gives a plugin another configuration, with which a new instance takes over from the one
    /// that runs.
    pub async fn reload(&mut self, number: usize) -> Result<(), Error> {
        if let Some(member) = self.members.get_mut(number) {
            member.round += 1;
        }
        let addresses = (self.gateway.as_str(), self.admin.as_str());
        configure(&self.folder, &self.registry, &self.discovery, addresses, &self.members)?;
        let url = format!("http://{}{RELOAD_PATH}", self.admin);
        let _: serde_json::Value = answer("a reload", self.client.post(url)).await?;
        Ok(())
    }

    /// Waits until every plugin is ready, and nothing is kept any more that was replaced.
    pub async fn until_all_ready(&self) -> Result<AgentStatus, Error> {
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            let why = match self.status().await {
                Ok(status) => match unready(&status, self.members.len()) {
                    None => return Ok(status),
                    Some(why) => why,
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                let (program, seconds) = ("modunest-agent".to_owned(), READY_TIMEOUT.as_secs());
                return Err(Error::NotReady { program, seconds, said: format!("; {why}") });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until there are no more processes than plugins that have one: what was replaced
    /// has ended.
    pub async fn until_quiet(&self) -> Result<(), Error> {
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            let status = self.until_all_ready().await?;
            let wanted = status.plugins.iter().filter(|plugin| pid(plugin).is_some()).count();
            let there = self.runners()?;
            if there == wanted {
                return Ok(());
            }
            if Instant::now() > until {
                let why = format!("{there} processes for {wanted} plugins");
                return Err(Error::Wrong { what: "an agent at rest", why });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Processes that run plugins.
    pub fn runners(&self) -> Result<usize, Error> {
        let named = |id: &u32| {
            // One that ended meanwhile runs nothing.
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.starts_with(b"modunest-runner bench/")
        };
        Ok(process::children(self.agent.id())?.iter().filter(|id| named(id)).count())
    }

    /// Ends both.
    pub fn stop(self) -> Result<(), Error> {
        self.agent.stop()?;
        self.registry.server.stop()
    }
}

/// The process of a plugin.
pub fn pid(plugin: &PluginStatus) -> Option<u32> {
    plugin.runs.as_ref().and_then(|runs| runs.pid)
}

fn unready(status: &AgentStatus, count: usize) -> Option<String> {
    if status.plugins.len() != count {
        return Some(format!("{} of {count} plugins are there", status.plugins.len()));
    }
    let unready = status.plugins.iter().find(|plugin| plugin.state != "ready")?;
    let reason = unready.reason.clone().unwrap_or_default();
    Some(format!("{} is {}: {reason}", unready.plugin, unready.state))
}

fn address() -> Result<String, Error> {
    Ok(format!("127.0.0.1:{}", process::free_port()?))
}

/// Writes the agent's configuration.
fn configure(
    folder: &Path,
    registry: &Registry,
    discovery: &Discovery,
    (gateway, admin): (&str, &str),
    members: &[Member],
) -> Result<(), Error> {
    let named = |tier| {
        let names = members.iter().filter(move |member| member.tier == tier);
        names.map(|member| member.name.to_string()).collect::<Vec<_>>()
    };
    let mut text = format!(
        "state_dir = {:?}\n[gateway]\nlisten = {gateway:?}\n[admin]\nlisten = {admin:?}\n\
         [[registry]]\nname = \"local\"\nurl = {:?}\norigin = {:?}\nkeys = {:?}\n\
         [policy]\nallow_findings = true\n\
         [host]\nin_process = {:?}\nload_timeout_ms = 30000\n\
         [host.component]\nown_process = \"community\"\nrunner = {:?}\n\
         [host.process]\nrestart_pause_ms = 10\nrestart_pause_max_ms = 100\nrestarts_max = 1000\n\
         [lifecycle]\nkeep_old_s = {KEEP_OLD_S}\n[lifecycle.breaker]\nopen_s = 1\n\
         [plugins]\n",
        folder.join("agent"),
        registry.url.as_str(),
        discovery.origin,
        discovery.keys,
        named(Tier::InProcess),
        named(Tier::ComponentProcess),
    );
    for Member { name, round, .. } in members {
        let line = format!("\"{name}\" = {{ version = \"^1\", config = {{ round = {round} }} }}\n");
        text.push_str(&line);
    }
    let (aside, path) = (folder.join("agent.toml.new"), folder.join("agent.toml"));
    std::fs::write(&aside, text).map_err(Error::io(&aside))?;
    std::fs::rename(&aside, &path).map_err(Error::io(&path))
}

/// Calls plugins through the gateway, over connections that are kept.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    gateway: String,
}

impl Caller {
    /// One request; answers its status.
    pub async fn call(&self, path: &str) -> Result<StatusCode, Error> {
        let url = format!("http://{}{path}", self.gateway);
        let sent = self.client.get(url).send().await;
        let response = sent.map_err(Error::request("a call"))?;
        let status = response.status();
        response.bytes().await.map_err(Error::request("a call"))?;
        Ok(status)
    }
}
