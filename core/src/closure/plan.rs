//! The walk: from a head to everything that a resolution can need.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use semver::{Version, VersionReq};

use super::proof::ProofMaker;
use super::{ClosureRequest, Part};
use crate::digest::Digest;
use crate::index::{Bin, Head, IndexError, IndexFile, Node, Slot};
use crate::keys::ObjectKey;
use crate::name::{OrgName, PluginName};
use crate::relation::HostFacts;
use crate::statement::{Release, Statement, Subject};

/// Most comparisons of a requirement with a version, and most requirements looked at. Each
/// takes below 100 ns, so a walk takes below 0.2 s whatever publishers wrote; the closure of
/// 500 plugins in a real ecosystem takes some 100,000.
const WORK_MAX: usize = 2_000_000;

/// When an answer ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most objects, besides the head.
    pub objects: usize,
    /// Most bytes of objects, together.
    pub bytes: usize,
    /// Most tiles of the log that are read for the proof; where it takes more, there is none.
    pub tiles: usize,
}

impl Limits {
    /// In a Cloudflare Worker: one invocation may make 1,000 subrequests, of which each
    /// object takes one; some stay for the head and for repeated reads. Memory is 128 MiB,
    /// of which what is read of the objects takes about their size again.
    pub const WORKER: Limits = Limits { objects: 750, bytes: 24 * 1024 * 1024, tiles: 100 };
    /// In a process of our own: the closure of 500 plugins with five dependencies each, and
    /// room; an answer takes half a minute at 20 Mbit/s then. The tiles take 8 MiB.
    pub const NATIVE: Limits = Limits { objects: 20_000, bytes: 64 * 1024 * 1024, tiles: 1_000 };
}

/// Why a walk cannot go on. What the store holds is damaged, so the answer must not look whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosureError {
    /// The head is no head.
    #[error(transparent)]
    Head(IndexError),
    /// An object is malformed.
    #[error("{key}: {error}")]
    Object {
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        error: Box<IndexError>,
    },
    /// The store has no object that the index names.
    #[error("{0} is named by the index and not in the store")]
    Missing(ObjectKey),
}

/// What the walk needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosureStep {
    /// Read these and hand each to [`Closure::provide`], in any order. No object is named
    /// twice. Empty while objects that were named before are not all provided and nothing
    /// else can be said: a shell that provides all before it steps again never sees that.
    Need(Vec<ObjectKey>),
    /// That is all.
    Done,
}

/// One answer in the making.
///
/// The shell sends the head's frame, then repeats [`Closure::step`] and reads what is needed;
/// after each [`Closure::provide`] it sends the frame that it was given. After the last step it
/// sends [`Closure::proof`].
pub struct Closure {
    host: Option<HostFacts>,
    since: Option<u64>,
    root: Digest,
    limits_left: Limits,
    work_left: usize,
    /// A limit was met: nothing more is named.
    full: bool,

    nodes: HashMap<Digest, Node>,
    bins: HashMap<Digest, Bin>,
    named: HashSet<ObjectKey>,
    /// Named and not handed out yet.
    needed: Vec<ObjectKey>,
    /// Handed out and not provided yet.
    outstanding: BTreeSet<ObjectKey>,
    /// Who waits for an object.
    waiting: HashMap<ObjectKey, Vec<Subject>>,

    orgs: BTreeSet<OrgName>,
    plugins: BTreeMap<PluginName, Plugin>,
    /// Requirements of which the best release is to be followed.
    likely: VecDeque<(PluginName, VersionReq)>,
    /// Requirements of which every other release is to be followed.
    possible: VecDeque<(PluginName, VersionReq)>,
    proof: ProofMaker,
}

/// What a frame holds, and its bytes as they are sent: for [`super::push_frame`].
pub type FrameParts<'b> = (Part, Cow<'b, [u8]>);

#[derive(Default)]
struct Plugin {
    /// Everything that was ever asked of it.
    asked: HashSet<VersionReq>,
    /// What was asked before its releases were known.
    early: Vec<VersionReq>,
    /// Newest first, those that the host can run.
    releases: Option<Vec<Candidate>>,
}

struct Candidate {
    version: Version,
    yanked: bool,
    /// What it needs; taken when it is followed.
    needs: Option<Vec<(PluginName, VersionReq)>>,
}

impl Closure {
    /// Begins an answer under a head, which is read and not proven.
    ///
    /// # Errors
    /// [`ClosureError::Head`].
    pub fn new(
        request: ClosureRequest,
        head: &[u8],
        limits: Limits,
    ) -> Result<Closure, ClosureError> {
        let read = Head::read_unproven(head).map_err(ClosureError::Head)?;
        let mut closure = Closure {
            host: request.host,
            since: request.since,
            root: read.index,
            limits_left: limits,
            work_left: WORK_MAX,
            full: false,
            nodes: HashMap::new(),
            bins: HashMap::new(),
            named: HashSet::new(),
            needed: Vec::new(),
            outstanding: BTreeSet::new(),
            waiting: HashMap::new(),
            orgs: BTreeSet::new(),
            plugins: BTreeMap::new(),
            likely: VecDeque::new(),
            possible: VecDeque::new(),
            proof: ProofMaker::new(request.since.unwrap_or(0), read.log.size),
        };
        for root in request.plugins {
            closure.ask(root.plugin, root.requirement);
        }
        Ok(closure)
    }

    /// Whether a limit ends the answer before everything is in it.
    pub fn is_cut_short(&self) -> bool {
        self.full
    }

    /// Goes as far as it can with what was provided.
    pub fn step(&mut self) -> ClosureStep {
        loop {
            while let Some((plugin, requirement)) = self.likely.pop_front() {
                self.follow(&plugin, &requirement, true);
                self.possible.push_back((plugin, requirement));
            }
            if !self.needed.is_empty() {
                let needed = std::mem::take(&mut self.needed);
                self.outstanding.extend(&needed);
                return ClosureStep::Need(needed);
            }
            if !self.outstanding.is_empty() {
                return ClosureStep::Need(Vec::new());
            }
            if self.full || self.possible.is_empty() {
                let tiles = self.proof.begin(self.limits_left.tiles);
                if tiles.is_empty() {
                    return ClosureStep::Done;
                }
                let tiles: Vec<ObjectKey> = tiles.into_iter().map(ObjectKey::Tile).collect();
                self.outstanding.extend(&tiles);
                return ClosureStep::Need(tiles);
            }
            // Only now, when the likely ones are all here: a limit should meet these.
            for (plugin, requirement) in std::mem::take(&mut self.possible) {
                self.follow(&plugin, &requirement, false);
            }
        }
    }

    /// Takes an object that was needed. Answers the frame to send; `None` when the object was
    /// not asked for, would pass a limit, is known, or only helps to make the proof.
    ///
    /// # Errors
    /// [`ClosureError::Object`]: the answer must be broken off.
    pub fn provide<'b>(
        &mut self,
        key: ObjectKey,
        bytes: &'b [u8],
    ) -> Result<Option<FrameParts<'b>>, ClosureError> {
        if !self.outstanding.remove(&key) {
            return Ok(None);
        }
        if let ObjectKey::Tile(id) = key {
            // Who gets no proof reads the tiles, and finds out what is wrong with this one.
            if self.proof.tile(id, bytes).is_err() {
                self.proof.give_up();
            }
            return Ok(None);
        }
        let subjects = self.waiting.remove(&key).unwrap_or_default();
        let Some(left) = self.limits_left.bytes.checked_sub(bytes.len()) else {
            self.stop();
            return Ok(None);
        };
        let sent = self.read(key, bytes, subjects).map_err(|error| {
            let error = Box::new(error);
            ClosureError::Object { key, error }
        })?;
        let Some(sent) = sent else { return Ok(None) };
        self.limits_left.bytes = left;
        Ok(Some((Part::Object(key), sent)))
    }

    /// Says that the store has no such object.
    ///
    /// # Errors
    /// [`ClosureError::Missing`]: the answer must be broken off. Without a tile there is only no
    /// proof: a partial one may be gone as soon as the log has grown.
    pub fn missing(&mut self, key: ObjectKey) -> Result<(), ClosureError> {
        if self.outstanding.remove(&key) && matches!(key, ObjectKey::Tile(_)) {
            self.proof.give_up();
            return Ok(());
        }
        Err(ClosureError::Missing(key))
    }

    /// The last frame, once, after [`ClosureStep::Done`]; `None` when there is nothing to prove,
    /// or the proof cannot be made.
    pub fn proof(&mut self) -> Option<FrameParts<'static>> {
        let hashes = self.proof.take()?;
        Some((Part::Proof, Cow::Owned(hashes)))
    }

    /// Learns what an object says. Answers what is sent of it.
    fn read<'b>(
        &mut self,
        key: ObjectKey,
        bytes: &'b [u8],
        subjects: Vec<Subject>,
    ) -> Result<Option<Cow<'b, [u8]>>, IndexError> {
        let mut sent = Cow::Borrowed(bytes);
        match key {
            ObjectKey::Node(digest) => {
                let node = Node::parse(bytes)?;
                sent = Cow::Owned(node.to_compact());
                self.nodes.insert(digest, node);
            }
            ObjectKey::Bin(digest) => {
                let Some(subject) = subjects.first() else { return Ok(None) };
                let bin = Bin::parse(Slot::of(subject), bytes)?;
                sent = Cow::Owned(bin.to_compact());
                self.bins.insert(digest, bin);
            }
            _ => {
                let mut is_new = self.since.is_none();
                for subject in subjects {
                    let file = IndexFile::parse(&subject, bytes)?;
                    let last = file.entries.last().map(|(position, _)| *position);
                    is_new |= last >= self.since;
                    if is_new {
                        file.entries.iter().for_each(|(position, _)| self.proof.leaf(*position));
                    }
                    if let Subject::Plugin(plugin) = subject {
                        self.releases(plugin, file);
                    }
                }
                return Ok(is_new.then_some(sent));
            }
        }
        for subject in subjects {
            self.seek(subject);
        }
        Ok(Some(sent))
    }

    /// Takes a plugin's statements, as they stand.
    fn releases(&mut self, name: PluginName, file: IndexFile) {
        let mut yanked = BTreeMap::new();
        for (_, signed) in &file.entries {
            match signed.statement() {
                Statement::Yank(yank) => yanked.insert(&yank.version, yank.yanked),
                Statement::Quarantine(it) => yanked.insert(&it.version, it.quarantined),
                Statement::Ownership(it) => {
                    self.seek(Subject::Org(it.owner.clone()));
                    None
                }
                _ => None,
            };
        }
        let mut releases: Vec<Candidate> = file
            .entries
            .iter()
            .filter_map(|(_, signed)| match signed.statement() {
                Statement::Release(release) if self.runs(release) => Some(release),
                _ => None,
            })
            .map(|release| Candidate {
                version: release.version.clone(),
                yanked: yanked.get(&release.version).copied().unwrap_or(false),
                needs: Some(needs(release)),
            })
            .collect();
        releases.sort_by(|one, other| other.version.cmp(&one.version));
        let plugin = self.plugins.entry(name.clone()).or_default();
        plugin.releases = Some(releases);
        let early = std::mem::take(&mut plugin.early);
        if self.since.is_none() {
            self.likely.extend(early.into_iter().map(|requirement| (name.clone(), requirement)));
        }
    }

    fn runs(&self, release: &Release) -> bool {
        self.host.as_ref().is_none_or(|host| {
            host.admits(&release.host).is_ok()
                && release.builds.iter().any(|build| host.runs(&build.target).is_ok())
        })
    }

    /// Asks for what the releases need that a requirement admits: of the best one, or of all.
    fn follow(&mut self, name: &PluginName, requirement: &VersionReq, best_only: bool) {
        let Some(releases) = self.plugins.get_mut(name).and_then(|p| p.releases.as_mut()) else {
            return;
        };
        let mut asks = Vec::new();
        for release in releases {
            let Some(left) = self.work_left.checked_sub(1) else { return self.stop() };
            self.work_left = left;
            let passed_over = release.needs.is_none() && !best_only
                || best_only && release.yanked
                || !requirement.matches(&release.version);
            if passed_over {
                continue;
            }
            asks.extend(release.needs.take().unwrap_or_default());
            if best_only {
                break;
            }
        }
        for (plugin, requirement) in asks {
            self.ask(plugin, requirement);
        }
    }

    /// Something is wanted of a plugin.
    fn ask(&mut self, name: PluginName, requirement: VersionReq) {
        let Some(left) = self.work_left.checked_sub(1) else { return self.stop() };
        self.work_left = left;
        let known = self.plugins.contains_key(&name);
        let plugin = self.plugins.entry(name.clone()).or_default();
        if !plugin.asked.insert(requirement.clone()) {
            return;
        }
        if plugin.releases.is_some() {
            self.likely.push_back((name, requirement));
            return;
        }
        plugin.early.push(requirement);
        if !known {
            // Without the organisation's keys nothing of the plugin can be proven.
            let org = name.org();
            if self.orgs.insert(org.clone()) {
                self.seek(Subject::Org(org));
            }
            self.seek(Subject::Plugin(name));
        }
    }

    /// Goes down the tree towards a subject's file, as far as objects are here.
    fn seek(&mut self, subject: Subject) {
        let slot = Slot::of(&subject);
        let Some(root) = self.nodes.get(&self.root) else {
            return self.wait(ObjectKey::Node(self.root), subject);
        };
        let Some(digest) = root.child(slot.node) else { return };
        let Some(node) = self.nodes.get(&digest) else {
            return self.wait(ObjectKey::Node(digest), subject);
        };
        let Some(digest) = node.child(slot.bin) else { return };
        let Some(bin) = self.bins.get(&digest) else {
            return self.wait(ObjectKey::Bin(digest), subject);
        };
        if let Some(digest) = bin.get(&subject) {
            self.wait(ObjectKey::Index(digest), subject);
        }
    }

    fn wait(&mut self, key: ObjectKey, subject: Subject) {
        if !self.named.contains(&key) {
            if self.full || self.limits_left.objects == 0 {
                self.full = true;
                return;
            }
            self.limits_left.objects -= 1;
            self.named.insert(key);
            self.needed.push(key);
        }
        self.waiting.entry(key).or_default().push(subject);
    }

    /// A limit was met. What is being read may still come, nothing else is begun.
    fn stop(&mut self) {
        self.full = true;
        self.needed.clear();
    }
}

/// What a release brings in. Optional dependencies bring nothing in.
fn needs(release: &Release) -> Vec<(PluginName, VersionReq)> {
    let needed = release.dependencies.iter().filter(|dependency| !dependency.optional);
    needed.map(|d| (d.plugin.clone(), d.requirement.clone())).collect()
}
