//! The scanner: what a plugin's library is, before anything loads it.
//!
//! Of a native build it reads an ELF shared object the way the dynamic loader will, through program headers
//! and the dynamic segment. Section headers are ignored: the loader never looks at them, so
//! they may say anything. Reading is pure, copies nothing, and is bounded by
//! [`LIBRARY_MAX_BYTES`] and by limits on segments, symbols and versions.
//!
//! An outcome has four values. [`Outcome::CouldNotRun`] never passes: a check that cannot
//! decide rejects. Imports only inform (a library can always make system calls by itself);
//! what a plugin may do is enforced by the host.
//!
//! Of a wasm build it reads a component. Its imports are all that it can reach, so they must be
//! those of the world that it declares.
//!
//! Out of scope: disassembly.

mod component;
mod elf;
mod groups;

#[cfg(test)]
mod component_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::relation::{BuildTarget, LibcFloor, TargetTriple};

pub use component::{COMPONENT_MAX_BYTES, MEMORY_INITIAL_MAX_BYTES, Unfit};
pub use elf::Malformed;
pub use groups::{IMPORTS_SHOWN_MAX, ImportGroup};

/// The one function that a native plugin exports: it returns the table of ABI version 1.
/// `modunest-sdk` defines it.
pub const ENTRY_SYMBOL: &str = "modunest_plugin_v1";

/// Name of the library in a native build's archive.
pub const LIBRARY_NAME: &str = "lib/plugin.so";

/// Name of the component in a wasm build's archive.
pub const COMPONENT_NAME: &str = "lib/plugin.wasm";

/// Name of the file in a build's archive that is loaded.
pub fn library_name(target: &BuildTarget) -> &'static str {
    match target {
        BuildTarget::Native { .. } => LIBRARY_NAME,
        BuildTarget::Wasm { .. } => COMPONENT_NAME,
    }
}

/// Counts changes of the rules: a verdict belongs to an artifact's digest and this number.
pub const RULESET: u32 = 2;

/// Largest library: as much as an archive may unpack to.
pub const LIBRARY_MAX_BYTES: usize = crate::archive::UNPACKED_MAX_BYTES as usize;

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing to say.
    Clean,
    /// Passes, with things an operator may want to know.
    Findings(Vec<Finding>),
    /// Must not be published or loaded.
    Rejected(Rejection),
    /// No verdict. Counts as rejected.
    CouldNotRun(Obstacle),
}

impl Outcome {
    /// Whether the library may go on.
    pub fn passes(&self) -> bool {
        matches!(self, Outcome::Clean | Outcome::Findings(_))
    }
}

/// Something that informs or warns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// The stack would be executable.
    #[error("asks for an executable stack")]
    ExecutableStack,
    /// A segment is writable and executable.
    #[error("has memory that is writable and executable")]
    WritableCode,
    /// Code is changed while loading.
    #[error("has relocations in its code")]
    TextRelocations,
    /// Tables of pointers stay writable.
    #[error("is linked without RELRO; link with -z relro -z now")]
    NoRelro,
    /// RELRO without immediate binding.
    #[error("is linked with lazy binding; link with -z now")]
    LazyBinding,
    /// The loader is told to search other folders.
    #[error("tells the loader to look for libraries in {path:?}")]
    SearchPath {
        /// The search path, shortened.
        path: String,
    },
    /// Needs a library that is not part of the C library.
    #[error("needs the library {name:?}, which every host must then have")]
    ForeignLibrary {
        /// File name, shortened.
        name: String,
    },
    /// Imports functions of a group.
    #[error("imports functions for {group}: {}", .names.join(", "))]
    Imports {
        /// The group.
        group: ImportGroup,
        /// Names, sorted, at most [`IMPORTS_SHOWN_MAX`].
        names: Vec<String>,
    },
}

/// Why a library is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Rejection {
    /// Not an ELF shared object, or one that the loader would read in more than one way.
    #[error("the library is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Built for another processor.
    #[error("the library is for ELF machine {found}, but {target} is machine {expected}")]
    Machine {
        /// `e_machine` of the library.
        found: u16,
        /// `e_machine` of the target.
        expected: u16,
        /// The declared target.
        target: TargetTriple,
    },
    /// Does not export the entry function.
    #[error(
        "the library does not export the function {ENTRY_SYMBOL}; use export_plugin! once in the plugin's crate"
    )]
    NoEntry,
    /// Needs a later C library than declared.
    #[error("the library needs glibc {needed}, but declares {}", .declared.map_or("none".to_owned(), |floor| floor.to_string()))]
    Libc {
        /// Highest version among its imports.
        needed: LibcFloor,
        /// The declared floor.
        declared: Option<LibcFloor>,
    },
    /// Needs symbols that belong to one exact build of the C library.
    #[error("the library needs {version:?} of the C library, which no floor can promise")]
    PrivateLibc {
        /// Version name, shortened.
        version: String,
    },
    /// Names a library by path.
    #[error("the library loads {name:?} by its path")]
    LibraryPath {
        /// The path, shortened.
        name: String,
    },
    /// Not a component that hosts can run.
    #[error("the component cannot be run: {0}")]
    Component(#[from] Unfit),
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "obstacle", rename_all = "kebab-case")]
pub enum Obstacle {
    /// No rules for this kind of build.
    #[error("there is no scanner for {target}")]
    UnknownTarget {
        /// The declared target.
        target: String,
    },
    /// Larger than the scanner's limit.
    #[error("the library has {size_bytes} bytes; the scanner reads at most {LIBRARY_MAX_BYTES}")]
    TooLarge {
        /// Size of the library in bytes.
        size_bytes: usize,
    },
    /// A component that is larger than hosts compile.
    #[error("the component has {size_bytes} bytes; at most {COMPONENT_MAX_BYTES} are compiled")]
    ComponentTooLarge {
        /// Size of the component in bytes.
        size_bytes: usize,
    },
    /// More symbols, versions or segments than the scanner's limit.
    #[error("the library has too many {what} to scan")]
    TooMany {
        /// What there is too much of.
        what: String,
    },
}

/// Why a library could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// It is refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// There is no verdict.
    #[error(transparent)]
    CouldNotRun(#[from] Obstacle),
}

impl From<Malformed> for ScanError {
    fn from(error: Malformed) -> Self {
        ScanError::Rejected(error.into())
    }
}

impl From<Unfit> for ScanError {
    fn from(error: Unfit) -> Self {
        ScanError::Rejected(error.into())
    }
}

/// Scans the library of a build, native or component, against what the build declares.
pub fn scan_library(bytes: &[u8], declared: &BuildTarget) -> Outcome {
    match findings(bytes, declared) {
        Ok(findings) if findings.is_empty() => Outcome::Clean,
        Ok(findings) => Outcome::Findings(findings),
        Err(ScanError::Rejected(reason)) => Outcome::Rejected(reason),
        Err(ScanError::CouldNotRun(obstacle)) => Outcome::CouldNotRun(obstacle),
    }
}

/// The highest glibc version that the library needs, for `modunest pack` to declare; `None`
/// when it needs no versioned symbol of glibc. A version that is only weakly needed does not
/// count, because the loader does without.
///
/// # Errors
/// The library is malformed, or needs a version that no floor can promise.
pub fn glibc_floor(bytes: &[u8]) -> Result<Option<LibcFloor>, ScanError> {
    floor_of(&elf::Library::read(bytes)?)
}

fn findings(bytes: &[u8], declared: &BuildTarget) -> Result<Vec<Finding>, ScanError> {
    let (target, libc) = match declared {
        BuildTarget::Native { target, libc, .. } => (target, libc),
        BuildTarget::Wasm { world } => return component::findings(bytes, world),
    };
    let expected =
        machine(target).ok_or_else(|| Obstacle::UnknownTarget { target: target.to_string() })?;
    let library = elf::Library::read(bytes)?;
    if library.machine != expected {
        let target = target.clone();
        return Err(Rejection::Machine { found: library.machine, expected, target }.into());
    }
    if !library.exports_function(ENTRY_SYMBOL)? {
        return Err(Rejection::NoEntry.into());
    }
    if let Some(needed) = floor_of(&library)?
        && libc.is_none_or(|declared| declared < needed)
    {
        return Err(Rejection::Libc { needed, declared: *libc }.into());
    }
    let mut findings = hardening(&library);
    for path in library.search_paths()? {
        findings.push(Finding::SearchPath { path: shown(path) });
    }
    for name in library.needed()? {
        if name.contains(&b'/') {
            return Err(Rejection::LibraryPath { name: shown(name) }.into());
        }
        if !groups::is_system_library(name) {
            findings.push(Finding::ForeignLibrary { name: shown(name) });
        }
    }
    let imports: BTreeSet<&[u8]> = library.imports()?.into_iter().collect();
    findings.extend(groups::of_imports(&imports));
    Ok(findings)
}

fn hardening(library: &elf::Library<'_>) -> Vec<Finding> {
    [
        (!library.stack_not_executable, Finding::ExecutableStack),
        (library.writable_code, Finding::WritableCode),
        (library.text_relocations, Finding::TextRelocations),
        (!library.relro, Finding::NoRelro),
        (library.relro && !library.bind_now, Finding::LazyBinding),
    ]
    .into_iter()
    .filter_map(|(found, finding)| found.then_some(finding))
    .collect()
}

/// ELF machine number of a Linux target; `None` when the scanner has no rules for it.
fn machine(target: &TargetTriple) -> Option<u16> {
    let mut words = target.as_str().split('-');
    let processor = words.next()?;
    if !words.any(|word| word == "linux") {
        return None;
    }
    match processor {
        "x86_64" => Some(object::elf::EM_X86_64),
        "aarch64" => Some(object::elf::EM_AARCH64),
        "riscv64gc" => Some(object::elf::EM_RISCV),
        _ => None,
    }
}

fn floor_of(library: &elf::Library<'_>) -> Result<Option<LibcFloor>, ScanError> {
    let mut floor = None;
    for name in library.versions_needed()? {
        let Some(version) = name.strip_prefix(b"GLIBC_") else { continue };
        let private = || Rejection::PrivateLibc { version: shown(name) };
        let needed = match version {
            // A marker that glibc 2.36 introduced with DT_RELR, not a set of symbols.
            b"ABI_DT_RELR" => LibcFloor { major: 2, minor: 36 },
            _ => glibc_version(version).ok_or_else(private)?,
        };
        floor = floor.max(Some(needed));
    }
    Ok(floor)
}

/// `2.34`, or `2.2.5`, whose last part no host of today lacks.
fn glibc_version(version: &[u8]) -> Option<LibcFloor> {
    let text = std::str::from_utf8(version).ok()?;
    let mut parts = text.splitn(3, '.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    patch.parse::<u16>().ok()?;
    format!("{major}.{minor}").parse().ok()
}

/// Longest text of a library that is repeated in a report, in bytes.
const SHOWN_MAX_BYTES: usize = 120;

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(SHOWN_MAX_BYTES)]).into_owned()
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a promise is broken: that is a bug in the scanner.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8], declared: &BuildTarget) {
    let outcome = scan_library(bytes, declared);
    assert_eq!(outcome, scan_library(bytes, declared));
    if outcome.passes()
        && let BuildTarget::Native { libc, .. } = declared
    {
        assert!(glibc_floor(bytes).is_ok_and(|floor| floor <= *libc));
    }
    if let Outcome::Findings(findings) = outcome {
        assert!(!findings.is_empty());
    }
}
