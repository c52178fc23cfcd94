//! Loads a plan: event-driven over the graph, with a bounded number of slots.
//!
//! One thread decides and waits for events; the others load. A load that misses its deadline
//! cannot be stopped inside a process, so its thread is left behind and replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use modunest_core::name::PluginName;

use super::native::{self, LoadError, NativeInstance};
use super::{Cell, Host, Plan, State, native_host};
use crate::config::HostSettings;
use crate::store::{Installed, LIBRARY_NAME};

/// How long a load has the dynamic linker for itself. Most loads are over long before, and the
/// linker lets only one in at a time, so loading two at once only makes processors interrupt
/// one another. What takes longer is busy with its own start, and others overtake it.
const OVERTAKEN_AFTER: Duration = Duration::from_millis(3);

struct Job {
    cell: Arc<Cell>,
    installed: Installed,
}

/// What a loading thread says.
enum Event {
    Ended(PluginName, Result<(), LoadError>),
}

/// Loads everything that can be loaded. Blocks; every plugin has its state afterwards.
pub fn load_all(plan: Plan, settings: &HostSettings) -> Host {
    let Plan { host, waits, libraries } = plan;
    let mut loader = Loader {
        settings,
        libraries,
        workers: Workers::new(),
        users: BTreeMap::new(),
        missing: BTreeMap::new(),
        queue: VecDeque::new(),
        running: BTreeMap::new(),
        overtake_at: Instant::now(),
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
    loader.run(&host);
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

struct Loader<'s> {
    settings: &'s HostSettings,
    libraries: BTreeMap<PluginName, Installed>,
    workers: Workers,
    /// Who waits for a plugin.
    users: BTreeMap<PluginName, Vec<(Arc<Cell>, bool)>>,
    /// For how many others a plugin still waits.
    missing: BTreeMap<PluginName, usize>,
    queue: VecDeque<Arc<Cell>>,
    running: BTreeMap<PluginName, (Arc<Cell>, Instant)>,
    /// When the next load may start beside those that run.
    overtake_at: Instant,
}

impl Loader<'_> {
    fn run(&mut self, host: &Host) {
        loop {
            while self.may_start() {
                let Some(cell) = self.queue.pop_front() else { break };
                self.start(cell);
            }
            let Some(mut next) = self.running.values().map(|(_, until)| *until).min() else {
                if self.queue.is_empty() {
                    return;
                }
                continue;
            };
            if !self.queue.is_empty() && self.running.len() < self.settings.slots {
                next = next.min(self.overtake_at);
            }
            let left = next.saturating_duration_since(Instant::now());
            match self.workers.events.recv_timeout(left) {
                Ok(Event::Ended(name, outcome)) => {
                    // An end after the deadline changes nothing any more.
                    if let Some((cell, _)) = self.running.remove(&name) {
                        self.ended(&cell, outcome);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.give_up_late(),
                // Only when the threads' own sender is gone, which this value holds.
                Err(RecvTimeoutError::Disconnected) => {
                    for cell in host.cells() {
                        cell.give_up("the loading threads ended".to_owned());
                    }
                    return;
                }
            }
        }
    }

    fn may_start(&self) -> bool {
        self.running.is_empty()
            || (self.running.len() < self.settings.slots && Instant::now() >= self.overtake_at)
    }

    fn start(&mut self, cell: Arc<Cell>) {
        let Some(installed) = self.libraries.remove(cell.name()) else { return };
        cell.set(State::Loading, None);
        let now = Instant::now();
        let until = now + self.settings.load_timeout;
        self.overtake_at = now + OVERTAKEN_AFTER;
        let name = cell.name().clone();
        self.running.insert(name.clone(), (cell.clone(), until));
        if let Err(error) =
            self.workers.give(Job { cell: cell.clone(), installed }, self.running.len())
        {
            self.running.remove(&name);
            self.ended(&cell, Err(LoadError::Open(format!("no thread can be started: {error}"))));
        }
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
        let late: Vec<PluginName> = self
            .running
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in late {
            let Some((cell, _)) = self.running.remove(&name) else { continue };
            let limit = self.settings.load_timeout.as_millis();
            if cell.give_up(format!("it did not load within {limit} ms")) {
                tracing::warn!(plugin = %name, limit_ms = limit, "gave up loading; its thread is left behind");
                self.workers.lost += 1;
            }
            self.settle(&cell);
        }
    }

    /// Tells those that wait for a plugin what became of it.
    fn settle(&mut self, cell: &Arc<Cell>) {
        let users = self.users.remove(cell.name()).unwrap_or_default();
        if cell.status().state != State::Ready {
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

/// Threads that load, started as they are needed.
struct Workers {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    ends: Sender<Event>,
    events: Receiver<Event>,
    started: usize,
    /// Threads that hang in a plugin.
    lost: usize,
}

impl Workers {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel();
        let (ends, events) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        Workers { jobs, queue, ends, events, started: 0, lost: 0 }
    }

    /// Gives a job away, when `busy` threads are to be at work with it.
    fn give(&mut self, job: Job, busy: usize) -> std::io::Result<()> {
        if self.started - self.lost < busy {
            let (queue, ends) = (self.queue.clone(), self.ends.clone());
            std::thread::Builder::new()
                .name("load".to_owned())
                .spawn(move || work(&queue, &ends))?;
            self.started += 1;
        }
        // The receiver lives in `self`.
        self.jobs.send(job).map_err(|_| std::io::Error::other("the loading threads ended"))
    }
}

/// Loads until there are no more jobs, or nobody listens.
fn work(queue: &Mutex<Receiver<Job>>, ends: &Sender<Event>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { cell, installed }) = job else { return };
        let outcome = load(&cell, &installed);
        if ends.send(Event::Ended(cell.name().clone(), outcome)).is_err() {
            return;
        }
    }
}

fn load(cell: &Arc<Cell>, installed: &Installed) -> Result<(), LoadError> {
    let record = installed.file(LIBRARY_NAME).ok_or(LoadError::NoLibrary(LIBRARY_NAME))?;
    let table = native::open(&installed.folder.join(LIBRARY_NAME), record)?;
    let instance = NativeInstance::start(table, native_host::table(cell), cell.config())?;
    cell.open(Box::new(instance)).map_err(LoadError::Start)
}
