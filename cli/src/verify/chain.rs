//! Each link of the chain: read, and proven by the one before.

use std::collections::BTreeMap;

use modunest_agent::registry::{Authority, Checkpointed, read_head};
use modunest_core::index::{Bin, Head, IndexFile, Node, Slot};
use modunest_core::keys::ObjectKey;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Authorities, OrgState, PluginState, Subject};
use modunest_core::time::Timestamp;
use modunest_tlog::{Plan, TreeHash, verify_consistency, verify_inclusion};

use crate::error::Error;
use crate::log::{self, Files};

/// Makes the chain.
pub(super) struct Chain<'a> {
    files: &'a Files,
    authority: &'a Authority,
    now: Timestamp,
}

/// A head, and how many hashes proved that its log is the beginning of the checkpoint's.
pub(super) struct ProvenHead {
    pub(super) head: Head,
    pub(super) consistency_hashes: usize,
}

/// What the index holds about a plugin.
pub(super) struct Found {
    /// The plugin's statements.
    pub(super) file: IndexFile,
    /// Those of the organisations that own or owned it.
    pub(super) orgs: Vec<IndexFile>,
    /// The path, in words.
    pub(super) lines: Vec<String>,
    /// What the organisations' statements come to.
    pub(super) states: BTreeMap<OrgName, OrgState>,
}

/// Statements that are proven to be entries of the log.
pub(super) struct Included {
    /// How many.
    pub(super) statements: usize,
    /// Hashes of each proof, by the statement's position.
    pub(super) hashes: BTreeMap<u64, usize>,
}

fn unproven(why: impl std::fmt::Display) -> Error {
    Error::Unproven(why.to_string())
}

impl<'a> Chain<'a> {
    pub(super) fn new(files: &'a Files, authority: &'a Authority, now: Timestamp) -> Self {
        Chain { files, authority, now }
    }

    pub(super) async fn checkpoint(&mut self) -> Result<Checkpointed, Error> {
        let bytes = self.files.get(ObjectKey::Checkpoint).await?;
        Checkpointed::read(&bytes, self.authority).map_err(unproven)
    }

    pub(super) async fn head(&mut self, checkpoint: &Checkpointed) -> Result<ProvenHead, Error> {
        let bytes = self.files.get(ObjectKey::Head).await?;
        let head = read_head(&bytes, self.authority).map_err(unproven)?;
        log::check_age(self.authority, checkpoint, &head, self.now).map_err(unproven)?;
        let log = &checkpoint.signed.checkpoint;
        let root = TreeHash::from_bytes(*head.log.root.as_bytes());
        let plan = Plan::consistency(head.log.size, log.size).ok_or_else(|| {
            unproven(format!(
                "the head is over {} entries of the log, and its checkpoint has {} only; ask again",
                head.log.size, log.size
            ))
        })?;
        let proof = self.files.hashes(&plan).await?;
        verify_consistency((head.log.size, &root), (log.size, &log.root), &proof)
            .map_err(unproven)?;
        Ok(ProvenHead { head, consistency_hashes: proof.len() })
    }

    /// Walks the tree to the plugin and to the organisations whose keys prove its statements.
    pub(super) async fn walk(
        &mut self,
        head: &ProvenHead,
        plugin: &PluginName,
    ) -> Result<Found, Error> {
        let index = head.head.index;
        let root = Node::parse(&self.files.get(ObjectKey::Node(index)).await?).map_err(unproven)?;
        let mut lines = vec![format!("root node {index}")];
        let subject = Subject::Plugin(plugin.clone());
        let file = self.file(&root, &subject, &mut lines).await?.ok_or_else(|| {
            Error::Failed(format!(
                "{} has no plugin {plugin}, proven by its index at epoch {}",
                self.authority.origin, head.head.epoch
            ))
        })?;
        let mut orgs = Vec::new();
        for org in file.orgs() {
            let subject = Subject::Org(org);
            orgs.extend(self.file(&root, &subject, &mut lines).await?);
        }
        Found { file, orgs, lines, states: BTreeMap::new() }.with_states(self.authority)
    }

    async fn file(
        &mut self,
        root: &Node,
        subject: &Subject,
        lines: &mut Vec<String>,
    ) -> Result<Option<IndexFile>, Error> {
        let slot = Slot::of(subject);
        let Some(node) = root.child(slot.node) else { return Ok(None) };
        let bytes = self.files.get(ObjectKey::Node(node)).await?;
        let Some(bin) = Node::parse(&bytes).map_err(unproven)?.child(slot.bin) else {
            return Ok(None);
        };
        let bytes = self.files.get(ObjectKey::Bin(bin)).await?;
        let Some(file) = Bin::parse(slot, &bytes).map_err(unproven)?.get(subject) else {
            return Ok(None);
        };
        let bytes = self.files.get(ObjectKey::Index(file)).await?;
        let read = IndexFile::parse(subject, &bytes).map_err(unproven)?;
        lines.push(format!(
            "{subject}: child {} is node {node}, child {} of that is bin {bin}",
            slot.node, slot.bin
        ));
        lines.push(format!("  its index file {file} has {} statements", read.entries.len()));
        Ok(Some(read))
    }

    /// What the plugin's statements come to; each is proven by a key that was good for it.
    pub(super) fn fold(&self, found: &Found) -> Result<PluginState, Error> {
        let Subject::Plugin(plugin) = &found.file.subject else {
            return Err(unproven("the index file is about an organisation"));
        };
        let registry = &self.authority.statement_keys;
        let mut state = PluginState::new(plugin.clone());
        let authorities = Authorities { registry, orgs: &found.states };
        for (position, signed) in &found.file.entries {
            state.apply(*position, signed, authorities).map_err(unproven)?;
        }
        Ok(state)
    }

    /// Proves every statement that was folded to be in the log.
    pub(super) async fn include(
        &mut self,
        found: &Found,
        checkpoint: &Checkpointed,
    ) -> Result<Included, Error> {
        let log = &checkpoint.signed.checkpoint;
        let files = found.orgs.iter().chain([&found.file]);
        let entries: Vec<_> = files.flat_map(|file| &file.entries).collect();
        let mut plans = Vec::new();
        let mut wanted = std::collections::BTreeSet::new();
        for (position, signed) in entries {
            let plan = Plan::inclusion(*position, log.size).ok_or_else(|| {
                unproven(format!("the log has no entry {position}, only {}", log.size))
            })?;
            wanted.extend(plan.tiles());
            plans.push((*position, signed, plan));
        }
        let tiles = self.files.tiles(wanted).await?;
        let mut included = Included { statements: plans.len(), hashes: BTreeMap::new() };
        for (position, signed, plan) in plans {
            let proof = plan.hashes(&tiles).map_err(unproven)?;
            let leaf = TreeHash::of_leaf(signed.bytes());
            verify_inclusion(&leaf, position, log.size, &proof, &log.root).map_err(|error| {
                unproven(format!("the statement at position {position} is not in the log: {error}"))
            })?;
            included.hashes.insert(position, proof.len());
        }
        Ok(included)
    }
}

impl Found {
    fn with_states(mut self, authority: &Authority) -> Result<Self, Error> {
        for file in &self.orgs {
            let Subject::Org(org) = &file.subject else { continue };
            let mut state = OrgState::new(org.clone());
            for (position, signed) in &file.entries {
                state.apply(*position, signed, &authority.statement_keys).map_err(unproven)?;
            }
            self.states.insert(org.clone(), state);
        }
        Ok(self)
    }
}
