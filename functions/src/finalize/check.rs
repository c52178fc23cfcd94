//! The checks of one build. Pure: bytes and statement in, verdict out.

use bytes::Bytes;
use modunest_core::archive::{Archive, ArchiveError, MANIFEST_NAME};
use modunest_core::digest::Digest;
use modunest_core::manifest::{MANIFEST_MAX_BYTES, Manifest, ManifestError};
use modunest_core::problem::{Code, FieldProblem, Refusal};
use modunest_core::relation::BuildTarget;
use modunest_core::scan::{Outcome, library_name, scan_library};
use modunest_core::statement::{Build, Release};

/// Largest README that is made public beside the archive; a longer one stays in it.
const README_MAX_BYTES: u64 = 1024 * 1024;

/// What readers want without the archive.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) manifest: Bytes,
    pub(super) readme: Option<Bytes>,
}

fn of_archive(build: &Build, error: &ArchiveError) -> Refusal {
    let mut refusal =
        Refusal::new(Code::InvalidArchive, format!("the archive for {}: {error}", build.target));
    refusal.errors.push(FieldProblem { place: build.archive.to_hex(), rule: error.to_string() });
    refusal
}

fn of_manifest(error: &ManifestError) -> Refusal {
    let mut refusal = Refusal::new(
        Code::InvalidManifest,
        format!("{MANIFEST_NAME} breaks {} rules", error.problems().len()),
    );
    for problem in error.problems() {
        refusal.errors.push(FieldProblem {
            place: format!("{MANIFEST_NAME}:{}:{} {}", problem.line, problem.column, problem.key)
                .trim_end()
                .to_owned(),
            rule: format!("{}; {}", problem.rule, problem.help),
        });
    }
    if let [only] = error.problems() {
        refusal.detail =
            format!("{MANIFEST_NAME}:{}:{}: {}; {}", only.line, only.column, only.rule, only.help);
    }
    refusal
}

/// The archive gate, and whether the archive holds what the statement says.
pub(super) fn archive(release: &Release, index: usize, bytes: &[u8]) -> Result<Checked, Refusal> {
    let build = release.builds.get(index).ok_or_else(|| {
        Refusal::new(Code::InvalidStatement, format!("/builds/{index}: there is no such build"))
    })?;
    let archive = Archive::open(bytes).map_err(|error| of_archive(build, &error))?;
    let files = archive.file_list().map_err(|error| of_archive(build, &error))?;
    if files.digest() != build.files {
        return Err(Refusal::new(
            Code::DigestMismatch,
            format!(
                "/builds/{index}/files: the archive for {} holds files whose list has the digest {}, and {} was declared",
                build.target,
                files.digest(),
                build.files
            ),
        ));
    }
    let manifest = read_manifest(release, build, &archive)?;
    let parsed = Manifest::parse_bytes(&manifest).map_err(|error| of_manifest(&error))?;
    release
        .agrees_with(&parsed)
        .map_err(|error| Refusal::new(Code::InvalidManifest, error.to_string()))?;
    for name in parsed.file_names() {
        if archive.entry(name).is_none() {
            return Err(Refusal::new(
                Code::InvalidManifest,
                format!(
                    "{MANIFEST_NAME} names \"{name}\", and the archive for {} does not hold it",
                    build.target
                ),
            ));
        }
    }
    let readme = parsed.readme.as_deref().and_then(|name| archive.entry(name));
    let readme = match readme.filter(|entry| entry.size_bytes() <= README_MAX_BYTES) {
        Some(entry) => {
            Some(Bytes::from(archive.read(entry).map_err(|error| of_archive(build, &error))?))
        }
        None => None,
    };
    Ok(Checked { manifest: Bytes::from(manifest), readme })
}

fn read_manifest(
    release: &Release,
    build: &Build,
    archive: &Archive<'_>,
) -> Result<Vec<u8>, Refusal> {
    let entry = archive.entry(MANIFEST_NAME).ok_or_else(|| {
        Refusal::new(
            Code::InvalidManifest,
            format!("the archive for {} has no {MANIFEST_NAME} at its top", build.target),
        )
    })?;
    if entry.size_bytes() > MANIFEST_MAX_BYTES as u64 {
        return Err(Refusal::new(
            Code::InvalidManifest,
            format!(
                "{MANIFEST_NAME} has {} bytes; at most {MANIFEST_MAX_BYTES} are read",
                entry.size_bytes()
            ),
        ));
    }
    let bytes = archive.read(entry).map_err(|error| of_archive(build, &error))?;
    let found = Digest::of(&bytes);
    if found != release.manifest {
        return Err(Refusal::new(
            Code::InvalidManifest,
            format!(
                "{MANIFEST_NAME} in the archive for {} has the SHA-256 {found}, and the statement names {}",
                build.target, release.manifest
            ),
        ));
    }
    Ok(bytes)
}

/// Scans the library of a build, native or component.
pub(super) fn scan(target: &BuildTarget, bytes: &[u8]) -> Result<Outcome, Refusal> {
    let name = library_name(target);
    let missing =
        || Refusal::new(Code::InvalidArchive, format!("the archive for {target} has no {name}"));
    let invalid = |error: ArchiveError| {
        Refusal::new(Code::InvalidArchive, format!("the archive for {target}: {error}"))
    };
    let archive = Archive::open(bytes).map_err(invalid)?;
    let entry = archive.entry(name).ok_or_else(missing)?;
    let library = archive.read(entry).map_err(invalid)?;
    Ok(scan_library(&library, target))
}
