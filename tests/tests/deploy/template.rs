//! `template.yaml` as one JSON value, with CloudFormation's short tags in their long form:
//! `!Ref X` is `{"Ref": "X"}`, `!GetAtt A.B` is `{"Fn::GetAtt": ["A", "B"]}`.

use std::path::{Path, PathBuf};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value, json};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The template.
pub fn load() -> Value {
    parse(&read("template.yaml"))
}

/// The resources of a type, by their logical names.
pub fn resources<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let all = template["Resources"].as_object().unwrap();
    let mut found: Vec<_> = all
        .iter()
        .filter(|(_, resource)| resource["Type"] == kind)
        .map(|(name, resource)| (name.as_str(), resource))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    found
}

/// A value as one would write it in a text: references in `${…}`, choices as `a if C else b`.
pub fn render(value: &Value) -> String {
    let of = |name: &str| value.get(name);
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => match (of("Ref"), of("Fn::GetAtt"), of("Fn::Sub"), of("Fn::If")) {
            (Some(name), ..) => format!("${{{}}}", name.as_str().unwrap()),
            (_, Some(Value::Array(path)), ..) => {
                let path: Vec<&str> = path.iter().map(|part| part.as_str().unwrap()).collect();
                format!("${{{}}}", path.join("."))
            }
            (.., Some(Value::String(text)), _) => text.clone(),
            (.., Some(Value::Array(parts)), _) => {
                let mut text = parts[0].as_str().unwrap().to_owned();
                for (name, value) in parts[1].as_object().unwrap() {
                    text = text.replace(&format!("${{{name}}}"), &render(value));
                }
                text
            }
            (.., Some(Value::Array(parts))) => format!(
                "({} if {} else {})",
                render(&parts[1]),
                parts[0].as_str().unwrap(),
                render(&parts[2])
            ),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// A list, or the one value that stands for a list of one.
pub fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

/// Reads YAML.
///
/// # Panics
/// At what CloudFormation would not take either: anchors, a key twice, no document.
pub fn parse(text: &str) -> Value {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.unwrap();
        let line = span.start.line();
        let done = match event {
            Event::Alias(_) => panic!("line {line}: an alias; write it out"),
            Event::Scalar(text, style, _, tag) => long_form(tag.as_deref(), scalar(&text, style)),
            Event::SequenceStart(_, tag) => {
                open.push(Open::Sequence(tag.map(|tag| tag.into_owned()), Vec::new()));
                continue;
            }
            Event::MappingStart(_, tag) => {
                open.push(Open::Mapping(tag.map(|tag| tag.into_owned()), Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop().unwrap() {
                Open::Sequence(tag, values) => long_form(tag.as_ref(), Value::Array(values)),
                Open::Mapping(tag, values, _) => long_form(tag.as_ref(), Value::Object(values)),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => return done,
            Some(Open::Sequence(_, values)) => values.push(done),
            Some(Open::Mapping(_, values, key)) => match key.take() {
                None => *key = Some(done.as_str().expect("keys are texts").to_owned()),
                Some(key) => {
                    let twice = values.insert(key.clone(), done).is_some();
                    assert!(!twice, "line {line}: {key} twice");
                }
            },
        }
    }
    panic!("no document");
}

enum Open {
    Sequence(Option<Tag>, Vec<Value>),
    Mapping(Option<Tag>, Map<String, Value>, Option<String>),
}

/// Numbers and truth values of the JSON kind; whatever else stands without quotes is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::from(text);
    }
    match text {
        "" | "null" | "~" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse::<serde_json::Number>() {
            // A date is no number, and a number with a leading zero is an account.
            Ok(number) if number.to_string() == text => Value::Number(number),
            _ => Value::from(text),
        },
    }
}

fn long_form(tag: Option<&Tag>, value: Value) -> Value {
    let Some(tag) = tag.filter(|tag| tag.handle == "!") else { return value };
    match tag.suffix.as_str() {
        "Ref" | "Condition" => json!({ tag.suffix.clone(): value }),
        "GetAtt" => match value.as_str().and_then(|text| text.split_once('.')) {
            Some((resource, attribute)) => json!({ "Fn::GetAtt": [resource, attribute] }),
            None => json!({ "Fn::GetAtt": value }),
        },
        name => json!({ format!("Fn::{name}"): value }),
    }
}

#[test]
fn short_tags_are_their_long_forms() {
    let text = "a: !Sub \"${X}/*\"\nb: !If [C, !Ref Y, !GetAtt Z.Arn.Deep]\nc: { n: 007, m: 7, t: \"7\", s: true }\n";
    let value = parse(text);
    let expected = json!({
        "a": {"Fn::Sub": "${X}/*"},
        "b": {"Fn::If": ["C", {"Ref": "Y"}, {"Fn::GetAtt": ["Z", "Arn.Deep"]}]},
        "c": {"n": "007", "m": 7, "t": "7", "s": true},
    });
    assert_eq!(value, expected);
    assert_eq!(render(&value["b"]), "(${Y} if C else ${Z.Arn.Deep})");
}

#[test]
#[should_panic(expected = "twice")]
fn a_key_twice_is_no_template() {
    parse("a: 1\na: 2\n");
}
