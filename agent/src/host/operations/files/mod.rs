//! Files: of the plugin's private folder, and of folders that the operator granted.

mod beneath;
mod usage;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use modunest_core::capability::Capability;
use modunest_sdk::Error;
use modunest_sdk::operation::files::{
    FileInfo, Listing, Named, PATH_MAX_BYTES, PIECE_MAX_BYTES, Read, Write,
};
use modunest_sdk::operation::form::{Form as _, request as parse};
use modunest_sdk::operation::{FILE_DELETE, FILE_INFO, FILE_LIST, FILE_READ, FILE_WRITE};

use super::Operations;
use super::meter::lock;
use beneath::Beneath;
pub(super) use usage::Usage;

pub(super) fn serve(
    operations: &Operations,
    number: u32,
    request: &[u8],
) -> Result<Vec<u8>, Error> {
    match number {
        FILE_READ => {
            let Read { path, offset, length } = parse(request)?;
            if length as usize > PIECE_MAX_BYTES {
                let text = format!("a piece has at most {PIECE_MAX_BYTES} bytes, not {length}");
                return Err(Error::InvalidInput(text));
            }
            let (root, parts) = open(operations, path, false)?;
            root.read(&parts, offset, length as usize)
        }
        FILE_WRITE => write(operations, request),
        FILE_LIST => {
            let Named { path } = parse(request)?;
            let (root, parts) = open(operations, path, false)?;
            Ok(Listing { entries: root.list(&parts)? }.encode())
        }
        FILE_DELETE => {
            let Named { path } = parse(request)?;
            let (root, parts) = open(operations, path, true)?;
            if is_private(path) {
                let mut usage = lock(&operations.meter.files);
                usage.forget();
                return root.delete(&parts).map(|()| Vec::new());
            }
            root.delete(&parts).map(|()| Vec::new())
        }
        FILE_INFO => {
            let Named { path } = parse(request)?;
            let (root, parts) = open(operations, path, false)?;
            let info: FileInfo = root.info(&parts)?;
            Ok(info.encode())
        }
        _ => {
            super::environment::nothing(request)?;
            operations.need(&Capability::PrivateFiles)?;
            let folder = private_folder(operations)?;
            folder.into_os_string().into_string().map(String::into_bytes).map_err(|_| {
                Error::Unsupported("the path of the state folder is not UTF-8".to_owned())
            })
        }
    }
}

fn is_private(path: &str) -> bool {
    !path.starts_with('/')
}

fn write(operations: &Operations, request: &[u8]) -> Result<Vec<u8>, Error> {
    let Write { path, append, content } = parse(request)?;
    if content.len() > PIECE_MAX_BYTES {
        let length = content.len();
        let text = format!("a piece has at most {PIECE_MAX_BYTES} bytes, not {length}");
        return Err(Error::InvalidInput(text));
    }
    let (root, parts) = open(operations, path, true)?;
    if !is_private(path) {
        return root.write(&parts, append, content).map(|()| Vec::new());
    }
    // One at a time, so that two writes cannot both fit where only one does.
    let mut usage = lock(&operations.meter.files);
    let (was, new) = root.there(&parts)?;
    let gone = if append { 0 } else { was };
    usage.refresh(&root, operations.quota.files_count, Instant::now())?;
    usage.make_room(&operations.quota, gone, content.len() as u64, new)?;
    let written = root.write(&parts, append, content);
    if written.is_err() {
        usage.forget();
    }
    written.map(|()| Vec::new())
}

/// What a look into a private folder came to.
#[derive(Debug, Default)]
pub(in crate::host) struct Look {
    /// Files and folders that it took.
    pub(in crate::host) entries: u64,
    /// What is above the quota, in words.
    pub(in crate::host) excess: Option<String>,
}

/// Counts the private folder, if the plugin may have one and it is there.
pub(super) fn look(operations: &Operations, now: Instant) -> Look {
    let folder = folder_of(operations);
    if !operations.effective.allows(&Capability::PrivateFiles) || !folder.exists() {
        return Look::default();
    }
    let (plugin, quota) = (&operations.plugin, &operations.quota);
    let mut usage = lock(&operations.meter.files);
    let counted =
        Beneath::open(&folder).and_then(|root| usage.refresh(&root, quota.files_count, now));
    let (entries, excess) = match counted {
        Ok(entries) => (entries, usage.excess(quota)),
        Err(Error::Denied(text)) => (quota.files_count, Some(format!("is made so that {text}"))),
        Err(error) => {
            tracing::warn!(%plugin, %error, "nobody knows how much is in the private folder");
            (quota.files_count, None)
        }
    };
    let folder = folder.display();
    let excess = excess.map(|excess| {
        format!("the private folder {folder} of {plugin} {excess}; make room there or raise its quota, then restart the plugin")
    });
    Look { entries, excess }
}

/// Where the plugin's private folder is, or would be.
fn folder_of(operations: &Operations) -> PathBuf {
    // A plugin's name is two plain words around a slash.
    operations.resources.private_root().join(operations.plugin.as_str())
}

/// The plugin's private folder, made if it is missing.
pub(super) fn private_folder(operations: &Operations) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = folder_of(operations);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| beneath::failed(&error, &folder.display()))?;
    std::path::absolute(&folder).map_err(|error| beneath::failed(&error, &folder.display()))
}

/// The granted folder that a path is in, and what leads from it to the file.
fn open<'p>(
    operations: &Operations,
    path: &'p str,
    write: bool,
) -> Result<(Beneath, Vec<&'p str>), Error> {
    if path.len() > PATH_MAX_BYTES {
        let length = path.len();
        return Err(Error::InvalidInput(format!(
            "a path has at most {PATH_MAX_BYTES} bytes, not {length}"
        )));
    }
    let Some(below_root) = path.strip_prefix('/') else {
        operations.need(&Capability::PrivateFiles)?;
        let parts = beneath::parts(path)?;
        let folder = private_folder(operations)?;
        return Ok((Beneath::open(&folder)?, parts));
    };
    let parts = beneath::parts(below_root)?;
    let used = if write {
        Capability::WriteFiles(path.to_owned())
    } else {
        Capability::ReadFiles(path.to_owned())
    };
    // The innermost granted folder, from which the way is shortest.
    let granted = operations.effective.allowed().iter().filter(|one| one.covers(&used));
    let root = granted
        .filter_map(|granted| match granted {
            Capability::ReadFiles(root) | Capability::WriteFiles(root) => Some(root),
            _ => None,
        })
        .max_by_key(|root| root.len());
    let Some(root) = root else { return Err(operations.denied(&used)) };
    let depth = beneath::parts(root.trim_start_matches('/'))?.len();
    // What is granted may be a file, so it is reached from the folder that it is in.
    let depth = if depth == parts.len() { depth.saturating_sub(1) } else { depth };
    let mut folder = PathBuf::from("/");
    folder.extend(&parts[..depth]);
    Ok((Beneath::open(&folder)?, parts[depth..].to_vec()))
}

/// Opens a folder that the operator or the agent named.
fn open_folder(folder: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
}
