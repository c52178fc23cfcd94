//! Verified reads of a registry: whatever answers at the URL, nothing is believed that the
//! pinned keys, the head and the hashes below it do not prove.
//!
//! In scope: the head (signature, origin, age, never backwards), the walk down the index
//! tree, a cache of what was proven, and the fold of statements to [`PluginState`] and
//! [`OrgState`]. Out of scope: archives, which [`crate::sync`] downloads.

mod cache;
mod closure;
mod error;
mod fetch;
pub mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modunest_core::digest::Digest;
use modunest_core::index::{
    BIN_MAX_BYTES, Bin, HEAD_MAX_BYTES, Head, INDEX_FILE_MAX_BYTES, IndexFile, NODE_BYTES, Node,
    Slot, prove,
};
use modunest_core::keys::ObjectKey;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{OrgState, PluginState, RegistryKeys, Subject};
use modunest_tlog::VerifyingKey;
use url::Url;

use cache::{Cache, Kept};
pub use error::{Error, Kind};
use fetch::Answer;
pub(crate) use fetch::Fetcher;
use fold::Files;

/// How far a registry's clock may run ahead of this one's.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Which registry, why it is believed, and where what was read of it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it, a mirror or a cache of it answers.
    pub url: Url,
    /// The name it signs under.
    pub origin: String,
    /// Keys of that name; at least one.
    pub keys: Vec<VerifyingKey>,
    /// Folder of this registry's own, made if it does not exist.
    pub cache_dir: PathBuf,
}

/// Reads one registry.
pub struct Client {
    settings: Settings,
    cache: Cache,
    fetcher: Fetcher,
    head: Mutex<Option<Arc<Kept>>>,
    /// The registry does not offer closures; not asked again while this process lives.
    no_closure: AtomicBool,
}

/// What [`Client::read`] found.
#[derive(Debug, Default)]
pub struct Read {
    /// Every plugin that was asked for; `None` where the registry has none of that name.
    pub plugins: BTreeMap<PluginName, Option<PluginState>>,
    /// The index files that prove it, of the plugins and of their organisations.
    pub files: Files,
}

impl Client {
    /// Prepares the cache folder. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`Error::Cache`], and [`Error::KeptHead`] when the kept head is not by these keys.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let cache = Cache::open(&settings.cache_dir)?;
        let kept = cache.head(&settings.origin, &settings.keys)?;
        let fetcher = Fetcher::new(settings.url.clone());
        let head = Mutex::new(kept.map(Arc::new));
        Ok(Client { settings, cache, fetcher, head, no_closure: AtomicBool::new(false) })
    }

    /// The newest head that was ever believed, however old it is; `None` before the first
    /// [`Client::refresh`].
    pub fn kept_head(&self) -> Option<Head> {
        self.kept().map(|kept| kept.head.clone())
    }

    /// Asks for the head and believes it only if it is signed, of this origin, not expired,
    /// and not older than the last one believed.
    ///
    /// # Errors
    /// Every variant but those of folding.
    pub async fn refresh(&self) -> Result<Head, Error> {
        let kept = self.kept();
        let etag = kept.as_ref().and_then(|kept| kept.etag.as_deref());
        let answer = self.fetcher.get(ObjectKey::Head, HEAD_MAX_BYTES, etag).await?;
        match (answer, &kept) {
            (Answer::Body { bytes, etag }, _) => self.believe(bytes, etag),
            (Answer::NotModified, Some(kept)) => {
                let now = modunest_runtime::clock::now();
                kept.head.check_fresh(now, CLOCK_SKEW).map_err(Error::Stale)?;
                Ok(kept.head.clone())
            }
            (Answer::NotModified, None) => {
                Err(Error::Status { url: self.fetcher.url(ObjectKey::Head), status: 304 })
            }
        }
    }

    /// Believes and keeps a head, whoever showed it, if it passes every check.
    fn believe(&self, bytes: Vec<u8>, etag: Option<String>) -> Result<Head, Error> {
        let kept = self.kept();
        let now = modunest_runtime::clock::now();
        let head = Head::verify(&bytes, &self.settings.origin, &self.settings.keys)
            .map_err(Error::Head)?;
        head.check_fresh(now, CLOCK_SKEW).map_err(Error::Stale)?;
        if let Some(kept) = &kept {
            head.check_newer(&kept.head).map_err(Error::Rollback)?;
        }
        let kept = Kept { head: head.clone(), bytes, etag };
        self.cache.keep_head(&kept)?;
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(kept));
        tracing::debug!(epoch = head.epoch, index = %head.index, "head refreshed");
        Ok(head)
    }

    /// A plugin's releases under the newest head.
    ///
    /// # Errors
    /// Whatever keeps it from being proven; [`Error::NoHead`] before the first refresh.
    pub async fn plugin(&self, name: &PluginName) -> Result<Option<PluginState>, Error> {
        let mut read = self.read(&BTreeSet::from([name.clone()])).await?;
        Ok(read.plugins.remove(name).flatten())
    }

    /// An organisation's keys under the newest head.
    ///
    /// # Errors
    /// As [`Client::plugin`].
    pub async fn org(&self, name: &OrgName) -> Result<Option<OrgState>, Error> {
        let files = self.files(&BTreeSet::from([Subject::Org(name.clone())])).await?;
        let mut proven = fold::fold(&files, &self.statement_keys())?;
        Ok(proven.orgs.remove(name))
    }

    /// Several plugins at once: each object of the tree is fetched once, in parallel by
    /// level, and signatures are checked on all processors.
    ///
    /// # Errors
    /// As [`Client::plugin`]; one plugin that cannot be proven fails the call.
    pub async fn read(&self, names: &BTreeSet<PluginName>) -> Result<Read, Error> {
        let subjects: BTreeSet<Subject> = names
            .iter()
            .flat_map(|name| [Subject::Plugin(name.clone()), Subject::Org(name.org())])
            .collect();
        let mut files = self.files(&subjects).await?;
        // Keys of organisations without any of these plugins prove nothing here.
        let mut orgs: BTreeSet<OrgName> = BTreeSet::new();
        for (subject, bytes) in &files {
            if let Subject::Plugin(_) = subject {
                orgs.extend(IndexFile::parse(subject, bytes)?.orgs());
            }
        }
        let owners = orgs.iter().cloned().map(Subject::Org);
        let owners: BTreeSet<Subject> =
            owners.filter(|subject| !subjects.contains(subject)).collect();
        files.extend(self.files(&owners).await?);
        files.retain(|subject, _| match subject {
            Subject::Org(org) => orgs.contains(org),
            Subject::Plugin(_) => true,
        });
        let keys = self.statement_keys();
        let (files, folded) = crate::blocking::run(move || {
            let folded = fold::fold(&files, &keys);
            (files, folded)
        })
        .await?;
        let mut folded = folded?;
        let plugins =
            names.iter().map(|name| (name.clone(), folded.plugins.remove(name))).collect();
        Ok(Read { plugins, files })
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    fn statement_keys(&self) -> RegistryKeys {
        RegistryKeys::in_use(self.settings.keys.iter().cloned())
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The index files of `subjects`, proven against the head; subjects that the index does
    /// not list are left out.
    async fn files(&self, subjects: &BTreeSet<Subject>) -> Result<Files, Error> {
        let root = self.kept().ok_or(Error::NoHead)?.head.index;
        let root = Node::parse(&self.object(ObjectKey::Node(root)).await?)?;

        let mut slots: BTreeMap<Slot, Vec<&Subject>> = BTreeMap::new();
        for subject in subjects {
            slots.entry(Slot::of(subject)).or_default().push(subject);
        }
        let nodes: BTreeSet<Digest> = slots.keys().filter_map(|s| root.child(s.node)).collect();
        let nodes = self.objects(nodes.into_iter().map(ObjectKey::Node).collect()).await?;
        let mut bins: Vec<(Slot, Digest)> = Vec::new();
        for slot in slots.keys() {
            let Some(node) = root.child(slot.node) else { continue };
            if let Some(bin) = Node::parse(&nodes[&ObjectKey::Node(node)])?.child(slot.bin) {
                bins.push((*slot, bin));
            }
        }
        let keys = bins.iter().map(|(_, digest)| ObjectKey::Bin(*digest)).collect();
        let bin_bytes = self.objects(keys).await?;
        let mut places: Vec<(&Subject, Digest)> = Vec::new();
        for (slot, digest) in &bins {
            let bin = Bin::parse(*slot, &bin_bytes[&ObjectKey::Bin(*digest)])?;
            let subjects = slots.get(slot).into_iter().flatten();
            places.extend(subjects.filter_map(|s| Some((*s, bin.get(s)?))));
        }
        let keys = places.iter().map(|(_, digest)| ObjectKey::Index(*digest)).collect();
        let bytes = self.objects(keys).await?;
        Ok(places
            .into_iter()
            .map(|(subject, digest)| (subject.clone(), bytes[&ObjectKey::Index(digest)].clone()))
            .collect())
    }

    async fn objects(
        &self,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<BTreeMap<ObjectKey, Arc<[u8]>>, Error> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        // Collected first: a stream that maps lazily is not `Send` for every lifetime.
        let reads: Vec<_> =
            keys.into_iter().map(|key| async move { Ok((key, self.object(key).await?)) }).collect();
        futures_util::stream::iter(reads).buffer_unordered(fetch::PARALLEL).try_collect().await
    }

    /// An object that is named by its content: from the cache, or fetched, and proven either
    /// way.
    async fn object(&self, key: ObjectKey) -> Result<Arc<[u8]>, Error> {
        let (what, limit, digest) = match key {
            ObjectKey::Node(digest) => ("node", NODE_BYTES, digest),
            ObjectKey::Bin(digest) => ("bin", BIN_MAX_BYTES, digest),
            ObjectKey::Index(digest) => ("index file", INDEX_FILE_MAX_BYTES, digest),
            _ => {
                return Err(Error::Status { url: self.fetcher.url(key), status: 404 });
            }
        };
        if let Some(bytes) = self.cache.object(key, limit)? {
            if prove(what, digest, &bytes).is_ok() {
                return Ok(bytes.into());
            }
            tracing::warn!(%key, "an object in the cache is damaged; fetching it again");
        }
        let bytes = self.fetcher.object(key, limit).await?;
        prove(what, digest, &bytes)?;
        self.cache.keep(key, &bytes)?;
        Ok(bytes.into())
    }
}
