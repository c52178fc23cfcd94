//! A plugin that is a component.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use modunest_core::name::PluginName;
use modunest_sdk::abi::{MAX_ERROR_TEXT_BYTES, MAX_MESSAGE_BYTES, OwnedBuffer, RequestKind};
use modunest_sdk::{Error, Hook};
use serde::{Deserialize, Serialize};
use wasmtime::{Store, Trap, UpdateDeadline};
use zeroize::Zeroizing;

use super::Compiled;
use super::bindings::Plugin;
use super::bindings::modunest::plugin::types;
use super::deadline::{Deadline, Expired, until};
use super::engine::Serves;
use super::imports::{Assets, State};
use super::limits::Limits;
use super::turns::{Turn, Turns};
use crate::config::HostSettings;
use crate::host::drive::{self, Serving, block_on};
use crate::host::side::HostSide;
use crate::host::{Call, Instance, LoadError, Tier, Unserved, Vitals, frame};
use crate::metrics::cpu::{self, Sampler, Used};

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

impl Settings {
    /// What is said of this plugin, which has so long to load.
    pub(in crate::host) fn of(
        plugin: &PluginName,
        load_timeout: Duration,
        settings: &HostSettings,
    ) -> Self {
        Settings {
            memory_max_bytes: settings.component.memory_max_bytes,
            stores: settings.component.stores_of(plugin),
            load_timeout,
            call_timeout: settings.call_timeout,
        }
    }
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
    stores: Stores,
    memory_bytes: Arc<AtomicU64>,
    cpu_ns: AtomicU64,
    last_trap: Mutex<Option<String>>,
    /// Behind the stores, which are gone before their places are another plugin's.
    compiled: Compiled,
}

/// Where a store is; `None` where it trapped.
type Place = Option<Box<Running>>;

/// The stores of an instance, which are gone when this is, whoever looks at them just then.
#[derive(Default)]
struct Stores(Arc<Turns<Place>>);

impl Drop for Stores {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Serves for Turns<Place> {
    fn is_serving(&self) -> bool {
        self.are_taken()
    }
}

struct Running {
    store: Store<State>,
    plugin: Plugin,
    sampler: Sampler,
}

/// A function of a plugin, and what it is called with.
enum Ask<'a> {
    Call(Call<'a>),
    Health,
    Snapshot,
    Restore(&'a [u8]),
    Stop,
}

/// A number for a new instance.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Refuses a call into an instance that waits for the end of this very call: with one store, it
/// would wait for itself.
///
/// # Errors
/// [`Error::Denied`] where that is so.
pub(super) fn refuse_return(instance: u64) -> Result<(), Error> {
    if frame::goes_through(instance) {
        return Err(Error::Denied(
            "the plugin is serving this very chain of calls, and a component serves one call at a time".to_owned(),
        ));
    }
    Ok(())
}

/// What a caller hears whose turn did not come until the deadline.
pub(super) fn no_turn() -> Error {
    Error::DeadlineExceeded("while it waited for its turn".to_owned())
}

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
            number: number(),
            settings,
            config: Zeroizing::new(config.to_vec()),
            side,
            assets,
            stores: Stores::default(),
            memory_bytes: Arc::default(),
            cpu_ns: AtomicU64::new(0),
            last_trap: Mutex::default(),
            compiled,
        };
        for _ in 0..settings.stores.max(1) {
            let (made, _) = block_on(instance.serving(Some(1), instance.make()));
            let running = made.map_err(LoadError::Start)?;
            instance.stores.0.add(Some(running));
        }
        instance.compiled.runtime.serves(&instance.stores.0);
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
        self.stores.0.free() == self.settings.stores
    }

    /// Makes a store with the plugin in it.
    async fn make(&self) -> Result<Box<Running>, Error> {
        let mut deadline = Deadline::Within(self.settings.load_timeout);
        let state = State {
            side: self.side.clone(),
            assets: self.assets.clone(),
            limits: Limits::new(self.settings.memory_max_bytes, self.memory_bytes.clone()),
            deadline,
            last_words: None,
        };
        let _counted = self.compiled.runtime.enter();
        let mut store = Store::new(self.compiled.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| {
            if store.data_mut().deadline.has_passed() {
                return Err(wasmtime::Error::new(Expired));
            }
            drive::computes();
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        let made = until(self.compiled.runtime, &mut deadline, async {
            let plugin = self.compiled.pre.instantiate_async(&mut store).await?;
            let instance = plugin.modunest_plugin_instance();
            let created = instance.call_create(&mut store, &self.config).await?;
            wasmtime::Result::Ok((plugin, created))
        });
        match made.await.unwrap_or_else(|expired| Err(wasmtime::Error::new(expired))) {
            Ok((plugin, created)) => {
                created.map_err(|failure| error_of(&failure))?;
                Ok(Box::new(Running { store, plugin, sampler: Sampler::default() }))
            }
            Err(error) => Err(self.trapped(store.data(), &error)),
        }
    }

    /// Makes the plugin anew behind a trap.
    async fn make_anew(&self) -> Result<Box<Running>, Error> {
        let reason = lock(&self.last_trap).take();
        let reason = reason.as_deref().unwrap_or("a call of it was left before its end");
        self.side.remade(reason);
        let unavailable = |error: Error| {
            Error::Unavailable(format!("it trapped, and could not be started anew: {error}"))
        };
        let mut running = self.make().await.map_err(unavailable)?;
        let mut deadline = Deadline::Within(self.settings.load_timeout);
        let hook = Call {
            kind: RequestKind::Lifecycle,
            target: Hook::BeforeLoad.name(),
            payload: &[],
            trace: "",
            caller: "",
            deadline_ms: deadline.at_ms(),
        };
        match self.run(&mut running, deadline, &Ask::Call(hook)).await {
            Ran::Answered(Ok(_) | Err(Error::Unsupported(_))) => Ok(running),
            Ran::Answered(Err(error)) | Ran::Trapped(error) => Err(unavailable(error)),
        }
    }

    /// Runs a function of the plugin, in its turn.
    async fn serve(&self, deadline_ms: u64, ask: Ask<'_>) -> Result<Vec<u8>, Unserved> {
        let mut deadline = Deadline::of(deadline_ms, self.settings.call_timeout);
        if self.settings.stores <= 1 {
            refuse_return(self.number).map_err(Unserved::Failed)?;
        }
        // What is rare has a place of its own, and what is pinned is not moved again: a call would
        // move kilobytes otherwise.
        let mut turn = match self.stores.0.take_now() {
            Some(turn) => turn,
            None => Box::pin(self.turn(&mut deadline)).await.map_err(Unserved::Refused)?,
        };
        self.compiled.runtime.wake();
        // One that is made anew is measured, as it was when it was made.
        let stands_for = turn.place.as_mut().map_or(Some(1), |running| running.sampler.take(1));
        let (answer, used) = {
            let served = pin!(async {
                let mut running = match turn.place.take() {
                    Some(running) => running,
                    None => {
                        // Whoever calls waits for that as well.
                        deadline.at_ms();
                        Box::pin(self.make_anew()).await?
                    }
                };
                match self.run(&mut running, deadline, &ask).await {
                    Ran::Answered(answer) => {
                        turn.place = Some(running);
                        answer
                    }
                    Ran::Trapped(error) => Err(error),
                }
            });
            self.serving(stands_for, served).await
        };
        if let (Some(used), Some(running)) = (used, turn.place.as_mut()) {
            running.sampler.note(used);
        }
        answer.map_err(Unserved::Failed)
    }

    /// Serves in its own name: the chain of calls goes through it meanwhile, and what is used of
    /// the processor is its own. Where it is measured, it stands for so many calls, and the answer
    /// says what it came to. One that had more to compute than an epoch is measured from there on,
    /// whether it is one of these or not, and stands for itself.
    async fn serving<T>(
        &self,
        stands_for: Option<u64>,
        future: impl Future<Output = T>,
    ) -> (T, Option<Used>) {
        let mut future = pin!(future);
        let (mut computes, mut whole) = (false, stands_for.map(|_| Used::default()));
        poll_fn(|context| {
            let poll = || frame::through(self.number, || future.as_mut().poll(context));
            let poll = || drive::computing(poll);
            let is_rest = computes;
            let (polled, goes_on) = match if is_rest { Some(1) } else { stands_for } {
                None => cpu::aside(poll),
                Some(calls) => {
                    let (polled, used) = cpu::measured(poll);
                    self.cpu_ns.fetch_add(used.ns * calls, Ordering::Relaxed);
                    if !is_rest {
                        whole = whole.map(|whole| whole.and(used));
                    }
                    polled
                }
            };
            computes = goes_on;
            polled.map(|out| (out, whole))
        })
        .await
    }

    /// Waits for a store that serves no call.
    async fn turn(&self, deadline: &mut Deadline) -> Result<Turn<'_, Place>, Error> {
        let waited = frame::while_awaited(self.stores.0.take());
        let turn = until(self.compiled.runtime, deadline, waited).await;
        turn.map_err(|Expired| no_turn())?
    }

    async fn run(&self, running: &mut Running, mut deadline: Deadline, ask: &Ask<'_>) -> Ran {
        running.store.data_mut().deadline = deadline;
        running.store.set_epoch_deadline(1);
        let answered = {
            let performed = pin!(perform(running, ask));
            until(self.compiled.runtime, &mut deadline, performed).await
        };
        match answered.unwrap_or_else(|expired| Err(wasmtime::Error::new(expired))) {
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

async fn perform(
    running: &mut Running,
    ask: &Ask<'_>,
) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
    let Running { store, plugin, .. } = running;
    let plugin = plugin.modunest_plugin_instance();
    let nothing = |answer: Result<(), types::Failure>| answer.map(|()| Vec::new());
    match *ask {
        Ask::Call(call) => {
            let request = types::Request {
                kind: call.kind as u32,
                target: call.target,
                payload: call.payload,
                trace: call.trace,
                caller: call.caller,
                deadline_ms: call.deadline_ms,
            };
            plugin.call_call(store, request).await
        }
        Ask::Health => plugin.call_health(store).await.map(nothing),
        Ask::Snapshot => plugin.call_snapshot(store).await,
        Ask::Restore(snapshot) => plugin.call_restore(store, snapshot).await.map(nothing),
        Ask::Stop => plugin.call_stop(store).await.map(nothing),
    }
}

fn error_of(failure: &types::Failure) -> Error {
    let text = &failure.text[..failure.text.floor_char_boundary(MAX_ERROR_TEXT_BYTES)];
    Error::from_status(failure.status, text)
        .unwrap_or_else(|| Error::Failed(format!("it failed without a status: {text}")))
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
            cpu_ms: Some(self.cpu_ns.load(Ordering::Relaxed) / 1_000_000),
            confined: true,
            ..Vitals::in_process()
        }
    }

    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.try_call(call).map_err(Unserved::into_error)
    }

    fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        block_on(pin!(self.serve(call.deadline_ms, Ask::Call(call)))).map(OwnedBuffer::from)
    }

    fn is_async(&self) -> bool {
        true
    }

    fn call_async<'a>(&'a self, call: Call<'a>) -> Serving<'a, Result<OwnedBuffer, Unserved>> {
        let served = self.serve(call.deadline_ms, Ask::Call(call));
        Box::pin(async move { served.await.map(OwnedBuffer::from) })
    }

    fn health(&self) -> Result<(), Error> {
        Ok(block_on(self.serve(0, Ask::Health)).map(drop)?)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(block_on(self.serve(0, Ask::Snapshot))?)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        Ok(block_on(self.serve(0, Ask::Restore(snapshot))).map(drop)?)
    }

    fn stop(&self) -> Result<(), Error> {
        Ok(block_on(self.serve(0, Ask::Stop)).map(drop)?)
    }
}
