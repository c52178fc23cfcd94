//! Words that no file contains. They are put together out of halves, so that this file obeys.

use crate::tidy::Finding;
use crate::tidy::code::{Keep, blank, line_of, occurrences};
use crate::tidy::tree::Tree;

/// Marks of unfinished work in any file.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Unfinished work in code.
const UNFINISHED_CODE: [&str; 4] = ["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// Folders of the machines that this is written on.
const MACHINE_FOLDERS: [&str; 3] =
    [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tmp/bash", "_jobs")];

/// Parts of the addresses of private package mirrors. Files name the public registries only.
const MIRRORS: [&str; 10] = [
    concat!("arti", "factory"),
    concat!("jfrog", ".io"),
    concat!("pkgs.dev", ".azure.com"),
    concat!("nexus/", "repository"),
    concat!("codeartifact", "."),
    concat!("rsproxy", ".cn"),
    concat!("npmmirror", ".com"),
    concat!("mirrors.", "ustc.edu.cn"),
    concat!("mirrors.", "tuna.tsinghua"),
    concat!("sparse+http:", "//"),
];

/// Work is finished, or it is an issue.
pub fn unfinished_work(tree: &Tree) -> Vec<Finding> {
    let finding = |path: &str, line, word: &str| Finding {
        rule: "unfinished",
        path: path.to_owned(),
        line,
        what: format!("`{word}`"),
        way_out: "finish it now, or open an issue and remove the mark",
    };
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_data()) {
        for mark in MARKS {
            let lines = occurrences(&file.text, mark).map(|at| line_of(&file.text, at));
            findings.extend(lines.map(|line| finding(&file.path, line, mark)));
        }
    }
    for file in tree.rust() {
        let code = blank(&file.text, Keep::Code);
        for word in UNFINISHED_CODE {
            let lines = occurrences(&code, word).map(|at| line_of(&code, at));
            findings.extend(lines.map(|line| finding(&file.path, line, word)));
        }
    }
    findings
}

/// Nothing depends on the folders of one machine.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_data()) {
        for folder in MACHINE_FOLDERS {
            for (at, _) in file.text.match_indices(folder) {
                if is_absolute(&file.text, at) {
                    findings.push(Finding {
                        rule: "machine-path",
                        path: file.path.clone(),
                        line: line_of(&file.text, at),
                        what: format!("names the folder `{folder}` of one machine"),
                        way_out: "use a relative path, a setting, or a temporary folder",
                    });
                }
            }
        }
    }
    findings
}

/// Whether the path that starts at this slash is absolute, not the tail of a longer one.
fn is_absolute(text: &str, slash: usize) -> bool {
    let before = text[..slash].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '*' | '/'))
}

/// Packages come from the public registries.
pub fn registry_mirrors(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_data()) {
        for mirror in MIRRORS {
            for (at, _) in file.text.match_indices(mirror) {
                findings.push(Finding {
                    rule: "registry-mirror",
                    path: file.path.clone(),
                    line: line_of(&file.text, at),
                    what: format!("names a package mirror (`{mirror}`)"),
                    way_out: "name the public registry; a mirror belongs in the user's own settings",
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_every_kind_of_file_but_data() {
        for mark in MARKS {
            let text = format!("a\n# {mark}: later");
            let tree = Tree::of(&[("README.md", &text), ("fuzz/corpus/note/1", &text)]);
            let findings = unfinished_work(&tree);
            assert_eq!(findings.len(), 1, "{mark}");
            assert_eq!((findings[0].path.as_str(), findings[0].line), ("README.md", 2));
        }
        assert!(unfinished_work(&Tree::of(&[("a.sh", "mktemp -t aXXXXXX")])).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_in_tests_too_but_not_in_strings() {
        for word in UNFINISHED_CODE {
            let text = format!("fn f() {{}}\n{word}(1)] // {word}\nconst A: &str = \"{word}\";");
            assert_eq!(
                unfinished_work(&Tree::of(&[("core/tests/a.rs", &text)])).len(),
                1,
                "{word}"
            );
        }
    }

    #[test]
    fn machine_folders_are_found_where_a_path_begins() {
        for folder in MACHINE_FOLDERS {
            let absolute = format!("cd '{folder}x'");
            assert_eq!(machine_paths(&Tree::of(&[("a.sh", &absolute)])).len(), 1, "{folder}");
            let relative = format!("cd target{folder}x $D/a{folder}");
            assert!(machine_paths(&Tree::of(&[("a.sh", &relative)])).is_empty(), "{folder}");
        }
    }

    #[test]
    fn each_mirror_is_found() {
        for mirror in MIRRORS {
            let text = format!("registry = \"https://{mirror}/x\"");
            assert_eq!(registry_mirrors(&Tree::of(&[(".npmrc", &text)])).len(), 1, "{mirror}");
        }
        let public = "https://registry.npmjs.org/a https://github.com/rust-lang/crates.io-index";
        assert!(registry_mirrors(&Tree::of(&[("lock", public)])).is_empty());
    }
}
