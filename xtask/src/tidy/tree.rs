//! The files that rules read.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::process;

/// One file of the repository.
pub struct File {
    /// From the repository's top, with `/`.
    pub path: String,
    /// Its text; what is not UTF-8 is replaced.
    pub text: String,
    /// Its size in bytes on disk.
    pub size_bytes: u64,
}

impl File {
    /// Whether this is Rust source.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether this whole file is for tests.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("tests.rs")
            || self.path.contains("/tests/")
            || self.path.contains("/benches/")
    }

    /// Whether this is data for tests: bytes that need not read well.
    pub fn is_data(&self) -> bool {
        self.path.starts_with("fuzz/corpus/") || self.path.contains("/snapshots/")
    }
}

/// All files that are tracked, or would be after `git add`.
pub struct Tree {
    /// In the order of their paths.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the repository's files as git lists them.
    pub fn read(repository: &Path) -> Result<Self, Error> {
        let list = process::output(Command::new("git").current_dir(repository).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files = Vec::new();
        for path in list.split('\0').filter(|path| !path.is_empty()) {
            let full = repository.join(path);
            let bytes = match fs::read(&full) {
                Ok(bytes) => bytes,
                // Deleted and not yet committed, or a link to a folder: nothing to read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => continue,
                Err(source) => return Err(Error::File { path: full, source }),
            };
            files.push(File {
                path: path.to_owned(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
                size_bytes: bytes.len() as u64,
            });
        }
        Ok(Self { files })
    }

    /// The file at this path.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// All Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// A tree out of paths and texts.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File {
            path: path.to_owned(),
            text: text.to_owned(),
            size_bytes: text.len() as u64,
        };
        Self { files: files.iter().map(file).collect() }
    }
}
