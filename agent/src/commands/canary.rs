//! `canary`: what becomes of releases that are or were tried.

use clap::Subcommand;
use modunest_agent::admin::TrialAnswer;
use modunest_agent::{Config, EXIT_OK, Error};
use modunest_core::name::PluginName;

use super::client::AgentClient;
use super::print;

#[derive(Subcommand)]
pub(super) enum CanaryCommand {
    /// Let the release that is being tried take the place of the one that runs
    Promote {
        /// org/name
        plugin: PluginName,
    },
    /// Roll back the release that is being tried; it is not chosen again
    Abort {
        /// org/name
        plugin: PluginName,
    },
    /// Let a release be chosen and tried again that was rolled back
    Forgive {
        /// org/name
        plugin: PluginName,
    },
}

pub(super) async fn run(config: &Config, command: &CanaryCommand, json: bool) -> Result<u8, Error> {
    let (plugin, word) = match command {
        CanaryCommand::Promote { plugin } => (plugin, "promote"),
        CanaryCommand::Abort { plugin } => (plugin, "abort"),
        CanaryCommand::Forgive { plugin } => (plugin, "forgive"),
    };
    let path = format!("/plugins/{plugin}/canary/{word}");
    let answer: TrialAnswer = AgentClient::of(config)?.post(&path).await?;
    let TrialAnswer { plugin, version } = &answer;
    let text = match command {
        CanaryCommand::Promote { .. } => format!("{plugin} is {version} now"),
        CanaryCommand::Abort { .. } => format!("{plugin} stays {version}"),
        CanaryCommand::Forgive { .. } => {
            format!("{plugin} is {version}; `modunest-agent sync --update` tries what is newer")
        }
    };
    print::text_or_json(json, &text, &answer)?;
    Ok(EXIT_OK)
}
