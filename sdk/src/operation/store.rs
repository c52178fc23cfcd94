//! Key-value stores of the plugin's own. Each is named in the manifest, as `kv:NAME`; no other
//! plugin sees it, and what was written stays when the plugin is loaded again, also in another
//! version. When a write has been answered, it is on the disk.

use super::form::{Blob, Form as _, answer, form};
use super::{STORE_DELETE, STORE_GET, STORE_LIST, STORE_PUT, STORE_SWAP};
use crate::{Error, Host};

/// Longest key, in bytes; none is empty.
pub const KEY_MAX_BYTES: usize = 512;
/// Largest value, in bytes. Larger things are files.
pub const VALUE_MAX_BYTES: usize = 1024 * 1024;
/// Most keys of one page of a list.
pub const PAGE_MAX: u32 = 1000;

form! {
    /// Which key of which store.
    Get<'a> {
        /// The store.
        store: &'a str,
        /// The key.
        key: &'a [u8],
    }
}
form! {
    /// A value, if the key is there.
    Entry {
        /// The value.
        value: Option<Blob>,
    }
}
form! {
    /// A key and its new value.
    Put<'a> {
        /// The store.
        store: &'a str,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    }
}
form! {
    /// Which keys to list.
    List<'a> {
        /// The store.
        store: &'a str,
        /// What every listed key begins with; empty for all.
        prefix: &'a [u8],
        /// Only keys behind this one, in the order of bytes.
        after: Option<&'a [u8]>,
        /// Most keys, 1 to [`PAGE_MAX`].
        limit: u32,
    }
}
form! {
    /// Keys in the order of bytes.
    Page {
        /// The keys.
        keys: Vec<Blob>,
        /// Whether more follow behind the last one.
        more: bool,
    }
}
form! {
    /// Writes if the key still has the value that was read.
    Swap<'a> {
        /// The store.
        store: &'a str,
        /// The key.
        key: &'a [u8],
        /// The value that it must have; none if it must not be there.
        expected: Option<&'a [u8]>,
        /// Its value from then on; none to remove it.
        value: Option<&'a [u8]>,
    }
}
form! {
    /// What became of a swap.
    Swapped {
        /// Whether it was done.
        done: bool,
        /// Where it was not, the value that is there.
        found: Option<Blob>,
    }
}

/// One of the plugin's stores. Copies are free.
#[derive(Clone, Copy, Debug)]
pub struct Store<'n> {
    host: Host,
    name: &'n str,
}

/// What [`Store::swap`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The key had the expected value, and has the new one.
    Done,
    /// The key has this value, or is not there, and nothing was changed.
    Found(Option<Vec<u8>>),
}

impl Host {
    /// The plugin's store `name`, which its manifest asks for as `kv:NAME`.
    #[must_use]
    pub const fn store<'n>(&self, name: &'n str) -> Store<'n> {
        Store { host: *self, name }
    }
}

/// Every method fails with [`Error::Denied`] where the store is not granted, with
/// [`Error::InvalidInput`] above a limit, and with [`Error::Unavailable`] above the quota or
/// when the disk fails.
impl Store<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.host.operate(STORE_GET, &Get { store: self.name, key }.encode())?;
        Ok(answer::<Entry>(&bytes)?.value.map(|value| value.0))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.host.operate(STORE_PUT, &Put { store: self.name, key, value }.encode()).map(drop)
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        answer(&self.host.operate(STORE_DELETE, &Get { store: self.name, key }.encode())?)
    }

    /// One page of keys with this prefix, behind `after`, in the order of bytes.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn page(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Page, Error> {
        let request = List { store: self.name, prefix, after, limit };
        answer(&self.host.operate(STORE_LIST, &request.encode())?)
    }

    /// All keys with this prefix, page by page. Keys that are written meanwhile may be missing.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let page = self.page(prefix, keys.last().map(Vec::as_slice), PAGE_MAX)?;
            let more = page.more && !page.keys.is_empty();
            keys.extend(page.keys.into_iter().map(|key| key.0));
            if !more {
                return Ok(keys);
            }
        }
    }

    /// Writes `value` (or removes, for none) only if the key has the value `expected` (or is
    /// not there, for none). Two callers with the same expectation never both succeed.
    ///
    /// # Errors
    /// As every method of this type.
    pub fn swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<SwapOutcome, Error> {
        let request = Swap { store: self.name, key, expected, value };
        let bytes = self.host.operate(STORE_SWAP, &request.encode())?;
        let Swapped { done, found } = answer(&bytes)?;
        Ok(if done { SwapOutcome::Done } else { SwapOutcome::Found(found.map(|found| found.0)) })
    }
}
