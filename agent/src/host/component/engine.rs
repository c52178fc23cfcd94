//! Engines: how components are compiled and run.
//!
//! The agent's own process has one for each trust level, whose memory comes from a [`Pool`], and
//! one that maps memory for each store, for what finds no place there; a runner has one of the
//! latter kind. They run the same machine code.

use std::hash::Hash as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use modunest_core::digest::{Digest, Hasher};
use modunest_core::statement::TrustLevel;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine};

use super::bindings::Plugin;
use super::deadline::Alarms;
use super::imports::State;
use super::pool::Pool;
use crate::host::LoadError;

/// Stack that the code of one component may take, in bytes.
const STACK_MAX_BYTES: usize = 512 * 1024;

/// Stack that a call has, in bytes: as much as the smallest thread. The host's own frames follow
/// below the component's, and those of a native plugin that it calls.
const CALL_STACK_BYTES: usize = 2 * 1024 * 1024;

/// The same in a runner, where what is asked goes over a lane: its limits count stacks as well.
const RUNNER_STACK_BYTES: usize = 1024 * 1024;

/// Addresses that one linear memory takes at most, used or not: four gibibytes that 32 bits
/// reach, guards on both sides, and room for what a later version of the engine adds.
pub(in crate::host) const ADDRESSES_OF_MEMORY_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// How often running calls look at the clock. Deadlines are met this late at most.
const EPOCH: Duration = Duration::from_millis(10);

/// Every so many epochs, the counting thread looks whether any call runs, and sleeps until there is
/// one.
const EPOCHS_COUNTED: u32 = 100;

/// What stands for an engine: feeds what it hashes to SHA-256.
#[derive(Default)]
struct Fingerprint(Hasher);

impl std::hash::Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    // Nobody asks: the fingerprint is the SHA-256.
    fn finish(&self) -> u64 {
        0
    }
}

/// What compiles and runs components.
pub(crate) struct Runtime {
    engine: Engine,
    fingerprint: OnceLock<Digest>,
    linker: Linker<State>,
    pool: Option<Pool>,
    alarms: Alarms,
    /// What may be serving calls.
    served: Mutex<Vec<Weak<dyn Serves>>>,
    /// What runs beside them.
    running: AtomicUsize,
    asleep: AtomicBool,
    /// Held while the thread that counts is started.
    starting: Mutex<()>,
    counting: OnceLock<Thread>,
}

/// The process's own, made on first use: a host without components pays nothing. Each store's
/// memory is mapped for it alone.
///
/// # Errors
/// When this processor or system cannot run compiled components.
pub(super) fn runtime() -> Result<&'static Runtime, LoadError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    known(RUNTIME.get_or_init(|| Runtime::new(&config(), None)))
}

/// The one with a pool, which the process has beside it for each trust level, made on first use for
/// a plan with so many stores of that level; `None` where the system does not let it have one.
pub(super) fn pooled(level: TrustLevel, stores: usize) -> Option<&'static Runtime> {
    static RUNTIMES: [OnceLock<Option<Runtime>>; TrustLevel::ALL.len()] =
        [const { OnceLock::new() }; TrustLevel::ALL.len()];
    let made = RUNTIMES[level as usize].get_or_init(|| {
        let mut config = config();
        let why = match Pool::of_process(&mut config, stores) {
            None => "the addresses of this process are limited".to_owned(),
            Some(pool) => match Runtime::new(&config, Some(pool)) {
                Ok(runtime) => return Some(runtime),
                Err(error) => error,
            },
        };
        tracing::info!(%level, why, "no pool for components' memory; it is mapped for each of them alone");
        None
    });
    made.as_ref()
}

/// The one of a runner, without a compiler: it runs what its agent compiled.
///
/// # Errors
/// As [`runtime`].
pub(super) fn runtime_without_compiler() -> Result<&'static Runtime, LoadError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut config = config();
        config.enable_compiler(false).async_stack_size(RUNNER_STACK_BYTES);
        Runtime::new(&config, None)
    });
    known(made)
}

fn known(made: &'static Result<Runtime, String>) -> Result<&'static Runtime, LoadError> {
    made.as_ref().map_err(|error| LoadError::Engine(error.clone()))
}

/// How components are compiled. Whoever compares with us compiles alike.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        // What the scan accepts (`core::scan`), and no more.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_MAX_BYTES)
        .async_stack_size(CALL_STACK_BYTES)
        // What stays on a stack stays unread: compiled code reads no place of it that it has not
        // written. To overwrite it would take a third of a call's time.
        .async_stack_zeroing(false)
        // Memory begins as the pages of the component's own file, copied when they are written.
        .memory_init_cow(true)
        // A plugin's author has the panic's own place; without these, code is smaller and
        // mapped sooner.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false);
    config
}

impl Runtime {
    pub(super) fn new(config: &Config, pool: Option<Pool>) -> Result<Self, String> {
        let text = |error: wasmtime::Error| format!("{error:#}");
        let engine = Engine::new(config).map_err(text)?;
        let mut linker = Linker::new(&engine);
        Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(text)?;
        Ok(Runtime {
            engine,
            fingerprint: OnceLock::new(),
            linker,
            pool,
            alarms: Alarms::default(),
            served: Mutex::default(),
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            starting: Mutex::default(),
            counting: OnceLock::new(),
        })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stands for everything of the engine that compiled code depends on. It costs as much as to
    /// map a component, so it is made once.
    pub(super) fn fingerprint(&self) -> Digest {
        *self.fingerprint.get_or_init(|| {
            let mut fingerprint = Fingerprint::default();
            self.engine.precompile_compatibility_hash().hash(&mut fingerprint);
            fingerprint.0.finish()
        })
    }

    pub(super) fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    /// Where the memory of its stores comes from, unless it is mapped for each.
    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Who is woken by its epochs.
    pub(super) fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Starts the thread that counts epochs, once.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn count(&'static self) -> Result<(), LoadError> {
        let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.counting.get().is_some() {
            return Ok(());
        }
        let thread = std::thread::Builder::new().name("epochs".to_owned());
        let started = thread.spawn(move || self.count_epochs());
        let handle = started.map_err(|error| LoadError::Engine(error.to_string()))?;
        drop(self.counting.set(handle.thread().clone()));
        Ok(())
    }

    fn count_epochs(&self) {
        loop {
            for _ in 0..EPOCHS_COUNTED {
                std::thread::sleep(EPOCH);
                self.engine.increment_epoch();
                self.alarms.ring();
            }
            self.asleep.store(true, Ordering::SeqCst);
            // A call that began before the line above did not see it.
            while self.asleep.load(Ordering::SeqCst) && !self.is_needed() {
                std::thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Whether nobody counts.
    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Whether anything runs that epochs are for.
    fn is_needed(&self) -> bool {
        let mut any = self.running.load(Ordering::SeqCst) > 0;
        self.served.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| {
            let one = one.upgrade();
            any |= one.as_ref().is_some_and(|one| one.is_serving());
            one.is_some()
        });
        any
    }

    /// From now on, epochs pass while this serves: whoever begins to calls [`Runtime::wake`] then.
    pub(super) fn serves(&self, one: &Arc<impl Serves + 'static>) {
        let one = Arc::downgrade(one);
        self.served.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    /// Has epochs pass, behind something that [`Runtime::is_needed`] sees.
    pub(super) fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.counting.get()
        {
            thread.unpark();
        }
    }

    /// The same for what is no call.
    pub(super) fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Running(self)
    }
}

/// What serves calls, each from a moment on when a lock was held that [`Serves::is_serving`] holds
/// as well: so either that sees the call, or the call sees that nobody counts. The calls need no
/// counter of their own that all of them write.
pub(super) trait Serves: Send + Sync {
    /// Whether a call is being served.
    fn is_serving(&self) -> bool;
}

/// Something that runs.
pub(super) struct Running<'r>(&'r Runtime);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
