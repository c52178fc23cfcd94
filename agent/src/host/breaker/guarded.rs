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
    /// Made at the first failure of an event.
    events: Option<Breaker>,
}

/// The part of a plugin that a call is for, as far as breakers tell calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// None that has a breaker of its own: a route, a guard or a schedule.
    Plugin,
    /// `service` or `service/method`.
    Service(&'a str),
    /// An event of another plugin.
    Event {
        /// How often one is tried at most: that alone opens no breaker.
        attempts: u32,
    },
}

/// The service of a call to `service` or `service/method`.
pub(in crate::host) fn service_of(target: &str) -> &str {
    target.split_once('/').map_or(target, |(service, _)| service)
}

/// An admitted call, to be handed back with its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    plugin_probe: bool,
    part_probe: bool,
}

/// A call that was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whether the breaker of the part is the one that refused, not the plugin's.
    pub by_part: bool,
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
                events: None,
            }),
        }
    }

    /// Whether no breaker has anything to say, and none has to hear of a success.
    #[inline]
    pub fn are_quiet(&self) -> bool {
        !self.noisy.load(Ordering::Acquire)
    }

    /// Whether a call of this part may be made. Nothing is locked and no clock is read while all
    /// goes well.
    ///
    /// # Errors
    /// Which breaker refuses, and until when.
    #[inline]
    pub fn admit(&self, part: Part<'_>, now: impl Fn() -> u64) -> Result<Ticket, Refused> {
        if self.are_quiet() { Ok(Ticket::default()) } else { self.admit_noisy(part, now()) }
    }

    #[cold]
    fn admit_noisy(&self, part: Part<'_>, now_ms: u64) -> Result<Ticket, Refused> {
        let mut all = self.lock();
        let service = match part {
            Part::Plugin => None,
            Part::Service(target) => Some(service_of(target)),
            Part::Event { .. } => return all.admit_event(now_ms),
        };
        let mut ticket = Ticket::default();
        if let Some(breaker) = service.and_then(|service| all.services.get_mut(service)) {
            match breaker.admit(now_ms) {
                Admission::Allowed => {}
                Admission::Probe => ticket.part_probe = true,
                Admission::Refused { retry_at_ms } => {
                    return Err(Refused { by_part: true, retry_at_ms });
                }
            }
        }
        match all.plugin.admit(now_ms) {
            Admission::Allowed => {}
            Admission::Probe => ticket.plugin_probe = true,
            Admission::Refused { retry_at_ms } => {
                if let Some(breaker) = service.and_then(|name| all.services.get_mut(name)) {
                    breaker.record(now_ms, ticket.part_probe, Outcome::Abandoned);
                }
                return Err(Refused { by_part: false, retry_at_ms });
            }
        }
        Ok(ticket)
    }

    /// Takes note of how an admitted call ended. Answers whether a breaker opened by it. `turn` is
    /// told whether they are quiet from here on, in the order in which that changes.
    #[inline]
    pub fn record(
        &self,
        part: Part<'_>,
        ticket: Ticket,
        outcome: Outcome,
        now: impl Fn() -> u64,
        turn: impl Fn(bool),
    ) -> bool {
        let is_quiet = outcome != Outcome::Failure && self.are_quiet();
        !is_quiet && self.record_noisy(part, ticket, outcome, now(), turn)
    }

    #[cold]
    fn record_noisy(
        &self,
        part: Part<'_>,
        ticket: Ticket,
        outcome: Outcome,
        now_ms: u64,
        turn: impl Fn(bool),
    ) -> bool {
        let mut guard = self.lock();
        let all = &mut *guard;
        let before = all.openings();
        match part {
            Part::Plugin => all.plugin.record(now_ms, ticket.plugin_probe, outcome),
            Part::Service(target) => {
                all.record_service(service_of(target), ticket, outcome, now_ms);
            }
            Part::Event { attempts } => all.record_event(attempts, ticket, outcome, now_ms),
        }
        let quiet = all.plugin.is_quiet() && all.parts().all(Breaker::is_quiet);
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
        all.events = None;
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

    /// Where the breaker of its events stands.
    pub fn of_events(&self) -> BreakerState {
        self.lock().events.as_ref().map_or(BreakerState::Closed, Breaker::state)
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
            breaker.record(now_ms, ticket.part_probe, outcome);
        }
        // The service's breaker deals with what it has begun to count; a probe is one all the same.
        if !is_known || ticket.plugin_probe {
            self.plugin.record_apart(now_ms, ticket.plugin_probe, outcome);
        }
    }

    /// The plugin's breaker keeps an event out, and never lets one in to try: it would not hear of
    /// its end.
    fn admit_event(&mut self, now_ms: u64) -> Result<Ticket, Refused> {
        let retry_at_ms = self.plugin.open_until_ms();
        if now_ms < retry_at_ms {
            return Err(Refused { by_part: false, retry_at_ms });
        }
        match self.events.as_mut().map(|events| events.admit(now_ms)) {
            None | Some(Admission::Allowed) => Ok(Ticket::default()),
            Some(Admission::Probe) => Ok(Ticket { part_probe: true, ..Ticket::default() }),
            Some(Admission::Refused { retry_at_ms }) => Err(Refused { by_part: true, retry_at_ms }),
        }
    }

    /// Attempts at one event are no share of the events, so no rate is kept.
    fn record_event(&mut self, attempts: u32, ticket: Ticket, outcome: Outcome, now_ms: u64) {
        if outcome == Outcome::Failure && self.events.is_none() {
            let failures = self.settings.failures.max(attempts.saturating_add(1));
            let settings = BreakerSettings { failures, rate: None, ..self.settings };
            self.events = Some(Breaker::new(settings));
        }
        if let Some(events) = &mut self.events {
            events.record(now_ms, ticket.part_probe, outcome);
        }
    }

    /// The breakers of parts.
    fn parts(&self) -> impl Iterator<Item = &Breaker> {
        self.services.values().chain(&self.events)
    }

    fn openings(&self) -> u64 {
        self.plugin.openings() + self.parts().map(Breaker::openings).sum::<u64>()
    }
}
