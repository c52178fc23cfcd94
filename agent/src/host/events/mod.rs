//! Events: from the plugin that publishes one to every plugin that receives it.
//!
//! A receiver has one mailbox, and a thread delivers from it, one event after the other, in the
//! order in which they came; different receivers do not wait for one another. Each of its topics
//! may fill only its own share of the mailbox. Publishing hands an event to all receivers or,
//! while one of them has no room, to none: the publisher is refused or waits, as its topic says.
//!
//! Delivery is at least once while the agent's process lives, also over a change of generations:
//! the mailbox goes over to the plugin's next instance. An event waits while its receiver starts
//! anew, or is left alone by a circuit breaker; one at which the receiver fails again and again is
//! given up, and so are all where it cannot be loaded any more. What is still waiting when the agent
//! ends is lost; a plugin that must not miss anything keeps a record of its own.

mod mailbox;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use modunest_core::manifest::{Capability, Manifest, WhenFull};
use modunest_core::name::{PluginName, ServiceName};
use modunest_sdk::Error;
use modunest_sdk::links::read_publish;
use serde::{Deserialize, Serialize};

use super::services::Schema;
use super::{Cell, Host, State, frame};
use crate::store::Installed;
use mailbox::{Mailbox, Parcel};

/// How long publishing waits for room where the call has no deadline of its own.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A topic among all: who publishes it, and its name.
type TopicName = (PluginName, ServiceName);

/// The events of one plugin: those that it publishes and those that it receives.
#[derive(Default)]
pub(super) struct Events {
    topics: BTreeMap<ServiceName, Topic>,
    schemas: OnceLock<EventSchemas>,
    /// Of a plugin that receives; taken over from its predecessor.
    mailbox: OnceLock<Arc<Mailbox>>,
}

/// A topic at its publisher.
struct Topic {
    when_full: WhenFull,
    /// In the order of their plugins' names, so that all who lock several lock them alike.
    receivers: ArcSwap<Vec<Arc<Mailbox>>>,
    published: AtomicU64,
    refused: AtomicU64,
}

/// The compiled schemas of what a plugin publishes.
#[derive(Default)]
pub(super) struct EventSchemas(BTreeMap<ServiceName, Schema>);

/// What became of a plugin's events since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventCounters {
    /// Events that it published.
    pub published: u64,
    /// Events that it could not publish: against their schema, or no room.
    pub refused: u64,
    /// Events that it received and dealt with.
    pub delivered: u64,
    /// Deliveries that failed and were tried again.
    pub retried: u64,
    /// Events that were given up.
    pub dead: u64,
    /// Events that wait for it now.
    pub waiting: u64,
}

impl EventSchemas {
    /// Reads and compiles the schemas that a manifest's events name.
    ///
    /// # Errors
    /// Every one that cannot be used.
    pub(super) fn read(installed: &Installed) -> Result<EventSchemas, Vec<String>> {
        let (mut schemas, mut unusable) = (BTreeMap::new(), Vec::new());
        for event in &installed.manifest.events {
            if let Some(name) = event.schema.as_deref() {
                match Schema::read(&installed.folder, name, installed.file(name)) {
                    Ok(schema) => drop(schemas.insert(event.name.clone(), schema)),
                    Err(why) => unusable.push(why),
                }
            }
        }
        if unusable.is_empty() { Ok(EventSchemas(schemas)) } else { Err(unusable) }
    }
}

impl Events {
    pub(super) fn new(manifest: &Manifest) -> Self {
        let own = manifest.events.iter().filter(|event| event.from.is_none());
        let topics = own.map(|event| {
            let topic = Topic {
                when_full: event.when_full,
                receivers: ArcSwap::default(),
                published: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            };
            (event.name.clone(), topic)
        });
        Events { topics: topics.collect(), ..Events::default() }
    }

    /// Takes in the schemas, once, before the first call.
    pub(super) fn adopt(&self, schemas: EventSchemas) {
        // A cell is made with its schemas, so there are none yet.
        drop(self.schemas.set(schemas));
    }

    pub(super) fn counters(&self) -> EventCounters {
        let mut counters = self.mailbox.get().map(|mailbox| mailbox.counters()).unwrap_or_default();
        for topic in self.topics.values() {
            counters.published += topic.published.load(Ordering::Relaxed);
            counters.refused += topic.refused.load(Ordering::Relaxed);
        }
        counters
    }
}

/// Gives a cell that receives events its mailbox: that of `old`, the same plugin's cell of the
/// generation before, or a new one.
pub(super) fn open_mailbox(cell: &Arc<Cell>, old: Option<&Arc<Cell>>) {
    if !cell.manifest().events.iter().any(|event| event.from.is_some()) {
        return;
    }
    let inherited = old.and_then(|old| old.links().events.mailbox.get());
    let mailbox = inherited.cloned().unwrap_or_else(|| Mailbox::new(cell));
    // The cell is new, so there is none yet.
    drop(cell.links().events.mailbox.set(mailbox));
}

/// Connects the topics of a host's plugins with their receivers. `all` is false before a
/// generation is switched to: then only the topics of its new plugins are connected.
pub(super) fn connect(host: &Host, all: bool) {
    let mut receivers: BTreeMap<TopicName, Vec<Arc<Mailbox>>> = BTreeMap::new();
    for cell in host.cells() {
        let Some(mailbox) = cell.links().events.mailbox.get() else { continue };
        // One that cannot be loaded would only fill up and keep its publishers waiting.
        if matches!(cell.status().state, State::Failed | State::Blocked) {
            continue;
        }
        if all {
            mailbox.bind(cell);
        }
        for event in &cell.manifest().events {
            let Some(from) = &event.from else { continue };
            // The operator may keep an event from a plugin that can do without it.
            if cell.is_refused(|asked| matches!(asked, Capability::Events(item) if item.plugin == *from && item.item == event.name)) {
                continue;
            }
            receivers.entry((from.clone(), event.name.clone())).or_default().push(mailbox.clone());
        }
    }
    for cell in host.cells() {
        // What goes on from the generation before serves, and speaks to that one's receivers. What is
        // new does not yet.
        if !all && cell.status().state.serves() {
            continue;
        }
        for (name, topic) in &cell.links().events.topics {
            let key = (cell.name().clone(), name.clone());
            topic.receivers.store(receivers.remove(&key).unwrap_or_default().into());
        }
    }
}

impl Cell {
    /// Publishes an event of this plugin, as [`modunest_sdk::links::PUBLISH`] asks for it.
    /// Blocks while a receiver has no room, if the topic wants that.
    pub(super) fn publish(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let (name, payload) = read_publish(request)?;
        let events = &self.links().events;
        let found = events.topics.iter().find(|(topic, _)| topic.as_str() == name);
        let (name, topic) = found.ok_or_else(|| {
            Error::Denied(format!("the manifest of {} publishes no event {name}", self.name()))
        })?;
        let published = self.check_event(name, payload).and_then(|()| {
            let trace = frame::trace().as_deref().unwrap_or_default().to_owned();
            let parcel = Parcel::new(self.name(), name, payload, trace);
            topic.hand_over(&parcel, frame::deadline_ms())
        });
        let counter = if published.is_ok() { &topic.published } else { &topic.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        published.map(|()| Vec::new())
    }

    fn check_event(&self, name: &ServiceName, payload: &[u8]) -> Result<(), Error> {
        let schemas = self.links().events.schemas.get();
        let Some(schema) = schemas.and_then(|schemas| schemas.0.get(name)) else { return Ok(()) };
        schema.check(payload).map_err(|why| {
            Error::InvalidInput(format!(
                "the event breaks the schema of {}:{name}: {why}",
                self.name()
            ))
        })
    }
}

impl Topic {
    /// Puts an event into every mailbox, or into none.
    fn hand_over(&self, parcel: &Parcel, deadline_ms: u64) -> Result<(), Error> {
        let until = Instant::now() + patience(deadline_ms);
        loop {
            let receivers = self.receivers.load_full();
            let Some(full) = Mailbox::put_into_all(&receivers, parcel) else { return Ok(()) };
            match self.when_full {
                WhenFull::Refuse => {
                    return Err(Error::Unavailable(format!(
                        "{} events {} already wait for {}",
                        full.limit(parcel),
                        parcel.topic(),
                        full.plugin()
                    )));
                }
                WhenFull::Wait if !full.wait_for_room(parcel, until) => {
                    return Err(Error::DeadlineExceeded(format!(
                        "{} had no room for {} in time",
                        full.plugin(),
                        parcel.topic()
                    )));
                }
                WhenFull::Wait => {}
            }
        }
    }
}

/// What is left until a deadline, bounded.
fn patience(deadline_ms: u64) -> Duration {
    if deadline_ms == 0 {
        return WAIT_MAX;
    }
    let now = modunest_runtime::clock::now().as_millis();
    Duration::from_millis(deadline_ms.saturating_sub(now)).min(WAIT_MAX)
}
