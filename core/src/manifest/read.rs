//! Reads keys of a TOML table and notes what is wrong with them, instead of stopping.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggest::nearest;
use super::{LIST_MAX, ManifestProblem, PROBLEMS_MAX};

/// The text and the problems found in it so far.
pub(super) struct Notes<'t> {
    text: &'t str,
    problems: RefCell<Vec<ManifestProblem>>,
    /// Each step to a value that was read, and where it was taken from.
    steps: RefCell<Vec<(Place, Step<'t>)>>,
}

/// Where a value is, as an index of [`Notes::steps`]; `None` at the top. Its path is put into
/// words only for a problem.
type Place = Option<usize>;

/// From a table or a list to a value in it.
#[derive(Clone, Copy)]
enum Step<'t> {
    Key(&'t str),
    Index(usize),
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Notes { text, problems: RefCell::default(), steps: RefCell::default() }
    }

    fn step(&self, from: Place, step: Step<'t>) -> Place {
        let mut steps = self.steps.borrow_mut();
        steps.push((from, step));
        Some(steps.len() - 1)
    }

    /// The path of keys to a place.
    fn path(&self, place: Place) -> String {
        let steps = self.steps.borrow();
        let mut way = Vec::new();
        let mut next = place;
        while let Some((from, step)) = next.and_then(|at| steps.get(at)) {
            way.push(*step);
            next = *from;
        }
        let mut path = String::new();
        for step in way.into_iter().rev() {
            step.add_to(&mut path);
        }
        path
    }

    /// The path of a key, which need not be there, of a table at a place.
    fn path_of(&self, place: Place, key: &str) -> String {
        let mut path = self.path(place);
        Step::Key(key).add_to(&mut path);
        path
    }

    /// Adds a problem; beyond [`PROBLEMS_MAX`] nobody reads on.
    pub(super) fn add(
        &self,
        span: Range<usize>,
        key: impl Into<String>,
        rule: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(ManifestProblem::new(self.text, span, key, rule, help));
        }
    }

    pub(super) fn into_problems(self) -> Vec<ManifestProblem> {
        self.problems.into_inner()
    }
}

impl Step<'_> {
    /// Adds the step to the path of the value that it starts from.
    fn add_to(self, path: &mut String) {
        match self {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                // Plugin names and the like are quoted, as the file has to.
                let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                if !key.is_empty() && key.bytes().all(bare) {
                    path.push_str(key);
                } else {
                    path.push_str(&format!("{key:?}"));
                }
            }
        }
    }
}

/// A value and where it is.
pub(super) struct Item<'n, 't> {
    notes: &'n Notes<'t>,
    pub(super) value: &'t DeValue<'t>,
    pub(super) span: Range<usize>,
    place: Place,
}

impl<'n, 't> Item<'n, 't> {
    /// Notes that this value breaks a rule.
    pub(super) fn wrong(&self, rule: impl Into<String>, help: impl Into<String>) {
        self.notes.add(self.span.clone(), self.path(), rule, help);
    }

    /// The path of keys to the value, for example `route[0].path`.
    pub(super) fn path(&self) -> String {
        self.notes.path(self.place)
    }

    fn mistyped(&self, wanted: impl Display) {
        let rule =
            format!("`{}` must be {wanted}, not {}", self.path(), article(self.value.type_str()));
        self.wrong(rule, format!("write {wanted}"));
    }

    /// The value as text.
    pub(super) fn text(&self) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.mistyped("a string");
        }
        text
    }

    /// The value as text that obeys `rule`.
    pub(super) fn checked(
        &self,
        rule: impl Fn(&str) -> Result<(), String>,
        help: &str,
    ) -> Option<String> {
        let text = self.text()?;
        match rule(text) {
            Ok(()) => Some(text.to_owned()),
            Err(broken) => {
                self.wrong(format!("`{}`: {broken}", self.path()), help);
                None
            }
        }
    }

    /// The value as text that is parsed.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, help: &str) -> Option<T> {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(format!("`{}`: {error}", self.path()), help);
                None
            }
        }
    }

    /// The value as a table.
    pub(super) fn table(&self) -> Option<Table<'n, 't>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.mistyped("a table");
        }
        Some(Table { notes: self.notes, table: table?, span: self.span.clone(), place: self.place })
    }

    /// The value's entries, at most [`LIST_MAX`]; `wanted` names the type in messages.
    pub(super) fn entries(&self, wanted: impl Display) -> Vec<Item<'n, 't>> {
        let Some(array) = self.value.as_array() else {
            self.mistyped(wanted);
            return Vec::new();
        };
        if array.len() > LIST_MAX {
            let rule = format!(
                "`{}` has {} entries; at most {LIST_MAX} are allowed",
                self.path(),
                array.len()
            );
            self.wrong(rule, "leave some out");
        }
        array
            .iter()
            .take(LIST_MAX)
            .enumerate()
            .map(|(index, value)| Item {
                notes: self.notes,
                value: value.get_ref(),
                span: value.span(),
                place: self.notes.step(self.place, Step::Index(index)),
            })
            .collect()
    }
}

fn article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// A table whose keys are known.
pub(super) struct Table<'n, 't> {
    notes: &'n Notes<'t>,
    table: &'t DeTable<'t>,
    span: Range<usize>,
    place: Place,
}

impl<'n, 't> Table<'n, 't> {
    pub(super) fn root(notes: &'n Notes<'t>, table: &'t DeTable<'t>) -> Self {
        Table { notes, table, span: 0..0, place: None }
    }

    /// Notes every key that is not one of `known`.
    pub(super) fn only(&self, known: &[&str]) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let place = match self.place {
                None => "at the top".to_owned(),
                place => format!("in `{}`", self.notes.path(place)),
            };
            let help = match nearest(name, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
            self.notes.add(
                key.span(),
                self.notes.path_of(self.place, &shown),
                format!("unknown key `{shown}` {place}"),
                help,
            );
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Item<'n, 't>> {
        let (name, value) = self.table.get_key_value(key)?;
        // Tables made by a header have the header's place; tables made by a dotted key may
        // have none of their own.
        let span = if value.span().is_empty() { name.span() } else { value.span() };
        let place = self.notes.step(self.place, Step::Key(name.get_ref().as_ref()));
        Some(Item { notes: self.notes, value: value.get_ref(), span, place })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str, help: &str) -> Option<Item<'n, 't>> {
        let item = self.get(key);
        if item.is_none() {
            let path = self.notes.path_of(self.place, key);
            self.notes.add(self.span.clone(), path.clone(), format!("`{path}` is missing"), help);
        }
        item
    }

    /// All keys that are parsed, with their values. Keys that break a rule are noted.
    pub(super) fn pairs<K: FromStr<Err: Display>>(&self, help: &str) -> Vec<(K, Item<'n, 't>)> {
        if self.table.len() > LIST_MAX {
            let path = self.notes.path(self.place);
            let rule = format!(
                "`{path}` has {} entries; at most {LIST_MAX} are allowed",
                self.table.len()
            );
            self.notes.add(self.span.clone(), path, rule, "leave some out");
        }
        let mut pairs = Vec::new();
        for key in self.table.keys().take(LIST_MAX) {
            match key.get_ref().parse() {
                Ok(parsed) => pairs.extend(self.get(key.get_ref()).map(|item| (parsed, item))),
                Err(error) => {
                    let path = self.notes.path(self.place);
                    let rule = format!("`{path}`: {error}");
                    self.notes.add(key.span(), path, rule, help);
                }
            }
        }
        pairs
    }

    /// True or false; absent is false.
    pub(super) fn flag(&self, key: &str) -> bool {
        let Some(item) = self.get(key) else { return false };
        item.value.as_bool().unwrap_or_else(|| {
            item.mistyped("true or false");
            false
        })
    }

    /// The entries of a list of strings; absent is empty.
    pub(super) fn strings(&self, key: &str) -> Vec<Item<'n, 't>> {
        self.get(key).map(|item| item.entries("a list of strings")).unwrap_or_default()
    }

    /// The tables of `[[key]]`; absent is none.
    pub(super) fn tables(&self, key: &str) -> Vec<Table<'n, 't>> {
        let Some(list) = self.get(key) else { return Vec::new() };
        let items = list.entries(format_args!("a list of tables, each begun by [[{key}]]"));
        items.iter().filter_map(Item::table).collect()
    }
}

/// Reads the text as TOML, or gives what is wrong with its syntax.
pub(super) fn document(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<ManifestProblem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table);
    }
    Err(errors
        .iter()
        .take(PROBLEMS_MAX)
        .map(|error| {
            let message: String =
                error.message().lines().collect::<Vec<_>>().join("; ").chars().take(200).collect();
            ManifestProblem::new(
                text,
                error.span().unwrap_or(0..0),
                "",
                format!("this is not TOML: {message}"),
                "correct the syntax (https://toml.io); other rules are checked after that",
            )
        })
        .collect())
}
