//! From a head that somebody shows to the state that is believed: checks 2 to 4, in an order
//! that fetches nothing for a head that is refused by itself.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use modunest_core::index::{HEAD_MAX_BYTES, Head};
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_tlog::{Frontier, SignedCheckpoint, TreeHash};

use super::fetch::Answer;
use super::shown::{CLOCK_SKEW, check_head_age, read_head};
use super::state::Kept;
use super::{Client, Error, catch_up, checkpoint, head};

/// How far the highest time seen moves before it is written again where nothing else is.
const TIME_STEP: Duration = Duration::from_secs(60 * 60);

/// The edge of the tree under a new head, and where the entry behind it starts.
struct Log {
    frontier: Frontier,
    bundle_bytes: Option<u64>,
}

impl Client {
    /// Asks for the head, and for what else it takes to believe it.
    ///
    /// # Errors
    /// Every variant but those of folding.
    pub async fn refresh(&self) -> Result<Head, Error> {
        let _turn = self.advancing.lock().await;
        let asked = self.refresh_trust(false).await?;
        match self.refresh_head().await {
            // Perhaps signed with a key that the trust root has named since.
            Err(Error::Head(_) | Error::Checkpoint(_))
                if !asked && self.refresh_trust(true).await? =>
            {
                self.refresh_head().await
            }
            refreshed => refreshed,
        }
    }

    async fn refresh_head(&self) -> Result<Head, Error> {
        let authority = self.authority()?;
        let now = self.now()?;
        let kept = self.kept();
        let etag = kept.as_ref().and_then(|kept| kept.etag.as_deref());
        let answer = self.fetcher.get(ObjectKey::Head, HEAD_MAX_BYTES, etag, 0).await?;
        match (answer, &kept) {
            (Answer::Body { bytes, etag, .. }, _) => self.believe(bytes, etag, now).await,
            (Answer::NotModified, Some(kept)) => {
                check_head_age(&kept.head, &authority, now)?;
                if checkpoint::check_age(&kept.checkpoint, &authority, now).is_err() {
                    // The same head; only its checkpoint must be cosigned anew.
                    return self.believe(kept.head_bytes.clone(), kept.etag.clone(), now).await;
                }
                self.saw(kept, now)?;
                Ok(kept.head.clone())
            }
            (Answer::NotModified, None) => {
                Err(Error::Status { url: self.fetcher.url(ObjectKey::Head), status: 304 })
            }
        }
    }

    /// Believes a head that came with something else.
    pub(super) async fn believe_shown(&self, bytes: Vec<u8>) -> Result<Head, Error> {
        let _turn = self.advancing.lock().await;
        let now = self.now()?;
        self.believe(bytes, None, now).await
    }

    /// The time, which never goes back by more than clocks differ.
    ///
    /// # Errors
    /// [`Error::Clock`].
    pub(super) fn now(&self) -> Result<Timestamp, Error> {
        let now = modunest_runtime::clock::now();
        let seen = *self.time_seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) if now.plus(CLOCK_SKEW) < seen => {
                let path = self.state.path().to_owned();
                Err(Error::Clock { now, seen, path })
            }
            _ => Ok(now),
        }
    }

    /// Believes and keeps a head, whoever showed it, if it passes every check.
    async fn believe(
        &self,
        bytes: Vec<u8>,
        etag: Option<String>,
        now: Timestamp,
    ) -> Result<Head, Error> {
        let authority = self.authority()?;
        let kept = self.kept();
        let kept = kept.as_deref();
        let head = read_head(&bytes, &authority)?;
        head::check(&head, &authority, kept, now)?;
        let checkpoint = match kept {
            Some(kept)
                if is_log_of(&head, &kept.checkpoint)
                    && checkpoint::check_age(&kept.checkpoint, &authority, now).is_ok() =>
            {
                kept.checkpoint.clone()
            }
            _ => self.checkpoint(&authority, kept, head.log.size, now).await?,
        };
        let Log { frontier, bundle_bytes } = self.advance(kept, &checkpoint, &head, now).await?;
        let epoch = head.epoch;
        let (head_bytes, etag) = (bytes, etag.filter(|tag| tag.len() <= super::ETAG_MAX_BYTES));
        let next = Kept { checkpoint, head, head_bytes, etag, frontier, bundle_bytes };
        let seen = now.max(next.head.issued_at);
        self.state.write(&next, seen)?;
        *self.time_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        self.state.write_proven(&next.head.log, &self.rows())?;
        tracing::debug!(epoch, index = %next.head.index, log = next.head.log.size, "head refreshed");
        let head = next.head.clone();
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
        Ok(head)
    }

    /// Remembers the time now and then while the head stays the same.
    fn saw(&self, kept: &Kept, now: Timestamp) -> Result<(), Error> {
        let mut seen = self.time_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none_or(|seen| now.since(seen) >= TIME_STEP) {
            self.state.write(kept, now)?;
            *seen = Some(now);
        }
        Ok(())
    }

    /// Check 3, and that the head's log is the checkpoint's or its beginning.
    async fn advance(
        &self,
        kept: Option<&Kept>,
        checkpoint: &SignedCheckpoint,
        head: &Head,
        now: Timestamp,
    ) -> Result<Log, Error> {
        let (size, root) = (checkpoint.checkpoint.size, checkpoint.checkpoint.root);
        let head_log = |rule: &str| Error::HeadLog { size: head.log.size, rule: rule.to_owned() };
        if let Some(kept) = kept {
            let (kept_size, kept_root) = kept.log();
            if kept_size == size && kept_root != root {
                let rule = format!("two roots for the same {size} entries");
                return Err(self.split_view(kept, checkpoint, now, rule));
            }
        }
        if head.log.size == size && !is_log_of(head, checkpoint) {
            return Err(head_log("the checkpoint has another root for as many entries"));
        }
        let subjects = self.rows().len();
        if let Some(kept) = kept.filter(|kept| catch_up::is_cheaper(kept, checkpoint, subjects)) {
            match self.catch_up(kept, checkpoint, head).await {
                Ok(Some(caught)) => {
                    tracing::debug!(entries = caught.entries.len(), "caught up by entries");
                    self.append(&mut self.rows(), kept.head.log.size, caught.entries);
                    let (frontier, bundle_bytes) = (caught.frontier, caught.bundle_bytes);
                    return Ok(Log { frontier, bundle_bytes });
                }
                Ok(None) => tracing::info!("entries do not lead to the checkpoint; asking tiles"),
                Err(error) => tracing::info!(%error, "entries are not to be had; asking tiles"),
            }
        }
        let mut tiles = self.tiles_of(checkpoint).await;
        let mut wanted = tiles.missing_for_root(head.log.size);
        if let Some(kept) = kept {
            wanted.extend(tiles.missing_for_root(kept.log().0));
        }
        self.add_tiles(&mut tiles, wanted).await?;
        let missing = |error: modunest_tlog::TileError| Error::Tile(error.into());
        if let Some(kept) = kept {
            let (kept_size, kept_root) = kept.log();
            let found = tiles.root_at(kept_size).map_err(missing)?;
            if found != kept_root {
                let rule = format!(
                    "its first {kept_size} entries have the root {found} now and had {kept_root}"
                );
                return Err(self.split_view(kept, checkpoint, now, rule));
            }
        }
        let frontier = tiles.frontier_at(head.log.size).map_err(missing)?;
        if *frontier.root().as_bytes() != *head.log.root.as_bytes() {
            return Err(head_log("the log has another root for as many entries"));
        }
        // Which of them changed, the tree says.
        let known = kept.map_or(0, |kept| kept.head.log.size);
        self.rows().values_mut().for_each(|row| row.outdate(known));
        Ok(Log { frontier, bundle_bytes: None })
    }
}

fn is_log_of(head: &Head, checkpoint: &SignedCheckpoint) -> bool {
    let checkpoint = &checkpoint.checkpoint;
    (head.log.size, TreeHash::from_bytes(*head.log.root.as_bytes()))
        == (checkpoint.size, checkpoint.root)
}
