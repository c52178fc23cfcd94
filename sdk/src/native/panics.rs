//! Panics at the border: caught, and turned into text.
//!
//! Every plugin library has a standard library of its own, so the host's panic
//! hook never hears of a plugin's panic. This module installs a hook once in each
//! library. It takes no backtrace: with `RUST_BACKTRACE` set, one costs 58 ms.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

use super::HostHandle;
use crate::{Error, Level};

thread_local! {
    /// How many border crossings this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last caught panic of this thread happened. Touched only by a panic.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The host of the latest instance: where panics of the plugin's own threads go.
static HOST: Mutex<Option<HostHandle>> = Mutex::new(None);

/// Installs the hook, once in a library, and remembers whom to tell.
pub(super) fn install(host: HostHandle) {
    static ONCE: Once = Once::new();
    *HOST.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    ONCE.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if DEPTH.get() > 0 {
                // `guard` on this thread will report it.
                PLACE.with(|place| {
                    if let Ok(mut place) = place.try_borrow_mut() {
                        *place = info.location().map(ToString::to_string);
                    }
                });
            } else {
                report_elsewhere(info);
                previous(info);
            }
        }));
    });
}

/// A panic outside of any call: in a thread that the plugin started.
fn report_elsewhere(info: &PanicHookInfo<'_>) {
    // The handle is copied out, so that the lock is not held while the host logs.
    let host = HOST.try_lock().ok().and_then(|host| *host);
    if let Some(host) = host {
        let place = info.location().map(ToString::to_string);
        let text = describe(info.payload(), place.as_deref());
        host.log(Level::Error, &format!("a thread of the plugin panicked: {text}"));
    }
}

/// Logs a failure that no caller can be told of.
pub(super) fn log_unreported(text: &str) {
    let host = *HOST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(host) = host {
        host.log(Level::Error, text);
    }
}

/// Runs plugin code; a panic becomes [`Error::Panicked`] with message and place.
pub(super) fn guard<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    DEPTH.set(DEPTH.get() + 1);
    // Unwind safety: the plugin is `Sync` and told that it keeps serving after a
    // panic, so its shared state has the same guarantees as across threads.
    let outcome = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(DEPTH.get() - 1);
    outcome.unwrap_or_else(|payload| {
        let place = PLACE.with(|place| place.try_borrow_mut().ok().and_then(|mut p| p.take()));
        let text = describe(&*payload, place.as_deref());
        if !payload.is::<&str>() && !payload.is::<String>() {
            // A payload of the plugin's own type may panic again in its destructor.
            std::mem::forget(payload);
        }
        Err(Error::Panicked(text))
    })
}

fn describe(payload: &(dyn Any + Send), place: Option<&str>) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    match place {
        Some(place) => format!("{message} (at {place})"),
        None => message.to_owned(),
    }
}
