//! The component tier: WebAssembly components, which reach nothing but what they import.
//!
//! The story: [`engine`] is what runs them, and [`pool`] where their memory comes from; [`cache`]
//! keeps what was compiled on this machine; [`instance`] is the plugin, one or more stores with
//! calls queued before them, which take [`turns`]; [`imports`] is what it may ask for, through a
//! [`HostSide`](super::side::HostSide) like every other tier; [`limits`] and [`deadline`] keep its
//! memory and its time within bounds.
//!
//! # One store, calls queued
//!
//! A component has one thread and keeps its state in its memory. So an instance is one store,
//! and calls wait for their turn, in their order and until their deadline: state that survives
//! calls is one state, as in the other tiers, and a snapshot is all of it. Where the operator says
//! that a plugin keeps none (`stores` under `[host.component]`), it gets several stores, which
//! share nothing but code; stores of different plugins never share memory either, at no trust
//! level. A chain of calls that comes back to a plugin with one store would wait for itself, and
//! is refused.
//!
//! # Calls and threads
//!
//! A call is a future, and its code runs on a stack of its own. While it waits for its turn, or in
//! its host for a server, a file or another plugin, it holds no thread; a caller that has a thread
//! to wait on waits there ([`drive`](super::drive)).
//!
//! # Deadlines
//!
//! A thread counts epochs while calls run. At each, a call that computes looks at the clock: it
//! traps behind its deadline, and lets others have its thread before. What waits is woken at its
//! deadline and given up, so the time that host calls take counts. A call without a deadline gets
//! the host's call timeout, from its first wait or epoch on.
//!
//! # Traps
//!
//! A trap ends the call, as a panic does in the other tiers, and the store, whose memory may be
//! half-changed. A call that was given up counts as one. The next call, or hook, makes the plugin
//! anew: `create`, then `before-load`. State that it kept is lost, and the restart is counted.
//!
//! # Two homes
//!
//! Components that are trusted enough run in the agent's own process, the others in a runner:
//! the same instance over the same code, behind the sandbox of native plugins and a stricter
//! filter of system calls. Everything is compiled by the agent; a runner gets the machine code
//! as a sealed file and has no compiler in use ([`confined`]).
//!
//! The `unsafe` is in [`cache`].

mod cache;
mod confined;
mod deadline;
mod engine;
mod imports;
mod instance;
mod limits;
mod load;
mod pool;
#[cfg(test)]
mod tests;
mod turns;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use modunest_core::archive::FileRecord;
use wasmtime::component::Component;

pub(crate) use cache::Cache;
pub(super) use confined::Confined;
pub(super) use engine::ADDRESSES_OF_MEMORY_BYTES;
pub(crate) use imports::Assets;
pub(crate) use instance::{ComponentInstance, Settings};
pub(super) use limits::MEMORIES_MAX;
pub(super) use load::{Ready, Unpacked, prepare};

use self::engine::Runtime;
use self::pool::Places;
use super::LoadError;

/// What the interface definition is compiled to.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit/v1",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: {
            "modunest:plugin/host.call-service": async,
            "modunest:plugin/host.operate": async,
            "modunest:plugin/host.read-asset": async,
        },
        exports: { default: async },
    });
}

/// A component that is compiled, proven and mapped, but not running.
#[derive(Clone)]
pub(crate) struct Compiled {
    pre: bindings::PluginPre<imports::State>,
    runtime: &'static Runtime,
    /// Of its stores in the pool of the runtime; `None` where that has none.
    _places: Option<Arc<Places>>,
}

/// A file to compile.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it must be.
    pub(crate) record: FileRecord,
}

impl Compiled {
    /// Compiles a component, or takes what was compiled before, to run in so many stores. They are
    /// in the pool of `pooled`, if that has places for them.
    ///
    /// # Errors
    /// When the file is not what it must be, or is no component of this world.
    fn load(
        source: &Source,
        cache: &Cache,
        stores: usize,
        pooled: Option<&'static Runtime>,
    ) -> Result<Self, LoadError> {
        if let Some(runtime) = pooled {
            match Self::load_into(runtime, source, cache, stores) {
                Ok(Some(compiled)) => return Ok(compiled),
                Ok(None) => {}
                // What is too large for a place of the pool may do elsewhere.
                Err(error @ LoadError::Compile(_)) => {
                    tracing::debug!(component = %source.record.sha256, %error, "not in the pool");
                }
                Err(error) => return Err(error),
            }
        }
        let runtime = engine::runtime()?;
        Self::link(cache.component(runtime, source)?, runtime, None)
    }

    /// Loads a component into a pool, if that has places for it.
    fn load_into(
        runtime: &'static Runtime,
        source: &Source,
        cache: &Cache,
        stores: usize,
    ) -> Result<Option<Self>, LoadError> {
        let component = cache.component(runtime, source)?;
        let places = runtime.pool().and_then(|pool| pool.reserve(&component, stores));
        let Some(places) = places else {
            tracing::info!(component = %source.record.sha256, stores, "the pool of components' memory has no place for it; it is mapped for it alone");
            return Ok(None);
        };
        Self::link(component, runtime, Some(places)).map(Some)
    }

    /// What an agent compiled for the runner that this process is.
    ///
    /// # Errors
    /// When the code is not for this engine, or is no component of this world.
    pub(crate) fn open(code: &OwnedFd) -> Result<Self, LoadError> {
        let runtime = engine::runtime_without_compiler()?;
        let component = cache::map_file(runtime.engine(), code);
        Self::link(component.map_err(|e| LoadError::Compile(format!("{e:#}")))?, runtime, None)
    }

    fn link(
        component: Component,
        runtime: &'static Runtime,
        places: Option<Places>,
    ) -> Result<Self, LoadError> {
        runtime.count()?;
        let pre = runtime
            .linker()
            .instantiate_pre(&component)
            .and_then(bindings::PluginPre::new)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        Ok(Compiled { pre, runtime, _places: places.map(Arc::new) })
    }
}
