//! Loads a plan: event-driven over the graph, with a bounded number of slots.
//!
//! A loading thread that is done with one plugin decides what follows from it and takes the
//! next one itself. One more thread only watches the clock: for loads that others may
//! overtake, and for deadlines. A load that misses its deadline cannot be stopped inside a
//! process, so its thread is left behind and replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modunest_core::archive::FileRecord;
use modunest_core::name::PluginName;

use super::component::{self, Ready};
use super::native::LoadError;
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
    let Plan { host, waits, libraries, components, tiers } = plan;
    let components = component::prepare(components, &waits, &tiers, settings);
    let placed = host.cells().filter_map(|cell| Some((cell, *tiers.get(cell.name())?)));
    let confined = placed.filter(|(_, tier)| tier.is_confined());
    let runners = Arc::new(Runners::new(confined, settings));
    let mut loader = Loader {
        slots: settings.slots,
        libraries,
        components,
        tiers,
        runners,
        users: BTreeMap::new(),
        missing: BTreeMap::new(),
        queue: VecDeque::new(),
        jobs: VecDeque::new(),
        running: BTreeMap::new(),
        idle: 0,
        watched_until: Instant::now(),
        over: false,
    };
    for name in &host.order {
        let (Some(cell), Some(waits)) = (host.cell(name), waits.get(name)) else { continue };
        let open = waits.iter().filter(|(used, _)| used.status().state == State::Waiting);
        let open: Vec<&(Arc<Cell>, bool)> = open.collect();
        loader.missing.insert(name.clone(), open.len());
        for (used, optional) in open {
            let users = loader.users.entry(used.name().clone()).or_default();
            users.push((cell.clone(), *optional));
        }
    }
    // Those that were refused by the plan block their users before anything starts.
    for name in &host.order {
        let Some(cell) = host.cell(name) else { continue };
        if cell.status().state == State::Failed {
            tracing::warn!(plugin = %name, version = %cell.version(), reason = %cell.trouble(), "not loaded");
            loader.block_needing(cell, waits_on(&host, &waits, name));
        }
    }
    for name in &host.order {
        let Some(cell) = host.cell(name) else { continue };
        if cell.status().state == State::Waiting && loader.missing.get(name) == Some(&0) {
            loader.queue.push_back(cell.clone());
        }
    }
    let work = Arc::new(Work {
        loader: Mutex::new(loader),
        handed: Condvar::new(),
        turned: Condvar::new(),
    });
    watch(&work);
    host
}

/// Those that use `name`, with whether they also load without.
fn waits_on(
    host: &Host,
    waits: &BTreeMap<PluginName, Vec<(Arc<Cell>, bool)>>,
    name: &PluginName,
) -> Vec<(Arc<Cell>, bool)> {
    let mut users = Vec::new();
    for (user, waits) in waits {
        let edge = waits.iter().find(|(used, _)| used.name() == name);
        users.extend(edge.and_then(|(_, optional)| Some((host.cell(user)?.clone(), *optional))));
    }
    users
}

/// What is decided, and by whom next. Every method but those of the threads is called with
/// the lock held, and none of them calls a plugin.
struct Loader {
    slots: usize,
    libraries: BTreeMap<PluginName, Option<FileRecord>>,
    components: BTreeMap<PluginName, Ready>,
    tiers: BTreeMap<PluginName, Tier>,
    runners: Arc<Runners>,
    /// Who waits for a plugin.
    users: BTreeMap<PluginName, Vec<(Arc<Cell>, bool)>>,
    /// For how many others a plugin still waits.
    missing: BTreeMap<PluginName, usize>,
    /// What waits for nothing but its turn.
    queue: VecDeque<Arc<Cell>>,
    /// What is started, for the next thread that is free.
    jobs: VecDeque<Job>,
    /// What is started and has neither ended nor missed its deadline, and since when.
    running: BTreeMap<PluginName, (Arc<Cell>, Instant)>,
    /// Threads that are free.
    idle: usize,
    /// When the watching thread looks again by itself.
    watched_until: Instant,
    /// Everything has its state; the threads end.
    over: bool,
}

struct Job {
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
        let Job { cell, place } = job;
        let outcome = start(&cell, place, &mut piece);
        let outcome = outcome.and_then(|made| cell.open(made).map_err(LoadError::Start));
        loader = work.lock();
        // An end after the deadline changes nothing any more.
        if loader.running.remove(cell.name()).is_none() {
            return;
        }
        loader.idle += 1;
        loader.ended(&cell, outcome);
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
            let Some(next) = self.queue.front() else { return };
            let needs_no_linker = self.needs_no_linker(next.name());
            let may_start = self.running.is_empty()
                || (self.running.len() < self.slots
                    && (needs_no_linker
                        || self.overtake_at().is_none_or(|at| at <= Instant::now())));
            if !may_start {
                return;
            }
            let Some(cell) = self.queue.pop_front() else { return };
            let Some(library) = self.libraries.remove(cell.name()) else { continue };
            // What may not run anywhere was refused by the plan.
            let Some(tier) = self.tiers.get(cell.name()).copied() else { continue };
            let component = self.components.remove(cell.name());
            let code = component.map_or(Code::Library(library), |c| Code::Component(Box::new(c)));
            let place = Place { tier, runners: self.runners.clone(), code };
            if cell.is_lazy() {
                cell.idle(place);
                self.settle(&cell);
                continue;
            }
            cell.set(State::Loading, None);
            self.running.insert(cell.name().clone(), (cell.clone(), Instant::now()));
            self.jobs.push_back(Job { cell, place });
        }
    }

    /// Bytes that a thread may allocate for its part of what is still to be loaded in this process.
    fn room_of_thread(&self) -> usize {
        let here = |name: &&PluginName| self.tiers.get(*name) == Some(&Tier::Component);
        let components = self.components.keys().filter(here).count();
        let libraries = self.tiers.values().filter(|tier| **tier == Tier::InProcess).count();
        // The linker takes one library at a time, so one thread loads most of them.
        components.div_ceil(self.slots.max(1)) * COMPONENT_HEAP_BYTES
            + libraries * LIBRARY_HEAP_BYTES
    }

    /// Whether a load leaves the linker of this process alone: a runner has its own, and a component
    /// is none of its business.
    fn needs_no_linker(&self, plugin: &PluginName) -> bool {
        self.tiers.get(plugin).is_some_and(|tier| *tier != Tier::InProcess)
    }

    /// When the next library may be loaded beside those that are.
    fn overtake_at(&self) -> Option<Instant> {
        let here = self.running.iter().filter(|(name, _)| !self.needs_no_linker(name));
        here.map(|(_, (_, since))| *since + OVERTAKEN_AFTER).max()
    }

    /// When there is something to do, even if nothing ends until then.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let deadline = self.running.values().map(|(cell, since)| cell.late_at(*since, now)).min();
        let may_overtake = !self.queue.is_empty() && self.running.len() < self.slots;
        let overtake = self.overtake_at().filter(|_| may_overtake);
        deadline.into_iter().chain(overtake).min()
    }

    fn is_done(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// The last job has no thread.
    fn cannot_start(&mut self, error: &std::io::Error) {
        let Some(Job { cell, .. }) = self.jobs.pop_back() else { return };
        self.running.remove(cell.name());
        self.ended(&cell, Err(LoadError::Open(format!("no thread can be started: {error}"))));
    }

    fn ended(&mut self, cell: &Arc<Cell>, outcome: Result<(), LoadError>) {
        match outcome {
            Ok(()) => {
                tracing::debug!(plugin = %cell.name(), version = %cell.version(), "loaded");
            }
            Err(error) => {
                tracing::warn!(plugin = %cell.name(), version = %cell.version(), %error, "not loaded");
                cell.set(State::Failed, Some(error.to_string()));
            }
        }
        self.settle(cell);
    }

    fn give_up_late(&mut self) {
        let now = Instant::now();
        let late = self
            .running
            .iter()
            .filter_map(|(name, (cell, since))| Some((name.clone(), cell.late(*since, now)?)));
        let late: Vec<(PluginName, String)> = late.collect();
        for (name, reason) in late {
            let Some((cell, _)) = self.running.remove(&name) else { continue };
            tracing::warn!(plugin = %name, reason, "gave up loading; its thread is left behind");
            cell.give_up(reason);
            self.settle(&cell);
        }
    }

    /// Tells those that wait for a plugin what became of it.
    fn settle(&mut self, cell: &Arc<Cell>) {
        let users = self.users.remove(cell.name()).unwrap_or_default();
        if !cell.status().state.is_up() {
            self.block_needing(cell, users.clone());
        }
        for (user, _) in users {
            let Some(missing) = self.missing.get_mut(user.name()) else { continue };
            *missing = missing.saturating_sub(1);
            if *missing == 0 && user.status().state == State::Waiting {
                self.queue.push_back(user);
            }
        }
    }

    /// Blocks those that need a plugin that is not to be had, and those that need them.
    fn block_needing(&mut self, cell: &Arc<Cell>, users: Vec<(Arc<Cell>, bool)>) {
        let trouble = cell.trouble();
        for (user, optional) in users {
            if optional || user.status().state != State::Waiting {
                continue;
            }
            let reason = format!("needs {} {}, which {trouble}", cell.name(), cell.version());
            tracing::warn!(plugin = %user.name(), version = %user.version(), %reason, "not loaded");
            user.set(State::Blocked, Some(reason));
            self.settle(&user);
        }
    }
}
