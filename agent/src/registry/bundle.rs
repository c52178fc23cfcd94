//! Bundles on disk: the file that a host without a network asks in place of the registry. Their
//! form is `modunest_core::bundle`'s.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use modunest_core::bundle::{Contents, FIRST_LINE, LINE_MAX_BYTES, LOCK_FRAME, Lines, Place, line};
use modunest_core::keys::ObjectKey;

use super::Error;

/// An opened bundle. Its objects are unproven.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    file: File,
    contents: Contents,
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
        let mut lines = Lines::new(file.metadata().map_err(io)?.len());
        let mut reader = BufReader::new(&file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let limit = LINE_MAX_BYTES as u64;
            io::Read::take(&mut reader, limit).read_until(b'\n', &mut text).map_err(io)?;
            if text.is_empty() {
                break;
            }
            let start = reader.stream_position().map_err(io)?;
            let next = lines.take(&text, start).map_err(|error| bad(error.to_string()))?;
            reader.seek(SeekFrom::Start(next)).map_err(io)?;
        }
        drop(reader);
        let contents = lines.finish().map_err(|error| bad(error.to_string()))?;
        Ok(Bundle { path: path.to_owned(), file, contents })
    }

    /// The lock file's bytes.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::TooLong`].
    pub(crate) fn lock(&self, limit: usize) -> Result<Vec<u8>, Error> {
        self.read(LOCK_FRAME, self.contents.lock, limit)
    }

    /// An object's bytes; `None` when the bundle does not have it.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::TooLong`].
    pub(super) fn object(&self, key: ObjectKey, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let place = self.contents.objects.get(&key).copied();
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
        self.out.write_all(line(name, bytes.len()).as_bytes())?;
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
