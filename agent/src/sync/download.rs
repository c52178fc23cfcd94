//! Archives: fetched in parallel, gone on with after a break, and handed on only proven.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use modunest_core::archive::ARCHIVE_MAX_BYTES;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;

use super::Error;
use crate::registry::{self, Fetcher};
use crate::store::{self, Fresh, Proven, Staged, Store};

/// Tries of one archive. Each goes on where the one before broke off.
const TRIES_MAX: u32 = 5;
/// Pause after the first broken try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Fetches archives into a store.
pub(super) struct Downloads<'a> {
    pub(super) fetcher: Fetcher,
    pub(super) store: &'a Store,
    /// Where half-fetched archives wait, named by their digests.
    pub(super) folder: PathBuf,
    /// Archives at the same time.
    pub(super) parallel: usize,
    pub(super) progress: &'a ProgressBar,
}

impl Downloads<'_> {
    /// Fetches, proves and unpacks what the store lacks of `plugins`, and makes it visible
    /// once all of it is there. Answers what was fetched.
    ///
    /// # Errors
    /// The first archive that cannot be had or proven.
    pub(super) async fn fetch(&self, plugins: &[Proven]) -> Result<Fresh, Error> {
        let mut missing: Vec<&Proven> = Vec::new();
        for plugin in plugins {
            if !self.store.has(plugin.build.files)? {
                missing.push(plugin);
            }
        }
        missing.sort_by_key(|p| p.build.files);
        missing.dedup_by_key(|p| p.build.files);
        if missing.is_empty() {
            return Ok(Fresh::default());
        }
        std::fs::create_dir_all(&self.folder).map_err(|e| store::Error::io(&self.folder, e))?;
        self.progress.set_length(missing.iter().map(|p| p.build.size_bytes).sum());
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let fetches: Vec<_> = missing.into_iter().map(|plugin| self.one(plugin)).collect();
        let staged: Vec<Staged> = futures_util::stream::iter(fetches)
            .buffer_unordered(self.parallel)
            .try_collect()
            .await?;
        let store = self.store.clone();
        Ok(crate::blocking::run(move || store.commit(staged)).await??)
    }

    async fn one(&self, plugin: &Proven) -> Result<Staged, Error> {
        let (name, version) = (&plugin.release.plugin, &plugin.release.version);
        let path = self.folder.join(plugin.build.archive.to_hex());
        let mut resumed = path.exists();
        loop {
            self.download(plugin, &path).await?;
            let (store, archive) = (self.store.clone(), path.clone());
            let proven = plugin.clone();
            let staged = crate::blocking::run(move || {
                let bytes = std::fs::read(&archive).map_err(|e| store::Error::io(&archive, e))?;
                let staged = store.stage(&bytes, &proven);
                // Right or wrong, these bytes are of no more use.
                std::fs::remove_file(&archive).map_err(|e| store::Error::io(&archive, e))?;
                staged
            })
            .await?;
            match staged {
                Ok(staged) => {
                    tracing::info!(plugin = %name, %version, "fetched and proven");
                    return Ok(staged);
                }
                // The first part is from an earlier run: perhaps only that was wrong.
                Err(store::Error::ArchiveDigest { .. }) if resumed => resumed = false,
                Err(error) => {
                    return Err(Error::Archive {
                        plugin: name.clone(),
                        version: version.clone(),
                        error: Box::new(error),
                    });
                }
            }
        }
    }

    /// Brings the file at `path` to its full length.
    async fn download(&self, plugin: &Proven, path: &Path) -> Result<(), Error> {
        let size = plugin.build.size_bytes.min(ARCHIVE_MAX_BYTES as u64);
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match self.attempt(plugin.build.archive, size, path).await {
                Ok(()) => break,
                Err(Error::Registry(error))
                    if error.kind() == registry::Kind::Unreachable && attempt < TRIES_MAX =>
                {
                    tracing::info!(plugin = %plugin.release.plugin, %error, attempt, "the download broke off; going on");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn attempt(&self, archive: Digest, size: u64, path: &Path) -> Result<(), Error> {
        let io = |e| Error::from(store::Error::io(path, e));
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut have = file.metadata().map_err(io)?.len();
        if have > size {
            have = 0;
        }
        if have == size {
            self.progress.inc(size);
            return Ok(());
        }
        let key = ObjectKey::Blob(archive);
        let url = self.fetcher.url(key);
        let (mut response, from) = self.fetcher.download(key, have).await?;
        file.set_len(from).map_err(io)?;
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        let mut position = from;
        self.progress.inc(from);
        let broken = loop {
            // Pieces are some tens of KB: a write to the page cache, not worth a thread.
            match response.chunk().await {
                Ok(Some(piece)) => {
                    position += piece.len() as u64;
                    if position > size {
                        drop(std::fs::remove_file(path));
                        let error = registry::Error::TooLong { url, limit_bytes: size };
                        return Err(error.into());
                    }
                    file.write_all(&piece).map_err(io)?;
                    self.progress.inc(piece.len() as u64);
                }
                Ok(None) if position == size => return Ok(()),
                Ok(None) => break format!("the answer ended after {position} of {size} bytes"),
                Err(error) => break error.to_string(),
            }
        };
        // What is there already is counted again by the next try.
        self.progress.dec(position);
        Err(registry::Error::Unreachable { url, reason: broken }.into())
    }
}
