//! A runner through its lives: started with its first plugin, started again when it crashes,
//! given up when it crashes too often, ended with its last plugin.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use modunest_core::name::PluginName;
use modunest_sdk::Error;

use super::super::native::LoadError;
use super::super::{Cell, State, Unserved};
use super::backoff::{Backoff, Decision};
use super::child::{Child, lock};
use super::death::Crash;
use super::reactor::reactor;
use crate::config::{HostSettings, ProcessSettings};
use crate::runner::channel::Broken;
use crate::runner::setup::Load;
use crate::runner::wire::{Body, Kind, Message, NOT_LOADED};
use crate::sandbox::SandboxPolicy;
use crate::secrets::OpenConfig;

/// How long a plugin may take to be freed.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(5);

/// One runner, whatever process it has just now.
pub(super) struct Runner {
    name: String,
    policy: SandboxPolicy,
    settings: ProcessSettings,
    call_timeout: Duration,
    state: Mutex<Lives>,
    turned: Condvar,
}

struct Lives {
    phase: Phase,
    members: BTreeMap<u32, Arc<Member>>,
    next: u32,
    backoff: Backoff,
    restarts: u64,
    last_crash: Option<Crash>,
    /// Whether the process is not started again, whatever ends it.
    is_over: bool,
}

/// A plugin of a runner, with what it takes to load it again, but for its configuration: that is
/// opened for each load, since it may hold secrets.
pub(super) struct Member {
    number: u32,
    cell: Weak<Cell>,
    plugin: PluginName,
    file: OwnedFd,
    load: Load,
}

enum Phase {
    /// There is no process, and none is needed.
    Down,
    /// A thread starts one.
    Starting,
    /// It serves.
    Up(Arc<Child>),
    /// It crashed, and is started again after a pause.
    Pausing,
    /// It crashed too often.
    Failed,
}

/// What is known of a runner.
pub(super) struct Seen {
    pub(super) pid: Option<u32>,
    pub(super) restarts: u64,
    pub(super) last_crash: Option<Crash>,
    pub(super) confined: bool,
    pub(super) control_group: bool,
}

impl Runner {
    /// A runner without a process. `policy` is for all plugins that it will ever load.
    pub(super) fn new(name: String, policy: SandboxPolicy, settings: &HostSettings) -> Arc<Runner> {
        Arc::new(Runner {
            name,
            policy,
            settings: settings.process.clone(),
            call_timeout: settings.call_timeout,
            state: Mutex::new(Lives {
                phase: Phase::Down,
                members: BTreeMap::new(),
                next: 1,
                backoff: Backoff::default(),
                restarts: 0,
                last_crash: None,
                is_over: false,
            }),
            turned: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, Lives> {
        lock(&self.state)
    }

    /// The longest that a call without a deadline may take.
    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Loads a plugin, in the process that is there or in a new one. Blocks.
    pub(super) fn join(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        file: OwnedFd,
        load: Load,
        config: &OpenConfig,
    ) -> Result<u32, LoadError> {
        let until = Instant::now() + cell.load_timeout();
        let (child, number) = self.process_for_new(until).map_err(LoadError::Process)?;
        let plugin = cell.name().clone();
        let member = Arc::new(Member { number, cell: Arc::downgrade(cell), plugin, file, load });
        // From the first on, so that what its threads ask finds it.
        self.state().members.insert(number, member.clone());
        let loaded = load_into(&child, &member, cell, config, until);
        if let Err(error) = loaded {
            self.leave(number);
            return Err(error);
        }
        Ok(number)
    }

    /// The process, started if there is none, and a number for a new plugin in it.
    fn process_for_new(self: &Arc<Self>, until: Instant) -> Result<(Arc<Child>, u32), String> {
        let mut state = self.state();
        loop {
            match &state.phase {
                Phase::Up(child) => {
                    let child = child.clone();
                    let number = state.next;
                    state.next += 1;
                    return Ok((child, number));
                }
                Phase::Failed => return Err(self.why(&state)),
                Phase::Down => break,
                Phase::Starting | Phase::Pausing => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err("did not start in time".to_owned());
                    }
                    let waited = self.turned.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        (state.phase, state.is_over) = (Phase::Starting, false);
        drop(state);
        let started = Child::start(self, &self.name, &self.policy, &self.settings, until);
        let mut state = self.state();
        let outcome = match started {
            Ok(child) => {
                state.phase = Phase::Up(child.clone());
                let number = state.next;
                state.next += 1;
                Ok((child, number))
            }
            Err(reason) => {
                state.phase = Phase::Down;
                Err(reason)
            }
        };
        drop(state);
        self.turned.notify_all();
        // It may have ended between its start and this, when nobody would have been told.
        if let Ok((child, _)) = &outcome
            && child.has_ended()
        {
            self.died(child, child.end());
        }
        outcome
    }

    /// Frees a plugin's place; the process ends with the last.
    pub(super) fn leave(&self, number: u32) {
        let mut state = self.state();
        let is_member = state.members.remove(&number).is_some();
        if !is_member || !state.members.is_empty() {
            return;
        }
        let phase = std::mem::replace(&mut state.phase, Phase::Down);
        drop(state);
        if let Phase::Up(child) = phase {
            child.kill("its plugins were stopped");
        }
    }

    /// Frees a plugin in its process, and then its place.
    pub(super) fn destroy(&self, number: u32, cell: &Arc<Cell>) {
        if let Ok(child) = self.child() {
            let request = Message::new(Kind::Destroy, number, Body::Inline(&[]));
            let freed = child.request(&request, cell, Instant::now() + DESTROY_TIMEOUT);
            if let Err(error) = freed.map_err(Unserved::into_error) {
                tracing::debug!(plugin = %cell.name(), %error, "the plugin was not freed");
            }
        }
        self.leave(number);
    }

    /// The process that serves.
    pub(super) fn child(&self) -> Result<Arc<Child>, Error> {
        let state = self.state();
        match &state.phase {
            Phase::Up(child) => Ok(child.clone()),
            Phase::Down => Err(Error::Unavailable("the plugin was stopped".to_owned())),
            _ => Err(Error::Unavailable(format!("the plugin's process {}", self.why(&state)))),
        }
    }

    fn why(&self, state: &Lives) -> String {
        let crash = state.last_crash.as_ref().map_or_else(String::new, Crash::text);
        match state.phase {
            Phase::Failed if state.is_over => format!("{crash}; it is not started again"),
            Phase::Failed => {
                let times = match state.restarts + 1 {
                    1 => "once".to_owned(),
                    crashes => format!("{crashes} times"),
                };
                format!("crashed {times} and is not started again: it {crash}")
            }
            Phase::Pausing => format!("{crash}; it is started again soon"),
            _ => "is starting".to_owned(),
        }
    }

    /// The plugin with a number, while it may ask.
    pub(super) fn cell(&self, number: u32) -> Option<Arc<Cell>> {
        self.state().members.get(&number)?.cell.upgrade()
    }

    pub(super) fn seen(&self) -> Seen {
        let state = self.state();
        let child = match &state.phase {
            Phase::Up(child) => Some(child),
            _ => None,
        };
        Seen {
            pid: child.map(|child| child.pid),
            restarts: state.restarts,
            last_crash: state.last_crash.clone(),
            confined: child.is_some_and(|child| child.enforced.is_whole()),
            control_group: child.is_some_and(|child| child.has_group()),
        }
    }

    /// Ends the process, as if it had crashed.
    pub(super) fn restart(&self, reason: &str) -> Result<(), Error> {
        self.child()?.kill(reason);
        Ok(())
    }

    /// Ends the process, if there is one, and starts none again. Answers whether there was one.
    pub(super) fn end(&self, reason: &str) -> bool {
        let mut state = self.state();
        let Phase::Up(child) = &state.phase else { return false };
        child.kill(reason);
        state.is_over = true;
        true
    }

    /// Notes that a process has ended, and decides what follows. Called by the reactor.
    pub(super) fn died(self: &Arc<Self>, child: &Child, crash: Crash) {
        let mut state = self.state();
        let is_current =
            matches!(&state.phase, Phase::Up(current) if std::ptr::eq(&raw const **current, child));
        if !is_current {
            return;
        }
        if state.members.is_empty() {
            state.phase = Phase::Down;
            drop(state);
            self.turned.notify_all();
            return;
        }
        self.after_crash(state, crash);
    }

    fn after_crash(self: &Arc<Self>, mut state: MutexGuard<'_, Lives>, crash: Crash) {
        let text = crash.text();
        state.last_crash = Some(crash);
        let decision = match state.is_over {
            true => Decision::GiveUp,
            false => state.backoff.crashed(Instant::now(), &self.settings.restarts),
        };
        state.phase = match decision {
            Decision::Restart(_) => Phase::Pausing,
            Decision::GiveUp => Phase::Failed,
        };
        let why = self.why(&state);
        let members: Vec<Arc<Member>> = state.members.values().cloned().collect();
        drop(state);
        self.turned.notify_all();
        for cell in members.iter().filter_map(|member| member.cell.upgrade()) {
            match decision {
                Decision::Restart(_) => {
                    let reason = format!("its process {text}");
                    let from = [State::Ready, State::Unhealthy];
                    cell.turn_from(&from, State::Restarting, Some(reason));
                }
                Decision::GiveUp => {
                    // Whatever it was about to do, and also what is only kept to go back to.
                    let from = [
                        State::Ready,
                        State::Unhealthy,
                        State::Restarting,
                        State::Switching,
                        State::Standby,
                    ];
                    cell.turn_from(&from, State::Failed, Some(format!("its process {why}")));
                }
            }
        }
        match decision {
            Decision::Restart(pause) => {
                tracing::warn!(runner = %self.name, reason = %text, pause_ms = pause.as_millis() as u64, "a plugin's process ended; it is started again");
                let runner = Arc::downgrade(self);
                let again = Box::new(move || start_again(&runner));
                match reactor() {
                    Ok(reactor) => reactor.at(Instant::now() + pause, again),
                    Err(error) => tracing::error!(%error, "nobody starts it again"),
                }
            }
            Decision::GiveUp => {
                tracing::error!(runner = %self.name, reason = %text, "a plugin's process ended and is not started again");
            }
        }
    }

    /// Starts a process after a crash, and loads into it what was loaded.
    fn revive(self: &Arc<Self>) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Pausing) {
            return;
        }
        if state.members.is_empty() {
            state.phase = Phase::Down;
            drop(state);
            self.turned.notify_all();
            return;
        }
        state.phase = Phase::Starting;
        let members: Vec<Arc<Member>> = state.members.values().cloned().collect();
        drop(state);
        // The process may take as long as the slowest of its plugins, and each of them, whose turns
        // come one after the other, as long as its own load.
        let cells = members.iter().filter_map(|member| member.cell.upgrade());
        let longest = cells.map(|cell| cell.load_timeout()).max().unwrap_or_default();
        let until = Instant::now() + longest;
        let revived =
            Child::start(self, &self.name, &self.policy, &self.settings, until).and_then(|child| {
                for member in &members {
                    let Some(cell) = member.cell.upgrade() else { continue };
                    if let Err(reason) = load_again(&child, member, &cell) {
                        child.kill("it did not start again");
                        return Err(format!("did not start again: {}: {reason}", member.plugin));
                    }
                }
                Ok(child)
            });
        let mut state = self.state();
        state.restarts += 1;
        let child = match revived {
            Ok(child) => child,
            Err(reason) => {
                let at = modunest_runtime::clock::now();
                let last_words = String::new();
                return self.after_crash(state, Crash { at, reason, last_words });
            }
        };
        if state.members.is_empty() {
            state.phase = Phase::Down;
            drop(state);
            child.kill("its plugins were stopped");
            self.turned.notify_all();
            return;
        }
        state.phase = Phase::Up(child.clone());
        drop(state);
        self.turned.notify_all();
        for cell in members.iter().filter_map(|member| member.cell.upgrade()) {
            cell.resumed();
        }
        tracing::info!(runner = %self.name, pid = child.pid, "a plugin's process runs again");
        if child.has_ended() {
            self.died(&child, child.end());
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Up(child) = &state.phase {
            child.kill("its plugins are gone");
        }
    }
}

/// On a thread of its own: a start takes as long as its plugin wants.
fn start_again(runner: &Weak<Runner>) {
    let Some(runner) = runner.upgrade() else { return };
    let name = runner.name.clone();
    let thread = std::thread::Builder::new().name("restart".to_owned());
    if let Err(error) = thread.spawn(move || runner.revive()) {
        tracing::error!(runner = %name, %error, "no thread can be started for a restart");
    }
}

/// Loads a plugin into a process that was started in the place of another one.
///
/// # Errors
/// Why it is not loaded, without the secrets of its configuration.
fn load_again(child: &Arc<Child>, member: &Member, cell: &Arc<Cell>) -> Result<(), String> {
    let until = Instant::now() + cell.load_timeout();
    let config = cell.config().map_err(|error| error.to_string())?;
    load_into(child, member, cell, &config, until)
        .map_err(|error| error.scrubbed(&config).to_string())?;
    before_load(child, member, cell, until).map_err(|reason| config.scrub(&reason))
}

fn load_into(
    child: &Arc<Child>,
    member: &Member,
    cell: &Arc<Cell>,
    config: &OpenConfig,
    until: Instant,
) -> Result<(), LoadError> {
    let cannot =
        |error: String| LoadError::Process(format!("cannot be told what to load: {error}"));
    match child.send_file(member.number, &member.file) {
        Ok(()) => {}
        Err(Broken::Closed) => return Err(LoadError::Process(child.end().text())),
        Err(broken) => return Err(cannot(broken.to_string())),
    }
    let how = member.load.message(config).map_err(|error| cannot(error.to_string()))?;
    let request = Message::new(Kind::Load, member.number, Body::Inline(&how));
    let outcome = match child.request(&request, cell, until).map_err(Unserved::into_error) {
        Ok(outcome) => outcome,
        Err(Error::Unavailable(text)) => {
            let text = text.strip_prefix("the plugin's process ").unwrap_or(&text).to_owned();
            return Err(LoadError::Process(text));
        }
        Err(error) => {
            // Its constructors or its `create` may run for ever.
            child.kill("it did not load in time");
            return Err(match error {
                Error::DeadlineExceeded(_) => LoadError::Late(cell.load_timeout().as_millis()),
                other => LoadError::Start(other),
            });
        }
    };
    if outcome.code == NOT_LOADED {
        return Err(LoadError::Refused(String::from_utf8_lossy(&outcome.body).into_owned()));
    }
    outcome.answer().map(drop).map_err(LoadError::Start)
}

fn before_load(
    child: &Arc<Child>,
    member: &Member,
    cell: &Arc<Cell>,
    until: Instant,
) -> Result<(), String> {
    let request = Message {
        code: modunest_sdk::abi::RequestKind::Lifecycle as u32,
        texts: [modunest_sdk::Hook::BeforeLoad.name(), "", ""],
        ..Message::new(Kind::Call, member.number, Body::Inline(&[]))
    };
    let told = child.request(&request, cell, until).map_err(Unserved::into_error);
    match told.and_then(super::lane::Outcome::answer) {
        Ok(_) | Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
