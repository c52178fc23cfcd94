//! JSON Schemas of plugins, compiled once, before the plugin is loaded.
//!
//! The agent itself runs these checks, so a schema must not be able to keep it busy: references
//! stay within the file, never lead back to where they come from, and a schema that is written
//! out in full has a bounded size. Patterns run in time that is linear in the text.

use std::collections::HashMap;
use std::path::Path;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use modunest_core::archive::FileRecord;
use modunest_core::digest::Digest;
use serde_json::Value;

use crate::secrets::SEALED;

/// Largest schema, in bytes: people write these.
const SCHEMA_MAX_BYTES: u64 = 64 * 1024;
/// Most values of a schema once every reference is replaced by what it refers to.
const UNFOLDED_MAX: usize = 20_000;
/// Deepest chain of references; each takes stack.
const DEPTH_MAX: usize = 32;
/// Largest payload that is checked, in bytes. Larger things are not JSON that a schema
/// describes, and a check costs many times what carrying the bytes does.
const CHECKED_MAX_BYTES: usize = 1024 * 1024;
/// Broken rules of settings that are named: an operator mends all of them at once.
const SETTINGS_SHOWN_MAX: usize = 20;
/// Broken rules that are named.
const SHOWN_MAX: usize = 3;
/// Longest text of one broken rule, in characters: it may repeat the value.
const SHOWN_MAX_CHARS: usize = 200;

/// A compiled schema.
pub(in crate::host) struct Schema(Validator);

impl Schema {
    /// Reads a schema from a plugin's folder. `record` is what the archive's proven list says
    /// about the file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(in crate::host) fn read(
        folder: &Path,
        name: &str,
        record: Option<&FileRecord>,
    ) -> Result<Schema, String> {
        let record = record.ok_or_else(|| format!("its archive has no {name}"))?;
        if record.size_bytes > SCHEMA_MAX_BYTES {
            return Err(format!(
                "its schema {name} has {} bytes, at most {SCHEMA_MAX_BYTES} are read",
                record.size_bytes
            ));
        }
        let bytes = std::fs::read(folder.join(name))
            .map_err(|error| format!("its schema {name} cannot be read: {error}"))?;
        if Digest::of(&bytes) != record.sha256 {
            return Err(format!("its schema {name} is not what the archive held"));
        }
        Schema::compile(&bytes).map_err(|why| format!("its schema {name}: {why}"))
    }

    fn compile(bytes: &[u8]) -> Result<Schema, String> {
        let schema: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        Unfolding { root: &schema, sizes: HashMap::new(), depth: 0 }.whole()?;
        let patterns = PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20);
        jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(&schema)
            .map(Schema)
            .map_err(|error| shown(&error.to_string()))
    }

    /// Checks settings of an operator's. Values are not shown: some are nobody else's business.
    ///
    /// # Errors
    /// All broken rules, each with its place.
    pub(in crate::host) fn check_settings(&self, settings: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(settings)
            .map_err(|error| shown(&format!("it is not JSON: {error}")))?;
        let errors = self.0.iter_errors(&value).filter(|error| !is_about_a_secret(error));
        let broken: Vec<String> = errors
            .take(SETTINGS_SHOWN_MAX)
            .map(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the whole" } else { &place };
                shown(&format!("{place}: {}", error.masked()))
            })
            .collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
    }

    /// Checks a payload.
    ///
    /// # Errors
    /// The first broken rules, each with its place.
    pub(in crate::host) fn check(&self, payload: &[u8]) -> Result<(), String> {
        if payload.len() > CHECKED_MAX_BYTES {
            return Err(format!(
                "{} bytes are above the {CHECKED_MAX_BYTES} that are checked against a schema",
                payload.len()
            ));
        }
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| shown(&format!("it is not JSON: {error}")))?;
        if self.0.is_valid(&value) {
            return Ok(());
        }
        let broken = self.0.iter_errors(&value).take(SHOWN_MAX).map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "the whole".to_owned() } else { place };
            shown(&format!("{place}: {error}"))
        });
        Err(broken.collect::<Vec<_>>().join("; "))
    }
}

/// Whether an error is about a sealed value, of which nothing but its being text is known.
fn is_about_a_secret(error: &ValidationError<'_>) -> bool {
    let is_sealed = error.instance().as_str().is_some_and(|text| text.starts_with(SEALED));
    is_sealed && !matches!(error.kind(), ValidationErrorKind::Type { .. })
}

/// One line that goes to logs and to callers.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SHOWN_MAX_CHARS).collect()
}

/// Measures a schema with its references replaced.
struct Unfolding<'s> {
    root: &'s Value,
    /// By pointer; `None` while it is being measured.
    sizes: HashMap<&'s str, Option<usize>>,
    /// How many are being measured.
    depth: usize,
}

impl<'s> Unfolding<'s> {
    fn whole(mut self) -> Result<(), String> {
        let size = self.size(self.root, true)?;
        if size > UNFOLDED_MAX {
            return Err(format!(
                "written out in full it has more than {UNFOLDED_MAX} parts; refer to less"
            ));
        }
        Ok(())
    }

    fn size(&mut self, value: &'s Value, is_root: bool) -> Result<usize, String> {
        let mut size = 1_usize;
        match value {
            Value::Array(items) => {
                for item in items {
                    size = size.saturating_add(self.size(item, false)?);
                }
            }
            Value::Object(keys) => {
                for (key, item) in keys {
                    match (key.as_str(), item) {
                        ("$ref", Value::String(pointer)) => {
                            size = size.saturating_add(self.referred(pointer)?);
                        }
                        ("$id", Value::String(_)) if !is_root => return Err(foreign(key)),
                        (
                            "$dynamicRef" | "$recursiveRef" | "$anchor" | "$dynamicAnchor",
                            Value::String(_),
                        ) => return Err(foreign(key)),
                        _ => size = size.saturating_add(self.size(item, false)?),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Ok(size)
    }

    fn referred(&mut self, reference: &'s str) -> Result<usize, String> {
        let pointer = reference
            .strip_prefix('#')
            .filter(|pointer| !pointer.contains('%'))
            .ok_or_else(|| format!("the reference \"{}\" leads elsewhere", shown(reference)))?;
        match self.sizes.get(pointer) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => {
                return Err(format!("the reference \"{}\" leads in a circle", shown(reference)));
            }
            None => {}
        }
        let target = self
            .root
            .pointer(pointer)
            .ok_or_else(|| format!("the reference \"{}\" leads nowhere", shown(reference)))?;
        self.sizes.insert(pointer, None);
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("its references are more than {DEPTH_MAX} deep"));
        }
        let size = self.size(target, std::ptr::eq(target, self.root))?;
        self.depth -= 1;
        self.sizes.insert(pointer, Some(size));
        Ok(size)
    }
}

fn foreign(key: &str) -> String {
    format!("{key} is not understood here; use \"$ref\": \"#/$defs/…\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn refused(schema: &str) -> String {
        Schema::compile(schema.as_bytes()).err().unwrap_or_default()
    }

    #[test]
    fn payloads_are_checked_and_told_what_is_wrong() {
        let schema = Schema::compile(
            br##"{"$id":"https://example.org/x","type":"object","required":["name"],
                "properties":{"name":{"$ref":"#/$defs/name"},"tags":{"type":"array","items":{"$ref":"#/$defs/name"}}},
                "additionalProperties":false,"$defs":{"name":{"type":"string","pattern":"^[a-z]+$"}}}"##,
        )
        .unwrap();
        let told = |payload: &str| schema.check(payload.as_bytes()).err().unwrap_or_default();
        let all = [
            told(r#"{"name":"ada","tags":["a"]}"#),
            told("{}"),
            told(r#"{"name":"Ada","tags":["a",1],"more":true}"#),
            told("not json"),
            told(&format!("\"{}\"", "x".repeat(CHECKED_MAX_BYTES))),
            told(&format!("\"{}\"", "x".repeat(5000))),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_schema_that_could_keep_the_agent_busy_is_refused() {
        let doubling: Vec<String> = (0..20)
            .map(|n| {
                let next = format!("{{\"$ref\":\"#/$defs/d{}\"}}", n + 1);
                format!("\"d{n}\":{{\"allOf\":[{next},{next}]}}")
            })
            .collect();
        let doubling = format!(
            "{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{},\"d20\":true}}}}",
            doubling.join(",")
        );
        let all = [
            refused("{"),
            refused(r#"{"type":"strin"}"#),
            refused(r#"{"pattern":"("}"#),
            refused(r#"{"pattern":"(a|b)*c{1,5}(?=x)"}"#),
            refused(r##"{"$ref":"#"}"##),
            refused(r##"{"properties":{"a":{"$ref":"#"}}}"##),
            refused(r##"{"$ref":"#/$defs/x"}"##),
            refused(r#"{"$ref":"https://example.org/schema"}"#),
            refused(r#"{"$ref":"file:///etc/passwd"}"#),
            refused(r##"{"$dynamicRef":"#meta"}"##),
            refused(&doubling),
            refused(&format!("{}1{}", "[".repeat(200), "]".repeat(200))),
        ];
        assert!(all.iter().all(|told| !told.is_empty()), "{all:#?}");
        insta::assert_snapshot!(all.join("\n"));
    }
}
