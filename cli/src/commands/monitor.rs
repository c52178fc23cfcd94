//! `modunest monitor`: replays a registry's log and says what is wrong.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::Context;
use crate::error::Error;
use crate::log::Trust;
use crate::monitor::{Monitor, Watched};

/// What to monitor.
#[derive(Args)]
pub struct Arguments {
    /// Where the registry, or a mirror of it, serves its files [default: url of the profile]
    url: Option<Url>,
    #[command(flatten)]
    trust: Trust,
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
    let now = modunest_runtime::clock::now();
    let (files, authority) = arguments.trust.open(context, arguments.url.as_ref(), now).await?;
    let watched = &arguments.watched;
    let monitor = Monitor { files: &files, authority: &authority, watched, now };
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
