//! One plugin of a host: its state, its instance, and the way in for every call.

mod state;

mod gate;
mod hooks;
mod lazy;
mod overrun;
mod swap;
mod watch;

mod call;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;

pub(crate) use gate::Hold;
pub(super) use gate::lock;
pub use state::{State, Status};

use super::canary::Trials;
use super::health::HealthRecord;
use super::instance::Loaded;
use super::links::Links;
use super::operations::Operations;
use super::services::Services;
use super::start::Place;
use super::streams::Streams;
use super::terms::Terms;
use super::{Breakers, Vitals};
use crate::config::LifecycleSettings;
use crate::embed::{Event, Hooks};
use crate::metrics::Meter;
use crate::secrets::{OpenConfig, SecretError};
use crate::thread::presence;
use gate::Gate;
use hooks::Untold;

/// One plugin of a host. What each call looks at comes first, in one line of the processor's cache:
/// what a plugin does drives it from the nearest one, and each line costs a call the time to fetch
/// it again.
#[repr(C, align(64))]
pub struct Cell {
    instance: OnceLock<Loaded>,
    gate: Gate,
    meter: Meter,
    breakers: Breakers,
    name: PluginName,
    version: Version,
    /// Names the release and its build, and with them everything that is loaded.
    identity: (Digest, Digest, Vec<u8>),
    /// Under which settings it was made.
    terms: Terms,
    manifest: Arc<Manifest>,
    folder: PathBuf,
    assets: String,
    /// What it uses, as it stands now: instances are replaced while their users go on.
    dependencies: BTreeMap<PluginName, ArcSwap<Cell>>,
    links: Links,
    operations: Operations,
    status: Mutex<Status>,
    /// What it goes back to where a switch does not come about; nothing where none is under way.
    /// Locked only by who holds the status.
    before_switch: Mutex<Option<Status>>,
    /// The state is another one.
    turned: Condvar,
    /// Calls that wait for that.
    waiting: AtomicUsize,
    /// What took its place.
    successor: Mutex<Option<Arc<Cell>>>,
    /// Whether it takes over a predecessor's state before it serves.
    inherits: bool,
    /// Whether it waits for its first use.
    is_lazy: bool,
    load_timeout: Duration,
    /// Whether a load of it has begun: what was refused before would be refused again.
    has_begun: AtomicBool,
    lifecycle: Arc<LifecycleSettings>,
    /// Since when a hook runs on the thread that loads it.
    hook_since: Mutex<Option<Instant>>,
    /// Errors of which it is still to be told.
    untold: Mutex<Untold>,
    /// What it is made of and where it runs, where it is loaded at its first use.
    place: Mutex<Option<Place>>,
    me: Weak<Cell>,
    /// When it was asked after its health.
    asked: Mutex<Option<Instant>>,
    /// Alive until it has answered.
    question: Mutex<Weak<()>>,
    /// Calls that it had ended then.
    ended_before: AtomicU64,
    record: Mutex<HealthRecord>,
    restarts: AtomicU64,
    /// Whether another instance is to take its place at the next load.
    worn: AtomicBool,
    /// Whether its instance was stopped.
    unloaded: AtomicBool,
    trials: Trials,
    streams: Arc<Streams>,
    /// What the program around this host plugged into it.
    hooks: Hooks,
}

/// What a [`Cell`] is made of.
pub(super) struct Parts {
    pub(super) identity: (Digest, Digest, Vec<u8>),
    pub(super) terms: Terms,
    pub(super) manifest: Arc<Manifest>,
    pub(super) folder: PathBuf,
    pub(super) dependencies: BTreeMap<PluginName, Arc<Cell>>,
    pub(super) lifecycle: Arc<LifecycleSettings>,
    pub(super) hooks: Hooks,
    pub(super) operations: Operations,
    pub(super) load_timeout: Duration,
    pub(super) inherits: bool,
    pub(super) is_lazy: bool,
}

/// What plugins lack, each looked for once.
pub(crate) type Lacks = BTreeMap<PluginName, Option<String>>;

impl Cell {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        presence::prepare();
        Arc::new_cyclic(|me| {
            let cell = Self::of(parts, me.clone());
            cell.turn_quiet(cell.breakers.are_quiet());
            cell
        })
    }

    fn of(parts: Parts, me: Weak<Cell>) -> Self {
        let Parts {
            identity,
            terms,
            manifest,
            folder,
            dependencies,
            lifecycle,
            hooks,
            operations,
            load_timeout,
            inherits,
            is_lazy,
        } = parts;
        let dependencies =
            dependencies.into_iter().map(|(name, cell)| (name, ArcSwap::new(cell))).collect();
        let breaker =
            if manifest.critical { lifecycle.critical_breaker } else { lifecycle.breaker };
        let meter = Meter::default();
        Cell {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            identity,
            terms,
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
            before_switch: Mutex::default(),
            instance: OnceLock::new(),
            gate: Gate::new(meter.number()),
            turned: Condvar::new(),
            waiting: AtomicUsize::new(0),
            successor: Mutex::default(),
            inherits,
            is_lazy,
            load_timeout,
            has_begun: AtomicBool::new(false),
            lifecycle,
            hook_since: Mutex::default(),
            untold: Mutex::default(),
            place: Mutex::default(),
            me,
            asked: Mutex::default(),
            question: Mutex::default(),
            ended_before: AtomicU64::new(0),
            record: Mutex::default(),
            restarts: AtomicU64::new(0),
            worn: AtomicBool::new(false),
            unloaded: AtomicBool::new(false),
            trials: Trials::default(),
            meter,
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
    pub(super) fn dependency(&self, name: &PluginName) -> Option<Arc<Cell>> {
        self.dependencies.get(name).map(ArcSwap::load_full)
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

    /// Whether the cell is of exactly this release, build and configuration, runs where and as the
    /// settings say, uses the same plugins, and can go on.
    pub(super) fn is_same(&self, parts: &Parts) -> bool {
        let state = self.status().state;
        self.identity == parts.identity
            && self.terms == parts.terms
            && self.operations.is_same(&parts.operations)
            && self.dependencies.keys().eq(parts.dependencies.keys())
            && (state.serves() || state == State::Standby)
            && !self.is_worn()
    }

    /// How long making its instance may take.
    pub(super) fn load_timeout(&self) -> Duration {
        self.load_timeout
    }

    /// From now on it uses what `host` has of its dependencies.
    pub(super) fn relink(&self, host: &super::Host) {
        for (name, link) in &self.dependencies {
            if let Some(cell) = host.cell(name) {
                link.store(cell.clone());
            }
        }
    }

    /// Whether it takes over a predecessor's state before it serves.
    pub(super) fn inherits(&self) -> bool {
        self.inherits
    }

    /// Whether it waits for its first use.
    pub(super) fn is_lazy(&self) -> bool {
        self.is_lazy
    }

    /// Whether it has an instance that was not stopped.
    pub(super) fn is_loaded(&self) -> bool {
        self.instance.get().is_some() && !self.is_unloaded()
    }

    /// Whether its instance was stopped.
    pub(super) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Relaxed)
    }

    /// Whether it is of exactly this release and build.
    pub(super) fn is_of(&self, statement: Digest, files: Digest) -> bool {
        (self.identity.0, self.identity.1) == (statement, files)
    }

    /// Other releases that are tried in its place.
    pub(super) fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Calls that are being served now, and streams that are open.
    pub fn running(&self) -> u64 {
        self.gate.running() + self.gate.held()
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// What it did.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// How often it was restarted because it was not well, because somebody asked for it, or
    /// because it trapped.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
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
            self.begin_loading();
        }
        self.turn(&mut lock(&self.status), state, reason);
        self.announce();
    }

    /// Notes that a load begins.
    fn begin_loading(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.meter.loading();
    }

    /// Whether it has failed, and another load may do.
    pub(super) fn may_load_anew(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed) && self.status().state == State::Failed
    }

    /// Tells whoever observes this host where the plugin stands now. No lock is held.
    fn announce(&self) {
        if self.hooks.is_observed() {
            let Status { state, reason, .. } = self.status();
            let (plugin, version) = (&self.name, &self.version);
            self.hooks.tell(&Event::Plugin { plugin, version, state, reason: reason.as_deref() });
        }
    }

    /// Turns to a state, if it is in one of those; else nothing happens, and it answers false. Where
    /// it is held for a switch and was in one of those before, that is what it goes back to.
    pub(super) fn turn_from(&self, from: &[State], to: State, reason: Option<String>) -> bool {
        let mut status = lock(&self.status);
        if from.contains(&status.state) {
            self.turn(&mut status, to, reason);
            drop(status);
            self.announce();
            return true;
        }
        let mut held = lock(&self.before_switch);
        let Some(held) = held.as_mut().filter(|held| from.contains(&held.state)) else {
            return false;
        };
        *held = Status { state: to, since: modunest_runtime::clock::now(), reason };
        true
    }

    /// How it does, seen from outside it; `None` where it is not loaded.
    pub fn vitals(&self) -> Option<Vitals> {
        let instance = self.instance.get()?;
        let mut vitals = instance.vitals();
        if let Loaded::Library(_) = instance {
            // Its calls are measured where they are made.
            vitals.cpu_ms = Some(self.meter.cpu_time().as_millis() as u64);
        }
        Some(vitals)
    }

    /// Another state: opens or shuts the gate with it, and wakes who waits for it.
    fn turn(&self, status: &mut Status, state: State, reason: Option<String>) {
        self.turn_back(status, Status { state, since: modunest_runtime::clock::now(), reason });
    }

    /// The same to a status that it had before.
    fn turn_back(&self, status: &mut Status, to: Status) {
        let state = to.state;
        *lock(&self.before_switch) = None;
        *status = to;
        self.gate.set_open(matches!(state, State::Ready | State::Unhealthy));
        // Whoever begins to wait holds the status meanwhile, as does whoever turns it.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.turned.notify_all();
        }
    }

    /// What it cannot be without and does not have any more, although it serves itself; `known` is
    /// what was found out of others.
    pub(crate) fn lacks(&self, known: &mut Lacks) -> Option<String> {
        let needed = self.manifest.dependencies.iter().filter(|one| !one.optional);
        let mut used = needed.filter_map(|one| self.dependency(&one.plugin));
        used.find_map(|used| {
            let trouble = match used.status().state {
                State::Failed | State::Blocked | State::Denied => used.trouble(),
                state if state.serves() => used.lacks_noted(known)?,
                _ => return None,
            };
            Some(format!("needs {} {}, which {trouble}", used.name, used.version))
        })
    }

    fn lacks_noted(&self, known: &mut Lacks) -> Option<String> {
        if let Some(lacks) = known.get(&self.name) {
            return lacks.clone();
        }
        let lacks = self.lacks(known);
        known.insert(self.name.clone(), lacks.clone());
        lacks
    }

    /// Whether it does all that it is there for, and where it stands, in words: one that lacks what
    /// it cannot be without does not. `known` is what was found out of others.
    pub(super) fn standing(&self, known: &mut Lacks) -> (bool, String) {
        let status = self.status();
        let is_unwell = matches!(status.state, State::Unhealthy | State::Restarting);
        let serves = status.state.serves() && !is_unwell;
        let lacks = serves.then(|| self.lacks(known)).flatten();
        let word = status.state.as_str();
        match (lacks, status.reason) {
            (Some(lacks), _) => (false, lacks),
            (None, Some(reason)) => (serves, format!("{word}: {reason}")),
            (None, None) => (serves, word.to_owned()),
        }
    }

    /// How the plugin's trouble reads behind "which".
    pub(super) fn trouble(&self) -> String {
        let status = self.status();
        let reason = status.reason.unwrap_or_default();
        match status.state {
            State::Blocked => reason,
            State::Failed => format!("failed: {reason}"),
            State::Denied => format!("is denied: {reason}"),
            other => format!("is {}", other.as_str()),
        }
    }
}
