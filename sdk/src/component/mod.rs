//! The glue between [`Plugin`](crate::Plugin) and the world of components, version 1
//! (`wit/v1`).
//!
//! A component has one thread and one instance. A panic cannot be caught there: it ends in a
//! trap, after which the host makes the instance anew. So that the caller still hears why, the
//! panic's text is handed to the host first.

mod host_handle;

use std::sync::{Once, OnceLock};

pub(crate) use host_handle::HostHandle;

use crate::abi::MAX_MESSAGE_BYTES;
use crate::dispatch::dispatch;
use crate::error::cut_text;
use crate::{Error, Host, Plugin, Request};

/// What the interface definition is compiled to.
#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit/v1",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "modunest_sdk::component::bindings",
    });
}

use bindings::exports::modunest::plugin::instance::{Failure, Guest, Request as WireRequest};
use bindings::modunest::plugin::host;

/// What [`export_plugin!`](crate::export_plugin) makes: a plugin type, and the place of its one
/// instance.
pub trait Exported {
    /// The plugin.
    type Plugin: Plugin;

    /// Where the instance is kept.
    fn place() -> &'static OnceLock<Self::Plugin>;
}

impl<E: Exported> Guest for E {
    fn create(config: Vec<u8>) -> Result<(), Failure> {
        install_hook();
        let plugin = E::Plugin::create(Host::from_handle(HostHandle), &config).map_err(failure)?;
        E::place().set(plugin).map_err(|_| failure(Error::failed("the instance exists already")))
    }

    fn call(request: WireRequest) -> Result<Vec<u8>, Failure> {
        let WireRequest { kind, target, payload, trace, caller, deadline_ms } = &request;
        let request = Request {
            target,
            payload,
            caller: (!caller.is_empty()).then_some(caller),
            trace: (!trace.is_empty()).then_some(trace),
            deadline_ms: (*deadline_ms > 0).then_some(*deadline_ms),
        };
        instance::<E>()
            .and_then(|plugin| dispatch(plugin, *kind, request))
            .and_then(bounded)
            .map_err(failure)
    }

    fn health() -> Result<(), Failure> {
        instance::<E>().and_then(Plugin::health).map_err(failure)
    }

    fn snapshot() -> Result<Vec<u8>, Failure> {
        instance::<E>().and_then(Plugin::snapshot).and_then(bounded).map_err(failure)
    }

    fn restore(snapshot: Vec<u8>) -> Result<(), Failure> {
        instance::<E>().and_then(|plugin| plugin.restore(&snapshot)).map_err(failure)
    }

    fn stop() -> Result<(), Failure> {
        instance::<E>().and_then(Plugin::stop).map_err(failure)
    }
}

fn instance<E: Exported>() -> Result<&'static E::Plugin, Error> {
    E::place().get().ok_or_else(|| Error::InvalidInput("the instance was not created".to_owned()))
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Error::Failed(format!(
            "an answer of {} bytes is above the limit of {MAX_MESSAGE_BYTES}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn failure(error: Error) -> Failure {
    Failure { status: error.status().code(), text: cut_text(error.text()).to_owned() }
}

/// Tells the host of a panic, which ends in a trap.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let message = info
                .payload()
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
                .unwrap_or("a panic without a message");
            let text = match info.location() {
                Some(place) => format!("{message} (at {place})"),
                None => message.to_owned(),
            };
            host::panicked(cut_text(&text));
        }));
    });
}
