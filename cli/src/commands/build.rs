//! `modunest build`, `check` and `pack`: from source to the archives, without a registry.

use std::path::{Path, PathBuf};

use modunest_core::digest::Digest;
use modunest_core::statement::Build;
use serde::Serialize;

use super::Context;
use crate::error::Error;
use crate::output;
use crate::package::{self, Archived, Package, Source, Which};

#[derive(Serialize)]
struct Shown {
    plugin: String,
    version: String,
    builds: Vec<BuiltShown>,
}

#[derive(Serialize)]
struct BuiltShown {
    target: String,
    library: PathBuf,
    size_bytes: u64,
}

/// `modunest build`.
///
/// # Errors
/// Why it failed.
pub async fn build(context: &Context, folder: &Path, which: Which) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let mut builds = Vec::new();
    for built in package::build(&source, which, &context.output).await? {
        let size_bytes =
            std::fs::metadata(&built.library).map_err(Error::file(&built.library))?.len();
        let (target, library) = (built.target.to_string(), built.library);
        builds.push(BuiltShown { target, library, size_bytes });
    }
    let plugin = source.manifest.name.to_string();
    let shown = Shown { plugin, version: source.manifest.version.to_string(), builds };
    context.output.print(&shown, |shown| {
        let line = |b: &BuiltShown| {
            let size = output::size(b.size_bytes);
            let library = b.library.display();
            format!("{} {} for {}: {library} ({size})", shown.plugin, shown.version, b.target)
        };
        shown.builds.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[derive(Serialize)]
struct Packed {
    plugin: String,
    version: String,
    manifest: Digest,
    archives: Vec<PackedArchive>,
}

#[derive(Serialize)]
struct PackedArchive {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    build: Build,
    files: usize,
    findings: Vec<String>,
}

impl Packed {
    /// `files` are where the archives were written, in their order; none where they were not.
    fn new(source: &Source, package: Package, files: Vec<PathBuf>) -> Self {
        let mut written = files.into_iter();
        let Package { first, others } = package;
        let archives = std::iter::once(first).chain(others).map(|archive| {
            let Archived { build, files, findings, .. } = archive;
            PackedArchive { file: written.next(), build, files, findings }
        });
        Packed {
            plugin: source.manifest.name.to_string(),
            version: source.manifest.version.to_string(),
            manifest: Digest::of(&source.manifest_bytes),
            archives: archives.collect(),
        }
    }

    fn text(&self) -> String {
        let written = self.archives.iter().any(|archive| archive.file.is_some());
        let mut text = if written {
            String::new()
        } else {
            let (plugin, version) = (&self.plugin, &self.version);
            format!("{plugin} {version} passes every check that the registry makes\n")
        };
        for archive in &self.archives {
            if let Some(file) = &archive.file {
                let (plugin, version) = (&self.plugin, &self.version);
                text.push_str(&format!("{plugin} {version}: {}\n", file.display()));
            }
            text.push_str(&format!(
                "  target   {}\n  archive  {}, {} files, sha256 {}\n",
                archive.build.target,
                output::size(archive.build.size_bytes),
                archive.files,
                archive.build.archive,
            ));
            for finding in &archive.findings {
                text.push_str(&format!("  note     {finding}\n"));
            }
        }
        text.push_str(&format!("  manifest sha256 {}", self.manifest));
        text
    }
}

/// `modunest check`: builds, packs and checks, and leaves nothing behind.
///
/// # Errors
/// The first rule that is broken; for the manifest, all of them.
pub async fn check(context: &Context, folder: &Path, which: Which) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let built = package::build(&source, which, &context.output).await?;
    let package = package::pack(&source, &built)?;
    context.output.print(&Packed::new(&source, package, Vec::new()), Packed::text)
}

/// `modunest pack`.
///
/// # Errors
/// Why it failed.
pub async fn pack(
    context: &Context,
    folder: &Path,
    out: Option<PathBuf>,
    which: Which,
) -> Result<(), Error> {
    let source = Source::open(folder)?;
    let built = package::build(&source, which, &context.output).await?;
    if out.is_some() && built.len() > 1 {
        return Err(Error::Usage(
            "--out names one file, and the manifest declares two builds; choose one with --only native or --only wasm".to_owned(),
        ));
    }
    let package = package::pack(&source, &built)?;
    let name = &source.manifest.name;
    let mut files = Vec::new();
    for (archive, built) in package.archives().zip(&built) {
        let file = out.clone().unwrap_or_else(|| {
            PathBuf::from(format!(
                "{}-{}-{}-{}.zip",
                name.org(),
                name.short(),
                source.manifest.version,
                built.target.file_name()
            ))
        });
        std::fs::write(&file, &archive.bytes).map_err(Error::file(&file))?;
        files.push(file);
    }
    context.output.print(&Packed::new(&source, package, files), Packed::text)
}
