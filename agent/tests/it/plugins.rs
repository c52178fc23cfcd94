//! Small native plugins, compiled from C.

use std::path::{Path, PathBuf};
use std::process::Command;

use modunest_core::archive::PackFile;

use crate::registry::Release;

/// Compiles the test plugin with these macros.
pub fn library(macros: &[&str]) -> Vec<u8> {
    library_of("plugin.c", macros)
}

/// Compiles a file of `tests/plugins` with these macros.
pub fn library_of(source: &str, macros: &[&str]) -> Vec<u8> {
    if crate::guest::is_here() {
        return crate::guest::library(source, macros);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("plugin.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&out)
        .arg("-I")
        .arg(root.join("../sdk/include"))
        .args(macros.iter().map(|m| format!("-D{m}")))
        .arg("-D_GNU_SOURCE")
        .arg(root.join("tests/plugins").join(source))
        .output()
        .expect("a C compiler is needed for this test");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    std::fs::read(out).unwrap()
}

/// A release of a native plugin. `more` is appended to the manifest.
pub fn release(name: &str, version: &str, macros: &[&str], more: &str) -> Release {
    let quoted = format!("NAME=\"{name} {version}\"");
    let macros: Vec<&str> = macros.iter().copied().chain([quoted.as_str()]).collect();
    release_of(name, version, library(&macros), more)
}

/// A release of a plugin that attacks; it acts on requests below `/bad`.
pub fn hostile(name: &str, macros: &[&str], more: &str) -> Release {
    release_of(name, "1.0.0", library_of("hostile.c", macros), more)
}

/// A release of a native plugin with this library.
pub fn release_of(name: &str, version: &str, library: Vec<u8>, more: &str) -> Release {
    let manifest = format!(
        r#"[plugin]
name = "{name}"
version = "{version}"
description = "A plugin that exists for tests"
authors = ["Ada Example"]
license = "MIT"
{more}
[build]
native = {{ library = "plugin" }}
"#
    );
    let manifest =
        if more.contains("[host]") { manifest } else { manifest + "\n[host]\nabi = 1\n" };
    Release {
        manifest,
        files: vec![PackFile {
            name: "lib/plugin.so".to_owned(),
            content: library,
            executable: true,
        }],
    }
}

/// Version 1.0.0 of a plugin that does what requests tell it to, for tests of services, guards
/// and events. `more` is appended to the manifest, `files` to the archive.
pub fn linked(name: &str, more: &str, files: Vec<PackFile>) -> Release {
    linked_with(name, &[], more, files)
}

/// As [`linked`], with these macros.
pub fn linked_with(name: &str, macros: &[&str], more: &str, files: Vec<PackFile>) -> Release {
    let mut release = release(name, "1.0.0", &[], more);
    release.files = vec![PackFile {
        name: "lib/plugin.so".to_owned(),
        content: library_of("links.c", macros),
        executable: true,
    }];
    release.files.extend(files);
    release
}

/// Manifest lines for a route.
pub fn route(path: &str) -> String {
    format!("\n[[route]]\npath = \"{path}\"\nmethods = [\"GET\"]\n")
}

/// Manifest lines for an exported service `echo`.
pub const ECHO: &str = "\n[[service]]\nname = \"echo\"\nversion = \"1.0.0\"\n";

/// Manifest lines for a dependency whose `echo` is called.
pub fn uses(plugin: &str, requirement: &str) -> String {
    format!(
        "\n[dependencies]\n\"{plugin}\" = \"{requirement}\"\n\n[[import]]\nplugin = \"{plugin}\"\nservice = \"echo\"\n"
    )
}
