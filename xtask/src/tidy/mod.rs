//! The repository's own rules, those that a machine can check.
//!
//! Each rule reads the tree of files and returns findings. To add one: write a function, list it
//! in [`RULES`], and show in its test that it can fail.

mod architecture;
mod code;
mod fuzzing;
mod leftovers;
mod manifests;
mod purity;
mod sources;
mod tree;
mod words;

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::tidy::tree::Tree;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    rule: &'static str,
    path: String,
    /// 0 where the finding is about a whole file.
    line: usize,
    /// What is wrong.
    what: String,
    /// What to do about it.
    way_out: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, path, line, what, way_out } = self;
        write!(formatter, "{path}:{line}: [{rule}] {what}; {way_out}")
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

/// All rules, from the shape of the workspace down to its words.
const RULES: [Rule; 16] = [
    architecture::mentions_every_member,
    manifests::boundaries,
    manifests::lints_inherited,
    manifests::versions_from_table,
    manifests::table_entries_used,
    purity::no_runtime,
    sources::unsafe_has_its_places,
    sources::keys_spelled_once,
    sources::file_lengths,
    sources::file_sizes,
    fuzzing::parsers_have_targets,
    leftovers::no_copies_aside,
    leftovers::no_conflicts,
    words::unfinished_work,
    words::machine_paths,
    words::registry_mirrors,
];

/// Where findings are, for tests of the rules.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<(&str, usize)> {
    findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect()
}

/// Checks the whole tree and prints every finding.
pub fn run(repository: &Path) -> Result<(), Error> {
    let tree = Tree::read(repository)?;
    let findings: Vec<_> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::Untidy(findings.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_and_the_way_out() {
        let finding = Finding {
            rule: "length",
            path: "core/src/lib.rs".to_owned(),
            line: 601,
            what: "601 lines".to_owned(),
            way_out: "split it by meaning",
        };
        assert_eq!(
            finding.to_string(),
            "core/src/lib.rs:601: [length] 601 lines; split it by meaning"
        );
    }
}
