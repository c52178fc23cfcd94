//! Listing keys in order, with prefix and delimiter.

use rusqlite::{Connection, params};

use super::Index;
use super::objects::size_bytes;
use crate::error::IndexError;

/// What to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListingQuery {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    /// Groups keys that share what follows the prefix up to this text; never empty.
    pub(crate) delimiter: Option<String>,
    /// Where to begin; `None` at the beginning.
    pub(crate) after: Option<After>,
    /// Entries (keys and groups together) at most.
    pub(crate) limit: usize,
}

/// Where a listing continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// Behind this key, which need not exist.
    Key(String),
    /// Behind every key of this group.
    Group(String),
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
}

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) objects: Vec<Listed>,
    pub(crate) groups: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub(crate) next: Option<After>,
}

/// Rows fetched at once while looking for groups.
const PAGE_ROWS: usize = 256;

/// No character's UTF-8 bytes sort after these.
const GREATEST: char = char::MAX;

impl Index {
    pub(crate) fn list(&self, query: &ListingQuery) -> Result<Listing, IndexError> {
        let reader = self.reader();
        let mut listing = Listing::default();
        // No key is empty, so "after nothing" is "after the empty text".
        let mut after = match &query.after {
            None => String::new(),
            Some(After::Key(key)) => key.clone(),
            Some(After::Group(group)) => behind(group),
        };
        loop {
            let rows = page(&reader, query, &after)?;
            let exhausted = rows.len() < PAGE_ROWS;
            let mut skipped = false;
            for row in rows {
                if listing.objects.len() + listing.groups.len() == query.limit {
                    listing.next = last_entry(&listing);
                    return Ok(listing);
                }
                if let Some(group) = group_of(&row.key, query) {
                    after = behind(&group);
                    listing.groups.push(group);
                    skipped = true;
                    break;
                }
                after.clone_from(&row.key);
                listing.objects.push(row);
            }
            if exhausted && !skipped {
                return Ok(listing);
            }
        }
    }
}

/// The greater of the last key and the last group; none of either on a page of no entries.
fn last_entry(listing: &Listing) -> Option<After> {
    let key = listing.objects.last().map(|object| &object.key);
    let group = listing.groups.last();
    match group {
        Some(group) if key < Some(group) => Some(After::Group(group.clone())),
        _ => key.map(|key| After::Key(key.clone())),
    }
}

/// The group that a key belongs to: its text up to and with the first delimiter after the prefix.
fn group_of(key: &str, query: &ListingQuery) -> Option<String> {
    let delimiter = query.delimiter.as_deref()?;
    let rest = key.strip_prefix(query.prefix.as_str())?;
    let end = rest.find(delimiter)? + delimiter.len();
    Some(format!("{}{}", query.prefix, rest.get(..end)?))
}

/// A text behind which no key of the group comes. Keys are at most 1,024 bytes
/// (S3's limit), so repeating the greatest character that often passes them all.
fn behind(group: &str) -> String {
    const GREATEST_REPEATED: usize = 1024 / GREATEST.len_utf8() + 1;
    let mut text = String::with_capacity(group.len() + GREATEST_REPEATED * GREATEST.len_utf8());
    text.push_str(group);
    text.extend(std::iter::repeat_n(GREATEST, GREATEST_REPEATED));
    text
}

fn page(
    connection: &Connection,
    query: &ListingQuery,
    after: &str,
) -> Result<Vec<Listed>, IndexError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, size, etag, modified_ms FROM objects
         WHERE bucket = ?1 AND key >= ?2 AND key > ?3 AND key <= ?4 ORDER BY key LIMIT ?5",
    )?;
    let end = behind(&query.prefix);
    let mut rows = statement.query(params![
        query.bucket,
        query.prefix,
        after,
        end,
        PAGE_ROWS.cast_signed()
    ])?;
    let mut listed = Vec::new();
    while let Some(row) = rows.next()? {
        listed.push(Listed {
            key: row.get(0)?,
            size_bytes: size_bytes(row.get(1)?)?,
            etag: row.get(2)?,
            modified_ms: row.get(3)?,
        });
    }
    Ok(listed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;
    use crate::events::{EventName, Interest};
    use crate::files::Files;
    use crate::index::{Condition, Content, Headers, NewObject};

    /// The definition, read naively: filter, group, sort.
    fn oracle(keys: &BTreeSet<String>, query: &ListingQuery) -> (Vec<String>, Vec<String>) {
        let mut objects = Vec::new();
        let mut groups = BTreeSet::new();
        for key in keys.iter().filter(|key| key.starts_with(&query.prefix)) {
            match group_of(key, query) {
                Some(group) => drop(groups.insert(group)),
                None => objects.push(key.clone()),
            }
        }
        (objects, groups.into_iter().collect())
    }

    /// Unused here, and its shard folders cost more than a case of the property.
    static FILES: LazyLock<(tempfile::TempDir, Files)> = LazyLock::new(|| {
        let folder = tempfile::TempDir::new().unwrap();
        let files = Files::open(folder.path().join("objects"), false).unwrap();
        (folder, files)
    });

    fn index_of(keys: &BTreeSet<String>) -> (tempfile::TempDir, Index) {
        let folder = tempfile::TempDir::new().unwrap();
        let files = FILES.1.clone();
        let interest = Arc::new(Interest::new(String::new(), &[]));
        let index =
            Index::open(folder.path(), false, files, interest, Arc::new(Notify::new())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            index.create_bucket("bucket".into(), 0).await.unwrap().unwrap();
            let puts = keys.iter().map(|key| {
                index.put(NewObject {
                    bucket: "bucket".into(),
                    key: key.clone(),
                    size_bytes: 0,
                    etag: String::new(),
                    modified_ms: 0,
                    checksum_algorithm: String::new(),
                    checksum: String::new(),
                    headers: Headers::default(),
                    content: Content::Inline(bytes::Bytes::new()),
                    event: EventName::Put,
                    condition: Condition::None,
                })
            });
            futures_util::future::try_join_all(puts).await.unwrap();
        });
        (folder, index)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn pages_together_are_the_definition(
            keys in prop::collection::btree_set("[a-c/\u{10ffff}é]{1,5}", 0..40),
            prefix in "[a-c/]{0,2}",
            delimiter in prop::option::of("[/b]{1,2}"),
            limit in 1_usize..7,
        ) {
            let (_folder, index) = index_of(&keys);
            let mut query = ListingQuery {
                bucket: "bucket".into(), prefix, delimiter, after: None, limit,
            };
            let expected = oracle(&keys, &query);
            let (mut objects, mut groups) = (Vec::new(), Vec::new());
            loop {
                let listing = index.list(&query).unwrap();
                prop_assert!(listing.objects.len() + listing.groups.len() <= limit);
                objects.extend(listing.objects.into_iter().map(|object| object.key));
                groups.extend(listing.groups);
                match listing.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
            index.close().unwrap();
            prop_assert_eq!((objects, groups), expected);
        }
    }

    #[test]
    fn more_rows_than_are_fetched_at_once_are_all_listed() {
        let keys: BTreeSet<String> = (0..PAGE_ROWS * 2 + 3).map(|n| format!("k/{n:05}")).collect();
        let (_folder, index) = index_of(&keys);
        let all = ListingQuery { bucket: "bucket".into(), limit: 1000, ..ListingQuery::default() };
        assert_eq!(index.list(&all).unwrap().objects.len(), keys.len());
        let grouped = ListingQuery { delimiter: Some("/".into()), ..all };
        let listing = index.list(&grouped).unwrap();
        assert_eq!((listing.objects.len(), listing.groups), (0, vec!["k/".to_owned()]));
        index.close().unwrap();
    }
}
