//! The peer: wasmtime by itself, as its documentation uses it where the host's functions are
//! futures, as ours are.

use std::path::Path;

use futures_util::FutureExt as _;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use super::plugins::{compiled, component};
use super::{Measured, SERVICE, measure};
use crate::error::Error;

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit/v1",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: async },
        exports: { default: async },
    });
}

use bindings::Plugin;
use bindings::modunest::plugin::{host, types};

/// Components that the pool has room for, and some more.
const SLOTS: u32 = 600;

/// A host that has nothing.
struct Nothing;

impl types::Host for Nothing {}

impl host::Host for Nothing {
    async fn log(&mut self, _: u32, _: String) {}

    async fn call_service(
        &mut self,
        _: String,
        _: String,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    async fn operate(&mut self, _: u32, _: Vec<u8>) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    async fn now_ms(&mut self) -> u64 {
        0
    }

    async fn list_assets(&mut self) -> Result<Vec<String>, types::Failure> {
        Ok(Vec::new())
    }

    async fn read_asset(&mut self, _: String) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    async fn panicked(&mut self, _: String) {}
}

fn engine() -> Result<Engine, Error> {
    let mut config = Config::new();
    // Without it a call takes twice as long; nobody who counts nanoseconds leaves it on.
    config.concurrency_support(false);
    // Calls have stacks of their own, which come from a pool or are mapped for each call.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(SLOTS)
        .total_tables(2 * SLOTS)
        .total_stacks(SLOTS)
        .total_component_instances(SLOTS)
        .total_core_instances(8 * SLOTS);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(wrong)
}

fn wrong(error: wasmtime::Error) -> Error {
    Error::Wrong { what: "wasmtime", why: format!("{error:#}") }
}

/// Compiles so many components. They differ in a number that no code depends on.
pub fn compile(folder: &Path, count: usize) -> Result<(), Error> {
    let engine = engine()?;
    let path = component(folder, 0);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let code = engine.precompile_component(&bytes).map_err(wrong)?;
    for number in 0..count {
        let path = compiled(folder, number);
        std::fs::write(&path, &code).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Loads, calls each once, and then the first again and again.
pub fn run(folder: &Path, count: usize) -> Result<Measured, Error> {
    measure(
        count,
        || {
            let engine = engine()?;
            let mut linker = Linker::new(&engine);
            Plugin::add_to_linker::<_, HasSelf<Nothing>>(&mut linker, |state| state)
                .map_err(wrong)?;
            let one = |number| load(&engine, &linker, &compiled(folder, number));
            (0..count).map(one).collect::<Result<Vec<_>, Error>>()
        },
        |loaded, payload| {
            let missing = || Error::Wrong { what: "a component", why: "it is gone".to_owned() };
            let (store, plugin) = loaded.first_mut().ok_or_else(missing)?;
            call(store, plugin, payload)
        },
    )
}

fn load(
    engine: &Engine,
    linker: &Linker<Nothing>,
    path: &Path,
) -> Result<(Store<Nothing>, Plugin), Error> {
    let code = std::fs::read(path).map_err(Error::io(path))?;
    // SAFETY: the code that `compile` of this program made.
    let component = unsafe { Component::deserialize(engine, code) }.map_err(wrong)?;
    let mut store = Store::new(engine, Nothing);
    let made = at_once(Plugin::instantiate_async(&mut store, &component, linker))?;
    let plugin = made.map_err(wrong)?;
    let created = at_once(plugin.modunest_plugin_instance().call_create(&mut store, b""))?;
    created
        .map_err(wrong)?
        .map_err(|failure| Error::Wrong { what: "create", why: failure.text })?;
    call(&mut store, &plugin, b"x")?;
    Ok((store, plugin))
}

fn call(store: &mut Store<Nothing>, plugin: &Plugin, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let request =
        types::Request { kind: 1, target: SERVICE, payload, trace: "", caller: "", deadline_ms: 0 };
    let answer = at_once(plugin.modunest_plugin_instance().call_call(store, request))?;
    answer.map_err(wrong)?.map_err(|failure| Error::Wrong { what: "a call", why: failure.text })
}

/// What a future answers that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let waits = || Error::Wrong { what: "wasmtime", why: "a call waits".to_owned() };
    future.now_or_never().ok_or_else(waits)
}
