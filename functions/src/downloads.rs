//! Downloads: told in batches by the edge, counted beside the path, shown to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use modunest_core::api::{DOWNLOADS_DAYS_SHOWN, Day, DownloadBatch, DownloadsView};
use modunest_core::authorise::Action;
use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::problem::{Code, Refusal};
use quick_cache::sync::Cache;

use crate::Functions;
use crate::error::Error;
use crate::identity::Caller;
use crate::store::Write;
use crate::store::downloads::{Additions, ArchiveOf, PART_MAX};

/// Archives remembered: who they are of never changes, and some are downloaded all the time.
/// About 200 bytes each.
const ARCHIVES_KEPT: usize = 10_000;
/// Archives asked for at once.
const READS_AT_ONCE: usize = 16;
/// How often a part is tried while others count the same plugins. Each try waits up to
/// [`BUSY_PAUSE`] times its number, so together they last as long as some hundred others.
const BUSY_MAX: u32 = 12;
/// The longest pause behind the first try.
const BUSY_PAUSE: Duration = Duration::from_millis(40);

/// Whose archives are.
pub(crate) struct Archives(Cache<Digest, Arc<ArchiveOf>>);

impl Archives {
    pub(crate) fn new() -> Self {
        Archives(Cache::new(ARCHIVES_KEPT))
    }
}

impl Functions {
    /// Counts a batch, once.
    pub(crate) async fn count_downloads(
        &self,
        caller: &Caller,
        batch: &DownloadBatch,
    ) -> Result<(), Error> {
        self.authorise(caller, &Action::CountDownloads)?;
        batch.check(self.now())?;
        // Sorted and summed, so that the same batch has the same parts, whatever its order.
        let mut entries: BTreeMap<(Digest, Day), u64> = BTreeMap::new();
        for entry in &batch.downloads {
            *entries.entry((entry.blob, entry.day)).or_default() += u64::from(entry.count);
        }
        let entries: Vec<_> = entries.into_iter().collect();
        for (part, entries) in entries.chunks(PART_MAX).enumerate() {
            let additions = self.additions(entries).await?;
            if !additions.versions.is_empty() {
                self.count_part(batch, part, &additions).await?;
            }
        }
        Ok(())
    }

    async fn additions(&self, entries: &[((Digest, Day), u64)]) -> Result<Additions, Error> {
        let reads = entries.iter().copied().map(|((blob, day), count)| async move {
            Ok::<_, Error>((self.archive_of(blob).await?, day, count))
        });
        let read: Vec<_> =
            stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        let mut additions = Additions::default();
        for (archive, day, count) in read {
            let Some(archive) = archive else { continue };
            let ArchiveOf { plugin, version } = archive.as_ref();
            *additions.versions.entry((plugin.clone(), version.clone())).or_default() += count;
            *additions.days.entry((plugin.clone(), day)).or_default() += count;
        }
        Ok(additions)
    }

    async fn archive_of(&self, blob: Digest) -> Result<Option<Arc<ArchiveOf>>, Error> {
        let Archives(known) = &self.0.archives;
        if let Some(archive) = known.get(&blob) {
            return Ok(Some(archive));
        }
        let Some(archive) = self.0.store.archive(&blob).await? else {
            // A manifest or a README: they have no counters.
            tracing::debug!(%blob, "a download of what is no archive is not counted");
            return Ok(None);
        };
        let archive = Arc::new(archive);
        known.insert(blob, Arc::clone(&archive));
        Ok(Some(archive))
    }

    async fn count_part(
        &self,
        batch: &DownloadBatch,
        part: usize,
        additions: &Additions,
    ) -> Result<(), Error> {
        for attempt in 1..=BUSY_MAX {
            let counted = self.0.store.count_part(batch.id, part, additions, self.now()).await?;
            if counted == Write::Done {
                return Ok(());
            }
            if self.0.store.is_counted(batch.id, part).await? {
                tracing::debug!(batch = %batch.id, part, "counted before");
                return Ok(());
            }
            let [random] = modunest_runtime::random::bytes::<1>();
            let longest = BUSY_PAUSE * attempt;
            tokio::time::sleep(longest.mul_f64(f64::from(random) / 256.0)).await;
        }
        Err(Error::Unavailable {
            service: "DynamoDB",
            operation: "TransactWriteItems",
            detail: format!("others counted the same plugins {BUSY_MAX} times in a row"),
        })
    }

    /// What is counted of a plugin.
    pub(crate) async fn downloads(&self, plugin: &PluginName) -> Result<DownloadsView, Error> {
        let last = Day::of(self.now()).ahead(modunest_core::api::DOWNLOAD_DAYS_AHEAD);
        let first = Day::of(self.now()).back(DOWNLOADS_DAYS_SHOWN - 1);
        let store = &self.0.store;
        let (mut versions, days) = tokio::try_join!(
            store.version_downloads(plugin),
            store.day_downloads(plugin, first, last)
        )?;
        if versions.is_empty() && store.plugin(plugin).await?.is_none() {
            let detail = format!("there is no plugin {plugin}");
            return Err(Refusal::new(Code::NotFound, detail).into());
        }
        versions.sort_by(|a, b| b.version.cmp(&a.version));
        let total = versions.iter().map(|version| version.total).sum();
        Ok(DownloadsView { total, versions, days })
    }
}
