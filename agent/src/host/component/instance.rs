//! A plugin that is a component.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use modunest_sdk::abi::{MAX_ERROR_TEXT_BYTES, MAX_MESSAGE_BYTES, OwnedBuffer, RequestKind};
use modunest_sdk::{Error, Hook};
use serde::{Deserialize, Serialize};
use wasmtime::{Store, Trap, UpdateDeadline};
use zeroize::Zeroizing;

use super::bindings::Plugin;
use super::bindings::modunest::plugin::types;
use super::imports::{Assets, State};
use super::limits::Limits;
use super::{Compiled, room};
use crate::host::side::HostSide;
use crate::host::{Call, Instance, LoadError, Tier, Vitals};

/// What an operator says of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Memory that each of its stores may take, in bytes.
    pub(crate) memory_max_bytes: u64,
    /// Stores that serve calls at the same time.
    pub(crate) stores: usize,
    /// How long making the plugin may take.
    pub(crate) load_timeout: Duration,
    /// How long a call without a deadline may take.
    pub(crate) call_timeout: Duration,
}

/// A running component.
pub(crate) struct ComponentInstance {
    /// Tells it apart in chains of calls.
    number: u64,
    settings: Settings,
    /// With its secrets, so it is overwritten at the end.
    config: Zeroizing<Vec<u8>>,
    side: Arc<dyn HostSide>,
    assets: Arc<Assets>,
    /// Stores that serve no call now; `None` for one that trapped.
    idle: Mutex<Vec<Option<Running>>>,
    returned: Condvar,
    /// Who waits for a store: only then is telling worth a system call. Changed with `idle` held.
    waiting: AtomicUsize,
    memory_bytes: Arc<AtomicU64>,
    last_trap: Mutex<Option<String>>,
    /// Behind the stores, which are gone before their places are another plugin's.
    compiled: Compiled,
}

struct Running {
    store: Store<State>,
    plugin: Plugin,
}

/// The clock has passed the call's deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
struct Expired;

impl ComponentInstance {
    /// Makes the plugin: each store's memory, then `create`.
    ///
    /// # Errors
    /// Why it does not start.
    pub(crate) fn start(
        compiled: Compiled,
        settings: Settings,
        config: &[u8],
        side: Arc<dyn HostSide>,
        assets: Arc<Assets>,
    ) -> Result<Self, LoadError> {
        let instance = ComponentInstance {
            number: room::number(),
            settings,
            config: Zeroizing::new(config.to_vec()),
            side,
            assets,
            idle: Mutex::default(),
            returned: Condvar::new(),
            waiting: AtomicUsize::new(0),
            memory_bytes: Arc::default(),
            last_trap: Mutex::default(),
            compiled,
        };
        for _ in 0..settings.stores.max(1) {
            let made = room::within(instance.number, || instance.make());
            let running = made.map_err(LoadError::Start)?;
            lock(&instance.idle).push(Some(running));
        }
        Ok(instance)
    }

    /// Bytes of memory that its stores have taken.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Whether no call is being served.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.idle).len() == self.settings.stores
    }

    /// Makes a store with the plugin in it.
    fn make(&self) -> Result<Running, Error> {
        let state = State {
            side: self.side.clone(),
            assets: self.assets.clone(),
            limits: Limits::new(self.settings.memory_max_bytes, self.memory_bytes.clone()),
            deadline_ms: after(self.settings.load_timeout),
            last_words: None,
        };
        let _running = self.compiled.runtime.enter();
        let mut store = Store::new(self.compiled.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|store| {
            if now_ms() >= store.data().deadline_ms {
                return Err(wasmtime::Error::new(Expired));
            }
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_epoch_deadline(1);
        let made = self.compiled.pre.instantiate(&mut store);
        let plugin = made.map_err(|error| self.trapped(store.data(), &error))?;
        let created = plugin.modunest_plugin_instance().call_create(&mut store, &self.config);
        match created {
            Ok(created) => created.map_err(|failure| error_of(&failure))?,
            Err(error) => return Err(self.trapped(store.data(), &error)),
        }
        Ok(Running { store, plugin })
    }

    /// Makes the plugin anew behind a trap.
    fn make_anew(&self) -> Result<Running, Error> {
        let reason = lock(&self.last_trap).clone().unwrap_or_default();
        self.side.remade(&reason);
        let unavailable = |error: Error| {
            Error::Unavailable(format!("it trapped, and could not be started anew: {error}"))
        };
        let mut running = self.make().map_err(unavailable)?;
        let hook = Call {
            kind: RequestKind::Lifecycle,
            target: Hook::BeforeLoad.name(),
            payload: &[],
            trace: "",
            caller: "",
            deadline_ms: after(self.settings.load_timeout),
        };
        match self.run(&mut running, hook.deadline_ms, |running| call(running, hook)) {
            Ran::Answered(Ok(_) | Err(Error::Unsupported(_))) => Ok(running),
            Ran::Answered(Err(error)) | Ran::Trapped(error) => Err(unavailable(error)),
        }
    }

    /// Runs a function of the plugin, in its turn.
    fn ask(
        &self,
        deadline_ms: u64,
        run: impl FnOnce(&mut Running) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> + Send,
    ) -> Result<Vec<u8>, Error> {
        let deadline_ms =
            if deadline_ms > 0 { deadline_ms } else { after(self.settings.call_timeout) };
        if self.settings.stores <= 1 {
            room::refuse_return(self.number)?;
        }
        let mut turn = self.turn(deadline_ms)?;
        room::within(self.number, || {
            let mut running = match turn.store.take() {
                Some(running) => running,
                None => self.make_anew()?,
            };
            match self.run(&mut running, deadline_ms, run) {
                Ran::Answered(answer) => {
                    turn.store = Some(running);
                    answer
                }
                Ran::Trapped(error) => Err(error),
            }
        })
    }

    /// Waits for a store that serves no call.
    fn turn(&self, deadline_ms: u64) -> Result<Turn<'_>, Error> {
        let mut idle = lock(&self.idle);
        loop {
            if let Some(store) = idle.pop() {
                return Ok(Turn { instance: self, store });
            }
            let left = deadline_ms.saturating_sub(now_ms());
            if left == 0 {
                return Err(Error::DeadlineExceeded("while it waited for its turn".to_owned()));
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let waited = self.returned.wait_timeout(idle, Duration::from_millis(left));
            idle = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn run(
        &self,
        running: &mut Running,
        deadline_ms: u64,
        run: impl FnOnce(&mut Running) -> wasmtime::Result<Result<Vec<u8>, types::Failure>>,
    ) -> Ran {
        let _counted = self.compiled.runtime.enter();
        running.store.data_mut().deadline_ms = deadline_ms;
        running.store.set_epoch_deadline(1);
        match run(running) {
            Ok(Ok(answer)) if answer.len() > MAX_MESSAGE_BYTES => {
                Ran::Answered(Err(Error::Failed(format!(
                    "an answer of {} bytes is above the limit of {MAX_MESSAGE_BYTES}",
                    answer.len()
                ))))
            }
            Ok(answer) => Ran::Answered(answer.map_err(|failure| error_of(&failure))),
            Err(error) => Ran::Trapped(self.trapped(running.store.data(), &error)),
        }
    }

    /// What a trap means to the caller.
    fn trapped(&self, state: &State, error: &wasmtime::Error) -> Error {
        let mut text = match (&state.last_words, error.downcast_ref::<Trap>()) {
            _ if error.is::<Expired>() => "it did not end in time".to_owned(),
            (Some(words), _) => words.clone(),
            (None, Some(Trap::StackOverflow)) => "its calls nest too deep for its stack".to_owned(),
            (None, Some(trap)) => trap.to_string(),
            (None, None) => format!("{error:#}"),
        };
        if state.limits.reached {
            text.push_str(&format!(
                "; it asked for more than the {} bytes of memory that it may have",
                state.limits.memory_max_bytes()
            ));
        }
        tracing::debug!(error = %format!("{error:#}"), "a component trapped");
        *lock(&self.last_trap) = Some(text.clone());
        if error.is::<Expired>() {
            Error::DeadlineExceeded(text)
        } else if error.is::<Trap>() {
            Error::Panicked(text)
        } else {
            Error::Failed(text)
        }
    }
}

/// What came of a function of the plugin.
enum Ran {
    /// It ended, and the store can be used again.
    Answered(Result<Vec<u8>, Error>),
    /// It did not.
    Trapped(Error),
}

/// A store that is out for a call. It goes back whatever happens, without its plugin if that
/// trapped.
struct Turn<'i> {
    instance: &'i ComponentInstance,
    store: Option<Running>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut idle = lock(&self.instance.idle);
        idle.push(self.store.take());
        let is_awaited = self.instance.waiting.load(Ordering::Relaxed) > 0;
        drop(idle);
        if is_awaited {
            self.instance.returned.notify_one();
        }
    }
}

fn call(
    running: &mut Running,
    call: Call<'_>,
) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
    let request = types::Request {
        kind: call.kind as u32,
        target: call.target,
        payload: call.payload,
        trace: call.trace,
        caller: call.caller,
        deadline_ms: call.deadline_ms,
    };
    running.plugin.modunest_plugin_instance().call_call(&mut running.store, request)
}

fn error_of(failure: &types::Failure) -> Error {
    let text = &failure.text[..failure.text.floor_char_boundary(MAX_ERROR_TEXT_BYTES)];
    Error::from_status(failure.status, text)
        .unwrap_or_else(|| Error::Failed(format!("it failed without a status: {text}")))
}

fn now_ms() -> u64 {
    modunest_runtime::clock::now().as_millis()
}

fn after(timeout: Duration) -> u64 {
    now_ms().saturating_add(timeout.as_millis() as u64)
}

/// What these locks hold is never left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance for ComponentInstance {
    fn vitals(&self) -> Vitals {
        Vitals {
            tier: Tier::Component,
            resident_bytes: Some(self.memory_bytes.load(Ordering::Relaxed)),
            confined: true,
            ..Vitals::in_process()
        }
    }

    fn call(&self, request: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.ask(request.deadline_ms, |running| call(running, request)).map(OwnedBuffer::from)
    }

    fn health(&self) -> Result<(), Error> {
        let health = |running: &mut Running| {
            let answer = running.plugin.modunest_plugin_instance().call_health(&mut running.store);
            answer.map(|answer| answer.map(|()| Vec::new()))
        };
        self.ask(0, health).map(drop)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        self.ask(0, |running| {
            running.plugin.modunest_plugin_instance().call_snapshot(&mut running.store)
        })
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let restore = |running: &mut Running| {
            let plugin = running.plugin.modunest_plugin_instance();
            let answer = plugin.call_restore(&mut running.store, snapshot);
            answer.map(|answer| answer.map(|()| Vec::new()))
        };
        self.ask(0, restore).map(drop)
    }

    fn stop(&self) -> Result<(), Error> {
        let stop = |running: &mut Running| {
            let answer = running.plugin.modunest_plugin_instance().call_stop(&mut running.store);
            answer.map(|answer| answer.map(|()| Vec::new()))
        };
        self.ask(0, stop).map(drop)
    }
}
