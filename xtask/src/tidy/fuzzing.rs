//! Every parser of bytes from outside has a fuzz target and a corpus.

use crate::tidy::Finding;
use crate::tidy::tree::Tree;

/// A parser, and the fuzz target that feeds it.
struct Parser {
    /// Its source: a file, or the beginning of a folder's path.
    source: &'static str,
    /// The name of `fuzz/fuzz_targets/NAME.rs` and of `fuzz/corpus/NAME/`.
    target: &'static str,
}

/// All parsers of bytes that someone else wrote. A new one adds its line here.
const PARSERS: [Parser; 22] = [
    Parser { source: "agent/src/runner/wire", target: "runner" },
    Parser { source: "core/src/archive", target: "archive" },
    Parser { source: "core/src/bundle", target: "bundle" },
    Parser { source: "core/src/closure", target: "closure" },
    Parser { source: "core/src/index", target: "index" },
    Parser { source: "core/src/manifest", target: "manifest" },
    Parser { source: "core/src/scan", target: "scan" },
    Parser { source: "core/src/statement", target: "statement" },
    Parser { source: "core/src/trust", target: "trust" },
    Parser { source: "core/src/user", target: "user" },
    Parser { source: "sdk/src/guard", target: "guard" },
    Parser { source: "sdk/src/http", target: "http" },
    Parser { source: "sdk/src/operation", target: "operation" },
    Parser { source: "sdk/src/links", target: "links" },
    Parser { source: "sdk/src/stream", target: "stream" },
    Parser { source: "tlog/src/note", target: "note" },
    Parser { source: "tlog/src/checkpoint", target: "checkpoint" },
    Parser { source: "tlog/src/tile", target: "tile" },
    Parser { source: "tlog/src/entries", target: "entries" },
    Parser { source: "tlog/src/policy", target: "policy" },
    Parser { source: "tlog/src/offline", target: "offline" },
    Parser { source: "tlog/src/submission", target: "submission" },
];

/// Targets and corpora exist for the parsers, and parsers for the targets.
pub fn parsers_have_targets(tree: &Tree) -> Vec<Finding> {
    let finding = |path: &str, what: String| Finding {
        rule: "fuzz",
        path: path.to_owned(),
        line: 0,
        what,
        way_out: "fuzz/README.md says what a target consists of",
    };
    let mut findings = Vec::new();
    let manifest = tree.get("fuzz/Cargo.toml").map_or("", |file| file.text.as_str());
    for Parser { source, target } in PARSERS {
        if !tree.files.iter().any(|file| file.path.starts_with(source)) {
            let what = format!("listed as a parser for target `{target}`, and is not there");
            findings.push(finding(source, what));
        }
        let path = format!("fuzz/fuzz_targets/{target}.rs");
        if tree.get(&path).is_none() {
            findings.push(finding(&path, format!("is missing; {source} is a parser")));
        }
        if !manifest.contains(&format!("name = \"{target}\"")) {
            findings.push(finding("fuzz/Cargo.toml", format!("has no [[bin]] `{target}`")));
        }
        let corpus = format!("fuzz/corpus/{target}/");
        let has_corpus =
            tree.files.iter().any(|file| file.path.starts_with(&corpus) && file.size_bytes > 0);
        if !has_corpus {
            findings.push(finding(&corpus, "has no input".to_owned()));
        }
    }
    for file in &tree.files {
        let name = file.path.strip_prefix("fuzz/fuzz_targets/");
        let Some(name) = name.and_then(|name| name.strip_suffix(".rs")) else { continue };
        if !PARSERS.iter().any(|parser| parser.target == name) {
            let what = "is not in the table of parsers in xtask/src/tidy/fuzzing.rs".to_owned();
            findings.push(finding(&file.path, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that one parser needs.
    fn full() -> Vec<(String, String)> {
        let mut files = vec![("fuzz/Cargo.toml".to_owned(), String::new())];
        for Parser { source, target } in PARSERS {
            files[0].1.push_str(&format!("[[bin]]\nname = \"{target}\"\n"));
            files.push((format!("{source}.rs"), "pub fn parse() {}".to_owned()));
            files.push((format!("fuzz/fuzz_targets/{target}.rs"), "fuzz".to_owned()));
            files.push((format!("fuzz/corpus/{target}/1"), "input".to_owned()));
        }
        files
    }

    fn check(files: &[(String, String)]) -> usize {
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        parsers_have_targets(&Tree::of(&files)).len()
    }

    #[test]
    fn a_full_tree_passes_and_each_missing_part_is_found() {
        let files = full();
        assert_eq!(check(&files), 0);
        for missing in 1..files.len() {
            let mut files = full();
            let (path, _) = files.remove(missing);
            assert_eq!(check(&files), 1, "without {path}");
        }
        let mut files = full();
        files[0].1.clear();
        assert_eq!(check(&files), PARSERS.len());
    }

    #[test]
    fn an_empty_input_is_no_corpus() {
        let mut files = full();
        for (path, text) in &mut files {
            if path.starts_with("fuzz/corpus/") {
                text.clear();
            }
        }
        assert_eq!(check(&files), PARSERS.len());
    }

    #[test]
    fn a_target_of_no_parser_is_found() {
        let mut files = full();
        files.push(("fuzz/fuzz_targets/stray.rs".to_owned(), String::new()));
        assert_eq!(check(&files), 1);
    }
}
