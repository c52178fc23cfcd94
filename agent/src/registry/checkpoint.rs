//! Checks 2 and 3: the checkpoint, and whether the log only grew since the last one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_tlog::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};

use super::fetch::Answer;
use super::state::Kept;
use super::{Authority, Checkpointed, Client, Error};
use crate::files;

/// Pauses before the checkpoint is asked for again because a cache on the way shows one that
/// is older than the head: heads and checkpoints are cached for seconds.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Most files of evidence that are kept: who shows more histories has been found out.
const EVIDENCE_MAX: usize = 64;

impl Client {
    /// The newest checkpoint, which reaches at least to `size` entries, verified by itself.
    pub(super) async fn checkpoint(
        &self,
        authority: &Authority,
        kept: Option<&Kept>,
        size: u64,
        now: Timestamp,
    ) -> Result<SignedCheckpoint, Error> {
        let mut pauses = PAUSES.iter();
        loop {
            let answer =
                self.fetcher.get(ObjectKey::Checkpoint, CHECKPOINT_MAX_BYTES, None, 0).await?;
            let Answer::Body { bytes, .. } = answer else {
                let url = self.fetcher.url(ObjectKey::Checkpoint);
                return Err(Error::Status { url, status: 304 });
            };
            let signed = SignedCheckpoint::verify(&bytes, &authority.origin, &authority.log_keys)?;
            check_age(&signed, authority, now)?;
            let behind = behind(&signed, kept, size);
            match (behind, pauses.next()) {
                (Ok(()), _) => return Ok(signed),
                (Err(error), None) => return Err(error),
                (Err(error), Some(pause)) => {
                    tracing::debug!(%error, "asking again");
                    tokio::time::sleep(*pause).await;
                }
            }
        }
    }

    /// Keeps both notes and answers the error that says where.
    pub(super) fn split_view(
        &self,
        kept: &Kept,
        shown: &SignedCheckpoint,
        now: Timestamp,
        rule: String,
    ) -> Error {
        let folder = self.settings.cache_dir.join("evidence");
        let size = shown.checkpoint.size;
        match evidence(&folder, kept.checkpoint.bytes(), shown.bytes(), size, now) {
            Ok([a, b]) => {
                tracing::error!(rule, a = %a.display(), b = %b.display(), "the log shows two histories");
                Error::SplitView { rule, a, b }
            }
            Err(source) => Error::Cache { path: folder, source },
        }
    }
}

fn behind(signed: &SignedCheckpoint, kept: Option<&Kept>, size: u64) -> Result<(), Error> {
    let found = signed.checkpoint.size;
    if let Some(kept) = kept.map(|kept| kept.checkpoint.checkpoint.size).filter(|k| found < *k) {
        return Err(Error::CheckpointRollback { found, kept });
    }
    if found < size {
        return Err(Error::CheckpointBehind { found, head: size });
    }
    Ok(())
}

/// Whether enough witnesses have cosigned, and not too long ago.
pub(super) fn check_age(
    signed: &SignedCheckpoint,
    authority: &Authority,
    now: Timestamp,
) -> Result<(), Error> {
    Checkpointed::of(signed.clone(), authority)?.check_age(authority, now)
}

/// Writes the notes of a split view, once for the same two.
fn evidence(
    folder: &Path,
    a: &[u8],
    b: &[u8],
    size: u64,
    now: Timestamp,
) -> std::io::Result<[PathBuf; 2]> {
    std::fs::create_dir_all(folder)?;
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        count += 1;
        let Some(stem) = path.to_str().and_then(|path| path.strip_suffix("-b")) else { continue };
        let first = PathBuf::from(format!("{stem}-a"));
        let same = |path: &Path, note: &[u8]| {
            files::read_limited(path, CHECKPOINT_MAX_BYTES)
                .is_ok_and(|content| content.as_deref() == Some(note))
        };
        if same(&path, b) && same(&first, a) {
            return Ok([first, path]);
        }
    }
    if count >= EVIDENCE_MAX {
        return Err(std::io::Error::other(format!(
            "it holds {count} notes of earlier split views already; move them elsewhere"
        )));
    }
    let write = |side: char, note: &[u8]| {
        let path = folder.join(format!("{now}-{size}-{side}"));
        files::write_durable(&path, note).map(|()| path)
    };
    Ok([write('a', a)?, write('b', b)?])
}
