//! Our side: the functions that an agent calls for what it has proven and unpacked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use modunest_agent::config::{HostSettings, Pattern};
use modunest_agent::host::{Call, Plan, Prepared, Resources, State, load_all};
use modunest_agent::store::{Installed, Proven};
use modunest_core::archive::{FileList, FileRecord};
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use modunest_core::relation::{BuildTarget, COMPONENT_WORLD};
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::{Build, Link, Release, TrustLevel};
use modunest_sdk::abi::RequestKind;

use super::{Measured, SERVICE, component, measure};
use crate::error::Error;

/// Loads, calls each once, and then the first again and again.
pub fn run(folder: &Path, state: &Path, count: usize) -> Result<Measured, Error> {
    let org = "bench".parse().map_err(Error::wrong("a name"))?;
    let mut settings =
        HostSettings { in_process: vec![Pattern::Org(org)], ..HostSettings::default() };
    settings.component.cache = Some(state.join("compiled"));
    let prepared =
        (0..count).map(|number| prepared(folder, state, number)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<PluginName> =
        prepared.iter().map(|one| one.proven.release.plugin.clone()).collect();
    let first = names.first().cloned();
    measure(
        count,
        || {
            let resources = Resources::new(state, settings.grants.outbound.clone());
            let plan = Plan::build(prepared, &BTreeMap::new(), &settings, &resources, None);
            let host = load_all(plan, &settings);
            for name in &names {
                let wrong = |why: String| Error::Wrong { what: "a loaded component", why };
                let cell = host.cell(name).ok_or_else(|| wrong(format!("{name} is missing")))?;
                let status = cell.status();
                if status.state != State::Ready {
                    return Err(wrong(format!("{name}: {:?}", status.reason)));
                }
                cell.call(call(b"x")).map_err(Error::wrong("a call"))?;
            }
            Ok(host)
        },
        |host, payload| {
            let cell = first.as_ref().and_then(|first| host.cell(first));
            let missing = || Error::Wrong { what: "a component", why: "it is gone".to_owned() };
            cell.ok_or_else(missing)?.call(call(payload)).map_err(Error::wrong("a call"))
        },
    )
}

fn call(payload: &[u8]) -> Call<'_> {
    Call {
        kind: RequestKind::Service,
        target: SERVICE,
        payload,
        trace: "",
        caller: "",
        deadline_ms: 0,
    }
}

/// A component as a sync leaves it.
fn prepared(folder: &Path, state: &Path, number: usize) -> Result<Prepared, Error> {
    let text = format!(
        "[plugin]\nname = \"bench/component-{number}\"\nversion = \"1.0.0\"\ndescription = \"One of many components\"\nauthors = [\"Bench\"]\nlicense = \"MIT\"\n[host]\nabi = 1\n[build]\nwasm = {{ library = \"probe\", world = \"{COMPONENT_WORLD}\" }}\n"
    );
    let manifest = Manifest::parse(&text).map_err(Error::wrong("the manifest"))?;
    let path = component(folder, number);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    // Where the store would have it.
    let unpacked = state.join(number.to_string());
    let library = unpacked.join(COMPONENT_NAME);
    if !library.exists() {
        let parent = library.parent().unwrap_or(&unpacked);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        std::fs::write(&library, &bytes).map_err(Error::io(&library))?;
    }
    let digest = Digest::of(&bytes);
    let files = FileList::new(vec![FileRecord {
        name: COMPONENT_NAME.to_owned(),
        size_bytes: bytes.len() as u64,
        executable: false,
        sha256: digest,
    }]);
    let target = BuildTarget::Wasm { world: COMPONENT_WORLD };
    let build =
        Build { target, archive: digest, size_bytes: bytes.len() as u64, files: files.digest() };
    let manifest_digest = Digest::of(text.as_bytes());
    let release =
        Release::declared_by(&manifest, manifest_digest, Link::FIRST, vec![build.clone()]);
    let proven = Proven {
        release: Arc::new(release),
        build,
        statement: digest,
        uses: BTreeMap::new(),
        yanked: false,
        trust: TrustLevel::Internal,
    };
    Ok(Prepared { proven, installed: Ok(Installed { folder: unpacked, files, manifest }) })
}
