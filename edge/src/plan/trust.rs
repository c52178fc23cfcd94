//! What an origin's answer means, and what of it may be kept.
//!
//! | Answer | Means | Kept |
//! |---|---|---|
//! | 200 with a length, to a question for the whole | found | if immutable, small, and proved |
//! | 206 of exactly the range, to a question for a range | found | never |
//! | 304 to a question with a tag | unchanged | what was known goes on being so |
//! | 404 | there is none now | never |
//! | anything else, or none in time | could not find out | never |
//!
//! What is immutable and was proved is right whatever becomes of the origins, so it is
//! handed out without asking them: that is all the `stale-if-error` it can need. What changes
//! (`head`, `checkpoint`) and what is named by its position (tiles of the log) is asked for
//! each time, and when no origin answers, neither do we.

use modunest_core::keys::{CachePolicy, ObjectKey};
use modunest_core::statement::STATEMENT_MAX_BYTES;
use modunest_tlog::{CHECKPOINT_MAX_BYTES, TILE_MAX_BYTES, TILE_WIDTH, TileKind};

/// Largest object that the worker reads into memory, proves and keeps, in bytes: all but the
/// longest index files, and more than half of all archives. The memory of one isolate keeps
/// fifteen of this size.
pub const SMALL_MAX_BYTES: u64 = 1024 * 1024;

/// What was asked of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole object.
    Whole,
    /// The whole object, unless it is the one already known.
    IfChanged,
    /// A part of the object.
    Range {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

/// What an origin's answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The bytes follow, this many.
    Found {
        /// How many bytes follow. Fewer or more are an error, never an end.
        body_bytes: u64,
    },
    /// It is the one already known.
    Unchanged,
    /// The origin says that there is no such object.
    Missing,
    /// It could not be found out.
    Failed(&'static str),
}

/// Reads an answer of an origin that speaks HTTP. `length_bytes` is its `Content-Length`.
pub fn meaning(asked: Asked, status: u16, length_bytes: Option<u64>) -> Meaning {
    match (status, asked) {
        (404, _) => Meaning::Missing,
        (304, Asked::IfChanged) => Meaning::Unchanged,
        (200, Asked::Whole | Asked::IfChanged) => match length_bytes {
            Some(body_bytes) => Meaning::Found { body_bytes },
            None => Meaning::Failed("the answer says nothing about its length"),
        },
        (206, Asked::Range { start, end }) => match length_bytes {
            Some(body_bytes) if body_bytes == end.saturating_sub(start) => {
                Meaning::Found { body_bytes }
            }
            _ => Meaning::Failed("the answer is not as long as the range"),
        },
        // The whole must not be passed on as a part.
        (200, Asked::Range { .. }) => Meaning::Failed("the range was ignored"),
        _ => Meaning::Failed("the answer has another status"),
    }
}

/// Where an object may stay after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory and in the platform's cache, for as long as there is room.
    ForEver,
    /// Nowhere.
    Not,
}

/// What may be kept of an object that was found whole: what is named by its content and was
/// proved to be that content.
pub fn keep(key: &ObjectKey, size_bytes: u64, proved: bool) -> Keep {
    let immutable = key.cache_policy() == CachePolicy::Immutable && key.content_digest().is_some();
    if immutable && proved && size_bytes <= SMALL_MAX_BYTES { Keep::ForEver } else { Keep::Not }
}

/// Longest object that is handed out though nothing about it can be proved here, in bytes.
/// Heads have at most 8 KiB, checkpoints with all their cosignatures at most 64 KiB; a bundle
/// has 256 entries of at most the longest statement, each behind its length.
pub fn unproved_max_bytes(key: &ObjectKey) -> u64 {
    match key {
        ObjectKey::Tile(tile) => match tile.kind() {
            TileKind::Hashes { .. } => TILE_MAX_BYTES as u64,
            TileKind::Entries => TILE_WIDTH * (STATEMENT_MAX_BYTES as u64 + 2),
        },
        _ => CHECKPOINT_MAX_BYTES as u64,
    }
}

/// Whether what was kept may be handed out without asking an origin, or while none answers.
pub fn may_answer_without_origin(key: &ObjectKey) -> bool {
    key.cache_policy() == CachePolicy::Immutable && key.content_digest().is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_core::digest::Digest;
    use modunest_tlog::TileId;

    use super::*;

    #[test]
    fn answers_mean_what_they_say_and_no_more() {
        let range = Asked::Range { start: 5, end: 15 };
        let failed = |meaning| matches!(meaning, Meaning::Failed(_));
        let found = Meaning::Found { body_bytes: 10 };
        for (asked, status, length, expected) in [
            (Asked::Whole, 200, Some(10), Some(found)),
            (Asked::Whole, 200, None, None),
            (Asked::IfChanged, 200, Some(10), Some(found)),
            (Asked::IfChanged, 304, None, Some(Meaning::Unchanged)),
            (range, 206, Some(10), Some(found)),
            (range, 206, Some(9), None),
            (range, 206, Some(11), None),
            (range, 206, None, None),
            (range, 200, Some(10), None),
            (Asked::Whole, 206, Some(10), None),
            (Asked::Whole, 304, None, None),
            (Asked::Whole, 404, Some(3), Some(Meaning::Missing)),
            (range, 404, None, Some(Meaning::Missing)),
        ] {
            let meaning = meaning(asked, status, length);
            match expected {
                Some(expected) => assert_eq!(meaning, expected, "{asked:?} {status}"),
                None => assert!(failed(meaning), "{asked:?} {status} {length:?}"),
            }
        }
        for status in (100..600).filter(|status| ![200, 206, 304, 404].contains(status)) {
            for asked in [Asked::Whole, Asked::IfChanged, range] {
                assert!(failed(meaning(asked, status, Some(10))), "{status}");
            }
        }
    }

    #[test]
    fn only_what_is_proved_and_can_never_change_is_kept() {
        let digest = Digest::of(b"x");
        for key in [
            ObjectKey::Node(digest),
            ObjectKey::Bin(digest),
            ObjectKey::Index(digest),
            ObjectKey::Blob(digest),
            ObjectKey::Report(digest),
        ] {
            assert_eq!(keep(&key, SMALL_MAX_BYTES, true), Keep::ForEver, "{key}");
            assert_eq!(keep(&key, SMALL_MAX_BYTES + 1, true), Keep::Not, "{key}");
            assert_eq!(keep(&key, 1, false), Keep::Not, "{key}");
            assert!(may_answer_without_origin(&key));
        }
        let tile = ObjectKey::Tile(TileId::entries(0, 256).unwrap());
        for key in [ObjectKey::Head, ObjectKey::Checkpoint, tile] {
            assert_eq!(keep(&key, 1, true), Keep::Not);
            assert!(!may_answer_without_origin(&key));
        }
    }
}
