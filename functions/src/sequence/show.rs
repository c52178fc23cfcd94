//! Showing the head: the object that readers ask for follows the head item, and never goes
//! back. Each write names the entity tag of the head it replaces, so a slow writer with an
//! older head finds that it is late.

use modunest_core::index::{HEAD_FRESH_FOR, HEAD_LIVES_FOR, Head};
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;

use crate::Functions;
use crate::error::Error;
use crate::storage::Fetch;
use crate::store::head::HeadRecord;

/// How often the head is read again because somebody else replaced it.
const SHOW_TRIES: u32 = 20;
/// Longest head that is read.
const HEAD_MAX_BYTES: u64 = 8 * 1024;

/// The head object as it was seen last.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    etag: String,
    epoch: u64,
    issued_at: Timestamp,
}

impl Functions {
    /// Makes readers see `head` or a newer one, signed lately. Answers the epoch they see.
    pub(super) async fn show(&self, mut head: HeadRecord) -> Result<u64, Error> {
        for _ in 0..SHOW_TRIES {
            let now = self.now();
            let shown = match self.seen() {
                Some(shown) => Some(shown),
                None => self.read_shown().await?,
            };
            if let Some(shown) = &shown {
                if shown.epoch > head.epoch {
                    // Others went on meanwhile.
                    head = self.newest().await?;
                }
                if shown.epoch > head.epoch {
                    // The table lost what readers have seen, as after a restore. A head that
                    // goes back would be refused by agents, so it is not signed.
                    return Err(Error::Broken(
                        "the head in the table is older than the one that readers see (docs/deploy.md, \"Restore\")",
                    ));
                }
                let fresh = now.since(shown.issued_at) < HEAD_FRESH_FOR;
                if shown.epoch == head.epoch && fresh {
                    self.note_shown(Some(shown.clone()));
                    return Ok(shown.epoch);
                }
            }
            let signed = Head {
                origin: self.0.origin.clone(),
                epoch: head.epoch,
                log: None,
                index: head.index,
                revocations: None,
                issued_at: now,
                expires_at: now.plus(HEAD_LIVES_FOR),
            };
            let bytes = signed.sign(&self.0.registry_key)?;
            let last = shown.as_ref().map(|shown| shown.etag.as_str());
            match self.0.storage.put_head(bytes, last).await? {
                Some(etag) => {
                    self.note_shown(Some(Shown { etag, epoch: head.epoch, issued_at: now }));
                    return Ok(head.epoch);
                }
                None => {
                    self.note_shown(None);
                    head = self.newest().await?;
                }
            }
        }
        Err(Error::Unavailable {
            service: "sequencer",
            operation: "show",
            detail: format!("others replaced the head {SHOW_TRIES} times in a row"),
        })
    }

    async fn newest(&self) -> Result<HeadRecord, Error> {
        self.0.store.head().await?.ok_or(Error::Broken("the head item is gone"))
    }

    async fn read_shown(&self) -> Result<Option<Shown>, Error> {
        match self.0.storage.get_public(ObjectKey::Head, HEAD_MAX_BYTES).await? {
            Fetch::Absent => Ok(None),
            Fetch::TooLong => Err(Error::Broken("the head object is longer than a head may be")),
            Fetch::Found(fetched) => {
                // A head of somebody else means a wrong bucket: nothing to write over.
                let keys = [self.0.registry_key.verifying_key()];
                let head = Head::verify(&fetched.bytes, &self.0.origin, &keys)?;
                Ok(Some(Shown { etag: fetched.etag, epoch: head.epoch, issued_at: head.issued_at }))
            }
        }
    }

    fn seen(&self) -> Option<Shown> {
        // A panic while it was held cannot have left it half-written.
        self.0.sequencer.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn note_shown(&self, shown: Option<Shown>) {
        *self.0.sequencer.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = shown;
    }

    /// Looks at the head object again before the next write, in case that it was damaged.
    pub(crate) fn forget_shown(&self) {
        self.note_shown(None);
    }
}
