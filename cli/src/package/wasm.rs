//! Components: which compiler makes their code, and how a module becomes one.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use wit_component::ComponentEncoder;

use crate::error::Error;

/// What components are compiled for: code without any system below it, so that a component
/// imports what the world offers and nothing else.
const TARGET: &str = "wasm32-unknown-unknown";

/// Names a compiler that has the target, where `rustc` has not.
const COMPILER_VARIABLE: &str = "MODUNEST_WASM_RUSTC";

/// A compiler that has the target.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// `None` for the one that cargo takes by itself.
    rustc: Option<PathBuf>,
}

/// Finds a compiler: the one that the environment names, else cargo's own, else the one that
/// this repository's own builds have made.
///
/// # Errors
/// When none has the target, with the ways out.
pub async fn compiler() -> Result<Compiler, Error> {
    if let Some(named) = std::env::var_os(COMPILER_VARIABLE).filter(|named| !named.is_empty()) {
        let rustc = PathBuf::from(named);
        return if has_target(&rustc).await {
            Ok(Compiler { rustc: Some(rustc) })
        } else {
            Err(Error::Input(format!(
                "{COMPILER_VARIABLE} names {}, which does not compile for {TARGET}; name one that does, or leave the variable out",
                rustc.display()
            )))
        };
    }
    let own = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if has_target(&own).await {
        return Ok(Compiler { rustc: None });
    }
    match made_here() {
        Some(rustc) if has_target(&rustc).await => Ok(Compiler { rustc: Some(rustc) }),
        _ => Err(Error::Input(format!(
            "no compiler for {TARGET} is here; run `rustup target add {TARGET}`, name one with {COMPILER_VARIABLE}=/path/to/rustc, or build the native library alone with --only native"
        ))),
    }
}

/// Where `cargo xtask` puts the toolchain that it makes for machines without rustup's target.
fn made_here() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|cache| cache.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let home = cache.join("modunest/wasm-toolchain");
    // The stamp is written last: without it the toolchain is half made.
    home.join(".stamp").is_file().then(|| home.join("bin/rustc"))
}

async fn has_target(rustc: &Path) -> bool {
    let folder = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .await;
    // A compiler that cannot be asked is none.
    let Some(folder) = folder.ok().filter(|folder| folder.status.success()) else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&folder.stdout).trim());
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

impl Compiler {
    /// Makes cargo compile for components.
    pub(super) fn apply(&self, cargo: &mut Command) {
        cargo
            .args(["--target", TARGET])
            // They are meant for this machine, and mostly choose its linker.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
        }
    }
}

/// Makes a component of a module, beside it.
///
/// # Errors
/// When the module is not one that `export_plugin!` made.
pub async fn component(module: PathBuf) -> Result<PathBuf, Error> {
    let encode = move || {
        let bytes = std::fs::read(&module).map_err(Error::file(&module))?;
        let encoded = ComponentEncoder::default()
            .validate(true)
            .module(&bytes)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| {
                Error::Input(format!(
                    "{} cannot be made a component: {error:#}; does the crate use export_plugin!, and nothing that needs an operating system?",
                    module.display()
                ))
            })?;
        let component = module.with_extension("component.wasm");
        std::fs::write(&component, encoded).map_err(Error::file(&component))?;
        Ok(component)
    };
    tokio::task::spawn_blocking(encode)
        .await
        .map_err(|error| Error::Failed(format!("making the component: {error}")))?
}
