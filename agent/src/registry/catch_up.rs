//! From the kept state of the log to the newest, by its new entries alone.
//!
//! The kept edge of the tree and the hashes of the new entries give the new root. If that is
//! the checkpoint's, the log has only grown, and every new entry is in it, with no byte of
//! proof. New statements about subjects in use are appended to their kept index files, which
//! then are what the index lists, so that no tree is walked either.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use modunest_core::digest::Digest;
use modunest_core::index::{Head, INDEX_FILE_MAX_BYTES, IndexFile, prove};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::{STATEMENT_MAX_BYTES, SignedStatement, Subject};
use modunest_tlog::{Frontier, SignedCheckpoint, TILE_WIDTH, TileId, TreeHash, parse_entries};

use super::state::{Kept, Row, Rows};
use super::{Client, Error, fetch};

/// What an entry takes on average: a release is some 900 bytes, a verdict 600.
const ENTRY_ESTIMATE_BYTES: u64 = 1_000;
/// What a walk costs whatever changed: the tree's root, some nodes, and three partial tiles of
/// half their size each.
const WALK_BYTES: u64 = 24 * 1024;
/// What a walk costs for each subject in use: its bin, and its share of nodes and files.
const WALK_SUBJECT_BYTES: u64 = 4 * 1024;
/// Longest bundle of entries that are statements.
const BUNDLE_MAX_BYTES: usize = TILE_WIDTH as usize * (2 + STATEMENT_MAX_BYTES);

/// Where the new entries lead.
pub(super) struct CaughtUp {
    /// The edge at the new head's log size.
    pub(super) frontier: Frontier,
    /// Where the entry behind that edge starts in its bundle, if it is known.
    pub(super) bundle_bytes: Option<u64>,
    /// The entries from the kept head's log size to the new head's, with their positions.
    pub(super) entries: Vec<(u64, Vec<u8>)>,
}

/// Entries behind the kept ones, and where the first of them starts in its bundle.
struct New {
    entries: Vec<Vec<u8>>,
    bundle_bytes: Option<u64>,
}

/// Whether the new entries are fewer bytes than a walk of the tree would be.
pub(super) fn is_cheaper(kept: &Kept, checkpoint: &SignedCheckpoint, subjects: usize) -> bool {
    let new = checkpoint.checkpoint.size.saturating_sub(kept.head.log.size);
    let walk = WALK_BYTES + WALK_SUBJECT_BYTES * subjects as u64;
    new.saturating_mul(ENTRY_ESTIMATE_BYTES) <= walk
}

impl Client {
    /// Reads the new entries. `None` when they do not lead from the kept roots to the new
    /// ones: tiles will tell whose fault that is.
    ///
    /// # Errors
    /// Why entries are not to be had.
    pub(super) async fn catch_up(
        &self,
        kept: &Kept,
        checkpoint: &SignedCheckpoint,
        head: &Head,
    ) -> Result<Option<CaughtUp>, Error> {
        let (from, to) = (kept.head.log.size, checkpoint.checkpoint.size);
        let Some(New { entries: new, mut bundle_bytes }) = self.entries(kept, from, to).await?
        else {
            return Ok(None);
        };
        let (kept_size, kept_root) = kept.log();
        let head_root = TreeHash::from_bytes(*head.log.root.as_bytes());
        let mut frontier = kept.frontier.clone();
        let mut at_head = None;
        for (position, entry) in (from..).zip(new.iter().map(Some).chain([None])) {
            let due = [
                (kept_size, kept_root),
                (head.log.size, head_root),
                (to, checkpoint.checkpoint.root),
            ];
            let mut due = due.into_iter().filter(|(size, _)| *size == position).peekable();
            if due.peek().is_some() {
                let root = frontier.root();
                if due.any(|(_, expected)| expected != root) {
                    return Ok(None);
                }
            }
            if position == head.log.size {
                at_head = Some((frontier.clone(), bundle_bytes));
            }
            let Some(entry) = entry else { break };
            frontier.append(TreeHash::of_leaf(entry));
            bundle_bytes = if (position + 1).is_multiple_of(TILE_WIDTH) {
                Some(0)
            } else {
                bundle_bytes.map(|bytes| bytes + 2 + entry.len() as u64)
            };
        }
        let Some((frontier, bundle_bytes)) = at_head else { return Ok(None) };
        let entries = (from..head.log.size).zip(new).collect();
        Ok(Some(CaughtUp { frontier, bundle_bytes, entries }))
    }

    /// The log's entries from `from` to `to`; `None` when a bundle is malformed.
    async fn entries(&self, kept: &Kept, from: u64, to: u64) -> Result<Option<New>, Error> {
        if from >= to {
            let (entries, bundle_bytes) = (Vec::new(), kept.bundle_bytes);
            return Ok(Some(New { entries, bundle_bytes }));
        }
        let bundles = from / TILE_WIDTH..=(to - 1) / TILE_WIDTH;
        let first = *bundles.start();
        let offset = |index: u64| match kept.bundle_bytes {
            Some(offset) if index == first && !from.is_multiple_of(TILE_WIDTH) => offset,
            _ => 0,
        };
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let reads: Vec<_> = bundles
            .filter_map(|index| TileId::entries(index, to))
            .map(|id| async move {
                let (bytes, start) = self.bundle(id, offset(id.index())).await?;
                Ok::<_, Error>((id, bytes, start))
            })
            .collect();
        let read: Vec<_> =
            futures_util::stream::iter(reads).buffered(fetch::PARALLEL).try_collect().await?;
        let mut entries = Vec::new();
        let mut bundle_bytes = None;
        for (id, bytes, start) in read {
            let known = if id.index() == first { from % TILE_WIDTH } else { 0 };
            // What starts behind the known entries holds the others alone.
            let (skipped, shape) = match start {
                0 => (known as usize, Some(id)),
                _ => (0, TileId::entries(0, u64::from(id.width()) - known)),
            };
            let Some(parsed) = shape.and_then(|shape| parse_entries(shape, &bytes).ok()) else {
                return Ok(None);
            };
            let before: u64 = parsed.iter().take(skipped).map(|entry| 2 + entry.len() as u64).sum();
            bundle_bytes.get_or_insert(start + before);
            entries.extend(parsed.into_iter().skip(skipped).map(<[u8]>::to_vec));
        }
        Ok(Some(New { entries, bundle_bytes }))
    }

    /// A bundle's bytes from `offset`, or from 0 where ranges are not served. A partial one may
    /// be gone once the full one is there; what that has more is cut off.
    async fn bundle(&self, id: TileId, offset: u64) -> Result<(Vec<u8>, u64), Error> {
        match self.fetcher.object_from(ObjectKey::Tile(id), BUNDLE_MAX_BYTES, offset).await {
            Err(Error::Status { status: 404, .. }) if !id.is_full() => {
                let full = ObjectKey::Tile(id.full());
                let bytes = self.fetcher.object(full, BUNDLE_MAX_BYTES).await?;
                let own = match parse_entries(id.full(), &bytes) {
                    Ok(entries) => {
                        let own = entries.iter().take(usize::from(id.width()));
                        own.map(|entry| 2 + entry.len()).sum()
                    }
                    Err(_) => bytes.len(),
                };
                Ok((bytes[..own].to_vec(), 0))
            }
            other => other,
        }
    }

    /// Appends new statements, from the log's entry `from` on, to the kept files of their
    /// subjects. A file that cannot be brought up to date is read again from the tree.
    pub(super) fn append(&self, rows: &mut Rows, from: u64, entries: Vec<(u64, Vec<u8>)>) {
        let mut by_subject: BTreeMap<Subject, Vec<(u64, SignedStatement)>> = BTreeMap::new();
        for (position, bytes) in entries {
            match SignedStatement::parse(bytes) {
                Ok(signed) => {
                    let subject = signed.statement().subject();
                    if rows.contains_key(&subject) {
                        by_subject.entry(subject).or_default().push((position, signed));
                    }
                }
                Err(error) => {
                    // Whom it is about cannot be told, so it may be anybody.
                    tracing::warn!(position, %error, "an entry of the log is not understood");
                    rows.values_mut().for_each(|row| row.outdate(from));
                    return;
                }
            }
        }
        for (subject, new) in by_subject {
            let Some(row) = rows.get_mut(&subject) else { continue };
            match self.longer(&subject, *row, new) {
                Ok(Some(file)) => row.file = file,
                Ok(None) => row.outdate(from),
                Err(error) => {
                    tracing::warn!(%subject, %error, "a kept index file cannot be brought up to date");
                    row.outdate(from);
                }
            }
        }
    }

    fn longer(
        &self,
        subject: &Subject,
        row: Row,
        new: Vec<(u64, SignedStatement)>,
    ) -> Result<Option<Digest>, Error> {
        if !row.current {
            return Ok(None);
        }
        let Some(bytes) = self.cached_file(row.file)? else { return Ok(None) };
        // The form of a file is its entries one behind another, so the new ones are appended.
        let mut bytes = bytes.to_vec();
        bytes.extend_from_slice(
            IndexFile { subject: subject.clone(), entries: new }.entries_bytes().as_slice(),
        );
        if bytes.len() > INDEX_FILE_MAX_BYTES {
            return Ok(None);
        }
        let file = Digest::of(&bytes);
        self.cache.keep(ObjectKey::Index(file), &bytes)?;
        Ok(Some(file))
    }

    /// An index file from the cache, if it is there and what its name says.
    pub(super) fn cached_file(&self, file: Digest) -> Result<Option<Arc<[u8]>>, Error> {
        let bytes = self.cache.object(ObjectKey::Index(file), INDEX_FILE_MAX_BYTES)?;
        Ok(bytes.filter(|bytes| prove("index file", file, bytes).is_ok()).map(Arc::from))
    }
}
