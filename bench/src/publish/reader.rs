//! A reader that looks all the time, with the agent's own client: every head, node and
//! statement is proven before it counts as seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use modunest_agent::registry::{Client, Settings};
use modunest_core::api::Discovery;
use modunest_core::name::PluginName;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use super::LOOK_EVERY;
use crate::error::Error;
use crate::folders;

type Awaited = Arc<Mutex<BTreeMap<PluginName, oneshot::Sender<Instant>>>>;

/// A running reader.
pub struct Reader {
    awaited: Awaited,
    task: JoinHandle<Result<(), Error>>,
    stop: oneshot::Sender<()>,
    _cache: TempDir,
}

/// Tells the reader what to look for.
pub struct Watcher(Awaited);

impl Watcher {
    /// Answers when the plugin is seen.
    pub fn watch(&self, plugin: PluginName) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(plugin, sender);
        receiver
    }
}

impl Reader {
    /// Starts a reader with an empty cache in memory.
    pub fn start(url: &Url, discovery: &Discovery) -> Result<Reader, Error> {
        let cache = folders::memory()?;
        let keys = discovery.keys.iter().map(|key| key.parse()).collect::<Result<Vec<_>, _>>();
        let client = Client::open(Settings {
            url: url.clone(),
            origin: discovery.origin.clone(),
            keys: keys.map_err(Error::wrong("the registry's key"))?,
            cache_dir: cache.path().to_owned(),
        });
        let client = client.map_err(Error::wrong("the reader"))?;
        let awaited = Awaited::default();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(look(client, Arc::clone(&awaited), stopped));
        Ok(Reader { awaited, task, stop, _cache: cache })
    }

    /// For another task.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.awaited))
    }

    /// Ends the reader.
    pub async fn stop(self) -> Result<(), Error> {
        drop(self.stop);
        self.task.await.map_err(Error::wrong("the reader"))?
    }
}

async fn look(
    client: Client,
    awaited: Awaited,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let mut last = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => return Ok(()),
        }
        let head = client.refresh().await.map_err(Error::wrong("the reader"))?;
        if last == Some(head.epoch) {
            continue;
        }
        last = Some(head.epoch);
        let lock = || awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<PluginName> = lock().keys().cloned().collect();
        let read = client.read(&names).await.map_err(Error::wrong("the reader"))?;
        let now = Instant::now();
        let seen = read
            .plugins
            .iter()
            .filter(|(_, state)| state.as_ref().is_some_and(|state| !state.releases.is_empty()));
        for (name, _) in seen {
            if let Some(sender) = lock().remove(name) {
                // Nobody waits any more: the publish was given up, and says so itself.
                let _gone = sender.send(now);
            }
        }
    }
}
