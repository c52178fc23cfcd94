//! Loading a plugin when it is first used: whoever comes first starts it, all of them wait for
//! that one load, each until its own deadline.

use std::sync::Arc;

use super::gate::lock;
use super::{Cell, State};
use crate::host::Tier;
use crate::host::native::LoadError;
use crate::host::start::{Place, start};

impl Cell {
    /// From now on it waits for its first use.
    pub(in crate::host) fn idle(&self, place: Place) {
        *lock(&self.place) = Some(place);
        self.set(State::Idle, None);
    }

    /// Where a plugin that is not loaded is meant to run: what waits for its first use knows,
    /// and all else runs nowhere.
    pub(crate) fn meant_for(&self) -> Tier {
        lock(&self.place).as_ref().map_or(Tier::Process, |place| place.tier)
    }

    /// Starts the load that a first use needs, if nobody has.
    pub(super) fn activate(&self) {
        {
            let mut status = lock(&self.status);
            if status.state != State::Idle {
                return;
            }
            self.turn(&mut status, State::Activating, None);
        }
        self.meter.loading();
        self.announce();
        let Some(cell) = self.me.upgrade() else { return };
        let thread = std::thread::Builder::new().name("activate".to_owned());
        if let Err(error) = thread.spawn(move || cell.load_now()) {
            self.give_up(format!("no thread can be started: {error}"));
        }
    }

    fn load_now(self: Arc<Self>) {
        let since = modunest_runtime::clock::now();
        let Some(place) = lock(&self.place).take() else { return };
        let outcome = start(&self, place, &mut Vec::new());
        let outcome = outcome.and_then(|made| self.open(made).map_err(LoadError::Start));
        let took_ms = modunest_runtime::clock::now().since(since).as_millis();
        match outcome {
            Ok(()) => {
                tracing::info!(plugin = %self.name, version = %self.version, took_ms, "loaded at its first use");
            }
            Err(error) => {
                tracing::warn!(plugin = %self.name, version = %self.version, %error, "not loaded at its first use");
                self.give_up(error.to_string());
            }
        }
    }
}
