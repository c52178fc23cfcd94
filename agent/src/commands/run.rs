//! `run`: the daemon.

use clap::Args;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, Config, EXIT_FAILED, EXIT_OK, Error};
use modunest_runtime::shutdown::StopSignals;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Args)]
pub(super) struct Arguments {
    /// Use the lock file as it is
    #[arg(long)]
    frozen: bool,
    /// Use no network: run the current generation, or end where there is none
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(config: Config, arguments: &Arguments) -> Result<u8, Error> {
    let Arguments { frozen, offline } = *arguments;
    let options = Options { frozen, offline, update: false };
    let exporter = modunest_agent::export_traces(&config)?;
    let ran = run_until_stopped(config, options).await;
    if let Some(exporter) = exporter {
        // It waits for a collector that may hang, on a thread that may wait.
        let ended = tokio::task::spawn_blocking(move || exporter.shutdown()).await;
        ended.map_err(|error| Error::Output(std::io::Error::other(error)))?;
    }
    ran
}

/// Runs an agent until a signal stops it; a second one does not wait for its end.
async fn run_until_stopped(config: Config, options: Options) -> Result<u8, Error> {
    // Before it answers anybody, so that no signal ends it without order: one to read the
    // configuration anew waits until it has started.
    let mut hangups = signal(SignalKind::hangup()).map_err(Error::System)?;
    let mut stop = StopSignals::catch().map_err(Error::System)?;
    let mut agent = Box::pin(Agent::bind(config, options)).await?;
    tokio::select! {
        () = agent.begin() => serve(&agent, &mut hangups, &mut stop).await,
        () = stop.received() => tracing::info!("stopping before everything has started"),
    }
    tracing::info!("stopping");
    tokio::select! {
        () = Box::pin(agent.shutdown()) => Ok(EXIT_OK),
        () = stop.received() => {
            tracing::warn!("stopping at once: plugins and requests were not waited for");
            Ok(EXIT_FAILED)
        }
    }
}

/// Reads the configuration anew at each hangup, until a signal stops it. A stop does not wait for
/// what is being read.
async fn serve(agent: &Agent, hangups: &mut Signal, stop: &mut StopSignals) {
    let reload_on_hangups = async {
        while hangups.recv().await.is_some() {
            if let Err(error) = agent.reload().await {
                tracing::error!(%error, "the configuration was not read anew; the old one is in force");
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = stop.received() => {}
        () = reload_on_hangups => {}
    }
}
