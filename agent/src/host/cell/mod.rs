//! One plugin of a host: its state, its instance, and the way in for every call.

mod state;

mod gate;
mod hooks;

mod call;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;

pub(crate) use gate::Hold;
pub use state::{State, Status};

use super::links::Links;
use super::operations::Operations;
use super::services::Services;
use super::streams::Streams;
use super::{Breakers, Instance, Vitals};
use crate::config::LifecycleSettings;
use crate::embed::{Event, Hooks};
use crate::metrics::Meter;
use crate::secrets::{OpenConfig, SecretError};
use gate::{InFlight, lock};

/// One plugin of a host.
pub struct Cell {
    name: PluginName,
    version: Version,
    /// Names the release and its build, and with them everything that is loaded.
    identity: (Digest, Digest, Vec<u8>),
    manifest: Manifest,
    folder: PathBuf,
    assets: String,
    dependencies: BTreeMap<PluginName, Arc<Cell>>,
    links: Links,
    operations: Operations,
    status: Mutex<Status>,
    instance: OnceLock<Box<dyn Instance>>,
    in_flight: Mutex<InFlight>,
    drained: Condvar,
    meter: Meter,
    streams: Arc<Streams>,
    breakers: Breakers,
    /// What the program around this host plugged into it.
    hooks: Hooks,
}

/// What a [`Cell`] is made of.
pub(super) struct Parts {
    pub(super) identity: (Digest, Digest, Vec<u8>),
    pub(super) manifest: Manifest,
    pub(super) folder: PathBuf,
    pub(super) dependencies: BTreeMap<PluginName, Arc<Cell>>,
    pub(super) lifecycle: Arc<LifecycleSettings>,
    pub(super) hooks: Hooks,
    pub(super) operations: Operations,
}

impl Cell {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { identity, manifest, folder, dependencies, lifecycle, hooks, operations } =
            parts;
        let breaker =
            if manifest.critical { lifecycle.critical_breaker } else { lifecycle.breaker };
        Cell {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            identity,
            links: Links::new(&manifest),
            assets: folder.to_string_lossy().into_owned(),
            manifest,
            folder,
            dependencies,
            operations,
            status: Mutex::new(Status {
                state: State::Waiting,
                since: modunest_runtime::clock::now(),
                reason: None,
            }),
            instance: OnceLock::new(),
            in_flight: Mutex::default(),
            drained: Condvar::new(),
            meter: Meter::default(),
            streams: Arc::default(),
            breakers: Breakers::new(breaker),
            hooks,
        }
    }

    /// The plugin.
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What ties it to other plugins.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// Its services, and those that it imports.
    pub(super) fn services(&self) -> &Services {
        &self.links.services
    }

    /// A plugin that it depends on, if that is here.
    pub(super) fn dependency(&self, name: &PluginName) -> Option<&Arc<Cell>> {
        self.dependencies.get(name)
    }

    /// The same as text, as the plugin hears it.
    pub(super) fn assets(&self) -> &str {
        &self.assets
    }

    /// The configuration with its secrets, for the plugin's `create` alone.
    ///
    /// # Errors
    /// A secret cannot be opened.
    pub(super) fn config(&self) -> Result<OpenConfig, SecretError> {
        self.operations.open_config(&self.identity.2)
    }

    /// What the plugin may use of its host.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Whether the cell is of exactly this release, build and configuration, and uses
    /// exactly these instances.
    pub(super) fn is_same(&self, parts: &Parts) -> bool {
        self.identity == parts.identity
            && self.operations.is_same(&parts.operations)
            && self.dependencies.len() == parts.dependencies.len()
            && self.dependencies.iter().all(|(name, cell)| {
                parts.dependencies.get(name).is_some_and(|other| Arc::ptr_eq(cell, other))
            })
            && self.status().state == State::Ready
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// What it did.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Calls that are being served.
    pub fn running(&self) -> u64 {
        lock(&self.in_flight).running() as u64
    }

    /// Its circuit breakers.
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// What it has open with clients of the gateway.
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    pub(super) fn set(&self, state: State, reason: Option<String>) {
        if state == State::Loading {
            self.meter.loading();
        }
        *lock(&self.status) = Status { state, since: modunest_runtime::clock::now(), reason };
        self.announce();
    }

    /// Tells whoever observes this host where the plugin stands now. No lock is held.
    fn announce(&self) {
        if self.hooks.is_observed() {
            let Status { state, reason, .. } = self.status();
            let (plugin, version) = (&self.name, &self.version);
            self.hooks.tell(&Event::Plugin { plugin, version, state, reason: reason.as_deref() });
        }
    }

    /// Turns to a state, if it is in one of those; else nothing happens, and it answers false.
    pub(super) fn turn(&self, from: &[State], to: State, reason: Option<String>) -> bool {
        let mut status = lock(&self.status);
        let turns = from.contains(&status.state);
        if turns {
            *status = Status { state: to, since: modunest_runtime::clock::now(), reason };
        }
        turns
    }

    /// How it does, seen from outside it; `None` where it is not loaded.
    pub fn vitals(&self) -> Option<Vitals> {
        self.instance.get().map(|instance| instance.vitals())
    }

    /// How the plugin's trouble reads behind "which".
    pub(super) fn trouble(&self) -> String {
        let status = self.status();
        let reason = status.reason.unwrap_or_default();
        match status.state {
            State::Blocked => reason,
            State::Failed => format!("failed: {reason}"),
            other => format!("is {}", other.as_str()),
        }
    }
}
