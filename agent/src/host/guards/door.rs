//! Which requests the operator's own guards stand before.

use modunest_core::manifest::PluginItem;

use crate::config::GuardRule;
use crate::host::Cell;
use crate::host::routes::{Segment, segments};

/// The guards that the operator's rules name for this request, in their order.
pub(super) fn guards(cell: &Cell, path: &str) -> Vec<PluginItem> {
    let settings = cell.links().settings();
    let rules = settings.guards.iter().filter(|rule| applies(rule, cell, path));
    rules.map(|rule| rule.guard.clone()).collect()
}

/// Whether a rule is about this request. A path is compared as whoever decodes it would read
/// it, so that no spelling of it walks past the guard.
pub(super) fn applies(rule: &GuardRule, cell: &Cell, path: &str) -> bool {
    let plugin = rule.plugins.is_empty() || rule.plugins.iter().any(|one| one.matches(cell.name()));
    plugin && (rule.paths.is_empty() || rule.paths.iter().any(|guarded| covers(guarded, path)))
}

/// Whether a path is the guarded one or below it. One that leads upwards may be anything.
fn covers(guarded: &str, path: &str) -> bool {
    let decoded = decode(path);
    let asked: Vec<&[u8]> =
        decoded.split(|byte| b"/\\".contains(byte)).filter(|segment| !segment.is_empty()).collect();
    if asked.iter().any(|segment| matches!(*segment, b"." | b"..")) {
        return true;
    }
    let guarded = segments(guarded);
    guarded.len() <= asked.len()
        && guarded.iter().zip(asked).all(|(segment, asked)| match segment {
            Segment::Literal(literal) => literal.as_bytes().eq_ignore_ascii_case(asked),
            Segment::Any => true,
        })
}

/// Percent-decodes once; what is no escape stays.
fn decode(path: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_walks_past() {
        for path in [
            "/admin",
            "/admin/",
            "/admin/users",
            "//admin",
            "/%61dmin",
            "/%61%64min%2Fusers",
            "/ADMIN",
            "/x%2F..%2Fadmin",
            "/%5Cadmin",
        ] {
            assert!(covers("/admin", path), "{path}");
        }
        for path in ["/", "/adminx", "/public/admin", "/%zzadmin", "/%"] {
            assert!(!covers("/admin", path), "{path}");
        }
        assert!(covers("/{team}/admin", "/red/admin/x") && !covers("/{team}/admin", "/red"));
        assert!(covers("/", "/anything"));
    }
}
