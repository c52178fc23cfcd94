//! `modunest admin`: what those who run a registry say about plugins.

use clap::Subcommand;
use modunest_core::Version;
use modunest_core::api::{
    SetQuarantine, SetTrust, StatementResponse, plugin_quarantine_path, plugin_trust_path,
};
use modunest_core::name::PluginName;
use modunest_core::statement::TrustLevel;
use reqwest::Method;
use serde::Serialize;

use super::{Context, yank};
use crate::error::Error;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Keep a release from every host, also from those that locked it
    Quarantine {
        /// org/name@version
        release: String,
        /// Why, for everybody to read
        #[arg(long)]
        reason: String,
        /// Release it from quarantine
        #[arg(long)]
        undo: bool,
    },
    /// Say how far the registry trusts a plugin
    Trust {
        /// org/name
        plugin: PluginName,
        /// untrusted, community, verified or internal
        level: TrustLevel,
        /// Why, for everybody to read
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Serialize)]
struct Quarantined {
    plugin: PluginName,
    version: Version,
    quarantined: bool,
    epoch: u64,
}

#[derive(Serialize)]
struct Trusted {
    plugin: PluginName,
    level: TrustLevel,
    epoch: u64,
}

/// Runs the command.
///
/// # Errors
/// Why it failed.
pub async fn run(context: &Context, command: Command) -> Result<(), Error> {
    let api = context.api()?;
    match command {
        Command::Quarantine { release, reason, undo } => {
            let (plugin, version) = yank::parse(&release)?;
            let request = SetQuarantine { version: version.clone(), quarantined: !undo, reason };
            let path = plugin_quarantine_path(&plugin);
            let answer: StatementResponse = api.send(Method::POST, &path, &request).await?;
            let done = Quarantined { plugin, version, quarantined: !undo, epoch: answer.epoch };
            context.output.print(&done, |done| {
                if done.quarantined {
                    format!("{} {} is quarantined from epoch {} on: no host takes it, and hosts that locked it refuse it at their next sync", done.plugin, done.version, done.epoch)
                } else {
                    format!("{} {} is released from quarantine from epoch {} on", done.plugin, done.version, done.epoch)
                }
            })
        }
        Command::Trust { plugin, level, reason } => {
            let request = SetTrust { level, reason };
            let path = plugin_trust_path(&plugin);
            let answer: StatementResponse = api.send(Method::POST, &path, &request).await?;
            let done = Trusted { plugin, level, epoch: answer.epoch };
            context.output.print(&done, |done| {
                format!(
                    "{} has the trust level {} from epoch {} on",
                    done.plugin, done.level, done.epoch
                )
            })
        }
    }
}
