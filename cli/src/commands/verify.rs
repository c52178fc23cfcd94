//! `modunest verify`: the chain of proof behind a release, in words.

use clap::Args;
use url::Url;

use super::Context;
use super::yank::parse;
use crate::error::Error;
use crate::log::Trust;
use crate::verify::{Proof, prove};

/// What to verify.
#[derive(Args)]
pub struct Arguments {
    /// org/name@version
    release: String,
    #[command(flatten)]
    trust: Trust,
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
    let now = modunest_runtime::clock::now();
    let (files, authority) = arguments.trust.open(context, arguments.url.as_ref(), now).await?;
    let mut proof = Proof::default();
    let outcome = prove(&files, &authority, now, (&plugin, &version), &mut proof).await;
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
