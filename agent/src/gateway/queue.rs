//! Places for calls: so many at the same time, so many more that wait, and no more.

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
    /// Requests that wait for one plugin.
    waiting_max: usize,
}

impl Bounds {
    pub(super) fn of(settings: &GatewaySettings) -> Self {
        let GatewaySettings { calls, plugin_calls, plugin_queue, .. } = *settings;
        Bounds { all: calls, calls: plugin_calls, waiting_max: plugin_queue }
    }
}

struct Queue {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place. It goes with the call, so that one that outlives its deadline still counts.
pub(super) struct Place(#[allow(dead_code, reason = "held, not read")] [OwnedSemaphorePermit; 2]);

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
            resize(&queue.places, before.calls, bounds.calls);
        }
    }

    /// A place for a call of a plugin, waited for until the deadline. A plugin keeps its queue
    /// over generations. `is_new` says whether a client has just come with it; calls of streams
    /// that are open have been let in already, and wait in no queue.
    pub(super) async fn place(
        &self,
        plugin: &PluginName,
        is_new: bool,
        until: Instant,
    ) -> Result<Place, Full> {
        let (queue, waiting_max) = self.queue(plugin);
        let own = match queue.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waits = Waits::enter(&queue, is_new.then_some(waiting_max))?;
                wait(&queue.places, until).await?
            }
        };
        // Behind the plugin's own place, so that one plugin's callers cannot hold up others.
        let all = wait(&self.all, until).await?;
        Ok(Place([own, all]))
    }

    /// A place for asking guards, which are plugins of their own: among all calls only, so that
    /// the guarded plugin's callers do not keep one another from being turned away.
    pub(super) async fn guard_place(&self, until: Instant) -> Result<OwnedSemaphorePermit, Full> {
        wait(&self.all, until).await
    }

    /// A plugin's queue, and how many may wait in it.
    fn queue(&self, plugin: &PluginName) -> (Arc<Queue>, usize) {
        let mut plugins = self.plugins();
        let Bounds { calls, waiting_max, .. } = plugins.bounds;
        if let Some(queue) = plugins.queues.get(plugin) {
            return (queue.clone(), waiting_max);
        }
        let queue = Arc::new(Queue {
            places: Arc::new(Semaphore::new(calls)),
            waiting: AtomicUsize::new(0),
        });
        plugins.queues.insert(plugin.clone(), queue.clone());
        (queue, waiting_max)
    }

    /// What it holds is never left half-changed.
    fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(places: &Arc<Semaphore>, until: Instant) -> Result<OwnedSemaphorePermit, Full> {
    match tokio::time::timeout_at(until, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        // Never closed, so only time runs out.
        Ok(Err(_)) | Err(_) => Err(Full::Late),
    }
}

struct Waits<'q>(&'q Queue);

impl<'q> Waits<'q> {
    fn enter(queue: &'q Queue, max: Option<usize>) -> Result<Self, Full> {
        let before = queue.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(queue);
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
        let queues = Arc::new(Queues::new(Bounds { all: 3, calls: 2, waiting_max: 1 }));
        let (one, other) = ("demo/one".parse().unwrap(), "demo/other".parse().unwrap());
        let soon = || Instant::now() + Duration::from_millis(100);
        let first = queues.place(&one, true, soon()).await.unwrap();
        let _second = queues.place(&one, true, soon()).await.unwrap();
        let waiter = tokio::spawn({
            let (queues, one): (Arc<Queues>, PluginName) = (queues.clone(), one.clone());
            async move { queues.place(&one, true, Instant::now() + Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queues.place(&one, true, soon()).await.err(), Some(Full::Queue));
        // An open stream's call waits beside the queue, until its own deadline.
        assert_eq!(queues.place(&one, false, soon()).await.err(), Some(Full::Late));
        // Another plugin has places of its own.
        let third = queues.place(&other, true, soon()).await.unwrap();
        assert_eq!(queues.place(&other, true, soon()).await.err(), Some(Full::Late), "of all");
        drop((first, third));
        assert!(waiter.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn other_bounds_are_in_force_for_who_comes_and_for_who_is_there() {
        let queues = Queues::new(Bounds { all: 9, calls: 2, waiting_max: 0 });
        let (one, other) = ("demo/one".parse().unwrap(), "demo/other".parse().unwrap());
        let soon = || Instant::now() + Duration::from_millis(100);
        let first = queues.place(&one, true, soon()).await.unwrap();
        queues.resize(Bounds { all: 9, calls: 1, waiting_max: 0 });
        assert_eq!(queues.place(&one, true, soon()).await.err(), Some(Full::Queue));
        let _new = queues.place(&other, true, soon()).await.unwrap();
        assert_eq!(queues.place(&other, true, soon()).await.err(), Some(Full::Queue));
        queues.resize(Bounds { all: 2, calls: 2, waiting_max: 0 });
        assert_eq!(queues.place(&one, true, soon()).await.err(), Some(Full::Late), "of all");
        drop(first);
        assert!(queues.place(&one, true, soon()).await.is_ok());
    }
}
