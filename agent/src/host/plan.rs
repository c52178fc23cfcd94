//! Decides before anything runs: what may be loaded, in which order, and what is in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modunest_core::archive::{FileList, FileRecord};
use modunest_core::manifest::{BuildSettings, Life, Manifest};
use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::scan::{COMPONENT_NAME, library_name};
use petgraph::Direction;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use super::cell::Parts;
use super::component::Unpacked;
use super::configured;
use super::links::{self, Other, Schemas};
use super::operations::{self, Operations};
use super::reload::{Takeover, takeover};
use super::routes::{Routes, Segment, segments};
use super::terms::{Kept, Terms};
use super::{Cell, Host, Resources, State, Tier, tier};
use crate::config::{HostSettings, Wanted};
use crate::embed::LoadAsk;
use crate::sandbox;
use crate::store::{Error, Fresh, Installed, LIBRARY_NAME, Proven, Store};

/// A release that is proven and unpacked, with its manifest read; or why it is not.
pub struct Prepared {
    /// The proven release.
    pub proven: Proven,
    /// What is in the store.
    pub installed: Result<Installed, Error>,
}

/// What is to be loaded.
pub struct Plan {
    pub(super) host: Host,
    /// Every plugin, in the host's order.
    pub(super) loads: Vec<Load>,
}

/// Others of a plan that must be ready before a plugin, by their place in the host's order, and
/// whether it also loads without them.
type Waits = Vec<(usize, bool)>;

/// A plugin of a plan, and what it takes to load it.
pub(super) struct Load {
    pub(super) cell: Arc<Cell>,
    /// Whether its instance is there: it goes on from an earlier generation.
    pub(super) goes_on: bool,
    /// What it waits for.
    pub(super) waits: Waits,
    /// Where it runs; nothing for one that may not run anywhere.
    pub(super) tier: Option<Tier>,
    /// What the library in its folder must be; `None` where there is none.
    pub(super) library: Option<FileRecord>,
    /// What is to be compiled, where it is a component.
    pub(super) component: Option<Unpacked>,
}

/// Proves list and manifest of every release, on all processors, but for those that a sync of
/// this process has proven.
pub fn prepare(store: &Store, proven: Vec<Proven>, mut fresh: Fresh) -> Vec<Prepared> {
    let known: Vec<Option<Installed>> = proven.iter().map(|plugin| fresh.take(plugin)).collect();
    let pairs = proven.iter().zip(&known);
    let unknown: Vec<&Proven> =
        pairs.filter(|(_, known)| known.is_none()).map(|(plugin, _)| plugin).collect();
    let mut opened = open(store, &unknown).into_iter();
    let pairs = proven.into_iter().zip(known);
    pairs
        .map(|(proven, known)| {
            let missing = Error::Missing { files: proven.build.files };
            // As many were opened as were not known.
            let installed = known.map_or_else(|| opened.next().unwrap_or(Err(missing)), Ok);
            Prepared { proven, installed }
        })
        .collect()
}

/// Opens store entries, on all processors; answers in their order.
fn open(store: &Store, plugins: &[&Proven]) -> Vec<Result<Installed, Error>> {
    let one = |plugin: &&Proven| store.installed(&plugin.release, &plugin.build);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let share = plugins.len().div_ceil(processors).max(1);
    if plugins.len() <= share {
        return plugins.iter().map(one).collect();
    }
    std::thread::scope(|scope| {
        let shares: Vec<_> = plugins
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(one).collect::<Vec<_>>()))
            .collect();
        let mut opened = Vec::with_capacity(plugins.len());
        for share in shares {
            match share.join() {
                Ok(more) => opened.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        opened
    })
}

impl Plan {
    /// Plans a host. `wanted` are the operator's own plugins: their routes come before those
    /// of what was brought in. Instances of `previous` that would be the same go on. Plugins
    /// use the host through `resources`, as far as the settings grant it.
    pub fn build(
        prepared: Vec<Prepared>,
        wanted: &BTreeMap<PluginName, Wanted>,
        settings: &HostSettings,
        resources: &Arc<Resources>,
        previous: Option<&Host>,
    ) -> Plan {
        let mut prepared = prepared;
        prepared.sort_by(|one, other| one.name().cmp(other.name()));
        let (order, cycles) = order(&prepared);
        let (tiers, homeless) = tiers(&prepared, settings);
        // Those in a circle hear of it first: nothing else matters before.
        let refused = homeless.into_iter().chain(cycles).collect();
        let refusals = refusals(&prepared, wanted, settings, refused);
        let mut plan = Plan { host: Host::empty(), loads: Vec::with_capacity(prepared.len()) };
        let mut refused = Vec::new();
        let lifecycle = Arc::new(settings.lifecycle.clone());
        let kept = Kept::of(&lifecycle);
        let links = Arc::new(settings.links.clone());
        let mut prepared: Vec<Option<Prepared>> = prepared.into_iter().map(Some).collect();
        for (at, waits) in order {
            // Each is in the order once.
            let Some(Prepared { proven, installed }) = prepared[at].take() else { continue };
            let name = proven.release.plugin.clone();
            let config = wanted.get(&name).map(|wanted| wanted.config.clone());
            let (installed, damage) = match installed {
                Ok(installed) => (installed, None),
                Err(error) => (unknown(&proven), Some(error.to_string())),
            };
            let used = waits.iter().map(|(used, _)| &plan.loads[*used].cell);
            let dependencies = used.map(|cell| (cell.name().clone(), cell.clone())).collect();
            let library = installed.file(library_name(&proven.build.target)).cloned();
            let component = Unpacked::of(&proven, &installed);
            let (schemas, mut unusable) = match Schemas::read(&installed) {
                Ok(schemas) => (schemas, Vec::new()),
                Err(why) => (Schemas::default(), why),
            };
            unusable.extend(configured::refusal(&installed, config.as_deref().unwrap_or_default()));
            let operations = Operations::new(&installed.manifest, &settings.grants, resources);
            let load_timeout = load_timeout(&installed.manifest, settings);
            let predecessor = previous.and_then(|host| host.cell(&name));
            let inherits = predecessor.is_some_and(|old| {
                matches!(old.status().state, State::Ready | State::Unhealthy)
                    && !old.is_worn()
                    && takeover(old.manifest(), &installed.manifest) == Takeover::Restore
            });
            let is_lazy = is_lazy(&installed.manifest, predecessor);
            let parts = Parts {
                identity: (proven.statement, proven.build.files, config.unwrap_or_default()),
                terms: Terms::of(
                    &installed.manifest,
                    tiers[at],
                    proven.trust,
                    load_timeout,
                    (settings, &kept),
                ),
                manifest: installed.manifest,
                folder: installed.folder,
                dependencies,
                lifecycle: lifecycle.clone(),
                hooks: settings.hooks.clone(),
                operations,
                load_timeout,
                inherits,
                is_lazy,
            };
            let old = previous.and_then(|host| host.same(&name, &parts));
            let others = refusals.get(&name).into_iter().chain(&unusable).map(String::as_str);
            let others = others.collect::<Vec<_>>().join("; ");
            let refusal = damage.or(Some(others).filter(|others| !others.is_empty()));
            let cell = match old.filter(|_| refusal.is_none()) {
                Some(old) => old,
                None => {
                    let cell = Cell::new(parts);
                    links::tie(&cell, schemas, predecessor, &links);
                    cell
                }
            };
            match refusal {
                Some(reason) => {
                    cell.set(State::Failed, Some(reason));
                    refused.push(cell.clone());
                }
                None => add_routes(&mut plan.host.routes, &cell),
            }
            let goes_on = cell.status().state.is_up();
            plan.host.order.push(name.clone());
            plan.host.cells.insert(name, cell.clone());
            plan.loads.push(Load { cell, goes_on, waits, tier: tiers[at], library, component });
        }
        // Behind the others, so that they answer with their state only where nobody else does.
        for cell in refused {
            add_routes(&mut plan.host.routes, &cell);
        }
        links::connect_new(&plan.host);
        plan
    }
}

/// How long a plugin may take to load: what it asks for, within what the operator allows.
fn load_timeout(manifest: &Manifest, settings: &HostSettings) -> Duration {
    manifest.life.load_timeout_ms.map_or(settings.load_timeout, |asked_ms| {
        Duration::from_millis(asked_ms).min(settings.lifecycle.load_timeout_max)
    })
}

/// Whether a plugin waits for its first use. A host is not ready before its critical plugins are
/// loaded, so these do not wait; and what takes the place of one that is loaded does not either: no
/// change makes a caller wait or be refused.
fn is_lazy(manifest: &Manifest, predecessor: Option<&Arc<Cell>>) -> bool {
    let is_loaded = predecessor.is_some_and(|old| old.is_loaded());
    !manifest.life.activation.is_empty() && !manifest.critical && !is_loaded
}

fn add_routes(routes: &mut Routes, cell: &Arc<Cell>) {
    for route in &cell.manifest().routes {
        routes.insert(&route.path, &route.methods, cell);
    }
}

/// What stands for a release whose manifest cannot be read: as much as its statement says.
/// Whether it is critical is not known, so it is taken to be.
fn unknown(proven: &Proven) -> Installed {
    let release = &proven.release;
    let manifest = Manifest {
        name: release.plugin.clone(),
        version: release.version.clone(),
        description: String::new(),
        authors: Vec::new(),
        license: String::new(),
        readme: None,
        keywords: Vec::new(),
        critical: true,
        host: release.host.clone(),
        dependencies: release.dependencies.clone(),
        incompatible: release.incompatible.clone(),
        services: release.services.iter().cloned().map(Into::into).collect(),
        imports: Vec::new(),
        routes: Vec::new(),
        guards: Vec::new(),
        events: Vec::new(),
        config_schema: None,
        life: Life::default(),
        state: None,
        schedules: Vec::new(),
        capabilities: Vec::new(),
        optional_capabilities: Vec::new(),
        build: BuildSettings { native: None, wasm: None, include: Vec::new() },
    };
    let manifest = Arc::new(manifest);
    Installed { folder: PathBuf::new(), files: FileList::default(), manifest }
}

impl Prepared {
    fn name(&self) -> &PluginName {
        &self.proven.release.plugin
    }
}

/// Where a plugin is among those that are sorted by name.
fn find(plugins: &[Prepared], name: &PluginName) -> Option<usize> {
    plugins.binary_search_by(|plugin| plugin.name().cmp(name)).ok()
}

/// Every plugin behind what it uses: each with these uses, by their place in this order, and whether
/// they are optional. And the plugins that use one another in a circle; optional uses within a circle
/// are let go.
fn order(plugins: &[Prepared]) -> (Vec<(usize, Waits)>, BTreeMap<PluginName, String>) {
    let mut graph: DiGraph<usize, bool> = DiGraph::new();
    let nodes: Vec<NodeIndex> = (0..plugins.len()).map(|at| graph.add_node(at)).collect();
    for (prepared, node) in plugins.iter().zip(&nodes) {
        for (used, optional) in &prepared.proven.uses {
            if let Some(used) = find(plugins, used) {
                graph.add_edge(nodes[used], *node, *optional);
            }
        }
    }
    let name = |node: &NodeIndex| plugins[node.index()].name();
    let mut cycles = BTreeMap::new();
    // First without the optional edges of a circle, then without all of its edges.
    for optional_only in [true, false] {
        let circles: Vec<Vec<NodeIndex>> =
            tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1).collect();
        for circle in circles {
            let inside: BTreeSet<NodeIndex> = circle.into_iter().collect();
            if !optional_only {
                let names: Vec<&str> = inside.iter().map(|node| name(node).as_str()).collect();
                let text = format!("these need one another in a circle: {}", names.join(", "));
                cycles.extend(inside.iter().map(|node| (name(node).clone(), text.clone())));
            }
            graph.retain_edges(|graph, edge| {
                let within = graph
                    .edge_endpoints(edge)
                    .is_some_and(|(a, b)| inside.contains(&a) && inside.contains(&b));
                !within || (optional_only && !graph[edge])
            });
        }
    }
    // Without circles, there always is an order.
    let sorted = toposort(&graph, None).unwrap_or_default();
    let mut places = vec![0; plugins.len()];
    for (place, node) in sorted.iter().enumerate() {
        places[node.index()] = place;
    }
    let uses = |node: NodeIndex| {
        let edges = graph.edges_directed(node, Direction::Incoming);
        edges.map(|edge| (places[edge.source().index()], *edge.weight())).collect()
    };
    (sorted.iter().map(|node| (node.index(), uses(*node))).collect(), cycles)
}

/// Where each plugin runs, and why some may not run anywhere.
fn tiers(
    plugins: &[Prepared],
    settings: &HostSettings,
) -> (Vec<Option<Tier>>, BTreeMap<PluginName, String>) {
    let support = sandbox::probe();
    let mut homeless = BTreeMap::new();
    let tiers = plugins.iter().map(|prepared| {
        let Proven { build, trust, .. } = &prepared.proven;
        let chosen = tier::choose(prepared.name(), &build.target, *trust, settings, support);
        chosen.map_err(|why| homeless.insert(prepared.name().clone(), why)).ok()
    });
    (tiers.collect(), homeless)
}

/// Why plugins may not be loaded, before anything is tried: of each, all that is in its way.
fn refusals(
    plugins: &[Prepared],
    wanted: &BTreeMap<PluginName, Wanted>,
    settings: &HostSettings,
    mut refusals: BTreeMap<PluginName, String>,
) -> BTreeMap<PluginName, String> {
    for prepared in plugins {
        let name = prepared.name();
        let Ok(installed) = &prepared.installed else { continue };
        let has_library = installed.file(LIBRARY_NAME).is_some();
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend(match prepared.proven.build.target {
            BuildTarget::Wasm { .. } if installed.file(COMPONENT_NAME).is_none() => {
                Some(format!("its archive has no {COMPONENT_NAME}"))
            }
            BuildTarget::Native { .. } if !has_library => {
                Some(format!("its archive has no {LIBRARY_NAME}"))
            }
            BuildTarget::Native { .. } | BuildTarget::Wasm { .. } => None,
        });
        let uses = &prepared.proven.uses;
        let other = |name: &PluginName| match find(plugins, name).map(|at| &plugins[at].installed) {
            Some(Ok(other)) => Other::There(&other.manifest, uses.get(name) == Some(&false)),
            Some(Err(_)) => Other::Unreadable,
            None => Other::Absent,
        };
        reasons.extend(links::refusals(&installed.manifest, other));
        reasons.extend(operations::refusal(&installed.manifest, &settings.grants));
        // Last, so that it takes away from what everything else allows.
        if reasons.is_empty() {
            let release = &prepared.proven.release;
            let (version, capabilities) = (&release.version, &release.capabilities[..]);
            let ask = LoadAsk { plugin: name, version, capabilities };
            let forbidden = settings.hooks.may_load(&ask).err();
            reasons.extend(
                forbidden
                    .map(|reason| format!("the program around this host forbids it: {reason}")),
            );
        }
        if !reasons.is_empty() {
            refusals.entry(name.clone()).or_insert_with(|| reasons.join("; "));
        }
    }
    // The operator's own plugins first, then by name: the first of a route keeps it.
    let mut plugins: Vec<&Prepared> = plugins.iter().collect();
    plugins.sort_by_key(|plugin| !wanted.contains_key(plugin.name()));
    let mut taken: BTreeMap<(Vec<Segment>, &str), &PluginName> = BTreeMap::new();
    for plugin in plugins {
        let name = plugin.name();
        let Ok(installed) = &plugin.installed else { continue };
        let claims: Vec<_> = installed
            .manifest
            .routes
            .iter()
            .flat_map(|route| {
                route
                    .methods
                    .iter()
                    .map(move |method| ((segments(&route.path), method.as_str()), route))
            })
            .collect();
        let conflicts = claims.iter().filter_map(|(claim, route)| {
            let holder = taken.get(claim).filter(|holder| **holder != name)?;
            Some(format!("its route {} {} is taken by {holder}", claim.1, route.path))
        });
        let conflicts: Vec<String> = conflicts.collect();
        let refused = refusals.get(name).cloned();
        // What is refused for another reason takes no route from anybody.
        if conflicts.is_empty() && refused.is_none() {
            taken.extend(claims.into_iter().map(|(claim, _)| (claim, name)));
        } else if !conflicts.is_empty() {
            let reasons: Vec<String> = refused.into_iter().chain(conflicts).collect();
            refusals.insert(name.clone(), reasons.join("; "));
        }
    }
    refusals
}
