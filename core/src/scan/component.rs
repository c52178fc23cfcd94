//! A WebAssembly component as the component host sees it: its imports and exports against the
//! world that it is made for, and what it asks for before anything of it runs.
//!
//! Formats: the WebAssembly core specification 2.0 and the component model's binary format.
//! Validation is `wasmparser`'s, with the features that the host's engine has switched on.

use std::collections::BTreeSet;

use semver::Version;
use serde::{Deserialize, Serialize};
use wasmparser::component_types::{ComponentEntityType, ComponentInstanceTypeId};
use wasmparser::types::TypesRef;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::{Finding, ImportGroup, Obstacle, ScanError, shown};
use crate::relation::COMPONENT_WORLD;

/// Largest component, in bytes: what the host compiles in seconds. A Markdown renderer with its
/// sanitiser has 1.4 MB.
pub const COMPONENT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most memory that a component may ask for before it runs, in bytes: the static data of a
/// large program. It may grow from there, within the host's limit.
pub const MEMORY_INITIAL_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most memories of all modules together: a component that is made of four others.
const MEMORIES_MAX: u64 = 4;
/// Most table entries before anything runs: a function pointer for every function of a large
/// program.
const TABLE_ENTRIES_MAX: u64 = 100_000;
/// Most core modules. The encoder makes three of one.
const MODULES_MAX: u64 = 32;
/// Most functions of all modules together; the Markdown renderer has 2,000.
const FUNCTIONS_MAX: u64 = 100_000;
/// Longest body of one function, in bytes. Compilers need more than linear time for one.
const FUNCTION_MAX_BYTES: usize = 512 * 1024;
/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 64 * 1024;

/// How every module and every component begins.
const MAGIC: &[u8] = b"\0asm";
/// Package of the world's interfaces.
const PACKAGE: &str = "modunest:plugin/";
/// What a plugin must export, in the interface `instance`.
const EXPORTS: [&str; 6] = ["create", "call", "health", "snapshot", "restore", "stop"];
/// What a plugin may import from the interface `host`, and what that gives access to.
const IMPORTS: [(&str, Option<ImportGroup>); 7] = [
    ("log", None),
    ("now-ms", None),
    ("panicked", None),
    ("list-assets", None),
    ("read-asset", None),
    ("call-service", Some(ImportGroup::Services)),
    ("operate", Some(ImportGroup::Operations)),
];

/// How a component is not what the host can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// Not valid, or with features that no host has.
    #[error("it is no valid component: {text}")]
    Invalid {
        /// What the validator says, shortened.
        text: String,
    },
    /// A module that was not made a component.
    #[error("it is a core module and no component; `modunest build` makes a component of it")]
    Module,
    /// It has code that runs before the host calls it.
    #[error("it has a start function, which would run before the host calls `create`")]
    Start,
    /// It imports what the world does not offer.
    #[error("it imports {name:?}, which world {world} does not offer")]
    Import {
        /// Interface and function, shortened.
        name: String,
        /// The declared world.
        world: Version,
    },
    /// It does not export what the world asks for.
    #[error(
        "it does not export {name:?} of world {world}; use export_plugin! once in the plugin's crate"
    )]
    NoExport {
        /// What is missing.
        name: String,
        /// The declared world.
        world: Version,
    },
    /// It asks for too much memory before it runs.
    #[error(
        "it asks for {asked_bytes} bytes of memory before it runs; at most {MEMORY_INITIAL_MAX_BYTES} are given"
    )]
    Memory {
        /// Initial sizes of all memories.
        asked_bytes: u64,
    },
    /// It asks for too many memories.
    #[error("it has {asked} memories; at most {MEMORIES_MAX} are given")]
    Memories {
        /// How many.
        asked: u64,
    },
    /// It asks for too many table entries before it runs.
    #[error(
        "it asks for {asked} table entries before it runs; at most {TABLE_ENTRIES_MAX} are given"
    )]
    Tables {
        /// Initial sizes of all tables.
        asked: u64,
    },
    /// One of its functions is too long to compile.
    #[error("it has a function of {size_bytes} bytes; at most {FUNCTION_MAX_BYTES} are compiled")]
    Function {
        /// Size of its body.
        size_bytes: usize,
    },
}

impl Unfit {
    fn invalid(error: impl std::fmt::Display) -> Self {
        Unfit::Invalid { text: shown(error.to_string().as_bytes()) }
    }
}

/// Features of the components that hosts run: WebAssembly 2.0, and what Rust compiles to. No
/// threads, no 64-bit memories, nothing asynchronous.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

/// Findings of a component that declares this world.
pub(super) fn findings(bytes: &[u8], world: &Version) -> Result<Vec<Finding>, ScanError> {
    if world.major != COMPONENT_WORLD.major || *world > COMPONENT_WORLD {
        return Err(Obstacle::UnknownTarget { target: format!("wasm, world {world}") }.into());
    }
    if bytes.len() > COMPONENT_MAX_BYTES {
        return Err(Obstacle::ComponentTooLarge { size_bytes: bytes.len() }.into());
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Unfit::invalid("it does not begin as WebAssembly does").into());
    }
    check_parts(bytes)?;
    let types =
        Validator::new_with_features(features()).validate_all(bytes).map_err(Unfit::invalid)?;
    let names = top_level_names(bytes)?;
    let types = types.as_ref();
    check_exports(types, &names, world)?;
    groups(types, &names, world)
}

/// What is asked for before anything runs, module by module.
fn check_parts(bytes: &[u8]) -> Result<(), ScanError> {
    let (mut pages, mut memories, mut entries) = (0u64, 0u64, 0u64);
    let (mut modules, mut functions) = (0u64, 0u64);
    for (at, payload) in Parser::new(0).parse_all(bytes).enumerate() {
        match payload.map_err(Unfit::invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if at == 0 => {
                return Err(Unfit::Module.into());
            }
            Payload::ModuleSection { .. } => modules += 1,
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => {
                return Err(Unfit::Start.into());
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    memories += 1;
                    pages = pages.saturating_add(memory.map_err(Unfit::invalid)?.initial);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    let initial = table.map_err(Unfit::invalid)?.ty.initial;
                    entries = entries.saturating_add(initial);
                }
            }
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                let size_bytes = body.as_bytes().len();
                if size_bytes > FUNCTION_MAX_BYTES {
                    return Err(Unfit::Function { size_bytes }.into());
                }
            }
            _ => {}
        }
    }
    let asked_bytes = pages.saturating_mul(PAGE_BYTES);
    if asked_bytes > MEMORY_INITIAL_MAX_BYTES {
        return Err(Unfit::Memory { asked_bytes }.into());
    }
    if memories > MEMORIES_MAX {
        return Err(Unfit::Memories { asked: memories }.into());
    }
    if entries > TABLE_ENTRIES_MAX {
        return Err(Unfit::Tables { asked: entries }.into());
    }
    for (number, limit, what) in
        [(modules, MODULES_MAX, "modules"), (functions, FUNCTIONS_MAX, "functions")]
    {
        if number > limit {
            return Err(Obstacle::TooMany { what: what.to_owned() }.into());
        }
    }
    Ok(())
}

/// Names of what the component itself imports and exports.
#[derive(Default)]
struct Names<'d> {
    imports: Vec<&'d str>,
    exports: Vec<&'d str>,
}

fn top_level_names(bytes: &[u8]) -> Result<Names<'_>, Unfit> {
    let mut names = Names::default();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(Unfit::invalid)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    names.imports.push(import.map_err(Unfit::invalid)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    names.exports.push(export.map_err(Unfit::invalid)?.name.name);
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// The interface of our package that a name means, if a host of this world has it.
fn interface<'n>(name: &'n str, world: &Version) -> Option<&'n str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    let version: Version = version.parse().ok()?;
    (version.major == world.major && version <= *world).then_some(interface)
}

fn instance(
    item: Option<&wasmparser::component_types::ComponentItem>,
) -> Option<ComponentInstanceTypeId> {
    match item?.ty {
        ComponentEntityType::Instance(id) => Some(id),
        _ => None,
    }
}

fn check_exports(types: TypesRef<'_>, names: &Names<'_>, world: &Version) -> Result<(), Unfit> {
    let missing =
        |name: &str| Unfit::NoExport { name: format!("{PACKAGE}{name}"), world: world.clone() };
    let exported = names
        .exports
        .iter()
        .find(|name| interface(name, world) == Some("instance"))
        .and_then(|name| instance(types.component_item_for_export(name)))
        .ok_or_else(|| missing("instance"))?;
    let exports = &types[exported].exports;
    for name in EXPORTS {
        let function = exports.get(name);
        if !function.is_some_and(|item| matches!(item.ty, ComponentEntityType::Func(_))) {
            return Err(missing(&format!("instance#{name}")));
        }
    }
    Ok(())
}

/// Checks the imports, and groups those that inform.
fn groups(
    types: TypesRef<'_>,
    names: &Names<'_>,
    world: &Version,
) -> Result<Vec<Finding>, ScanError> {
    let unknown =
        |name: String| Unfit::Import { name: shown(name.as_bytes()), world: world.clone() };
    let mut found: BTreeSet<(ImportGroup, &str)> = BTreeSet::new();
    for name in &names.imports {
        let imported = instance(types.component_item_for_import(name));
        let (Some(interface), Some(imported)) = (interface(name, world), imported) else {
            return Err(unknown((*name).to_owned()).into());
        };
        for (function, item) in &types[imported].exports {
            match item.ty {
                ComponentEntityType::Type { .. } if matches!(interface, "host" | "types") => {}
                ComponentEntityType::Func(_) if interface == "host" => {
                    let known = IMPORTS.iter().find(|(known, _)| known == function);
                    let (known, group) =
                        known.ok_or_else(|| unknown(format!("{name}#{function}")))?;
                    found.extend(group.map(|group| (group, *known)));
                }
                _ => return Err(unknown(format!("{name}#{function}")).into()),
            }
        }
    }
    let mut findings: Vec<Finding> = Vec::new();
    for (group, name) in found {
        match findings.last_mut() {
            Some(Finding::Imports { group: last, names }) if *last == group => {
                names.push(name.to_owned());
            }
            _ => findings.push(Finding::Imports { group, names: vec![name.to_owned()] }),
        }
    }
    Ok(findings)
}
