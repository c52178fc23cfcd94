//! The plugin host: pulls releases from a registry, proves them, and loads them.
//!
//! In scope: configuration, the trust root ([`trust`]), verified reads ([`registry`]),
//! resolution and downloads ([`sync`]), the content-addressed store and generations
//! ([`store`]), loading and calling ([`host`]), plugins' processes ([`runner`]) and what confines
//! them ([`sandbox`]), the gateway and the admin server. Out of
//! scope: decisions that others make the same way, which are in `modunest-core`, and what a
//! plugin is made of, which is in `modunest-sdk`.
//!
//! [`Agent::start`] is the whole of it in one call; the binary `modunest-agent` is a thin
//! shell around it.

mod blocking;
mod doubling;
mod files;
mod thread;

pub mod config;
pub mod secrets;

pub mod trust;

pub mod registry;
pub mod sync;

pub mod store;

pub mod host;
pub mod runner;
pub mod sandbox;

pub mod clib;

pub mod users;

pub mod admin;
pub mod gateway;
pub mod metrics;
pub mod status;

pub mod embed;

mod agent;
mod error;
mod traces;

pub use agent::{Agent, Reloaded, Synced, TrialWord, kept_generations};
pub use config::Config;
pub use error::{
    EXIT_FAILED, EXIT_NO_SOLUTION, EXIT_NOTHING_KEPT, EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE,
    EXIT_USAGE, Error,
};
pub use traces::export_traces;

/// Version of this agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
