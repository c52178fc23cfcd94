//! Verified reads of a registry: whatever answers at the URL, nothing is believed that the
//! trust root, the log, the head and the hashes below it do not prove.
//!
//! # Nine checks
//!
//! Each fails closed and has errors of its own; what has no module named belongs to
//! [`Error`].
//!
//! 1. **Trust root**: the keys and policies below are those of the TUF metadata that the
//!    pinned root leads to. [`Error::Trust`], [`Error::Origin`].
//! 2. **Checkpoint**: signed by the log's key, of its origin, cosigned as the policy asks, not
//!    too old, not smaller than the last. [`Error::Checkpoint`], [`Error::Cosignatures`],
//!    [`Error::CheckpointAge`], [`Error::CheckpointAhead`], [`Error::CheckpointRollback`], [`Error::CheckpointBehind`].
//! 3. **Consistency**: the log continues the one that was believed before.
//!    [`Error::SplitView`], whose two notes are kept; [`Error::Tile`] for tiles that prove
//!    nothing.
//! 4. **Head**: signed by a head key, fresh by a clock that was not set back, of an epoch that
//!    is not lower, and over the checkpoint's log or its beginning. [`Error::Head`],
//!    [`Error::Stale`], [`Error::HeadAge`], [`Error::Clock`], [`Error::Rollback`],
//!    [`Error::HeadLog`].
//! 5. **Tree path, one record, inclusion**: each node, bin and file is what its name says, a
//!    version is released once, and the log has every statement of the file where the file
//!    says, byte for byte. [`Error::Index`], [`Error::NotInLog`], [`Error::IndexAhead`],
//!    [`Error::Rewritten`], and `FoldError::Twice` in [`Error::Fold`].
//! 6. **Keys**: chains are whole, and each statement is signed by a key that was its
//!    organisation's, or the registry's, at its position, and was not revoked since.
//!    [`Error::Fold`]; a release by a revoked key counts as quarantined.
//! 7. **Verdict and trust level** against the host's policy: `sync::Policy`; releases that it
//!    refuses stand in the resolver's report, locked ones in `store::Error::Unproven`.
//! 8. **Archive**: length, hash, gate, file list, manifest. `store::Error`.
//! 9. **Capabilities** within the grant: the manifest must ask for what the statement says
//!    (`store::Error::Disagreement`), and the host loads in its own process only what the
//!    operator named.
//!
//! # What a refresh costs
//!
//! An unchanged head is one conditional request. Where few entries are new, they are read,
//! and nothing else: they prove themselves, and kept index files are continued
//! with them. Where many are, tiles prove that the log grew, the tree is walked, and only
//! statements that were never proven before are proven. Statements proven once stay proven.

mod advance;
mod authority;
mod bundle;
mod cache;
mod catch_up;
mod checkpoint;
mod closure;
mod error;
mod fetch;
pub mod fold;
mod head;
mod parallel;
mod shown;
mod state;
mod tiles;
mod trusted;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use modunest_core::index::{Head, IndexFile};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{OrgState, PluginState, Subject};
use modunest_core::time::Timestamp;
use modunest_tlog::{TreeHash, VerifiedTiles, VerifyingKey};
use url::Url;

pub use authority::Authority;
pub(crate) use bundle::{Bundle, Writer as BundleWriter};
use cache::Cache;
use closure::Together;
pub use error::{Error, Kind};
pub(crate) use fetch::{Fetcher, Recorded};
use fold::Files;
pub use shown::{Checkpointed, check_head_age, read_head};
use state::{Kept, Rows, StateFiles};
use trusted::Believed;

use crate::trust::{Root, Updater};

/// Longest entity tag that is kept; longer ones are not sent again.
const ETAG_MAX_BYTES: usize = 256;

/// Which registry, why it is believed, and where what was read of it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it, a mirror or a cache of it answers.
    pub url: Url,
    /// The name it signs under.
    pub origin: String,
    /// Keys of that name, where there is no trust root.
    pub keys: Vec<VerifyingKey>,
    /// Folder of this registry's own, made if it does not exist.
    pub cache_dir: PathBuf,
}

/// Reads one registry.
pub struct Client {
    settings: Settings,
    updater: Option<Updater>,
    believed: Mutex<Option<Believed>>,
    /// When the trust root was last asked for news.
    trust_asked: tokio::sync::Mutex<Option<Instant>>,
    cache: Cache,
    state: StateFiles,
    fetcher: Fetcher,
    kept: Mutex<Option<Arc<Kept>>>,
    time_seen: Mutex<Option<Timestamp>>,
    /// Index files of which every statement is proven.
    rows: Mutex<Rows>,
    /// Proven tiles of the newest checkpoint.
    tiles: tokio::sync::Mutex<VerifiedTiles>,
    /// What closures proved to be in the log, until it is read.
    together: Mutex<Together>,
    /// One head is believed at a time.
    advancing: tokio::sync::Mutex<()>,
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
    /// Prepares the cache folder, believing pinned keys. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`Error::Cache`], and [`Error::Kept`] when what was kept is damaged.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let authority = Authority::pinned(&settings.origin, &settings.keys);
        let client = Client::new(settings, None)?;
        client.restore(&authority)?;
        let believed = Believed { authority: Arc::new(authority), expires: None };
        *client.believed.lock().unwrap_or_else(PoisonError::into_inner) = Some(believed);
        Ok(client)
    }

    /// Prepares the cache folder, believing a trust root; the settings' keys are not used.
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// As [`Client::open`], and [`Error::Trust`] when the kept trust root is not under this one.
    pub fn open_rooted(settings: Settings, root: Root) -> Result<Self, Error> {
        let folder = settings.cache_dir.join("trust");
        let updater = Updater::open(root, &folder).map_err(|e| Error::Trust(Box::new(e)))?;
        let client = Client::new(settings, Some(updater))?;
        match client.authority() {
            Ok(_) => {}
            // Whoever needs it asks again, and is told.
            Err(Error::Trust(error)) => tracing::debug!(%error, "no trust root is kept"),
            Err(error) => return Err(error),
        }
        Ok(client)
    }

    fn new(settings: Settings, updater: Option<Updater>) -> Result<Self, Error> {
        Ok(Client {
            cache: Cache::open(&settings.cache_dir)?,
            state: StateFiles::new(&settings.cache_dir),
            fetcher: Fetcher::new(settings.url.clone()),
            settings,
            updater,
            believed: Mutex::new(None),
            trust_asked: tokio::sync::Mutex::new(None),
            kept: Mutex::new(None),
            time_seen: Mutex::new(None),
            rows: Mutex::new(Rows::new()),
            tiles: tokio::sync::Mutex::new(VerifiedTiles::new(0, TreeHash::empty())),
            together: Mutex::new(Together::default()),
            advancing: tokio::sync::Mutex::new(()),
            no_closure: AtomicBool::new(false),
        })
    }

    /// The newest head that was ever believed, however old it is; `None` before the first
    /// [`Client::refresh`].
    pub fn kept_head(&self) -> Option<Head> {
        self.kept().map(|kept| kept.head.clone())
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
        let mut proven = fold::fold(&files, &self.authority()?.statement_keys)?;
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
        let authority = self.authority()?;
        let (files, folded) = crate::blocking::run(move || {
            let folded = fold::fold(&files, &authority.statement_keys);
            (files, folded)
        })
        .await?;
        let mut folded = folded?;
        let plugins =
            names.iter().map(|name| (name.clone(), folded.plugins.remove(name))).collect();
        Ok(Read { plugins, files })
    }

    /// From now on, asks a bundle in place of the registry.
    pub(crate) fn read_from(&mut self, bundle: Bundle) {
        self.no_closure = AtomicBool::new(true);
        self.fetcher.read_from(bundle);
    }

    /// From now on, keeps what is fetched, object by object.
    pub(crate) fn record(&mut self) -> Recorded {
        self.no_closure = AtomicBool::new(true);
        let recorded = Recorded::default();
        self.fetcher.record(recorded.clone());
        recorded
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
