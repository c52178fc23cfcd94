//! One file for the stores of all plugins.
//!
//! One thread writes. It takes all changes that wait, makes them in one transaction, and
//! answers when that is on the disk: so a lone write costs one sync, and many at a time share
//! one. A change is answered only if it survives a crash from then on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use modunest_sdk::Error;
use redb::{ReadableDatabase as _, ReadableTable, Table, TableDefinition, TableError};

use super::super::deadline::{Deadline, exceeded};
use super::super::meter::lock;

/// Every key of every plugin, named as [`Place`] says.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// By plugin: bytes and number of its keys.
const USAGE: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("usage");

/// Changes that wait for the writer; beyond it, plugins wait to get in.
const WAITING_MAX: usize = 256;
/// Most changes of one transaction: with the largest values, 64 MiB.
const TRANSACTION_MAX: usize = 64;
/// How long a change waits that has no deadline: a disk that is silent for longer is broken.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Memory for pages of the file. The default of the crate is a gigabyte.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A key of a store of a plugin: plugin, zero, store, zero, key. Names hold no zero, so no
/// plugin's keys lie within another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    plugin: String,
    full: Vec<u8>,
    /// Where the plugin's own key begins.
    own: usize,
}

impl Place {
    pub(super) fn new(plugin: &str, store: &str, key: &[u8]) -> Self {
        let mut full = Vec::with_capacity(plugin.len() + store.len() + key.len() + 2);
        for name in [plugin, store] {
            full.extend_from_slice(name.as_bytes());
            full.push(0);
        }
        let own = full.len();
        full.extend_from_slice(key);
        Place { plugin: plugin.to_owned(), full, own }
    }
}

/// What is to become of a key.
#[derive(Debug)]
pub(super) enum Change {
    Put(Vec<u8>),
    Delete,
    Swap { expected: Option<Vec<u8>>, value: Option<Vec<u8>> },
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    Done,
    Deleted(bool),
    Swapped,
    Found(Option<Vec<u8>>),
}

/// How much one plugin may keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

/// A change, and whose.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) place: Place,
    pub(super) change: Change,
    pub(super) limits: Limits,
}

type Answer = SyncSender<Result<Made, Error>>;

/// The open file.
pub(crate) struct Database {
    database: Arc<redb::Database>,
    jobs: Option<SyncSender<(Job, Answer)>>,
    writer: Option<JoinHandle<()>>,
}

/// A text for people; the plugin can do nothing about it.
fn broken(error: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("the host's key-value store cannot be used: {error}"))
}

impl Database {
    /// Opens the file, or shares it where this process has it open: two agents of one process
    /// may follow one another on one folder.
    pub(in super::super) fn open(path: &Path) -> Result<Arc<Self>, Error> {
        static OPEN: OnceLock<Mutex<BTreeMap<PathBuf, Weak<Database>>>> = OnceLock::new();
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(broken)?;
        let mut open = lock(OPEN.get_or_init(Mutex::default));
        open.retain(|_, database| database.strong_count() > 0);
        let known =
            folder.canonicalize().map_err(broken)?.join(path.file_name().unwrap_or_default());
        if let Some(database) = open.get(&known).and_then(Weak::upgrade) {
            return Ok(database);
        }
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = Arc::new(builder.create(&known).map_err(broken)?);
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let shared = database.clone();
        let thread = std::thread::Builder::new().name("stores".to_owned());
        let writer = thread.spawn(move || write_all(&shared, &waiting)).map_err(broken)?;
        let opened = Arc::new(Database { database, jobs: Some(jobs), writer: Some(writer) });
        open.insert(known, Arc::downgrade(&opened));
        Ok(opened)
    }

    pub(super) fn get(&self, place: &Place) -> Result<Option<Vec<u8>>, Error> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            // Nothing was ever written.
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        let value = table.get(place.full.as_slice()).map_err(broken)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// Keys with a prefix, behind one of them, and whether there are more.
    pub(super) fn keys(
        &self,
        prefix: &Place,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), Error> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok((Vec::new(), false)),
            Err(error) => return Err(broken(error)),
        };
        let from = match after {
            Some(after) if after.full >= prefix.full => Bound::Excluded(after.full.as_slice()),
            _ => Bound::Included(prefix.full.as_slice()),
        };
        let mut keys = Vec::new();
        for entry in table.range::<&[u8]>((from, Bound::Unbounded)).map_err(broken)? {
            let (key, _) = entry.map_err(broken)?;
            let key = key.value();
            if !key.starts_with(&prefix.full) {
                break;
            }
            if keys.len() == limit {
                return Ok((keys, true));
            }
            keys.push(key[prefix.own..].to_vec());
        }
        Ok((keys, false))
    }

    /// Makes a change last.
    pub(super) fn change(&self, job: Job, deadline: Deadline) -> Result<Made, Error> {
        let wait = deadline.left(WAIT_MAX)?;
        let (answer, made) = sync_channel(1);
        let ended = || broken("its writer has ended; restart the agent");
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send((job, answer)).map_err(|_| ended())?;
        match made.recv_timeout(wait) {
            Ok(made) => made,
            // It is made later, or was: as with every answer that comes too late.
            Err(RecvTimeoutError::Timeout) => Err(exceeded()),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.jobs = None;
        // Waited for, so that whoever opens the file next finds it free.
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the key-value stores has panicked");
        }
    }
}

/// Makes changes until nobody can send any more.
fn write_all(database: &redb::Database, waiting: &Receiver<(Job, Answer)>) {
    while let Ok(first) = waiting.recv() {
        let mut jobs = vec![first];
        while jobs.len() < TRANSACTION_MAX {
            let Ok(job) = waiting.try_recv() else { break };
            jobs.push(job);
        }
        let (jobs, answers): (Vec<Job>, Vec<Answer>) = jobs.into_iter().unzip();
        match write(database, jobs) {
            Ok(made) => {
                for (answer, made) in answers.into_iter().zip(made) {
                    // Nobody listens any more where the deadline passed.
                    drop(answer.send(made));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the key-value stores cannot be written");
                for answer in answers {
                    drop(answer.send(Err(broken(&error))));
                }
            }
        }
    }
}

/// One transaction: all changes or, where the disk fails, none. A change that is refused
/// changes nothing and is no failure.
fn write(
    database: &redb::Database,
    jobs: Vec<Job>,
) -> Result<Vec<Result<Made, Error>>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut made = Vec::with_capacity(jobs.len());
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut usage = transaction.open_table(USAGE)?;
        for job in jobs {
            made.push(apply(job, &mut entries, &mut usage)?);
        }
    }
    transaction.commit()?;
    Ok(made)
}

fn apply(
    job: Job,
    entries: &mut Table<'_, &'static [u8], &'static [u8]>,
    usage: &mut Table<'_, &'static str, (u64, u64)>,
) -> Result<Result<Made, Error>, redb::Error> {
    let Job { place, change, limits } = job;
    let full = place.full.as_slice();
    let found = entries.get(full)?.map(|value| value.value().to_vec());
    let (value, made) = match change {
        Change::Put(value) => (Some(value), Made::Done),
        Change::Delete => (None, Made::Deleted(found.is_some())),
        Change::Swap { expected, value } if expected == found => (value, Made::Swapped),
        Change::Swap { .. } => return Ok(Ok(Made::Found(found))),
    };
    let (bytes, keys) = usage.get(place.plugin.as_str())?.map_or((0, 0), |used| used.value());
    let key_bytes = (full.len() - place.own) as u64;
    let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |v| key_bytes + v.len() as u64);
    let count = |value: &Option<Vec<u8>>| u64::from(value.is_some());
    let bytes_then = bytes.saturating_sub(size(&found)) + size(&value);
    let keys_then = keys.saturating_sub(count(&found)) + count(&value);
    // What makes it less is always allowed, also above a quota that was lowered.
    if (bytes_then > limits.bytes && bytes_then > bytes)
        || (keys_then > limits.keys && keys_then > keys)
    {
        return Ok(Err(Error::Unavailable(format!(
            "the quota of the plugin's stores is full: {bytes_then} of {} bytes, {keys_then} of {} keys",
            limits.bytes, limits.keys
        ))));
    }
    match &value {
        Some(value) => drop(entries.insert(full, value.as_slice())?),
        None => drop(entries.remove(full)?),
    }
    usage.insert(place.plugin.as_str(), (bytes_then, keys_then))?;
    Ok(Ok(made))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const WIDE: Limits = Limits { bytes: 1000, keys: 10 };

    fn change(database: &Database, key: &str, change: Change) -> Result<Made, Error> {
        let place = Place::new("demo/notes", "cache", key.as_bytes());
        database.change(Job { place, change, limits: WIDE }, Deadline::default())
    }

    fn put(database: &Database, key: &str, value: &[u8]) -> Result<Made, Error> {
        change(database, key, Change::Put(value.to_vec()))
    }

    fn get(database: &Database, plugin: &str, store: &str, key: &str) -> Option<Vec<u8>> {
        database.get(&Place::new(plugin, store, key.as_bytes())).unwrap()
    }

    #[test]
    fn each_store_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.redb")).unwrap();
        assert_eq!(get(&database, "demo/notes", "cache", "a"), None);
        assert_eq!(put(&database, "a", b"1"), Ok(Made::Done));
        assert_eq!(get(&database, "demo/notes", "cache", "a").as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&database, "demo/notes", "cach", "ea"), None);
        assert_eq!(get(&database, "demo/note", "scache", "a"), None);
        assert_eq!(get(&database, "demo/other", "cache", "a"), None);
        assert_eq!(change(&database, "a", Change::Delete), Ok(Made::Deleted(true)));
        assert_eq!(change(&database, "a", Change::Delete), Ok(Made::Deleted(false)));
    }

    #[test]
    fn swaps_have_one_winner() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.redb")).unwrap();
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|number: u8| {
                    let database = &database;
                    scope.spawn(move || {
                        let swap = Change::Swap { expected: None, value: Some(vec![number]) };
                        usize::from(change(database, "a", swap) == Ok(Made::Swapped))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
        let found = get(&database, "demo/notes", "cache", "a");
        let swap = Change::Swap { expected: None, value: None };
        assert_eq!(change(&database, "a", swap), Ok(Made::Found(found.clone())));
        let swap = Change::Swap { expected: found, value: None };
        assert_eq!(change(&database, "a", swap), Ok(Made::Swapped));
        assert_eq!(get(&database, "demo/notes", "cache", "a"), None);
    }

    #[test]
    fn quotas_hold_and_what_is_removed_counts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.redb")).unwrap();
        put(&database, "a", &[0; 600]).unwrap();
        let full = put(&database, "b", &[0; 600]).unwrap_err();
        assert!(matches!(&full, Error::Unavailable(text) if text.contains("quota")), "{full}");
        // Replaced by itself, it takes its own place.
        put(&database, "a", &[1; 999]).unwrap();
        assert!(put(&database, "a", &[1; 1000]).is_err());
        change(&database, "a", Change::Delete).unwrap();
        for number in 0..10 {
            put(&database, &number.to_string(), b"").unwrap();
        }
        assert!(put(&database, "one more", b"").is_err());
        put(&database, "0", b"again").unwrap();
    }

    #[test]
    fn keys_come_in_order_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.redb")).unwrap();
        for key in ["b/2", "a", "b/1", "b/3", "c"] {
            put(&database, key, b"").unwrap();
        }
        let place = |key: &str| Place::new("demo/notes", "cache", key.as_bytes());
        let page = |prefix: &str, after: Option<&str>, limit| {
            let (keys, more) =
                database.keys(&place(prefix), after.map(place).as_ref(), limit).unwrap();
            let keys: Vec<String> =
                keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect();
            (keys.join(" "), more)
        };
        assert_eq!(page("b/", None, 2), ("b/1 b/2".to_owned(), true));
        assert_eq!(page("b/", Some("b/2"), 2), ("b/3".to_owned(), false));
        assert_eq!(page("b/", Some("c"), 2), (String::new(), false));
        assert_eq!(page("b/", Some("a"), 9), ("b/1 b/2 b/3".to_owned(), false));
        assert_eq!(page("", None, 9), ("a b/1 b/2 b/3 c".to_owned(), false));
    }

    #[test]
    fn a_passed_deadline_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.redb")).unwrap();
        let place = Place::new("demo/notes", "cache", b"a");
        let job = Job { place, change: Change::Put(vec![1]), limits: WIDE };
        let late = database.change(job, Deadline::at(1));
        assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
        assert_eq!(get(&database, "demo/notes", "cache", "a"), None);
    }

    #[test]
    fn a_file_is_shared_while_it_is_open_and_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.redb");
        let one = Database::open(&path).unwrap();
        let two = Database::open(&path).unwrap();
        put(&one, "a", b"1").unwrap();
        assert_eq!(get(&two, "demo/notes", "cache", "a").as_deref(), Some(&b"1"[..]));
        drop((one, two));
        let three = Database::open(&path).unwrap();
        assert_eq!(get(&three, "demo/notes", "cache", "a").as_deref(), Some(&b"1"[..]));
    }
}
