//! `modunest monitor`: replays a registry's log and says what is wrong.

use std::path::PathBuf;

use clap::Args;
use modunest_core::trust::{CONFIG_MAX_BYTES, Config};
use url::Url;

use super::Context;
use crate::error::Error;
use crate::log::Files;
use crate::monitor::{Monitor, Watched};

/// What to monitor.
#[derive(Args)]
pub struct Arguments {
    /// Where the registry, or a mirror of it, serves its files
    url: Url,
    /// The registry's trust configuration: its keys, witnesses and limits. Take it from where
    /// you trust it, not from what you monitor
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Folder for what the next run must know, and for evidence
    #[arg(long, value_name = "DIR", default_value = "monitor-state")]
    state: PathBuf,
    /// Report what this organisation, plugin or key did: org, org/name, or name+hash of a key
    #[arg(long = "watch", value_name = "NAME")]
    watched: Vec<Watched>,
}

/// Runs once, from where the last run stopped.
///
/// # Errors
/// [`Error::Misbehaved`] for findings, [`Error::Activity`] for what was watched, and
/// whatever kept the run from its end.
pub async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let config = read_config(&arguments.trust)?;
    let files = Files::new(arguments.url.clone())?;
    let now = modunest_runtime::clock::now();
    let monitor = Monitor { files: &files, config: &config, watched: &arguments.watched, now };
    let report = monitor.run(&arguments.state).await?;
    context.output.print(&report, |report| report.text())?;
    if let Some(finding) = report.findings.first() {
        let text = match report.findings.len() {
            1 => finding.what.clone(),
            more => format!("{} (and {} more)", finding.what, more - 1),
        };
        return Err(Error::Misbehaved(text));
    }
    match report.activity.len() {
        0 => Ok(()),
        count => Err(Error::Activity(format!("{count} statements of what is watched"))),
    }
}

/// Reads a trust configuration from a file.
///
/// # Errors
/// When it cannot be read or breaks a rule.
pub fn read_config(file: &std::path::Path) -> Result<Config, Error> {
    let too_long = |bytes: u64| bytes > CONFIG_MAX_BYTES as u64;
    let length = std::fs::metadata(file).map_err(Error::file(file))?.len();
    if too_long(length) {
        return Err(Error::Input(format!(
            "{}: too long for a trust configuration",
            file.display()
        )));
    }
    let bytes = std::fs::read(file).map_err(Error::file(file))?;
    Config::parse(&bytes).map_err(|error| Error::Input(format!("{}: {error}", file.display())))
}
