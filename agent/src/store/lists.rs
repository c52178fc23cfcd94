//! File lists, those of one sync in one file: a file for each list would cost more than the
//! plugins' own.
//!
//! ```text
//! <digest of the list> <length in bytes>
//! <the list's text>
//! ```
//!
//! Lists are a short cut and nothing more: a list that is lost or damaged is made again by
//! hashing the entry's folder, and is right if its digest is the entry's name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modunest_core::archive::{ENTRIES_MAX, FileList, FileRecord};
use modunest_core::digest::{Digest, Hasher};

use super::Error;
use crate::files;

/// Longest file of lists that is read, in bytes: those of 10,000 plugins with 500 files each.
const PACK_MAX_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of a file that are hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Where a list is.
#[derive(Debug, Clone)]
struct Place {
    pack: Arc<Path>,
    start: u64,
    length: usize,
}

/// The lists that are known, by their digests.
#[derive(Debug)]
pub(super) struct Lists {
    folder: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The folder's time of change when it was read; `None` before.
    read_at: Option<(i64, i64)>,
    places: BTreeMap<Digest, Place>,
}

impl Lists {
    pub(super) fn open(folder: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Lists { folder, known: Mutex::default() })
    }

    /// Whether a list is known.
    pub(super) fn has(&self, list: Digest) -> Result<bool, Error> {
        Ok(self.known()?.places.contains_key(&list))
    }

    /// As [`Lists::has`], without a look at the folder after the first: for whoever holds the
    /// state folder's lock, beside whom nobody adds lists. See [`Lists::look_again`].
    pub(super) fn has_for_writer(&self, list: Digest) -> Result<bool, Error> {
        let known = self.lock();
        let is_read = known.read_at.is_some();
        let known = if is_read { known } else { self.known_in(known)? };
        Ok(known.places.contains_key(&list))
    }

    /// The folder may be another than it was: the lock is taken anew, or lists were added.
    pub(super) fn look_again(&self) {
        self.lock().read_at = None;
    }

    /// A list, proven by its digest; `None` when it is not known or no longer what it was.
    pub(super) fn get(&self, list: Digest) -> Result<Option<FileList>, Error> {
        let Some(Place { pack, start, length }) = self.known()?.places.get(&list).cloned() else {
            return Ok(None);
        };
        let mut text = vec![0; length];
        let read = File::open(&pack).and_then(|file| file.read_exact_at(&mut text, start));
        match read {
            Ok(()) if Digest::of(&text) == list => Ok(FileList::parse(&text).ok()),
            Ok(()) => Ok(None),
            // Another process has tidied up, or somebody has cut it.
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(Error::io(&pack, error)),
        }
    }

    /// Adds lists, as one file.
    pub(super) fn add<'l>(
        &self,
        lists: impl Iterator<Item = (Digest, &'l FileList)>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (digest, list) in lists {
            let text = list.text();
            bytes.extend_from_slice(format!("{digest} {}\n", text.len()).as_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let path = self.folder.join(Digest::of(&bytes).to_hex());
        files::write_cached(&path, &bytes).map_err(|e| Error::io(&path, e))?;
        self.look_again();
        Ok(())
    }

    /// Removes files in which no list is used.
    pub(super) fn retain(&self, used: &BTreeSet<Digest>) -> Result<(), Error> {
        let known = self.known()?;
        let packs: BTreeSet<&Arc<Path>> = known
            .places
            .iter()
            .filter(|(list, _)| used.contains(list))
            .map(|(_, place)| &place.pack)
            .collect();
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
            let path = entry.map_err(|e| Error::io(&self.folder, e))?.path();
            if !packs.iter().any(|pack| ***pack == *path) {
                fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(())
    }

    /// What the folder holds, read again when it has changed.
    fn known(&self) -> Result<MutexGuard<'_, Known>, Error> {
        self.known_in(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_in<'k>(
        &self,
        mut known: MutexGuard<'k, Known>,
    ) -> Result<MutexGuard<'k, Known>, Error> {
        let metadata = fs::metadata(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        let changed_at = Some((metadata.mtime(), metadata.mtime_nsec()));
        if known.read_at != changed_at {
            known.places = self.read()?;
            known.read_at = changed_at;
        }
        Ok(known)
    }

    fn read(&self) -> Result<BTreeMap<Digest, Place>, Error> {
        let mut places = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
            let path = entry.map_err(|e| Error::io(&self.folder, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| name.parse::<Digest>().is_err()) {
                continue;
            }
            let bytes = files::read_limited(&path, PACK_MAX_BYTES);
            let Some(bytes) = bytes.map_err(|e| Error::io(&path, e))? else { continue };
            index(&Arc::from(path), &bytes, &mut places);
        }
        Ok(places)
    }
}

fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Notes every list of a file that is whole and what its digest says, up to the first line
/// that is none.
fn index(pack: &Arc<Path>, bytes: &[u8], places: &mut BTreeMap<Digest, Place>) {
    let mut rest = bytes;
    while let Some((list, text, more)) = first_list(rest) {
        if Digest::of(text) == list {
            let start = (bytes.len() - more.len() - text.len()) as u64;
            places.insert(list, Place { pack: pack.clone(), start, length: text.len() });
        }
        rest = more;
    }
}

/// Name, text, and what follows.
fn first_list(bytes: &[u8]) -> Option<(Digest, &[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (list, length) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
    let (text, more) = bytes[end + 1..].split_at_checked(length.parse().ok()?)?;
    Some((list.parse().ok()?, text, more))
}

/// The list of what a folder holds, by hashing all of it; `None` when it holds what no archive
/// may hold.
pub(super) fn of_folder(folder: &Path) -> Result<Option<FileList>, Error> {
    let mut records = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    let mut piece = vec![0; PIECE_BYTES];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let entry = entry.map_err(|e| Error::io(&folder, e))?;
            let (path, name) = (entry.path(), entry.file_name());
            let metadata = entry.metadata().map_err(|e| Error::io(&path, e))?;
            let Some(name) = name.to_str() else { return Ok(None) };
            if metadata.is_dir() {
                folders.push((path, format!("{prefix}{name}/")));
            } else if metadata.is_file() && records.len() < ENTRIES_MAX {
                let (size_bytes, sha256) =
                    hash(&path, &mut piece).map_err(|e| Error::io(&path, e))?;
                let executable = metadata.mode() & 0o111 != 0;
                let name = format!("{prefix}{name}");
                records.push(FileRecord { name, size_bytes, executable, sha256 });
            } else {
                return Ok(None);
            }
        }
    }
    Ok(Some(FileList::new(records)))
}

fn hash(path: &Path, piece: &mut [u8]) -> io::Result<(u64, Digest)> {
    use io::Read as _;
    let mut file = File::open(path)?;
    let (mut hasher, mut size_bytes) = (Hasher::new(), 0);
    loop {
        match file.read(piece)? {
            0 => return Ok((size_bytes, hasher.finish())),
            read => {
                hasher.update(&piece[..read]);
                size_bytes += read as u64;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(name: &str) -> FileList {
        let sha256 = Digest::of(name.as_bytes());
        FileList::new(vec![FileRecord {
            name: name.to_owned(),
            size_bytes: 1,
            executable: false,
            sha256,
        }])
    }

    #[test]
    fn lists_are_found_by_whoever_opens_the_folder_and_go_with_their_last_user() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, other) = (folder.path().to_owned(), folder.path().to_owned());
        let (mine, other) = (Lists::open(mine).unwrap(), Lists::open(other).unwrap());
        let [one, two, three] = ["one", "two", "three"].map(list);
        assert!(!other.has(one.digest()).unwrap());
        mine.add([&one, &two].into_iter().map(|list| (list.digest(), list))).unwrap();
        mine.add([(three.digest(), &three)].into_iter()).unwrap();
        for list in [&one, &two, &three] {
            assert_eq!(other.get(list.digest()).unwrap().as_ref(), Some(list));
        }
        mine.retain(&BTreeSet::from([two.digest()])).unwrap();
        assert!(other.has(one.digest()).unwrap() && other.has(two.digest()).unwrap());
        assert_eq!(other.get(three.digest()).unwrap(), None);
    }

    #[test]
    fn a_writer_sees_its_own_lists_and_those_that_were_there_when_it_took_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, other) = (folder.path().to_owned(), folder.path().to_owned());
        let (mine, other) = (Lists::open(mine).unwrap(), Lists::open(other).unwrap());
        let [one, two] = ["one", "two"].map(list);
        assert!(!mine.has_for_writer(one.digest()).unwrap());
        other.add([(one.digest(), &one)].into_iter()).unwrap();
        mine.look_again();
        assert!(mine.has_for_writer(one.digest()).unwrap());
        mine.add([(two.digest(), &two)].into_iter()).unwrap();
        assert!(mine.has_for_writer(two.digest()).unwrap());
    }

    #[test]
    fn a_damaged_list_is_not_there_and_takes_no_other_along() {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists::open(folder.path().to_owned()).unwrap();
        let [one, two] = ["one", "two"].map(list);
        lists.add([&one, &two].into_iter().map(|list| (list.digest(), list))).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|three| three == b"one").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(lists.get(one.digest()).unwrap(), None);
        assert_eq!(lists.get(two.digest()).unwrap(), Some(two.clone()));
        let again = Lists::open(folder.path().to_owned()).unwrap();
        assert!(!again.has(one.digest()).unwrap() && again.has(two.digest()).unwrap());
        for cut in 0..bytes.len() {
            let mut places = BTreeMap::new();
            index(&Arc::from(path.as_path()), &bytes[..cut], &mut places);
            assert!(places.is_empty());
        }
    }

    #[test]
    fn a_folder_s_own_list_is_that_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("data/one"), b"1").unwrap();
        fs::write(folder.path().join("two"), b"").unwrap();
        let found = of_folder(folder.path()).unwrap().unwrap();
        let names: Vec<_> = found.files().iter().map(|f| (f.name.as_str(), f.size_bytes)).collect();
        assert_eq!(names, [("data/one", 1), ("two", 0)]);
        assert_eq!(found.files()[0].sha256, Digest::of(b"1"));
        std::os::unix::fs::symlink("two", folder.path().join("three")).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), None);
    }
}
