//! Where generated plugins, peers and scratch data are kept between runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;

/// The folder of this program's own, on the disk that is measured. `MODUNEST_BENCH_DIR`
/// chooses another.
pub fn cache() -> Result<PathBuf, Error> {
    let folder = match (env::var_os("MODUNEST_BENCH_DIR"), env::var_os("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(&home).join(".cache/modunest/bench"),
        (None, None) => env::temp_dir().join("modunest-bench"),
    };
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

/// A folder on the measured disk that is removed at the end.
pub fn scratch() -> Result<TempDir, Error> {
    let cache = cache()?;
    tempfile::Builder::new().prefix("run-").tempdir_in(&cache).map_err(Error::io(&cache))
}

/// A folder in memory where the machine has one: for what must not disturb the disk.
pub fn memory() -> Result<TempDir, Error> {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { env::temp_dir() };
    tempfile::Builder::new()
        .prefix("modunest-bench-")
        .tempdir_in(&parent)
        .map_err(Error::io(&parent))
}

/// What `cargo xtask tools` or `cargo xtask edge` has made: the place that `variable` names, or
/// else `place` in the cache of all clones.
pub fn made(variable: &str, place: &str, way_out: &'static str) -> Result<PathBuf, Error> {
    let home = env::var_os("HOME").unwrap_or_default();
    let path = env::var_os(variable)
        .map_or_else(|| Path::new(&home).join(".cache/modunest").join(place), PathBuf::from);
    if path.exists() {
        return Ok(path);
    }
    Err(Error::NoProgram { program: path.display().to_string(), way_out })
}

/// A program that was built beside this one.
pub fn sibling(name: &str) -> Result<PathBuf, Error> {
    let own = env::current_exe().map_err(Error::io(Path::new("this program")))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::NoProgram {
        program: path.display().to_string(),
        way_out: "run `cargo xtask bench`, which builds it",
    })
}

/// The first of these files that exists on the search path.
pub fn program(name: &str, way_out: &'static str) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian's servers are not on every user's path.
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoProgram { program: name.to_owned(), way_out })
}
