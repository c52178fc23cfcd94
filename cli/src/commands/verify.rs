//! `modunest verify`: the chain of proof behind a release, in words.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::Context;
use super::monitor::read_config;
use super::yank::parse;
use crate::error::Error;
use crate::log::Files;
use crate::verify::{Proof, prove};

/// What to verify.
#[derive(Args)]
pub struct Arguments {
    /// org/name@version
    release: String,
    /// The registry's trust configuration: its keys, witnesses and limits
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Where the registry, or a mirror of it, serves its files [default: url of the profile]
    #[arg(long)]
    url: Option<Url>,
}

/// Proves the release from nothing but the trust configuration.
///
/// # Errors
/// [`Error::Unproven`] at the step that does not hold, after the steps that do were printed;
/// [`Error::Failed`] for a release that is proven and that agents refuse.
pub async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let (plugin, version) = parse(&arguments.release)?;
    let config = read_config(&arguments.trust)?;
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => context.profile()?.url,
    };
    let files = Files::new(url)?;
    let now = modunest_runtime::clock::now();
    let mut proof = Proof::default();
    let outcome = prove(&files, &config, now, (&plugin, &version), &mut proof).await;
    if let Err(error) = &outcome {
        proof.unproven = Some(error.to_string());
    }
    context.output.print(&proof, Proof::text)?;
    outcome?;
    match proof.refused {
        Some(why) => Err(Error::Failed(format!("{plugin} {version} is refused by agents: {why}"))),
        None => Ok(()),
    }
}
