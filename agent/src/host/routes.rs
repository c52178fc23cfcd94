//! Which plugin answers a path.
//!
//! A route's path has literal segments and `{name}` for one that varies; it answers itself
//! and everything below. The most specific route wins: segment by segment from the left, a
//! literal one before one that varies, and a longer route before a shorter one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Cell;

/// Routes of a host.
#[derive(Default)]
pub struct Routes {
    /// By first segment, `None` where it varies or there is none; most specific first.
    by_first: BTreeMap<Option<String>, Vec<Entry>>,
}

struct Entry {
    segments: Vec<Segment>,
    path: String,
    methods: Vec<String>,
    cell: Arc<Cell>,
}

/// Literal segments sort before those that vary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Literal(String),
    Any,
}

/// What a lookup comes to.
pub enum Found<'r> {
    /// This plugin answers; the text is the route's path as the manifest has it.
    Plugin(&'r Arc<Cell>, &'r str),
    /// The path exists, for these methods.
    Methods(Vec<&'r str>),
    /// There is nothing at this path.
    Nothing,
}

/// A route's path as segments. Parameters of other names make the same route.
pub(super) fn segments(path: &str) -> Vec<Segment> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(
            |segment| {
                if segment.starts_with('{') {
                    Segment::Any
                } else {
                    Segment::Literal(segment.into())
                }
            },
        )
        .collect()
}

impl Routes {
    pub(super) fn insert(&mut self, path: &str, methods: &[String], cell: &Arc<Cell>) {
        let segments = segments(path);
        let first = match segments.first() {
            Some(Segment::Literal(first)) => Some(first.clone()),
            Some(Segment::Any) | None => None,
        };
        let (path, methods, cell) = (path.to_owned(), methods.to_vec(), cell.clone());
        let entries = self.by_first.entry(first).or_default();
        // A longer route before its own beginning, so "longer" is "less".
        let order = |one: &[Segment], other: &[Segment]| {
            let shared = one.len().min(other.len());
            one[..shared].cmp(&other[..shared]).then(other.len().cmp(&one.len()))
        };
        let at = entries.partition_point(|entry| order(&entry.segments, &segments).is_le());
        entries.insert(at, Entry { segments, path, methods, cell });
    }

    /// Looks a request up. The path is as received, percent-encoded. `HEAD` is answered by
    /// what answers `GET`.
    pub fn find(&self, method: &str, path: &str) -> Found<'_> {
        let asked: Vec<&str> = path.split('/').skip(1).collect();
        // A path with dot segments means another path to some readers.
        if !path.starts_with('/') || asked.iter().any(|segment| is_dots(segment)) {
            return Found::Nothing;
        }
        let first = asked.first().filter(|first| !first.is_empty()).map(|f| (*f).to_owned());
        let literal = first.is_some().then(|| self.by_first.get(&first)).flatten();
        let candidates = literal.into_iter().chain(self.by_first.get(&None)).flatten();
        let mut matched: Option<&[Segment]> = None;
        let mut methods = Vec::new();
        for entry in candidates.filter(|entry| covers(&entry.segments, &asked)) {
            // Only entries of the same, most specific route share its methods.
            if matched.is_some_and(|segments| segments != entry.segments) {
                break;
            }
            matched = Some(&entry.segments);
            let answers = |wanted: &str| entry.methods.iter().any(|method| method == wanted);
            if answers(method) || (method == "HEAD" && answers("GET")) {
                return Found::Plugin(&entry.cell, &entry.path);
            }
            methods.extend(entry.methods.iter().map(String::as_str));
        }
        if matched.is_some() { Found::Methods(methods) } else { Found::Nothing }
    }
}

fn covers(route: &[Segment], asked: &[&str]) -> bool {
    route.len() <= asked.len()
        && route.iter().zip(asked).all(|(segment, asked)| match segment {
            Segment::Literal(literal) => literal == asked,
            Segment::Any => !asked.is_empty(),
        })
}

/// `.` or `..`, in any spelling of the dots.
fn is_dots(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}
