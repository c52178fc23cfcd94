//! The sections of `plugin.toml`, and the rules that tie them together.

use std::collections::BTreeSet;

use super::life;
use super::links::{self, guard_use};
use super::read::{Item, Notes, Table, document};
use super::text::{library, route};
use super::values::{
    Head, NAME_HELP, PATH_HELP, REQUIREMENT_HELP, VERSION_HELP, included_path, methods,
    not_a_dependency, packed_path, requirement, route_streams, unique_names, version,
};
use super::{
    BuildSettings, Capability, Guard, LIST_MAX, MANIFEST_MAX_BYTES, Manifest, ManifestError,
    ManifestProblem, Route, WasmBuild,
};
use crate::capability::{CapabilityError, GROUPS};
use crate::name::PluginName;
use crate::relation::{Dependency, HostRequirement, Incompatibility, NATIVE_ABI};

/// Every section with its keys, as the schema lists them. Sections whose keys are plugin
/// names have none of their own.
pub(super) const KEYS: [(&str, &[&str]); 15] = [
    (
        "plugin",
        &["name", "version", "description", "authors", "license", "readme", "keywords", "critical"],
    ),
    ("host", &["abi", "requires"]),
    ("lifecycle", &["activation", "load_timeout_ms"]),
    ("state", &["version", "accepts"]),
    ("schedule", &["name", "cron"]),
    ("dependencies", &[]),
    ("incompatible", &[]),
    ("service", &["name", "version", "deprecated", "methods", "request", "response", "guards"]),
    ("import", &["plugin", "service", "version", "methods"]),
    ("route", &["path", "methods", "guards", "stream"]),
    ("guard", &["name", "exported"]),
    ("event", &["name", "from", "schema", "when_full", "queue"]),
    ("config", &["schema"]),
    (
        "capabilities",
        &["files", "http", "kv", "clock", "random", "env", "services", "events", "optional"],
    ),
    ("build", &["native", "wasm", "include"]),
];

/// Keys of a dependency that is a table.
pub(super) const DEPENDENCY_KEYS: &[&str] = &["version", "optional"];
/// Keys of `build.native`.
pub(super) const NATIVE_KEYS: &[&str] = &["library"];
/// Keys of `build.wasm`.
pub(super) const WASM_KEYS: &[&str] = &["library", "world"];

pub(super) fn keys(section: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

pub(super) fn parse(text: &str) -> Result<Manifest, ManifestError> {
    if text.len() > MANIFEST_MAX_BYTES {
        let rule = format!(
            "the manifest has {} bytes; at most {MANIFEST_MAX_BYTES} are allowed",
            text.len()
        );
        let help = "move long texts to the README";
        return Err(ManifestError::new(vec![ManifestProblem::new("", 0..0, "", rule, help)]));
    }
    let table = document(text).map_err(ManifestError::new)?;
    let notes = Notes::new(text);
    let manifest = Reader { root: Table::root(&notes, table.get_ref()) }.manifest();
    let problems = notes.into_problems();
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(manifest),
        _ => Err(ManifestError::new(problems)),
    }
}

struct Reader<'n, 't> {
    root: Table<'n, 't>,
}

impl<'n, 't> Reader<'n, 't> {
    /// Reads every section, so that every problem is noted, and only then asks whether all
    /// that is needed was there.
    fn manifest(&self) -> Option<Manifest> {
        let sections: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
        self.root.only(&sections);
        let head = self
            .root
            .need(
                "plugin",
                "begin with [plugin] and its name, version, description, authors and license",
            )
            .and_then(|item| item.table());
        let head = head.as_ref().map(Head::read);
        let name = head.as_ref().and_then(|head| head.name.clone());
        let host = self.host();
        let dependencies = self.dependencies(name.as_ref());
        let incompatible = self.incompatible(name.as_ref());
        let known: BTreeSet<&PluginName> = dependencies.iter().map(|d| &d.plugin).collect();
        let guards = links::guards(&self.list("guard"));
        let services = links::services(&self.list("service"), &guards, &known);
        let imports = links::imports(&self.list("import"), &known);
        let routes = self.routes(&guards, &known);
        let events = links::events(&self.list("event"), &known);
        let config_schema = self.config();
        let life = self.section("lifecycle").as_ref().map(life::life).unwrap_or_default();
        let state = self.section("state").as_ref().and_then(life::state);
        let schedules = life::schedules(&self.list("schedule"));
        let (capabilities, optional_capabilities) = self.capabilities(&known);
        let build = self.build(name.as_ref());
        let head = head?;
        let manifest = Manifest {
            name: name?,
            version: head.version?,
            description: head.description?,
            authors: head.authors,
            license: head.license?,
            readme: head.readme,
            keywords: head.keywords,
            critical: head.critical,
            host: host?,
            dependencies,
            incompatible,
            services,
            imports,
            routes,
            guards,
            events,
            config_schema,
            life,
            state,
            schedules,
            capabilities,
            optional_capabilities,
            build,
        };
        self.statement_list(&manifest);
        Some(manifest)
    }

    /// Imports and events add capabilities, and a statement's list is bounded.
    fn statement_list(&self, manifest: &Manifest) {
        let count = manifest.capability_texts().len();
        if count > LIST_MAX
            && let Some(first) =
                ["capabilities", "import", "event"].into_iter().find_map(|key| self.root.get(key))
        {
            first.wrong(
                format!("capabilities, imports and received events are {count} together; at most {LIST_MAX} are allowed"),
                "leave some out",
            );
        }
    }

    fn section(&self, name: &str) -> Option<Table<'n, 't>> {
        let table = self.root.get(name)?.table()?;
        table.only(keys(name));
        Some(table)
    }

    fn list(&self, name: &str) -> Vec<Table<'n, 't>> {
        let tables = self.root.tables(name);
        for table in &tables {
            table.only(keys(name));
        }
        tables
    }

    fn host(&self) -> Option<HostRequirement> {
        const HELP: &str = "add [host] with abi = 1";
        self.root.need("host", HELP)?;
        let host = self.section("host")?;
        let version = host.get("requires").map(|item| requirement(&item));
        let abi = host.need("abi", HELP).and_then(|item| {
            let number = item
                .value
                .as_integer()
                .and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
            let known = number.filter(|abi| (1..=NATIVE_ABI).contains(abi));
            if known.is_none() {
                let known = (1..=NATIVE_ABI).map(|abi| abi.to_string()).collect::<Vec<_>>();
                item.wrong(
                    format!("`host.abi` must be the number of a native ABI: {}", known.join(", ")),
                    format!("write abi = {NATIVE_ABI}"),
                );
            }
            known
        });
        Some(HostRequirement {
            abi: abi?,
            version: match version {
                Some(requirement) => Some(requirement?),
                None => None,
            },
        })
    }

    fn dependencies(&self, own: Option<&PluginName>) -> Vec<Dependency> {
        self.relations("dependencies", own, |plugin, item| {
            if item.value.is_str() {
                return Some(Dependency {
                    plugin,
                    requirement: requirement(item)?,
                    optional: false,
                });
            }
            if !item.value.is_table() {
                item.wrong(
                    format!("`{}` must be a version requirement or a table", item.path()),
                    REQUIREMENT_HELP,
                );
                return None;
            }
            let table = item.table()?;
            table.only(DEPENDENCY_KEYS);
            let optional = table.flag("optional");
            let version = table.need("version", REQUIREMENT_HELP)?;
            Some(Dependency { plugin, requirement: requirement(&version)?, optional })
        })
    }

    fn incompatible(&self, own: Option<&PluginName>) -> Vec<Incompatibility> {
        self.relations("incompatible", own, |plugin, item| {
            Some(Incompatibility { plugin, requirement: requirement(item)? })
        })
    }

    fn relations<T>(
        &self,
        section: &str,
        own: Option<&PluginName>,
        read: impl Fn(PluginName, &Item<'n, 't>) -> Option<T>,
    ) -> Vec<T> {
        let Some(table) = self.root.get(section).and_then(|item| item.table()) else {
            return Vec::new();
        };
        let mut relations = Vec::new();
        for (plugin, item) in table.pairs::<PluginName>(NAME_HELP) {
            if Some(&plugin) == own {
                item.wrong(
                    format!("`{}` names the plugin itself", item.path()),
                    "remove the entry",
                );
            }
            relations.extend(read(plugin, &item));
        }
        relations
    }

    fn routes(&self, guards: &[Guard], known: &BTreeSet<&PluginName>) -> Vec<Route> {
        let tables = self.list("route");
        unique_names(&tables, "path", "list all methods of a path in one [[route]]");
        let read = |table: &Table<'_, '_>| {
            let help = "write a path such as \"/gallery\" or \"/gallery/{name}\"";
            let path = table.need("path", help).and_then(|item| item.checked(route, help));
            let methods = methods(table);
            let guards = table
                .strings("guards")
                .iter()
                .filter_map(|item| guard_use(item, guards, known))
                .collect();
            Some(Route { path: path?, methods, guards, stream: route_streams(table) })
        };
        tables.iter().filter_map(read).collect()
    }

    fn config(&self) -> Option<String> {
        let help = "name the JSON Schema of the plugin's configuration, for example \"config.schema.json\"";
        self.section("config")?.need("schema", help)?.checked(packed_path, PATH_HELP)
    }

    /// All that are asked for, and those of them that are optional.
    fn capabilities(&self, known: &BTreeSet<&PluginName>) -> (Vec<Capability>, Vec<Capability>) {
        let Some(table) = self.section("capabilities") else { return Default::default() };
        let mut all = Vec::new();
        let mut take = |item: &Item<'_, '_>, parsed: Result<Capability, CapabilityError>| {
            let capability = match parsed {
                Ok(capability) => capability,
                Err(error) => {
                    let rule = format!("`{}`: {error}", item.path());
                    item.wrong(rule, "correct or remove the entry");
                    return None;
                }
            };
            if all.contains(&capability) {
                item.wrong(format!("`{capability}` stands twice"), "remove one of the two");
                return None;
            }
            if let Capability::Services(of) | Capability::Events(of) = &capability
                && !known.contains(&of.plugin)
            {
                not_a_dependency(item, &of.plugin);
            }
            all.push(capability.clone());
            Some(capability)
        };
        for group in GROUPS {
            for item in table.strings(group) {
                if let Some(text) = item.text() {
                    take(&item, Capability::parse(group, text));
                }
            }
        }
        let mut optional = Vec::new();
        for item in table.strings("optional") {
            if let Some(text) = item.text() {
                optional.extend(take(&item, text.parse()));
            }
        }
        (all, optional)
    }

    fn build(&self, name: Option<&PluginName>) -> BuildSettings {
        const LIBRARY_HELP: &str = "write the library's name as in Cargo.toml, with _ instead of -";
        let table = self.section("build");
        let part = |key: &str, known: &[&str]| {
            let part = table.as_ref()?.get(key)?.table()?;
            part.only(known);
            Some(part)
        };
        let name_of = |part: &Table<'_, '_>| {
            part.need("library", LIBRARY_HELP).and_then(|item| item.checked(library, LIBRARY_HELP))
        };
        let native = part("native", NATIVE_KEYS).as_ref().and_then(name_of);
        let wasm = part("wasm", WASM_KEYS).and_then(|part| {
            let library = name_of(&part);
            let world = part.need("world", VERSION_HELP).and_then(|item| version(&item));
            Some(WasmBuild { library: library?, world: world? })
        });
        let include: Vec<Item<'_, '_>> =
            table.as_ref().map(|table| table.strings("include")).unwrap_or_default();
        let include =
            include.iter().filter_map(|item| item.checked(included_path, PATH_HELP)).collect();
        // Without a word about builds, cargo's own convention names the library.
        let silent = ["native", "wasm"]
            .iter()
            .all(|key| table.as_ref().is_none_or(|t| t.get(key).is_none()));
        let convention = || name.map(|name| name.as_str().replace(['/', '-'], "_"));
        BuildSettings { native: if silent { convention() } else { native }, wasm, include }
    }
}
