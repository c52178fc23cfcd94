//! The entries that are new since the last run: hashed to the signed root, and folded as far
//! as the head says that the index goes.

use futures_util::StreamExt as _;
use modunest_core::statement::SignedStatement;
use modunest_tlog::{Frontier, HASH_BYTES, TILE_WIDTH, TileId, TileKind, Tiles, TreeHash};

use super::fold::{Fold, Index, Refused};
use super::report::{Activity, Finding, Kind, Report};
use super::state::State;
use super::{Monitor, Shown, Stop, compare, found};
use crate::error::Error;
use crate::log::{ReadError, say, signer_id};

/// Bundles that are fetched ahead: each has at most 2 MB.
const AHEAD: usize = 8;

/// Two roots of the log that are signed, and what was computed for each.
struct Goals {
    /// The head's: the fold stops there.
    head: (u64, TreeHash),
    /// The checkpoint's.
    checkpoint: (u64, TreeHash),
}

impl Monitor<'_> {
    /// Reads the entries from where the last run stopped to the checkpoint's end.
    pub(super) async fn replay(
        &self,
        state: &mut State,
        shown: &Shown,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let checkpoint = &shown.checkpoint.signed.checkpoint;
        let log = shown.head.log;
        let goals = Goals {
            head: (log.size, TreeHash::from_bytes(*log.root.as_bytes())),
            checkpoint: (checkpoint.size, checkpoint.root),
        };
        let (replayed, root) = state.replayed();
        if log.size < replayed {
            return Err(found(
                Kind::Head,
                format!("the head went back from {replayed} entries of the log to {}", log.size),
            ));
        }
        let mut frontier = self.frontier((replayed, root), checkpoint.size).await?;
        let folder = state.subjects_folder();
        let mut fold = Fold::new(folder, &self.authority.statement_keys, &mut state.subjects);
        // What stands in the entries is judged when they are proven to be those of the log: an
        // entry that a mirror changed must not look like the registry's.
        let mut refused: Option<Finding> = None;
        let mut index: Option<Index> = None;
        let mut activity = Vec::new();
        if frontier.size() == goals.head.0 {
            match at_head(&frontier, &goals, &mut fold) {
                Ok(folded) => index = Some(folded),
                Err(stop) => refused = Some(later(stop)?),
            }
        }
        let bundles = bundles(replayed, checkpoint.size);
        let mut bundles = futures_util::stream::iter(bundles)
            .map(|bundle| async move { (bundle, self.files.entries(bundle).await) })
            .buffered(AHEAD);
        while let Some((bundle, entries)) = bundles.next().await {
            let first = bundle.index() * TILE_WIDTH;
            for (position, entry) in (first..).zip(malformed_is_found(entries)?) {
                if position < replayed {
                    continue;
                }
                frontier.append(TreeHash::of_leaf(&entry));
                if position >= goals.head.0 || refused.is_some() {
                    continue;
                }
                match fold.take(position, &entry) {
                    Ok(signed) => activity.extend(self.activity(position, &signed)),
                    Err(Refused::Own(error)) => return Err(error.into()),
                    Err(why) => {
                        let what = format!("entry {position} of the log: {why}");
                        refused = Some(Finding { kind: Kind::Statement, what });
                        continue;
                    }
                }
                if frontier.size() == goals.head.0 {
                    match at_head(&frontier, &goals, &mut fold) {
                        Ok(folded) => index = Some(folded),
                        Err(stop) => refused = Some(later(stop)?),
                    }
                }
            }
            // The full tiles are the registry's to keep.
            drop(frontier.take_tiles());
        }
        drop(bundles);
        if frontier.root() != goals.checkpoint.1 {
            return Err(found(
                Kind::Entries,
                format!(
                    "the {} entries that are served hash to the root {}, and the log signed {}",
                    goals.checkpoint.0,
                    frontier.root(),
                    goals.checkpoint.1
                ),
            ));
        }
        report.activity = activity;
        if let Some(refused) = refused {
            return Err(Stop::Found(refused));
        }
        report.statements = goals.head.0 - replayed;
        let Some(index) = index else {
            return Err(Error::Failed("the replay did not come to the head".to_owned()).into());
        };
        report.subjects = index.subjects();
        if index.root != shown.head.index {
            let differing = compare::differing(self.files, &index, shown.head.index).await?;
            return Err(found(
                Kind::Index,
                format!(
                    "the index of epoch {} is {}, and the statements of the log give {}: {differing}",
                    shown.head.epoch, shown.head.index, index.root
                ),
            ));
        }
        Ok(())
    }

    /// The right edge of the tree that was replayed, from the tiles of the present one.
    async fn frontier(
        &self,
        (size, root): (u64, TreeHash),
        present: u64,
    ) -> Result<Frontier, Stop> {
        let mut tiles = Tiles::default();
        for tile in Frontier::tiles(size) {
            let TileKind::Hashes { level } = tile.kind() else { continue };
            // The same tile may have grown, and its old form may be gone.
            let Some(grown) = TileId::hashes(level, tile.index(), present) else { continue };
            let mut bytes = self.files.hash_tile(grown).await?;
            bytes.truncate(usize::from(tile.width()) * HASH_BYTES);
            tiles.insert(tile, &bytes).map_err(ReadError::from)?;
        }
        let frontier = Frontier::load(size, &tiles).map_err(ReadError::from)?;
        if frontier.root() == root {
            return Ok(frontier);
        }
        Err(found(
            Kind::Entries,
            format!(
                "the tiles that are served give the root {} for the first {size} entries, and the \
                 last run saw {root}",
                frontier.root()
            ),
        ))
    }

    fn activity(&self, position: u64, signed: &SignedStatement) -> Option<Activity> {
        let watched: Vec<String> = self
            .watched
            .iter()
            .filter(|watched| watched.is_touched(signed))
            .map(|watched| watched.text().to_owned())
            .collect();
        let statement = signed.statement();
        (!watched.is_empty()).then(|| Activity {
            position,
            subject: statement.subject().to_string(),
            kind: statement.kind(),
            signer: signer_id(signed).unwrap_or_default(),
            what: say(statement),
            watched,
        })
    }
}

/// A bundle that cannot be read as one was changed, or never was one.
fn malformed_is_found(entries: Result<Vec<Vec<u8>>, ReadError>) -> Result<Vec<Vec<u8>>, Stop> {
    match entries {
        Err(ReadError::Bundle(error)) => Err(found(Kind::Entries, error.to_string())),
        other => Ok(other?),
    }
}

/// A finding to be told once the entries are proven; anything else stops at once.
fn later(stop: Stop) -> Result<Finding, Stop> {
    match stop {
        Stop::Found(finding) => Ok(finding),
        failed @ Stop::Failed(_) => Err(failed),
    }
}

/// Where the fold stops: the head's root of the log must be that of these entries.
fn at_head(frontier: &Frontier, goals: &Goals, fold: &mut Fold<'_>) -> Result<Index, Stop> {
    let (size, root) = goals.head;
    if frontier.root() != root && size != goals.checkpoint.0 {
        return Err(found(
            Kind::Head,
            format!(
                "the head says that the first {size} entries of the log have the root {root}; \
                 those that are served have {}",
                frontier.root()
            ),
        ));
    }
    if size == goals.checkpoint.0 && root != goals.checkpoint.1 {
        return Err(found(
            Kind::Fork,
            format!(
                "head and checkpoint are over {size} entries each, the head with the root {root}, \
                 the checkpoint with {}",
                goals.checkpoint.1
            ),
        ));
    }
    Ok(fold.index()?)
}

/// The bundles with the entries from `from` on.
fn bundles(from: u64, size: u64) -> Vec<TileId> {
    (from / TILE_WIDTH..size.div_ceil(TILE_WIDTH))
        .filter_map(|index| TileId::entries(index, size))
        .collect()
}
