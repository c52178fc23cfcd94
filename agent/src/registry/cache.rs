//! What was read before, on disk: the newest believed head, and objects by their digests.

use std::path::{Path, PathBuf};

use modunest_core::index::{HEAD_MAX_BYTES, Head};
use modunest_core::keys::ObjectKey;
use modunest_tlog::VerifyingKey;

use super::Error;
use crate::files;

/// Longest entity tag that is kept; longer ones are not sent again.
const ETAG_MAX_BYTES: usize = 256;

/// A head that was believed.
pub(super) struct Kept {
    pub(super) head: Head,
    pub(super) bytes: Vec<u8>,
    pub(super) etag: Option<String>,
}

pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        for kind in ["node", "bin", "index"] {
            let path = folder.join(kind);
            std::fs::create_dir_all(&path).map_err(|source| Error::Cache { path, source })?;
        }
        Ok(Cache { folder: folder.to_owned() })
    }

    /// The kept head. One that cannot be proven is an error and not forgotten: without it,
    /// an old index could be shown.
    pub(super) fn head(&self, origin: &str, keys: &[VerifyingKey]) -> Result<Option<Kept>, Error> {
        let path = self.folder.join("head");
        let content = files::read_limited(&path, HEAD_MAX_BYTES + ETAG_MAX_BYTES + 1)
            .map_err(|source| Error::Cache { path: path.clone(), source })?;
        let Some(content) = content else { return Ok(None) };
        // The first line is the entity tag, perhaps empty; the rest is the head, verbatim.
        let end = content.iter().position(|b| *b == b'\n').unwrap_or(content.len());
        let etag = std::str::from_utf8(&content[..end]).ok().filter(|tag| !tag.is_empty());
        let bytes = content.get(end + 1..).unwrap_or_default().to_vec();
        let head =
            Head::verify(&bytes, origin, keys).map_err(|error| Error::KeptHead { path, error })?;
        Ok(Some(Kept { head, etag: etag.map(str::to_owned), bytes }))
    }

    pub(super) fn keep_head(&self, kept: &Kept) -> Result<(), Error> {
        let tag = kept.etag.as_deref().filter(|tag| tag.len() <= ETAG_MAX_BYTES);
        let mut content = tag.unwrap_or_default().as_bytes().to_vec();
        content.push(b'\n');
        content.extend_from_slice(&kept.bytes);
        let path = self.folder.join("head");
        files::write_durable(&path, &content).map_err(|source| Error::Cache { path, source })
    }

    /// An object's bytes, unproven.
    pub(super) fn object(&self, key: ObjectKey, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join(key.to_string());
        files::read_limited(&path, limit).map_err(|source| Error::Cache { path, source })
    }

    pub(super) fn has(&self, key: ObjectKey) -> bool {
        self.folder.join(key.to_string()).exists()
    }

    pub(super) fn keep(&self, key: ObjectKey, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(key.to_string());
        files::write_cached(&path, bytes).map_err(|source| Error::Cache { path, source })
    }
}
