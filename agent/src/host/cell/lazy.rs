//! Loading a plugin when it is first used: whoever comes first starts it, all of them wait for
//! that one load, each until its own deadline.
//!
//! What a first use may be, the manifest lists (`activation`). Any other call is refused while the
//! plugin is not loaded, and served like all others once it is.

use std::sync::Arc;

use modunest_core::manifest::Activation;
use modunest_core::statement::TrustLevel;
use modunest_sdk::Error;
use modunest_sdk::abi::RequestKind;

use super::gate::lock;
use super::{Cell, State};
use crate::host::native::LoadError;
use crate::host::start::{Place, start};
use crate::host::{Call, Tier};

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something that a manifest may list.
    Use(Activation),
    /// A stream that is open.
    Stream,
    /// A guard, which no manifest lists, and without which all that it guards would stay shut.
    Other,
}

impl Purpose {
    pub(super) fn of(call: &Call<'_>) -> Self {
        match call.kind {
            RequestKind::Http => Purpose::Use(Activation::Route),
            RequestKind::Service => Purpose::Use(Activation::Service),
            // An event has a publisher, and the clock has no name.
            RequestKind::Event if call.caller.is_empty() => Purpose::Use(Activation::Schedule),
            RequestKind::Event => Purpose::Use(Activation::Event),
            RequestKind::Stream => Purpose::Stream,
            RequestKind::Guard | RequestKind::Lifecycle => Purpose::Other,
        }
    }
}

impl Cell {
    /// From now on it waits for its first use.
    pub(in crate::host) fn idle(&self, place: Place) {
        *lock(&self.place) = Some(place);
        self.set(State::Idle, None);
    }

    /// Where a plugin that is not loaded is meant to run, whether it waits for its first use or
    /// failed. What may run nowhere on this host lacks the walls of a process.
    pub(crate) fn meant_for(&self) -> Tier {
        self.terms.tier().unwrap_or(Tier::Process)
    }

    /// How far it is trusted, where it may share its process.
    pub(in crate::host) fn trust(&self) -> TrustLevel {
        self.terms.trust()
    }

    /// Whether its schedules are served as it stands now.
    pub(crate) fn keeps_schedules(&self) -> bool {
        let state = self.status().state;
        state.serves() && (state != State::Idle || self.is_activated_by(Activation::Schedule))
    }

    fn is_activated_by(&self, kind: Activation) -> bool {
        self.manifest.life.activation.contains(&kind)
    }

    /// Whether a call may be the first use.
    pub(super) fn may_activate(&self, purpose: Purpose) -> Result<(), Error> {
        let kind = match purpose {
            Purpose::Use(kind) if !self.is_activated_by(kind) => kind.as_str(),
            _ => return Ok(()),
        };
        let listed: Vec<String> = self
            .manifest
            .life
            .activation
            .iter()
            .map(|one| format!("\"{}\"", one.as_str()))
            .collect();
        Err(Error::Unavailable(format!(
            "{} is not loaded, and a call of the kind {kind} does not load it: `activation` under [lifecycle] of its manifest lists {}; use it in such a way first, or list \"{kind}\" there in its next release",
            self.name,
            listed.join(", ")
        )))
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
        self.begin_loading();
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
