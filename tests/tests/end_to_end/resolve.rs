//! Requests that cannot be satisfied, and the report that says why.

use modunest_tests::agent::Host;
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::Registry;
use modunest_tests::stable::stable;

#[tokio::test]
async fn reports_say_what_is_missing_and_what_conflicts() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    for plugin in [
        Plugin::new("acme/base", "1.0.0"),
        Plugin::new("acme/base", "2.0.0"),
        Plugin::new("acme/left", "1.0.0").needs("acme/base", "^1"),
        Plugin::new("acme/right", "1.0.0").needs("acme/base", "^2"),
        Plugin::new("acme/orphan", "1.0.0").needs("acme/bass", "^1"),
        Plugin::new("acme/ahead", "1.0.0").needs("acme/base", "^3"),
        Plugin::new("acme/rival", "1.0.0").section("[incompatible]\n\"acme/base\" = \"^1\""),
    ] {
        publisher.publish(&plugin.pack()).await;
    }
    let cases: [&[&str]; 5] = [
        &["acme/orphan"],
        &["acme/left", "acme/right"],
        &["acme/ahead"],
        &["acme/left", "acme/rival"],
        &["acme/nothing"],
    ];
    let mut shown = String::new();
    for wanted in cases {
        let mut host = Host::of(&registry).await;
        for plugin in wanted {
            host = host.wants(plugin, "^1");
        }
        let resolved = host.run(&["resolve"]);
        assert_eq!(resolved.code, Some(5), "{resolved:?}");
        shown.push_str(&format!("# {}\n{}\n", wanted.join(" + "), resolved.stderr.trim()));
    }
    insta::assert_snapshot!(stable(&shown));
    let fine = Host::of(&registry).await.wants("acme/left", "^1").run(&["resolve"]).good();
    insta::assert_snapshot!(stable(&fine.stdout));
}

#[tokio::test]
async fn a_configuration_that_is_wrong_names_the_place() {
    let registry = Registry::start().await;
    let host = Host::of(&registry).await.wants("acme/one", "not a version");
    let checked = host.run(&["config", "check"]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.stderr.contains("agent.toml:"), "{checked:?}");
    // The trust root that it names is looked at as well.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.json");
    for (content, says) in [(None, "cannot read the trust root"), (Some("{}"), "is not valid")] {
        if let Some(content) = content {
            std::fs::write(&root, content).unwrap();
        }
        let checked = Host::rooted(registry.started.url.clone(), &root).run(&["config", "check"]);
        assert_ne!(checked.code, Some(0), "{checked:?}");
        assert!(checked.stderr.contains(says), "{checked:?}");
        assert!(checked.stderr.contains("whoever runs the registry"), "{checked:?}");
    }
}
