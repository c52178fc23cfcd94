//! What must survive: the newest verified checkpoint and head, the edge of the log's tree, and
//! the highest time seen, in one file that is replaced whole.
//!
//! Beside it, `proven` names the index files of which every statement was proven to be in the
//! log. It may be lost: then they are proven again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use modunest_core::digest::Digest;
use modunest_core::index::{Head, LogHead};
use modunest_core::statement::Subject;
use modunest_core::time::Timestamp;
use modunest_tlog::{Frontier, HASH_BYTES, SignedCheckpoint, TileId, TileKind, Tiles, TreeHash};
use serde::{Deserialize, Serialize};

use super::{Authority, Error};
use crate::files;

/// Longest state file, in bytes: a checkpoint and a head with every byte escaped in six, and
/// eight levels of 255 hashes with 64 digits each.
const STATE_MAX_BYTES: usize = 1024 * 1024;
/// Longest file of proven index files, in bytes: 100,000 of them with 150 bytes each.
const PROVEN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// The formats' version.
const FORMAT: u32 = 1;
const PROVEN_FIRST: &str = "modunest/proven/v1";

/// What was verified last.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) checkpoint: SignedCheckpoint,
    pub(super) head: Head,
    pub(super) head_bytes: Vec<u8>,
    pub(super) etag: Option<String>,
    /// The edge of the tree at the head's log size.
    pub(super) frontier: Frontier,
    /// Where the first entry behind that edge starts in its bundle; `None` when the bundle was
    /// never read.
    pub(super) bundle_bytes: Option<u64>,
}

impl Kept {
    /// Size and root that the newest checkpoint names.
    pub(super) const fn log(&self) -> (u64, TreeHash) {
        (self.checkpoint.checkpoint.size, self.checkpoint.checkpoint.root)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: u32,
    checkpoint: String,
    head: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_etag: Option<String>,
    /// The partial tile of each level, from the lowest, in hexadecimal; empty where there is
    /// none.
    frontier: Vec<Vec<Digest>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle_bytes: Option<u64>,
    time_seen: Timestamp,
}

/// The files of a registry's state.
pub(super) struct StateFiles {
    state: PathBuf,
    proven: PathBuf,
}

impl StateFiles {
    pub(super) fn new(folder: &Path) -> Self {
        StateFiles { state: folder.join("state"), proven: folder.join("proven") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.state
    }

    /// What was verified last, and the highest time seen. What `authority` no longer vouches
    /// for binds nobody: a stolen key could otherwise lock this host out with it.
    ///
    /// # Errors
    /// [`Error::Cache`], and [`Error::Kept`] for a damaged file: it is not forgotten, because
    /// without it an old index could be shown.
    pub(super) fn read(
        &self,
        authority: &Authority,
    ) -> Result<(Option<Kept>, Option<Timestamp>), Error> {
        let path = &self.state;
        let content = files::read_limited(path, STATE_MAX_BYTES)
            .map_err(|source| Error::Cache { path: path.clone(), source })?;
        let Some(content) = content else { return Ok((None, None)) };
        let damaged = |rule: String| Error::Kept { path: path.clone(), rule };
        let wire: Wire = serde_json::from_slice(&content).map_err(|e| damaged(e.to_string()))?;
        if wire.format != FORMAT {
            return Err(damaged(format!("format {} is not known here", wire.format)));
        }
        let time_seen = Some(wire.time_seen);
        let kept = believed(&wire, authority);
        let (checkpoint, head) = match kept {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "what was kept is not vouched for by the trust root any more; starting anew");
                return Ok((None, time_seen));
            }
        };
        let frontier = read_frontier(head.log.size, &wire.frontier)
            .filter(|frontier| *frontier.root().as_bytes() == *head.log.root.as_bytes())
            .ok_or_else(|| damaged("its hashes do not lead to the head's root".to_owned()))?;
        let kept = Kept {
            checkpoint,
            head,
            head_bytes: wire.head.into_bytes(),
            etag: wire.head_etag,
            frontier,
            bundle_bytes: wire.bundle_bytes,
        };
        Ok((Some(kept), time_seen))
    }

    /// Replaces the state.
    pub(super) fn write(&self, kept: &Kept, time_seen: Timestamp) -> Result<(), Error> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let wire = Wire {
            format: FORMAT,
            checkpoint: text(kept.checkpoint.bytes()),
            head: text(&kept.head_bytes),
            head_etag: kept.etag.clone(),
            frontier: write_frontier(&kept.frontier),
            bundle_bytes: kept.bundle_bytes,
            time_seen,
        };
        let failed = |source| Error::Cache { path: self.state.clone(), source };
        let content = serde_json::to_vec(&wire).map_err(|e| failed(e.into()))?;
        files::write_durable(&self.state, &content).map_err(failed)
    }

    /// The proven index files under `log`; none when they were proven under another.
    pub(super) fn read_proven(&self, log: &LogHead) -> Result<Rows, Error> {
        let path = &self.proven;
        let content = files::read_limited(path, PROVEN_MAX_BYTES)
            .map_err(|source| Error::Cache { path: path.clone(), source })?;
        let rows = content.and_then(|content| read_rows(&String::from_utf8(content).ok()?, log));
        Ok(rows.unwrap_or_default())
    }

    pub(super) fn write_proven(&self, log: &LogHead, rows: &Rows) -> Result<(), Error> {
        let mut text = format!("{PROVEN_FIRST} {} {}\n", log.size, log.root);
        for (subject, Row { file, current, whole_to }) in rows {
            let mark = if *current { String::new() } else { format!(" old {whole_to}") };
            text.push_str(&format!("{subject} {file}{mark}\n"));
        }
        files::write_cached(&self.proven, text.as_bytes())
            .map_err(|source| Error::Cache { path: self.proven.clone(), source })
    }
}

/// An index file of which every statement was proven to be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) file: Digest,
    /// Whether it is the subject's file under the kept head, or was under an earlier one.
    pub(super) current: bool,
    /// While it is not current: the size of the log up to which it has every statement of its
    /// subject; 0 where that is not known.
    pub(super) whole_to: u64,
}

impl Row {
    /// The subject's file under the kept head.
    pub(super) const fn current(file: Digest) -> Row {
        Row { file, current: true, whole_to: 0 }
    }

    /// There is a newer head than that of a log of `size`, under which it was current if it is.
    pub(super) const fn outdate(&mut self, size: u64) {
        if self.current {
            (self.current, self.whole_to) = (false, size);
        }
    }
}

pub(super) type Rows = BTreeMap<Subject, Row>;

fn read_rows(text: &str, log: &LogHead) -> Option<Rows> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != format!("{PROVEN_FIRST} {} {}", log.size, log.root) {
        return None;
    }
    lines
        .map(|line| {
            let (line, old) = match line.split_once(" old ") {
                Some((line, size)) => (line, Some(size.parse().ok()?)),
                None => (line, None),
            };
            let (subject, file) = line.split_once(' ')?;
            let row = Row {
                file: file.parse().ok()?,
                current: old.is_none(),
                whole_to: old.unwrap_or(0),
            };
            Some((subject.parse().ok()?, row))
        })
        .collect()
}

fn believed(wire: &Wire, authority: &Authority) -> Result<(SignedCheckpoint, Head), Error> {
    let origin = &authority.origin;
    let bytes = wire.checkpoint.as_bytes();
    let checkpoint = SignedCheckpoint::verify(bytes, origin, &authority.log_keys)?;
    let head = super::read_head(wire.head.as_bytes(), authority)?;
    Ok((checkpoint, head))
}

fn write_frontier(frontier: &Frontier) -> Vec<Vec<Digest>> {
    let mut levels = Vec::new();
    for (id, bytes) in frontier.partial_tiles() {
        let TileKind::Hashes { level } = id.kind() else { continue };
        levels.resize(usize::from(level) + 1, Vec::new());
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        levels[usize::from(level)] = hashes.iter().copied().map(Digest::from_bytes).collect();
    }
    levels
}

fn read_frontier(size: u64, levels: &[Vec<Digest>]) -> Option<Frontier> {
    let mut tiles = Tiles::default();
    for (level, hashes) in levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()) {
        let level = u8::try_from(level).ok()?;
        let id = Frontier::tiles(size)
            .into_iter()
            .find(|id: &TileId| id.kind() == TileKind::Hashes { level })?;
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        tiles.insert(id, &bytes).ok()?;
    }
    Frontier::load(size, &tiles).ok()
}
