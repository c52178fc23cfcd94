//! Plugins as a sync leaves them, without a registry: unpacked into a folder, and taken for
//! proven. And how they are loaded, tier by tier.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use modunest_agent::config::{HostSettings, Pattern};
use modunest_agent::host::{Call, Cell, Host, Plan, Prepared, Resources, State, load_all};
use modunest_agent::store::{Installed, Proven};
use modunest_core::archive::{FileList, FileRecord};
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use modunest_core::relation::{BuildTarget, COMPONENT_WORLD, NATIVE_ABI};
use modunest_core::scan::{COMPONENT_NAME, LIBRARY_NAME};
use modunest_core::statement::{Build, Link, Release, TrustLevel};
use modunest_sdk::abi::RequestKind;

use crate::error::Error;
use crate::folders;
use crate::host::plugins;

/// Where plugins run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Native code in the host's own process.
    InProcess,
    /// Native code in a process of its own.
    Process,
    /// Components in the host's own process.
    Component,
    /// Components in a process of their own.
    ComponentProcess,
}

impl Tier {
    /// All of them.
    pub const ALL: [Tier; 4] =
        [Tier::InProcess, Tier::Process, Tier::Component, Tier::ComponentProcess];

    /// The word on the command line and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Tier::InProcess => "in-process",
            Tier::Process => "process",
            Tier::Component => "component",
            Tier::ComponentProcess => "component-process",
        }
    }

    /// Whether components run there.
    pub fn has_components(self) -> bool {
        matches!(self, Tier::Component | Tier::ComponentProcess)
    }

    /// Whether plugins have processes of their own there.
    pub fn has_processes(self) -> bool {
        matches!(self, Tier::Process | Tier::ComponentProcess)
    }

    /// What an agent is told so that plugins run there. `state` is its folder.
    pub fn settings(self, state: &Path) -> Result<HostSettings, Error> {
        let mut settings = HostSettings::default();
        let all = vec![Pattern::Org(plugins::org()?)];
        match self {
            Tier::InProcess | Tier::Component => settings.in_process = all,
            Tier::Process => {}
            Tier::ComponentProcess => settings.component.runner = all,
        }
        if self.has_processes() {
            // What runs plugins is the agent, not this program with all that it measures.
            settings.process.runner = Some(folders::sibling("modunest-agent")?);
        }
        settings.component.cache = Some(state.join("compiled"));
        Ok(settings)
    }
}

/// A plugin's manifest without its `[build]`. `more` is appended.
pub fn manifest(name: &PluginName, more: &str) -> String {
    format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"A plugin that is measured\"\n\
         authors = [\"The Modu-Nest authors\"]\nlicense = \"MIT\"\n\n[host]\nabi = {NATIVE_ABI}\n{more}"
    )
}

/// A native plugin, unpacked below `folder`.
pub fn native(
    name: &PluginName,
    more: &str,
    library: &[u8],
    folder: &Path,
) -> Result<Prepared, Error> {
    let text = manifest(name, more) + "\n[build]\nnative = { library = \"plugin\" }\n";
    let target = BuildTarget::Native {
        target: modunest_agent::host::facts().target,
        libc: None,
        abi: NATIVE_ABI,
    };
    prepared(&text, target, (LIBRARY_NAME, library), folder)
}

/// A component, unpacked below `folder`.
pub fn component(
    name: &PluginName,
    more: &str,
    bytes: &[u8],
    folder: &Path,
) -> Result<Prepared, Error> {
    let build =
        format!("\n[build]\nwasm = {{ library = \"probe\", world = \"{COMPONENT_WORLD}\" }}\n");
    let text = manifest(name, more) + &build;
    let target = BuildTarget::Wasm { world: COMPONENT_WORLD };
    prepared(&text, target, (COMPONENT_NAME, bytes), folder)
}

fn prepared(
    text: &str,
    target: BuildTarget,
    (file, bytes): (&str, &[u8]),
    folder: &Path,
) -> Result<Prepared, Error> {
    let manifest = Manifest::parse(text).map_err(Error::wrong("a plugin's manifest"))?;
    // Where the store would have it.
    let unpacked = folder.join(manifest.name.to_string());
    let path = unpacked.join(file);
    if !path.exists() {
        let parent = path.parent().unwrap_or(&unpacked);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        std::fs::write(&path, bytes).map_err(Error::io(&path))?;
    }
    let digest = Digest::of(bytes);
    let files = FileList::new(vec![FileRecord {
        name: file.to_owned(),
        size_bytes: bytes.len() as u64,
        executable: file == LIBRARY_NAME,
        sha256: digest,
    }]);
    let build =
        Build { target, archive: digest, size_bytes: bytes.len() as u64, files: files.digest() };
    let manifest_digest = Digest::of(text.as_bytes());
    let release =
        Release::declared_by(&manifest, manifest_digest, Link::FIRST, vec![build.clone()]);
    let uses = manifest.dependencies.iter().map(|one| (one.plugin.clone(), one.optional)).collect();
    let proven = Proven {
        release: Arc::new(release),
        build,
        statement: digest,
        uses,
        yanked: false,
        trust: TrustLevel::Internal,
    };
    let installed = Installed { folder: unpacked, files, manifest: Arc::new(manifest) };
    Ok(Prepared { proven, installed: Ok(installed) })
}

/// Loads all of them. An error names one that is not ready.
pub fn load(prepared: Vec<Prepared>, settings: &HostSettings, state: &Path) -> Result<Host, Error> {
    let resources = Resources::new(state, settings.grants.outbound.clone());
    let plan = Plan::build(prepared, &BTreeMap::new(), settings, &resources, None);
    let host = load_all(plan, settings);
    for cell in host.cells() {
        let status = cell.status();
        if status.state != State::Ready {
            let (name, state) = (cell.name(), status.state.as_str());
            let why = format!("{name} is {state}: {}", status.reason.unwrap_or_default());
            return Err(Error::Wrong { what: "a loaded plugin", why });
        }
    }
    Ok(host)
}

/// A plugin of a host.
pub fn cell<'h>(host: &'h Host, name: &PluginName) -> Result<&'h Arc<Cell>, Error> {
    let missing = || Error::Wrong { what: "a plugin", why: format!("{name} is gone") };
    host.cell(name).ok_or_else(missing)
}

/// A call of a service, as the host itself makes it.
pub fn call<'a>(service: &'a str, payload: &'a [u8]) -> Call<'a> {
    let kind = RequestKind::Service;
    Call { kind, target: service, payload, trace: "", caller: "", deadline_ms: 0 }
}
