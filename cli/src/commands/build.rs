//! `modunest build`, `check` and `pack`: from source to the archive, without a registry.

use std::path::{Path, PathBuf};

use modunest_core::digest::Digest;
use modunest_core::statement::Build;
use serde::Serialize;

use super::Context;
use crate::error::Error;
use crate::output;
use crate::package::{self, Package, Source};

#[derive(Serialize)]
struct BuiltShown {
    plugin: String,
    version: String,
    target: String,
    library: PathBuf,
    size_bytes: u64,
}

/// `modunest build`.
///
/// # Errors
/// Why it failed.
pub async fn build(context: &Context, folder: &Path) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let built = package::build(&source, &context.output).await?;
    let size_bytes = std::fs::metadata(&built.library).map_err(Error::file(&built.library))?.len();
    let shown = BuiltShown {
        plugin: source.manifest.name.to_string(),
        version: source.manifest.version.to_string(),
        target: built.target,
        library: built.library,
        size_bytes,
    };
    context.output.print(&shown, |b| {
        format!(
            "{} {} for {}: {} ({})",
            b.plugin,
            b.version,
            b.target,
            b.library.display(),
            output::size(b.size_bytes)
        )
    })
}

#[derive(Serialize)]
struct Packed {
    plugin: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    manifest: Digest,
    build: Build,
    files: usize,
    findings: Vec<String>,
}

impl Packed {
    fn new(source: &Source, package: Package, file: Option<PathBuf>) -> Self {
        Packed {
            plugin: source.manifest.name.to_string(),
            version: source.manifest.version.to_string(),
            file,
            manifest: Digest::of(&source.manifest_bytes),
            build: package.build,
            files: package.files,
            findings: package.findings,
        }
    }

    fn text(&self) -> String {
        let mut text =
            format!("{} {} passes every check that the registry makes", self.plugin, self.version);
        if let Some(file) = &self.file {
            text = format!("{} {}: {}", self.plugin, self.version, file.display());
        }
        text.push_str(&format!(
            "\n  target   {}\n  archive  {}, {} files, sha256 {}\n  manifest sha256 {}",
            self.build.target,
            output::size(self.build.size_bytes),
            self.files,
            self.build.archive,
            self.manifest
        ));
        for finding in &self.findings {
            text.push_str(&format!("\n  note     {finding}"));
        }
        text
    }
}

/// `modunest check`: builds, packs and checks, and leaves nothing behind.
///
/// # Errors
/// The first rule that is broken; for the manifest, all of them.
pub async fn check(context: &Context, folder: &Path) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let built = package::build(&source, &context.output).await?;
    let package = package::pack(&source, &built)?;
    context.output.print(&Packed::new(&source, package, None), Packed::text)
}

/// `modunest pack`.
///
/// # Errors
/// Why it failed.
pub async fn pack(context: &Context, folder: &Path, out: Option<PathBuf>) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let built = package::build(&source, &context.output).await?;
    let package = package::pack(&source, &built)?;
    let name = &source.manifest.name;
    let file = out.unwrap_or_else(|| {
        PathBuf::from(format!(
            "{}-{}-{}-{}.zip",
            name.org(),
            name.short(),
            source.manifest.version,
            built.target
        ))
    });
    std::fs::write(&file, &package.bytes).map_err(Error::file(&file))?;
    context.output.print(&Packed::new(&source, package, Some(file)), Packed::text)
}
