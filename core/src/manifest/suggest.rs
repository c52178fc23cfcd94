//! "Did you mean": the known word nearest to an unknown one.

/// The candidate that a hurried writer most likely meant: at most a third of the letters
/// wrong, and at least one allowed.
pub(super) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Longest word compared, in characters: the distance costs its square.
const WORD_MAX_CHARS: usize = 64;

/// Letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(WORD_MAX_CHARS).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(WORD_MAX_CHARS).flat_map(char::to_lowercase).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let keys = ["name", "version", "license", "description"];
        assert_eq!(nearest("licence", &keys), Some("license"));
        assert_eq!(nearest("nmae", &keys), Some("name"));
        assert_eq!(nearest("Version", &keys), Some("version"));
        assert_eq!(nearest("homepage", &keys), None);
        assert_eq!(nearest("", &keys), None);
    }
}
