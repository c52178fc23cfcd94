//! What a plugin is built of, and being told when it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modunest_core::digest::Digest;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::error::Error;

/// How long nothing must change before what has changed is looked at: editors write a file in
/// several steps, and several files at once.
const SETTLED_AFTER: Duration = Duration::from_millis(150);
/// Folders that hold what is made, and what tools keep for themselves.
const NO_SOURCES: [&str; 3] = ["target", "node_modules", "__pycache__"];
/// The one source that a build writes itself.
const LOCK: &str = "Cargo.lock";

/// The content of every source, by its path.
type Contents = BTreeMap<PathBuf, Digest>;

/// Watches folders with sources.
pub struct Sources {
    folders: Vec<PathBuf>,
    seen: Contents,
    /// Told when something may have changed.
    changes: mpsc::UnboundedReceiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Sources {
    /// Watches from now on. What is there now counts as seen.
    ///
    /// # Errors
    /// A folder cannot be read or watched.
    pub fn watch(folders: Vec<PathBuf>) -> Result<Sources, Error> {
        let (tell, changes) = mpsc::unbounded_channel();
        let told = move |event: notify::Result<notify::Event>| {
            // What is lost of the events is found by looking.
            let is_of_interest = event.map_or(true, |event| {
                !event.kind.is_access() && event.paths.iter().any(|path| is_source(path))
            });
            if is_of_interest {
                // Nobody listens any more when the command ends.
                let _ = tell.send(());
            }
        };
        let failed = |error: notify::Error| Error::Failed(format!("cannot watch: {error}"));
        let mut watcher = notify::recommended_watcher(told).map_err(failed)?;
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
        }
        let seen = contents(&folders)?;
        Ok(Sources { folders, seen, changes, _watcher: watcher })
    }

    /// Waits until a source has other content than was seen, and counts that as seen. Answers
    /// the files.
    ///
    /// # Errors
    /// A folder cannot be read any more.
    pub async fn changed(&mut self) -> Result<Vec<PathBuf>, Error> {
        loop {
            if self.changes.recv().await.is_none() {
                return Err(Error::Failed("the folders cannot be watched any more".to_owned()));
            }
            // Until it is quiet.
            while let Ok(Some(())) = tokio::time::timeout(SETTLED_AFTER, self.changes.recv()).await
            {
            }
            let now = contents(&self.folders)?;
            let changed = differing(&self.seen, &now);
            self.seen = now;
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// A build has ended: what it wrote itself is no change.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn built(&mut self) -> Result<(), Error> {
        for folder in &self.folders {
            let path = folder.join(LOCK);
            if path.is_file() {
                self.seen.insert(path.clone(), digest(&path)?);
            }
        }
        Ok(())
    }
}

fn differing(before: &Contents, now: &Contents) -> Vec<PathBuf> {
    let other = now.iter().filter(|(path, digest)| before.get(*path) != Some(digest));
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    other.map(|(path, _)| path).chain(gone).cloned().collect()
}

/// Whether a path is of a file that a person writes.
fn is_source(path: &Path) -> bool {
    let hidden_or_made = path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        NO_SOURCES.contains(&name.as_ref())
    });
    !hidden_or_made
        && path.file_name().is_some_and(|name| is_name_of_source(&name.to_string_lossy()))
}

/// Hidden files and what editors leave beside a file are none.
fn is_name_of_source(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with('~') && !name.ends_with(".swp")
}

fn contents(folders: &[PathBuf]) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    let mut queue: Vec<PathBuf> = folders.to_vec();
    while let Some(folder) = queue.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::file(&folder))? {
            let entry = entry.map_err(Error::file(&folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if !is_name_of_source(&name) || NO_SOURCES.contains(&name.as_ref()) {
                continue;
            }
            let kind = entry.file_type().map_err(Error::file(&path))?;
            if kind.is_dir() {
                queue.push(path);
            } else if kind.is_file() {
                match digest(&path) {
                    Ok(digest) => drop(contents.insert(path, digest)),
                    // It was there a moment ago.
                    Err(_) if !path.exists() => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(contents)
}

fn digest(path: &Path) -> Result<Digest, Error> {
    Ok(Digest::of(&std::fs::read(path).map_err(Error::file(path))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_content_of_a_source_is_a_change_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        std::fs::create_dir_all(root.join("src")).unwrap();
        std::fs::create_dir_all(root.join("target/release")).unwrap();
        std::fs::write(root.join("src/lib.rs"), "one").unwrap();
        let mut sources = Sources::watch(vec![root.clone()]).unwrap();
        // What is made, what an editor keeps, and the same content again.
        std::fs::write(root.join("target/release/made"), "x").unwrap();
        std::fs::write(root.join("src/.lib.rs.swp"), "x").unwrap();
        std::fs::write(root.join("src/lib.rs"), "one").unwrap();
        std::fs::write(root.join(LOCK), "by the build").unwrap();
        sources.built().unwrap();
        let nothing = tokio::time::timeout(SETTLED_AFTER * 4, sources.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        std::fs::write(root.join("src/more.rs"), "new").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/more.rs")]);
        // As many editors save: another file in its place.
        std::fs::write(root.join("src/lib.rs~"), "two").unwrap();
        std::fs::rename(root.join("src/lib.rs~"), root.join("src/lib.rs")).unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/lib.rs")]);
        std::fs::remove_file(root.join("src/more.rs")).unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/more.rs")]);
    }
}
