//! The trust root's online part: snapshot and timestamp, signed anew before they expire.
//!
//! What holders of offline keys sign is uploaded by whoever ran the ceremony
//! (`modunest trust`); the files lie in the public bucket below `trust/`. Nobody else writes
//! there, so the newest root in it is believed here. Versions of one role follow one another
//! without gaps, so the newest is found by asking for the next.

use bytes::Bytes;
use modunest_core::keys::ObjectKey;
use modunest_core::trust::{Current, File, METADATA_MAX_BYTES, RoleName, SigningKey, renew};
use tokio::sync::Mutex;

use crate::Functions;
use crate::error::Error;
use crate::storage::Fetch;

/// Keeper of the online key.
pub(crate) struct Online {
    key: SigningKey,
    known: Mutex<Known>,
}

/// Versions that were the newest when they were last looked for: where to look from. Nothing
/// that matters.
#[derive(Default)]
struct Known {
    root: u64,
    targets: u64,
    snapshot: u64,
}

impl Online {
    pub(crate) fn new(key: SigningKey) -> Self {
        Online { key, known: Mutex::default() }
    }
}

impl Functions {
    /// Stores files of a trust root, in this order, unless they are there. A registry on one
    /// machine brings its own; for a deployed one, its operator uploads them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn offer_trust(&self, files: Vec<(File, Vec<u8>)>) -> Result<(), Error> {
        for (file, bytes) in files {
            self.0.storage.put_content(ObjectKey::Trust(file), bytes.into()).await?;
        }
        Ok(())
    }

    /// Signs snapshot and timestamp of the trust root anew where that is due. Does nothing for
    /// a registry that has no trust root, or no online key here. Answers whether it did.
    ///
    /// # Errors
    /// [`Error::Unavailable`], and [`Error::Trust`] when what is published is no trust root of
    /// this key.
    pub async fn renew_trust(&self) -> Result<bool, Error> {
        let Some(online) = &self.0.online else { return Ok(false) };
        let mut known = online.known.lock().await;
        let root = self.newest_trust(RoleName::Root, &mut known.root).await?;
        let targets = self.newest_trust(RoleName::Targets, &mut known.targets).await?;
        let (Some(root), Some(targets)) = (root, targets) else { return Ok(false) };
        let snapshot = self.newest_trust(RoleName::Snapshot, &mut known.snapshot).await?;
        let timestamp = self.trust_file(File::Timestamp).await?;
        let current = Current {
            root: &root,
            targets: &targets,
            snapshot: snapshot.as_deref(),
            timestamp: timestamp.as_ref().map(|(bytes, _)| &bytes[..]),
        };
        let renewed = renew(current, std::slice::from_ref(&online.key), self.now())?;
        let any = !renewed.files.is_empty();
        for (file, bytes) in renewed.files {
            let key = ObjectKey::Trust(file);
            let last = timestamp.as_ref().map(|(_, etag)| etag.as_str());
            match file {
                File::Timestamp => {
                    // Whoever else replaced it has signed the same, or something newer.
                    self.0.storage.put_changing(key, bytes, last).await?;
                }
                // One that is there already is found as the newest the next time.
                _ => self.0.storage.put_content(key, bytes.into()).await?,
            }
        }
        if any {
            tracing::info!("signed the trust root's snapshot or timestamp anew");
        }
        Ok(any)
    }

    /// The newest file of a role, looked for from the version `known` on, which becomes its own.
    async fn newest_trust(&self, role: RoleName, known: &mut u64) -> Result<Option<Bytes>, Error> {
        let mut newest = match *known {
            0 => None,
            version => self.trust_file(File::of(role, version)).await?,
        };
        while let Some(next) = self.trust_file(File::of(role, *known + 1)).await? {
            *known += 1;
            newest = Some(next);
        }
        Ok(newest.map(|(bytes, _)| bytes))
    }

    async fn trust_file(&self, file: File) -> Result<Option<(Bytes, String)>, Error> {
        let max_bytes = METADATA_MAX_BYTES as u64;
        match self.0.storage.get_public(ObjectKey::Trust(file), max_bytes).await? {
            Fetch::Found(fetched) => Ok(Some((fetched.bytes, fetched.etag))),
            Fetch::Absent => Ok(None),
            Fetch::TooLong => Err(Error::Broken("a file of the trust root is too long")),
        }
    }
}
