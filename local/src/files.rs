//! Object files: immutable, named at random, and never by their key.
//!
//! A file is written and synced before the row that names it is committed, and
//! removed after the row that named it is gone. So a file without a row is
//! either an upload that a crash cut short or one that was already replaced,
//! and the sweep at start-up may remove it.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use crate::folder::sync_folder;

/// Shard folders, so that no folder grows beyond some thousands of names.
const SHARDS: u32 = 256;

/// Random bytes in a name. 128 bits do not collide in the life of a disk.
const NAME_BYTES: usize = 16;

/// The name of an object's file: 32 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FileName(String);

impl FileName {
    fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; NAME_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Accepts what [`FileName::random`] makes and nothing else, so that no row can name another path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 2 * NAME_BYTES
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of object files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: Arc<PathBuf>,
    durable: bool,
}

impl Files {
    /// Opens or makes the folder with its shards.
    pub(crate) fn open(root: PathBuf, durable: bool) -> Result<Self, Error> {
        let make = || -> io::Result<()> {
            fs::create_dir_all(&root)?;
            // The last shard is made last, so its presence says that all are there.
            if root.join(format!("{:02x}", SHARDS - 1)).is_dir() {
                return Ok(());
            }
            for shard in 0..SHARDS {
                match fs::create_dir(root.join(format!("{shard:02x}"))) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
            if durable {
                sync_folder(&root)?;
                if let Some(parent) = root.parent() {
                    sync_folder(parent)?;
                }
            }
            Ok(())
        };
        make().map_err(|source| Error::Folder { action: "write", path: root.clone(), source })?;
        Ok(Self { root: Arc::new(root), durable })
    }

    pub(crate) fn path(&self, name: &FileName) -> PathBuf {
        let (shard, _) = name.0.split_at(2);
        self.root.join(shard).join(&name.0)
    }

    /// A new name whose file, if any gets written, is removed unless [`PendingFile::keep`] is called.
    pub(crate) fn pending(&self) -> io::Result<PendingFile> {
        Ok(PendingFile { files: self.clone(), name: FileName::random()?, kept: false })
    }

    /// Makes a written file and its name durable. Blocks.
    pub(crate) fn sync(&self, name: &FileName) -> io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        let path = self.path(name);
        fs::File::open(&path)?.sync_all()?;
        match path.parent() {
            Some(shard) => sync_folder(shard),
            None => Ok(()),
        }
    }

    /// Gives the content of `from` a second name, without copying it. Blocks.
    pub(crate) fn link(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        fs::hard_link(self.path(from), self.path(to))?;
        self.sync(to)
    }

    /// Removes a file that no row names any more; a failure leaves it to the next start's sweep. Blocks.
    pub(crate) fn remove(&self, name: &FileName) {
        let path = self.path(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an unused object file stays until the next start");
        }
    }

    /// Removes every file whose name is not in `known`, and says which known ones are absent.
    /// Runs before serving, when no upload is under way. Blocks.
    pub(crate) fn sweep(&self, known: &HashSet<FileName>) -> io::Result<Swept> {
        let mut swept = Swept::default();
        let mut present = HashSet::new();
        for shard in fs::read_dir(self.root.as_path())? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name = entry.file_name().to_str().and_then(FileName::parse);
                match name {
                    Some(name) if known.contains(&name) => {
                        present.insert(name);
                    }
                    Some(_) => {
                        swept.removed_bytes += entry.metadata()?.len();
                        fs::remove_file(entry.path())?;
                        swept.removed += 1;
                    }
                    // Not ours: a stranger's file is reported and left alone.
                    None => swept.foreign.push(entry.path()),
                }
            }
        }
        swept.missing = known.difference(&present).cloned().collect();
        Ok(swept)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// What the start-up sweep of the object files found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Files removed because nothing names them.
    pub(crate) removed: u64,
    /// Their size together.
    pub(crate) removed_bytes: u64,
    /// Files that a row names and the disk does not have.
    pub(crate) missing: Vec<FileName>,
    /// Files that this program did not write.
    pub(crate) foreign: Vec<PathBuf>,
}

/// A file on its way: removed when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct PendingFile {
    files: Files,
    name: FileName,
    kept: bool,
}

impl PendingFile {
    /// The name, for writing and for the row.
    pub(crate) fn name(&self) -> &FileName {
        &self.name
    }

    /// Leaves the file in place: a row names it, or might after a failed commit.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.kept {
            self.files.remove(&self.name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hex_of_one_length_only() {
        let name = FileName::random().unwrap();
        assert_eq!(FileName::parse(name.as_str()), Some(name));
        for bad in ["", "../../../../etc/passwd", "0123456789ABCDEF0123456789ABCDEF", "0123"] {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_sweep_removes_what_nothing_names_and_reports_what_is_missing() {
        let folder = tempfile::TempDir::new().unwrap();
        let files = Files::open(folder.path().join("objects"), true).unwrap();
        let (kept, orphan, gone) =
            (FileName::random().unwrap(), FileName::random().unwrap(), FileName::random().unwrap());
        fs::write(files.path(&kept), b"kept").unwrap();
        fs::write(files.path(&orphan), b"half").unwrap();
        let foreign = files.root().join("00").join("notes.txt");
        fs::write(&foreign, b"mine").unwrap();
        let swept = files.sweep(&HashSet::from([kept.clone(), gone.clone()])).unwrap();
        assert_eq!((swept.removed, swept.removed_bytes), (1, 4));
        assert_eq!(swept.missing, [gone]);
        assert_eq!(swept.foreign, [foreign]);
        assert!(files.path(&kept).exists() && !files.path(&orphan).exists());
    }

    #[test]
    fn a_pending_file_goes_unless_kept() {
        let folder = tempfile::TempDir::new().unwrap();
        let files = Files::open(folder.path().join("objects"), false).unwrap();
        let dropped = files.pending().unwrap();
        let dropped_path = files.path(dropped.name());
        fs::write(&dropped_path, b"x").unwrap();
        drop(dropped);
        assert!(!dropped_path.exists());
        let kept = files.pending().unwrap();
        let kept_path = files.path(kept.name());
        fs::write(&kept_path, b"x").unwrap();
        kept.keep();
        assert!(kept_path.exists());
    }
}
