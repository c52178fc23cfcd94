//! How much of its private folder's quota a plugin has used.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modunest_sdk::Error;
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::beneath::{Beneath, is_partial, size};
use crate::config::grants::Quota;

/// How long a count is believed. A native plugin may write without asking the host, so the
/// folder is counted anew at times.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// Longest part of a path that an error shows, in characters.
const SHOWN_MAX_CHARS: usize = 200;

/// What lies in a private folder, as last counted.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counted: Option<Instant>,
    bytes: u64,
    count: u64,
}

impl Usage {
    /// The next change counts anew.
    pub(super) fn forget(&mut self) {
        self.counted = None;
    }

    /// Counts anew, unless that was done just now, and no further than one above `count_max`:
    /// then nothing fits any more. Answers how many files and folders were looked at.
    ///
    /// # Errors
    /// [`Error::Denied`] where the plugin made the folder so that it cannot be counted, else
    /// [`Error::Unavailable`].
    pub(super) fn refresh(
        &mut self,
        root: &Beneath,
        count_max: u64,
        now: Instant,
    ) -> Result<u64, Error> {
        let fresh = self
            .counted
            .is_some_and(|counted| now.saturating_duration_since(counted) < BELIEVED_FOR);
        if fresh {
            return Ok(0);
        }
        self.counted = None;
        (self.bytes, self.count) = count(root, count_max)?;
        self.counted = (self.count <= count_max).then_some(now);
        Ok(self.count)
    }

    /// What is above the quota, in words; then the next look counts anew.
    pub(super) fn excess(&mut self, quota: &Quota) -> Option<String> {
        if self.bytes <= quota.files_bytes && self.count <= quota.files_count {
            return None;
        }
        let least = if self.counted.is_some() { "" } else { "at least " };
        self.forget();
        Some(format!(
            "holds {least}{} bytes in {} files and folders, and its [quota] allows {} (files_bytes) in {} (files_count)",
            self.bytes, self.count, quota.files_bytes, quota.files_count
        ))
    }

    /// Counts a write in, if it fits: `gone` bytes make room for `come`, and `new` files and
    /// folders are made.
    pub(super) fn make_room(
        &mut self,
        quota: &Quota,
        gone: u64,
        come: u64,
        new: u64,
    ) -> Result<(), Error> {
        let bytes = self.bytes.saturating_sub(gone).saturating_add(come);
        let count = self.count + new;
        let more_bytes = bytes > quota.files_bytes && bytes > self.bytes;
        if more_bytes || (count > quota.files_count && new > 0) {
            return Err(Error::Unavailable(format!(
                "the quota of the private folder is full: {bytes} of {} bytes, {count} of {} files and folders",
                quota.files_bytes, quota.files_count
            )));
        }
        (self.bytes, self.count) = (bytes, count);
        Ok(())
    }
}

/// Bytes of files, and how many files and folders there are, at most one more than `count_max`.
/// One folder is open at a time, however many there are.
fn count(root: &Beneath, count_max: u64) -> Result<(u64, u64), Error> {
    let (mut bytes, mut count) = (0u64, 0);
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let folder = match root.folder(&path) {
            Ok(folder) => folder,
            Err(error) if is_gone(error) => continue,
            Err(error) => return Err(uncounted(error, &path)),
        };
        for entry in Dir::read_from(&folder).map_err(|error| uncounted(error, &path))? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if is_gone(error) => break,
                Err(error) => return Err(uncounted(error, &path)),
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if is_partial(name) && kind == FileType::RegularFile {
                // Whoever changes the folder through the host holds the lock, so nobody
                // writes this any more.
                let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
                continue;
            }
            count += 1;
            bytes = bytes.saturating_add(size(&stat));
            if count > count_max {
                return Ok((bytes, count));
            }
            if kind == FileType::Directory {
                folders.push(path.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok((bytes, count))
}

/// Whether a folder was removed or replaced since it was seen.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn uncounted(error: Errno, path: &Path) -> Error {
    // Cut short: it may be as deep as the plugin likes.
    let path: String = path.to_string_lossy().chars().take(SHOWN_MAX_CHARS).collect();
    let text =
        format!("\"{}\" in the private folder cannot be counted: {error}", path.escape_debug());
    match error {
        Errno::ACCESS | Errno::PERM | Errno::NAMETOOLONG => Error::Denied(text),
        _ => Error::Unavailable(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_count_ends_above_the_quota_and_follows_nothing_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = Beneath::open(folder.path()).unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c"), "12345").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        let (bytes, entries) = count(&root, 100).unwrap();
        assert_eq!(entries, 4);
        let of = |path: &str| folder.path().join(path).symlink_metadata().unwrap().len();
        assert_eq!(bytes, of("a") + of("a/b") + 5 + of("out"));
        for number in 0..50 {
            // As many open folders would be more than a process may have, where there are more.
            std::fs::create_dir(folder.path().join(number.to_string())).unwrap();
        }
        assert_eq!(count(&root, 100).unwrap().1, 54);
        assert_eq!(count(&root, 20).unwrap().1, 21);
    }

    #[test]
    fn what_is_deeper_than_a_path_may_be_is_no_place_to_hide() {
        let folder = tempfile::tempdir().unwrap();
        let root = Beneath::open(folder.path()).unwrap();
        let name = "d".repeat(250);
        let mut at: std::os::fd::OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        for _ in 0..20 {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mkdirat(&at, name.as_str(), mode).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, name.as_str(), flags, mode).unwrap();
        }
        let mut usage = Usage::default();
        let error = usage.refresh(&root, 100, Instant::now()).unwrap_err();
        assert!(
            matches!(&error, Error::Denied(text) if text.contains("cannot be counted")),
            "{error}"
        );
    }

    #[test]
    fn what_is_above_the_quota_is_counted_anew_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let root = Beneath::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("one"), [0; 11]).unwrap();
        let mut usage = Usage::default();
        let now = Instant::now();
        let quota = Quota { files_bytes: 10, files_count: 1, ..Quota::default() };
        assert_eq!(usage.refresh(&root, quota.files_count, now), Ok(1));
        let excess = usage.excess(&quota).unwrap();
        insta::assert_snapshot!(excess, @"holds 11 bytes in 1 files and folders, and its [quota] allows 10 (files_bytes) in 1 (files_count)");
        std::fs::write(folder.path().join("one"), "").unwrap();
        assert_eq!(usage.refresh(&root, quota.files_count, now), Ok(1));
        assert_eq!(usage.excess(&quota), None);
        // Believed for a while.
        std::fs::write(folder.path().join("two"), "").unwrap();
        assert_eq!(usage.refresh(&root, quota.files_count, now), Ok(0));
        assert_eq!(usage.excess(&quota), None);
        assert_eq!(usage.refresh(&root, quota.files_count, now + BELIEVED_FOR), Ok(2));
        assert!(usage.excess(&quota).unwrap().contains("at least 0 bytes in 2 files"));
    }
}
