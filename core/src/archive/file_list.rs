//! The list of files that a release statement binds for each build.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};

/// First line of the text that [`FileList::digest`] hashes.
pub const FILE_LIST_HEADER: &str = "modunest-file-list/1\n";

/// What a file in an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Relative path with `/` between segments.
    pub name: String,
    /// Unpacked size in bytes.
    pub size_bytes: u64,
    /// Whether the file may be executed.
    pub executable: bool,
    /// SHA-256 of the unpacked contents.
    pub sha256: Digest,
}

/// All files of an archive, sorted by the bytes of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileList {
    files: Vec<FileRecord>,
}

impl FileList {
    pub(super) fn new(mut files: Vec<FileRecord>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        FileList { files }
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[FileRecord] {
        &self.files
    }

    /// The file with exactly this name.
    pub fn get(&self, name: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(at)
    }

    /// Sum of the unpacked sizes in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// SHA-256 of the list's canonical text: [`FILE_LIST_HEADER`], then one line a file in
    /// the order of the names' bytes:
    ///
    /// ```text
    /// <64 hexadecimal digits> <size in decimal> <x or -> <name>\n
    /// ```
    ///
    /// Names have no control characters (the gate refuses them), so lines cannot be forged.
    /// The digest depends on contents, names and execute bits alone: not on compression,
    /// order or times.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(FILE_LIST_HEADER.as_bytes());
        for file in &self.files {
            let flag = if file.executable { 'x' } else { '-' };
            let line = format!("{} {} {flag} {}\n", file.sha256, file.size_bytes, file.name);
            hasher.update(line.as_bytes());
        }
        hasher.finish()
    }
}
