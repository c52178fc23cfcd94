//! The plugin host: from proven, unpacked releases to running instances that call one
//! another and answer routes.
//!
//! The story: [`prepare`] proves what is in the store; [`Plan::build`] decides what may be
//! loaded and in which order, and finds conflicts; [`load_all`] loads, driven by events,
//! with a bounded number of slots; the [`Host`] that it answers serves calls until
//! [`Host::stop`].
//!
//! A plugin that fails takes down those that need it, with the chain as their reason, and
//! nothing else. Where a plugin runs, [`Tier`] says: in a process of its own, behind a sandbox,
//! unless it is a component of a trusted publisher, or the operator trusts it. All `unsafe` is in
//! the files named `native*`, and in the cache of compiled components.

mod abandoned;
pub(crate) mod ask;
mod bounded;
mod breaker;
mod canary;
mod cell;
pub(crate) mod component;
mod condemned;
mod configured;
pub(crate) mod drive;
mod events;
mod folders;
mod frame;
mod guards;
mod health;
mod instance;
mod links;
pub(crate) mod native;
pub(crate) mod native_host;
mod operations;
mod plan;
mod process;
mod reload;
mod routes;
mod schedule;
mod services;
pub(crate) mod side;
mod spans;
mod start;
mod streams;
mod terms;
#[cfg(test)]
mod tests;
mod tier;
mod vitals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modunest_core::Version;
use modunest_core::name::PluginName;
use modunest_core::relation::{COMPONENT_WORLD, HostFacts, NATIVE_ABI};
use modunest_sdk::abi::ABI_VERSION;

pub use breaker::{
    Admission, Breaker, BreakerSettings, BreakerState, Breakers, Outcome, Rate, Refused, Ticket,
    WINDOW_MAX,
};
pub use canary::{Decision, RolledBack, Served, Trial, judge};
pub(crate) use canary::{Item, NotTried};
pub use cell::{Cell, State, Status};
pub(crate) use cell::{Hold, Lacks};
pub use drive::Serving;
pub use events::EventCounters;
pub use guards::GuardRefusal;
pub use health::{HealthRecord, Verdict};
pub(crate) use instance::OwnedCall;
pub use instance::{Call, Instance, Unserved};
pub use links::LinkStatus;
pub use native::LoadError;
pub(crate) use native::libc_version;
pub use operations::{FileAccess, Resources};
pub use plan::{Plan, Prepared, prepare};
pub use process::{Crash, RestartPolicy};
pub use reload::{Hindrance, NotSwitched, Takeover, switch, takeover};
pub use routes::{Found, Routes};
pub use schedule::load_all;
pub use services::ImportStatus;
pub(crate) use streams::{Opened, UploadBody, WINDOW_BYTES};
pub use tier::Tier;
pub use vitals::Vitals;

/// Oldest native ABI number that this host loads.
const ABI_MIN: u32 = 1;

const _: () = assert!(NATIVE_ABI == ABI_VERSION, "a manifest names the ABI that is spoken");

/// Everything that is loaded: one generation.
pub struct Host {
    cells: BTreeMap<PluginName, Arc<Cell>>,
    /// Dependencies before those that need them.
    order: Vec<PluginName>,
    routes: Routes,
    /// Replaced instances, and until when they are kept to go back to.
    standby: Mutex<Vec<(Arc<Cell>, Instant)>>,
}

/// What this host can run.
pub fn facts() -> HostFacts {
    let environment = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let target = format!("{}-unknown-linux-{environment}", std::env::consts::ARCH);
    HostFacts {
        version: own_version(),
        #[allow(clippy::expect_used, reason = "made of the compiler's own words")]
        target: target.parse().expect("the compiler's target is a target"),
        libc: libc_version(),
        abi: abi(),
        world: Some(COMPONENT_WORLD),
        prefers_components: false,
    }
}

/// The oldest and the newest native ABI number that this host loads.
fn abi() -> (u32, u32) {
    (ABI_MIN, ABI_VERSION)
}

#[allow(clippy::expect_used, reason = "cargo accepts only semver")]
fn own_version() -> Version {
    env!("CARGO_PKG_VERSION").parse().expect("cargo's versions are semver")
}

impl Host {
    /// A host without plugins.
    pub fn empty() -> Self {
        Host {
            cells: BTreeMap::new(),
            order: Vec::new(),
            routes: Routes::default(),
            standby: Mutex::default(),
        }
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

    /// Whether every critical plugin does all that it is there for; else the first that does not.
    ///
    /// # Errors
    /// The plugin, and where it stands, in words.
    pub fn ready(&self) -> Result<(), (PluginName, String)> {
        match self.critical().find(|(_, is_ready, _)| !is_ready) {
            Some((cell, _, detail)) => Err((cell.name().clone(), detail)),
            None => Ok(()),
        }
    }

    /// Each critical plugin, whether it does all that it is there for, and where it stands.
    pub(crate) fn critical(&self) -> impl Iterator<Item = (&Cell, bool, String)> {
        let mut known = Lacks::new();
        self.cells.values().filter(|cell| cell.manifest().critical).map(move |cell| {
            let (is_ready, detail) = cell.standing(&mut known);
            (&**cell, is_ready, detail)
        })
    }

    /// Plugins whose load began and has failed, or that have ended once too often: another load may
    /// do. None where a release was condemned, which no load is to bring back.
    pub(crate) fn failed(&self) -> BTreeSet<PluginName> {
        if self.cells.values().any(|cell| cell.status().state == State::Denied) {
            return BTreeSet::new();
        }
        let failed = self.cells.values().filter(|cell| cell.may_load_anew());
        failed.map(|cell| cell.name().clone()).collect()
    }

    /// Names of all plugins, dependencies before those that need them.
    pub(crate) fn order(&self) -> &[PluginName] {
        &self.order
    }

    /// The instance of exactly this, if one is loaded or kept.
    fn same(&self, name: &PluginName, parts: &cell::Parts) -> Option<Arc<Cell>> {
        let running = self.cell(name).filter(|cell| cell.is_same(parts)).cloned();
        running.or_else(|| {
            let standby = self.standby();
            let kept = standby.iter().map(|(cell, _)| cell);
            kept.filter(|cell| cell.name() == name).find(|cell| cell.is_same(parts)).cloned()
        })
    }

    fn standby(&self) -> MutexGuard<'_, Vec<(Arc<Cell>, Instant)>> {
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_standby(&self) -> Vec<(Arc<Cell>, Instant)> {
        std::mem::take(&mut *self.standby())
    }

    fn keep_standby(&self, kept: Vec<(Arc<Cell>, Instant)>) {
        self.standby().extend(kept);
    }

    /// Replaced instances that are kept.
    pub fn kept(&self) -> Vec<Arc<Cell>> {
        self.standby().iter().map(|(cell, _)| cell.clone()).collect()
    }

    /// Asks after the health of those whose turn it is, each on a thread of its own. Calls
    /// `restart` for each that is to be restarted, with the reason.
    pub fn ask_after_health(
        &self,
        now: Instant,
        restart: &(impl Fn(&Arc<Cell>, &str) + Clone + Send + 'static),
    ) {
        let running = self.cells.values().map(|cell| (cell.clone(), false));
        let tried = self.cells.values().filter_map(|cell| cell.trial());
        let tried = tried.map(|trial| (trial.canary().clone(), true));
        let all = running.chain(tried).filter(|(cell, _)| cell.is_to_be_asked(now));
        for (cell, is_tried) in all {
            let (asked, restart) = (cell.clone(), restart.clone());
            let thread = std::thread::Builder::new().name("health".to_owned());
            let started = thread.spawn(move || {
                let verdict = asked.ask_after(modunest_runtime::clock::now());
                // What is being tried and not well is rolled back by those who look after it.
                if let Some(reason) = verdict.filter(|_| !is_tried) {
                    restart(&asked, &reason);
                }
            });
            if let Err(error) = started {
                tracing::warn!(plugin = %cell.name(), %error, "nobody can ask after its health");
            }
        }
    }

    /// Stops replaced instances that were kept for long enough. Answers whether there were any.
    pub fn stop_spent(&self, now: Instant, timeout: Duration) -> bool {
        let mut spent = Vec::new();
        self.standby().retain(|(cell, until)| {
            let is_spent = *until <= now;
            spent.extend(is_spent.then(|| cell.clone()));
            !is_spent
        });
        let any = !spent.is_empty();
        for cell in spent {
            tracing::info!(plugin = %cell.name(), version = %cell.version(), "the replaced instance is stopped");
            cell.stop(Instant::now() + timeout);
        }
        any
    }

    /// Ends every trial, and stops what was tried.
    pub(crate) fn stop_trials(&self, until: Instant) {
        for trial in self.cells.values().filter_map(|cell| cell.end_trial()) {
            trial.stop(self, None, until.saturating_duration_since(Instant::now()));
        }
    }

    /// Stops every plugin that `successor` does not go on with, users before what they use:
    /// hooks, drain, `stop`. Gives up waiting at the deadline; what hangs stays mapped. What
    /// a successor took over from is kept by it.
    pub fn stop(&self, successor: Option<&Host>, timeout: Duration) {
        let until = Instant::now() + timeout;
        if successor.is_none() {
            self.stop_trials(until);
        }
        for name in self.order.iter().rev() {
            let Some(cell) = self.cells.get(name) else { continue };
            let goes_on = successor
                .and_then(|next| next.cell(name))
                .is_some_and(|next| Arc::ptr_eq(next, cell));
            let is_kept = successor.is_some() && cell.status().state == State::Standby;
            if !goes_on && !is_kept {
                cell.clone().stop(until);
            }
        }
        if successor.is_none() {
            self.take_standby().into_iter().for_each(|(cell, _)| cell.stop(until));
        }
    }
}
