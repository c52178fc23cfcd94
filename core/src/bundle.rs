//! Bundles: what a registry would have answered, in one file, for hosts without a network.
//!
//! ```text
//! modunest/bundle/v1
//! modunest.lock <length in bytes>
//! <the lock file>
//! <object key> <length in bytes>
//! <the object>
//! …
//! ```
//! Object keys are those of the public paths ([`crate::keys`]), in ascending order of their
//! texts, each once: trust metadata, `checkpoint`, `head`, tiles, the tree on the way to the
//! locked plugins, and their archives. Whoever reads one asks it as if it were the registry, so
//! nothing in it is believed without the nine checks, freshness included: it is good for as long
//! as its head.
//!
//! A bundle may have gigabytes, so it is not read whole: [`Lines`] is handed one line after
//! another, and says where in the file the next one begins.

use std::collections::BTreeMap;

use crate::keys::ObjectKey;

/// The first line, with its line feed.
pub const FIRST_LINE: &str = "modunest/bundle/v1\n";
/// Name of the frame with the lock file, which is the first.
pub const LOCK_FRAME: &str = "modunest.lock";
/// Longest line, in bytes: a key of at most 90 characters, a space, 20 digits, a line feed, and
/// room.
pub const LINE_MAX_BYTES: usize = 128;
/// Most objects: 10,000 plugins with ten objects each, and their tiles.
pub const OBJECTS_MAX: usize = 200_000;

/// Why a file is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Another first line.
    #[error("it does not start with modunest/bundle/v1")]
    Start,
    /// A line that is too long, or not text, or not ended.
    #[error("a line is too long, or no text")]
    Line,
    /// A line without name and length, or with a length in another spelling.
    #[error("a frame has no name and length")]
    Frame,
    /// The content is longer than the file.
    #[error("it ends within {0}")]
    Cut(String),
    /// Another frame is the first.
    #[error("its first frame is not the lock file")]
    LockFirst,
    /// There is no frame.
    #[error("it has no lock file")]
    NoLock,
    /// A name that no object has.
    #[error("{0} is no object's key")]
    Key(String),
    /// An object that does not follow the one before, or is one too many.
    #[error("its objects do not ascend, or are too many")]
    Order,
}

/// Where an object is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// What a bundle holds, unproven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The lock file.
    pub lock: Place,
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Place>,
}

/// Reads a bundle's lines, from the first on. Memory follows the lines that have come, never
/// what one of them announces.
#[derive(Debug)]
pub struct Lines {
    file_bytes: u64,
    begun: bool,
    lock: Option<Place>,
    objects: BTreeMap<ObjectKey, Place>,
    last: String,
}

impl Lines {
    /// Of a file with so many bytes.
    pub fn new(file_bytes: u64) -> Self {
        Lines {
            file_bytes,
            begun: false,
            lock: None,
            objects: BTreeMap::new(),
            last: String::new(),
        }
    }

    /// Takes a line with its line feed, behind which the file goes on at `start`. Answers where
    /// the next line begins.
    ///
    /// # Errors
    /// The rule that the line breaks.
    pub fn take(&mut self, line: &[u8], start: u64) -> Result<u64, BundleError> {
        let whole = line.len() <= LINE_MAX_BYTES && line.ends_with(b"\n");
        if !self.begun {
            if line != FIRST_LINE.as_bytes() {
                return Err(BundleError::Start);
            }
            self.begun = true;
            return Ok(start);
        }
        let line = std::str::from_utf8(line).ok().filter(|_| whole).ok_or(BundleError::Line)?;
        let (name, length) = frame(line).ok_or(BundleError::Frame)?;
        let place = Place { start, length };
        let next = start.checked_add(length).filter(|next| *next <= self.file_bytes);
        let next = next.ok_or_else(|| BundleError::Cut(name.to_owned()))?;
        if self.lock.is_none() {
            if name != LOCK_FRAME {
                return Err(BundleError::LockFirst);
            }
            self.lock = Some(place);
            return Ok(next);
        }
        let key = ObjectKey::from_key(name).ok_or_else(|| BundleError::Key(name.to_owned()))?;
        if *name <= *self.last || self.objects.len() == OBJECTS_MAX {
            return Err(BundleError::Order);
        }
        name.clone_into(&mut self.last);
        self.objects.insert(key, place);
        Ok(next)
    }

    /// What the bundle holds, after its last line.
    ///
    /// # Errors
    /// [`BundleError::Start`] and [`BundleError::NoLock`].
    pub fn finish(self) -> Result<Contents, BundleError> {
        if !self.begun {
            return Err(BundleError::Start);
        }
        let lock = self.lock.ok_or(BundleError::NoLock)?;
        Ok(Contents { lock, objects: self.objects })
    }
}

/// The line before an object's bytes.
pub fn line(name: &str, length_bytes: usize) -> String {
    format!("{name} {length_bytes}\n")
}

/// Name and length of a frame's line.
fn frame(line: &str) -> Option<(&str, u64)> {
    let (name, digits) = line.strip_suffix('\n')?.split_once(' ')?;
    let length: u64 = digits.parse().ok()?;
    // One spelling: no sign, no leading zero.
    (length.to_string() == digits).then_some((name, length))
}

/// Reads a bundle that is in memory.
///
/// # Errors
/// The first broken rule.
pub fn read(bytes: &[u8]) -> Result<Contents, BundleError> {
    let mut lines = Lines::new(bytes.len() as u64);
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().take(LINE_MAX_BYTES).position(|byte| *byte == b'\n');
        let length = end.map_or(rest.len().min(LINE_MAX_BYTES), |end| end + 1);
        let start = bytes.len() - rest.len() + length;
        let next = lines.take(&rest[..length], start as u64)?;
        let next = usize::try_from(next).ok().and_then(|next| bytes.get(next..));
        rest = next.ok_or(BundleError::Line)?;
    }
    lines.finish()
}

/// What holds for any bytes; the fuzz target and the corpus test call this. What is read is
/// written the same, byte for byte: nothing stands in a bundle that nobody reads.
///
/// Answers whether the bytes were a bundle at all.
///
/// # Panics
/// When a promise is broken: that is a bug in the parser.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    let Ok(Contents { lock, objects }) = read(bytes) else { return false };
    let content = |place: Place| {
        let start = usize::try_from(place.start).unwrap_or(usize::MAX);
        let length = usize::try_from(place.length).unwrap_or(usize::MAX);
        bytes.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
    };
    let mut written = FIRST_LINE.as_bytes().to_vec();
    let mut frame = |name: &str, place: Place| {
        let content = content(place);
        assert_eq!(content.len() as u64, place.length);
        written.extend_from_slice(line(name, content.len()).as_bytes());
        written.extend_from_slice(content);
    };
    frame(LOCK_FRAME, lock);
    let texts: BTreeMap<String, Place> =
        objects.iter().map(|(key, place)| (key.to_string(), *place)).collect();
    for (name, place) in texts {
        frame(&name, place);
    }
    assert_eq!(written, bytes);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "modunest/bundle/v1\nmodunest.lock 4\nlockcheckpoint 0\nhead 8\nthe head";

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let contents = read(GOOD.as_bytes()).unwrap();
        assert_eq!(contents.lock.length, 4);
        let head = contents.objects[&ObjectKey::Head];
        assert_eq!(&GOOD[usize::try_from(head.start).unwrap()..], "the head");
        assert!(check_invariants(GOOD.as_bytes()));
        for cut in 0..GOOD.len() {
            // It may only end where a frame does.
            let at_frame =
                [" 4\nlock", "checkpoint 0\n"].iter().any(|end| GOOD[..cut].ends_with(end));
            assert_eq!(check_invariants(&GOOD.as_bytes()[..cut]), at_frame, "{cut}");
        }
    }

    #[test]
    fn each_rule_has_its_error() {
        let long = format!("{GOOD}{}", "x".repeat(200));
        for (bad, error) in [
            (GOOD.replace("v1", "v2"), BundleError::Start),
            (String::new(), BundleError::Start),
            (GOOD.replace("modunest.lock 4\nlock", ""), BundleError::LockFirst),
            (GOOD[..19].to_owned(), BundleError::NoLock),
            (GOOD.replace("head 8", "head 08"), BundleError::Frame),
            (GOOD.replace("head 8", "head +8"), BundleError::Frame),
            (GOOD.replace("head 8", "head 9"), BundleError::Cut("head".to_owned())),
            (
                GOOD.replace("head 8", "head 18446744073709551615"),
                BundleError::Cut("head".to_owned()),
            ),
            (GOOD.replace("head 8", "elsewhere 8"), BundleError::Key("elsewhere".to_owned())),
            (GOOD.replace("head 8", "checkpoint 8"), BundleError::Order),
            (long, BundleError::Line),
        ] {
            assert_eq!(read(bad.as_bytes()), Err(error), "{bad}");
        }
    }
}
