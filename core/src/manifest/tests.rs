//! Good manifests, every rule broken once, and the schema held against the parser.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::Value;

use super::sections::{DEPENDENCY_KEYS, KEYS, NATIVE_KEYS, WASM_KEYS};
use super::*;

const SMALL: &str = r#"[plugin]
name = "demo/gallery"
version = "1.0.0"
description = "Shows a folder of images"
authors = ["Ada Example"]
license = "MIT"

[host]
abi = 1
"#;

const FULL: &str = include_str!("../../../fuzz/corpus/manifest/good-full.toml");

#[test]
fn small() {
    let manifest = Manifest::parse(SMALL).unwrap();
    assert_eq!(manifest.name.as_str(), "demo/gallery");
    assert_eq!(manifest.host, HostRequirement { abi: 1, version: None });
    assert_eq!(manifest.build.native.as_deref(), Some("demo_gallery"));
    assert!(manifest.capability_texts().is_empty() && !manifest.critical);
}

#[test]
fn full() {
    let manifest = Manifest::parse(FULL).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_json_snapshot!(manifest);
    assert_eq!(
        manifest.capability_texts(),
        [
            "files:private",
            "files:read:/srv/photos",
            "http:*.example.org",
            "kv:cache",
            "clock:wall",
            "random:secure",
            "env:TZ",
            "services:demo/thumbnail:resize",
            "events:demo/markdown:changed",
            "services:demo/markdown:render",
        ]
    );
    let schemas = ["schema/page.json", "schema/page-answer.json", "schema/image-added.json"];
    let named: Vec<_> = ["README.md", "config.schema.json"].into_iter().chain(schemas).collect();
    assert_eq!(manifest.file_names().collect::<Vec<_>>(), named);
}

#[test]
fn problems_are_shown_with_their_place() {
    let text = r#"[plugin]
name = "Demo/gallery"
version = "1.0"
description = "short"
licence = "MIT"
authors = []
critical = "yes"

[host]
abi = 9

[dependencies]
"demo/markdown" = "^one"

[[route]]
path = "gallery"
methods = ["GET", "FETCH"]
guards = ["staff"]

[[import]]
plugin = "demo/thumbnail"
service = "resize"
"#;
    let error = Manifest::parse(text).unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn syntax_errors_come_alone() {
    let error = Manifest::parse("[plugin\nname = \"demo/a\"\nx = = 1\n").unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn an_empty_file_names_what_is_missing() {
    insta::assert_snapshot!(Manifest::parse("").unwrap_err());
}

/// Appends `more` to the small manifest and gives the problems as `key: rule`.
fn problems(more: &str) -> Vec<String> {
    match Manifest::parse(&format!("{SMALL}{more}")) {
        Ok(_) => vec![],
        Err(error) => error.problems().iter().map(|p| format!("{}: {}", p.key, p.rule)).collect(),
    }
}

#[test]
fn each_rule() {
    let with_dependency =
        |more: &str| problems(&format!("[dependencies]\n\"demo/other\" = \"^1\"\n{more}"));
    let mut seen = Vec::new();
    for more in [
        "[plugins]\n",
        "requires = 1\n",
        "[dependencies]\n\"demo/gallery\" = \"1\"\n",
        "[dependencies]\nother = \"1\"\n",
        "[dependencies]\n\"demo/other\" = { verison = \"1\" }\n",
        "[dependencies]\n\"demo/other\" = 1\n",
        "[incompatible]\n\"demo/other\" = \"!\"\n",
        "[[service]]\nname = \"a\"\nversion = \"1.0.0+x\"\n",
        "[[service]]\nname = \"ab\"\nversion = \"1.0.0\"\n[[service]]\nname = \"ab\"\nversion = \"2.0.0\"\n",
        "[service]\nname = \"ab\"\n",
        "[[route]]\npath = \"/a\"\nmethods = []\n",
        "[[route]]\npath = \"/a\"\n[[route]]\npath = \"/a\"\nmethods = [\"POST\", \"POST\"]\n",
        "[[guard]]\nexported = 1\n",
        "[[event]]\nname = \"ab\"\nfrom = \"demo/other\"\n",
        "[[event]]\nname = \"ab\"\n[[event]]\nname = \"ab\"\n",
        "[[event]]\nname = \"ab\"\nqueue = 4\nwhen_full = \"drop\"\n",
        "[[service]]\nname = \"ab\"\nversion = \"1.0.0\"\nmethods = [\"aa\", \"aa\", \"B\"]\nrequest = \"/etc/x\"\nguards = [\"none\"]\n",
        "[config]\nschema = \"../x\"\n",
        "[capabilities]\nhttp = [\"https://x\"]\nfiles = \"private\"\nnet = []\n",
        "[capabilities]\nkv = [\"aa\", \"aa\"]\nservices = [\"demo/other:render\"]\n",
        "[build]\nnative = { library = \"a-b\" }\ninclude = [\"lib\", \"/etc\", \"assets\"]\n",
        "[build]\nwasm = { library = \"ab\" }\n",
        "[lifecycle]\nactivation = [\"route\", \"route\", \"call\"]\nload_timeout_ms = 0\n",
        "[state]\naccepts = [0, \"1\"]\n",
        "[[schedule]]\nname = \"ab\"\ncron = \"@daily\"\n[[schedule]]\nname = \"ab\"\ncron = \"* 24 * * *\"\n",
    ] {
        let found = problems(more);
        assert!(!found.is_empty(), "{more}");
        seen.push(found);
    }
    for more in [
        "[[route]]\npath = \"/a\"\nguards = [\"demo/third:staff\", \"demo/other:Staff\"]\n",
        "[[event]]\nname = \"ab\"\nfrom = \"demo/other\"\nschema = \"x.json\"\nwhen_full = \"wait\"\nqueue = 0\n",
        "[[import]]\nplugin = \"demo/other\"\nservice = \"ab\"\nversion = \"one\"\n",
        "[[import]]\nplugin = \"demo/other\"\nservice = \"ab\"\n[[import]]\nplugin = \"demo/other\"\nservice = \"ab\"\n",
    ] {
        seen.push(with_dependency(more));
    }
    insta::assert_json_snapshot!(seen);
}

#[test]
fn limits() {
    let long = format!("{SMALL}#{}", "x".repeat(MANIFEST_MAX_BYTES));
    assert!(Manifest::parse(&long).unwrap_err().to_string().contains("at most 65536"));
    let many: String = (0..LIST_MAX + 1).map(|n| format!("\"demo/p{n}\" = \"1\"\n")).collect();
    assert_eq!(
        problems(&format!("[dependencies]\n{many}")),
        ["dependencies: `dependencies` has 65 entries; at most 64 are allowed"]
    );
    let unknown: String = (0..200).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(Manifest::parse(&unknown).unwrap_err().problems().len(), PROBLEMS_MAX);
    let implied: String = (0..40)
        .map(|n| format!("[[import]]\nplugin = \"demo/other\"\nservice = \"s{n}\"\n"))
        .collect();
    let variables: Vec<String> = (0..40).map(|n| format!("\"A{n}\"")).collect();
    let both = format!(
        "[dependencies]\n\"demo/other\" = \"1\"\n[capabilities]\nenv = [{}]\n{implied}",
        variables.join(",")
    );
    assert!(problems(&both)[0].contains("are 80 together"));
    assert!(
        Manifest::parse_bytes(b"[plugin]\nname = \"\xff\"")
            .unwrap_err()
            .to_string()
            .contains("2:9")
    );
}

/// Keys that an object of the schema lists.
fn properties(schema: &Value) -> Vec<&str> {
    schema["properties"]
        .as_object()
        .map(|map| map.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

fn sorted<'k>(keys: impl IntoIterator<Item = &'k str>) -> Vec<&'k str> {
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable();
    keys
}

#[test]
fn schema_and_parser_know_the_same_keys() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(sorted(properties(&schema)), sorted(KEYS.iter().map(|(section, _)| *section)));
    let sections = &schema["properties"];
    for (section, keys) in KEYS {
        let object = sections[section].get("items").unwrap_or(&sections[section]);
        assert_eq!(sorted(properties(object)), sorted(keys.iter().copied()), "{section}");
    }
    let table = &sections["dependencies"]["additionalProperties"]["oneOf"][1];
    assert_eq!(sorted(properties(table)), sorted(DEPENDENCY_KEYS.iter().copied()));
    let build = &sections["build"]["properties"];
    assert_eq!(sorted(properties(&build["native"])), sorted(NATIVE_KEYS.iter().copied()));
    assert_eq!(sorted(properties(&build["wasm"])), sorted(WASM_KEYS.iter().copied()));
}

/// Every required key of the schema is required by the parser, and the other way round.
#[test]
fn schema_and_parser_require_the_same_keys() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let required = |path: &str| -> Vec<String> {
        let list = schema.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    let missing = |text: &str| -> Vec<String> {
        let error = Manifest::parse(text).unwrap_err();
        error
            .problems()
            .iter()
            .filter(|p| p.rule.ends_with("is missing"))
            .map(|p| p.key.rsplit('.').next().unwrap().to_owned())
            .collect()
    };
    let same = |mut a: Vec<String>, mut b: Vec<String>| {
        a.sort();
        b.sort();
        assert_eq!(a, b);
    };
    same(missing(""), required("/required"));
    same(missing("[plugin]\n[host]\nabi = 1"), required("/properties/plugin/required"));
    same(missing(&SMALL.replace("abi = 1", "")), required("/properties/host/required"));
    for section in ["service", "import", "route", "guard", "event", "schedule"] {
        same(
            missing(&format!("{SMALL}[[{section}]]\n")),
            required(&format!("/properties/{section}/items/required")),
        );
    }
    for section in ["config", "state"] {
        same(
            missing(&format!("{SMALL}[{section}]\n")),
            required(&format!("/properties/{section}/required")),
        );
    }
    for part in ["native", "wasm"] {
        same(
            missing(&format!("{SMALL}[build]\n{part} = {{}}\n")),
            required(&format!("/properties/build/properties/{part}/required")),
        );
    }
    let table = format!("{SMALL}[dependencies]\n\"demo/other\" = {{}}\n");
    same(
        missing(&table),
        required("/properties/dependencies/additionalProperties/oneOf/1/required"),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn damaged_manifests_never_panic(changes in prop::collection::vec((0u8..3, any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (kind, at, value) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                _ => { bytes.remove(at); }
            }
        }
        check_invariants(&bytes);
    }
}
