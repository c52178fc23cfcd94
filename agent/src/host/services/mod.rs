//! Services between plugins: who may call what, by which handle, and what may be said.
//!
//! A plugin calls what its manifest imports, from a plugin that it depends on. The contract's
//! version is held against the import before anything is loaded ([`super::links`]) and again
//! with each call, because an optional dependency may have another. A handle is a random
//! number of one plugin for one import; it is looked up among that plugin's own, so it is
//! worth nothing to any other. A call by name looks up the same import.

mod call;
mod schema;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modunest_core::manifest::Manifest;
use modunest_core::name::ServiceName;
use modunest_sdk::links::HANDLE_BYTES;
use serde::{Deserialize, Serialize};

use crate::store::Installed;

pub(super) use schema::Schema;

/// The services of one plugin: those that it exports and those that it imports.
#[derive(Default)]
pub(super) struct Services {
    contracts: OnceLock<BTreeMap<ServiceName, Contract>>,
    /// In the order of the manifest's imports.
    imports: Vec<ImportState>,
    /// Calls of its exports that broke a schema, a rule or a guard.
    refused: AtomicU64,
}

/// What is said over a service.
#[derive(Default)]
struct Contract {
    request: Option<Schema>,
    response: Option<Schema>,
}

#[derive(Default)]
struct ImportState {
    handle: OnceLock<[u8; HANDLE_BYTES]>,
    warned: AtomicBool,
}

/// The compiled schemas of a plugin's services, by name.
#[derive(Default)]
pub(super) struct Contracts(BTreeMap<ServiceName, Contract>);

impl Contracts {
    /// Reads and compiles the schemas that a manifest's services name.
    ///
    /// # Errors
    /// Every one that cannot be used.
    pub(super) fn read(installed: &Installed) -> Result<Contracts, Vec<String>> {
        let (mut contracts, mut unusable) = (BTreeMap::new(), Vec::new());
        for service in &installed.manifest.services {
            let mut read = |name: &Option<String>| {
                let name = name.as_deref()?;
                let schema = Schema::read(&installed.folder, name, installed.file(name));
                schema.map_err(|why| unusable.push(why)).ok()
            };
            let contract =
                Contract { request: read(&service.request), response: read(&service.response) };
            contracts.insert(service.export.name.clone(), contract);
        }
        if unusable.is_empty() { Ok(Contracts(contracts)) } else { Err(unusable) }
    }
}

impl Services {
    pub(super) fn new(manifest: &Manifest) -> Self {
        let imports = manifest.imports.iter().map(|_| ImportState::default()).collect();
        Services { imports, ..Services::default() }
    }

    /// Takes in the schemas, once, before the first call.
    pub(super) fn adopt(&self, contracts: Contracts) {
        // A cell is made with its schemas, so there are none yet.
        drop(self.contracts.set(contracts.0));
    }

    /// Calls of its exports that broke a schema, a rule or a guard.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn contract(&self, service: &ServiceName) -> Option<&Contract> {
        self.contracts.get()?.get(service)
    }
}

/// An import, as status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportStatus {
    /// `org/plugin:service`.
    pub service: String,
    /// Version of its contract; absent where the plugin or the service is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What its plugin says callers should use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
}
