//! Downloads: counted beside the path, by plugin, version and day.
//!
//! A shell of the edge notes what it handed out ([`Downloaded`]) and sends it in batches
//! ([`DownloadBatch`]). A batch has an identifier of its own, so a batch that is sent again
//! counts once.

use std::fmt;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::problem::{Code, Refusal};
use crate::time::{Timestamp, civil_from_days, days_from_civil};

/// Path that takes a [`DownloadBatch`].
pub const DOWNLOADS_PATH: &str = "/v1/downloads";
/// Most entries in a batch. One is at most 114 bytes of JSON, so a full batch stays below
/// [`super::BODY_MAX_BYTES`].
pub const DOWNLOADS_MAX: usize = 500;
/// Largest count of an entry: what a shell can hand out of one blob in the seconds between
/// two batches, many times over. Keeps a mistaken sender from spoiling a counter for ever.
pub const DOWNLOAD_COUNT_MAX: u32 = 1_000_000;
/// Oldest day that is still counted, in days before today: a queue that stood still for a
/// weekend loses nothing.
pub const DOWNLOAD_DAYS_BACK: u32 = 3;
/// Newest day that is counted, in days after today: clocks differ around midnight.
pub const DOWNLOAD_DAYS_AHEAD: u32 = 1;
/// How many days [`DownloadsView::days`] reaches back, today included.
pub const DOWNLOADS_DAYS_SHOWN: u32 = 90;

const DAY_SECS: u64 = 86_400;
/// Last day that is written with four digits of a year: 9999-12-31.
const DAY_LAST: u32 = 2_932_896;
const BATCH_ID_BYTES: usize = 16;

/// A day in UTC, written `YYYY-MM-DD` (RFC 3339, `full-date`), of the years 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

/// The text is not a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a day is written YYYY-MM-DD and exists in the calendar")]
pub struct DayError;

impl Day {
    /// The day of a point in time.
    pub fn of(time: Timestamp) -> Day {
        Day(u32::try_from(time.as_secs() / DAY_SECS).unwrap_or(DAY_LAST).min(DAY_LAST))
    }

    /// Earlier by some days, not before 1970.
    #[must_use]
    pub const fn back(self, days: u32) -> Day {
        Day(self.0.saturating_sub(days))
    }

    /// Later by some days, not after 9999.
    #[must_use]
    pub fn ahead(self, days: u32) -> Day {
        Day(self.0.saturating_add(days).min(DAY_LAST))
    }

    /// When it begins.
    pub const fn start(self) -> Timestamp {
        Timestamp::from_millis(self.0 as u64 * DAY_SECS * 1_000)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(u64::from(self.0));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let digits = |range: std::ops::Range<usize>| {
            let part = text.get(range).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
            part.and_then(|part| part.parse::<u64>().ok()).ok_or(DayError)
        };
        let day = days_from_civil(digits(0..4)?, digits(5..7)?, digits(8..10)?)
            .and_then(|days| u32::try_from(days).ok())
            .map(Day)
            .ok_or(DayError)?;
        // Also refuses 30 February, other separators and whatever follows.
        if day.0 <= DAY_LAST && day.to_string() == text { Ok(day) } else { Err(DayError) }
    }
}

/// Names a batch: 32 lower-case hexadecimal digits, from 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId([u8; BATCH_ID_BYTES]);

/// The text is not a batch's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a batch is named by 32 lower-case hexadecimal digits")]
pub struct BatchIdError;

impl BatchId {
    /// From 16 random bytes.
    pub const fn from_bytes(bytes: [u8; BATCH_ID_BYTES]) -> Self {
        BatchId(bytes)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchId({self})")
    }
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let canonical = text.len() == BATCH_ID_BYTES * 2
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(number) if canonical => Ok(BatchId(number.to_be_bytes())),
            _ => Err(BatchIdError),
        }
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Day, BatchId);

/// Downloads of one blob on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Downloaded {
    /// The blob that was handed out. Blobs that are no release's archive are passed over.
    pub blob: Digest,
    /// When, by the clock of whoever handed it out.
    pub day: Day,
    /// How often; 1 to [`DOWNLOAD_COUNT_MAX`].
    pub count: u32,
}

/// Downloads since the last batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadBatch {
    /// Names the batch. A batch whose identifier is known changes nothing, so whoever gets
    /// no answer sends it again as it was.
    pub id: BatchId,
    /// What was handed out; at most [`DOWNLOADS_MAX`] entries.
    pub downloads: Vec<Downloaded>,
}

impl DownloadBatch {
    /// Whether the batch is one that is counted at `now`.
    ///
    /// # Errors
    /// The entry and the rule that it breaks.
    pub fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        let refuse = |detail: String| Err(Refusal::new(Code::InvalidRequest, detail));
        if self.downloads.len() > DOWNLOADS_MAX {
            return refuse(format!("/downloads: at most {DOWNLOADS_MAX} entries"));
        }
        let today = Day::of(now);
        let (first, last) = (today.back(DOWNLOAD_DAYS_BACK), today.ahead(DOWNLOAD_DAYS_AHEAD));
        for (index, entry) in self.downloads.iter().enumerate() {
            if entry.count == 0 || entry.count > DOWNLOAD_COUNT_MAX {
                return refuse(format!("/downloads/{index}/count: 1 to {DOWNLOAD_COUNT_MAX}"));
            }
            if entry.day < first || entry.day > last {
                return refuse(format!("/downloads/{index}/day: {first} to {last}, for now"));
            }
        }
        Ok(())
    }
}

/// Downloads of a plugin. They are counted some seconds late, and a lost shell loses the
/// seconds that it had not told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadsView {
    /// All of them, ever.
    pub total: u64,
    /// By version, newest version first; versions that nobody downloaded are left out.
    pub versions: Vec<VersionDownloads>,
    /// By day, oldest first, of the last [`DOWNLOADS_DAYS_SHOWN`] days; days without any are
    /// left out.
    pub days: Vec<DayDownloads>,
}

/// Downloads of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDownloads {
    /// The version.
    pub version: Version,
    /// All of them, ever.
    pub total: u64,
}

/// Downloads on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayDownloads {
    /// The day.
    pub day: Day,
    /// How many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_one_spelling() {
        for (millis, text) in [
            (0, "1970-01-01"),
            (951_782_399_999, "2000-02-28"),
            (951_782_400_000, "2000-02-29"),
            (4_107_542_400_000, "2100-03-01"),
        ] {
            let day = Day::of(Timestamp::from_millis(millis));
            assert_eq!((day.to_string().as_str(), text.parse()), (text, Ok(day)));
        }
        for bad in [
            "",
            "2026-2-01",
            "2026-02-30",
            "2100-02-29",
            "2026-13-01",
            "2026-00-10",
            "1969-12-31",
            "2026-02-01Z",
            "2026/02/01",
            "+026-02-01",
            "10000-01-01",
            "2026-02-0é",
        ] {
            assert_eq!(bad.parse::<Day>(), Err(DayError), "{bad}");
        }
        for days in (0..DAY_LAST).step_by(97).chain([DAY_LAST]) {
            assert_eq!(Day(days).to_string().parse(), Ok(Day(days)));
            assert_eq!(Day::of(Day(days).start()), Day(days));
        }
    }

    #[test]
    fn batches_have_one_spelling() {
        let id = BatchId::from_bytes([0xab; BATCH_ID_BYTES]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "+0000000000000000000000000000000", &id.to_string().to_uppercase()] {
            assert_eq!(bad.parse::<BatchId>(), Err(BatchIdError), "{bad}");
        }
    }

    #[test]
    fn a_batch_has_its_bounds() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let today = Day::of(now);
        let entry = |day, count| Downloaded { blob: Digest::of(b"x"), day, count };
        let check = |downloads: Vec<Downloaded>| {
            DownloadBatch { id: BatchId::from_bytes([1; 16]), downloads }
                .check(now)
                .map_err(|refusal| refusal.detail)
        };
        assert_eq!(check(vec![]), Ok(()));
        assert_eq!(check(vec![entry(today.back(3), 1), entry(today.ahead(1), 1_000_000)]), Ok(()));
        for (bad, place) in [
            (entry(today.back(4), 1), "/downloads/1/day"),
            (entry(today.ahead(2), 1), "/downloads/1/day"),
            (entry(today, 0), "/downloads/1/count"),
            (entry(today, 1_000_001), "/downloads/1/count"),
        ] {
            let detail = check(vec![entry(today, 1), bad]).unwrap_err();
            assert!(detail.starts_with(place), "{detail}");
        }
        assert!(check(vec![entry(today, 1); DOWNLOADS_MAX + 1]).is_err());
    }

    #[test]
    fn a_full_batch_fits_the_body() {
        let entry =
            Downloaded { blob: Digest::of(b"x"), day: Day(DAY_LAST), count: DOWNLOAD_COUNT_MAX };
        let batch = DownloadBatch {
            id: BatchId::from_bytes([255; 16]),
            downloads: vec![entry; DOWNLOADS_MAX],
        };
        let json = serde_json::to_vec(&batch).unwrap();
        assert!(json.len() < super::super::BODY_MAX_BYTES);
        assert_eq!(serde_json::from_slice::<DownloadBatch>(&json).unwrap(), batch);
    }
}
