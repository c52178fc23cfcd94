//! From a failed search to a report: the smallest set of facts that still contradict one
//! another, the plugins for which they leave nothing, and what may be done about it.
//!
//! The engine's own account of a conflict is neither small nor complete for our purposes,
//! so the facts it looked at are narrowed by solving again with parts of them switched off
//! (QuickXplain: U. Junker, "QuickXplain: Preferred Explanations and Relaxations for
//! Over-Constrained Problems", AAAI 2004).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::catalog::{Catalog, NameIx, ReleaseIx, SetIx};
use super::engine::{self, Fact, Kind, Only, Outcome};
use super::near::nearest;
use super::report::{Asker, Because, Considered, DeadEnd, Exclusion, Relation, Report, Verdict};
use crate::name::PluginName;
use crate::relation::BuildTarget;

/// Solves spent on making a report smaller. A typical one takes 30; a report that used all
/// is still right, only longer than needed.
const SOLVES_MAX: usize = 400;
/// Rounds of each such solve; one that takes more counts as "not known to contradict".
const SOLVE_ROUNDS_MAX: u64 = 20_000;

/// The same link of several releases of one plugin.
struct Group {
    asker: Option<NameIx>,
    releases: Vec<ReleaseIx>,
    set: SetIx,
    kind: Kind,
}

/// Explains why `roots` cannot be satisfied, given the releases that the search considered.
pub(super) fn explain(catalog: &mut Catalog, roots: &[SetIx], touched: &[ReleaseIx]) -> Report {
    let groups = group_facts(catalog, roots, touched);
    let mut group_of: HashMap<Fact, usize> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        if group.asker.is_none() {
            group_of.insert((None, group.set, group.kind), index);
        }
        for &release in &group.releases {
            group_of.insert((Some(release), group.set, group.kind), index);
        }
    }
    let mut search = Search { catalog, roots, group_of, solves_left: SOLVES_MAX };

    // First the roots, with all else in place; then the rest, with those roots in place.
    let is_root = |index: &usize| groups[*index].asker.is_none();
    let (root_groups, rest): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(is_root);
    let mut on = vec![false; groups.len()];
    set_all(&mut on, &rest, true);
    let needed_roots = search.minimal(&mut on, false, &root_groups);
    set_all(&mut on, &rest, false);
    set_all(&mut on, &needed_roots, true);
    let reachable = reachable(search.catalog, &groups, &needed_roots, &rest);
    let needed_rest = search.minimal(&mut on, true, &reachable);

    let mut core: Vec<usize> = needed_roots;
    core.extend(needed_rest);
    core.sort_unstable();
    let core: Vec<&Group> = core.into_iter().map(|index| &groups[index]).collect();
    write(catalog, &core)
}

/// All facts, alike ones together, in an order that depends on names and texts only.
fn group_facts(catalog: &mut Catalog, roots: &[SetIx], touched: &[ReleaseIx]) -> Vec<Group> {
    let mut alike: BTreeMap<(Option<NameIx>, SetIx, Kind), BTreeSet<ReleaseIx>> = BTreeMap::new();
    for &set in roots {
        alike.entry((None, set, Kind::Needs)).or_default();
    }
    for &release in touched {
        let links = catalog.links(release);
        let asker = Some(catalog.plugin_of(release));
        for (span, kind) in
            [(links.needs, Kind::Needs), (links.bounds, Kind::Bounds), (links.avoids, Kind::Avoids)]
        {
            for &set in catalog.link_sets(span) {
                alike.entry((asker, set, kind)).or_default().insert(release);
            }
        }
    }
    let mut groups: Vec<Group> = alike
        .into_iter()
        .map(|((asker, set, kind), releases)| Group {
            asker,
            releases: releases.into_iter().collect(),
            set,
            kind,
        })
        .collect();
    let catalog = &*catalog;
    groups.sort_by_cached_key(|group| {
        (
            group.asker.map(|name| catalog.name(name).clone()),
            catalog.name(catalog.set_name(group.set)).clone(),
            catalog.requirement(group.set).to_string(),
            group.kind,
        )
    });
    groups
}

/// The groups of plugins that the given roots lead to.
fn reachable(
    catalog: &Catalog,
    groups: &[Group],
    from: &[usize],
    candidates: &[usize],
) -> Vec<usize> {
    let mut by_asker: HashMap<NameIx, Vec<usize>> = HashMap::new();
    for &index in candidates {
        if let Some(asker) = groups[index].asker {
            by_asker.entry(asker).or_default().push(index);
        }
    }
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    let mut queue: Vec<usize> = from.to_vec();
    while let Some(index) = queue.pop() {
        if groups[index].kind != Kind::Needs {
            continue;
        }
        for &next in by_asker.get(&catalog.set_name(groups[index].set)).into_iter().flatten() {
            if reached.insert(next) {
                queue.push(next);
            }
        }
    }
    reached.into_iter().collect()
}

struct Search<'a> {
    catalog: &'a mut Catalog,
    roots: &'a [SetIx],
    group_of: HashMap<Fact, usize>,
    solves_left: usize,
}

impl Search<'_> {
    /// A smallest part of `among` that contradicts what is on. All of `among` is off before
    /// and after. Without `check_first`, what is on is known not to contradict by itself.
    fn minimal(&mut self, on: &mut [bool], check_first: bool, among: &[usize]) -> Vec<usize> {
        if among.is_empty() || (check_first && self.contradicts(on)) {
            return Vec::new();
        }
        if self.solves_left == 0 {
            return among.to_vec();
        }
        if let &[lone] = among {
            return vec![lone];
        }
        let (first, second) = among.split_at(among.len() / 2);
        set_all(on, first, true);
        let of_second = self.minimal(on, true, second);
        set_all(on, first, false);
        set_all(on, &of_second, true);
        let of_first = self.minimal(on, !of_second.is_empty(), first);
        set_all(on, &of_second, false);
        let mut result = of_first;
        result.extend(of_second);
        result
    }

    fn contradicts(&mut self, on: &[bool]) -> bool {
        if self.solves_left == 0 {
            return false;
        }
        self.solves_left -= 1;
        let only = Only { group_of: &self.group_of, on };
        let outcome = engine::solve(self.catalog, self.roots, Some(&only), SOLVE_ROUNDS_MAX);
        matches!(outcome, Outcome::Conflict(_))
    }
}

fn set_all(on: &mut [bool], indices: &[usize], value: bool) {
    for &index in indices {
        on[index] = value;
    }
}

/// Puts the facts in reading order and says where they leave nothing.
fn write(catalog: &Catalog, core: &[&Group]) -> Report {
    let order = reading_order(catalog, core);
    let because: Vec<Because> = order.iter().map(|group| because(catalog, core, group)).collect();

    let mut targets: Vec<NameIx> = Vec::new();
    for group in &order {
        let target = catalog.set_name(group.set);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let dead_ends: Vec<DeadEnd> =
        targets.into_iter().filter_map(|target| dead_end(catalog, &order, target)).collect();
    let advice = advice(&because, &dead_ends, catalog);
    Report { because, dead_ends, advice }
}

/// From each root down its chain, then the next root.
fn reading_order<'a>(catalog: &Catalog, core: &[&'a Group]) -> Vec<&'a Group> {
    let mut order: Vec<&Group> = Vec::with_capacity(core.len());
    let mut told: BTreeSet<Option<NameIx>> = BTreeSet::new();
    let mut stack: Vec<&Group> =
        core.iter().rev().copied().filter(|group| group.asker.is_none()).collect();
    while let Some(group) = stack.pop() {
        order.push(group);
        let target = catalog.set_name(group.set);
        if group.kind == Kind::Needs && told.insert(Some(target)) {
            stack.extend(core.iter().rev().copied().filter(|next| next.asker == Some(target)));
        }
    }
    // A fact that no chain leads to remains only when narrowing was cut short.
    let left = core.iter().copied().filter(|g| g.asker.is_some() && !told.contains(&g.asker));
    order.extend(left);
    order
}

fn because(catalog: &Catalog, core: &[&Group], group: &Group) -> Because {
    let asker = match group.asker {
        None => Asker::Request,
        Some(name) => {
            // The releases that anything asks for; others with the same link are no news.
            let asked = |release: &&ReleaseIx| {
                core.iter().any(|other| {
                    other.kind == Kind::Needs
                        && catalog.set_name(other.set) == name
                        && catalog.admits(other.set, **release)
                })
            };
            let mut versions: Vec<_> = group
                .releases
                .iter()
                .filter(asked)
                .map(|&release| catalog.candidate(release).version.clone())
                .collect();
            versions.sort();
            Asker::Plugin { plugin: catalog.name(name).clone(), versions }
        }
    };
    Because {
        asker,
        relation: match group.kind {
            Kind::Needs => Relation::Needs,
            Kind::Bounds => Relation::WorksWith,
            Kind::Avoids => Relation::Excludes,
        },
        plugin: catalog.name(catalog.set_name(group.set)).clone(),
        requirement: catalog.requirement(group.set).clone(),
    }
}

/// The plugin and its versions, if the facts together leave none of them.
fn dead_end(catalog: &Catalog, order: &[&Group], name: NameIx) -> Option<DeadEnd> {
    let mut newest_first: Vec<_> = catalog.candidates(name).iter().collect();
    newest_first.sort_by(|a, b| b.version.cmp(&a.version));
    let mut versions = Vec::with_capacity(newest_first.len());
    for candidate in newest_first {
        let against = order.iter().position(|group| {
            catalog.set_name(group.set) == name
                && !catalog.admits_version(group.set, &candidate.version)
        });
        let verdict = match against {
            Some(because) => {
                let mut release_only = candidate.version.clone();
                release_only.pre = semver::Prerelease::EMPTY;
                let pre_release = !candidate.version.pre.is_empty()
                    && catalog.admits_version(order[because].set, &release_only);
                Verdict::Contradicts { because, pre_release }
            }
            None => Verdict::Excluded(catalog.exclusion(name, candidate)?),
        };
        versions.push(Considered { version: candidate.version.clone(), verdict });
    }
    let exists = !versions.is_empty();
    let plugin = catalog.name(name).clone();
    let nearest =
        if exists { None } else { nearest(&plugin, catalog.names_not_missing()).cloned() };
    Some(DeadEnd { plugin, exists, nearest, versions })
}

fn advice(because: &[Because], dead_ends: &[DeadEnd], catalog: &Catalog) -> Vec<String> {
    let mut advice: Vec<String> = Vec::new();
    for end in dead_ends {
        of_dead_end(end, because, catalog, &mut advice);
    }
    let mut asked: Vec<&PluginName> = because
        .iter()
        .filter(|fact| fact.asker == Asker::Request)
        .map(|fact| &fact.plugin)
        .collect();
    asked.dedup();
    if let [others @ .., last] = asked.as_slice() {
        let others: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
        let list = if others.is_empty() {
            last.to_string()
        } else {
            format!("{} or {last}", others.join(", "))
        };
        advice.push(format!("or change what the request asks of {list}"));
    }
    if let [only] = advice.as_mut_slice()
        && let Some(rest) = only.strip_prefix("or ")
    {
        *only = rest.to_owned();
    }
    advice
}

fn of_dead_end(end: &DeadEnd, because: &[Because], catalog: &Catalog, advice: &mut Vec<String>) {
    let plugin = &end.plugin;
    if !end.exists {
        advice.push(match &end.nearest {
            Some(near) => format!("did you mean {near}?"),
            None => format!(
                "check the spelling of {plugin}, and that this host may read a private organisation"
            ),
        });
        return;
    }
    let mut said = BTreeSet::new();
    for Considered { version, verdict } in &end.versions {
        let Some((topic, text)) = remedy(plugin, version, verdict, catalog) else { continue };
        if said.insert(topic) {
            advice.push(text);
        }
    }
    // One asker and nothing in its range: say what there is.
    let askers: Vec<&Because> = because.iter().filter(|fact| fact.plugin == *plugin).collect();
    if let [Because { asker, relation: Relation::Needs, .. }] = askers.as_slice()
        && said.is_empty()
    {
        let usable = end
            .versions
            .iter()
            .find(|v| v.version.pre.is_empty() && usable_at_all(catalog, plugin, &v.version));
        if let Some(Considered { version, .. }) = usable {
            let text = match asker {
                Asker::Request => format!("ask for {plugin} ^{version}, the newest usable one"),
                Asker::Plugin { plugin: asker, .. } => format!(
                    "the newest usable version of {plugin} is {version}; \
                     look for a version of {asker} that takes it"
                ),
            };
            advice.push(text);
        }
    }
}

fn usable_at_all(catalog: &Catalog, plugin: &PluginName, version: &semver::Version) -> bool {
    catalog.find(plugin).is_some_and(|name| {
        catalog
            .candidates(name)
            .iter()
            .any(|c| c.version == *version && catalog.exclusion(name, c).is_none())
    })
}

/// What would make this version usable; the first part tells advice of one kind from others.
fn remedy(
    plugin: &PluginName,
    version: &semver::Version,
    verdict: &Verdict,
    catalog: &Catalog,
) -> Option<(u8, String)> {
    match verdict {
        Verdict::Contradicts { pre_release: true, .. } => {
            Some((0, format!("to accept the pre-release, ask for {plugin} ={version}")))
        }
        Verdict::Contradicts { .. } => None,
        Verdict::Excluded(exclusion) => match exclusion {
            Exclusion::Yanked => Some((
                1,
                format!(
                    "a yanked version is used only where a lock file names it; \
                     ask the owner of {plugin} for a new release"
                ),
            )),
            Exclusion::Quarantined { .. } | Exclusion::Removed => Some((
                2,
                format!("the registry withdrew {plugin} {version}; choose other versions"),
            )),
            Exclusion::HostVersion { .. } => {
                Some((3, format!("change the host's version to run {plugin} {version}")))
            }
            Exclusion::HostAbi { .. } => {
                Some((4, format!("use a host that loads the native ABI of {plugin} {version}")))
            }
            Exclusion::NoBuild { builds } => {
                let host = catalog.host();
                let libc = match host.libc {
                    Some(libc) => format!(" with glibc {libc} or older"),
                    None => String::new(),
                };
                let wasm = builds.iter().any(|m| matches!(m.build, BuildTarget::Wasm { .. }));
                let wasm = match &host.world {
                    Some(world) if !wasm => format!(" or for wasm, world {world}"),
                    _ => String::new(),
                };
                Some((
                    5,
                    format!(
                        "ask the owner of {plugin} for a build for {}{libc}{wasm}",
                        host.target
                    ),
                ))
            }
            Exclusion::Policy { .. } => Some((
                7,
                "change [policy] in the agent's configuration only if you mean it for every plugin"
                    .to_owned(),
            )),
            Exclusion::Ambiguous => Some((
                6,
                format!("tell the registry: its index lists {plugin} {version} more than once"),
            )),
            Exclusion::ContradictsItself => None,
        },
    }
}
