//! The components that are measured, and the folders that hold hundreds of them.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::folders;

/// The component whose source is in `agent/tests/components/probe`: it uses all that the world
/// offers.
pub const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");

/// Names the echo as compiled (`bench/echo`).
const ECHO_VARIABLE: &str = "MODUNEST_ECHO";

/// The component that does what the other host's echo does, as `cargo xtask bench` has built it.
pub fn echo() -> Result<Vec<u8>, Error> {
    built(ECHO_VARIABLE)
}

/// A plugin that `cargo xtask bench` has built, and named with a variable.
pub fn built(variable: &'static str) -> Result<Vec<u8>, Error> {
    let path = std::env::var_os(variable).map(PathBuf::from).ok_or_else(|| Error::Wrong {
        what: "a plugin to measure",
        why: format!("{variable} does not name it; run by `cargo xtask bench`"),
    })?;
    std::fs::read(&path).map_err(Error::io(&path))
}

/// So many copies of a component: `N.wasm`, and `N.cwasm` once [`super::bare::compile`] has made it.
pub fn folder(plugin: &[u8], count: usize) -> Result<tempfile::TempDir, Error> {
    let folder = folders::memory()?;
    for number in 0..count {
        let path = component(folder.path(), number);
        std::fs::write(&path, numbered(plugin, number)).map_err(Error::io(&path))?;
    }
    Ok(folder)
}

/// A component or module with a custom section that holds a number.
pub fn numbered(bytes: &[u8], number: usize) -> Vec<u8> {
    let name = b"number";
    let digits = format!("{number:06}");
    let mut bytes = bytes.to_vec();
    // A custom section: zero, the length of what follows, the name with its length.
    bytes.extend([0, (1 + name.len() + digits.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(digits.as_bytes());
    bytes
}

/// Where a component is.
pub fn component(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.wasm"))
}

/// Where what bare wasmtime has compiled of it is.
pub fn compiled(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.cwasm"))
}
