//! `ARCHITECTURE.md` is true about the workspace.

use crate::tidy::Finding;
use crate::tidy::manifests;
use crate::tidy::tree::Tree;

const PAGE: &str = "ARCHITECTURE.md";

/// The page names every member's folder.
pub fn mentions_every_member(tree: &Tree) -> Vec<Finding> {
    let finding = |what: String| Finding {
        rule: "architecture",
        path: PAGE.to_owned(),
        line: 0,
        what,
        way_out: "say in the code map what the folder is for, and what it may depend on",
    };
    let Some(page) = tree.get(PAGE) else {
        return vec![finding("is missing".to_owned())];
    };
    let patterns = match manifests::member_patterns(tree) {
        Ok(patterns) => patterns,
        Err(finding) => return vec![finding],
    };
    // A pattern such as `sdk/examples/*` is one room, named by its folder.
    let rooms = patterns.iter().map(|pattern| pattern.trim_end_matches("/*"));
    rooms
        .filter(|room| !page.text.contains(&format!("`{room}/`")))
        .map(|room| finding(format!("does not mention `{room}/`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) =
        ("Cargo.toml", "[workspace]\nmembers = [\"core\", \"sdk/examples/*\"]");

    #[test]
    fn a_missing_page_and_a_missing_room_are_found() {
        assert_eq!(mentions_every_member(&Tree::of(&[ROOT])).len(), 1);
        let page = "| `core/` | decisions |";
        let findings = mentions_every_member(&Tree::of(&[ROOT, (PAGE, page)]));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].what, "does not mention `sdk/examples/`");
    }

    #[test]
    fn a_full_page_passes() {
        let page = "`core/` and `sdk/examples/`";
        assert!(mentions_every_member(&Tree::of(&[ROOT, (PAGE, page)])).is_empty());
    }
}
