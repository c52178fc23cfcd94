//! A lock file with all that proves and loads it, for hosts without a network.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use modunest_core::archive::ARCHIVE_MAX_BYTES;
use modunest_core::keys::ObjectKey;

use super::{Error, LOCK_MAX_BYTES, Lock, Policy, Syncer, difference, facts, resolve};
use crate::config::Config;
use crate::registry::{Bundle, BundleWriter, Client, Recorded};
use crate::{files, store};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// Plugins that the bundle holds.
    pub plugins: usize,
    /// Objects that it has of the registry.
    pub objects: usize,
    /// Entries of the log that its checkpoint covers.
    pub log_size: u64,
}

impl Syncer {
    /// Opens an agent's folders for reading a bundle in place of the registry.
    ///
    /// # Errors
    /// As [`Syncer::open`], and when the file is no bundle.
    pub fn open_bundle(config: &Config, path: &Path) -> Result<Self, Error> {
        let bundle = Bundle::open(path)?;
        let lock = Lock::parse(&bundle.lock(LOCK_MAX_BYTES)?)
            .map_err(|rule| Error::Lock { path: path.to_owned(), rule })?;
        let mut syncer = Syncer::open(config)?;
        syncer.client.read_from(bundle);
        syncer.offered = Some(lock);
        Ok(syncer)
    }

    /// Writes everything that another host needs to prove and load this one's lock file. What
    /// a host asks that knows nothing is asked here and recorded; with `known_size`, also what
    /// one asks that knows the log up to there.
    ///
    /// # Errors
    /// As [`Syncer::sync`]; [`Error::Frozen`] when the registry would not give this lock file
    /// any more. Nothing stands at `out` then.
    pub async fn bundle(
        &self,
        config: &Config,
        out: &Path,
        known_size: Option<u64>,
    ) -> Result<Bundled, Error> {
        let _held = self.hold()?;
        let lock = self.read_lock()?.ok_or_else(|| Error::Frozen("there is none".to_owned()))?;
        let folder = files::aside(&self.state_dir.join("bundle"));
        let mut client = super::client(config, folder.clone())?;
        let recorded = client.record();
        let bundled = self.write_bundle(config, &client, recorded, &lock, out, known_size).await;
        drop(client);
        std::fs::remove_dir_all(&folder).map_err(|e| store::Error::io(&folder, e))?;
        bundled
    }

    async fn write_bundle(
        &self,
        config: &Config,
        client: &Client,
        recorded: Recorded,
        lock: &Lock,
        out: &Path,
        known_size: Option<u64>,
    ) -> Result<Bundled, Error> {
        let head = client.refresh().await?;
        let policy: Policy = config.policy.with(&client.authority()?.policy);
        let host = facts(config);
        let tried = self.tries()?;
        let resolved =
            resolve(client, &config.plugins, lock.versions(), host, &policy, &tried).await?;
        let found = Lock::new(&head, resolved.locked);
        if found.plugins != lock.plugins {
            return Err(Error::Frozen(difference(Some(lock), &found)));
        }
        if let Some(size) = known_size {
            client.prove_growth_from(size).await?;
        }
        let archives = found.plugins.iter().map(|plugin| ObjectKey::Blob(plugin.archive));
        let mut objects: Vec<(ObjectKey, Option<Vec<u8>>)> =
            archives.map(|key| (key, None)).collect();
        objects.extend(recorded.take().into_iter().map(|(key, bytes)| (key, Some(bytes))));
        objects.sort_by_cached_key(|(key, _)| key.to_string());
        objects.dedup_by_key(|(key, _)| *key);
        let aside = files::aside(out);
        let io = |e| Error::from(store::Error::io(out, e));
        let file = File::create_new(&aside).map_err(io)?;
        let mut writer = BundleWriter::new(BufWriter::new(file), &found.to_bytes()).map_err(io)?;
        let count = objects.len();
        for (key, bytes) in objects {
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => client.fetcher().object(key, ARCHIVE_MAX_BYTES).await?,
            };
            writer.object(key, &bytes).map_err(io)?;
        }
        let mut file = writer.finish();
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(io)?;
        std::fs::rename(&aside, out).map_err(io)?;
        Ok(Bundled { plugins: found.plugins.len(), objects: count, log_size: head.log.size })
    }
}
