//! The known name that a wrong name probably stands for.

use crate::name::PluginName;

/// Most edits between a wrong name and the one it stands for.
const EDITS_MAX: usize = 2;
/// Names shorter than this allow one edit only: with two, everything looks like everything.
const SHORT_NAME_CHARS: usize = 8;

/// The closest of `known`: one that looks alike, else one within a few edits, else one of
/// the same short name in another organisation. Ties go to the first by name.
pub(super) fn nearest<'a>(
    wrong: &PluginName,
    known: impl Iterator<Item = &'a PluginName>,
) -> Option<&'a PluginName> {
    let skeleton = wrong.skeleton();
    let edits_max = if wrong.as_str().len() < SHORT_NAME_CHARS { 1 } else { EDITS_MAX };
    known
        .filter(|name| *name != wrong)
        .filter_map(|name| {
            let rank = if name.skeleton() == skeleton {
                0
            } else if let Some(edits) = edits(wrong.as_str(), name.as_str(), edits_max) {
                edits
            } else if name.short() == wrong.short() {
                EDITS_MAX + 1
            } else {
                return None;
            };
            Some((rank, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment distance (insert, delete, replace, swap neighbours), if it is
/// at most `max`. Names are ASCII.
fn edits(a: &str, b: &str, max: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > max {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        if row.iter().min().is_some_and(|&least| least > max) {
            return None;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|&edits| edits <= max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(edits("gallery", "gallery", 2), Some(0));
        assert_eq!(edits("gallery", "galery", 2), Some(1));
        assert_eq!(edits("gallery", "gallrey", 2), Some(1));
        assert_eq!(edits("gallery", "galaxy", 2), None);
        assert_eq!(edits("", "ab", 2), Some(2));
        assert_eq!(edits("abc", "", 2), None);
    }

    #[test]
    fn finds_the_nearest() {
        let known: Vec<PluginName> = ["acme/markdown", "demo/markdown", "demo/gallery"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let near =
            |text: &str| nearest(&text.parse().unwrap(), known.iter()).map(PluginName::as_str);
        assert_eq!(near("demo/markdwon"), Some("demo/markdown"));
        assert_eq!(near("demo/mark-d0wn"), Some("demo/markdown"));
        assert_eq!(near("other/markdown"), Some("acme/markdown"));
        assert_eq!(near("demo/unrelated"), None);
    }
}
