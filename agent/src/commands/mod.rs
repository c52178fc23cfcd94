//! The command line.

mod canary;
mod client;
mod log;
mod print;
mod query;
mod run;
mod screens;
mod secret;
mod sync;
mod top;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use log::Log;
use modunest_agent::config::gateway::BLOCKING_THREADS_MAX;
use modunest_agent::{Config, EXIT_OK, Error};
use modunest_core::trace::TraceContext;

/// Said at the end of `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong command line or configuration
  3  a proof failed: a signature, a hash, an age, a rule of the archive gate
  4  the registry or the agent could not be reached
  5  no choice of versions satisfies what is wanted
  6  `run --offline` on a host that keeps nothing to run

Environment:
  MODUNEST_LOG         what is logged, for example debug or modunest_agent=trace
  MODUNEST_LOG_FORMAT  json or text";

/// Tokio's worker threads: the agent waits for the network and for plugins, which have
/// threads of their own.
const WORKERS: usize = 2;
/// Stack of a worker: futures live on the heap, so what is left is shallow.
const WORKER_STACK_BYTES: usize = 1024 * 1024;

/// Runs plugins that it can prove.
#[derive(Parser)]
#[command(name = "modunest-agent", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Configuration file
    #[arg(
        long,
        global = true,
        env = "MODUNEST_AGENT_CONFIG",
        default_value = "/etc/modunest/agent.toml"
    )]
    config: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sync, load, serve, and look for news until SIGINT or SIGTERM
    Run(run::Arguments),
    /// Bring the store and the lock file to what the configuration wants
    Sync(sync::SyncArguments),
    /// Write all that another host needs to prove and load the lock file without a network
    Bundle(sync::BundleArguments),
    /// Show what would be chosen, and change nothing
    Resolve(sync::ResolveArguments),
    /// Show what the running agent does
    Status,
    /// Show plugins: those of the running agent, else those of the current generation
    Plugins(screens::PluginsArguments),
    /// Watch the plugins of the running agent: calls, errors, times, memory
    Top(top::TopArguments),
    /// Prove everything of the current generation again, from its statements to every file
    Verify,
    /// Show the generations that can be gone back to
    Generations,
    /// Go back to an earlier generation, at once where the agent runs, and stay with it until
    /// the next `sync`
    Rollback(query::RollbackArguments),
    /// Decide about a release that is tried beside the one that runs
    #[command(subcommand)]
    Canary(canary::CanaryCommand),
    /// Seal secrets for the configuration
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Have the running agent read its configuration anew; SIGHUP does the same
    Reload,
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn start_logging(log: &Arc<Log>) {
    let log = log.clone();
    modunest_runtime::logging::init_to(move || log.writer());
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read and validate the configuration, and the trust root that it names
    Check,
}

impl Cli {
    /// Runs the command and answers its exit code.
    pub(crate) fn run(self) -> ExitCode {
        let mut log = None;
        // Commands for people keep quiet but for trouble; the daemon tells its story.
        match &self.command {
            Command::Run(_) => {
                let started = modunest_agent::clib::start_anew_where_copies_are_slow();
                log = Log::on_standard_error().inspect(start_logging).ok();
                if log.is_none() {
                    modunest_runtime::logging::init();
                }
                if let Err(error) = started {
                    tracing::warn!(%error, "not started anew: large messages are copied slowly");
                }
            }
            _ => modunest_runtime::logging::init_with_default("error"),
        }
        let context = modunest_runtime::trace::root();
        let outcome = self.with_runtime(context);
        if let Some(log) = log {
            log.settle();
        }
        match outcome {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                print::error(&error, &context.trace_id(), self.json);
                ExitCode::from(error.exit_code())
            }
        }
    }

    fn with_runtime(&self, context: TraceContext) -> Result<u8, Error> {
        let config = Config::load(&self.config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_stack_size(WORKER_STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .map_err(Error::System)?;
        let outcome = runtime.block_on(async {
            let command = Box::pin(self.command(config));
            modunest_runtime::trace::scope(context, "command", command).await
        });
        // A plugin that hangs must not keep the process from ending.
        runtime.shutdown_background();
        outcome
    }

    async fn command(&self, config: Config) -> Result<u8, Error> {
        let json = self.json;
        match &self.command {
            Command::Run(arguments) => run::run(config, arguments).await,
            Command::Sync(arguments) => sync::sync(&config, arguments, json).await,
            Command::Bundle(arguments) => sync::bundle(&config, arguments, json).await,
            Command::Resolve(arguments) => sync::resolve(&config, arguments, json).await,
            Command::Status => screens::status(&config, json).await,
            Command::Plugins(arguments) => screens::plugins(&config, arguments, json).await,
            Command::Top(arguments) => top::top(&config, arguments, json).await,
            Command::Verify => query::verify(&config, json).await,
            Command::Secret(command) => secret::run(&config, command, json),
            Command::Generations => query::generations(&config, json).await,
            Command::Rollback(arguments) => query::rollback(&config, arguments, json).await,
            Command::Canary(command) => canary::run(&config, command, json).await,
            Command::Reload => query::reload(&config, json).await,
            Command::Config(ConfigCommand::Check) => {
                modunest_agent::sync::pinned_root(&config)?;
                let wanted = config.plugins.len();
                let text = format!("{} is valid; {wanted} plugins wanted", self.config.display());
                print::text_or_json(
                    json,
                    &text,
                    &serde_json::json!({ "valid": true, "plugins": wanted }),
                )?;
                Ok(EXIT_OK)
            }
        }
    }
}
