//! Rules about `Cargo.toml` files: who may depend on whom, and one table for all versions.

use std::collections::{BTreeSet, VecDeque};

use toml::{Table, Value};

use crate::tidy::Finding;
use crate::tidy::tree::Tree;

const ROOT: &str = "Cargo.toml";

/// What one of our packages may use of the others.
struct Boundary {
    package: &'static str,
    may_use: &'static [&'static str],
    /// Besides those, in tests only.
    may_test_with: &'static [&'static str],
}

const LOCAL: &[&str] = &["modunest-local", "modunest-runtime", "modunest-tlog"];

/// The design's table of rooms. `edge`, `functions` and `agent` never meet; `cli`, `bench` and `tests`
/// may use everything.
const BOUNDARIES: [Boundary; 9] = [
    Boundary { package: "modunest-tlog", may_use: &[], may_test_with: &[] },
    Boundary { package: "modunest-core", may_use: &["modunest-tlog"], may_test_with: &[] },
    Boundary { package: "modunest-sdk", may_use: &[], may_test_with: &[] },
    Boundary {
        package: "modunest-runtime",
        may_use: &["modunest-core", "modunest-tlog"],
        may_test_with: &[],
    },
    Boundary {
        package: "modunest-edge",
        may_use: &["modunest-core", "modunest-tlog", "modunest-runtime"],
        may_test_with: LOCAL,
    },
    Boundary {
        package: "modunest-functions",
        may_use: &["modunest-core", "modunest-tlog", "modunest-runtime"],
        may_test_with: LOCAL,
    },
    Boundary {
        package: "modunest-local",
        may_use: &["modunest-core", "modunest-runtime"],
        may_test_with: &[],
    },
    Boundary {
        package: "modunest-agent",
        may_use: &["modunest-core", "modunest-tlog", "modunest-runtime", "modunest-sdk"],
        may_test_with: LOCAL,
    },
    Boundary { package: "xtask", may_use: &[], may_test_with: &[] },
];

/// The packages that may use all others.
const UNBOUNDED: [&str; 3] = ["modunest", "modunest-bench", "modunest-tests"];

/// Plugins and whatever else a plugin author sees: they use the SDK and nothing behind it.
const AUTHOR_FOLDER: &str = "sdk/";
const AUTHOR_MAY_USE: &str = "modunest-sdk";

/// The workspace's table of dependencies, and its members' manifests.
struct Workspace {
    table: Table,
    members: Vec<Member>,
}

struct Member {
    path: String,
    text: String,
    manifest: Table,
}

struct Dependency<'a> {
    name: &'a str,
    value: &'a Value,
    is_dev: bool,
}

impl Workspace {
    /// Reads all manifests of the workspace. What cannot be read is itself a finding.
    fn read(tree: &Tree) -> Result<Self, Vec<Finding>> {
        let root = root(tree).map_err(|finding| vec![finding])?;
        let table = root.get("dependencies").and_then(Value::as_table).cloned();
        let (mut members, mut findings) = (Vec::<Member>::new(), Vec::new());
        let mut paths: VecDeque<String> =
            patterns(&root).iter().flat_map(|pattern| expand(tree, pattern)).collect();
        // What a member depends on by path is a member too, as cargo has it.
        while let Some(path) = paths.pop_front() {
            if members.iter().any(|member| member.path == path) {
                continue;
            }
            match parse(tree, &path) {
                Ok((text, manifest)) => {
                    let member = Member { path, text, manifest };
                    let found = member.dependencies();
                    let folders = found.iter().filter_map(|found| member.folder_of(found.value));
                    paths.extend(folders.map(|folder| format!("{folder}/{ROOT}")));
                    members.push(member);
                }
                Err(finding) => findings.push(finding),
            }
        }
        if findings.is_empty() {
            Ok(Self { table: table.unwrap_or_default(), members })
        } else {
            Err(findings)
        }
    }
}

/// Member patterns as written (`core`, `sdk/examples/*`).
pub fn member_patterns(tree: &Tree) -> Result<Vec<String>, Finding> {
    root(tree).map(|root| patterns(&root))
}

fn patterns(root: &Table) -> Vec<String> {
    let members = root.get("members").and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// The root manifest's `[workspace]`.
fn root(tree: &Tree) -> Result<Table, Finding> {
    let (_, root) = parse(tree, ROOT)?;
    Ok(root.get("workspace").and_then(Value::as_table).cloned().unwrap_or_default())
}

impl Member {
    fn package(&self) -> &str {
        let package = self.manifest.get("package").and_then(Value::as_table);
        package.and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or_default()
    }

    fn dependencies(&self) -> Vec<Dependency<'_>> {
        let mut found = Vec::new();
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(|targets| targets.values());
        for section in std::iter::once(&self.manifest).chain(targets.filter_map(Value::as_table)) {
            for (kind, is_dev) in
                [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
            {
                let table = section.get(kind).and_then(Value::as_table);
                let entries = table.into_iter().flatten();
                found.extend(entries.map(|(name, value)| Dependency { name, value, is_dev }));
            }
        }
        found
    }

    /// The folder, from the repository's top, that a dependency by path names.
    fn folder_of(&self, dependency: &Value) -> Option<String> {
        let path = dependency.as_table()?.get("path")?.as_str()?;
        let own = self.path.strip_suffix(ROOT).unwrap_or_default();
        let mut parts = Vec::new();
        for part in own.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }

    /// Whether this is a plugin, or what plugins share.
    fn is_author(&self) -> bool {
        self.path.starts_with(AUTHOR_FOLDER) && self.package() != AUTHOR_MAY_USE
    }

    /// The first line that starts with this word; 0 where none does.
    fn line_of(&self, word: &str) -> usize {
        let is_it = |line: &str| {
            let rest = line.trim_start().strip_prefix(word);
            rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=', ']']))
        };
        self.text.lines().position(is_it).map_or(0, |index| index + 1)
    }
}

fn parse(tree: &Tree, path: &str) -> Result<(String, Table), Finding> {
    let broken = |what: String| Finding {
        rule: "manifest",
        path: path.to_owned(),
        line: 0,
        what,
        way_out: "every workspace member has a readable Cargo.toml",
    };
    let file = tree.get(path).ok_or_else(|| broken("is missing".to_owned()))?;
    let table = file.text.parse::<Table>().map_err(|error| broken(error.message().to_owned()))?;
    Ok((file.text.clone(), table))
}

/// Manifests that a member pattern names; `*` is one whole folder name.
fn expand(tree: &Tree, pattern: &str) -> Vec<String> {
    let Some(parent) = pattern.strip_suffix('*') else {
        return vec![format!("{pattern}/{ROOT}")];
    };
    let is_member = |path: &&String| {
        let inner = path.strip_prefix(parent).and_then(|rest| rest.strip_suffix("/Cargo.toml"));
        inner.is_some_and(|folder| !folder.contains('/'))
    };
    tree.files.iter().map(|file| &file.path).filter(is_member).cloned().collect()
}

/// Applies a check to every member.
fn each(tree: &Tree, check: impl Fn(&Workspace, &Member) -> Vec<Finding>) -> Vec<Finding> {
    match Workspace::read(tree) {
        Ok(workspace) => {
            workspace.members.iter().flat_map(|member| check(&workspace, member)).collect()
        }
        Err(findings) => findings,
    }
}

/// Crates keep to the rooms that the design gives them.
pub fn boundaries(tree: &Tree) -> Vec<Finding> {
    each(tree, |workspace, member| {
        let package = member.package();
        if UNBOUNDED.contains(&package) {
            return Vec::new();
        }
        let finding = |line, what| Finding {
            rule: "boundary",
            path: member.path.clone(),
            line,
            what,
            way_out: "move the shared part to core (decisions) or runtime (processes); the rooms \
                      are in ARCHITECTURE.md and xtask/src/tidy/manifests.rs",
        };
        let boundary = BOUNDARIES.iter().find(|boundary| boundary.package == package);
        if boundary.is_none() && !member.is_author() {
            return vec![finding(0, format!("`{package}` has no boundary"))];
        }
        let is_ours = |name: &str| {
            let entry = workspace.table.get(name).and_then(Value::as_table);
            name.starts_with("modunest") || entry.is_some_and(|entry| entry.contains_key("path"))
        };
        let is_allowed = |dependency: &Dependency<'_>| match boundary {
            Some(boundary) => {
                boundary.may_use.contains(&dependency.name)
                    || (dependency.is_dev && boundary.may_test_with.contains(&dependency.name))
            }
            None => dependency.name.starts_with(AUTHOR_MAY_USE),
        };
        let dependencies = member.dependencies().into_iter();
        dependencies
            .filter(|dependency| is_ours(dependency.name) && !is_allowed(dependency))
            .map(|dependency| {
                let what = format!("`{package}` may not depend on `{}`", dependency.name);
                finding(member.line_of(dependency.name), what)
            })
            .collect()
    })
}

/// The same lints apply everywhere.
pub fn lints_inherited(tree: &Tree) -> Vec<Finding> {
    each(tree, |_, member| {
        let lints = member.manifest.get("lints").and_then(Value::as_table);
        if lints.and_then(|lints| lints.get("workspace")) == Some(&Value::Boolean(true)) {
            return Vec::new();
        }
        vec![Finding {
            rule: "lints",
            path: member.path.clone(),
            line: member.line_of("[lints"),
            what: "does not take the workspace's lints".to_owned(),
            way_out: "write `[lints]` with `workspace = true`",
        }]
    })
}

/// Versions and default features are decided in one table. Plugins name one another by path: they
/// are what a plugin author's own folders would be.
pub fn versions_from_table(tree: &Tree) -> Vec<Finding> {
    each(tree, |_, member| {
        let is_sibling = |value: &Value| {
            let folder = member.folder_of(value);
            member.is_author() && folder.is_some_and(|folder| folder.starts_with(AUTHOR_FOLDER))
        };
        let is_inherited = |value: &Value| {
            value.as_table().is_some_and(|table| {
                table.get("workspace") == Some(&Value::Boolean(true))
                    && !table.contains_key("default-features")
            })
        };
        let dependencies = member.dependencies().into_iter();
        dependencies
            .filter(|dependency| !is_inherited(dependency.value) && !is_sibling(dependency.value))
            .map(|dependency| Finding {
                rule: "version-table",
                path: member.path.clone(),
                line: member.line_of(dependency.name),
                what: format!("`{}` is decided here", dependency.name),
                way_out: "put it into [workspace.dependencies] and write `.workspace = true`",
            })
            .collect()
    })
}

/// The table lists what is used, no more.
pub fn table_entries_used(tree: &Tree) -> Vec<Finding> {
    let workspace = match Workspace::read(tree) {
        Ok(workspace) => workspace,
        Err(findings) => return findings,
    };
    let used: BTreeSet<&str> = workspace
        .members
        .iter()
        .flat_map(|member| member.dependencies())
        .map(|dependency| dependency.name)
        .collect();
    let unused = workspace.table.keys().filter(|name| !used.contains(name.as_str()));
    let finding = |name: &String| Finding {
        rule: "table-unused",
        path: ROOT.to_owned(),
        line: 0,
        what: format!("no member uses `{name}`"),
        way_out: "remove it from [workspace.dependencies]",
    };
    unused.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace]\nmembers = [\"core\", \"edge\", \"sdk/examples/*\"]\n\
        [workspace.dependencies]\nmodunest-core = { path = \"core\" }\n\
        modunest-agent = { path = \"agent\" }\nmodunest-sdk = { path = \"sdk\" }\nserde = \"1\"\n";
    const LINTS: &str = "[lints]\nworkspace = true\n";
    const ALL: &str = "[dependencies]\nmodunest-core.workspace = true\n\
        modunest-agent.workspace = true\nmodunest-sdk.workspace = true\nserde.workspace = true\n";

    fn tree(edge: &str) -> Tree {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        Tree::of(&[
            ("Cargo.toml", WORKSPACE),
            ("core/Cargo.toml", &manifest("modunest-core", LINTS)),
            ("edge/Cargo.toml", &manifest("modunest-edge", edge)),
            ("agent/Cargo.toml", &manifest("modunest-agent", LINTS)),
            ("sdk/examples/a/Cargo.toml", &manifest("demo-a", LINTS)),
            ("sdk/examples/a/inner/Cargo.toml", "not a member, and not read = ["),
        ])
    }

    fn what(findings: &[Finding]) -> Vec<String> {
        let line = |f: &Finding| format!("{}:{} {}", f.path, f.line, f.what);
        findings.iter().map(line).collect()
    }

    #[test]
    fn a_crossed_boundary_is_found_in_every_section() {
        for section in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let edge = format!("[{section}]\nmodunest-agent.workspace = true\n");
            assert_eq!(
                what(&boundaries(&tree(&edge))),
                ["edge/Cargo.toml:4 `modunest-edge` may not depend on `modunest-agent`"]
            );
        }
        assert!(boundaries(&tree("[dependencies]\nmodunest-core.workspace = true")).is_empty());
    }

    #[test]
    fn tests_may_use_the_embedded_services_and_programs_may_not() {
        let with = |section: &str| format!("[{section}]\nmodunest-local.workspace = true\n");
        assert!(boundaries(&tree(&with("dev-dependencies"))).is_empty());
        assert_eq!(boundaries(&tree(&with("dependencies"))).len(), 1);
    }

    #[test]
    fn plugins_see_the_sdk_only() {
        let plugin = |dependency: &str| {
            let text =
                format!("[package]\nname = \"a\"\n[dependencies]\n{dependency}.workspace = true");
            Tree::of(&[
                ("Cargo.toml", "[workspace]\nmembers = [\"sdk/examples/*\"]"),
                ("sdk/examples/a/Cargo.toml", &text),
            ])
        };
        assert!(boundaries(&plugin("modunest-sdk")).is_empty());
        assert_eq!(boundaries(&plugin("modunest-core")).len(), 1);
    }

    #[test]
    fn plugins_name_one_another_by_path_and_nothing_else() {
        let plugins = |path: &str| {
            let text =
                format!("[package]\nname = \"a\"\n[dependencies]\nb = {{ path = \"{path}\" }}");
            Tree::of(&[
                ("Cargo.toml", "[workspace]\nmembers = [\"sdk/examples/*\"]"),
                ("sdk/examples/a/Cargo.toml", &text),
                ("sdk/shared/b/Cargo.toml", "[package]\nname = \"b\""),
                ("core/Cargo.toml", "[package]\nname = \"modunest-core\""),
            ])
        };
        let shared = plugins("../../shared/b");
        assert!(versions_from_table(&shared).is_empty());
        assert_eq!(
            what(&lints_inherited(&shared)),
            [
                "sdk/examples/a/Cargo.toml:0 does not take the workspace's lints",
                "sdk/shared/b/Cargo.toml:0 does not take the workspace's lints"
            ]
        );
        assert_eq!(versions_from_table(&plugins("../../../core")).len(), 1);
    }

    #[test]
    fn a_package_without_a_boundary_is_found() {
        let tree = Tree::of(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"new\"]"),
            ("new/Cargo.toml", "[package]\nname = \"modunest-new\""),
        ]);
        assert_eq!(what(&boundaries(&tree)), ["new/Cargo.toml:0 `modunest-new` has no boundary"]);
    }

    #[test]
    fn missing_and_unreadable_manifests_are_found() {
        let missing = Tree::of(&[("Cargo.toml", "[workspace]\nmembers = [\"core\"]")]);
        assert_eq!(what(&boundaries(&missing)), ["core/Cargo.toml:0 is missing"]);
        assert_eq!(boundaries(&Tree::of(&[("Cargo.toml", "[workspace")])).len(), 1);
    }

    #[test]
    fn own_lints_are_found() {
        assert_eq!(
            what(&lints_inherited(&tree("[lints.rust]\nmissing_docs = \"allow\""))),
            ["edge/Cargo.toml:3 does not take the workspace's lints"]
        );
        assert!(lints_inherited(&tree(LINTS)).is_empty());
    }

    #[test]
    fn own_versions_are_found() {
        for dependency in
            ["\"1\"", "{ path = \"../agent\" }", "{ workspace = true, default-features = false }"]
        {
            let edge = format!("[dependencies]\nserde = {dependency}");
            assert_eq!(
                what(&versions_from_table(&tree(&edge))),
                ["edge/Cargo.toml:4 `serde` is decided here"]
            );
        }
        assert!(versions_from_table(&tree(ALL)).is_empty());
    }

    #[test]
    fn unused_entries_are_found() {
        assert_eq!(table_entries_used(&tree(LINTS)).len(), 4);
        assert!(table_entries_used(&tree(ALL)).is_empty());
    }
}
