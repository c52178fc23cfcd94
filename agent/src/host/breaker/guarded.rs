//! The breakers of one plugin, behind a lock that calls take only while something is wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Admission, Breaker, BreakerSettings, BreakerState, Outcome};

/// The breakers of a plugin.
pub struct Breakers {
    /// Whether any breaker has to be asked at all.
    noisy: AtomicBool,
    all: Mutex<All>,
}

struct All {
    settings: BreakerSettings,
    plugin: Breaker,
    /// Made at a service's first failure.
    services: BTreeMap<String, Breaker>,
}

/// The service of a call to `service` or `service/method`.
pub(in crate::host) fn service_of(target: &str) -> &str {
    target.split_once('/').map_or(target, |(service, _)| service)
}

/// An admitted call, to be handed back with its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    plugin_probe: bool,
    service_probe: bool,
}

/// A call that was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whether the service's breaker is the one that refused, not the plugin's.
    pub by_service: bool,
    /// When it is worth trying again, in Unix milliseconds.
    pub retry_at_ms: u64,
}

impl Breakers {
    /// Closed ones.
    pub fn new(settings: BreakerSettings) -> Self {
        Breakers {
            noisy: AtomicBool::new(settings.are_noisy()),
            all: Mutex::new(All {
                settings,
                plugin: Breaker::new(settings),
                services: BTreeMap::new(),
            }),
        }
    }

    /// Whether no breaker has anything to say, and none has to hear of a success.
    #[inline]
    pub fn are_quiet(&self) -> bool {
        !self.noisy.load(Ordering::Acquire)
    }

    /// Whether a call may be made: `service` is what is called where that is one, with or without
    /// a method. Nothing is locked and no clock is read while all goes well.
    ///
    /// # Errors
    /// Which breaker refuses, and until when.
    #[inline]
    pub fn admit(&self, service: Option<&str>, now: impl Fn() -> u64) -> Result<Ticket, Refused> {
        if self.are_quiet() { Ok(Ticket::default()) } else { self.admit_noisy(service, now()) }
    }

    #[cold]
    fn admit_noisy(&self, service: Option<&str>, now_ms: u64) -> Result<Ticket, Refused> {
        let service = service.map(service_of);
        let mut all = self.lock();
        let mut ticket = Ticket::default();
        if let Some(breaker) = service.and_then(|service| all.services.get_mut(service)) {
            match breaker.admit(now_ms) {
                Admission::Allowed => {}
                Admission::Probe => ticket.service_probe = true,
                Admission::Refused { retry_at_ms } => {
                    return Err(Refused { by_service: true, retry_at_ms });
                }
            }
        }
        match all.plugin.admit(now_ms) {
            Admission::Allowed => {}
            Admission::Probe => ticket.plugin_probe = true,
            Admission::Refused { retry_at_ms } => {
                if let Some(breaker) = service.and_then(|name| all.services.get_mut(name)) {
                    breaker.record(now_ms, ticket.service_probe, Outcome::Abandoned);
                }
                return Err(Refused { by_service: false, retry_at_ms });
            }
        }
        Ok(ticket)
    }

    /// Takes note of how an admitted call ended. Answers whether a breaker opened by it. `turn` is
    /// told whether they are quiet from here on, in the order in which that changes.
    #[inline]
    pub fn record(
        &self,
        service: Option<&str>,
        ticket: Ticket,
        outcome: Outcome,
        now: impl Fn() -> u64,
        turn: impl Fn(bool),
    ) -> bool {
        let is_quiet = outcome != Outcome::Failure && self.are_quiet();
        !is_quiet && self.record_noisy(service, ticket, outcome, now(), turn)
    }

    #[cold]
    fn record_noisy(
        &self,
        service: Option<&str>,
        ticket: Ticket,
        outcome: Outcome,
        now_ms: u64,
        turn: impl Fn(bool),
    ) -> bool {
        let mut guard = self.lock();
        let all = &mut *guard;
        let before = all.openings();
        match service.map(service_of) {
            Some(service) => all.record_service(service, ticket, outcome, now_ms),
            None => all.plugin.record(now_ms, ticket.plugin_probe, outcome),
        }
        let quiet = all.plugin.is_quiet() && all.services.values().all(Breaker::is_quiet);
        let opened = all.openings() > before;
        self.noisy.store(!quiet, Ordering::Release);
        turn(quiet);
        opened
    }

    /// Closes all of them, as behind a restart: what failed was another instance. `turn` is told as
    /// by [`Breakers::record`].
    pub fn reset(&self, turn: impl Fn(bool)) {
        let mut all = self.lock();
        all.plugin = Breaker::new(all.settings);
        all.services.clear();
        let noisy = all.settings.are_noisy();
        self.noisy.store(noisy, Ordering::Release);
        turn(!noisy);
    }

    /// The plugin's breaker, and those of services that are not closed.
    pub fn states(&self) -> (Breaker, Vec<(String, BreakerState)>) {
        let all = self.lock();
        let open = all.services.iter().filter(|(_, one)| one.state() != BreakerState::Closed);
        (all.plugin.clone(), open.map(|(name, one)| (name.clone(), one.state())).collect())
    }

    /// A panic while it was held would be one of ours, between two assignments of numbers.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn record_service(&mut self, service: &str, ticket: Ticket, outcome: Outcome, now_ms: u64) {
        let failed = outcome == Outcome::Failure;
        if failed && !self.services.contains_key(service) {
            self.services.insert(service.to_owned(), Breaker::new(self.settings));
        }
        let breaker = self.services.get_mut(service);
        let is_known = failed && breaker.as_ref().is_some_and(|breaker| breaker.is_failing());
        if let Some(breaker) = breaker {
            breaker.record(now_ms, ticket.service_probe, outcome);
        }
        // The service's breaker deals with what it has begun to count; a probe is one all the same.
        if !is_known || ticket.plugin_probe {
            self.plugin.record_apart(now_ms, ticket.plugin_probe, outcome);
        }
    }

    fn openings(&self) -> u64 {
        self.plugin.openings() + self.services.values().map(Breaker::openings).sum::<u64>()
    }
}
