//! Tables of requests with the answers they must get.
//!
//! A table is text. `@name` and the lines below it are fields that answers share. `## title`
//! starts a case: the request as in HTTP, where `body …` is its body; an empty line; the status,
//! each field of the answer, `@name` for shared ones, and what follows:
//!
//! | Line | The body |
//! |---|---|
//! | `empty` | has no bytes |
//! | `object NAME`, `object NAME 2..5` | is that object, or a part of it |
//! | `gzip NAME` | is that object once it is unpacked |
//! | `problem CODE DETAIL` | is that problem, with the request's trace |
//! | `json {…}` | is that value; `"*"` stands for any value |
//!
//! A field or a detail that is `*` is only looked for, since two runs may differ in it.
//! `{name}` is an object's digest, `{size name}` its size; a shell may add further names.

use std::collections::BTreeMap;
use std::io::Read as _;

use modunest_core::problem::Problem;
use modunest_tests::client::Answer;
use modunest_tests::raw::Ask;
use serde_json::Value;
use url::Url;

use crate::objects::Objects;

/// Fields of answers that are compared by other means, or not at all, each with its reason.
const NOT_COMPARED: [(&str, &str); 5] = [
    ("date", "a moment; a runtime may leave it to the network in front of it"),
    ("connection", "about one connection"),
    ("keep-alive", "about one connection"),
    ("transfer-encoding", "about one connection"),
    ("traceparent", "random; that it continues the request's trace is checked"),
];

/// The trace that every request of a table continues.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// One request, and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    title: String,
    ask: Ask,
    status: u16,
    fields: BTreeMap<String, String>,
    follows: String,
}

/// What stands for what in a table.
pub struct Names<'a> {
    pub objects: &'a Objects,
    pub further: Vec<(&'static str, String)>,
}

impl Names<'_> {
    fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or_else(|| panic!("no }} in {text}"));
            match self.value(name) {
                Some(value) => out.push_str(&value),
                None => panic!("nothing is called {name}"),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// For JSON, whose own braces stay.
    fn fill_known(&self, text: &str) -> String {
        self.further.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }

    fn value(&self, name: &str) -> Option<String> {
        if let Some((_, value)) = self.further.iter().find(|(known, _)| *known == name) {
            return Some(value.clone());
        }
        if let Some(name) = name.strip_prefix("size ") {
            return Some(self.objects.get(name).content.len().to_string());
        }
        Some(self.objects.get(name).digest().to_string())
    }
}

/// Reads a table. JSON is written as it is: names are filled in everywhere else.
pub fn read(text: &str, names: &Names<'_>) -> Vec<Case> {
    let mut shared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut cases = Vec::new();
    for block in text.split("\n## ").enumerate() {
        match block {
            (0, head) => {
                for group in head.split("\n@").skip(1) {
                    let mut lines = group.lines();
                    let name = lines.next().unwrap();
                    shared.insert(name, lines.take_while(|line| !line.is_empty()).collect());
                }
            }
            (_, block) => cases.push(case(block, &shared, names)),
        }
    }
    assert!(!cases.is_empty());
    cases
}

fn case(block: &str, shared: &BTreeMap<&str, Vec<&str>>, names: &Names<'_>) -> Case {
    let mut parts = block.split("\n\n").filter(|part| !part.trim().is_empty());
    let (request, answer) = (parts.next().unwrap(), parts.next().unwrap());
    assert!(parts.next().is_none(), "a case has two parts: {block}");
    let (title, request) = request.split_once('\n').unwrap();
    let mut lines = request.lines();
    let line = names.fill(lines.next().unwrap());
    let (method, target) = line.split_once(' ').unwrap();
    let mut ask = Ask::new(method, target);
    ask = ask.field("traceparent", &format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    for line in lines {
        if let Some(body) = line.strip_prefix("body ") {
            let body = match body.strip_prefix("spaces ") {
                Some(count) => " ".repeat(count.parse().unwrap()),
                None => names.fill_known(body),
            };
            ask = ask.body(body);
        } else {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            ask = ask.field(name, &names.fill(value));
        }
    }
    let mut lines = answer.lines();
    let status = lines.next().unwrap().parse().unwrap();
    let mut fields = BTreeMap::new();
    let mut follows = None;
    for line in lines {
        let used = match line.strip_prefix('@') {
            Some(name) => shared.get(name).unwrap_or_else(|| panic!("no @{name}")).clone(),
            None => vec![line],
        };
        for line in used {
            match field(line) {
                Some((name, value)) => {
                    fields.insert(name.to_owned(), names.fill(value));
                }
                None if line.starts_with("json ") => follows = Some(line.to_owned()),
                None => follows = Some(names.fill(line)),
            }
        }
    }
    let follows = follows.unwrap_or_else(|| panic!("{title}: nothing is said about the body"));
    Case { title: title.to_owned(), ask, status, fields, follows }
}

/// A line that is a field, and not about the body.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(": ")?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    is_name.then_some((name, value))
}

/// Puts every case to a shell, and gathers what is wrong.
pub async fn differences(cases: &[Case], base: &Url, objects: &Objects) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let mut found = Vec::new();
        match case.ask.send(base).await {
            Ok(answer) => judge(case, &answer, objects, &mut found),
            Err(broken) => found.push(format!("{broken:?}")),
        }
        if !found.is_empty() {
            let (method, target) = (&case.ask.method, &case.ask.target);
            wrong.push(format!(
                "{} ({method} {target}):\n    {}",
                case.title,
                found.join("\n    ")
            ));
        }
    }
    wrong
}

fn judge(case: &Case, answer: &Answer, objects: &Objects, wrong: &mut Vec<String>) {
    if answer.status.as_u16() != case.status {
        let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
        wrong.push(format!("status {}, not {}: {body}", answer.status.as_u16(), case.status));
        return;
    }
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for name in answer.headers.keys() {
        let lines: Vec<&str> =
            answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        found.insert(name.to_string(), lines.join(", "));
    }
    let trace = found.get("traceparent").map(String::as_str).unwrap_or_default();
    if trace.split('-').nth(1) != Some(TRACE_ID) || trace.len() != 55 {
        wrong.push(format!("traceparent {trace:?} does not continue the request's"));
    }
    for (name, _) in NOT_COMPARED {
        found.remove(name);
    }
    let mut expected = case.fields.clone();
    if case.follows.starts_with("problem ") || case.follows.starts_with("json ") {
        // Its length depends on what is in it; that it is right, the body shows.
        if !expected.contains_key("content-length") && case.ask.method != "HEAD" {
            expected.insert("content-length".to_owned(), answer.body.len().to_string());
        }
    }
    if case.ask.method == "HEAD" && case.status >= 400 {
        // It may be that of the problem, which differs from trace to trace, or none.
        found.remove("content-length");
    }
    if expected.contains_key("content-encoding") {
        // Two compressors need not agree on a length, and one that streams knows none.
        let length = found.remove("content-length");
        let is_wrong = |length: &String| *length != answer.body.len().to_string();
        if case.ask.method == "GET" && length.as_ref().is_some_and(is_wrong) {
            wrong.push(format!("content-length: {length:?} of {} bytes", answer.body.len()));
        }
    }
    for name in expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (expected, found) = (expected.get(name), found.get(name));
        if expected != found && (found.is_none() || expected.is_none_or(|value| value != "*")) {
            wrong.push(format!("{name}: {found:?}, not {expected:?}"));
        }
    }
    if let Some(reason) = body(&case.follows, answer, objects) {
        wrong.push(reason);
    }
}

/// What is wrong with a body.
fn body(follows: &str, answer: &Answer, objects: &Objects) -> Option<String> {
    let bytes = &answer.body;
    let (kind, rest) = follows.split_once(' ').unwrap_or((follows, ""));
    match kind {
        "empty" => (!bytes.is_empty()).then(|| format!("{} bytes, not none", bytes.len())),
        "object" => {
            let (name, range) = rest.split_once(' ').unwrap_or((rest, ".."));
            let (start, end) = range.split_once("..").unwrap();
            let whole = &objects.get(name).content;
            let at = |text: &str, other: usize| text.parse().unwrap_or(other);
            let expected = &whole[at(start, 0)..at(end, whole.len())];
            (bytes != expected)
                .then(|| format!("{} bytes that are not {rest}'s {}", bytes.len(), expected.len()))
        }
        "gzip" => {
            let mut unpacked = Vec::new();
            let read = flate2::read::GzDecoder::new(&**bytes).read_to_end(&mut unpacked);
            match read {
                Ok(_) if unpacked == objects.get(rest).content => None,
                Ok(_) => Some(format!("unpacks to {} bytes that are not {rest}", unpacked.len())),
                Err(error) => Some(format!("does not unpack: {error}")),
            }
        }
        "problem" => {
            let (code, detail) = rest.split_once(' ').unwrap();
            let problem: Problem = match serde_json::from_slice(bytes) {
                Ok(problem) => problem,
                Err(error) => return Some(format!("no problem: {error}")),
            };
            let expected = Problem { detail: detail.to_owned(), ..problem.clone() };
            let same = problem.code.as_str() == code
                && (detail == "*" || problem == expected)
                && problem.trace_id == TRACE_ID
                && problem
                    == Problem {
                        errors: problem.errors.clone(),
                        ..Problem::new(problem.code, problem.detail.clone(), TRACE_ID)
                    };
            (!same).then(|| format!("{problem:?}, not {rest}"))
        }
        "json" => {
            let found: Value = match serde_json::from_slice(bytes) {
                Ok(found) => found,
                Err(error) => return Some(format!("no JSON: {error}")),
            };
            let expected: Value = serde_json::from_str(rest).unwrap();
            (!fits(&found, &expected)).then(|| format!("{found}, not {expected}"))
        }
        other => panic!("{other} is not known"),
    }
}

fn fits(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (_, Value::String(any)) if any == "*" => true,
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| fits(found, expected))
        }
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len()
                && found.iter().all(|(name, found)| {
                    expected.get(name).is_some_and(|expected| fits(found, expected))
                })
        }
        (found, expected) => found == expected,
    }
}
