//! What a merge or a patch leaves behind.

use crate::tidy::Finding;
use crate::tidy::tree::{File, Tree};

/// Ends of the names of files that `patch`, `git mergetool` and editors put aside. The last one
/// is for every backup: `a.rs~` as well as `a.patch~`.
const ENDS: [&str; 3] = [".orig", ".rej", "~"];

/// How git begins the lines around the two sides of a conflict, seven times each. The line
/// between them is also how Markdown underlines a heading, so it is no sign.
const CONFLICT: [char; 2] = ['<', '>'];

/// No copy that was put aside is tracked.
pub fn no_copies_aside(tree: &Tree) -> Vec<Finding> {
    let finding = |file: &File, end: &str| Finding {
        rule: "leftover",
        path: file.path.clone(),
        line: 0,
        what: format!("a file that ends in `{end}` is a copy that was put aside"),
        way_out: "take over what it has, and remove it",
    };
    let end_of = |file: &File| ENDS.into_iter().find(|end| file.path.ends_with(end));
    tree.files.iter().filter_map(|file| Some(finding(file, end_of(file)?))).collect()
}

/// Every conflict of a merge is resolved.
pub fn no_conflicts(tree: &Tree) -> Vec<Finding> {
    let marks = CONFLICT.map(|sign| format!("{} ", sign.to_string().repeat(7)));
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_data()) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(mark) = marks.iter().find(|mark| line.starts_with(mark.as_str())) {
                findings.push(Finding {
                    rule: "conflict",
                    path: file.path.clone(),
                    line: number,
                    what: format!("a line begins with `{mark}`, as one side of a conflict does"),
                    way_out: "choose what is right of both sides, and remove the marks",
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn copies_are_found_by_the_end_of_their_name() {
        let tree = Tree::of(&[
            ("core/src/lib.rs.orig", ""),
            ("core/src/lib.rs.rej", ""),
            ("fix.patch~", ""),
            ("README.md~", ""),
            ("core/src/orig.rs", ""),
            ("docs/~notes.md", ""),
        ]);
        let found = no_copies_aside(&tree);
        assert_eq!(
            places(&found),
            [
                ("core/src/lib.rs.orig", 0),
                ("core/src/lib.rs.rej", 0),
                ("fix.patch~", 0),
                ("README.md~", 0)
            ]
        );
    }

    #[test]
    fn conflicts_are_found_at_a_lines_beginning() {
        let (ours, theirs) = ("<".repeat(7), ">".repeat(7));
        let conflict = format!("a\n{ours} HEAD\nb\n=======\nc\n{theirs} topic\n");
        let inside = format!("say {ours} HEAD\n{ours}\n{theirs}> x\n Heading\n=======\n");
        let tree = Tree::of(&[
            ("README.md", &conflict),
            ("a.rs", &inside),
            ("fuzz/corpus/note/1", &conflict),
        ]);
        assert_eq!(places(&no_conflicts(&tree)), [("README.md", 2), ("README.md", 6)]);
    }
}
