//! Places for calls: so many at the same time, so many more that wait, and no more.
//!
//! No plugin waits for others alone: beside the places of all, each has one for a call and one
//! for asking guards. So there are never more calls than the configured number and twice that of
//! the plugins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modunest_core::name::PluginName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::places::resize;
use crate::config::GatewaySettings;

/// Places for the calls of all plugins.
pub(super) struct Queues {
    all: Arc<Semaphore>,
    plugins: Mutex<Plugins>,
}

struct Plugins {
    bounds: Bounds,
    queues: BTreeMap<PluginName, Arc<Queue>>,
}

/// How many there may be.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Calls of all plugins.
    all: usize,
    /// Calls of one plugin.
    calls: usize,
    /// Requests that wait for one plugin, and as many that wait with an upload.
    waiting_max: usize,
}

impl Bounds {
    pub(super) fn of(settings: &GatewaySettings) -> Self {
        let GatewaySettings { calls, plugin_calls, plugin_queue, .. } = *settings;
        Bounds { all: calls, calls: plugin_calls, waiting_max: plugin_queue }
    }

    /// Uploads of one plugin among its calls. They last as long as their clients like, and so
    /// leave places for who does not.
    fn uploads(&self) -> usize {
        self.calls.div_ceil(2)
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A client that has just come.
    New,
    /// The same, with an upload.
    Upload,
    /// A stream that is open: it has been let in already, and waits in no queue.
    Open,
}

/// The places of a plugin.
struct Queue {
    calls: Line,
    uploads: Line,
    /// Beside the places of all, for its first call.
    first_call: Arc<Semaphore>,
    /// And for the first request that guards are asked about.
    first_asked: Arc<Semaphore>,
}

struct Line {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place. It goes with the call, so that one that outlives its deadline still counts.
#[allow(dead_code, reason = "held, not read")]
pub(super) struct Place {
    shared: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
    upload: Option<OwnedSemaphorePermit>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many wait already as may.
    Queue,
    /// None became free in time.
    Late,
}

impl Queues {
    pub(super) fn new(bounds: Bounds) -> Self {
        let plugins = Plugins { bounds, queues: BTreeMap::new() };
        Queues { all: Arc::new(Semaphore::new(bounds.all)), plugins: Mutex::new(plugins) }
    }

    /// Changes the bounds, also of what has begun. To be called within a runtime.
    pub(super) fn resize(&self, bounds: Bounds) {
        let mut plugins = self.plugins();
        let before = std::mem::replace(&mut plugins.bounds, bounds);
        resize(&self.all, before.all, bounds.all);
        for queue in plugins.queues.values() {
            resize(&queue.calls.places, before.calls, bounds.calls);
            resize(&queue.uploads.places, before.uploads(), bounds.uploads());
        }
    }

    /// A place for a call of a plugin, waited for until the deadline. A plugin keeps its queue
    /// over generations.
    pub(super) async fn place(
        &self,
        plugin: &PluginName,
        caller: Caller,
        until: Instant,
    ) -> Result<Place, Full> {
        let (queue, waiting_max) = self.queue(plugin);
        let waiting_max = (caller != Caller::Open).then_some(waiting_max);
        let upload = match caller {
            Caller::Upload => Some(queue.uploads.take(waiting_max, until).await?),
            Caller::New | Caller::Open => None,
        };
        let own = queue.calls.take(waiting_max, until).await?;
        // Behind the plugin's own place, so that one plugin's callers cannot hold up others.
        let shared = self.shared(&queue.first_call, until).await?;
        Ok(Place { shared, own, upload })
    }

    /// A place for asking the guards of a plugin, which are plugins of their own: among all calls
    /// only, so that the guarded plugin's callers do not keep one another from being turned away.
    pub(super) async fn guard_place(
        &self,
        plugin: &PluginName,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Full> {
        let (queue, _) = self.queue(plugin);
        self.shared(&queue.first_asked, until).await
    }

    /// A plugin's first place, or one of those of all, whichever is free before.
    async fn shared(
        &self,
        first: &Arc<Semaphore>,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Full> {
        tokio::select! {
            biased;
            place = wait(first, until) => place,
            place = wait(&self.all, until) => place,
        }
    }

    /// A plugin's queue, and how many may wait in it.
    fn queue(&self, plugin: &PluginName) -> (Arc<Queue>, usize) {
        let mut plugins = self.plugins();
        let bounds = plugins.bounds;
        if let Some(queue) = plugins.queues.get(plugin) {
            return (queue.clone(), bounds.waiting_max);
        }
        let queue = Arc::new(Queue {
            calls: Line::new(bounds.calls),
            uploads: Line::new(bounds.uploads()),
            first_call: Arc::new(Semaphore::new(1)),
            first_asked: Arc::new(Semaphore::new(1)),
        });
        plugins.queues.insert(plugin.clone(), queue.clone());
        (queue, bounds.waiting_max)
    }

    /// What it holds is never left half-changed.
    fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn new(places: usize) -> Self {
        Line { places: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0) }
    }

    /// Takes a place, and waits for it where not as many wait already as may.
    async fn take(
        &self,
        waiting_max: Option<usize>,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Full> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waits = Waits::enter(self, waiting_max)?;
        wait(&self.places, until).await
    }
}

async fn wait(places: &Arc<Semaphore>, until: Instant) -> Result<OwnedSemaphorePermit, Full> {
    match tokio::time::timeout_at(until, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        // Never closed, so only time runs out.
        Ok(Err(_)) | Err(_) => Err(Full::Late),
    }
}

struct Waits<'l>(&'l Line);

impl<'l> Waits<'l> {
    fn enter(line: &'l Line, max: Option<usize>) -> Result<Self, Full> {
        let before = line.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(line);
        if max.is_some_and(|max| before >= max) { Err(Full::Queue) } else { Ok(waits) }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn places_are_bounded_and_so_is_the_queue() {
        let queues = Arc::new(Queues::new(Bounds { all: 1, calls: 2, waiting_max: 1 }));
        let (one, other) = ("demo/one".parse().unwrap(), "demo/other".parse().unwrap());
        let soon = || Instant::now() + Duration::from_millis(100);
        let first = queues.place(&one, Caller::New, soon()).await.unwrap();
        let _second = queues.place(&one, Caller::New, soon()).await.unwrap();
        let waiter = tokio::spawn({
            let (queues, one): (Arc<Queues>, PluginName) = (queues.clone(), one.clone());
            async move {
                queues.place(&one, Caller::New, Instant::now() + Duration::from_secs(60)).await
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(queues.place(&one, Caller::New, soon()).await.err(), Some(Full::Queue));
        // An open stream's call waits beside the queue, until its own deadline.
        assert_eq!(queues.place(&one, Caller::Open, soon()).await.err(), Some(Full::Late));
        // Another plugin has places of its own.
        let third = queues.place(&other, Caller::New, soon()).await.unwrap();
        assert_eq!(
            queues.place(&other, Caller::New, soon()).await.err(),
            Some(Full::Late),
            "of all"
        );
        drop((first, third));
        assert!(waiter.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn other_bounds_are_in_force_for_who_comes_and_for_who_is_there() {
        let queues = Queues::new(Bounds { all: 9, calls: 2, waiting_max: 0 });
        let (one, other) = ("demo/one".parse().unwrap(), "demo/other".parse().unwrap());
        let soon = || Instant::now() + Duration::from_millis(100);
        let first = queues.place(&one, Caller::New, soon()).await.unwrap();
        queues.resize(Bounds { all: 9, calls: 1, waiting_max: 0 });
        assert_eq!(queues.place(&one, Caller::New, soon()).await.err(), Some(Full::Queue));
        let _new = queues.place(&other, Caller::New, soon()).await.unwrap();
        assert_eq!(queues.place(&other, Caller::New, soon()).await.err(), Some(Full::Queue));
        queues.resize(Bounds { all: 0, calls: 2, waiting_max: 0 });
        assert_eq!(queues.place(&one, Caller::New, soon()).await.err(), Some(Full::Late), "of all");
        drop(first);
        assert!(queues.place(&one, Caller::New, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn who_has_no_call_waits_for_no_other_plugin() {
        let queues = Queues::new(Bounds { all: 8, calls: 4, waiting_max: 9 });
        let soon = || Instant::now() + Duration::from_millis(20);
        let name = |number: usize| format!("demo/p{number}").parse::<PluginName>().unwrap();
        let (mut calls, mut asked) = (Vec::new(), Vec::new());
        for number in 0..16 {
            while let Ok(place) = queues.place(&name(number), Caller::New, soon()).await {
                calls.push(place);
            }
            if let Ok(place) = queues.guard_place(&name(number), soon()).await {
                asked.push(place);
            }
        }
        // Every plugin has its first of both, and what they share is taken once.
        assert_eq!((calls.len(), asked.len()), (16 + 8, 16));
        let quiet = name(16);
        let first = queues.place(&quiet, Caller::New, soon()).await.unwrap();
        assert_eq!(queues.place(&quiet, Caller::New, soon()).await.err(), Some(Full::Late));
        drop(first);
        assert!(queues.place(&quiet, Caller::New, soon()).await.is_ok());
        // One of those of all is anybody's.
        assert_eq!(queues.place(&name(15), Caller::New, soon()).await.err(), Some(Full::Late));
        drop(calls.remove(1));
        assert!(queues.place(&name(15), Caller::New, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn uploads_leave_places_for_others() {
        let queues = Queues::new(Bounds { all: 9, calls: 4, waiting_max: 0 });
        let one = "demo/one".parse().unwrap();
        let soon = || Instant::now() + Duration::from_millis(100);
        let uploads = [
            queues.place(&one, Caller::Upload, soon()).await.unwrap(),
            queues.place(&one, Caller::Upload, soon()).await.unwrap(),
        ];
        assert_eq!(queues.place(&one, Caller::Upload, soon()).await.err(), Some(Full::Queue));
        let _third = queues.place(&one, Caller::New, soon()).await.unwrap();
        let _fourth = queues.place(&one, Caller::Open, soon()).await.unwrap();
        assert_eq!(queues.place(&one, Caller::New, soon()).await.err(), Some(Full::Queue));
        drop(uploads);
        assert!(queues.place(&one, Caller::Upload, soon()).await.is_ok());
    }
}
