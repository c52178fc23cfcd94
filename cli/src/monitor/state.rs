//! What one run leaves for the next: a small file with what was believed last, and for each
//! subject the file of its statements, as the index would hold it.
//!
//! The small file is written last, whole and synced. A subject's file is appended to before
//! that; its beginning is believed only when it has the digest that the small file names, so
//! a crash costs nothing and a power failure at worst a replay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use modunest_core::digest::Digest;
use modunest_core::index::Head;
use modunest_core::statement::Subject;
use modunest_tlog::{Checkpoint, Note, TreeHash};
use serde::{Deserialize, Serialize};

use super::fold::SubjectFile;
use crate::error::Error;
use crate::files;

const FORMAT: &str = "modunest/monitor-state/v1";
const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
/// Folder of the subjects' files.
const SUBJECTS_FOLDER: &str = "subjects";
/// Folder of what was signed and contradicts itself.
const EVIDENCE_FOLDER: &str = "evidence";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: String,
    origin: String,
    /// The newest checkpoint, verbatim.
    checkpoint: String,
    /// The newest head, verbatim.
    head: String,
    /// Entries that were replayed.
    size: u64,
    /// Root of the tree over them.
    root: Digest,
    /// Subjects with the files of their statements among those entries.
    subjects: BTreeMap<String, KeptFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptFile {
    digest: Digest,
    size_bytes: u64,
}

/// The state folder, locked until dropped.
pub(super) struct State {
    folder: PathBuf,
    origin: String,
    last: Option<Last>,
    /// Every subject's file. The fold goes on with these.
    pub(super) subjects: BTreeMap<Subject, SubjectFile>,
    _lock: File,
}

struct Last {
    checkpoint: Checkpoint,
    checkpoint_note: String,
    head: Head,
    head_note: String,
    replayed: (u64, TreeHash),
}

impl State {
    /// Reads what the last run left; nothing, at first.
    pub(super) fn open(folder: &Path, origin: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let lock = files::lock(&folder.join(LOCK_FILE))?.ok_or_else(|| {
            Error::Failed(format!("another monitor uses {}; wait for it", folder.display()))
        })?;
        let mut state = State {
            folder: folder.to_owned(),
            origin: origin.to_owned(),
            last: None,
            subjects: BTreeMap::new(),
            _lock: lock,
        };
        let path = folder.join(STATE_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(state),
            Err(error) => return Err(Error::file(path)(error)),
        };
        let damaged = |why: String| {
            Error::Input(format!(
                "{}: {why}. Keep the folder as evidence of what was seen, and begin another with \
                 --state DIR",
                path.display()
            ))
        };
        let kept: Kept =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if kept.format != FORMAT {
            return Err(damaged(format!("its format is {}, not {FORMAT}", kept.format)));
        }
        if kept.origin != origin {
            return Err(damaged(format!("it is about {}, not {origin}", kept.origin)));
        }
        for (name, file) in kept.subjects {
            let subject: Subject = name.parse().map_err(|error| damaged(format!("{error}")))?;
            let KeptFile { digest, size_bytes } = file;
            state.subjects.insert(subject, SubjectFile { digest, size_bytes });
        }
        let checkpoint = Note::parse(kept.checkpoint.as_bytes())
            .map_err(|error| damaged(error.to_string()))
            .and_then(|note| {
                Checkpoint::parse(note.unverified_text())
                    .map_err(|error| damaged(error.to_string()))
            })?;
        let head = Head::read_unproven(kept.head.as_bytes())
            .map_err(|error| damaged(error.to_string()))?;
        state.last = Some(Last {
            checkpoint,
            checkpoint_note: kept.checkpoint,
            head,
            head_note: kept.head,
            replayed: (kept.size, TreeHash::from_bytes(*kept.root.as_bytes())),
        });
        Ok(state)
    }

    /// How much of the log was replayed: entries, and the root of the tree over them.
    pub(super) fn replayed(&self) -> (u64, TreeHash) {
        self.last.as_ref().map_or((0, TreeHash::empty()), |last| last.replayed)
    }

    pub(super) fn last_checkpoint(&self) -> Option<&Checkpoint> {
        self.last.as_ref().map(|last| &last.checkpoint)
    }

    pub(super) fn last_head(&self) -> Option<&Head> {
        self.last.as_ref().map(|last| &last.head)
    }

    /// Where a subject's statements are.
    pub(super) fn subjects_folder(&self) -> PathBuf {
        self.folder.join(SUBJECTS_FOLDER)
    }

    /// Remembers this run.
    pub(super) fn save(
        &self,
        checkpoint: &[u8],
        head: &[u8],
        (size, root): (u64, Digest),
    ) -> Result<(), Error> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let subjects = self.subjects.iter().map(|(subject, file)| {
            let SubjectFile { digest, size_bytes } = *file;
            (subject.to_string(), KeptFile { digest, size_bytes })
        });
        let kept = Kept {
            format: FORMAT.to_owned(),
            origin: self.origin.clone(),
            checkpoint: text(checkpoint),
            head: text(head),
            size,
            root,
            subjects: subjects.collect(),
        };
        let json =
            serde_json::to_string(&kept).map_err(|error| Error::Failed(error.to_string()))?;
        files::write(&self.folder.join(STATE_FILE), &json)
    }

    /// Keeps the signed notes of this run and of the last one.
    pub(super) fn keep_evidence(&self, checkpoint: &[u8], head: &[u8]) -> Result<(), Error> {
        let folder = self.folder.join(EVIDENCE_FOLDER);
        let keep = |what: &str, note: &[u8]| {
            // Named by its content: the same note is kept once, and none is replaced.
            let path = folder.join(format!("{what}-{}", &Digest::of(note).to_hex()[..16]));
            if path.exists() {
                return Ok(());
            }
            files::write(&path, &String::from_utf8_lossy(note))
        };
        keep("checkpoint", checkpoint)?;
        keep("head", head)?;
        if let Some(last) = &self.last {
            keep("checkpoint", last.checkpoint_note.as_bytes())?;
            keep("head", last.head_note.as_bytes())?;
        }
        Ok(())
    }
}
