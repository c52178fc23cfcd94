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
//! Object keys are those of the public paths (`modunest_core::keys`), in ascending order of
//! their texts, each once: trust metadata, `checkpoint`, `head`, tiles, the tree on the way to
//! the locked plugins, and their archives. Whoever reads one asks it as if it were the
//! registry, so nothing in it is believed without the nine checks, freshness included: it is
//! good for as long as its head.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use modunest_core::keys::ObjectKey;

use super::Error;

const FIRST_LINE: &str = "modunest/bundle/v1\n";
/// Name of the frame with the lock file, which is the first.
const LOCK_FRAME: &str = "modunest.lock";
/// Longest line: a key of at most 90 characters, a space, 20 digits, a line feed, and room.
const LINE_MAX_BYTES: u64 = 128;
/// Most objects: 10,000 plugins with ten objects each, and their tiles.
const OBJECTS_MAX: usize = 200_000;

/// Where an object is in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    length: u64,
}

/// An opened bundle. Its objects are unproven.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    file: File,
    lock: Place,
    objects: BTreeMap<ObjectKey, Place>,
}

impl Bundle {
    /// Opens a bundle and notes where its objects are.
    ///
    /// # Errors
    /// [`Error::Bundle`], with the rule that is broken.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bad = |rule: String| Error::Bundle { path: path.to_owned(), rule };
        let io = |error: io::Error| bad(error.to_string());
        let file = File::open(path).map_err(io)?;
        let end = file.metadata().map_err(io)?.len();
        let mut reader = BufReader::new(&file);
        if line(&mut reader).map_err(bad)?.as_deref() != Some(FIRST_LINE) {
            return Err(bad("it does not start with modunest/bundle/v1".to_owned()));
        }
        let (mut lock, mut objects, mut last) = (None, BTreeMap::new(), String::new());
        while let Some(text) = line(&mut reader).map_err(bad)? {
            let (name, length) =
                frame(&text).ok_or_else(|| bad("a frame has no name and length".to_owned()))?;
            let start = reader.stream_position().map_err(io)?;
            let place = Place { start, length };
            let next = start.checked_add(length).filter(|next| *next <= end);
            let next = next.ok_or_else(|| bad(format!("it ends within {name}")))?;
            match lock {
                None if name == LOCK_FRAME => lock = Some(place),
                None => return Err(bad("its first frame is not the lock file".to_owned())),
                Some(_) => {
                    let key = ObjectKey::from_key(name);
                    let key = key.ok_or_else(|| bad(format!("{name} is no object's key")))?;
                    if *name <= *last || objects.len() == OBJECTS_MAX {
                        return Err(bad("its objects do not ascend, or are too many".to_owned()));
                    }
                    name.clone_into(&mut last);
                    objects.insert(key, place);
                }
            }
            reader.seek(SeekFrom::Start(next)).map_err(io)?;
        }
        drop(reader);
        let lock = lock.ok_or_else(|| bad("it has no lock file".to_owned()))?;
        Ok(Bundle { path: path.to_owned(), file, lock, objects })
    }

    /// The lock file's bytes.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::TooLong`].
    pub(crate) fn lock(&self, limit: usize) -> Result<Vec<u8>, Error> {
        self.read(LOCK_FRAME, self.lock, limit)
    }

    /// An object's bytes; `None` when the bundle does not have it.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::TooLong`].
    pub(super) fn object(&self, key: ObjectKey, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let place = self.objects.get(&key).copied();
        place.map(|place| self.read(&key.to_string(), place, limit)).transpose()
    }

    fn read(&self, name: &str, place: Place, limit: usize) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(place.length).ok().filter(|length| *length <= limit);
        let Some(length) = length else {
            let url = format!("{}#{name}", self.path.display());
            return Err(Error::TooLong { url, limit_bytes: limit as u64 });
        };
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, place.start)
            .map_err(|error| Error::Bundle { path: self.path.clone(), rule: error.to_string() })?;
        Ok(bytes)
    }
}

/// The next line with its line feed; `None` at the end of the file.
fn line(reader: &mut BufReader<&File>) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    io::Read::take(reader, LINE_MAX_BYTES)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| error.to_string())?;
    match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) if text.ends_with('\n') => Ok(Some(text)),
        _ => Err("a line is too long, or no text".to_owned()),
    }
}

/// Name and length of a frame's line.
fn frame(line: &str) -> Option<(&str, u64)> {
    let (name, digits) = line.strip_suffix('\n')?.split_once(' ')?;
    let length: u64 = digits.parse().ok()?;
    // One spelling: no sign, no leading zero.
    (length.to_string() == digits).then_some((name, length))
}

/// Writes a bundle, object by object.
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: io::Write> Writer<W> {
    /// Begins with the lock file.
    ///
    /// # Errors
    /// The disk said no.
    pub(crate) fn new(mut out: W, lock: &[u8]) -> io::Result<Self> {
        out.write_all(FIRST_LINE.as_bytes())?;
        let mut writer = Writer { out };
        writer.frame(LOCK_FRAME, lock)?;
        Ok(writer)
    }

    /// Adds an object; keys come in the order of their texts.
    ///
    /// # Errors
    /// The disk said no.
    pub(crate) fn object(&mut self, key: ObjectKey, bytes: &[u8]) -> io::Result<()> {
        self.frame(&key.to_string(), bytes)
    }

    fn frame(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        writeln!(self.out, "{name} {}", bytes.len())?;
        self.out.write_all(bytes)
    }

    /// What was written to.
    pub(crate) fn finish(self) -> W {
        self.out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<Bundle, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle");
        std::fs::write(&path, bytes).unwrap();
        Bundle::open(&path)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut writer = Writer::new(Vec::new(), b"lock").unwrap();
        writer.object(ObjectKey::Checkpoint, b"").unwrap();
        writer.object(ObjectKey::Head, b"the head").unwrap();
        let good = writer.finish();
        let bundle = open(&good).unwrap();
        assert_eq!(bundle.lock(10).unwrap(), b"lock");
        assert_eq!(bundle.object(ObjectKey::Head, 8).unwrap().unwrap(), b"the head");
        assert_eq!(bundle.object(ObjectKey::Checkpoint, 8).unwrap().unwrap(), b"");
        assert!(matches!(bundle.object(ObjectKey::Head, 7), Err(Error::TooLong { .. })));
        let text = String::from_utf8(good.clone()).unwrap();
        for cut in 0..good.len() {
            // It may only end where a frame does.
            let at_frame =
                [" 4\nlock", "checkpoint 0\n"].iter().any(|end| text[..cut].ends_with(end));
            assert_eq!(open(&good[..cut]).is_ok(), at_frame, "{cut}");
        }
        for bad in [
            text.replace("v1", "v2"),
            text.replace("modunest.lock 4\nlock", ""),
            text.replace("head 8", "head 08"),
            text.replace("head 8", "head +8"),
            text.replace("head 8", "head 9"),
            text.replace("head 8", "head 18446744073709551615"),
            text.replace("head 8", "elsewhere 8"),
            text.replace("head 8", "checkpoint 8"),
            format!("{text}{}", "x".repeat(200)),
        ] {
            assert!(matches!(open(bad.as_bytes()), Err(Error::Bundle { .. })), "{bad}");
        }
    }
}
