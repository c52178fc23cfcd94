//! Counters of downloads, and which archive is which release's.
//!
//! An archive holds the manifest that names its plugin and version, and nothing is made
//! public before both were compared with the statement. So an archive is of one release
//! only: whoever publishes the same bytes once more publishes the same release, and a
//! download counts for it whichever session brought the bytes. The first entry stands.
//!
//! A batch is counted in parts, each a transaction with a marker of its own, because a
//! transaction has at most 100 items. Which entries make up a part follows from the batch
//! alone, so a batch that is sent again after a crash between two parts finds the markers of
//! the parts that were counted.

use std::collections::BTreeMap;
use std::time::Duration;

use modunest_core::Version;
use modunest_core::api::{BatchId, Day, DayDownloads, VersionDownloads};
use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::time::Timestamp;

use super::item::{Change, Key, Row, number, text};
use super::{Store, TRANSACTION_MAX_ITEMS, Write};
use crate::error::Error;

/// Entries in a part: each changes the counter of a version and that of a day, and the
/// marker is one item more.
pub(crate) const PART_MAX: usize = (TRANSACTION_MAX_ITEMS - 1) / 2;
/// How long a marker is kept: the longest that Cloudflare's queues and SQS keep a message,
/// and far longer than the days that a batch may tell of.
const MARKER_KEPT_FOR: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How long the counter of a day is kept: the 90 days that are shown, and a month.
const DAY_KEPT_FOR: Duration = Duration::from_secs(120 * 24 * 60 * 60);

const VERSION_PREFIX: &str = "version#";
const DAY_PREFIX: &str = "day#";

/// The release that an archive is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveOf {
    pub(crate) plugin: PluginName,
    pub(crate) version: Version,
}

/// What a part adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Additions {
    pub(crate) versions: BTreeMap<(PluginName, Version), u64>,
    pub(crate) days: BTreeMap<(PluginName, Day), u64>,
}

fn archive_key(archive: &Digest) -> Key {
    Key::new(format!("archive#{archive}"), "archive")
}

fn marker_key(batch: BatchId, part: usize) -> Key {
    Key::new(format!("downloads-batch#{batch}"), format!("part#{part}"))
}

fn counters(plugin: &PluginName) -> String {
    format!("downloads#{plugin}")
}

fn add(count: u64) -> Change {
    Change::new().add("count", count)
}

impl Store {
    /// Notes whose an archive is; what was noted before stands.
    pub(crate) async fn note_archive(
        &self,
        archive: &Digest,
        plugin: &PluginName,
        version: &Version,
    ) -> Result<(), Error> {
        let item = archive_key(archive)
            .item([("plugin", Some(text(plugin))), ("version", Some(text(version)))]);
        match self.put(item, &Change::absent()).await? {
            Write::Done | Write::Conflict => Ok(()),
        }
    }

    /// Whose an archive is; `None` for a blob that is none.
    pub(crate) async fn archive(&self, archive: &Digest) -> Result<Option<ArchiveOf>, Error> {
        let Some(item) = self.get(&archive_key(archive)).await? else { return Ok(None) };
        let row = Row::new("archive", &item);
        Ok(Some(ArchiveOf { plugin: row.parse("plugin")?, version: row.parse("version")? }))
    }

    /// Whether a part was counted.
    pub(crate) async fn is_counted(&self, batch: BatchId, part: usize) -> Result<bool, Error> {
        Ok(self.get(&marker_key(batch, part)).await?.is_some())
    }

    /// Counts a part with its marker, or changes nothing: because it was counted, or because
    /// others count the same at this moment.
    pub(crate) async fn count_part(
        &self,
        batch: BatchId,
        part: usize,
        additions: &Additions,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let marker = marker_key(batch, part)
            .item([("ttl", Some(number(now.plus(MARKER_KEPT_FOR).as_secs())))]);
        let mut items = vec![self.in_transaction_put(marker, &Change::absent())?];
        for ((plugin, version), count) in &additions.versions {
            let key = Key::new(counters(plugin), format!("{VERSION_PREFIX}{version}"));
            items.push(self.in_transaction_update(&key, &add(*count))?);
        }
        for ((plugin, day), count) in &additions.days {
            let key = Key::new(counters(plugin), format!("{DAY_PREFIX}{day}"));
            let ttl = number(day.start().plus(DAY_KEPT_FOR).as_secs());
            items.push(self.in_transaction_update(&key, &add(*count).set("ttl", ttl))?);
        }
        self.transact(items).await
    }

    /// The counters of a plugin's versions.
    pub(crate) async fn version_downloads(
        &self,
        plugin: &PluginName,
    ) -> Result<Vec<VersionDownloads>, Error> {
        // '$' follows '#'.
        let items = self.range(&counters(plugin), VERSION_PREFIX, "version$").await?;
        let read = |item| {
            let row = Row::new("counter of a version", item);
            let version = row.text("sk")?.strip_prefix(VERSION_PREFIX);
            let version = version.and_then(|version| version.parse().ok());
            Ok(VersionDownloads {
                version: row.required("sk", version)?,
                total: row.number("count")?,
            })
        };
        items.iter().map(read).collect()
    }

    /// The counters of a plugin's days from `first` to `last`, in their order.
    pub(crate) async fn day_downloads(
        &self,
        plugin: &PluginName,
        first: Day,
        last: Day,
    ) -> Result<Vec<DayDownloads>, Error> {
        let (from, to) = (format!("{DAY_PREFIX}{first}"), format!("{DAY_PREFIX}{last}"));
        let items = self.range(&counters(plugin), &from, &to).await?;
        let read = |item| {
            let row = Row::new("counter of a day", item);
            let day = row.text("sk")?.strip_prefix(DAY_PREFIX).and_then(|day| day.parse().ok());
            Ok(DayDownloads { day: row.required("sk", day)?, count: row.number("count")? })
        };
        items.iter().map(read).collect()
    }
}
