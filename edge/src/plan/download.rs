//! Which answers count as a download, and how those of some seconds become one batch.

use std::collections::BTreeMap;

use modunest_core::api::{BatchId, DOWNLOAD_COUNT_MAX, Day, DownloadBatch, Downloaded};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;

use super::{AnswerBody, AnswerHead};

/// How long downloads are gathered before they are told, in milliseconds: a busy shell tells
/// of hundreds at once, and one that is cut off loses no more than these.
pub const TALLY_WINDOW_MS: u64 = 2_000;
/// When whoever was to tell of them must have been cut off, in milliseconds.
const TALLY_LATE_MS: u64 = 5 * TALLY_WINDOW_MS;
/// Most entries that are gathered: as JSON about 130 bytes each, so 65 kB of the 128 kB that a
/// message of the queue may have (Cloudflare Queues, Limits). A batch may have as many.
const TALLY_ENTRIES_MAX: usize = 500;

/// The blob that an answer hands out for the first time: whole, or from its first byte on.
///
/// HEAD, 304, and parts that begin later (a resumed download) are not counted.
pub fn counted_download(key: &ObjectKey, head: &AnswerHead) -> Option<Digest> {
    let ObjectKey::Blob(blob) = key else {
        return None;
    };
    let from_the_start = match head.body {
        AnswerBody::Whole | AnswerBody::Gzip => head.status == 200,
        AnswerBody::Slice { start, .. } => head.status == 206 && start == 0,
        AnswerBody::Empty | AnswerBody::Problem(_) => false,
    };
    from_the_start.then_some(*blob)
}

/// Downloads that nobody was told of yet, with one entry for each blob and day.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(Digest, Day), u32>,
    opened_ms: u64,
}

/// Who tells of a download that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// Whoever was asked before.
    Another,
    /// The one that noted it, after [`TALLY_WINDOW_MS`].
    Later,
    /// The one that noted it, at once: there is no more room.
    Now,
}

impl Tally {
    /// Notes a download.
    pub fn note(&mut self, blob: Digest, day: Day, now_ms: u64) -> Teller {
        let is_first = self.counts.is_empty();
        let count = self.counts.entry((blob, day)).or_default();
        *count += 1;
        if *count >= DOWNLOAD_COUNT_MAX || self.counts.len() >= TALLY_ENTRIES_MAX {
            return Teller::Now;
        }
        if is_first || now_ms.saturating_sub(self.opened_ms) > TALLY_LATE_MS {
            self.opened_ms = now_ms;
            return Teller::Later;
        }
        Teller::Another
    }

    /// Takes all that was noted, as the batch of this name; `None` when another took it.
    pub fn take(&mut self, id: BatchId) -> Option<DownloadBatch> {
        let counts = std::mem::take(&mut self.counts);
        let downloads: Vec<_> = counts
            .into_iter()
            .map(|((blob, day), count)| Downloaded { blob, day, count })
            .collect();
        (!downloads.is_empty()).then_some(DownloadBatch { id, downloads })
    }
}

/// Reads a message of the queue: one batch, with the name that its maker gave it, which it
/// keeps however often and beside whatever others it is delivered.
///
/// # Errors
/// Why it never will be counted, in words.
pub fn read_message(json: &str, now: Timestamp) -> Result<DownloadBatch, String> {
    let batch: DownloadBatch = serde_json::from_str(json).map_err(|error| error.to_string())?;
    batch.check(now).map_err(|refusal| refusal.detail)?;
    Ok(batch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::plan::{EntityTag, Facts, Read};

    #[test]
    fn only_what_begins_with_the_first_byte_of_a_blob() {
        let digest = Digest::of(b"0123456789");
        let blob = ObjectKey::Blob(digest);
        let none = Read::default();
        for (key, read, counts) in [
            (blob, none, true),
            (blob, Read { range: Some("bytes=0-0"), ..none }, true),
            (blob, Read { range: Some("bytes=-10"), ..none }, true),
            (blob, Read { range: Some("bytes=1-"), ..none }, false),
            (blob, Read { range: Some("bytes=10-"), ..none }, false),
            (blob, Read { head_only: true, ..none }, false),
            (blob, Read { if_none_match: Some("*"), ..none }, false),
            (blob, Read { if_match: Some("\"a\""), ..none }, false),
            (ObjectKey::Index(digest), none, false),
            (ObjectKey::Report(digest), none, false),
        ] {
            let head = read.answer(&Facts::object(&key, 10, EntityTag::new(digest)));
            assert_eq!(counted_download(&key, &head), counts.then_some(digest), "{read:?}");
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn id(number: u8) -> BatchId {
        BatchId::from_bytes([number; 16])
    }

    #[test]
    fn the_first_tells_of_all_that_come_soon_after() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let today = Day::of(NOW);
        let mut tally = Tally::default();
        assert_eq!(tally.take(id(0)), None);
        assert_eq!(tally.note(a, today, 1_000), Teller::Later);
        assert_eq!(tally.note(b, today, 1_000), Teller::Another);
        assert_eq!(tally.note(a, today, 2_900), Teller::Another);
        assert_eq!(tally.note(a, today.back(1), 2_900), Teller::Another);
        let batch = tally.take(id(1)).unwrap();
        assert_eq!((batch.id, batch.check(NOW)), (id(1), Ok(())));
        let mut counts: Vec<u32> = batch.downloads.iter().map(|entry| entry.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 2]);
        // Each is told once, and the next begins anew.
        assert_eq!(tally.take(id(2)), None);
        assert_eq!(tally.note(a, today, 3_000), Teller::Later);
        // A clock that goes back keeps nobody from telling.
        assert_eq!(tally.note(a, today, 2_000), Teller::Another);
        // Whoever was to tell was cut off: another does.
        assert_eq!(tally.note(a, today, 3_000 + TALLY_LATE_MS), Teller::Another);
        assert_eq!(tally.note(a, today, 3_001 + TALLY_LATE_MS), Teller::Later);
        assert_eq!(tally.note(a, today, 3_002 + TALLY_LATE_MS), Teller::Another);
        assert_eq!(tally.take(id(3)).unwrap().downloads[0].count, 5);
    }

    #[test]
    fn what_is_full_is_told_at_once_and_fits_a_message() {
        let today = Day::of(NOW);
        let mut tally = Tally::default();
        let blob = |number: usize| Digest::of(&number.to_be_bytes());
        for number in 0..TALLY_ENTRIES_MAX - 1 {
            assert_ne!(tally.note(blob(number), today, 0), Teller::Now);
        }
        assert_eq!(tally.note(blob(TALLY_ENTRIES_MAX), today, 0), Teller::Now);
        let mut batch = tally.take(id(1)).unwrap();
        assert_eq!((batch.downloads.len(), batch.check(NOW)), (TALLY_ENTRIES_MAX, Ok(())));
        batch.downloads.iter_mut().for_each(|entry| entry.count = DOWNLOAD_COUNT_MAX);
        assert!(serde_json::to_string(&batch).unwrap().len() < 100_000);

        for _ in 1..DOWNLOAD_COUNT_MAX {
            assert_ne!(tally.note(blob(0), today, 0), Teller::Now);
        }
        assert_eq!(tally.note(blob(0), today, 0), Teller::Now);
        assert_eq!(tally.take(id(2)).unwrap().check(NOW), Ok(()));
    }

    #[test]
    fn a_message_is_a_batch_or_never_will_be() {
        let today = Day::of(NOW);
        let message = |day: Day, count: u32| {
            let downloads = vec![Downloaded { blob: Digest::of(b"a"), day, count }];
            serde_json::to_string(&DownloadBatch { id: id(7), downloads }).unwrap()
        };
        let batch = read_message(&message(today, 3), NOW).unwrap();
        assert_eq!((batch.id, batch.downloads[0].count), (id(7), 3));
        // Each of these the API would refuse for ever.
        assert!(read_message(&message(today.back(30), 1), NOW).is_err());
        assert!(read_message(&message(today, 0), NOW).is_err());
        assert!(read_message(&message(today, DOWNLOAD_COUNT_MAX + 1), NOW).is_err());
        for json in ["", "null", "{}", r#"{"id":"7","downloads":[]}"#] {
            assert!(read_message(json, NOW).is_err(), "{json}");
        }
    }
}
