//! Reading and writing items: attributes with types, and expressions without typing errors.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use modunest_core::time::Timestamp;

use crate::error::Error;

/// An item as the SDK has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Partition and sort key of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) partition: String,
    pub(crate) sort: String,
}

impl Key {
    pub(crate) fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Key { partition: partition.into(), sort: sort.into() }
    }

    pub(crate) fn attributes(&self) -> Item {
        HashMap::from([
            ("pk".to_owned(), text(&self.partition)),
            ("sk".to_owned(), text(&self.sort)),
        ])
    }

    /// The key with further attributes: an item to put. Absent values are left out.
    pub(crate) fn item<const N: usize>(
        &self,
        attributes: [(&str, Option<AttributeValue>); N],
    ) -> Item {
        let mut item = self.attributes();
        for (name, value) in attributes {
            if let Some(value) = value {
                item.insert(name.to_owned(), value);
            }
        }
        item
    }
}

pub(crate) fn text(value: impl ToString) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

pub(crate) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn time(value: Timestamp) -> AttributeValue {
    number(value.as_millis())
}

pub(crate) fn blob(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

/// DynamoDB has no empty sets.
pub(crate) fn set<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<AttributeValue> {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    (!values.is_empty()).then_some(AttributeValue::Ss(values))
}

/// A stored item, read attribute by attribute.
pub(crate) struct Row<'a> {
    pub(crate) entity: &'static str,
    pub(crate) item: &'a Item,
}

impl<'a> Row<'a> {
    pub(crate) fn new(entity: &'static str, item: &'a Item) -> Self {
        Row { entity, item }
    }

    pub(crate) fn damaged(&self, attribute: &str) -> Error {
        Error::Damaged { entity: self.entity, attribute: attribute.to_owned() }
    }

    fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a AttributeValue) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.item.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.damaged(name)),
        }
    }

    pub(crate) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.damaged(name))
    }

    pub(crate) fn text_optional(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.optional(name, |value| value.as_s().ok().map(String::as_str))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'a str, Error> {
        self.required(name, self.text_optional(name)?)
    }

    pub(crate) fn parse<T: FromStr>(&self, name: &str) -> Result<T, Error> {
        self.text(name)?.parse().map_err(|_| self.damaged(name))
    }

    pub(crate) fn parse_optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        self.text_optional(name)?
            .map(|text| text.parse().map_err(|_| self.damaged(name)))
            .transpose()
    }

    pub(crate) fn number_optional(&self, name: &str) -> Result<Option<u64>, Error> {
        self.optional(name, |value| value.as_n().ok()?.parse().ok())
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Error> {
        self.required(name, self.number_optional(name)?)
    }

    pub(crate) fn time(&self, name: &str) -> Result<Timestamp, Error> {
        self.number(name).map(Timestamp::from_millis)
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Error> {
        self.required(name, self.optional(name, |value| value.as_bool().ok().copied())?)
    }

    pub(crate) fn blob(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.required(
            name,
            self.optional(name, |value| Some(value.as_b().ok()?.as_ref().to_vec()))?,
        )
    }

    /// A set of texts; an absent one is empty.
    pub(crate) fn set<T: FromStr + Ord>(&self, name: &str) -> Result<BTreeSet<T>, Error> {
        let Some(values) = self.optional(name, |value| value.as_ss().ok())? else {
            return Ok(BTreeSet::new());
        };
        values.iter().map(|text| text.parse().map_err(|_| self.damaged(name))).collect()
    }

    /// A value kept as JSON text.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        self.text_optional(name)?
            .map(|text| serde_json::from_str(text).map_err(|_| self.damaged(name)))
            .transpose()
    }
}

/// A value as JSON text, for lists and problems that are only ever read whole.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<AttributeValue, Error> {
    serde_json::to_string(value)
        .map(text)
        .map_err(|_| Error::Broken("a value could not be written as JSON"))
}

/// An update, a condition, or both. Attribute names are written `#name` throughout, which
/// keeps clear of DynamoDB's 573 reserved words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Change {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The item must not exist.
    pub(crate) fn absent() -> Self {
        Self::new().when("attribute_not_exists(#pk)")
    }

    /// The item must exist.
    pub(crate) fn present() -> Self {
        Self::new().when("attribute_exists(#pk)")
    }

    fn name(&mut self, attribute: &str) {
        self.names.insert(format!("#{attribute}"), attribute.to_owned());
    }

    pub(crate) fn set(mut self, attribute: &str, value: AttributeValue) -> Self {
        self.name(attribute);
        self.set.push(format!("#{attribute} = :{attribute}"));
        self.values.insert(format!(":{attribute}"), value);
        self
    }

    pub(crate) fn set_optional(self, attribute: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(attribute, value),
            None => self,
        }
    }

    pub(crate) fn increase(mut self, attribute: &str) -> Self {
        self.name(attribute);
        self.add.push(format!("#{attribute} :one"));
        self.values.insert(":one".to_owned(), number(1));
        self
    }

    /// Adds to a number; an absent one is zero.
    pub(crate) fn add(mut self, attribute: &str, count: u64) -> Self {
        self.name(attribute);
        self.add.push(format!("#{attribute} :{attribute}"));
        self.values.insert(format!(":{attribute}"), number(count));
        self
    }

    pub(crate) fn add_to_set(mut self, attribute: &str, value: impl ToString) -> Self {
        self.name(attribute);
        self.add.push(format!("#{attribute} :{attribute}"));
        self.values.insert(format!(":{attribute}"), AttributeValue::Ss(vec![value.to_string()]));
        self
    }

    pub(crate) fn remove(mut self, attribute: &str) -> Self {
        self.name(attribute);
        self.remove.push(format!("#{attribute}"));
        self
    }

    /// A condition; all of them must hold.
    pub(crate) fn when(mut self, condition: &str) -> Self {
        for word in condition.split('#').skip(1) {
            let end =
                word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
            self.name(&word[..end]);
        }
        self.conditions.push(format!("({condition})"));
        self
    }

    /// A value that a condition names.
    pub(crate) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn update_expression(&self) -> String {
        let part = |word: &str, list: &[String]| {
            if list.is_empty() { String::new() } else { format!("{word} {} ", list.join(", ")) }
        };
        [part("SET", &self.set), part("REMOVE", &self.remove), part("ADD", &self.add)]
            .concat()
            .trim_end()
            .to_owned()
    }

    pub(crate) fn condition_expression(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    pub(crate) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    pub(crate) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_name_everything_once() {
        let change = Change::new()
            .set("state", text("x"))
            .remove("due_at")
            .increase("fence")
            .when("#state = :from AND #lease_until <= :now")
            .value(":from", text("y"))
            .value(":now", number(1));
        assert_eq!(
            change.update_expression(),
            "SET #state = :state REMOVE #due_at ADD #fence :one"
        );
        assert_eq!(
            change.condition_expression().unwrap(),
            "(#state = :from AND #lease_until <= :now)"
        );
        let mut names: Vec<_> = change.names().unwrap().into_keys().collect();
        names.sort();
        assert_eq!(names, ["#due_at", "#fence", "#lease_until", "#state"]);
    }

    #[test]
    fn a_row_tells_absent_from_malformed() {
        let item = Key::new("p", "s").item([("count", Some(text("seven"))), ("gone", None)]);
        let row = Row::new("thing", &item);
        assert!(matches!(row.number_optional("count"), Err(Error::Damaged { .. })));
        assert!(matches!(row.number_optional("gone"), Ok(None)));
        assert!(matches!(row.number("gone"), Err(Error::Damaged { .. })));
        assert!(row.set::<String>("gone").unwrap().is_empty());
    }
}
