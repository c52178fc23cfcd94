//! Loads a plan: event-driven over the graph, with a bounded number of slots.
//!
//! A loading thread that is done with one plugin decides what follows from it and takes the
//! next one itself. One more thread only watches the clock: for loads that others may
//! overtake, and for deadlines. A load that misses its deadline cannot be stopped inside a
//! process, so its thread is left behind and replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::component::{self, Ready, Unpacked};
use super::native::LoadError;
use super::plan::Load;
use super::process::Runners;
use super::start::{Code, Place, start};
use super::{Cell, Host, Plan, State, Tier};
use crate::clib;
use crate::config::HostSettings;

/// How long the load of a library in this process has its linker for itself. Most loads are over
/// long before. The dynamic linker lets only one in at a time, and what the others would do
/// meanwhile, copying and hashing their libraries, makes processors interrupt one another: that was
/// measured, at half as much CPU time again and no time gained. What takes longer is busy with its
/// own start, and others overtake it.
const OVERTAKEN_AFTER: Duration = Duration::from_millis(3);

/// What the engine keeps on the heap for one component, about: that of the tests takes two thirds.
const COMPONENT_HEAP_BYTES: usize = 128 * 1024;
/// The same of a library, by what 500 small ones took (`cargo xtask bench host`).
const LIBRARY_HEAP_BYTES: usize = 2 * 1024;

/// Loads everything that can be loaded. Blocks; every plugin has its state afterwards.
pub fn load_all(plan: Plan, settings: &HostSettings) -> Host {
    let Plan { host, mut loads } = plan;
    let components = components(&mut loads, settings);
    let placed = loads.iter().filter_map(|load| Some((&load.cell, load.tier?)));
    let confined = placed.filter(|(_, tier)| tier.is_confined());
    let runners = Arc::new(Runners::new(confined, settings));
    let mut loader = Loader {
        slots: settings.slots,
        nodes: nodes(loads, components),
        runners,
        queue: VecDeque::new(),
        jobs: VecDeque::new(),
        running: BTreeMap::new(),
        idle: 0,
        watched_until: Instant::now(),
        over: false,
    };
    // Those that were refused by the plan block their users before anything starts.
    for at in 0..loader.nodes.len() {
        let cell = &loader.nodes[at].cell;
        if cell.status().state == State::Failed {
            tracing::warn!(plugin = %cell.name(), version = %cell.version(), reason = %cell.trouble(), "not loaded");
            loader.settle(at);
        }
    }
    let ready = loader.nodes.iter().enumerate().filter(|(_, node)| {
        let is_to_load = node.code.is_some() && node.cell.status().state == State::Waiting;
        is_to_load && node.missing == 0
    });
    loader.queue = ready.map(|(at, _)| at).collect();
    let work = Arc::new(Work {
        loader: Mutex::new(loader),
        handed: Condvar::new(),
        turned: Condvar::new(),
    });
    watch(&work);
    host
}

/// Compiles what is to be loaded and is a component; answers each with its place in the order.
fn components(loads: &mut [Load], settings: &HostSettings) -> Vec<(usize, Ready)> {
    let used = loads.iter().filter_map(|load| load.component.as_ref());
    let used = used.map(Unpacked::digest).collect();
    let starting = loads.iter_mut().enumerate().filter(|(_, load)| !load.goes_on);
    let wanted = starting.filter_map(|(at, Load { cell, tier, component, .. })| {
        // What may not run anywhere is not compiled either.
        let tier = (*tier)?;
        Some((at, (cell.name().clone(), tier, component.take()?)))
    });
    let (places, wanted): (Vec<usize>, Vec<_>) = wanted.unzip();
    places.into_iter().zip(component::prepare(wanted, &used, settings)).collect()
}

/// The graph that is loaded.
fn nodes(loads: Vec<Load>, components: Vec<(usize, Ready)>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::with_capacity(loads.len());
    for (at, Load { cell, goes_on, waits, tier, library, .. }) in loads.into_iter().enumerate() {
        let mut node = Node { cell, users: Vec::new(), missing: 0, tier, code: None };
        if !goes_on {
            node.code = Some(Code::Library(library));
            for (used, optional) in waits {
                let used = &mut nodes[used];
                used.users.push((at, optional));
                node.missing += usize::from(!used.cell.status().state.is_up());
            }
        }
        nodes.push(node);
    }
    for (at, component) in components {
        nodes[at].code = Some(Code::Component(Box::new(component)));
    }
    nodes
}

/// What is decided, and by whom next. Every method but those of the threads is called with
/// the lock held, and none of them calls a plugin.
struct Loader {
    slots: usize,
    /// Every plugin, in the host's order; the others are named by their places in it.
    nodes: Vec<Node>,
    runners: Arc<Runners>,
    /// What waits for nothing but its turn.
    queue: VecDeque<usize>,
    /// What is started, for the next thread that is free.
    jobs: VecDeque<Job>,
    /// What is started and has neither ended nor missed its deadline, and since when.
    running: BTreeMap<usize, Instant>,
    /// Threads that are free.
    idle: usize,
    /// When the watching thread looks again by itself.
    watched_until: Instant,
    /// Everything has its state; the threads end.
    over: bool,
}

/// One plugin.
struct Node {
    cell: Arc<Cell>,
    /// Who waits for it, and whether they also load without it.
    users: Vec<(usize, bool)>,
    /// For how many others it still waits.
    missing: usize,
    /// Where it runs; nothing for one that may not run anywhere.
    tier: Option<Tier>,
    /// What it is made of, until it is started.
    code: Option<Code>,
}

struct Job {
    at: usize,
    cell: Arc<Cell>,
    place: Place,
}

/// What the threads share.
struct Work {
    loader: Mutex<Loader>,
    /// There is a job, or there will be none any more.
    handed: Condvar,
    /// The watching thread has to look before its time.
    turned: Condvar,
}

impl Work {
    /// A panic while it was held would be one of ours, between two plugins; the rest is loaded.
    fn lock(&self) -> MutexGuard<'_, Loader> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts threads as they are needed and watches the clock until everything has its state.
fn watch(work: &Arc<Work>) {
    let mut loader = work.lock();
    loop {
        loader.give_up_late();
        loader.start_ready();
        while loader.jobs.len() > loader.idle {
            let shared = work.clone();
            let thread = std::thread::Builder::new().name("load".to_owned());
            match thread.spawn(move || load_jobs(&shared)) {
                Ok(_) => loader.idle += 1,
                Err(error) => loader.cannot_start(&error),
            }
        }
        if !loader.jobs.is_empty() {
            work.handed.notify_one();
        }
        if loader.is_done() {
            loader.over = true;
            work.handed.notify_all();
            return;
        }
        let now = Instant::now();
        // Without a deadline there is no load, and something is ready to be started.
        loader.watched_until = loader.next_look().unwrap_or(now);
        let left = loader.watched_until.saturating_duration_since(now);
        let waited = work.turned.wait_timeout(loader, left);
        loader = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Loads until everything has its state, or until a plugin has held this thread for so long
/// that another took its place.
fn load_jobs(work: &Work) {
    let mut piece = Vec::new();
    let room = work.lock().room_of_thread();
    clib::make_room(room);
    let mut loader = work.lock();
    while !loader.over {
        let Some(job) = loader.jobs.pop_front() else {
            loader = work.handed.wait(loader).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        loader.idle -= 1;
        if !loader.jobs.is_empty() {
            work.handed.notify_one();
        }
        drop(loader);
        let Job { at, cell, place } = job;
        let outcome = start(&cell, place, &mut piece);
        let outcome = outcome.and_then(|made| cell.open(made).map_err(LoadError::Start));
        loader = work.lock();
        // An end after the deadline changes nothing any more.
        if loader.running.remove(&at).is_none() {
            return;
        }
        loader.idle += 1;
        loader.ended(at, outcome);
        loader.start_ready();
        if loader.is_done()
            || loader.jobs.len() > loader.idle
            || loader.next_look().is_some_and(|at| at < loader.watched_until)
        {
            work.turned.notify_one();
        }
    }
}

impl Loader {
    /// Starts what may be started now.
    fn start_ready(&mut self) {
        loop {
            let Some(&at) = self.queue.front() else { return };
            let may_start = self.running.is_empty()
                || (self.running.len() < self.slots
                    && (self.needs_no_linker(at)
                        || self.overtake_at().is_none_or(|from| from <= Instant::now())));
            if !may_start {
                return;
            }
            self.queue.pop_front();
            let Node { cell, tier, code, .. } = &mut self.nodes[at];
            // What may not run anywhere was refused by the plan.
            let (Some(tier), Some(code)) = (*tier, code.take()) else { continue };
            let place = Place { tier, runners: self.runners.clone(), code };
            if cell.is_lazy() {
                cell.idle(place);
                self.settle(at);
                continue;
            }
            cell.set(State::Loading, None);
            self.running.insert(at, Instant::now());
            self.jobs.push_back(Job { at, cell: cell.clone(), place });
        }
    }

    /// Bytes that a thread may allocate for its part of what is still to be loaded in this process.
    fn room_of_thread(&self) -> usize {
        let left = || self.nodes.iter().filter(|node| node.code.is_some());
        let components = left().filter(|node| node.tier == Some(Tier::Component)).count();
        let libraries = left().filter(|node| node.tier == Some(Tier::InProcess)).count();
        // The linker takes one library at a time, so one thread loads most of them.
        components.div_ceil(self.slots.max(1)) * COMPONENT_HEAP_BYTES
            + libraries * LIBRARY_HEAP_BYTES
    }

    /// Whether a load leaves the linker of this process alone: a runner has its own, and a component
    /// is none of its business.
    fn needs_no_linker(&self, at: usize) -> bool {
        self.nodes[at].tier.is_some_and(|tier| tier != Tier::InProcess)
    }

    /// When the next library may be loaded beside those that are.
    fn overtake_at(&self) -> Option<Instant> {
        let here = self.running.iter().filter(|(at, _)| !self.needs_no_linker(**at));
        here.map(|(_, since)| *since + OVERTAKEN_AFTER).max()
    }

    /// When there is something to do, even if nothing ends until then.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let running = self.running.iter();
        let deadline = running.map(|(at, since)| self.nodes[*at].cell.late_at(*since, now)).min();
        let may_overtake = !self.queue.is_empty() && self.running.len() < self.slots;
        let overtake = self.overtake_at().filter(|_| may_overtake);
        deadline.into_iter().chain(overtake).min()
    }

    fn is_done(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// The last job has no thread.
    fn cannot_start(&mut self, error: &std::io::Error) {
        let Some(Job { at, .. }) = self.jobs.pop_back() else { return };
        self.running.remove(&at);
        self.ended(at, Err(LoadError::Open(format!("no thread can be started: {error}"))));
    }

    fn ended(&mut self, at: usize, outcome: Result<(), LoadError>) {
        let cell = &self.nodes[at].cell;
        match outcome {
            Ok(()) => {
                tracing::debug!(plugin = %cell.name(), version = %cell.version(), "loaded");
            }
            Err(error) => {
                tracing::warn!(plugin = %cell.name(), version = %cell.version(), %error, "not loaded");
                cell.set(State::Failed, Some(error.to_string()));
            }
        }
        self.settle(at);
    }

    fn give_up_late(&mut self) {
        let now = Instant::now();
        let late = self
            .running
            .iter()
            .filter_map(|(at, since)| Some((*at, self.nodes[*at].cell.late(*since, now)?)));
        let late: Vec<(usize, String)> = late.collect();
        for (at, reason) in late {
            self.running.remove(&at);
            let cell = &self.nodes[at].cell;
            tracing::warn!(plugin = %cell.name(), reason, "gave up loading; its thread is left behind");
            cell.give_up(reason);
            self.settle(at);
        }
    }

    /// Tells those that wait for a plugin what became of it.
    fn settle(&mut self, at: usize) {
        let users = std::mem::take(&mut self.nodes[at].users);
        if users.is_empty() {
            return;
        }
        if !self.nodes[at].cell.status().state.is_up() {
            self.block_needing(at, &users);
        }
        for (user, _) in users {
            let Node { cell, missing, .. } = &mut self.nodes[user];
            *missing = missing.saturating_sub(1);
            if *missing == 0 && cell.status().state == State::Waiting {
                self.queue.push_back(user);
            }
        }
    }

    /// Blocks those that need a plugin that is not to be had, and those that need them.
    fn block_needing(&mut self, at: usize, users: &[(usize, bool)]) {
        let cell = &self.nodes[at].cell;
        let (name, version, trouble) = (cell.name().clone(), cell.version(), cell.trouble());
        let reason = format!("needs {name} {version}, which {trouble}");
        for (at, optional) in users {
            let user = &self.nodes[*at].cell;
            if *optional || user.status().state != State::Waiting {
                continue;
            }
            tracing::warn!(plugin = %user.name(), version = %user.version(), %reason, "not loaded");
            user.set(State::Blocked, Some(reason.clone()));
            self.settle(*at);
        }
    }
}
