//! `run`: the daemon.

use clap::Args;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, Config, EXIT_OK, Error};
use modunest_runtime::shutdown::StopSignals;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub(super) struct Arguments {
    /// Use the lock file as it is
    #[arg(long)]
    frozen: bool,
    /// Use no network: run the current generation
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(config: Config, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { frozen, offline } = *arguments;
    let options = Options { frozen, offline, update: false };
    let exporter = modunest_agent::export_traces(&config)?;
    // Before it answers anybody, so that no signal ends it without order: one to read the
    // configuration anew waits until it has started.
    let mut hangups = signal(SignalKind::hangup()).map_err(Error::System)?;
    let mut stop = StopSignals::catch().map_err(Error::System)?;
    let agent = tokio::select! {
        started = Box::pin(Agent::start_with(config, options)) => started?,
        () = stop.received() => {
            tracing::info!("stopping before everything has started");
            return Ok(EXIT_OK);
        }
    };
    loop {
        tokio::select! {
            () = stop.received() => break,
            Some(()) = hangups.recv() => {
                if let Err(error) = agent.reload().await {
                    tracing::error!(%error, "the configuration was not read anew; the old one is in force");
                }
            }
        }
    }
    tracing::info!("stopping");
    agent.shutdown().await;
    if let Some(exporter) = exporter {
        // It waits for a collector that may hang, on a thread that may wait.
        let ended = tokio::task::spawn_blocking(move || exporter.shutdown()).await;
        ended.map_err(|error| Error::Output(std::io::Error::other(error)))?;
    }
    Ok(EXIT_OK)
}
