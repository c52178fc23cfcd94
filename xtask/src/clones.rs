//! Build folders that several clones share.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;
use crate::folders::Folders;

/// Makes cargo build the workspace's own members anew if another clone has built them last;
/// dependencies stay.
///
/// Cargo tells members of two clones apart by time alone: an older checkout would run what the
/// newer one has compiled.
pub fn claim(folders: &Folders, target: &Path) -> Result<(), Error> {
    let file = |source| Error::File { path: target.to_owned(), source };
    let stamp = target.join("modunest-clone");
    let clone = folders.repository.to_string_lossy();
    if fs::read_to_string(&stamp).is_ok_and(|owner| owner == clone) {
        return Ok(());
    }
    fs::create_dir_all(target).map_err(file)?;
    forget_members(target, 0).map_err(file)?;
    fs::write(&stamp, clone.as_bytes()).map_err(file)
}

/// How the names of the workspace's members begin.
const MEMBERS: [&str; 3] = ["modunest", "demo-", "xtask"];

/// Fingerprints are at `PROFILE/.fingerprint/PACKAGE-HASH`, or below `TRIPLE/`.
const DEPTH_MAX: u32 = 2;

/// Removes the fingerprints of our packages: cargo builds what has none.
fn forget_members(folder: &Path, depth: u32) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == ".fingerprint" {
            for package in fs::read_dir(entry.path())? {
                let package = package?;
                let name = package.file_name();
                let name = name.to_string_lossy();
                if MEMBERS.iter().any(|member| name.starts_with(member)) {
                    fs::remove_dir_all(package.path())?;
                }
            }
        } else if depth < DEPTH_MAX {
            forget_members(&entry.path(), depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_clones_members_are_forgotten_and_our_own_are_not() {
        let target =
            std::env::temp_dir().join(format!("modunest-xtask-claim-{}", std::process::id()));
        let member = target.join("wasm32/worker/.fingerprint/modunest-core-0123");
        let dependency = target.join("debug/.fingerprint/serde-0123");
        let folders = |repository: &str| Folders {
            repository: repository.into(),
            target: target.clone(),
            cache: target.clone(),
        };
        let fill = || {
            fs::create_dir_all(&member).unwrap();
            fs::create_dir_all(&dependency).unwrap();
        };
        fill();
        claim(&folders("/one"), &target).unwrap();
        assert!(!member.exists() && dependency.exists());
        fill();
        claim(&folders("/one"), &target).unwrap();
        assert!(member.exists());
        claim(&folders("/two"), &target).unwrap();
        assert!(!member.exists() && dependency.exists());
        fs::remove_dir_all(&target).unwrap();
    }
}
