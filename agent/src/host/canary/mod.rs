//! Trying a change: another release of a plugin beside the one that runs, for a share of the
//! calls.
//!
//! The old instance stays the plugin's: its routes, services and events are what others see, it
//! owns the state, and it serves all that the new one does not. Requests to routes, calls of
//! services and events that both declare alike are split by a counter. Guards decide and
//! schedules act for the whole plugin, so they stay with the old instance.
//!
//! A plugin that keeps state gives the new instance a copy of it. What the new one makes of its
//! copy is let go of: when it is promoted, another instance of its release takes over what the
//! old one has by then, as with every change.

mod judge;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modunest_core::VersionReq;
use modunest_core::digest::Digest;
use modunest_core::manifest::{Manifest, Service};
use modunest_core::name::{PluginName, ServiceName};
use modunest_core::time::Timestamp;

use super::cell::lock;
use super::reload::{Takeover, refused_state, takeover};
use super::{BreakerState, Cell, Host, State};
use crate::config::{CanaryRule, LifecycleSettings};

pub use judge::{Decision, Served, judge};

/// How long a promotion waits that something else than what is tried stood in the way of: each try
/// loads it anew, and may make calls wait.
const PROMOTE_AGAIN: Duration = Duration::from_secs(5 * 60);

/// What a call is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// A route, by the path of its manifest.
    Route(&'a str),
    /// A service.
    Service(&'a str),
    /// An event of another plugin.
    Event(&'a PluginName, &'a ServiceName),
}

/// A release that is being tried.
pub struct Trial {
    rule: CanaryRule,
    canary: Arc<Cell>,
    /// Plugins that only it uses: they live as long as its trial.
    company: Vec<Arc<Cell>>,
    routes: BTreeSet<String>,
    services: BTreeSet<String>,
    events: BTreeSet<(PluginName, ServiceName)>,
    /// Calls that could have been the new instance's.
    calls: AtomicU64,
    /// Whether it gets no more calls, because its end is decided.
    over: AtomicBool,
    since: Instant,
    began_at: Timestamp,
    /// What the old instance had served before.
    before: Served,
    /// Until when it is not promoted, however well it does.
    postponed: Mutex<Option<Instant>>,
}

/// A release that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Its version.
    pub version: modunest_core::Version,
    /// When it was rolled back.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What a [`Cell`] knows of trials.
#[derive(Default)]
pub(super) struct Trials {
    /// Whether a call has to look at all.
    on: AtomicBool,
    trial: Mutex<Option<Arc<Trial>>>,
    rolled_back: Mutex<Option<RolledBack>>,
}

/// Why a trial did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTried {
    /// The release itself is why, so it will not do better next time.
    Unfit(String),
    /// Something else; another try may do.
    Later(String),
}

impl Cell {
    /// The instance that is being tried, if a call is its to serve; else this one serves.
    #[inline]
    pub(crate) fn tried(&self, item: Item<'_>) -> Option<Arc<Cell>> {
        if !self.trials().on.load(Ordering::Relaxed) {
            return None;
        }
        let trial = self.trial()?;
        (trial.covers(item) && trial.takes(self)).then(|| trial.canary.clone())
    }

    /// The release that is being tried in this one's place.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        lock(&self.trials().trial).clone()
    }

    /// The last release that was tried in vain, as long as nothing else came of it.
    pub fn rolled_back(&self) -> Option<RolledBack> {
        lock(&self.trials().rolled_back).clone()
    }

    pub(crate) fn note_rolled_back(&self, what: Option<RolledBack>) {
        *lock(&self.trials().rolled_back) = what;
    }

    /// Begins to share calls with `canary`, which is loaded. A state is copied to it first.
    ///
    /// # Errors
    /// Why it cannot. `canary` is to be stopped then, and nothing has changed.
    pub(crate) fn try_out(
        self: &Arc<Self>,
        canary: &Arc<Cell>,
        rule: CanaryRule,
        company: &[Arc<Cell>],
        host: &Host,
        settings: &LifecycleSettings,
    ) -> Result<(), NotTried> {
        let status = canary.status();
        if !status.state.is_up() {
            return Err(NotTried::Unfit(canary.trouble()));
        }
        canary.relink(host);
        if canary.inherits() {
            let copied = self.copy_state(canary, settings);
            copied.inspect_err(|_| self.release_calls())?;
        } else if takeover(self.manifest(), canary.manifest()) == Takeover::Refused {
            return Err(NotTried::Unfit(refused_state(self.manifest(), canary.manifest())));
        }
        let unwell = |error| NotTried::Unfit(format!("is not healthy: {error}"));
        if canary.status().state != State::Idle {
            canary.health().map_err(unwell)?;
        }
        canary.take_over();
        if canary.inherits() {
            canary.tell_loaded();
        }
        let trial = Trial::new(self, canary.clone(), rule, company.to_vec());
        *lock(&self.trials().trial) = Some(Arc::new(trial));
        self.trials().on.store(true, Ordering::Relaxed);
        self.note_rolled_back(None);
        Ok(())
    }

    /// A snapshot of this instance is restored into `canary`; calls wait meanwhile.
    fn copy_state(&self, canary: &Cell, settings: &LifecycleSettings) -> Result<(), NotTried> {
        let until = Instant::now() + settings.drain_timeout;
        self.hold_calls(until).map_err(|calls| {
            let limit = settings.drain_timeout.as_millis();
            NotTried::Later(format!("{calls} calls did not end within {limit} ms"))
        })?;
        let snapshot = self.snapshot().map_err(|error| NotTried::Later(error.to_string()))?;
        self.release_calls();
        let unfit = |error| NotTried::Unfit(format!("cannot take over: {error}"));
        canary.restore(snapshot).map_err(unfit)
    }

    /// Ends a trial: from now on this instance serves alone. Answers what was tried, whose
    /// instance goes on with what it has begun and is to be stopped.
    pub(crate) fn end_trial(&self) -> Option<Arc<Trial>> {
        self.trials().on.store(false, Ordering::Relaxed);
        let trial = lock(&self.trials().trial).take()?;
        trial.over.store(true, Ordering::Relaxed);
        Some(trial)
    }

    /// Goes on with a trial whose end came to nothing, and whose instance was not stopped.
    pub(crate) fn resume_trial(&self, trial: Arc<Trial>) {
        trial.over.store(false, Ordering::Relaxed);
        *lock(&self.trials().trial) = Some(trial);
        self.trials().on.store(true, Ordering::Relaxed);
    }
}

impl Trial {
    fn new(old: &Cell, canary: Arc<Cell>, rule: CanaryRule, company: Vec<Arc<Cell>>) -> Self {
        let (one, other) = (old.manifest(), canary.manifest());
        let routes = one.routes.iter().filter(|route| other.routes.contains(route));
        let services = one.services.iter().filter(|service| is_alike(service, other));
        let received = |manifest: &Manifest| -> BTreeSet<(PluginName, ServiceName)> {
            let events = manifest.events.iter();
            events.filter_map(|event| Some((event.from.clone()?, event.name.clone()))).collect()
        };
        Trial {
            rule,
            routes: routes.map(|route| route.path.clone()).collect(),
            services: services.map(|one| one.export.name.as_str().to_owned()).collect(),
            events: received(one).intersection(&received(other)).cloned().collect(),
            calls: AtomicU64::new(0),
            over: AtomicBool::new(false),
            since: Instant::now(),
            began_at: modunest_runtime::clock::now(),
            before: old.meter().served(),
            postponed: Mutex::default(),
            canary,
            company,
        }
    }

    /// The new instance.
    pub fn canary(&self) -> &Arc<Cell> {
        &self.canary
    }

    /// Lets the new instance use what `host` has.
    pub(super) fn relink(&self, host: &Host) {
        self.canary.relink(host);
        self.company.iter().for_each(|cell| cell.relink(host));
    }

    /// Stops the new instance, which gets no calls any more, and what only it uses. `host` is
    /// what serves now, `successor` who answers those that still have the instance.
    pub(crate) fn stop(&self, host: &Host, successor: Option<&Arc<Cell>>, timeout: Duration) {
        if let Some(successor) = successor {
            self.canary.stand_by(successor);
        }
        let until = Instant::now() + timeout;
        self.canary.clone().stop(until);
        let others: Vec<Arc<Trial>> = host.cells().filter_map(|cell| cell.trial()).collect();
        let is_same = |one: &Arc<Cell>, cell: &Arc<Cell>| Arc::ptr_eq(one, cell);
        for cell in &self.company {
            let is_used = others.iter().any(|other| other.company.iter().any(|o| is_same(o, cell)));
            let serves = host.cell(cell.name()).is_some_and(|other| is_same(other, cell));
            if !is_used && !serves {
                cell.clone().stop(until);
            }
        }
    }

    /// How it is tried.
    pub fn rule(&self) -> &CanaryRule {
        &self.rule
    }

    /// When that began.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// What both have served since then: `old`, the instance that it is tried beside, and the
    /// new one.
    pub fn served(&self, old: &Cell) -> (Served, Served) {
        (old.meter().served().since(self.before), self.canary.meter().served())
    }

    /// Whether exactly this release and build is tried.
    pub(crate) fn is_of(&self, statement: Digest, files: Digest) -> bool {
        self.canary.is_of(statement, files)
    }

    /// Whether both instances mean the same by this.
    fn covers(&self, item: Item<'_>) -> bool {
        match item {
            Item::Route(path) => self.routes.contains(path),
            Item::Service(name) => self.services.contains(name),
            Item::Event(from, name) => {
                self.events.iter().any(|(other, event)| other == from && event == name)
            }
        }
    }

    /// Whether the new instance serves the next call.
    fn takes(&self, old: &Cell) -> bool {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if !judge::is_turn(number, self.rule.share_percent) || self.over.load(Ordering::Relaxed) {
            return false;
        }
        // Whoever looks after trials comes by once a second: too many failures end it before.
        let (old, new) = self.served(old);
        let decision = judge(&self.rule, old, new, Duration::ZERO, self.trouble_at_once());
        if matches!(decision, Decision::RollBack(_)) {
            self.over.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// What the state says, and the circuit breaker, which would keep calls from being counted.
    fn trouble_at_once(&self) -> Option<String> {
        let status = self.canary.status();
        match status.state {
            State::Ready | State::Idle | State::Activating => {
                let (breaker, services) = self.canary.breakers().states();
                let of_events = self.canary.breakers().of_events();
                let is_open =
                    [breaker.state(), of_events].iter().any(|one| *one != BreakerState::Closed)
                        || !services.is_empty();
                is_open.then(|| "it failed so often that its circuit breaker opened".to_owned())
            }
            State::Unhealthy => Some(status.reason.unwrap_or_default()),
            State::Restarting => {
                Some(format!("what it runs in ended: {}", status.reason.unwrap_or_default()))
            }
            _ => Some(self.canary.trouble()),
        }
    }

    /// What is to become of it. Looks at its process, so it is not for the way of a call.
    pub(crate) fn decide(&self, old: &Cell) -> Decision {
        let crashed = || {
            let crash = self.canary.vitals()?.last_crash?;
            Some(format!("what it runs in ended: {}", crash.reason))
        };
        let trouble = self.trouble_at_once().or_else(crashed);
        let (old, new) = self.served(old);
        let now = Instant::now();
        let decision = judge(&self.rule, old, new, now.duration_since(self.since), trouble);
        if decision == Decision::Promote && self.is_postponed(now) {
            return Decision::GoOn;
        }
        decision
    }

    /// Puts its promotion off for a while. It is rolled back at once all the same.
    pub(crate) fn postpone(&self, now: Instant) {
        *lock(&self.postponed) = Some(now + PROMOTE_AGAIN);
    }

    fn is_postponed(&self, now: Instant) -> bool {
        lock(&self.postponed).is_some_and(|until| now < until)
    }
}

/// Whether `other` has this service with the same methods and guards, in a version that serves
/// those who use this one.
fn is_alike(service: &Service, other: &Manifest) -> bool {
    let mut services = other.services.iter();
    let Some(other) = services.find(|one| one.export.name == service.export.name) else {
        return false;
    };
    let compatible = format!("^{}", service.export.version).parse::<VersionReq>();
    let is_compatible = compatible.is_ok_and(|one| one.matches(&other.export.version));
    is_compatible && service.methods == other.methods && service.guards == other.guards
}
