//! Manifests that break a rule, or say something else than the release does.

use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::run;
use modunest_tests::registry::{Folder, Registry, command};
use modunest_tests::stable::stable;

#[tokio::test]
async fn the_registry_rejects_what_is_no_manifest() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let plugin = Plugin::new("acme/one", "1.0.0");
    let good = plugin.manifest();
    let cases = [
        ("unknown field", good.replace("license =", "licence = \"MIT\"\nlicense =")),
        ("unknown section", format!("{good}\n[hosts]\nabi = 1\n")),
        ("no TOML", "[plugin\n".to_owned()),
        ("another version", good.replace("1.0.0", "1.0.1")),
        (
            "another dependency",
            good.replace("[build]", "[dependencies]\n\"acme/two\" = \"^1\"\n[build]"),
        ),
        ("an absent README", good.replace("license =", "readme = \"README.md\"\nlicense =")),
    ];
    let mut shown = String::new();
    for (name, packed) in cases {
        let view = publisher.attempt(&plugin.pack_with(&good, &packed)).await.unwrap();
        assert_eq!(view.state, State::Rejected, "{name}");
        let problem = view.rejection.unwrap();
        assert!(
            matches!(problem.code, Code::InvalidManifest | Code::InvalidArchive),
            "{problem:?}"
        );
        shown.push_str(&format!("{name}: {}\n", problem.detail));
        for error in problem.errors {
            shown.push_str(&format!("  {}: {}\n", error.place, error.rule));
        }
    }
    insta::assert_snapshot!(stable(&shown));
}

#[test]
fn the_command_shows_place_rule_and_way_out() {
    let folder = Folder::new();
    let plugin = folder.file("plugin");
    std::fs::create_dir_all(&plugin).unwrap();
    let text = Plugin::new("acme/one", "1.0.0").manifest();
    let text = text.replace("license =", "licence =").replace("\"1.0.0\"", "\"1.0\"");
    std::fs::write(plugin.join("plugin.toml"), text).unwrap();
    let checked = run(command().arg("check").current_dir(&plugin));
    assert_eq!(checked.code, Some(3), "{checked:?}");
    insta::assert_snapshot!(checked.stderr);
}
