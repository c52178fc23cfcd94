//! Where files come from: whatever the caller fetches with.

use std::future::{Future, Ready, ready};
use std::path::PathBuf;

use modunest_core::keys::ObjectKey;
use modunest_core::trust::File;
use sigstore_tuf::Repository;
use sigstore_tuf::transport::FetchFuture;

use super::Error;
use crate::{files, registry};

/// Fetches from a folder that holds what a registry has below `/trust/`: of an offline bundle,
/// or of a ceremony that is not published yet.
pub fn from_folder(
    folder: PathBuf,
) -> impl Fn(ObjectKey, usize) -> Ready<Result<Option<Vec<u8>>, registry::Error>> + Send + Sync + 'static
{
    move |key, limit| {
        let ObjectKey::Trust(file) = key else { return ready(Ok(None)) };
        let path = folder.join(file.to_string());
        ready(
            files::read_limited(&path, limit)
                .map_err(|source| registry::Error::Cache { path, source }),
        )
    }
}

/// A caller's way to fetch, as the client library wants it.
pub(super) struct Fetch<F>(pub(super) F);

impl<F, A> Repository for Fetch<F>
where
    F: Fn(ObjectKey, usize) -> A + Send + Sync,
    A: Future<Output = Result<Option<Vec<u8>>, registry::Error>> + Send + 'static,
{
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch(name.to_owned(), max_length))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch(format!("targets/{path}"), max_length))
    }
}

impl<F, A> Fetch<F>
where
    F: Fn(ObjectKey, usize) -> A + Send + Sync,
    A: Future<Output = Result<Option<Vec<u8>>, registry::Error>> + Send,
{
    async fn fetch(
        &self,
        name: String,
        max_length: u64,
    ) -> Result<Option<Vec<u8>>, sigstore_tuf::Error> {
        let ours =
            |error| sigstore_tuf::Error::transport_with_source(format!("fetching {name}"), error);
        let file: File = name.parse().map_err(|_| ours(Error::Name(name.clone())))?;
        let key = ObjectKey::Trust(file);
        let limit = usize::try_from(max_length).unwrap_or(usize::MAX);
        let fetched = (self.0)(key, limit).await;
        match fetched.map_err(|error| ours(Error::Fetch(Box::new(error))))? {
            Some(bytes) if bytes.len() > limit => {
                Err(ours(Error::Fetch(Box::new(registry::Error::TooLong {
                    url: key.path(),
                    limit_bytes: max_length,
                }))))
            }
            // The chain of roots ends where there is no further one. Anything else was named.
            None if !matches!(file, File::Root(_)) => Err(ours(Error::Missing(key))),
            fetched => Ok(fetched),
        }
    }
}
