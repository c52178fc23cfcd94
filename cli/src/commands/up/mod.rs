//! `modunest up`: a whole registry in this process.

mod demo;

use std::path::PathBuf;

use clap::Args;
use modunest_runtime::shutdown::StopSignals;
use serde::Serialize;

use super::Context;
use crate::error::Error;
use crate::profile::DEFAULT_DATA;
use crate::registry::{DEFAULT_PORT, Edge, LocalRegistry, Options};

/// Flags of `modunest up`.
#[derive(Args)]
pub struct Arguments {
    /// Folder for everything the registry keeps [default: .modunest]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// First of the four ports on loopback; 0 takes any free ones
    #[arg(long, default_value_t = DEFAULT_PORT, value_name = "N", value_parser = clap::value_parser!(u16).range(..=65532))]
    port: u16,
    /// What answers readers
    #[arg(long, value_enum, default_value_t = Edge::Native)]
    edge: Edge,
    /// Keep nothing: data is gone when the process ends
    #[arg(long)]
    ephemeral: bool,
    /// Publish the sample plugins, load them in an agent and call them
    #[arg(long)]
    demo: bool,
    /// Port of the demo's gateway; 0 takes any free one
    #[arg(long, default_value_t = 7890, value_name = "N", requires = "demo")]
    gateway_port: u16,
    /// Folder of the sample plugins [default: sdk/examples of this source tree]
    #[arg(long, value_name = "DIR", requires = "demo")]
    samples: Option<PathBuf>,
}

/// What `--json` prints when everything answers.
#[derive(Serialize)]
struct Started {
    url: String,
    profile: PathBuf,
    s3: String,
    dynamodb: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<demo::Shown>,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// When something cannot start, with the way out.
pub async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let temporary = if arguments.ephemeral {
        Some(tempfile::tempdir().map_err(Error::file(std::env::temp_dir()))?)
    } else {
        None
    };
    let data = match (&temporary, arguments.data.clone()) {
        (Some(folder), _) => folder.path().to_owned(),
        (None, Some(folder)) => folder,
        (None, None) => PathBuf::from(DEFAULT_DATA),
    };
    let options = Options {
        data,
        ephemeral: arguments.ephemeral,
        port: arguments.port,
        edge: arguments.edge,
    };
    // Before anybody is told that it runs, so that no signal ends it without order.
    let mut stop = StopSignals::catch().map_err(Error::file("signals"))?;
    let registry = tokio::select! {
        started = LocalRegistry::start(&options) => started?,
        () = stop.received() => return Ok(()),
    };
    let mut demo = None;
    let shown = async {
        demo = show(context, &arguments, &options, &registry).await?;
        std::future::pending().await
    };
    let outcome = tokio::select! {
        failed = shown => failed,
        () = stop.received() => context.output.say("stopping"),
        error = registry.failed() => Err(error),
    };
    if let Some(demo) = demo {
        demo.shutdown().await;
    }
    registry.shutdown().await?;
    outcome
}

/// Says what runs, after running the demo if it was asked for.
async fn show(
    context: &Context,
    arguments: &Arguments,
    options: &Options,
    registry: &LocalRegistry,
) -> Result<Option<demo::Demo>, Error> {
    let mut started = Started {
        url: registry.url.to_string(),
        profile: registry.profile_file.clone(),
        s3: registry.s3_endpoint.clone(),
        dynamodb: registry.dynamodb_endpoint.clone(),
        demo: None,
    };
    let made = if registry.first_token.is_some() {
        "  (made just now, with an administrator's token)"
    } else {
        ""
    };
    context.output.say(&format!(
        "registry   {}\nprofile    {}{made}",
        started.url,
        started.profile.display()
    ))?;
    let demo = if arguments.demo {
        let demo = demo::run(
            context,
            registry,
            &options.data,
            arguments.samples.as_deref(),
            arguments.gateway_port,
        )
        .await?;
        started.demo = Some(demo.shown.clone());
        Some(demo)
    } else {
        None
    };
    if context.output.json {
        context.output.print(&started, |_| String::new())?;
    } else {
        let profile = started.demo.as_ref().map_or(&started.profile, |demo| &demo.profile);
        let profile = std::path::absolute(profile).unwrap_or_else(|_| profile.clone());
        context.output.say(&format!(
            "\nUse it: export MODUNEST_PROFILE={}\nCtrl-C stops it.",
            profile.display()
        ))?;
    }
    Ok(demo)
}
