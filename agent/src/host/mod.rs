//! The plugin host: from proven, unpacked releases to running instances that call one
//! another and answer routes.
//!
//! The story: [`prepare`] proves what is in the store; [`Plan::build`] decides what may be
//! loaded and in which order, and finds conflicts; [`load_all`] loads, driven by events,
//! with a bounded number of slots; the [`Host`] that it answers serves calls until
//! [`Host::stop`].
//!
//! A plugin that fails takes down those that need it, with the chain as their reason, and
//! nothing else. Where a plugin runs, [`Tier`] says: native code in a process of its own,
//! behind a sandbox, unless the operator trusts it. All `unsafe` is in the files named
//! `native*`.

pub(crate) mod ask;
mod breaker;
mod cell;
pub(crate) mod component;
mod events;
mod frame;
mod guards;
mod instance;
mod links;
pub(crate) mod native;
pub(crate) mod native_host;
mod operations;
mod plan;
mod process;
mod routes;
mod schedule;
mod services;
mod spans;
mod start;
mod streams;
#[cfg(test)]
mod tests;
mod tier;
mod vitals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modunest_core::Version;
use modunest_core::name::PluginName;
use modunest_core::relation::{COMPONENT_WORLD, HostFacts, NATIVE_ABI};

pub use breaker::{
    Admission, Breaker, BreakerSettings, BreakerState, Breakers, Outcome, Rate, Refused, Ticket,
    WINDOW_MAX,
};
pub(crate) use cell::Hold;
pub use cell::{Cell, State, Status};
pub use events::EventCounters;
pub(crate) use frame::with_identity;
pub use guards::GuardRefusal;
pub use instance::{Call, Instance};
pub use links::LinkStatus;
pub use native::LoadError;
pub use operations::{FileAccess, Resources};
pub use plan::{Plan, Prepared, prepare};
pub use process::{Crash, RestartPolicy};
pub use routes::{Found, Routes};
pub use schedule::load_all;
pub use services::ImportStatus;
pub(crate) use streams::{Opened, UploadBody};
pub use tier::Tier;
pub use vitals::Vitals;

/// Oldest native ABI number that this host loads.
const ABI_MIN: u32 = 1;

/// Everything that is loaded: one generation.
pub struct Host {
    cells: BTreeMap<PluginName, Arc<Cell>>,
    /// Dependencies before those that need them.
    order: Vec<PluginName>,
    routes: Routes,
}

/// What this host can run.
pub fn facts() -> HostFacts {
    let environment = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let target = format!("{}-unknown-linux-{environment}", std::env::consts::ARCH);
    HostFacts {
        version: own_version(),
        #[allow(clippy::expect_used, reason = "made of the compiler's own words")]
        target: target.parse().expect("the compiler's target is a target"),
        libc: native::libc_version(),
        abi: (ABI_MIN, NATIVE_ABI),
        world: Some(COMPONENT_WORLD),
        prefers_components: false,
    }
}

#[allow(clippy::expect_used, reason = "cargo accepts only semver")]
fn own_version() -> Version {
    env!("CARGO_PKG_VERSION").parse().expect("cargo's versions are semver")
}

impl Host {
    /// A host without plugins.
    pub fn empty() -> Self {
        Host { cells: BTreeMap::new(), order: Vec::new(), routes: Routes::default() }
    }

    /// Every plugin, by name.
    pub fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.cells.values()
    }

    /// One plugin.
    pub fn cell(&self, name: &PluginName) -> Option<&Arc<Cell>> {
        self.cells.get(name)
    }

    /// Routes of all plugins that are to be loaded, whatever came of them.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether every critical plugin is ready; else the first that is not.
    ///
    /// # Errors
    /// The plugin and its state.
    pub fn ready(&self) -> Result<(), (PluginName, Status)> {
        let waiting = self
            .cells
            .values()
            .filter(|cell| cell.manifest().critical)
            .find(|cell| cell.status().state != State::Ready);
        waiting.map_or(Ok(()), |cell| Err((cell.name().clone(), cell.status())))
    }

    /// Stops every plugin that `successor` does not go on with, users before what they use:
    /// hooks, drain, `stop`. Gives up waiting at the deadline; what hangs stays mapped.
    pub fn stop(&self, successor: Option<&Host>, timeout: Duration) {
        let until = Instant::now() + timeout;
        for name in self.order.iter().rev() {
            let Some(cell) = self.cells.get(name) else { continue };
            let goes_on = successor
                .and_then(|next| next.cell(name))
                .is_some_and(|next| Arc::ptr_eq(next, cell));
            if !goes_on {
                cell.clone().stop(until);
            }
        }
    }
}
