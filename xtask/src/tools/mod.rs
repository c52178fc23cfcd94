//! Pinned tools, installed once for every clone, below `~/.cache/modunest/tools`.
//!
//! From crates.io, npm and PyPI only, and from Debian what starts those and what tests start.
//! Versions stand in
//! `xtask/tools/` and in [`crates`].

mod crates;
mod debian;
mod node;
mod python;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::error::Error;
use crate::folders::Folders;

pub use crates::{DENY, MACHETE, NEXTEST, WORKER_BUILD, wasm_bindgen};
pub use node::Node;
pub use python::Python;

/// Installs what builds and checks the deployed parts, unless it is there.
pub fn run(folders: &Folders) -> Result<(), Error> {
    let node = node(folders)?;
    let python = python(folders)?;
    WORKER_BUILD.install_if_missing(folders)?;
    wasm_bindgen(folders)?.install_if_missing(folders)?;
    println!("{}\n{}", node.binary().display(), python.folder().display());
    Ok(())
}

/// Node and its packages, after installing them if needed.
pub fn node(folders: &Folders) -> Result<Node, Error> {
    Node::install_if_missing(folders)
}

/// The Python environment, after installing it if needed.
pub fn python(folders: &Folders) -> Result<Python, Error> {
    Python::install_if_missing(folders)
}

/// Other people's programs that tests start, after installing them if needed.
pub fn peers(folders: &Folders) -> Result<(), Error> {
    debian::ensure_peers()?;
    let kernel = kernel(folders);
    let folder = kernel.parent().unwrap_or(&kernel);
    stamped(folder.with_extension("stamp"), "1", || debian::unpack_kernel(folder))
}

/// A kernel that tests start in a virtual machine.
fn kernel(folders: &Folders) -> PathBuf {
    folders.cache.join("tools/kernel/vmlinuz")
}

/// Where tests and benchmarks find what is installed and built here.
///
/// Only names places: a test that needs one which is not there says what makes it.
pub fn environment(folders: &Folders) -> [(&'static str, PathBuf); 5] {
    let node = Node::at(folders);
    [
        ("MODUNEST_NODE", node.binary()),
        ("MODUNEST_NODE_MODULES", node.modules()),
        ("MODUNEST_WORKER", folders.worker()),
        ("MODUNEST_PYTHON", Python::at(folders).folder().to_owned()),
        ("MODUNEST_KERNEL", kernel(folders)),
    ]
}

/// A `PATH` in which these folders come first.
pub fn path_with(folders: impl IntoIterator<Item = PathBuf>) -> Result<OsString, Error> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let parts: Vec<_> = folders.into_iter().chain(env::split_paths(&inherited)).collect();
    env::join_paths(&parts).map_err(|error| Error::File {
        path: parts.into_iter().next().unwrap_or_default(),
        source: std::io::Error::other(error),
    })
}

/// Does `install` unless `stamp` holds `wanted`, and writes it then. One process at a time: two
/// clones, or two terminals, share the folder.
///
/// The stamp is removed first and written last, so that an installation that was cut short is
/// not taken for one.
fn stamped(
    stamp: PathBuf,
    wanted: &str,
    install: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let file = |path: &PathBuf| {
        let path = path.clone();
        |source| Error::File { path, source }
    };
    let is_there = || fs::read_to_string(&stamp).is_ok_and(|text| text == wanted);
    if is_there() {
        return Ok(());
    }
    let parent = stamp.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&parent).map_err(file(&parent))?;
    let path = stamp.with_extension("lock");
    let lock = fs::File::create(&path).map_err(file(&path))?;
    lock.lock().map_err(file(&path))?;
    // Whoever had the lock may have done it.
    if is_there() {
        return Ok(());
    }
    match fs::remove_file(&stamp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(file(&stamp)(error));
        }
        _ => {}
    }
    install()?;
    fs::write(&stamp, wanted).map_err(file(&stamp))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_installation_is_made_once_and_again_after_a_change_or_a_failure() {
        let folder = env::temp_dir().join(format!("modunest-xtask-stamp-{}", std::process::id()));
        let stamp = folder.join("tool.stamp");
        let made = Cell::new(0);
        let install = || {
            made.set(made.get() + 1);
            Ok(())
        };
        stamped(stamp.clone(), "1", install).unwrap();
        stamped(stamp.clone(), "1", install).unwrap();
        assert_eq!(made.get(), 1);
        stamped(stamp.clone(), "2", || Err(Error::Variable("X"))).unwrap_err();
        assert!(!stamp.exists());
        stamped(stamp.clone(), "2", install).unwrap();
        assert_eq!(made.get(), 2);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn our_folders_come_first_on_the_path() {
        let path = path_with([PathBuf::from("/a"), PathBuf::from("/b")]).unwrap();
        assert!(path.to_string_lossy().starts_with("/a:/b:"));
    }
}
