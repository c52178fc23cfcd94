//! The resolver against a brute-force oracle on small random registries.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const NAMES: [&str; 5] = ["aa", "bb", "cc", "dd", "ee"];
/// Mentioned, but in no registry.
const MISSING: &str = "zz";
const VERSIONS: [&str; 5] = ["0.1.0", "1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"];
const REQUIREMENTS: [&str; 8] = ["*", "*", "^1", "^2", ">=1.1", "<2", "=1.0.0", ">=2.0.0-rc.1"];

fn link() -> impl Strategy<Value = String> {
    let mut targets = NAMES.repeat(4);
    targets.push(MISSING);
    (select(vec!["", "", "", "", "?", "!"]), select(targets), select(REQUIREMENTS.to_vec()))
        .prop_map(|(kind, target, requirement)| match kind {
            "!" => format!("!{target} {requirement}"),
            kind => format!("{target}{kind} {requirement}"),
        })
}

fn candidate(text: &'static str) -> impl Strategy<Value = Candidate> {
    let status = prop_oneof![
        12 => Just(Status::Active),
        1 => Just(Status::Deprecated("old".to_owned())),
        2 => Just(Status::Yanked),
        1 => Just(Status::Quarantined("it phones home".to_owned())),
        1 => Just(Status::Refused("has no verdict".to_owned())),
        1 => Just(Status::Removed),
    ];
    (prop::collection::vec(link(), 0..4), status, 0..12_u8).prop_map(move |(links, status, fit)| {
        let mut candidate = Candidate { status, ..release(text, &links.join(",")) };
        match fit {
            0 => candidate.builds = vec![wasm("3.0.0")],
            1 => candidate.host.abi = 7,
            2 => candidate.builds.insert(0, wasm("1.0.0")),
            _ => {}
        }
        candidate
    })
}

fn plugin() -> impl Strategy<Value = Vec<Candidate>> {
    VERSIONS
        .map(|text| prop::option::weighted(0.7, candidate(text)))
        .prop_map(|versions| versions.into_iter().flatten().collect())
}

fn registry() -> impl Strategy<Value = Registry> {
    prop::collection::vec(plugin(), NAMES.len())
        .prop_map(|plugins| Registry(NAMES.iter().map(|text| name(text)).zip(plugins).collect()))
}

fn request() -> impl Strategy<Value = Request> {
    let root = (select(NAMES.to_vec()), select(REQUIREMENTS.to_vec()))
        .prop_map(|(plugin, requirement)| format!("{plugin} {requirement}"));
    let locked =
        prop::collection::btree_map(select(NAMES.to_vec()), select(VERSIONS.to_vec()), 0..3);
    (prop::collection::vec(root, 1..4), locked).prop_map(|(roots, locked)| {
        let locked: Vec<(&str, &str)> = locked.into_iter().collect();
        locking(want(&roots.join(",")), &locked)
    })
}

type Choice<'a> = BTreeMap<&'a PluginName, &'a Candidate>;

/// Whether a candidate may be used at all, said as plainly as possible.
fn allowed(request: &Request, plugin: &PluginName, candidate: &Candidate) -> bool {
    let status = match candidate.status {
        Status::Active | Status::Deprecated(_) => true,
        Status::Yanked => request.locked.get(plugin) == Some(&candidate.version),
        Status::Quarantined(_) | Status::Refused(_) | Status::Removed => false,
    };
    status
        && request.host.admits(&candidate.host).is_ok()
        && candidate.builds.iter().any(|build| request.host.runs(build).is_ok())
}

fn satisfies(request: &Request, choice: &Choice<'_>) -> bool {
    let has = |plugin: &PluginName, requirement: &VersionReq| {
        choice.get(plugin).map(|candidate| requirement.matches(&candidate.version))
    };
    request.roots.iter().all(|root| has(&root.plugin, &root.requirement) == Some(true))
        && choice.iter().all(|(plugin, candidate)| {
            allowed(request, plugin, candidate)
                && candidate
                    .dependencies
                    .iter()
                    .all(|d| has(&d.plugin, &d.requirement).unwrap_or(d.optional))
                && candidate
                    .incompatible
                    .iter()
                    .all(|i| has(&i.plugin, &i.requirement) != Some(true))
        })
}

/// Every choice there is.
fn choices(registry: &Registry) -> Vec<Choice<'_>> {
    let mut all = vec![Choice::new()];
    for (plugin, candidates) in &registry.0 {
        let with: Vec<Choice<'_>> = all
            .iter()
            .flat_map(|choice| {
                candidates.iter().map(move |candidate| {
                    let mut choice = choice.clone();
                    choice.insert(plugin, candidate);
                    choice
                })
            })
            .collect();
        all.extend(with);
    }
    all
}

/// The candidates in the order in which they are tried.
fn preferred<'a>(
    request: &Request,
    plugin: &PluginName,
    candidates: &'a [Candidate],
) -> Vec<&'a Candidate> {
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    let locked = request.locked.get(plugin);
    order.sort_by_key(|c| (locked == Some(&c.version), c.version.clone()));
    order.reverse();
    order
}

/// What is reached from the roots by always taking the first allowed candidate that the
/// asking requirement matches; nothing if two askers differ.
fn first_everywhere<'a>(request: &Request, registry: &'a Registry) -> Option<Choice<'a>> {
    let mut choice = Choice::new();
    let mut queue: Vec<(PluginName, VersionReq)> =
        request.roots.iter().map(|r| (r.plugin.clone(), r.requirement.clone())).collect();
    while let Some((plugin, requirement)) = queue.pop() {
        let (plugin, candidates) = registry.0.get_key_value(&plugin)?;
        let first = preferred(request, plugin, candidates)
            .into_iter()
            .find(|c| allowed(request, plugin, c) && requirement.matches(&c.version))?;
        match choice.insert(plugin, first) {
            Some(before) if before.version != first.version => return None,
            Some(_) => {}
            None => queue.extend(
                first
                    .dependencies
                    .iter()
                    .filter(|d| !d.optional)
                    .map(|d| (d.plugin.clone(), d.requirement.clone())),
            ),
        }
    }
    Some(choice)
}

fn as_choice<'a>(registry: &'a Registry, solution: &Solution) -> Choice<'a> {
    solution
        .chosen
        .iter()
        .map(|(plugin, chosen)| {
            let (plugin, candidates) = registry.0.get_key_value(plugin).unwrap();
            (plugin, candidates.iter().find(|c| c.version == chosen.version).unwrap())
        })
        .collect()
}

/// Checks everything a solution says about itself.
fn check(request: &Request, registry: &Registry, solution: &Solution) {
    let choice = as_choice(registry, solution);
    assert!(satisfies(request, &choice), "{solution:?}");

    let mut reached = BTreeSet::new();
    let mut queue: Vec<&PluginName> = request.roots.iter().map(|root| &root.plugin).collect();
    while let Some(plugin) = queue.pop() {
        if reached.insert(plugin) {
            let needed = choice[plugin].dependencies.iter().filter(|d| !d.optional);
            queue.extend(needed.map(|d| &d.plugin));
        }
    }
    assert!(choice.keys().all(|plugin| reached.contains(plugin)), "superfluous: {solution:?}");

    assert!(solution.edges.keys().eq(solution.chosen.keys()));
    for (plugin, candidate) in &choice {
        let mut edges: BTreeMap<&PluginName, bool> = BTreeMap::new();
        for d in candidate.dependencies.iter().filter(|d| d.plugin != **plugin) {
            if choice.contains_key(&d.plugin) {
                *edges.entry(&d.plugin).or_insert(true) &= d.optional;
            }
        }
        let given: BTreeMap<&PluginName, bool> =
            solution.edges[*plugin].iter().map(|e| (&e.plugin, e.optional)).collect();
        assert_eq!(given, edges);
        let build = &candidate.builds[solution.chosen[*plugin].build_index];
        assert!(request.host.runs(build).is_ok());
    }
}

/// Resolves with everything handed over at the start, in an order of the caller's choice.
fn run_at_once(mut request: Request, registry: &Registry, shuffle: &[Index]) -> Step {
    let mut plugins: Vec<(PluginName, Vec<Candidate>)> =
        registry.0.clone().into_iter().chain([(name(MISSING), Vec::new())]).collect();
    for (position, index) in shuffle.iter().enumerate() {
        let count = plugins.len();
        plugins.swap(position % count, index.index(count));
        let candidates = &mut plugins[position % count].1;
        if !candidates.is_empty() {
            let count = candidates.len();
            candidates.rotate_left(index.index(count));
        }
        let count = request.roots.len();
        request.roots.swap(position % count, index.index(count));
    }
    let mut resolver = Resolver::new(request);
    for (plugin, candidates) in plugins {
        resolver.provide(&plugin, candidates);
    }
    resolver.step()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle(registry in registry(), request in request()) {
        let solutions: Vec<Choice<'_>> = choices(&registry)
            .into_iter()
            .filter(|choice| satisfies(&request, choice))
            .collect();
        match registry.run(request.clone()).0 {
            Step::Done(solution) => {
                check(&request, &registry, &solution);
                let choice = as_choice(&registry, &solution);
                if let Some(first) = first_everywhere(&request, &registry)
                    && satisfies(&request, &first)
                {
                    prop_assert_eq!(&choice, &first);
                }
                if let [root] = request.roots.as_slice() {
                    let order = preferred(&request, &root.plugin, &registry.0[&root.plugin]);
                    let best = order
                        .into_iter()
                        .find(|c| solutions.iter().any(|s| s[&root.plugin] == *c))
                        .unwrap();
                    prop_assert_eq!(choice[&root.plugin], best);
                }
            }
            Step::NoSolution(report) => {
                prop_assert!(solutions.is_empty(), "{report}\nbut {:?}", solutions[0]);
                prop_assert!(!report.dead_ends.is_empty(), "{report}");
                prop_assert!(!report.because.is_empty(), "{report}");
            }
            step => prop_assert!(false, "{step:?}"),
        }
    }

    #[test]
    fn order_has_no_influence(
        registry in registry(),
        request in request(),
        shuffle in prop::collection::vec(any::<Index>(), 6),
    ) {
        let stepwise = format!("{:?}", registry.run(request.clone()).0);
        for rotation in 0..3 {
            let mut shuffle = shuffle.clone();
            shuffle.rotate_left(rotation);
            let at_once = run_at_once(request.clone(), &registry, &shuffle);
            prop_assert_eq!(&stepwise, &format!("{:?}", at_once));
        }
    }

    #[test]
    fn a_report_names_facts_of_the_registry(registry in registry(), request in request()) {
        if let Step::NoSolution(report) = registry.run(request.clone()).0 {
            for fact in &report.because {
                let about = |d: &Dependency| {
                    d.plugin == fact.plugin && d.requirement == fact.requirement
                };
                let found = match &fact.asker {
                    Asker::Request => request.roots.iter().any(|r| {
                        r.plugin == fact.plugin && r.requirement == fact.requirement
                    }),
                    Asker::Plugin { plugin, versions } => {
                        let of = &registry.0[plugin];
                        !versions.is_empty() && versions.iter().all(|v| {
                            let c = of.iter().find(|c| c.version == *v).unwrap();
                            match fact.relation {
                                Relation::Needs => c.dependencies.iter().any(|d| about(d) && !d.optional),
                                Relation::WorksWith => c.dependencies.iter().any(|d| about(d) && d.optional),
                                Relation::Excludes => c.incompatible.iter().any(|i| {
                                    i.plugin == fact.plugin && i.requirement == fact.requirement
                                }),
                            }
                        })
                    }
                };
                prop_assert!(found, "{report}");
            }
        }
    }
}
