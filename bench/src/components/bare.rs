//! The peer: wasmtime by itself, as its documentation uses it.

use std::path::Path;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, Store};

use super::{Measured, SERVICE, compiled, component, measure};
use crate::error::Error;

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit/v1",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use bindings::Plugin;
use bindings::modunest::plugin::{host, types};

/// A host that has nothing.
struct Nothing;

impl types::Host for Nothing {}

impl host::Host for Nothing {
    fn log(&mut self, _: u32, _: String) {}

    fn call_service(
        &mut self,
        _: String,
        _: String,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    fn operate(&mut self, _: u32, _: Vec<u8>) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    fn now_ms(&mut self) -> u64 {
        0
    }

    fn list_assets(&mut self) -> Result<Vec<String>, types::Failure> {
        Ok(Vec::new())
    }

    fn read_asset(&mut self, _: String) -> Result<Vec<u8>, types::Failure> {
        Ok(Vec::new())
    }

    fn panicked(&mut self, _: String) {}
}

fn engine() -> Result<Engine, Error> {
    let mut config = Config::new();
    // Without it a call takes twice as long; nobody who counts nanoseconds leaves it on.
    config.concurrency_support(false);
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
    let plugin = Plugin::instantiate(&mut store, &component, linker).map_err(wrong)?;
    let created = plugin.modunest_plugin_instance().call_create(&mut store, b"").map_err(wrong)?;
    created.map_err(|failure| Error::Wrong { what: "create", why: failure.text })?;
    call(&mut store, &plugin, b"x")?;
    Ok((store, plugin))
}

fn call(store: &mut Store<Nothing>, plugin: &Plugin, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let request =
        types::Request { kind: 1, target: SERVICE, payload, trace: "", caller: "", deadline_ms: 0 };
    let answer = plugin.modunest_plugin_instance().call_call(store, request).map_err(wrong)?;
    answer.map_err(|failure| Error::Wrong { what: "a call", why: failure.text })
}
