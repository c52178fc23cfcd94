//! A witness: it remembers how far it has seen each log grow, and cosigns a checkpoint only
//! when that proves to continue what it saw (<https://c2sp.org/tlog-witness>).
//!
//! In scope: the protocol's one call, `add-checkpoint`, its decision ([`judge`]) and what must
//! survive ([`store`]). A witness asks nobody anything: logs come to it.

mod judge;
mod serve;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use modunest_core::time::Timestamp;
use modunest_tlog::{Checkpoint, VerifyingKey, WitnessKey, WitnessSigningKey};

use crate::error::Error;
pub use judge::Refusal;
use judge::Submitted;
pub use serve::router;
use store::Store;

/// Why a checkpoint was not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum NotCosigned {
    /// A rule says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the witness saw could not be written down, so it must not say that it saw it.
    #[error("the checkpoint could not be recorded: {0}")]
    Store(Error),
}

/// A witness of some logs.
pub struct Witness {
    key: WitnessSigningKey,
    logs: BTreeMap<String, WatchedLog>,
    store: Store,
}

/// A log, and how far it was seen to grow.
struct WatchedLog {
    keys: Vec<VerifyingKey>,
    /// The checkpoint that was cosigned last. Held while the next one is judged and recorded,
    /// so that of two requests from the same size the second sees what the first came to.
    last: Mutex<Option<Checkpoint>>,
}

impl Witness {
    /// A witness of the logs with these keys, each named like its log's origin. Its state is
    /// in `folder`, which it locks.
    ///
    /// # Errors
    /// When the folder cannot be used, another witness uses it, or what it holds is damaged.
    pub fn open(
        key: WitnessSigningKey,
        keys: Vec<VerifyingKey>,
        folder: &Path,
    ) -> Result<Self, Error> {
        let store = Store::open(folder)?;
        let mut logs: BTreeMap<String, WatchedLog> = BTreeMap::new();
        for key in keys {
            let origin = key.name().as_str().to_owned();
            if let Some(log) = logs.get_mut(&origin) {
                if !log.keys.contains(&key) {
                    log.keys.push(key);
                }
                continue;
            }
            let last = Mutex::new(store.load(&origin)?);
            logs.insert(origin, WatchedLog { keys: vec![key], last });
        }
        Ok(Witness { key, logs, store })
    }

    /// Its public key.
    pub fn key(&self) -> &WitnessKey {
        self.key.witness_key()
    }

    /// The origins of its logs.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// Judges a submission, records its checkpoint on disk, and only then cosigns it as of
    /// `now`. Answers the signature line. Blocks while it writes.
    ///
    /// # Errors
    /// [`NotCosigned`]; nothing was cosigned.
    pub fn add_checkpoint(&self, body: &[u8], now: Timestamp) -> Result<String, NotCosigned> {
        let submitted =
            Submitted::read(body, |origin| self.logs.get(origin).map(|log| log.keys.as_slice()))?;
        let checkpoint = &submitted.signed.checkpoint;
        let log = self
            .logs
            .get(&checkpoint.origin)
            .ok_or_else(|| Refusal::UnknownLog(checkpoint.origin.clone()))?;
        // A thread that panicked here had not changed what it held: that comes last.
        let mut last = log.last.lock().unwrap_or_else(PoisonError::into_inner);
        submitted.judge(last.as_ref()).inspect_err(|refusal| {
            if refusal.accuses_the_log() {
                // The log signed it: whoever has both notes can show what it did.
                let note = String::from_utf8_lossy(submitted.signed.bytes());
                tracing::warn!(origin = checkpoint.origin, %refusal, %note, "a log may be lying");
            }
        })?;
        if last.as_ref() != Some(checkpoint) {
            self.store.save(&submitted.signed).map_err(NotCosigned::Store)?;
            *last = Some(checkpoint.clone());
        }
        let cosignature = self.key.cosign(&checkpoint.to_string(), now.as_secs());
        tracing::info!(origin = checkpoint.origin, size = checkpoint.size, "cosigned");
        Ok(cosignature.line(self.key()))
    }
}

#[cfg(test)]
mod tests;
