//! The demo: publishes the sample plugins, loads them in an agent, and calls them.

use std::path::{Path, PathBuf};

use modunest_agent::Agent;
use modunest_core::name::OrgName;
use modunest_tlog::SigningKey;
use serde::Serialize;
use url::Url;

use crate::api::{Api, unreachable};
use crate::commands::{Context, local, registry, registry_error};
use crate::error::Error;
use crate::files;
use crate::output::Output;
use crate::package::{self, Source, Which};
use crate::profile::PROFILE_FILE;
use crate::publish::{Publisher, line};
use crate::registry::LocalRegistry;

/// The organisation that owns the samples.
const ORG: &str = "demo";
/// The samples' folders, dependencies first.
const SAMPLES: [&str; 6] = ["markdown", "markdown-2", "thumbnail", "gallery", "visits", "notes"];
/// The page that is asked for at the end.
const PAGE: &str = "/gallery";

/// A demo whose agent is running.
pub struct Demo {
    agent: Agent,
    /// What was shown.
    pub shown: Shown,
}

/// What the demo shows.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The profile of the user who published.
    pub profile: PathBuf,
    /// Where the agent serves the plugins' pages.
    pub gateway: String,
    /// Where the agent tells its state.
    pub admin: String,
    /// The page that was asked for.
    pub page: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Its length in bytes.
    pub answer_bytes: usize,
    /// What a reader sees of it, in short.
    pub answer: String,
}

impl Demo {
    /// Stops the agent.
    pub async fn shutdown(self) {
        self.agent.shutdown().await;
    }
}

/// Runs the demo. What an earlier start did is not done again.
///
/// # Errors
/// When a step fails, with the step.
pub async fn run(
    context: &Context,
    registry: &LocalRegistry,
    data: &Path,
    samples: Option<&Path>,
    gateway_port: u16,
) -> Result<Demo, Error> {
    let folder = data.join("demo");
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let org: OrgName = ORG.parse().map_err(|error| Error::Failed(format!("{error}")))?;
    let api = local::publisher_api(registry, &folder).await?;
    let key = local::publisher_key(&api, &folder, &org).await?;
    publish_samples(context, registry, api, key, &org, samples).await?;

    let config_file = folder.join("agent.toml");
    files::write(&config_file, &agent_config(registry, &folder, gateway_port))?;
    let config = modunest_agent::Config::load(&config_file)
        .map_err(|error| Error::Failed(error.to_string()))?;
    let agent = Agent::start(config).await.map_err(|error| Error::Failed(error.to_string()))?;
    let status = agent.status();
    if let Some(error) = status.last_sync.and_then(|last| last.error) {
        return Err(Error::Failed(format!("the agent could not sync: {error}")));
    }
    let profile_file = folder.join(PROFILE_FILE);
    let mut profile = registry.profile.clone();
    profile.token_file = Some(local::TOKEN_FILE.into());
    profile.key_file = Some(local::KEY_FILE.into());
    profile.save(&profile_file)?;
    let shown = ask(&agent, profile_file).await?;
    context.output.say(&format!(
        "agent      {} (state: {})\n\nGET {}  ->  {} ({} bytes)\n{}",
        shown.gateway, shown.admin, shown.page, shown.status, shown.answer_bytes, shown.answer
    ))?;
    Ok(Demo { agent, shown })
}

async fn publish_samples(
    context: &Context,
    local: &LocalRegistry,
    api: Api,
    key: SigningKey,
    org: &OrgName,
    samples: Option<&Path>,
) -> Result<(), Error> {
    let root = find_samples(samples);
    let publisher = Publisher { api, registry: registry(&local.profile)?, key };
    publisher.registry.refresh().await.map_err(registry_error)?;
    let quiet = Output { json: context.output.json, quiet: context.output.quiet };
    for sample in SAMPLES {
        let Some(root) = &root else {
            // Without the sources, what was published before is enough.
            let gallery = format!("{org}/gallery")
                .parse()
                .map_err(|error| Error::Failed(format!("{error}")))?;
            if publisher.registry.plugin(&gallery).await.map_err(registry_error)?.is_some() {
                return Ok(());
            }
            return Err(Error::Usage(
                "the sample plugins' sources are not here; run this in a checkout of Modu-Nest, or name the folder with --samples DIR".to_owned(),
            ));
        };
        let source = Source::open(&root.join(sample))?;
        let state =
            publisher.registry.plugin(&source.manifest.name).await.map_err(registry_error)?;
        if state.is_some_and(|state| state.releases.contains_key(&source.manifest.version)) {
            continue;
        }
        let built = package::build(&source, Which::Possible, &quiet).await?;
        let package = package::pack(&source, &built)?;
        let published = publisher.publish(&source, &package, false, &quiet).await?;
        context.output.say(&line(&published))?;
    }
    Ok(())
}

/// The folder that was named, else the one beside the sources that cargo runs this from,
/// else `sdk/examples` here or above.
fn find_samples(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(folder) = named {
        return Some(folder.to_owned());
    }
    let run_by_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = std::env::current_dir().ok();
    run_by_cargo
        .iter()
        .chain(&here)
        .flat_map(|folder| folder.ancestors())
        .map(|folder| folder.join("sdk/examples"))
        .find(|folder| folder.join("gallery/plugin.toml").is_file())
}

fn agent_config(registry: &LocalRegistry, folder: &Path, gateway_port: u16) -> String {
    let admin_port = if gateway_port == 0 { 0 } else { gateway_port.saturating_add(1) };
    let state = std::path::absolute(folder.join("agent")).unwrap_or_else(|_| folder.join("agent"));
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "# Written by `modunest up --demo` at each start.\n\
         state_dir = {}\n\n\
         [gateway]\nlisten = \"127.0.0.1:{gateway_port}\"\n\n\
         [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\n\
         [[registry]]\nname = \"local\"\nurl = {}\norigin = {}\nroot = {}\n\n\
         [plugins]\n\"{ORG}/gallery\" = \"^1\"\n\"{ORG}/visits\" = \"^1\"\n\"{ORG}/notes\" = \"^1\"\n\n\
         [host.component]\n\
         # Shows demo/markdown as a component where its native library would run as well.\n\
         prefer = \"component\"\n\
         own_process = \"community\"\n",
        text(&state.display().to_string()),
        text(registry.url.as_str()),
        text(&registry.profile.origin),
        text(&registry.root_file.display().to_string()),
    )
}

async fn ask(agent: &Agent, profile: PathBuf) -> Result<Shown, Error> {
    let gateway = format!("http://{}", agent.gateway_addr());
    let page: Url =
        format!("{gateway}{PAGE}").parse().map_err(|error| Error::Failed(format!("{error}")))?;
    let client =
        modunest_runtime::http::client().map_err(|error| Error::Failed(error.to_string()))?;
    let request = modunest_runtime::http::traced(client.get(page.clone()));
    let answer = request.send().await.map_err(|error| unreachable(page.as_str(), &error))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| unreachable(page.as_str(), &error))?;
    if !status.is_success() {
        return Err(Error::Failed(format!("{page} answered with status {status}: {body}")));
    }
    Ok(Shown {
        profile,
        gateway,
        admin: agent.admin().to_string(),
        page: page.to_string(),
        status: status.as_u16(),
        answer_bytes: body.len(),
        answer: headings(&body),
    })
}

/// The title and the headings of a page: enough to see that it is the real one.
fn headings(html: &str) -> String {
    let mut lines = Vec::new();
    for (tag, indent) in [("title", "  "), ("h1", "    "), ("h2", "    ")] {
        for part in html.split(&format!("<{tag}")).skip(1) {
            if let Some((_, rest)) = part.split_once('>')
                && let Some((text, _)) = rest.split_once(&format!("</{tag}>"))
            {
                lines.push(format!("{indent}<{tag}> {}", text.trim()));
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_of_a_page() {
        let html = "<title>Gallery</title><h1 class=x>One</h1><p>text</p><h2>Two</h2>";
        assert_eq!(headings(html), "  <title> Gallery\n    <h1> One\n    <h2> Two");
    }
}
