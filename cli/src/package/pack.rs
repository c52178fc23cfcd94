//! Packing: the manifest, the library and what the manifest names, in one archive a build.

use std::fs;
use std::path::{Path, PathBuf};

use modunest_core::archive::{self, Archive, MANIFEST_NAME, PackFile};
use modunest_core::digest::Digest;
use modunest_core::relation::{BuildTarget, NATIVE_ABI};
use modunest_core::scan::{self, Outcome, library_name};
use modunest_core::statement::{Build, Link, Release};

use super::build::Target;
use super::{Built, Source};
use crate::error::Error;

/// Files that are packed when they are there, whatever the manifest says.
const LICENCES: [&str; 5] = ["LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE.md", "COPYING"];

/// An archive that passed every check that the registry makes.
#[derive(Clone, Debug)]
pub struct Archived {
    /// The archive.
    pub bytes: Vec<u8>,
    /// What a release statement says of it.
    pub build: Build,
    /// Files in it.
    pub files: usize,
    /// What the scan noticed without rejecting.
    pub findings: Vec<String>,
}

/// What is published: an archive for each build, at least one.
#[derive(Clone, Debug)]
pub struct Package {
    /// The first archive.
    pub first: Archived,
    /// The others, in the order of the release statement.
    pub others: Vec<Archived>,
}

impl Package {
    /// Every archive, in the order of the release statement.
    pub fn archives(&self) -> impl Iterator<Item = &Archived> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The release of `source` with these builds.
    pub fn release(&self, source: &Source, link: Link) -> Release {
        let digest = Digest::of(&source.manifest_bytes);
        let builds = self.archives().map(|archive| archive.build.clone()).collect();
        Release::declared_by(&source.manifest, digest, link, builds)
    }
}

/// Packs what was built.
///
/// # Errors
/// When a file is missing, or a check of the registry would fail.
pub fn pack(source: &Source, built: &[Built]) -> Result<Package, Error> {
    let mut archives = built.iter().map(|built| pack_one(source, built));
    let nothing = || Error::Failed("nothing was built, so nothing can be packed".to_owned());
    let first = archives.next().ok_or_else(nothing)??;
    let package = Package { first, others: archives.collect::<Result<_, _>>()? };
    // Also checks the statement's own rules, so that signing cannot fail later.
    let release = package.release(source, Link::FIRST);
    modunest_core::statement::Statement::Release(std::sync::Arc::new(release))
        .text()
        .map_err(|error| Error::Input(error.to_string()))?;
    Ok(package)
}

fn pack_one(source: &Source, built: &Built) -> Result<Archived, Error> {
    let manifest = &source.manifest;
    let library = fs::read(&built.library).map_err(Error::file(&built.library))?;
    let target = match &built.target {
        Target::Native(target) => BuildTarget::Native {
            target: target.parse().map_err(|error| Error::Failed(format!("{error}")))?,
            libc: scan::glibc_floor(&library)
                .map_err(|error| Error::Input(format!("{}: {error}", built.library.display())))?,
            abi: NATIVE_ABI,
        },
        Target::Wasm(world) => BuildTarget::Wasm { world: world.clone() },
    };
    let executable = matches!(target, BuildTarget::Native { .. });
    let mut files = vec![
        PackFile {
            name: MANIFEST_NAME.into(),
            content: source.manifest_bytes.clone(),
            executable: false,
        },
        PackFile { name: library_name(&target).into(), content: library, executable },
    ];
    for name in manifest.file_names() {
        add(&mut files, &source.folder, Path::new(name))?;
    }
    for name in LICENCES {
        if source.folder.join(name).is_file() {
            add(&mut files, &source.folder, Path::new(name))?;
        }
    }
    for name in &manifest.build.include {
        add(&mut files, &source.folder, Path::new(name))?;
    }
    let bytes = archive::pack(files).map_err(|error| Error::Input(error.to_string()))?;
    check(bytes, target)
}

/// Makes every check on an archive that the registry makes.
fn check(bytes: Vec<u8>, target: BuildTarget) -> Result<Archived, Error> {
    let name = library_name(&target);
    let refused = |error: archive::ArchiveError| Error::Input(format!("the archive: {error}"));
    let archive = Archive::open(&bytes).map_err(refused)?;
    let list = archive.file_list().map_err(refused)?;
    let entry =
        archive.entry(name).ok_or_else(|| Error::Input(format!("the archive has no {name}")))?;
    let library = archive.read(entry).map_err(refused)?;
    let findings = match scan::scan_library(&library, &target) {
        Outcome::Clean => Vec::new(),
        Outcome::Findings(findings) => findings.iter().map(ToString::to_string).collect(),
        Outcome::Rejected(reason) => {
            return Err(Error::Input(format!("{name} would be rejected: {reason}")));
        }
        Outcome::CouldNotRun(reason) => {
            return Err(Error::Input(format!("{name} could not be scanned: {reason}")));
        }
    };
    let build = Build {
        target,
        archive: Digest::of(&bytes),
        size_bytes: bytes.len() as u64,
        files: list.digest(),
    };
    Ok(Archived { files: list.files().len(), bytes, build, findings })
}

/// Adds a file, or every file below a folder in the order of their names.
fn add(files: &mut Vec<PackFile>, root: &Path, relative: &Path) -> Result<(), Error> {
    let path = root.join(relative);
    let metadata = fs::symlink_metadata(&path).map_err(|error| {
        Error::Input(format!(
            "{}: the manifest names it, and it cannot be read: {error}",
            path.display()
        ))
    })?;
    if metadata.is_dir() {
        let mut names: Vec<PathBuf> = fs::read_dir(&path)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|e| relative.join(e.file_name()))).collect()
            })
            .map_err(Error::file(&path))?;
        names.sort();
        for name in names {
            add(files, root, &name)?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(Error::Input(format!(
            "{}: only files and folders are packed, no links",
            path.display()
        )));
    }
    let name = relative
        .to_str()
        .ok_or_else(|| Error::Input(format!("{}: the name is not UTF-8", path.display())))?
        .to_owned();
    if files.iter().any(|file| file.name == name) {
        return Ok(());
    }
    let content = fs::read(&path).map_err(Error::file(&path))?;
    files.push(PackFile { name, content, executable: false });
    Ok(())
}
