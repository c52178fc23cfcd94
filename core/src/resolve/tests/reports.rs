//! Every kind of report, as a person reads it.

use super::*;

fn shown(report: &Report) -> String {
    report.to_string()
}

#[test]
fn missing_plugin() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "markdwon ^1, markdown *")
        .plain("markdown", "1.0.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery ^1"))));
}

#[test]
fn missing_plugin_without_a_neighbour() {
    insta::assert_snapshot!(shown(&Registry::default().fail(want("gallery ^1"))));
}

#[test]
fn direct_conflict() {
    let registry = Registry::default()
        .plain("gallery", "2.0.0", "markdown ^1.2")
        .plain("markdown", "1.2.0", "")
        .plain("markdown", "2.0.0", "")
        .plain("other", "1.0.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery ^2, markdown ^2, other *"))));
}

#[test]
fn transitive_conflict() {
    let registry = Registry::default()
        .plain("gallery", "2.0.0", "pages ^1")
        .plain("gallery", "2.1.0", "pages ^1")
        .plain("pages", "1.0.0", "markdown ^1, unrelated *")
        .plain("pages", "1.1.0", "markdown ^1, unrelated *")
        .plain("pages", "1.2.0", "markdown ^1")
        .plain("pages", "1.3.0", "markdown ^1")
        .plain("blog", "3.0.0", "render ^4")
        .plain("render", "4.0.0", "markdown ~2.0")
        .plain("unrelated", "1.0.0", "")
        .plain("markdown", "1.2.0", "")
        .plain("markdown", "2.0.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery ^2, blog *, unrelated *"))));
}

#[test]
fn range_without_a_version() {
    let registry = Registry::default().plain("gallery", "1.0.0", "").plain("gallery", "1.4.2", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery ^2"))));
}

#[test]
fn dependency_range_without_a_version() {
    let registry =
        Registry::default().plain("gallery", "1.0.0", "markdown ^2").plain("markdown", "1.4.2", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery *"))));
}

#[test]
fn yanked_and_withdrawn_only() {
    let status = |text: &str, status: Status| Candidate { status, ..release(text, "") };
    let registry = Registry::default()
        .with("markdown", status("1.0.0", Status::Yanked))
        .with("markdown", status("1.1.0", Status::Yanked))
        .with("markdown", status("1.2.0", Status::Quarantined("it phones home".to_owned())))
        .with("markdown", status("1.3.0", Status::Removed));
    insta::assert_snapshot!(shown(&registry.fail(want("markdown ^1"))));
}

#[test]
fn no_fitting_build() {
    let builds = vec![
        native("aarch64-unknown-linux-gnu", None, 1),
        native(HERE, Some("2.39"), 1),
        wasm("2.0.0"),
    ];
    let registry = Registry::default()
        .with("markdown", Candidate { builds: builds[..2].to_vec(), ..release("1.0.0", "") })
        .with("markdown", Candidate { builds, ..release("1.1.0", "") })
        .with("markdown", Candidate { builds: Vec::new(), ..release("1.2.0", "") });
    insta::assert_snapshot!(shown(&registry.fail(want("markdown ^1"))));
}

#[test]
fn abi() {
    let host = HostRequirement { abi: 2, version: None };
    let registry = Registry::default().with("markdown", Candidate { host, ..release("1.0.0", "") });
    insta::assert_snapshot!(shown(&registry.fail(want("markdown ^1"))));
}

#[test]
fn host_version() {
    let host = HostRequirement { abi: 1, version: Some(">=0.3".parse().unwrap()) };
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "markdown *")
        .with("markdown", Candidate { host, ..release("1.0.0", "") });
    insta::assert_snapshot!(shown(&registry.fail(want("gallery *"))));
}

#[test]
fn incompatibility() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "!cache >=1")
        .plain("server", "1.0.0", "cache *")
        .plain("cache", "1.0.0", "")
        .plain("cache", "1.1.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery *, server *"))));
}

#[test]
fn optional_conflict() {
    let registry = Registry::default()
        .plain("gallery", "1.0.0", "cache? ^1")
        .plain("server", "1.0.0", "cache ^2")
        .plain("cache", "1.0.0", "")
        .plain("cache", "2.0.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("gallery *, server *"))));
}

#[test]
fn pre_release_only() {
    let registry =
        Registry::default().plain("markdown", "2.0.0-rc.1", "").plain("markdown", "2.0.0-rc.2", "");
    insta::assert_snapshot!(shown(&registry.fail(want("markdown ^2"))));
}

#[test]
fn contradicting_roots() {
    let registry =
        Registry::default().plain("markdown", "1.0.0", "").plain("markdown", "2.0.0", "");
    insta::assert_snapshot!(shown(&registry.fail(want("markdown ^1, markdown ^2"))));
}

#[test]
fn many_versions_are_shortened() {
    let mut registry = Registry::default().plain("markdown", "2.0.0", "");
    for minor in 0..20 {
        registry = registry.plain("gallery", &format!("1.{minor}.0"), "markdown ^1").plain(
            "markdown",
            &format!("1.{minor}.0"),
            "",
        );
    }
    insta::assert_snapshot!(shown(&registry.fail(want("gallery *, markdown ^2"))));
}

#[test]
fn as_data() {
    let registry = Registry::default()
        .plain("gallery", "2.0.0", "markdown ^1.2")
        .plain("markdown", "2.0.0", "");
    let report = registry.fail(want("gallery ^2"));
    insta::assert_json_snapshot!(report);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}
