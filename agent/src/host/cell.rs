//! One plugin of a host: its state, its instance, and the way in for every call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::manifest::{Manifest, PluginItem};
use modunest_core::name::PluginName;
use modunest_core::time::Timestamp;
use modunest_sdk::abi::{MAX_MESSAGE_BYTES, RequestKind};
use modunest_sdk::{Error, Hook};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::ask::ServiceAsk;
use super::frame::{self, DEPTH_MAX, Frame};
use super::{Call, Instance};

/// Calls from outside that one plugin serves at the same time. A plugin that hangs holds so
/// many threads and no more.
const CALLS_MAX: usize = 16;

/// Where a plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// What it needs is still loading, or no slot is free.
    Waiting,
    /// It is being loaded.
    Loading,
    /// It serves.
    Ready,
    /// It could not be loaded.
    Failed,
    /// Something that it needs could not be loaded.
    Blocked,
    /// It takes no more calls, and is being stopped.
    Stopping,
    /// It was stopped.
    Stopped,
}

impl State {
    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Loading => "loading",
            State::Ready => "ready",
            State::Failed => "failed",
            State::Blocked => "blocked",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        }
    }
}

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// When it came about.
    pub since: Timestamp,
    /// Why, for [`State::Failed`] and [`State::Blocked`].
    pub reason: Option<String>,
}

/// What a plugin did since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls that reached it.
    pub calls: u64,
    /// Of these, those that it could not answer: failed or panicked.
    pub errors: u64,
    /// Of these, those that panicked.
    pub panics: u64,
}

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
    imports: BTreeSet<PluginItem>,
    status: Mutex<Status>,
    instance: OnceLock<Box<dyn Instance>>,
    in_flight: Mutex<InFlight>,
    drained: Condvar,
    calls: AtomicU64,
    errors: AtomicU64,
    panics: AtomicU64,
    permits: Arc<Semaphore>,
}

/// What a [`Cell`] is made of.
pub(super) struct Parts {
    pub(super) identity: (Digest, Digest, Vec<u8>),
    pub(super) manifest: Manifest,
    pub(super) folder: PathBuf,
    pub(super) dependencies: BTreeMap<PluginName, Arc<Cell>>,
}

impl Cell {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { identity, manifest, folder, dependencies } = parts;
        Cell {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            identity,
            imports: manifest.imports.iter().cloned().collect(),
            assets: folder.to_string_lossy().into_owned(),
            manifest,
            folder,
            dependencies,
            status: Mutex::new(Status {
                state: State::Waiting,
                since: modunest_runtime::clock::now(),
                reason: None,
            }),
            instance: OnceLock::new(),
            in_flight: Mutex::default(),
            drained: Condvar::new(),
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(CALLS_MAX)),
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

    /// The same as text, as the plugin hears it.
    pub(super) fn assets(&self) -> &str {
        &self.assets
    }

    pub(super) fn config(&self) -> &[u8] {
        &self.identity.2
    }

    /// Whether the cell is of exactly this release, build and configuration, and uses
    /// exactly these instances.
    pub(super) fn is_same(&self, parts: &Parts) -> bool {
        self.identity == parts.identity
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
    pub fn counters(&self) -> Counters {
        Counters {
            calls: self.calls.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    /// Permits of calls from outside; they wait here, not on a thread.
    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    pub(super) fn set(&self, state: State, reason: Option<String>) {
        *lock(&self.status) = Status { state, since: modunest_runtime::clock::now(), reason };
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

    /// Takes the instance in and opens the plugin, unless its load was given up meanwhile.
    pub(super) fn open(&self, instance: Box<dyn Instance>) -> Result<(), Error> {
        let hook = instance.call(hook_call(Hook::BeforeLoad, &[]));
        accept_missing_hook(hook)?;
        let mut status = lock(&self.status);
        if status.state != State::Loading {
            drop(status);
            // Nobody waits for it any more.
            if let Err(error) = instance.stop() {
                tracing::warn!(plugin = %self.name, %error, "the plugin did not stop cleanly");
            }
            return Err(Error::DeadlineExceeded("the load was given up".to_owned()));
        }
        // The cell is new, so there is no instance yet.
        drop(self.instance.set(instance));
        *status =
            Status { state: State::Ready, since: modunest_runtime::clock::now(), reason: None };
        drop(status);
        self.tell(Hook::AfterLoad, &[]);
        Ok(())
    }

    /// Gives up a load that takes too long; false when it has ended already.
    pub(super) fn give_up(&self, reason: String) -> bool {
        let mut status = lock(&self.status);
        let given_up = status.state == State::Loading;
        if given_up {
            let since = modunest_runtime::clock::now();
            *status = Status { state: State::Failed, since, reason: Some(reason) };
        }
        given_up
    }

    /// Serves a call on this thread. The earlier of its deadline and the one of the call
    /// around it holds.
    ///
    /// # Errors
    /// What the plugin answered, or why it was not called.
    pub fn call(&self, call: Call<'_>) -> Result<Vec<u8>, Error> {
        let outer = frame::current();
        if outer.depth >= DEPTH_MAX {
            return Err(Error::Denied(format!(
                "calls from plugin to plugin are {DEPTH_MAX} deep at most"
            )));
        }
        if call.payload.len() > MAX_MESSAGE_BYTES {
            return Err(Error::InvalidInput(format!(
                "{} bytes are above the limit of {MAX_MESSAGE_BYTES}",
                call.payload.len()
            )));
        }
        let deadline_ms = frame::earlier(outer.deadline_ms, call.deadline_ms);
        if deadline_ms > 0 && modunest_runtime::clock::now().as_millis() >= deadline_ms {
            return Err(Error::DeadlineExceeded(format!("before {} was called", self.name)));
        }
        let trace = if call.trace.is_empty() { outer.trace } else { call.trace.to_owned() };
        let _running = self.enter()?;
        let Some(instance) = self.instance.get() else {
            return Err(Error::Unavailable(format!("{} is not loaded", self.name)));
        };
        self.calls.fetch_add(1, Ordering::Relaxed);
        let inner = Frame { depth: outer.depth + 1, deadline_ms, trace: trace.clone() };
        let answer =
            frame::within(inner, || instance.call(Call { deadline_ms, trace: &trace, ..call }));
        if let Err(error @ (Error::Failed(_) | Error::Panicked(_))) = &answer {
            self.errors.fetch_add(1, Ordering::Relaxed);
            if matches!(error, Error::Panicked(_)) {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
            tracing::warn!(plugin = %self.name, version = %self.version, target = call.target, %error, "a call of the plugin failed");
            self.tell(Hook::OnError, error.text().as_bytes());
        }
        answer
    }

    /// A call from one plugin to a service of another.
    pub(super) fn call_service(&self, ask: ServiceAsk<'_>) -> Result<Vec<u8>, Error> {
        let ServiceAsk { plugin, service, payload, trace, deadline_ms } = ask;
        let import = self
            .imports
            .iter()
            .find(|import| import.plugin.as_str() == plugin && import.item.as_str() == service)
            .ok_or_else(|| {
                Error::Denied(format!("{} does not import {service} of {plugin}", self.name))
            })?;
        let target = self.dependencies.get(&import.plugin).ok_or_else(|| {
            Error::Unavailable(format!("{plugin} is not among what {} may use here", self.name))
        })?;
        if !target.manifest.services.iter().any(|export| export.name == import.item) {
            return Err(Error::NotFound(format!(
                "{plugin} {} exports no service {service}",
                target.version
            )));
        }
        target.call(Call {
            kind: RequestKind::Service,
            target: service,
            payload,
            trace,
            caller: self.name.as_str(),
            deadline_ms,
        })
    }

    /// Asks the instance whether it can do its work.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn health(&self) -> Result<(), Error> {
        let _running = self.enter()?;
        match self.instance.get() {
            Some(instance) => instance.health(),
            None => Err(Error::Unavailable(format!("{} is not loaded", self.name))),
        }
    }

    /// Hooks, drain, `stop`. A plugin that is not ready is only marked.
    pub(super) fn stop(self: Arc<Self>, until: Instant) {
        if self.status().state != State::Ready {
            self.set(State::Stopped, self.status().reason);
            return;
        }
        let (done, waiting) = std::sync::mpsc::channel();
        let cell = self.clone();
        // A plugin may hang in a hook, so a thread of its own does this and may be left.
        let thread = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            cell.tell(Hook::BeforeUnload, &[]);
            cell.set(State::Stopping, None);
            cell.drain(until);
            if let Some(instance) = cell.instance.get() {
                cell.log_hook(Hook::AfterUnload, instance.call(hook_call(Hook::AfterUnload, &[])));
                if let Err(error) = instance.stop() {
                    tracing::warn!(plugin = %cell.name, %error, "the plugin did not stop cleanly");
                }
            }
            // Fails only when nobody waits any more.
            let _ = done.send(());
        });
        let left = until.saturating_duration_since(Instant::now());
        if thread.is_err() || waiting.recv_timeout(left).is_err() {
            tracing::warn!(plugin = %self.name, "the plugin did not stop in time and is left behind");
        }
        self.set(State::Stopped, None);
    }

    fn drain(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let mut calls = lock(&self.in_flight);
        calls.awaited = true;
        let waited = self.drained.wait_timeout_while(calls, left, |calls| calls.running > 0);
        let (calls, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if calls.running > 0 {
            tracing::warn!(plugin = %self.name, calls = calls.running, "calls did not end in time");
        }
    }

    /// Counts a call in, if the plugin takes calls.
    fn enter(&self) -> Result<Running<'_>, Error> {
        // The count rises while the status is locked, so that a drain sees every call.
        let status = lock(&self.status);
        if status.state != State::Ready {
            return Err(Error::Unavailable(format!(
                "{} is {}{}",
                self.name,
                status.state.as_str(),
                status.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"))
            )));
        }
        lock(&self.in_flight).running += 1;
        Ok(Running(self))
    }

    fn tell(&self, hook: Hook, payload: &[u8]) {
        if let Some(instance) = self.instance.get() {
            self.log_hook(hook, instance.call(hook_call(hook, payload)));
        }
    }

    fn log_hook(&self, hook: Hook, answer: Result<Vec<u8>, Error>) {
        if let Err(error) = accept_missing_hook(answer) {
            tracing::warn!(plugin = %self.name, hook = hook.name(), %error, "a hook failed");
        }
    }
}

/// A plugin in another language may know no hooks at all, or not a newer one.
fn accept_missing_hook(answer: Result<Vec<u8>, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) | Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn hook_call(hook: Hook, payload: &[u8]) -> Call<'_> {
    Call {
        kind: RequestKind::Lifecycle,
        target: hook.name(),
        payload,
        trace: "",
        caller: "",
        deadline_ms: 0,
    }
}

/// Calls that are being served.
#[derive(Debug, Default)]
struct InFlight {
    running: usize,
    /// Whether anybody waits for their end: only then is telling worth a system call.
    awaited: bool,
}

struct Running<'c>(&'c Cell);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut calls = lock(&self.0.in_flight);
        calls.running -= 1;
        if calls.running == 0 && calls.awaited {
            self.0.drained.notify_all();
        }
    }
}

/// What these locks hold is never left half-changed, so a panic while one was held spoils
/// nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
