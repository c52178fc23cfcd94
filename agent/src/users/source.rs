//! Where an issuer's keys come from, and how long they are believed.
//!
//! A file is read once. A set behind an address is fetched when it is first needed, and again
//! when it is old or when a token names a key that is not in it; but with a pause between two
//! fetches, however many strangers ask. While the issuer does not answer, the keys that are
//! there go on for a while; then nothing is accepted until it answers again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonwebtoken::Algorithm;
use modunest_core::digest::Digest;
use modunest_core::time::Timestamp;

use super::fetch::Fetcher;
use super::keys::{self, Key, KeySetError};
use crate::config::users::{IssuerSettings, KeyTimes, KeysFrom};

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyError {
    /// The issuer has none of this name.
    Unknown,
    /// Its keys cannot be had.
    Unavailable,
}

/// An issuer's keys.
pub(super) struct Source {
    fetcher: Option<Arc<Fetcher>>,
    /// What was in the file, where the keys are in one.
    file: Option<Digest>,
    cache: Arc<Mutex<Cache>>,
    /// One fetch at a time; who waits for it then finds what it brought.
    fetching: Arc<tokio::sync::Mutex<()>>,
    allowed: Vec<Algorithm>,
}

/// What is known, and since when.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) fetched_at: Option<Timestamp>,
    pub(super) tried_at: Option<Timestamp>,
    /// Keys of a file are never old.
    pub(super) is_fixed: bool,
    pub(super) times: KeyTimes,
}

/// What to do about a key.
pub(super) enum Step {
    /// Use it.
    Use(Arc<Key>),
    /// Use it, and fetch beside.
    UseAndFetch(Arc<Key>),
    /// Fetch, then look again.
    Fetch,
    /// Give up.
    GiveUp(KeyError),
}

impl Cache {
    /// Decides about a token's key.
    pub(super) fn step(&self, id: Option<&str>, algorithm: Algorithm, now: Timestamp) -> Step {
        let KeyTimes { fresh, stale_max, pause } = self.times;
        let found = keys::find(&self.keys, id, algorithm).cloned();
        if self.is_fixed {
            return found.map_or(Step::GiveUp(KeyError::Unknown), Step::Use);
        }
        let may_fetch = self.tried_at.is_none_or(|tried| now.since(tried) >= pause);
        let age = self.fetched_at.map(|fetched| now.since(fetched));
        match (found, age) {
            (Some(key), Some(age)) if age < fresh => Step::Use(key),
            (Some(key), Some(age)) if age < stale_max => {
                if may_fetch {
                    Step::UseAndFetch(key)
                } else {
                    Step::Use(key)
                }
            }
            _ if may_fetch => Step::Fetch,
            (None, Some(age)) if age < stale_max => Step::GiveUp(KeyError::Unknown),
            _ => Step::GiveUp(KeyError::Unavailable),
        }
    }
}

impl Source {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, KeySetError> {
        let (fetcher, file, cache) = match &settings.keys {
            KeysFrom::File(path) => {
                let unreadable = |source| KeySetError::Read { path: path.clone(), source };
                let bytes = crate::files::read_limited(path, keys::KEY_SET_MAX_BYTES)
                    .map_err(unreadable)?
                    .ok_or_else(|| unreadable(std::io::ErrorKind::NotFound.into()))?;
                let keys = keys::parse(&bytes, &settings.algorithms)
                    .map_err(|reason| KeySetError::File { path: path.clone(), reason })?;
                let keys = keys.into_iter().map(Arc::new).collect();
                let cache = Cache { keys, is_fixed: true, ..Cache::default() };
                (None, Some(Digest::of(&bytes)), cache)
            }
            KeysFrom::Url(_) | KeysFrom::Discovery => {
                let cache = Cache { times: settings.times, ..Cache::default() };
                (Some(Arc::new(Fetcher::new(settings)?)), None, cache)
            }
        };
        Ok(Source {
            fetcher,
            file,
            cache: Arc::new(Mutex::new(cache)),
            fetching: Arc::default(),
            allowed: settings.algorithms.clone(),
        })
    }

    /// Whether the keys come from an address, and not from a file.
    pub(super) fn are_fetched(&self) -> bool {
        self.fetcher.is_some()
    }

    /// Whether both are of the same file, or of none.
    pub(super) fn is_same_file(&self, other: &Source) -> bool {
        self.file == other.file
    }

    /// The key that a token names, fetched if need be.
    pub(super) async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Key>, KeyError> {
        let step = || {
            let now = modunest_runtime::clock::now();
            lock(&self.cache).step(id, algorithm, now)
        };
        match step() {
            Step::Use(key) => return Ok(key),
            Step::GiveUp(error) => return Err(error),
            Step::UseAndFetch(key) => {
                if let Ok(turn) = self.fetching.clone().try_lock_owned() {
                    let fetch = self.fetch();
                    tokio::spawn(async move {
                        fetch.await;
                        drop(turn);
                    });
                }
                return Ok(key);
            }
            Step::Fetch => {}
        }
        let _turn = self.fetching.lock().await;
        // Somebody else may have fetched meanwhile.
        match step() {
            Step::Use(key) | Step::UseAndFetch(key) => return Ok(key),
            Step::GiveUp(error) => return Err(error),
            // On a task of its own: a client that goes away does not stop it half-way.
            Step::Fetch => drop(tokio::spawn(self.fetch()).await),
        }
        match step() {
            Step::Use(key) | Step::UseAndFetch(key) => Ok(key),
            Step::GiveUp(error) => Err(error),
            // The fetch took longer than the pause. What it brought, or did not, is the answer.
            Step::Fetch => {
                let cache = lock(&self.cache);
                let came = cache.fetched_at.is_some() && cache.fetched_at >= cache.tried_at;
                Err(if came { KeyError::Unknown } else { KeyError::Unavailable })
            }
        }
    }

    /// Fetches the set and keeps it, or logs why not.
    fn fetch(&self) -> impl Future<Output = ()> + Send + 'static {
        let (fetcher, cache) = (self.fetcher.clone(), self.cache.clone());
        let allowed = self.allowed.clone();
        async move {
            let Some(fetcher) = fetcher else { return };
            lock(&cache).tried_at = Some(modunest_runtime::clock::now());
            let fetched = fetcher.fetch().await.and_then(|bytes| keys::parse(&bytes, &allowed));
            let now = modunest_runtime::clock::now();
            let mut cache = lock(&cache);
            match fetched {
                Ok(keys) => {
                    tracing::debug!(issuer = fetcher.issuer(), keys = keys.len(), "keys fetched");
                    cache.keys = keys.into_iter().map(Arc::new).collect();
                    cache.fetched_at = Some(now);
                }
                Err(reason) => tracing::warn!(
                    issuer = fetcher.issuer(),
                    reason,
                    "the issuer's keys cannot be had; those from before go on for a while"
                ),
            }
        }
    }
}

/// What the lock holds is replaced field by field, each of which is right with the others' old
/// values.
fn lock(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
