//! What ties a plugin to others, in one place: services, guards, events; and the rules that
//! hold between two manifests, which are checked before anything is loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use modunest_core::manifest::{GuardUse, Import, Manifest, PluginItem};
use modunest_core::name::{PluginName, ServiceName};
use serde::{Deserialize, Serialize};

use super::events::{self, EventCounters, EventSchemas, Events};
use super::guards::GuardRefusal;
use super::services::{Contracts, ImportStatus, Services};
use super::{Cell, Host};
use crate::config::LinkSettings;
use crate::store::Installed;

/// What ties one plugin to others.
#[derive(Default)]
pub(super) struct Links {
    pub(super) services: Services,
    pub(super) events: Events,
    settings: ArcSwap<LinkSettings>,
    denied: AtomicU64,
    undecided: AtomicU64,
}

/// The compiled schemas of a plugin.
#[derive(Default)]
pub(super) struct Schemas {
    contracts: Contracts,
    events: EventSchemas,
}

impl Schemas {
    /// Reads and compiles every schema that a manifest names, but that of the configuration.
    ///
    /// # Errors
    /// Every one that cannot be used.
    pub(super) fn read(installed: &Installed) -> Result<Schemas, Vec<String>> {
        match (Contracts::read(installed), EventSchemas::read(installed)) {
            (Ok(contracts), Ok(events)) => Ok(Schemas { contracts, events }),
            (contracts, events) => {
                let (contracts, events) = (contracts.err(), events.err());
                Err(contracts.into_iter().chain(events).flatten().collect())
            }
        }
    }
}

impl Links {
    pub(super) fn new(manifest: &Manifest) -> Self {
        Links {
            services: Services::new(manifest),
            events: Events::new(manifest),
            ..Links::default()
        }
    }

    /// What the operator says now.
    pub(super) fn settings(&self) -> Guard<Arc<LinkSettings>> {
        self.settings.load()
    }

    pub(super) fn count_refusal(&self, refusal: &GuardRefusal) {
        let counter = match refusal {
            GuardRefusal::Denied { .. } => &self.denied,
            GuardRefusal::Undecided { .. } => &self.undecided,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ties a new cell in, before it is loaded: its schemas, and the mailbox of its predecessor.
pub(super) fn tie(
    cell: &Arc<Cell>,
    schemas: Schemas,
    old: Option<&Arc<Cell>>,
    settings: &Arc<LinkSettings>,
) {
    let links = cell.links();
    links.services.adopt(schemas.contracts);
    links.events.adopt(schemas.events);
    links.settings.store(settings.clone());
    events::open_mailbox(cell, old);
}

/// Connects the topics of a plan's new plugins with their receivers.
pub(super) fn connect_new(host: &Host) {
    events::connect(host, false);
}

impl Host {
    /// Lets the links of all its plugins, also of those that go on from before, be as this
    /// host and these settings have them. To be called when the host becomes the current one.
    pub fn connect(&self, settings: &LinkSettings) {
        let settings = Arc::new(settings.clone());
        for rule in &settings.guards {
            let owner = self.cell(&rule.guard.plugin).map(|cell| &cell.manifest().guards);
            let known = |guard: &modunest_core::manifest::Guard| {
                guard.exported && guard.name == rule.guard.item
            };
            if !owner.is_some_and(|guards| guards.iter().any(known)) {
                tracing::error!(guard = %rule.guard, "the configuration names a guard that no plugin here exports; what it stands before is denied");
            }
        }
        for cell in self.cells() {
            cell.links().settings.store(settings.clone());
        }
        events::connect(self, true);
    }
}

/// What a plugin's links came to, as status shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LinkStatus {
    /// Services that it calls.
    pub imports: Vec<ImportStatus>,
    /// Calls of its services that broke a schema, a rule of the operator or a guard.
    pub refused_calls: u64,
    /// Requests to its routes and services that a guard denied.
    pub denied: u64,
    /// Requests that were denied because a guard could not decide.
    pub undecided: u64,
    /// Its events.
    pub events: EventCounters,
}

impl Cell {
    /// What its links came to.
    pub fn link_status(&self) -> LinkStatus {
        let links = self.links();
        LinkStatus {
            imports: self.import_statuses(),
            refused_calls: links.services.refused(),
            denied: links.denied.load(Ordering::Relaxed),
            undecided: links.undecided.load(Ordering::Relaxed),
            events: links.events.counters(),
        }
    }
}

/// What a plan knows of another plugin.
pub(super) enum Other<'p> {
    /// It is among those to be loaded, with this manifest; whether this plugin needs it.
    There(&'p Manifest, bool),
    /// It is, but its manifest cannot be read; whoever needs it is blocked by that.
    Unreadable,
    /// It is not.
    Absent,
}

/// Every rule between a plugin and those that it depends on that is broken. What an
/// optional dependency does not offer, the plugin does without, but for a guard: a door whose
/// lock is missing stays shut.
pub(super) fn refusals<'p>(
    manifest: &Manifest,
    other: impl Fn(&PluginName) -> Other<'p>,
) -> Vec<String> {
    let imports = manifest.imports.iter().filter_map(|import| match other(&import.item.plugin) {
        Other::There(exporter, true) => import_refusal(import, exporter),
        Other::There(_, false) | Other::Unreadable | Other::Absent => None,
    });
    let guards = {
        let routes = manifest.routes.iter().map(|route| (&route.path, &route.guards));
        let routes = routes.map(|(path, guards)| (format!("route {path}"), guards));
        let services = manifest.services.iter();
        let services = services.map(|one| (format!("service {}", one.export.name), &one.guards));
        let uses = routes
            .chain(services)
            .flat_map(|(what, guards)| guards.iter().map(move |guard| (what.clone(), guard)));
        uses.filter_map(|(what, guard)| match guard {
            // The manifest's reader knows its own.
            GuardUse::Own(_) => None,
            GuardUse::Of(item) => guard_refusal(&what, item, &other(&item.plugin)),
        })
    };
    let events = {
        manifest.events.iter().filter_map(|event| {
            let from = event.from.as_ref()?;
            let Other::There(publisher, true) = other(from) else { return None };
            let own = |one: &&modunest_core::manifest::Event| one.from.is_none();
            let mut published = publisher.events.iter().filter(own).map(|one| &one.name);
            (!published.any(|name| *name == event.name)).then(|| {
                format!(
                    "it receives {from}:{}, which {} does not publish",
                    event.name,
                    spelt(publisher)
                )
            })
        })
    };
    imports.chain(guards).chain(events).collect()
}

fn import_refusal(import: &Import, exporter: &Manifest) -> Option<String> {
    let item = &import.item;
    let mut services = exporter.services.iter();
    let Some(service) = services.find(|service| service.export.name == item.item) else {
        return Some(format!("it imports {item}, which {} does not export", spelt(exporter)));
    };
    if let Some(needed) = &import.version
        && !needed.matches(&service.export.version)
    {
        return Some(format!(
            "it imports {item} in version {needed}, but {} has version {}",
            spelt(exporter),
            service.export.version
        ));
    }
    let unknown = |method: &&ServiceName| !service.methods.contains(method);
    let method = import.methods.iter().find(unknown)?;
    Some(format!(
        "it imports the method {method} of {item}, which {} does not have",
        spelt(exporter)
    ))
}

fn guard_refusal(what: &str, item: &PluginItem, other: &Other<'_>) -> Option<String> {
    match other {
        Other::There(owner, _) => {
            let exported = |name: &ServiceName| {
                owner.guards.iter().any(|guard| guard.name == *name && guard.exported)
            };
            (!exported(&item.item)).then(|| {
                format!("its {what} has the guard {item}, which {} does not export", spelt(owner))
            })
        }
        Other::Unreadable => None,
        Other::Absent => Some(format!("its {what} has the guard {item}, whose plugin is not here")),
    }
}

fn spelt(manifest: &Manifest) -> String {
    format!("{} {}", manifest.name, manifest.version)
}
