//! `modunest dev`: a plugin that is served while it is written.
//!
//! There is no unsigned mode, not here either: a registry of its own runs in this process, in
//! memory, with keys that nobody else believes and that end with it. Every build is published
//! there under a marked version (`1.2.0-dev.3`) and reaches the agent as every release does,
//! with every check. So nothing of this can be turned on in an agent that serves somebody.

mod settings;
mod sources;
mod stamp;

use std::path::{Path, PathBuf};

use clap::Args;
use modunest_agent::Agent;
use modunest_agent::status::PluginStatus;
use modunest_core::manifest::Manifest;
use modunest_runtime::shutdown::StopSignals;

use super::{Context, local, registry, registry_error};
use crate::error::Error;
use crate::output::Output;
use crate::package::{self, Source, Which};
use crate::publish::Publisher;
use crate::registry::{Edge, LocalRegistry, Options};
use settings::Settings;
use sources::Sources;

/// Flags of `modunest dev`.
#[derive(Args)]
pub struct Arguments {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Port of the gateway on loopback; 0 takes any free one
    #[arg(long, default_value_t = 7890, value_name = "N")]
    gateway_port: u16,
    /// Folder of a plugin that it depends on, built once; its own dependencies before it
    #[arg(long, value_name = "DIR")]
    with: Vec<PathBuf>,
    /// Another folder whose files it is built of
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Of the builds that the manifest declares, make this one only
    #[arg(long)]
    only: Option<package::Kind>,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// When something cannot start, with the way out. What is wrong with the plugin is said, and
/// waits for the next change.
pub async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let temporary = tempfile::tempdir().map_err(Error::file(std::env::temp_dir()))?;
    let options = Options {
        data: temporary.path().join("registry"),
        ephemeral: true,
        port: 0,
        edge: Edge::Native,
    };
    let mut stop = StopSignals::catch().map_err(Error::file("signals"))?;
    let registry = tokio::select! {
        started = LocalRegistry::start(&options) => started?,
        () = stop.received() => return Ok(()),
    };
    let mut served = None;
    let outcome = tokio::select! {
        ended = serve(context, &arguments, temporary.path(), &registry, &mut served) => ended,
        () = stop.received() => Ok(()),
        error = registry.failed() => Err(error),
    };
    if let Some(agent) = served {
        agent.shutdown().await;
    }
    registry.shutdown().await?;
    outcome
}

/// Everything that a build goes through.
struct Workshop<'w> {
    context: &'w Context,
    which: Which,
    publisher: Publisher,
    settings: Settings,
    /// Builds so far.
    number: u64,
}

async fn serve(
    context: &Context,
    arguments: &Arguments,
    temporary: &Path,
    local: &LocalRegistry,
    served: &mut Option<Agent>,
) -> Result<(), Error> {
    let folder = std::path::absolute(&arguments.folder).map_err(Error::file(&arguments.folder))?;
    let source = Source::open(&folder)?;
    let publisher = publisher(local, temporary, &source.manifest).await?;
    let more = folder.join(settings::FILE);
    let settings = Settings::new(local, temporary, arguments.gateway_port, &more)?;
    let which = arguments.only.map_or(Which::Possible, Which::Only);
    let mut workshop = Workshop { context, which, publisher, settings, number: 0 };
    for needed in &arguments.with {
        workshop.publish_needed(needed, local, temporary).await?;
    }
    let mut folders = vec![folder.clone()];
    for more in &arguments.watch {
        folders.push(std::path::absolute(more).map_err(Error::file(more))?);
    }
    let mut sources = Sources::watch(folders)?;
    loop {
        match workshop.build(&folder, served).await {
            Ok(said) => context.output.say(&said)?,
            Err(error) => {
                let goes_on = match served.as_ref().and_then(running) {
                    Some(plugin) => format!("{} {} goes on", plugin.plugin, plugin.version),
                    None => "nothing is served yet".to_owned(),
                };
                context.output.say(&format!("error: {error}\n{goes_on}; waiting for a change"))?;
            }
        }
        sources.built()?;
        let changed = sources.changed().await?;
        let names: Vec<String> = changed.iter().map(|path| shown(path, &folder)).collect();
        context.output.say(&format!("changed: {}", names.join(", ")))?;
    }
}

fn shown(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// The one plugin that is written here, as the agent has it.
fn running(agent: &Agent) -> Option<PluginStatus> {
    agent.status().plugins.into_iter().find(|plugin| plugin.version.contains("dev."))
}

async fn publisher(
    local: &LocalRegistry,
    temporary: &Path,
    manifest: &Manifest,
) -> Result<Publisher, Error> {
    let folder = temporary.join(manifest.name.org().as_str());
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let api = local::publisher_api(local, &folder).await?;
    let key = local::publisher_key(&api, &folder, &manifest.name.org()).await?;
    let publisher = Publisher { api, registry: registry(&local.profile)?, key };
    publisher.registry.refresh().await.map_err(registry_error)?;
    Ok(publisher)
}

impl Workshop<'_> {
    /// Publishes a plugin that the one that is written here depends on.
    async fn publish_needed(
        &self,
        folder: &Path,
        local: &LocalRegistry,
        temporary: &Path,
    ) -> Result<(), Error> {
        let source = Source::open(folder)?;
        let own = publisher(local, temporary, &source.manifest).await?;
        self.publish(&own, &source, &source).await
    }

    /// Builds `source` and publishes it as `marked`.
    async fn publish(
        &self,
        publisher: &Publisher,
        source: &Source,
        marked: &Source,
    ) -> Result<(), Error> {
        let Output { json, quiet } = self.context.output;
        let output = Output { json, quiet };
        let built = package::build(source, self.which, &output).await?;
        let package = package::pack(marked, &built)?;
        publisher.publish(marked, &package, false, &output).await.map(drop)
    }

    /// Builds what is in the folder now, and has the agent serve it. Answers what to say.
    async fn build(&mut self, folder: &Path, served: &mut Option<Agent>) -> Result<String, Error> {
        let source = Source::open(folder)?;
        self.number += 1;
        let marked = stamp::stamped(&source, self.number)?;
        self.publish(&self.publisher, &source, &marked).await?;
        self.settings.write(&marked.manifest)?;
        let failed = |error: modunest_agent::Error| Error::Failed(error.to_string());
        if let Some(agent) = served {
            agent.reload().await.map_err(failed)?;
        } else {
            let config = modunest_agent::Config::load(&self.settings.path);
            let config = config.map_err(|error| Error::Failed(error.to_string()))?;
            let agent = Agent::start(config).await.map_err(failed)?;
            *served = Some(agent);
        }
        let agent = served.as_ref().ok_or_else(|| Error::Failed("no agent runs".to_owned()))?;
        let status = agent.status();
        if let Some(error) = status.last_sync.and_then(|last| last.error) {
            return Err(Error::Failed(error));
        }
        let (name, version) =
            (marked.manifest.name.to_string(), marked.manifest.version.to_string());
        let plugin = status.plugins.into_iter().find(|plugin| plugin.plugin == name);
        let plugin = plugin.filter(|plugin| plugin.version == version);
        let plugin = plugin.ok_or_else(|| Error::Failed(format!("{version} is not served")))?;
        if let Some(reason) = &plugin.reason {
            return Err(Error::Failed(format!("{version} is {}: {reason}", plugin.state)));
        }
        let address = agent.gateway_addr();
        let routes = marked.manifest.routes.iter();
        let routes: String = routes
            .map(|route| format!("\n  {} http://{address}{}", route.methods.join(","), route.path))
            .collect();
        let admin = agent.admin();
        Ok(format!("serving {name} {version} on http://{address} (state: {admin}){routes}"))
    }
}
