//! The resolver: from what a host wants to one exact version of every plugin it needs.
//!
//! In scope: semver requirements, optional dependencies, incompatibilities, yanked and
//! quarantined releases, what the host can run, the lock file's versions, and a report a
//! person can read when nothing fits. Out of scope: fetching. The caller drives:
//!
//! 1. [`Resolver::new`] with the request,
//! 2. [`Resolver::step`]: on [`Step::Need`] fetch those plugins' index files, hand each to
//!    [`Resolver::provide`] and step again; every other step is final.
//!
//! # What is decided, and how
//!
//! * One version of a plugin. Nothing is chosen that no root needs.
//! * **Newest first**, in semver's order; a version in [`Request::locked`] comes before all
//!   others while it satisfies what is asked (least change). Precisely: if taking the first
//!   version of that order everywhere works, that is the answer; and a request with one
//!   root gets the first version of that root for which any answer exists. With several
//!   roots in conflict, which of them gives way is fixed (the same request and index always
//!   give the same answer) but no further promise is made.
//! * A pre-release is taken only where a requirement names one of the same
//!   `major.minor.patch`, as in Cargo. Incompatibilities follow the same rule.
//! * Optional dependencies bring nothing in; they bound what others bring in.
//! * A yanked release is taken only where it is locked. Quarantined and removed ones, and
//!   those that the host's policy refuses, never.
//! * The first native build that runs on the host, else the first component; the other way
//!   round where the host prefers components.
//!
//! The order of [`Resolver::provide`] calls and of the roots has no influence.
//!
//! # Rounds
//!
//! `Need` walks ahead along the versions that will probably be chosen, so a resolution
//! takes about as many rounds as the dependency graph is deep, and asks only for plugins
//! that an acceptable release mentions. Where conflicts lead elsewhere more than
//! `NARROW_SOLVES_MAX` times, it asks for everything reachable at once, after which one
//! more pass decides. A caller that already has more (a closure answer from the edge) may
//! provide it unasked.

mod catalog;
mod engine;
mod explain;
mod near;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::PluginName;
use crate::relation::{BuildTarget, Dependency, HostFacts, HostRequirement, Incompatibility};

use catalog::{Catalog, NameIx, ReleaseIx, SetIx};
pub use report::{
    Asker, Because, BuildMisfit, Considered, DeadEnd, Exclusion, Relation, Report, Verdict,
};

/// Most roots in one request: far above the 500 plugins of the largest host we plan for.
pub const ROOTS_MAX: usize = 10_000;
/// Most plugins one resolution may look at: twice the largest ecosystem we measure with.
pub const PLUGINS_MAX: usize = 200_000;
/// Most releases of one plugin: ten years of three releases a day.
pub const CANDIDATES_MAX: usize = 10_000;
/// Most dependencies and incompatibilities of one release. A statement has at most 8 KB and
/// an entry at least 16 bytes, so 512 is never met by a valid one.
pub const LINKS_MAX: usize = 512;
/// Most propagation rounds of one solve. 500 roots over a real ecosystem take below 20,000;
/// a round costs some microseconds, so the worst search ends in seconds.
pub const ROUNDS_MAX: u64 = 1_000_000;
/// Solves that may stop for a plugin not yet fetched before everything reachable is asked
/// for. Each costs a network round trip and a solve; three cover ordinary conflicts.
const NARROW_SOLVES_MAX: u32 = 3;

/// One release of a plugin, as the resolver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Version, unique within the plugin.
    pub version: Version,
    /// Whether and with what warning it may be used.
    pub status: Status,
    /// Other plugins it needs, or works with.
    pub dependencies: Vec<Dependency>,
    /// Plugins that must not be loaded beside it.
    pub incompatible: Vec<Incompatibility>,
    /// What it asks of the host.
    pub host: HostRequirement,
    /// Its builds, in the order of the release statement.
    pub builds: Vec<BuildTarget>,
}

/// A release's status (DESIGN, "Statuses").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing against it.
    #[default]
    Active,
    /// Allowed, warned; the text is the owner's.
    Deprecated(String),
    /// Taken back by its owner: used only where a lock file names it.
    Yanked,
    /// Refused by the registry's staff or its scanners, or signed by a revoked key; the text
    /// says which.
    Quarantined(String),
    /// Refused by the host's own policy, in words that follow the version.
    Refused(String),
    /// Gone.
    Removed,
}

/// A plugin that the host's configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The plugin.
    pub plugin: PluginName,
    /// Versions that will do.
    pub requirement: VersionReq,
}

/// What is to be resolved.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the host wants; a plugin may appear more than once.
    pub roots: Vec<Root>,
    /// Versions of the last lock file: preferred while they satisfy, even when yanked.
    pub locked: BTreeMap<PluginName, Version>,
    /// What the host can run.
    pub host: HostFacts,
}

/// What the resolver says next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Call [`Resolver::provide`] for each of these, then step again.
    Need(BTreeSet<PluginName>),
    /// Resolved.
    Done(Solution),
    /// No choice of versions satisfies the request.
    NoSolution(Report),
    /// A limit was met before an answer was found; this says nothing about whether one exists.
    Exceeded(Exceeded),
}

/// The limit that ended a resolution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// More roots than [`ROOTS_MAX`].
    #[error("the request names {count} plugins; at most {ROOTS_MAX} can be resolved at once")]
    Roots {
        /// How many there are.
        count: usize,
    },
    /// More plugins than [`PLUGINS_MAX`] were provided.
    #[error("the request leads to more than {PLUGINS_MAX} plugins")]
    Plugins,
    /// A plugin has more releases than [`CANDIDATES_MAX`].
    #[error("{plugin} has {count} releases; at most {CANDIDATES_MAX} can be considered")]
    Candidates {
        /// The plugin.
        plugin: PluginName,
        /// Its number of releases.
        count: usize,
    },
    /// A release names more other plugins than [`LINKS_MAX`].
    #[error("{plugin} {version} names {count} other plugins; at most {LINKS_MAX} are allowed")]
    Links {
        /// The plugin.
        plugin: PluginName,
        /// The release.
        version: Version,
        /// How many dependencies and incompatibilities it has.
        count: usize,
    },
    /// The search took more than [`ROUNDS_MAX`] rounds.
    #[error("no answer after {ROUNDS_MAX} rounds of search; ask for narrower versions")]
    Rounds,
}

/// A consistent choice of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// What to load.
    pub chosen: BTreeMap<PluginName, Chosen>,
    /// For every chosen plugin, the chosen plugins it uses, by name. Loading a plugin after
    /// its edges gives the load order; the graph may have cycles.
    pub edges: BTreeMap<PluginName, Vec<Edge>>,
    /// What the operator should know, by plugin name.
    pub warnings: Vec<Warning>,
}

/// One chosen release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The version.
    pub version: Version,
    /// Which of [`Candidate::builds`] to load.
    pub build_index: usize,
}

/// One use of a plugin by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The plugin that is used.
    pub plugin: PluginName,
    /// Whether the user also works without it.
    pub optional: bool,
}

/// Something about a chosen release that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Warning {
    /// The owner wants users to move on.
    #[error("{plugin} {version} is deprecated: {message}")]
    Deprecated {
        /// The plugin.
        plugin: PluginName,
        /// The chosen version.
        version: Version,
        /// The owner's words.
        message: String,
    },
    /// Yanked since it was locked.
    #[error("{plugin} {version} was yanked; it is used because the lock file names it")]
    Yanked {
        /// The plugin.
        plugin: PluginName,
        /// The chosen version.
        version: Version,
    },
    /// The registry's scan found something, and the host's policy allows that.
    #[error("the registry's scan of {plugin} {version} has findings; read its report {report}")]
    Findings {
        /// The plugin.
        plugin: PluginName,
        /// The chosen version.
        version: Version,
        /// SHA-256 of the report, which is served at `/report/<digest>`.
        report: Digest,
    },
}

/// Resolves one request, step by step.
pub struct Resolver {
    catalog: Catalog,
    roots: Vec<SetIx>,
    walk: Walk,
    solves_stopped: u32,
    exceeded: Option<Exceeded>,
}

/// Looking ahead for plugins to fetch.
#[derive(Default)]
struct Walk {
    /// Requirements whose candidates are still to be followed.
    queue: Vec<SetIx>,
    sets_seen: Vec<bool>,
    releases_seen: Vec<bool>,
    /// Follow every acceptable candidate, no longer only the most likely one.
    wide: bool,
}

impl Resolver {
    /// Starts a resolution. No plugin is known yet.
    pub fn new(request: Request) -> Self {
        let Request { mut roots, locked, host } = request;
        let exceeded = (roots.len() > ROOTS_MAX).then_some(Exceeded::Roots { count: roots.len() });
        roots.sort_by_cached_key(|root| (root.plugin.clone(), root.requirement.to_string()));
        roots.dedup();
        let mut catalog = Catalog::new(host, locked);
        let roots: Vec<SetIx> =
            roots.iter().map(|root| catalog.need(&root.plugin, &root.requirement)).collect();
        catalog.set_roots(&roots);
        let walk = Walk { queue: roots.clone(), ..Walk::default() };
        Resolver { catalog, roots, walk, solves_stopped: 0, exceeded }
    }

    /// Hands over everything the registry has of `plugin`; no candidates means that it has
    /// no such plugin. A second answer for the same plugin is ignored, so that one
    /// resolution sees one state of the index. Shared slices are not copied.
    pub fn provide(&mut self, plugin: &PluginName, candidates: impl Into<Arc<[Candidate]>>) {
        if self.exceeded.is_none() {
            self.exceeded = self.catalog.provide(plugin, candidates.into()).err();
        }
    }

    /// Goes as far as it can with what was provided.
    pub fn step(&mut self) -> Step {
        loop {
            if let Some(exceeded) = &self.exceeded {
                return Step::Exceeded(exceeded.clone());
            }
            let needed = self.walk.advance(&mut self.catalog);
            if !needed.is_empty() {
                return Step::Need(needed);
            }
            match engine::solve(&mut self.catalog, &self.roots, None, ROUNDS_MAX) {
                engine::Outcome::Found(releases) => return Step::Done(self.solution(&releases)),
                engine::Outcome::Unfetched(sets) => {
                    self.solves_stopped += 1;
                    if self.solves_stopped > NARROW_SOLVES_MAX && !self.walk.wide {
                        self.walk =
                            Walk { queue: self.roots.clone(), wide: true, ..Walk::default() };
                    }
                    self.walk.queue.extend(sets);
                }
                engine::Outcome::Conflict(touched) => {
                    let report = explain::explain(&mut self.catalog, &self.roots, &touched);
                    return Step::NoSolution(report);
                }
                engine::Outcome::OutOfRounds => self.exceeded = Some(Exceeded::Rounds),
            }
        }
    }

    /// Turns the engine's releases into an answer, keeping only what a root reaches.
    fn solution(&mut self, releases: &[ReleaseIx]) -> Solution {
        let catalog = &mut self.catalog;
        let mut by_name: Vec<Option<ReleaseIx>> = vec![None; catalog.names_len()];
        for &release in releases {
            by_name[catalog.plugin_of(release).index()] = Some(release);
        }
        let mut reached = vec![false; catalog.names_len()];
        let mut queue: Vec<NameIx> = self.roots.iter().map(|&set| catalog.set_name(set)).collect();
        let mut order = Vec::with_capacity(releases.len());
        while let Some(name) = queue.pop() {
            let Some(release) = by_name[name.index()] else { continue };
            if std::mem::replace(&mut reached[name.index()], true) {
                continue;
            }
            order.push((name, release));
            let needs = catalog.links(release).needs;
            queue.extend(catalog.link_sets(needs).iter().map(|&set| catalog.set_name(set)));
        }
        // By name, so that the maps below are built in one pass.
        order.sort_unstable_by(|a, b| catalog.name(a.0).cmp(catalog.name(b.0)));
        let mut rank = vec![u32::MAX; catalog.names_len()];
        for (position, (name, _)) in order.iter().enumerate() {
            rank[name.index()] = position as u32;
        }

        let mut warnings = Vec::new();
        let mut chosen = Vec::with_capacity(order.len());
        let mut edges = Vec::with_capacity(order.len());
        for &(name, release) in &order {
            let plugin = catalog.name(name).clone();
            let candidate = catalog.candidate(release);
            let version = candidate.version.clone();
            match &candidate.status {
                Status::Deprecated(message) => warnings.push(Warning::Deprecated {
                    plugin: plugin.clone(),
                    version: version.clone(),
                    message: message.clone(),
                }),
                Status::Yanked => warnings
                    .push(Warning::Yanked { plugin: plugin.clone(), version: version.clone() }),
                Status::Active | Status::Quarantined(_) | Status::Refused(_) | Status::Removed => {}
            }
            let links = catalog.links(release);
            let mut uses: Vec<(u32, bool)> = [(links.needs, false), (links.bounds, true)]
                .into_iter()
                .flat_map(|(span, optional)| {
                    catalog.link_sets(span).iter().map(move |&set| (set, optional))
                })
                .map(|(set, optional)| (rank[catalog.set_name(set).index()], optional))
                .filter(|(position, _)| *position != u32::MAX)
                .collect();
            // Needed sorts before optional, so a plugin named both ways counts as needed.
            uses.sort_unstable();
            uses.dedup_by_key(|(position, _)| *position);
            let uses = uses
                .into_iter()
                .map(|(position, optional)| Edge {
                    plugin: catalog.name(order[position as usize].0).clone(),
                    optional,
                })
                .collect();
            edges.push((plugin.clone(), uses));
            chosen.push((plugin, Chosen { version, build_index: catalog.build(release) }));
        }
        Solution {
            chosen: chosen.into_iter().collect(),
            edges: edges.into_iter().collect(),
            warnings,
        }
    }
}

impl Walk {
    /// Follows requirements until nothing is left but plugins that are not known yet.
    fn advance(&mut self, catalog: &mut Catalog) -> BTreeSet<PluginName> {
        let mut needed = BTreeSet::new();
        let mut waiting = Vec::new();
        while let Some(set) = self.queue.pop() {
            let name = catalog.set_name(set);
            if !catalog.is_provided(name) {
                needed.insert(catalog.name(name).clone());
                waiting.push(set);
                continue;
            }
            if seen(&mut self.sets_seen, set.index()) {
                continue;
            }
            for release in catalog.releases(name) {
                if !catalog.admits(set, release) || !catalog.roots_admit(release) {
                    continue;
                }
                if !seen(&mut self.releases_seen, release.index()) {
                    let needs = catalog.links(release).needs;
                    self.queue.extend_from_slice(catalog.link_sets(needs));
                }
                if !self.wide {
                    break;
                }
            }
        }
        self.queue = waiting;
        needed
    }
}

/// Marks an index; true if it was marked before.
fn seen(marks: &mut Vec<bool>, index: usize) -> bool {
    if marks.len() <= index {
        marks.resize((index + 1).next_power_of_two(), false);
    }
    std::mem::replace(&mut marks[index], true)
}
