//! A session's archives, each proven to be the declared bytes whenever it is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use modunest_core::archive::ARCHIVE_MAX_BYTES;
use modunest_core::digest::Digest;
use modunest_core::keys::{ObjectKey, SessionId, StagingKey};
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::{Build, Release};

use crate::error::Error;
use crate::storage::{Fetch, Fetched, Storage};

/// What was read, and where the bytes lie.
pub(super) struct Archives {
    session: SessionId,
    /// Entity tags of the uploads that were proven. Copies are made of these alone.
    proven: BTreeMap<Digest, String>,
    /// Kept between the checks and the scan: the one archive that most releases have.
    kept: Option<(Digest, Bytes)>,
}

impl Archives {
    pub(super) fn new(session: SessionId) -> Self {
        Archives { session, proven: BTreeMap::new(), kept: None }
    }

    /// The uploads that were proven, with their entity tags.
    pub(super) fn staged(&self) -> impl Iterator<Item = (Digest, StagingKey, &str)> {
        self.proven.iter().map(|(archive, etag)| {
            (*archive, StagingKey::Upload(self.session, *archive), etag.as_str())
        })
    }

    /// Reads the archive of a build and proves its size and digest.
    pub(super) async fn fetch(
        &mut self,
        storage: &Storage,
        release: &Release,
        index: usize,
    ) -> Result<Bytes, Error> {
        let build = release.builds.get(index).ok_or(Error::Broken("a build that is not there"))?;
        if let Some((digest, bytes)) = &self.kept
            && *digest == build.archive
        {
            return Ok(bytes.clone());
        }
        // Let go of it before there are two in memory.
        self.kept = None;
        let place = format!("/builds/{index}");
        let upload = StagingKey::Upload(self.session, build.archive);
        let bytes = match storage.get_staged(upload, ARCHIVE_MAX_BYTES as u64).await? {
            Fetch::Found(Fetched { bytes, etag }) => {
                prove(build, &place, &bytes).await?;
                self.proven.insert(build.archive, etag);
                bytes
            }
            Fetch::TooLong => {
                return Err(refusal(
                    Code::TooLarge,
                    &place,
                    "the upload is larger than an archive may be",
                ));
            }
            // Uploaded once already, for this release or another.
            Fetch::Absent => match storage
                .get_public(ObjectKey::Blob(build.archive), ARCHIVE_MAX_BYTES as u64)
                .await?
            {
                Fetch::Found(Fetched { bytes, .. }) => {
                    prove(build, &place, &bytes).await?;
                    bytes
                }
                Fetch::TooLong => {
                    return Err(refusal(
                        Code::TooLarge,
                        &place,
                        "the archive is larger than an archive may be",
                    ));
                }
                Fetch::Absent => {
                    return Err(refusal(
                        Code::SessionExpired,
                        &place,
                        "the upload is gone; publish again",
                    ));
                }
            },
        };
        self.kept = Some((build.archive, bytes.clone()));
        Ok(bytes)
    }
}

async fn prove(build: &Build, place: &str, bytes: &Bytes) -> Result<(), Error> {
    if bytes.len() as u64 != build.size_bytes {
        return Err(refusal(
            Code::DigestMismatch,
            place,
            &format!(
                "the archive has {} bytes, and {} were declared",
                bytes.len(),
                build.size_bytes
            ),
        ));
    }
    let hashed = bytes.clone();
    let found = super::blocking(move || Digest::of(&hashed)).await?;
    if found != build.archive {
        return Err(refusal(
            Code::DigestMismatch,
            place,
            &format!("the archive's SHA-256 is {found}, and {} was declared", build.archive),
        ));
    }
    Ok(())
}

fn refusal(code: Code, place: &str, detail: &str) -> Error {
    Refusal::new(code, format!("{place}: {detail}")).into()
}
