//! Why the agent or one of its commands failed, and the exit code that says so.

use std::path::PathBuf;

use modunest_core::name::PluginName;
use modunest_core::problem::Code;
use modunest_runtime::telemetry::{SettingsError, StartError};

use crate::{blocking, config, host, registry, secrets, store, sync, users};

/// Everything that the agent can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The state folder cannot be used.
    #[error("cannot use the state folder {}: {source}; change state_dir or its permissions", .path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The keys of an issuer of users' tokens cannot be used.
    #[error("the keys of an [[issuer]] cannot be used: {0}")]
    Users(#[from] users::KeySetError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; another program may hold it")]
    Bind {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A sync failed.
    #[error(transparent)]
    Sync(#[from] sync::Error),
    /// The store or a generation cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A generation would be worse than the one that runs.
    #[error(
        "generation {generation} was not taken into service: {plugin} runs now and would not any more: {reason}"
    )]
    Worse {
        /// The generation.
        generation: u64,
        /// The plugin that would be lost.
        plugin: PluginName,
        /// Why.
        reason: String,
    },
    /// A plugin could not take the place of the one that runs.
    #[error("generation {generation} was not taken into service, and what ran goes on: {error}")]
    NotSwitched {
        /// The generation.
        generation: u64,
        /// What stood in the way.
        error: host::NotSwitched,
    },
    /// Nobody answers where the agent's admin server should.
    #[error("no agent answers on {address}: {reason}; start one with `modunest-agent run`")]
    NoAgent {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The agent answered a command with a refusal.
    #[error("the agent refused: {detail}")]
    AgentRefused {
        /// Why.
        detail: String,
        /// The reason, for programs.
        code: Code,
    },
    /// A variable or setting about traces is not valid.
    #[error(transparent)]
    TelemetrySettings(#[from] SettingsError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Telemetry(#[from] StartError),
    /// A command has nothing to work on.
    #[error("nothing was ever synced; run `modunest-agent sync` first")]
    NoGeneration,
    /// Without a network, there is nothing to run.
    #[error(
        "nothing is kept in {} to run without a network; run `modunest-agent sync` once with one, or `modunest-agent sync --bundle FILE` with what another host's `modunest-agent bundle` wrote", .0.display()
    )]
    NothingKept(PathBuf),
    /// A secret cannot be sealed.
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
    /// Standard input cannot be read.
    #[error("cannot read the secret from standard input: {0}")]
    Input(#[source] std::io::Error),
    /// A plugin is not among those that run.
    #[error("{0} does not run here; `modunest-agent plugins` lists what does")]
    NoPlugin(PluginName),
    /// A generation is not among those that are kept.
    #[error("generation {0} is not kept here; `modunest-agent generations` lists what is")]
    NotKept(u64),
    /// No generation ran before the one that runs.
    #[error("no generation before this one is kept; `modunest-agent generations` lists what is")]
    NoEarlier,
    /// Nothing is tried in a plugin's place.
    #[error("no other release of {0} is being tried; `modunest-agent plugins` shows what is")]
    NoTrial(PluginName),
    /// No release of a plugin was rolled back.
    #[error("no release of {0} was rolled back, so there is nothing to forgive")]
    NotRolledBack(PluginName),
    /// The configuration was made in code, so there is no file to read anew.
    #[error("this agent was configured without a file, so there is nothing to read anew")]
    NoConfigFile,
    /// The agent was told to stop, so nothing is changed any more.
    #[error("the agent is stopping, so nothing is changed any more")]
    Stopping,
    /// Standard output cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[source] std::io::Error),
    /// The process cannot listen for signals or start its runtime.
    #[error("the operating system refuses what every program needs: {0}")]
    System(#[source] std::io::Error),
    /// A helper thread ended without an answer.
    #[error(transparent)]
    Blocking(#[from] blocking::Lost),
}

/// Exit code for success.
pub const EXIT_OK: u8 = 0;
/// Exit code for failures that no other code names.
pub const EXIT_FAILED: u8 = 1;
/// Exit code for a wrong command line or configuration.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for what a proof refused: a signature, a hash, an age, a rule.
pub const EXIT_REFUSED: u8 = 3;
/// Exit code for a registry or agent that does not answer.
pub const EXIT_UNREACHABLE: u8 = 4;
/// Exit code for a request that no choice of versions satisfies.
pub const EXIT_NO_SOLUTION: u8 = 5;
/// Exit code for a host that is to use no network and keeps nothing to run.
pub const EXIT_NOTHING_KEPT: u8 = 6;

impl Error {
    /// Whether a generation that was not taken into service is itself why: the same will do no
    /// better next time.
    pub(crate) fn is_of_next(&self) -> bool {
        match self {
            Error::Worse { .. } => true,
            Error::NotSwitched { error, .. } => error.hindrance == host::Hindrance::Next,
            _ => false,
        }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        let of_store = |error: &store::Error| {
            if error.is_refusal() { EXIT_REFUSED } else { EXIT_FAILED }
        };
        match self {
            Error::Config(_) | Error::TelemetrySettings(_) | Error::Users(_) => EXIT_USAGE,
            Error::Store(error) => of_store(error),
            Error::NoAgent { .. } | Error::Stopping => EXIT_UNREACHABLE,
            Error::NothingKept(_) => EXIT_NOTHING_KEPT,
            Error::AgentRefused { code: Code::Unavailable, .. } => EXIT_UNREACHABLE,
            Error::AgentRefused { code: Code::PreconditionFailed, .. } => EXIT_REFUSED,
            Error::AgentRefused { code: Code::InvalidRequest, .. } => EXIT_USAGE,
            Error::Sync(error) => match error {
                sync::Error::Registry(error) => match error.kind() {
                    registry::Kind::Unreachable => EXIT_UNREACHABLE,
                    registry::Kind::Refused => EXIT_REFUSED,
                    registry::Kind::Failed => EXIT_FAILED,
                },
                sync::Error::NoSolution(_) => EXIT_NO_SOLUTION,
                sync::Error::Archive { error, .. } => of_store(error),
                sync::Error::Store(error) => of_store(error),
                sync::Error::Offline { asked: false, .. } => EXIT_UNREACHABLE,
                _ => EXIT_FAILED,
            },
            _ => EXIT_FAILED,
        }
    }
}
