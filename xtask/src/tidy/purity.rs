//! The core knows no runtime: no async, clock, environment, network or disk.

use crate::tidy::Finding;
use crate::tidy::code::{Keep, line_of, occurrences, shipped};
use crate::tidy::tree::Tree;

/// Source folders of the pure crates.
const PURE: [&str; 2] = ["core/src/", "tlog/src/"];

/// Words that pure code does not contain.
const IMPURE: [&str; 13] = [
    "tokio",
    "reqwest",
    "axum",
    "hyper",
    "getrandom",
    "async fn",
    "async move",
    ".await",
    "SystemTime::now",
    "Instant::now",
    "thread_rng",
    "RandomState",
    "std::io::stdin",
];

/// Modules of `std` that pure code does not use, by path or in a `use std::{…}` group.
const IMPURE_STD: [&str; 5] = ["fs", "net", "env", "process", "thread"];

/// Where a word is allowed all the same: a path's beginning, the word, and the reason.
const ALLOWED: [(&str, &str, &str); 1] = [(
    "core/src/resolve",
    "async fn",
    "the engine's provider trait is written with async functions; ours return at once, and the \
     engine is driven without a runtime",
)];

/// Core and tlog take facts as arguments and return plans.
pub fn no_runtime(tree: &Tree) -> Vec<Finding> {
    let is_pure = |path: &str| PURE.iter().any(|folder| path.starts_with(folder));
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| is_pure(&file.path) && !file.is_test()) {
        let code = shipped(&file.text, Keep::Code);
        let mut found: Vec<(usize, String)> = Vec::new();
        for word in IMPURE {
            if ALLOWED
                .iter()
                .any(|(path, allowed, _)| file.path.starts_with(path) && *allowed == word)
            {
                continue;
            }
            found.extend(occurrences(&code, word).map(|at| (at, word.to_owned())));
        }
        for module in IMPURE_STD {
            let path = format!("std::{module}");
            found.extend(occurrences(&code, &path).map(|at| (at, path.clone())));
        }
        found.extend(std_groups(&code));
        findings.extend(found.into_iter().map(|(at, word)| Finding {
            rule: "purity",
            path: file.path.clone(),
            line: line_of(&code, at),
            what: format!("`{word}` in a crate that knows no runtime"),
            way_out: "take the fact (time, bytes, setting) as an argument, and read it in a shell",
        }));
    }
    findings
}

/// Impure modules inside `use std::{…}` groups, with their offsets.
fn std_groups(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, opening) in code.match_indices("std::{") {
        let mut depth = 1_usize;
        let mut is_at_name = true;
        let body = start + opening.len();
        for (at, c) in code[body..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => is_at_name = true,
                c if c.is_whitespace() => {}
                _ if is_at_name => {
                    is_at_name = false;
                    let rest = &code[body + at..];
                    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                    let name = &rest[..end.unwrap_or(rest.len())];
                    if IMPURE_STD.contains(&name) {
                        found.push((body + at, format!("std::{name}")));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let tree = Tree::of(&[(path, text)]);
        no_runtime(&tree).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn each_impure_word_is_found() {
        for word in IMPURE {
            let found = found("core/src/a.rs", &format!("fn a() {{\n  x {word} y\n}}"));
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert_eq!(found[0].0, 2);
        }
    }

    #[test]
    fn std_modules_are_found_by_path_and_in_groups() {
        assert_eq!(found("tlog/src/a.rs", "use std::fs::File;").len(), 1);
        assert_eq!(found("tlog/src/a.rs", "use std::{\n fmt,\n net::{A, B},\n env};").len(), 2);
        assert_eq!(found("tlog/src/a.rs", "use std::{fmt::{self, env}, collections};").len(), 0);
    }

    #[test]
    fn comments_tests_and_other_crates_may_say_it() {
        let text = "// no tokio here\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert!(found("core/src/a.rs", text).is_empty());
        assert!(found("agent/src/a.rs", "use tokio::net;").is_empty());
    }

    #[test]
    fn an_allowance_is_for_its_folder_and_its_word_only() {
        assert!(found("core/src/resolve/engine.rs", "async fn f() {}").is_empty());
        assert_eq!(found("core/src/resolve/engine.rs", "async fn f() { g().await }").len(), 1);
        assert_eq!(found("core/src/index.rs", "async fn f() {}").len(), 1);
    }
}
