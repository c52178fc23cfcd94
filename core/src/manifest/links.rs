//! What ties plugins to one another: services and their imports, guards, and events.

use std::collections::BTreeSet;

use semver::VersionReq;
use serde::Serialize;

use super::PluginItem;
use super::read::{Item, Table};
use super::text::{DEPRECATED_MAX_CHARS, line};
use super::values::{
    ITEM_HELP, NAME_HELP, PATH_HELP, VERSION_HELP, dependency, not_a_dependency, packed_path,
    requirement, unique_names, version,
};
use crate::name::{PluginName, ServiceName};
use crate::relation::ServiceExport;

/// Events that wait for one receiver where its manifest does not say how many.
pub const QUEUE_DEFAULT: usize = 64;
/// Most events that may wait for one receiver: with payloads of 256 KiB, a quarter GiB.
pub const QUEUE_MAX: usize = 1024;

/// A service that a plugin exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// What a release statement repeats.
    #[serde(flatten)]
    pub export: ServiceExport,
    /// Its methods; where there are any, a call names one, as `service/method`.
    pub methods: Vec<ServiceName>,
    /// JSON Schema of its requests, a file within the archive.
    pub request: Option<String>,
    /// JSON Schema of its answers, a file within the archive.
    pub response: Option<String>,
    /// Guards that must all allow a call, in order.
    pub guards: Vec<GuardUse>,
}

impl From<ServiceExport> for Service {
    /// As much as a statement says about a service.
    fn from(export: ServiceExport) -> Self {
        let (methods, guards) = (Vec::new(), Vec::new());
        Service { export, methods, request: None, response: None, guards }
    }
}

/// A service of another plugin that a plugin calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The service.
    pub item: PluginItem,
    /// Versions of its contract that will do; absent means any.
    pub version: Option<VersionReq>,
    /// The methods that are called; empty means all.
    pub methods: Vec<ServiceName>,
}

/// A guard as a route or a service names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum GuardUse {
    /// Defined by the same manifest.
    Own(ServiceName),
    /// Exported by a dependency.
    Of(PluginItem),
}

/// A guard that a plugin defines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// Name, unique within the plugin.
    pub name: ServiceName,
    /// Whether other plugins may use it.
    pub exported: bool,
}

/// An event that a plugin publishes, or receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Topic.
    pub name: ServiceName,
    /// The dependency that publishes it; absent when this plugin does.
    pub from: Option<PluginName>,
    /// JSON Schema of its payloads, a file within the archive; only of the publisher.
    pub schema: Option<String>,
    /// What publishing does while a receiver's queue is full; only of the publisher.
    pub when_full: WhenFull,
    /// Events that may wait for this plugin; only of a receiver.
    pub queue: usize,
}

/// What publishing does while a receiver's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It fails at once, and no receiver gets the event.
    #[default]
    Refuse,
    /// It waits for room until its deadline.
    Wait,
}

pub(super) fn services(
    tables: &[Table<'_, '_>],
    guards: &[Guard],
    known: &BTreeSet<&PluginName>,
) -> Vec<Service> {
    unique_names(tables, "name", "give each service its own name");
    let read = |table: &Table<'_, '_>| {
        let name = table.need("name", ITEM_HELP).and_then(|item| item.parsed(ITEM_HELP));
        let version = table.need("version", VERSION_HELP).and_then(|item| version(&item));
        let deprecated = table.get("deprecated").and_then(|item| {
            let help = "say in a line what callers should use instead";
            item.checked(|text| line(text, (1, DEPRECATED_MAX_CHARS)), help)
        });
        let methods = methods(table);
        let (request, response) = (schema(table, "request"), schema(table, "response"));
        let uses = table.strings("guards");
        let guards = uses.iter().filter_map(|item| guard_use(item, guards, known)).collect();
        let export = ServiceExport { name: name?, version: version?, deprecated };
        Some(Service { export, methods, request, response, guards })
    };
    tables.iter().filter_map(read).collect()
}

pub(super) fn imports(tables: &[Table<'_, '_>], known: &BTreeSet<&PluginName>) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for table in tables {
        let plugin = table.need("plugin", NAME_HELP).and_then(|item| dependency(&item, known));
        let service = table.need("service", ITEM_HELP);
        let name = service.as_ref().and_then(|item| item.parsed(ITEM_HELP));
        let version = table.get("version").and_then(|item| requirement(&item));
        let methods = methods(table);
        let (Some(plugin), Some(service), Some(name)) = (plugin, service, name) else {
            continue;
        };
        let item = PluginItem { plugin, item: name };
        if imports.iter().any(|import| import.item == item) {
            service.wrong(format!("`{item}` is imported twice"), "remove one of the two");
        }
        imports.push(Import { item, version, methods });
    }
    imports
}

fn methods(table: &Table<'_, '_>) -> Vec<ServiceName> {
    let mut methods = Vec::new();
    for item in table.strings("methods") {
        match item.parsed(ITEM_HELP) {
            Some(method) if methods.contains(&method) => {
                item.wrong(format!("`{method}` stands twice"), "remove one of the two");
            }
            method => methods.extend(method),
        }
    }
    methods
}

fn schema(table: &Table<'_, '_>, key: &str) -> Option<String> {
    table.get(key)?.checked(packed_path, PATH_HELP)
}

pub(super) fn guards(tables: &[Table<'_, '_>]) -> Vec<Guard> {
    unique_names(tables, "name", "give each guard its own name");
    let read = |table: &Table<'_, '_>| {
        let exported = table.flag("exported");
        let name = table.need("name", ITEM_HELP)?.parsed(ITEM_HELP)?;
        Some(Guard { name, exported })
    };
    tables.iter().filter_map(read).collect()
}

pub(super) fn guard_use(
    item: &Item<'_, '_>,
    own: &[Guard],
    known: &BTreeSet<&PluginName>,
) -> Option<GuardUse> {
    let help = "name a [[guard]] of this file, or organisation/plugin:guard of a dependency";
    if item.text()?.contains('/') {
        let guard: PluginItem = item.parsed(help)?;
        if !known.contains(&guard.plugin) {
            not_a_dependency(item, &guard.plugin);
        }
        return Some(GuardUse::Of(guard));
    }
    let name: ServiceName = item.parsed(help)?;
    if !own.iter().any(|guard| guard.name == name) {
        item.wrong(format!("there is no [[guard]] named `{name}`"), help);
    }
    Some(GuardUse::Own(name))
}

pub(super) fn events(tables: &[Table<'_, '_>], known: &BTreeSet<&PluginName>) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for table in tables {
        let from = table.get("from").map(|item| dependency(&item, known));
        let item = table.need("name", ITEM_HELP);
        let name = item.as_ref().and_then(|item| item.parsed(ITEM_HELP));
        let received = from.is_some();
        of_the_other_end(table, received);
        let schema = schema(table, "schema");
        let when_full = table.get("when_full").map_or(WhenFull::Refuse, |item| when_full(&item));
        let queue = table.get("queue").map_or(QUEUE_DEFAULT, |item| queue(&item));
        let (Some(item), Some(name)) = (item, name) else { continue };
        let from = match from {
            Some(None) => continue,
            Some(from) => from,
            None => None,
        };
        if events.iter().any(|event| event.name == name && event.from == from) {
            item.wrong(format!("`{name}` stands twice"), "remove one of the two");
        }
        events.push(Event { name, from, schema, when_full, queue });
    }
    events
}

/// Notes what only a publisher says about a topic, or only a receiver.
fn of_the_other_end(table: &Table<'_, '_>, received: bool) {
    let (keys, help): (&[&str], _) = if received {
        (&["schema", "when_full"], "remove it: whoever publishes the event decides this")
    } else {
        (&["queue"], "remove it, or say with from which dependency publishes the event")
    };
    for item in keys.iter().filter_map(|key| table.get(key)) {
        let end = if received { "receives" } else { "publishes" };
        item.wrong(format!("`{}` has no meaning where the plugin {end}", item.path()), help);
    }
}

fn when_full(item: &Item<'_, '_>) -> WhenFull {
    match item.text() {
        Some("refuse") | None => WhenFull::Refuse,
        Some("wait") => WhenFull::Wait,
        Some(_) => {
            let rule = format!("`{}` must be \"refuse\" or \"wait\"", item.path());
            item.wrong(rule, "refuse fails at once; wait waits until the deadline of the call");
            WhenFull::Refuse
        }
    }
}

fn queue(item: &Item<'_, '_>) -> usize {
    let number = item
        .value
        .as_integer()
        .and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok())
        .filter(|queue| (1..=QUEUE_MAX).contains(queue));
    number.unwrap_or_else(|| {
        let rule = format!("`{}` must be a number from 1 to {QUEUE_MAX}", item.path());
        item.wrong(rule, format!("write for example {QUEUE_DEFAULT}, which is the default"));
        QUEUE_DEFAULT
    })
}
