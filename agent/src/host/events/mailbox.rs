//! What waits for one receiver, and the thread that delivers it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use modunest_core::manifest::QUEUE_DEFAULT;
use modunest_core::name::{PluginName, ServiceName};
use modunest_sdk::Error;
use modunest_sdk::abi::RequestKind;

use super::{EventCounters, TopicName};
use crate::doubling;
use crate::host::canary::Item;
use crate::host::{Call, Cell, State, Unserved};

/// Pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest pause while the receiver takes no events: to look whether it does costs next to nothing.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a thread without events waits for the next before it ends.
const LINGER: Duration = Duration::from_secs(2);

/// An event on its way. Copies share the payload.
#[derive(Clone)]
pub(super) struct Parcel {
    from: PluginName,
    event: ServiceName,
    payload: Arc<[u8]>,
    trace: String,
}

/// One receiver's mailbox.
pub(super) struct Mailbox {
    plugin: PluginName,
    inner: Mutex<Inner>,
    /// Something came, or the receiver changed.
    news: Condvar,
    /// Something left.
    room: Condvar,
    delivered: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
}

struct Inner {
    receiver: Weak<Cell>,
    parcels: VecDeque<Parcel>,
    /// How many of each topic wait, and how many may.
    topics: BTreeMap<TopicName, (usize, usize)>,
    /// Whether a thread delivers.
    running: bool,
}

/// What is to be done after an attempt.
enum Next {
    Done,
    /// Again, after a pause: the receiver failed at it.
    Again,
    /// The same, but it was no attempt: the receiver was not called, and will be.
    Wait,
    /// Never again.
    GiveUp(String),
    /// Neither this one nor any other: nobody is there to receive them.
    GiveUpAll(String),
}

impl Parcel {
    pub(super) fn new(
        from: &PluginName,
        event: &ServiceName,
        payload: &[u8],
        trace: String,
    ) -> Self {
        Parcel { from: from.clone(), event: event.clone(), payload: payload.into(), trace }
    }

    /// `org/plugin:event`.
    pub(super) fn topic(&self) -> String {
        format!("{}:{}", self.from, self.event)
    }

    fn key(&self) -> TopicName {
        (self.from.clone(), self.event.clone())
    }
}

impl Mailbox {
    pub(super) fn new(cell: &Arc<Cell>) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox {
            plugin: cell.name().clone(),
            inner: Mutex::new(Inner {
                receiver: Weak::new(),
                parcels: VecDeque::new(),
                topics: BTreeMap::new(),
                running: false,
            }),
            news: Condvar::new(),
            room: Condvar::new(),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        });
        mailbox.bind(cell);
        mailbox
    }

    pub(super) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// From now on this cell receives.
    pub(super) fn bind(self: &Arc<Self>, cell: &Arc<Cell>) {
        let mut inner = self.lock();
        inner.receiver = Arc::downgrade(cell);
        for event in &cell.manifest().events {
            if let Some(from) = &event.from {
                let key = (from.clone(), event.name.clone());
                inner.topics.entry(key).or_default().1 = event.queue;
            }
        }
        self.start(&mut inner);
        drop(inner);
        self.news.notify_all();
        // There may be more room than before.
        self.room.notify_all();
    }

    /// Puts a parcel into every mailbox, or answers the first that has no room. They come in
    /// the order of their plugins' names, so two who do this never wait for each other.
    pub(super) fn put_into_all<'m>(
        mailboxes: &'m [Arc<Mailbox>],
        parcel: &Parcel,
    ) -> Option<&'m Arc<Mailbox>> {
        let key = parcel.key();
        let mut locked = Vec::with_capacity(mailboxes.len());
        for mailbox in mailboxes {
            let inner = mailbox.lock();
            if inner.topics.get(&key).is_some_and(|(waiting, limit)| waiting >= limit) {
                return Some(mailbox);
            }
            locked.push((mailbox, inner));
        }
        for (mailbox, mut inner) in locked {
            inner.topics.entry(key.clone()).or_insert((0, QUEUE_DEFAULT)).0 += 1;
            inner.parcels.push_back(parcel.clone());
            mailbox.start(&mut inner);
            drop(inner);
            mailbox.news.notify_all();
        }
        None
    }

    /// How many of a parcel's topic may wait.
    pub(super) fn limit(&self, parcel: &Parcel) -> usize {
        self.lock().topics.get(&parcel.key()).map_or(QUEUE_DEFAULT, |(_, limit)| *limit)
    }

    /// Waits until one more of a parcel's topic has room; false when time is over before.
    pub(super) fn wait_for_room(&self, parcel: &Parcel, until: Instant) -> bool {
        let key = parcel.key();
        let left = until.saturating_duration_since(Instant::now());
        let full = |inner: &mut Inner| {
            inner.topics.get(&key).is_some_and(|(waiting, limit)| waiting >= limit)
        };
        let waited = self.room.wait_timeout_while(self.lock(), left, full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn counters(&self) -> EventCounters {
        EventCounters {
            delivered: self.delivered.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            waiting: self.lock().parcels.len() as u64,
            ..EventCounters::default()
        }
    }

    /// What it holds is never left half-changed.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a thread delivers, if there is anything to deliver.
    fn start(self: &Arc<Self>, inner: &mut Inner) {
        if inner.running || inner.parcels.is_empty() {
            return;
        }
        let mailbox = self.clone();
        let thread = std::thread::Builder::new().name("events".to_owned());
        match thread.spawn(move || mailbox.deliver()) {
            Ok(_) => inner.running = true,
            // The parcel waits, and the next one tries again.
            Err(error) => {
                tracing::error!(plugin = %self.plugin, %error, "no thread can be started to deliver events");
            }
        }
    }

    fn deliver(&self) {
        // Of the parcel in front, and how often its receiver was not to be had since the last one.
        let (mut attempts, mut waits) = (0, 0);
        while let Some((parcel, receiver)) = self.next() {
            let next = attempt(&parcel, receiver.as_ref(), attempts + 1);
            drop(receiver);
            match next {
                Next::Again => {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    self.pause(doubling::pause(FIRST_PAUSE, attempts, PAUSE_MAX));
                    (attempts, waits) = (attempts + 1, 0);
                    continue;
                }
                Next::Wait => {
                    self.pause(doubling::pause(FIRST_PAUSE, waits, WAIT_MAX));
                    waits += 1;
                    continue;
                }
                Next::Done => {
                    self.delivered.fetch_add(1, Ordering::Relaxed);
                    self.leave(1);
                }
                Next::GiveUp(why) => self.give_up(&parcel, 1, &why),
                Next::GiveUpAll(why) => {
                    let waiting = self.lock().parcels.len();
                    self.give_up(&parcel, waiting, &why);
                }
            }
            (attempts, waits) = (0, 0);
        }
    }

    /// The parcel whose turn it is, and who receives it; nothing when none came for a while.
    fn next(&self) -> Option<(Parcel, Option<Arc<Cell>>)> {
        let empty = |inner: &mut Inner| inner.parcels.is_empty();
        let waited = self.news.wait_timeout_while(self.lock(), LINGER, empty);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        let next = inner.parcels.front().map(|one| (one.clone(), inner.receiver.upgrade()));
        inner.running = next.is_some();
        next
    }

    /// Waits before the next attempt, but no longer once another receiver is there.
    fn pause(&self, pause: Duration) {
        let inner = self.lock();
        let receiver = inner.receiver.clone();
        let same = |inner: &mut Inner| inner.receiver.ptr_eq(&receiver);
        drop(self.news.wait_timeout_while(inner, pause, same));
    }

    fn give_up(&self, parcel: &Parcel, count: usize, why: &str) {
        self.dead.fetch_add(count as u64, Ordering::Relaxed);
        tracing::warn!(plugin = %self.plugin, event = %parcel.topic(), count, why, "gave up delivering events");
        self.leave(count);
    }

    /// Takes out what was dealt with.
    fn leave(&self, count: usize) {
        let mut inner = self.lock();
        for _ in 0..count {
            let Some(parcel) = inner.parcels.pop_front() else { break };
            if let Some((waiting, _)) = inner.topics.get_mut(&parcel.key()) {
                *waiting = waiting.saturating_sub(1);
            }
        }
        drop(inner);
        self.room.notify_all();
    }
}

fn attempt(parcel: &Parcel, receiver: Option<&Arc<Cell>>, attempts: u32) -> Next {
    let Some(cell) = receiver else {
        return Next::GiveUpAll("the plugin is not there any more".to_owned());
    };
    let tried = cell.tried(Item::Event(&parcel.from, &parcel.event));
    let called = tried.as_ref().unwrap_or(cell);
    let settings = cell.links().settings();
    let deadline = modunest_runtime::clock::now().plus(settings.event_timeout);
    let answer = called.try_call(Call {
        kind: RequestKind::Event,
        target: parcel.event.as_str(),
        payload: &parcel.payload,
        trace: &parcel.trace,
        caller: parcel.from.as_str(),
        deadline_ms: deadline.as_millis(),
    });
    match answer {
        Ok(_) => Next::Done,
        // Whatever becomes of it, the receiver that it is tried beside is there.
        Err(Unserved::Refused(Error::Unavailable(_))) if tried.is_some() => Next::Wait,
        Err(Unserved::Refused(error)) => refused(&error, cell.status().state),
        Err(Unserved::Failed(error)) => {
            failed(&error, cell.status().state, attempts < settings.event_attempts)
        }
    }
}

/// What follows where the receiver was not called.
fn refused(error: &Error, state: State) -> Next {
    match (error, state) {
        // The last: it is not loaded, and its manifest says that no event loads it.
        (Error::Unavailable(_), State::Failed | State::Blocked | State::Stopped | State::Idle) => {
            Next::GiveUpAll(error.to_string())
        }
        // It is on its way up, or on its way out with a successor behind it, or left alone for a
        // while, or had no place free until the deadline.
        (Error::Unavailable(_) | Error::DeadlineExceeded(_), _) => Next::Wait,
        _ => Next::GiveUp(error.to_string()),
    }
}

/// What follows where the receiver failed; `again` says whether it may be called once more.
fn failed(error: &Error, state: State, again: bool) -> Next {
    match error {
        // It was cut off.
        Error::Unavailable(_) if matches!(state, State::Stopping | State::Stopped) => Next::Wait,
        Error::Failed(_)
        | Error::Panicked(_)
        | Error::Unavailable(_)
        | Error::DeadlineExceeded(_)
            if again =>
        {
            Next::Again
        }
        _ => Next::GiveUp(error.to_string()),
    }
}
