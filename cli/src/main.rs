//! `modunest`: the developer's command, and the whole registry in one process.

mod api;
mod commands;
mod error;
mod files;
mod log;
mod monitor;
mod output;
mod package;
mod profile;
mod publish;
mod registry;
mod verify;
mod witness;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use modunest_core::name::{OrgName, PluginName};

use commands::{Context, dev, identity, key, new, up};
use error::Error;
use output::Output;

/// Publish plugins, look at them, and run a registry on this machine.
#[derive(Parser)]
#[command(name = "modunest", version, after_help = error::EXIT_CODES)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Draw no progress
    #[arg(long, short, global = true)]
    quiet: bool,
    /// The registry, its keys and your token [default: .modunest/profile.toml here or above,
    /// then modunest/profile.toml in your configuration folder]
    #[arg(long, global = true, env = "MODUNEST_PROFILE", value_name = "FILE")]
    profile: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole registry in this process; with --demo, publish and load real plugins
    Up(up::Arguments),
    /// Serve a plugin while it is written: every change is built and takes the place of what
    /// runs, with its state
    Dev(dev::Arguments),
    /// Begin a plugin
    New(new::Arguments),
    /// Build a plugin's library
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Of the builds that the manifest declares, make this one only
        #[arg(long)]
        only: Option<package::Kind>,
    },
    /// Build, pack and make every check that the registry makes
    Check {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Of the builds that the manifest declares, make this one only
        #[arg(long)]
        only: Option<package::Kind>,
    },
    /// Build and write the archive
    Pack {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where to write it [default: ORG-NAME-VERSION-TARGET.zip]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Of the builds that the manifest declares, pack this one only
        #[arg(long)]
        only: Option<package::Kind>,
    },
    /// Build, pack, sign and publish
    Publish {
        /// The plugins' folders, dependencies first
        #[arg(default_value = ".")]
        folders: Vec<PathBuf>,
        /// The publisher key [default: key_file of the profile]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Make every check that can be made before the upload, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Of the builds that each manifest declares, publish this one only
        #[arg(long)]
        only: Option<package::Kind>,
    },
    /// Show a plugin's releases, proven by the signed index
    Info {
        /// org/name
        plugin: PluginName,
    },
    /// Keep a release from being chosen anew; hosts that locked it keep it
    Yank {
        /// org/name@version
        release: String,
        /// Take a yank back
        #[arg(long)]
        undo: bool,
        /// Shown to those who locked the release
        #[arg(long)]
        reason: Option<String>,
        /// The publisher key [default: key_file of the profile]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Warn of a release, or of a whole plugin; both are still chosen
    Deprecate {
        /// org/name@version, or org/name for every release
        what: String,
        /// Take a deprecation back
        #[arg(long)]
        undo: bool,
        /// What to do instead, shown to those who use it
        #[arg(long)]
        message: Option<String>,
        /// The publisher key [default: key_file of the profile]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Give a plugin to another organisation; you must publish for both
    Owner {
        /// org/name
        plugin: PluginName,
        /// The organisation whose keys sign for it from then on
        new_owner: OrgName,
        /// The publisher key of the organisation that gives it away [default: key_file of the
        /// profile]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Make, show, register, rotate and revoke publisher keys
    #[command(subcommand)]
    Key(key::Command),
    /// Organisations and their members
    #[command(subcommand)]
    Org(identity::Org),
    /// Ceremonies of a registry's trust root: its keys, and who may change them
    #[command(subcommand)]
    Trust(commands::trust::Command),
    /// API tokens
    #[command(subcommand)]
    Token(identity::Token),
    /// Users of the registry
    #[command(subcommand)]
    User(identity::User),
    /// Quarantine releases and set trust levels; needs the scope staff
    #[command(subcommand)]
    Admin(commands::admin::Command),
    /// Show whose token this is
    Whoami,
    /// Tell the chain of proof behind a release, from the trust configuration to its archives
    Verify(commands::verify::Arguments),
    /// Replay a registry's log, and say what is wrong with it and what was done
    Monitor(commands::monitor::Arguments),
    /// Cosign the checkpoints of logs that only grow
    #[command(subcommand)]
    Witness(commands::witness::Command),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Commands draw progress and print results; only what is worth a warning is logged.
const COMMAND_LOGS: &str = "warn";

fn main() -> ExitCode {
    // The agent of `up --demo` starts this program again for plugins' processes.
    if let Some(code) = modunest_agent::runner::run_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Up(_) | Command::Witness(commands::witness::Command::Serve(_)) => {
            modunest_runtime::logging::init();
        }
        _ => modunest_runtime::logging::init_with_default(COMMAND_LOGS),
    }
    // Two threads serve an idle registry in little memory; more only where there are cores.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let trace = modunest_runtime::trace::root();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(modunest_runtime::trace::scope(
                trace,
                "command",
                Box::pin(run(arguments)),
            ));
            // What still runs is background work that its owners have stopped or abandoned.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            Err(Error::Failed(format!("the program could not start its threads: {error}")))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let mut text = format!("error: {error}");
            // A refusal carries the trace already; anything else gets the command's own.
            if !text.contains("\ntrace ")
                && matches!(error, Error::Unreachable { .. } | Error::Unproven(_))
            {
                text.push_str(&format!("\ntrace {}", trace.trace_id()));
            }
            let _closed = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let output = Output { json: arguments.json, quiet: arguments.quiet };
    let context = Context { output, profile: arguments.profile };
    match arguments.command {
        Command::Up(arguments) => up::run(&context, arguments).await,
        Command::Dev(arguments) => Box::pin(dev::run(&context, arguments)).await,
        Command::New(arguments) => new::run(&context, &arguments),
        Command::Build { folder, only } => {
            commands::build::build(&context, &folder, which(only)).await
        }
        Command::Check { folder, only } => {
            commands::build::check(&context, &folder, which(only)).await
        }
        Command::Pack { folder, out, only } => {
            commands::build::pack(&context, &folder, out, which(only)).await
        }
        Command::Publish { folders, key, dry_run, only } => {
            commands::publish::run(&context, &folders, key, dry_run, which(only)).await
        }
        Command::Info { plugin } => commands::info::run(&context, &plugin).await,
        Command::Yank { release, undo, reason, key } => {
            commands::yank::run(&context, &release, undo, reason, key.as_deref()).await
        }
        Command::Deprecate { what, undo, message, key } => {
            commands::deprecate::run(&context, &what, undo, message, key.as_deref()).await
        }
        Command::Owner { plugin, new_owner, key } => {
            commands::owner::run(&context, plugin, new_owner, key.as_deref()).await
        }
        Command::Key(command) => key::run(&context, command).await,
        Command::Org(command) => identity::org(&context, command).await,
        Command::Trust(command) => commands::trust::run(&context, command).await,
        Command::Token(command) => identity::token(&context, command).await,
        Command::User(command) => identity::user(&context, command).await,
        Command::Admin(command) => commands::admin::run(&context, command).await,
        Command::Whoami => identity::whoami(&context).await,
        Command::Verify(arguments) => commands::verify::run(&context, &arguments).await,
        Command::Monitor(arguments) => commands::monitor::run(&context, &arguments).await,
        Command::Witness(command) => commands::witness::run(&context, command).await,
        Command::Completions { shell } => commands::completions::run(shell),
    }
}

/// The builds that a command makes.
fn which(only: Option<package::Kind>) -> package::Which {
    only.map_or(package::Which::All, package::Which::Only)
}
