//! Which versions are chosen, and what is asked for on the way.

use super::*;

#[test]
fn newest_that_fits_everyone() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "markdown ^1")
        .plain("gallery", "2.0.0", "markdown ^1.1, thumbnail *")
        .plain("markdown", "1.0.0", "")
        .plain("markdown", "1.2.0", "")
        .plain("markdown", "2.0.0", "")
        .plain("thumbnail", "0.3.0", "");
    let solution = registry.solve(want("gallery *"));
    assert_eq!(chosen(&solution), "gallery 2.0.0, markdown 1.2.0, thumbnail 0.3.0");
    let uses = |plugin: &str| -> Vec<&str> {
        solution.edges[&name(plugin)].iter().map(|edge| edge.plugin.short()).collect()
    };
    assert_eq!(uses("gallery"), ["markdown", "thumbnail"]);
    assert!(uses("markdown").is_empty());
    assert_eq!(
        chosen(&registry.solve(want("gallery *, markdown =1.0.0"))),
        "gallery 1.0.0, markdown 1.0.0"
    );
}

#[test]
fn locked_comes_first_while_it_fits() {
    let registry = Registry::default()
        .plain("markdown", "1.0.0", "")
        .plain("markdown", "1.1.0", "")
        .plain("markdown", "1.2.0", "");
    let with = |req: &str, locked: &str| {
        chosen(&registry.solve(locking(want(req), &[("markdown", locked)])))
    };
    assert_eq!(with("markdown ^1", "1.0.0"), "markdown 1.0.0");
    assert_eq!(with("markdown ^1.1", "1.0.0"), "markdown 1.2.0");
    assert_eq!(with("markdown ^1", "0.9.0"), "markdown 1.2.0");
}

#[test]
fn statuses() {
    let status = |text: &str, status: Status| Candidate { status, ..release(text, "") };
    let registry = Registry::default()
        .with("markdown", status("1.0.0", Status::Active))
        .with("markdown", status("1.1.0", Status::Deprecated("use 2".into())))
        .with("markdown", status("1.2.0", Status::Yanked))
        .with("markdown", status("1.3.0", Status::Quarantined("it phones home".to_owned())))
        .with("markdown", status("1.4.0", Status::Removed));
    let solution = registry.solve(want("markdown *"));
    assert_eq!(chosen(&solution), "markdown 1.1.0");
    assert_eq!(solution.warnings[0].to_string(), "demo/markdown 1.1.0 is deprecated: use 2");

    let solution = registry.solve(locking(want("markdown *"), &[("markdown", "1.2.0")]));
    assert_eq!(chosen(&solution), "markdown 1.2.0");
    assert_eq!(
        solution.warnings[0].to_string(),
        "demo/markdown 1.2.0 was yanked; it is used because the lock file names it"
    );

    let solution = registry.solve(locking(want("markdown *"), &[("markdown", "1.3.0")]));
    assert_eq!(chosen(&solution), "markdown 1.1.0");
}

#[test]
fn optional_bounds_and_gives_an_edge_but_brings_nothing() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "cache? ^1")
        .plain("server", "1.0.0", "cache *")
        .plain("cache", "1.5.0", "")
        .plain("cache", "2.0.0", "");
    let (step, rounds) = registry.run(want("gallery *"));
    let Step::Done(solution) = step else { panic!("{step:?}") };
    assert_eq!(chosen(&solution), "gallery 1.0.0");
    assert_eq!(rounds.len(), 1, "the optional plugin was not asked for");

    let solution = registry.solve(want("gallery *, server *"));
    assert_eq!(chosen(&solution), "cache 1.5.0, gallery 1.0.0, server 1.0.0");
    let edge = &solution.edges[&name("gallery")][0];
    assert_eq!((edge.plugin.short(), edge.optional), ("cache", true));
}

#[test]
fn incompatible_versions_are_avoided() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "!cache >=2")
        .plain("cache", "1.5.0", "")
        .plain("cache", "2.0.0", "");
    assert_eq!(chosen(&registry.solve(want("gallery *, cache *"))), "cache 1.5.0, gallery 1.0.0");
    assert_eq!(chosen(&registry.solve(want("gallery *"))), "gallery 1.0.0");
}

#[test]
fn builds_that_fit_native_before_wasm() {
    let with = |builds: Vec<BuildTarget>| Candidate { builds, ..release("1.0.0", "") };
    let foreign = || native("aarch64-unknown-linux-gnu", None, 1);
    let index = |builds| {
        let registry = Registry::default().with("markdown", with(builds));
        registry.solve(want("markdown *")).chosen[&name("markdown")].build_index
    };
    assert_eq!(index(vec![wasm("1.0.0"), foreign(), native(HERE, None, 1)]), 2);
    assert_eq!(index(vec![foreign(), wasm("2.0.0"), wasm("1.0.0")]), 2);

    let preferring = |builds| {
        let registry = Registry::default().with("markdown", with(builds));
        let mut request = want("markdown *");
        request.host.prefers_components = true;
        registry.solve(request).chosen[&name("markdown")].build_index
    };
    assert_eq!(preferring(vec![native(HERE, None, 1), wasm("2.0.0"), wasm("1.0.0")]), 2);
    assert_eq!(preferring(vec![wasm("2.0.0"), foreign(), native(HERE, None, 1)]), 2);

    let registry = Registry::default()
        .plain("markdown", "1.0.0", "")
        .with("markdown", Candidate { builds: vec![foreign()], ..release("1.1.0", "") });
    assert_eq!(chosen(&registry.solve(want("markdown *"))), "markdown 1.0.0");
}

#[test]
fn pre_releases_only_where_named() {
    let registry = Registry::default()
        .plain("markdown", "1.0.0", "")
        .plain("markdown", "2.0.0-rc.1", "")
        .plain("markdown", "2.0.0-rc.2", "");
    assert_eq!(chosen(&registry.solve(want("markdown *"))), "markdown 1.0.0");
    assert_eq!(chosen(&registry.solve(want("markdown >=2.0.0-rc.1"))), "markdown 2.0.0-rc.2");
}

#[test]
fn links_to_itself() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "gallery ^1, !gallery ^2")
        .plain("gallery", "1.1.0", "gallery ^2")
        .plain("gallery", "1.2.0", "!gallery ^1");
    assert_eq!(chosen(&registry.solve(want("gallery *"))), "gallery 1.0.0");
}

#[test]
fn cycles_are_fine() {
    let registry = Registry::default().plain("aa", "1.0.0", "bb *").plain("bb", "1.0.0", "aa ^1");
    assert_eq!(chosen(&registry.solve(want("aa *"))), "aa 1.0.0, bb 1.0.0");
}

#[test]
fn a_version_listed_twice_is_not_used() {
    let registry = Registry::default()
        .plain("markdown", "1.0.0", "")
        .plain("markdown", "1.1.0", "")
        .plain("markdown", "1.1.0", "thumbnail *");
    let request = locking(want("markdown *"), &[("markdown", "1.1.0")]);
    assert_eq!(chosen(&registry.solve(request)), "markdown 1.0.0");
}

#[test]
fn asks_in_few_rounds_and_only_for_what_may_be_used() {
    let registry = Registry::default()
        .plain("aa", "1.0.0", "old *")
        .plain("aa", "2.0.0", "bb *, cc *")
        .with("aa", Candidate { status: Status::Yanked, ..release("3.0.0", "yanked *") })
        .plain("bb", "1.0.0", "dd *")
        .plain("cc", "1.0.0", "dd *")
        .plain("dd", "1.0.0", "");
    let (_, rounds) = registry.run(want("aa *"));
    let rounds: Vec<Vec<&str>> =
        rounds.iter().map(|names| names.iter().map(|n| n.short()).collect()).collect();
    assert_eq!(rounds, [vec!["aa"], vec!["bb", "cc"], vec!["dd"]]);
}

#[test]
fn asks_for_everything_when_conflicts_lead_astray() {
    // Each version of `aa` needs a plugin of its own that conflicts with `pin`.
    let mut registry = Registry::default().plain("pin", "1.0.0", "");
    for minor in 0..40 {
        registry = registry.plain("aa", &format!("1.{minor}.0"), &format!("part{minor} *")).plain(
            &format!("part{minor}"),
            "1.0.0",
            if minor == 0 { "" } else { "pin ^2" },
        );
    }
    let (step, rounds) = registry.run(want("aa *, pin *"));
    let Step::Done(solution) = step else { panic!("{step:?}") };
    assert_eq!(chosen(&solution), "aa 1.0.0, part0 1.0.0, pin 1.0.0");
    assert!(rounds.len() <= 8, "{} rounds", rounds.len());
}

#[test]
fn a_missing_plugin_only_rules_out_its_users() {
    let registry = Registry::default().plain("aa", "1.0.0", "").plain("aa", "2.0.0", "missing *");
    assert_eq!(chosen(&registry.solve(want("aa *"))), "aa 1.0.0");
}

#[test]
fn limits_end_a_resolution() {
    let mut request = want("aa *");
    request.roots = (0..=ROOTS_MAX)
        .map(|i| Root { plugin: name(&format!("plugin{i}")), requirement: VersionReq::STAR })
        .collect();
    let step = Resolver::new(request).step();
    assert!(matches!(step, Step::Exceeded(Exceeded::Roots { .. })), "{step:?}");

    let mut resolver = Resolver::new(want("aa *"));
    let links: Vec<String> = (0..=LINKS_MAX).map(|i| format!("plugin{i} *")).collect();
    resolver.provide(&name("aa"), vec![release("1.0.0", &links.join(", "))]);
    let Step::Exceeded(exceeded) = resolver.step() else { panic!() };
    assert_eq!(
        exceeded.to_string(),
        "demo/aa 1.0.0 names 513 other plugins; at most 512 are allowed"
    );

    let mut resolver = Resolver::new(want("aa *"));
    let many: Vec<Candidate> =
        (0..=CANDIDATES_MAX).map(|i| release(&format!("1.{i}.0"), "")).collect();
    resolver.provide(&name("aa"), many);
    let step = resolver.step();
    assert!(matches!(step, Step::Exceeded(Exceeded::Candidates { .. })), "{step:?}");
}

#[test]
fn a_second_answer_changes_nothing() {
    let mut resolver = Resolver::new(want("aa *"));
    resolver.provide(&name("aa"), vec![release("1.0.0", "")]);
    resolver.provide(&name("aa"), vec![release("2.0.0", "")]);
    let Step::Done(solution) = resolver.step() else { panic!() };
    assert_eq!(chosen(&solution), "aa 1.0.0");
}

#[test]
fn nothing_asked_nothing_chosen() {
    let request = Request { roots: Vec::new(), locked: BTreeMap::new(), host: host() };
    let solution = Registry::default().solve(request);
    assert!(solution.chosen.is_empty() && solution.edges.is_empty());
}
