//! Byte ranges (RFC 9110, section 14).

/// What a `Range` field selects of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it: the field is to be ignored.
    Whole,
    /// The bytes from `start` up to and without `end`; never none.
    Slice {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Nothing of it: answer 416.
    Unsatisfiable,
}

/// Reads a `Range` field for a representation of `size_bytes`.
///
/// A field that is malformed, of another unit, or of several ranges is ignored: the first
/// two by section 14.2, the last by the choice it leaves, because agents resume downloads
/// and nobody here needs `multipart/byteranges`.
pub fn select(field: &str, size_bytes: u64) -> Selected {
    match parse(field) {
        None => Selected::Whole,
        Some(Spec::From { first, .. }) if first >= size_bytes => Selected::Unsatisfiable,
        Some(Spec::From { first, last }) => {
            Selected::Slice { start: first, end: last.min(size_bytes - 1) + 1 }
        }
        Some(Spec::Suffix(0)) => Selected::Unsatisfiable,
        // The last bytes of nothing: satisfiable by section 14.1.2, and yet no
        // `Content-Range` can spell it.
        Some(Spec::Suffix(_)) if size_bytes == 0 => Selected::Whole,
        Some(Spec::Suffix(length)) => {
            Selected::Slice { start: size_bytes.saturating_sub(length), end: size_bytes }
        }
    }
}

enum Spec {
    /// `first-last`, or `first-` with the largest last.
    From { first: u64, last: u64 },
    /// `-length`.
    Suffix(u64),
}

fn parse(field: &str) -> Option<Spec> {
    let (unit, set) = field.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // A list may hold empty elements (section 5.6.1.2); one element may have meaning.
    let mut specs = set.split(',').map(trim).filter(|spec| !spec.is_empty());
    let (spec, None) = (specs.next()?, specs.next()) else {
        return None;
    };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return number(last).map(Spec::Suffix);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then_some(Spec::From { first, last })
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// One or more digits. What does not fit lies behind every end, as the largest number does.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields() {
        let slice = |start, end| Selected::Slice { start, end };
        let huge = "9".repeat(40);
        let cases = [
            ("bytes=0-0", 10, slice(0, 1)),
            ("bytes=0-9", 10, slice(0, 10)),
            ("bytes=0-", 10, slice(0, 10)),
            ("bytes=9-100", 10, slice(9, 10)),
            ("Bytes=2-3", 10, slice(2, 4)),
            ("bytes= 2-3 ", 10, slice(2, 4)),
            ("bytes=,2-3, ,", 10, slice(2, 4)),
            ("bytes=-3", 10, slice(7, 10)),
            ("bytes=-30", 10, slice(0, 10)),
            ("bytes=10-", 10, Selected::Unsatisfiable),
            ("bytes=10-12", 10, Selected::Unsatisfiable),
            ("bytes=-0", 10, Selected::Unsatisfiable),
            ("bytes=0-", 0, Selected::Unsatisfiable),
            ("bytes=-1", 0, Selected::Whole),
            ("bytes=3-2", 10, Selected::Whole),
            ("bytes=0-1,3-4", 10, Selected::Whole),
            ("bytes=", 10, Selected::Whole),
            ("bytes=-", 10, Selected::Whole),
            ("bytes=+1-2", 10, Selected::Whole),
            ("bytes=1 -2", 10, Selected::Whole),
            ("bytes=1-2-3", 10, Selected::Whole),
            ("bytes=0x1-2", 10, Selected::Whole),
            ("bytes 0-1", 10, Selected::Whole),
            ("lines=0-1", 10, Selected::Whole),
            ("", 10, Selected::Whole),
        ];
        for (field, size_bytes, expected) in cases {
            assert_eq!(select(field, size_bytes), expected, "{field:?} of {size_bytes}");
        }
        assert_eq!(select(&format!("bytes=0-{huge}"), 10), slice(0, 10));
        assert_eq!(select(&format!("bytes={huge}-"), 10), Selected::Unsatisfiable);
        assert_eq!(select(&format!("bytes=-{huge}"), 10), slice(0, 10));
        assert_eq!(select("bytes=0-", u64::MAX), slice(0, u64::MAX));
    }

    /// Positions that a field selects, found by looking at each position.
    fn naive(size_bytes: u64, first: Option<u64>, last: Option<u64>) -> Vec<u64> {
        (0..size_bytes)
            .filter(|at| match (first, last) {
                (Some(first), last) => *at >= first && last.is_none_or(|last| *at <= last),
                (None, Some(length)) => *at + length >= size_bytes,
                (None, None) => true,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn ranges_are_those_of_a_naive_model(
            size_bytes in 0_u64..40,
            first in proptest::option::of(0_u64..50),
            last in proptest::option::of(0_u64..50),
        ) {
            let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
            let field = format!("bytes={}-{}", text(first), text(last));
            let malformed = match (first, last) {
                (None, None) => true,
                (Some(first), Some(last)) => first > last,
                _ => false,
            };
            let expected = naive(size_bytes, first, last);
            match select(&field, size_bytes) {
                Selected::Whole => prop_assert!(malformed || size_bytes == 0),
                Selected::Unsatisfiable => prop_assert!(!malformed && expected.is_empty()),
                Selected::Slice { start, end } => {
                    prop_assert!(!malformed && !expected.is_empty());
                    prop_assert_eq!((start..end).collect::<Vec<_>>(), expected);
                }
            }
        }

        #[test]
        fn no_field_selects_beyond_the_end(field in "(bytes=)?[-0-9, =]{0,20}|.{0,20}", size_bytes: u64) {
            if let Selected::Slice { start, end } = select(&field, size_bytes) {
                prop_assert!(start < end && end <= size_bytes);
            }
        }
    }
}
