//! The stack of the write side: `template.yaml` checked, and its functions built as SAM does.

use std::path::PathBuf;

use crate::error::Error;
use crate::folders::Folders;
use crate::{clones, process, tools};

/// Checks the template and builds the functions.
pub fn run(folders: &Folders) -> Result<(), Error> {
    let python = tools::python(folders)?;
    process::run(python.program(folders, "cfn-lint").arg("template.yaml"))?;
    process::run(python.program(folders, "sam").args([
        "validate",
        "--lint",
        "--template",
        "template.yaml",
    ]))?;
    // Of its own: the linker is zig, and cargo would build anew at each change of linker.
    let target = folders.cache.join("target-lambda");
    clones::claim(folders, &target)?;
    let path = tools::path_with([python.bin()])?;
    process::run(
        python
            .program(folders, "sam")
            // The builder for Rust is still named a beta feature.
            .args(["build", "--beta-features", "--template", "template.yaml", "--build-dir"])
            .arg(build_folder(folders))
            // Cargo's development profile: this run shows that everything builds, and link-time
            // optimisation of four programs would take longer than all tests.
            .env("SAM_BUILD_MODE", "debug")
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("PATH", path),
    )
}

/// What SAM would deploy.
fn build_folder(folders: &Folders) -> PathBuf {
    folders.cache.join("sam-build")
}
