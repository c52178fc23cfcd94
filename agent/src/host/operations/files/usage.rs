//! How much of its private folder's quota a plugin has used.

use std::time::{Duration, Instant};

use modunest_sdk::Error;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

use super::beneath::{Beneath, is_partial, size};
use crate::config::grants::Quota;

/// How long a count is believed. A native plugin may write without asking the host, so the
/// folder is counted anew at times.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Deepest folder that is counted into: paths are no longer, see `PATH_MAX_BYTES`.
const DEPTH_MAX: usize = 512;

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

    /// Counts anew, unless that was done just now.
    pub(super) fn refresh(
        &mut self,
        root: &Beneath,
        count_max: u64,
        now: Instant,
    ) -> Result<(), Error> {
        let fresh = self
            .counted
            .is_some_and(|counted| now.saturating_duration_since(counted) < BELIEVED_FOR);
        if fresh {
            return Ok(());
        }
        let failed = |error: rustix::io::Errno| {
            Error::Unavailable(format!("the private folder cannot be counted: {error}"))
        };
        (self.bytes, self.count) = (0, 0);
        let root = root.fd().try_clone_to_owned();
        let root = root.map_err(|e| Error::Unavailable(e.to_string()))?;
        let mut folders = vec![(root, 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in Dir::read_from(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
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
                self.count += 1;
                self.bytes = self.bytes.saturating_add(size(&stat));
                if self.count > count_max {
                    // Enough to know that nothing fits any more.
                    return Ok(());
                }
                if kind == FileType::Directory
                    && depth < DEPTH_MAX
                    && let Ok(inner) = open_folder(&folder, name)
                {
                    folders.push((inner, depth + 1));
                }
            }
        }
        self.counted = Some(now);
        Ok(())
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

fn open_folder(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}
