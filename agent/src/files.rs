//! Files that other processes or a crash may meet half-way: written aside, then renamed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

/// What [`aside`] puts behind a file's name while it is written.
pub(crate) const ASIDE: &str = ".partial-";

/// A path beside `path` that nobody else uses.
pub(crate) fn aside(path: &Path) -> std::path::PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{ASIDE}{}-{number}", std::process::id()));
    name.into()
}

/// Replaces a file whole. After a crash it has the old or the new content.
pub(crate) fn write_durable(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, true)?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Replaces a file whole, without waiting for the disk: for content that is proven whenever
/// it is read.
pub(crate) fn write_cached(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, false)
}

fn write(path: &Path, content: &[u8], sync: bool) -> io::Result<()> {
    let aside = aside(path);
    let written = (|| {
        let mut file = File::create_new(&aside)?;
        file.write_all(content)?;
        if sync { file.sync_all() } else { Ok(()) }
    })();
    written.and_then(|()| fs::rename(&aside, path)).inspect_err(|_| {
        // The reason why it was not written matters more than what is left of it.
        drop(fs::remove_file(&aside));
    })
}

/// A memory file with this content, which nobody can change any more. `name` is what the kernel
/// calls it where it shows open files.
pub(crate) fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Makes renames within a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file's content, `None` where there is no file; an error above `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(Some(content))
}
