//! Showing a state: the two objects that readers ask for follow the head item, and never go
//! back. First the checkpoint, then the head, so that every head's log is in the checkpoint.
//! Each write names the entity tag of the object it replaces, so a slow writer with an older
//! state finds that it is late.

use modunest_core::digest::Digest;
use modunest_core::index::{HEAD_FRESH_FOR, HEAD_LIVES_FOR, HEAD_MAX_BYTES, Head, LogHead};
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_tlog::{
    CHECKPOINT_MAX_BYTES, Checkpoint, Note, Plan, SignedCheckpoint, TILE_MAX_BYTES, Tiles,
    TreeHash, VerifyingKey,
};

use crate::Functions;
use crate::error::Error;
use crate::storage::{Fetch, Fetched};
use crate::store::head::{HeadRecord, Roots};

/// How often an object is read again because somebody else replaced it.
const SHOW_TRIES: u32 = 20;

const BEHIND: Error = Error::Broken(
    "the head in the table is older than the one that readers see (docs/deploy.md, \"Restore\")",
);
const OTHER: Error = Error::Broken(
    "readers see another log or index than the table has (docs/deploy.md, \"Restore\")",
);

/// An object that changes, as it was seen last.
#[derive(Clone, Debug)]
struct Seen<T> {
    etag: String,
    /// What it says.
    what: T,
    /// When it was signed, by this process's keys; the beginning of time when it was signed
    /// by others, and so must be signed again.
    signed_at: Timestamp,
}

/// Both objects, as far as they were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    head: Option<Seen<Roots>>,
    checkpoint: Option<Seen<LogHead>>,
}

const LONG_AGO: Timestamp = Timestamp::from_millis(0);

impl Functions {
    /// Makes readers see `roots` or something newer, signed lately.
    pub(super) async fn show(&self, roots: &Roots) -> Result<(), Error> {
        self.show_checkpoint(&roots.log).await?;
        self.show_head(roots).await
    }

    /// Refuses to go on from a state that is older than what readers have seen, as after a
    /// restore of the table: agents would refuse a head or a log that goes back.
    pub(super) async fn check_not_behind(&self, head: &HeadRecord) -> Result<(), Error> {
        let (seen, checkpoint) = (self.seen_head().await?, self.seen_checkpoint().await?);
        let behind = |head: &HeadRecord| {
            seen.as_ref().is_some_and(|seen| seen.what.epoch > head.roots.epoch)
                || checkpoint.as_ref().is_some_and(|seen| seen.what.size > head.roots.log.size)
        };
        // Others may have gone on since the item was read.
        if behind(head) && behind(&self.newest().await?) { Err(BEHIND) } else { Ok(()) }
    }

    async fn show_head(&self, roots: &Roots) -> Result<(), Error> {
        for _ in 0..SHOW_TRIES {
            let now = self.now();
            let seen = self.seen_head().await?;
            if let Some(seen) = &seen {
                if seen.what.epoch > roots.epoch {
                    return Ok(());
                }
                if seen.what == *roots && now.since(seen.signed_at) < HEAD_FRESH_FOR {
                    return Ok(());
                }
                if seen.what.epoch == roots.epoch && seen.what != *roots {
                    return Err(OTHER);
                }
            }
            let head = Head {
                origin: self.0.origin.clone(),
                epoch: roots.epoch,
                log: roots.log,
                index: roots.index,
                revocations: None,
                issued_at: now,
                expires_at: now.plus(HEAD_LIVES_FOR),
            };
            let bytes = self.0.keys.sign_head(&head).await?;
            let last = seen.as_ref().map(|seen| seen.etag.as_str());
            let put = self.0.storage.put_changing(ObjectKey::Head, bytes, last).await?;
            let seen = put.map(|etag| Seen { etag, what: *roots, signed_at: now });
            let done = seen.is_some();
            self.shown(|shown| shown.head = seen);
            if done {
                return Ok(());
            }
        }
        Err(too_often("head"))
    }

    async fn show_checkpoint(&self, log: &LogHead) -> Result<(), Error> {
        for _ in 0..SHOW_TRIES {
            let now = self.now();
            let seen = self.seen_checkpoint().await?;
            if let Some(seen) = &seen {
                if seen.what.size > log.size {
                    return Ok(());
                }
                if seen.what.size == log.size && seen.what.root != log.root {
                    return Err(OTHER);
                }
                // Only cosignatures have times, so nothing else of a checkpoint gets old.
                let renewed = self.0.sequencer.witnesses.is_some();
                let fresh = now.since(seen.signed_at) < HEAD_FRESH_FOR
                    || (!renewed && seen.signed_at != LONG_AGO);
                if seen.what == *log && fresh {
                    return Ok(());
                }
            }
            let signed = match self.signed_checkpoint(log).await {
                Err(error) if seen.as_ref().is_some_and(|seen| seen.what == *log) => {
                    tracing::warn!(%error, "could not renew the checkpoint; the next run tries again");
                    return Ok(());
                }
                signed => signed?,
            };
            let last = seen.as_ref().map(|seen| seen.etag.as_str());
            let bytes = signed.bytes().to_vec();
            let put = self.0.storage.put_changing(ObjectKey::Checkpoint, bytes, last).await?;
            let seen = put.map(|etag| Seen { etag, what: *log, signed_at: now });
            let done = seen.is_some();
            self.shown(|shown| shown.checkpoint = seen);
            if done {
                return Ok(());
            }
        }
        Err(too_often("checkpoint"))
    }

    /// The checkpoint of `log`, with the cosignatures that the policy asks for.
    async fn signed_checkpoint(&self, log: &LogHead) -> Result<SignedCheckpoint, Error> {
        let signed = self
            .0
            .keys
            .sign_checkpoint(&Checkpoint {
                origin: self.0.origin.clone(),
                size: log.size,
                root: TreeHash::from_bytes(*log.root.as_bytes()),
            })
            .await?;
        match &self.0.sequencer.witnesses {
            None => Ok(signed),
            Some(witnesses) => {
                Ok(witnesses.collect(signed, |old| self.consistency(old, log.size)).await?)
            }
        }
    }

    /// The proof that the log of `size` entries continues that of `old`, from the tiles.
    async fn consistency(&self, old: u64, size: u64) -> Result<Vec<TreeHash>, Error> {
        let plan = Plan::consistency(old, size)
            .ok_or(Error::Broken("a witness has seen a larger log than there is"))?;
        let mut tiles = Tiles::default();
        for id in plan.tiles() {
            match self.0.storage.get_public(ObjectKey::Tile(id), TILE_MAX_BYTES as u64).await? {
                Fetch::Found(fetched) => tiles.insert(id, &fetched.bytes)?,
                Fetch::Absent | Fetch::TooLong => {
                    return Err(Error::Broken("a tile that a proof needs is not there"));
                }
            }
        }
        Ok(plan.hashes(&tiles)?)
    }

    pub(super) async fn newest(&self) -> Result<HeadRecord, Error> {
        self.0.store.head().await?.ok_or(Error::Broken("the head item is gone"))
    }

    async fn seen_head(&self) -> Result<Option<Seen<Roots>>, Error> {
        if let Some(seen) = self.shown(|shown| shown.head.clone()) {
            return Ok(Some(seen));
        }
        let Some(fetched) = self.changing(ObjectKey::Head, HEAD_MAX_BYTES).await? else {
            return Ok(None);
        };
        let head = Head::read_unproven(&fetched.bytes)?;
        self.check_origin(&head.origin)?;
        let ours = signed_by(&fetched.bytes, &self.0.keys.head.verifying_key());
        let seen = Seen {
            etag: fetched.etag,
            what: Roots { epoch: head.epoch, index: head.index, log: head.log },
            signed_at: if ours { head.issued_at } else { LONG_AGO },
        };
        self.shown(|shown| shown.head = Some(seen.clone()));
        Ok(Some(seen))
    }

    async fn seen_checkpoint(&self) -> Result<Option<Seen<LogHead>>, Error> {
        if let Some(seen) = self.shown(|shown| shown.checkpoint.clone()) {
            return Ok(Some(seen));
        }
        let Some(fetched) = self.changing(ObjectKey::Checkpoint, CHECKPOINT_MAX_BYTES).await?
        else {
            return Ok(None);
        };
        let text = Note::parse(&fetched.bytes).map_err(modunest_tlog::CheckpointError::from)?;
        let checkpoint = Checkpoint::parse(text.unverified_text())?;
        self.check_origin(&checkpoint.origin)?;
        let seen = Seen {
            signed_at: self.cosigned_at(&fetched.bytes)?,
            etag: fetched.etag,
            what: LogHead {
                size: checkpoint.size,
                root: Digest::from_bytes(*checkpoint.root.as_bytes()),
            },
        };
        self.shown(|shown| shown.checkpoint = Some(seen.clone()));
        Ok(Some(seen))
    }

    /// When the policy's witnesses cosigned a checkpoint: the oldest of the times that the
    /// policy counts.
    fn cosigned_at(&self, bytes: &[u8]) -> Result<Timestamp, Error> {
        let key = self.0.keys.log.verifying_key();
        let Ok(signed) = SignedCheckpoint::verify(bytes, &self.0.origin, &[key]) else {
            return Ok(LONG_AGO);
        };
        let Some(witnesses) = &self.0.sequencer.witnesses else { return Ok(self.now()) };
        let times = witnesses.policy().check(&signed).unwrap_or_default();
        let oldest = times.iter().map(|(_, time_secs)| time_secs * 1000).min();
        Ok(oldest.map_or(LONG_AGO, Timestamp::from_millis))
    }

    async fn changing(&self, key: ObjectKey, max_bytes: usize) -> Result<Option<Fetched>, Error> {
        match self.0.storage.get_public(key, max_bytes as u64).await? {
            Fetch::Absent => Ok(None),
            Fetch::Found(fetched) => Ok(Some(fetched)),
            Fetch::TooLong => Err(Error::Broken("head or checkpoint is longer than it may be")),
        }
    }

    /// What is of another registry means a wrong bucket: nothing to write over.
    fn check_origin(&self, found: &str) -> Result<(), Error> {
        if found == self.0.origin {
            return Ok(());
        }
        tracing::error!(found, origin = self.0.origin, "the public bucket is another registry's");
        Err(Error::Broken("the public bucket is another registry's"))
    }

    fn shown<T>(&self, look: impl FnOnce(&mut Shown) -> T) -> T {
        // A panic while it was held cannot have left it half-written.
        let shown = self.0.sequencer.shown.lock();
        look(&mut shown.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Looks at both objects again before the next write, in case that they were damaged.
    pub(crate) fn forget_shown(&self) {
        self.shown(|shown| *shown = Shown::default());
    }
}

fn signed_by(bytes: &[u8], key: &VerifyingKey) -> bool {
    Note::parse(bytes).and_then(|note| note.verify([key]).map(|_| ())).is_ok()
}

fn too_often(what: &'static str) -> Error {
    Error::Unavailable {
        service: "sequencer",
        operation: "show",
        detail: format!("others replaced the {what} {SHOW_TRIES} times in a row"),
    }
}
