//! Key-value stores.

mod database;

use modunest_core::capability::Capability;
use modunest_sdk::Error;
use modunest_sdk::operation::form::{Blob, Form as _, request as parse};
use modunest_sdk::operation::store::{
    Entry, Get, KEY_MAX_BYTES, List, PAGE_MAX, Page, Put, Swap, Swapped, VALUE_MAX_BYTES,
};
use modunest_sdk::operation::{STORE_DELETE, STORE_GET, STORE_LIST, STORE_PUT};

use super::{Deadline, Operations};
use crate::config::grants::Quota;
pub(super) use database::Database;
use database::{Change, Job, Limits, Made, Place};

pub(super) fn serve(
    operations: &Operations,
    number: u32,
    request: &[u8],
    deadline: Deadline,
) -> Result<Vec<u8>, Error> {
    let change = match number {
        STORE_GET => {
            let Get { store, key } = parse(request)?;
            let place = place(operations, store, key)?;
            let value = operations.resources.database()?.get(&place)?.map(Blob);
            return Ok(Entry { value }.encode());
        }
        STORE_LIST => return list(operations, request),
        STORE_PUT => {
            let Put { store, key, value } = parse(request)?;
            let place = place(operations, store, key)?;
            (place, Change::Put(checked(value)?.to_vec()))
        }
        STORE_DELETE => {
            let Get { store, key } = parse(request)?;
            (place(operations, store, key)?, Change::Delete)
        }
        _ => {
            let Swap { store, key, expected, value } = parse(request)?;
            let place = place(operations, store, key)?;
            let value = value.map(checked).transpose()?.map(<[u8]>::to_vec);
            (place, Change::Swap { expected: expected.map(<[u8]>::to_vec), value })
        }
    };
    let Quota { store_bytes, store_keys, .. } = operations.quota;
    let (place, change) = change;
    let job = Job { place, change, limits: Limits { bytes: store_bytes, keys: store_keys } };
    let answer = match operations.resources.database()?.change(job, deadline)? {
        Made::Done => Vec::new(),
        Made::Deleted(was_there) => was_there.encode(),
        Made::Swapped => Swapped { done: true, found: None }.encode(),
        Made::Found(found) => Swapped { done: false, found: found.map(Blob) }.encode(),
    };
    Ok(answer)
}

fn list(operations: &Operations, request: &[u8]) -> Result<Vec<u8>, Error> {
    let List { store, prefix, after, limit } = parse(request)?;
    granted(operations, store)?;
    if prefix.len() > KEY_MAX_BYTES || after.is_some_and(|after| after.len() > KEY_MAX_BYTES) {
        return Err(Error::InvalidInput(format!("no key is above {KEY_MAX_BYTES} bytes")));
    }
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::InvalidInput(format!("a page has 1 to {PAGE_MAX} keys, not {limit}")));
    }
    let place = |key: &[u8]| Place::new(operations.plugin.as_str(), store, key);
    let after = after.map(place);
    let database = operations.resources.database()?;
    let (keys, more) = database.keys(&place(prefix), after.as_ref(), limit as usize)?;
    Ok(Page { keys: keys.into_iter().map(Blob).collect(), more }.encode())
}

/// A store's name can be asked for only as it stands in manifests, so it holds no separator.
fn granted(operations: &Operations, store: &str) -> Result<(), Error> {
    let used =
        Capability::parse("kv", store).map_err(|error| Error::InvalidInput(error.to_string()))?;
    operations.need(&used)
}

fn place(operations: &Operations, store: &str, key: &[u8]) -> Result<Place, Error> {
    granted(operations, store)?;
    if key.is_empty() || key.len() > KEY_MAX_BYTES {
        let text = format!("a key has 1 to {KEY_MAX_BYTES} bytes, not {}", key.len());
        return Err(Error::InvalidInput(text));
    }
    Ok(Place::new(operations.plugin.as_str(), store, key))
}

fn checked(value: &[u8]) -> Result<&[u8], Error> {
    if value.len() <= VALUE_MAX_BYTES {
        return Ok(value);
    }
    let length = value.len();
    Err(Error::InvalidInput(format!("a value has at most {VALUE_MAX_BYTES} bytes, not {length}")))
}
