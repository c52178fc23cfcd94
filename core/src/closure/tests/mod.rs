#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Small registries, with everything that a reader of them sees.

mod formats;
mod walks;

use std::collections::{BTreeMap, BTreeSet};

use modunest_tlog::{Frontier, SigningKey, TreeHash};

use super::*;
use crate::digest::Digest;
use crate::index::{Bin, Head, LogHead, Node, Slot, Update, Written, update};
use crate::name::PluginName;
use crate::relation::{BuildTarget, Dependency, HostFacts};
use crate::resolve::Root;
use crate::statement::{
    Key, KeyChange, Link, SignedStatement, Statement, Subject, Yank, test_release,
};
use crate::time::Timestamp;

pub(super) const HERE: &str = "x86_64-unknown-linux-gnu";
pub(super) const ELSEWHERE: &str = "aarch64-apple-darwin";

/// What one release says: `links` is a comma-separated list of `name req` and `name? req`.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) plugin: &'static str,
    pub(super) version: &'static str,
    pub(super) links: String,
    pub(super) target: &'static str,
    pub(super) yanked: bool,
}

pub(super) fn spec(plugin: &'static str, version: &'static str, links: &str) -> Spec {
    Spec { plugin, version, links: links.to_owned(), target: HERE, yanked: false }
}

/// A whole index under a head.
pub(super) struct Store {
    pub(super) objects: BTreeMap<ObjectKey, Vec<u8>>,
    pub(super) head: Vec<u8>,
    pub(super) root: Digest,
    pub(super) log: LogHead,
}

pub(super) fn host() -> HostFacts {
    HostFacts {
        version: "0.2.0".parse().unwrap(),
        target: HERE.parse().unwrap(),
        libc: None,
        abi: (1, 1),
        world: None,
        prefers_components: false,
    }
}

pub(super) fn want(roots: &[(&str, &str)]) -> ClosureRequest {
    let plugins = roots.iter().map(|(plugin, requirement)| Root {
        plugin: plugin.parse().unwrap(),
        requirement: requirement.parse().unwrap(),
    });
    ClosureRequest { plugins: plugins.collect(), host: Some(host()), since: None }
}

impl Store {
    pub(super) fn of(specs: &[Spec]) -> Store {
        let registry = SigningKey::from_seed("registry".parse().unwrap(), &[1; 32]);
        let mut links: BTreeMap<String, Link> = BTreeMap::new();
        let mut statements: Vec<SignedStatement> = Vec::new();
        let orgs: BTreeSet<_> =
            specs.iter().map(|s| s.plugin.parse::<PluginName>().unwrap().org()).collect();
        let key_of = |org: &str| SigningKey::from_seed(org.parse().unwrap(), &[2; 32]);
        for org in &orgs {
            let key = key_of(org.as_str()).verifying_key().to_string();
            let key = Key {
                org: org.clone(),
                sequence: 1,
                previous: None,
                key,
                change: KeyChange::Add,
                replaces: None,
                reason: None,
            };
            statements.push(Statement::Key(key).sign(&registry).unwrap());
        }
        let mut add = |plugin: &str, make: &dyn Fn(Link) -> Statement| {
            let link = links.get(plugin).copied().unwrap_or(Link::FIRST);
            let org = plugin.split('/').next().unwrap();
            let signed = make(link).sign(&key_of(org)).unwrap();
            links.insert(plugin.to_owned(), signed.next_link());
            statements.push(signed);
        };
        for spec in specs {
            add(spec.plugin, &|link| spec.release(link));
            if spec.yanked {
                add(spec.plugin, &|link| {
                    Statement::Yank(Yank {
                        plugin: spec.plugin.parse().unwrap(),
                        version: spec.version.parse().unwrap(),
                        sequence: link.sequence,
                        previous: link.previous,
                        yanked: true,
                        reason: None,
                    })
                });
            }
        }
        let statements: Vec<(u64, SignedStatement)> = (0..).zip(statements).collect();
        let mut frontier = Frontier::new();
        for (_, signed) in &statements {
            frontier.append(TreeHash::of_leaf(signed.bytes()));
        }
        let log_root = Digest::from_bytes(*frontier.root().as_bytes());
        let tiles = frontier.take_tiles().into_iter();
        let nothing: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let Update::Done { root, written, .. } = update(None, &statements, &nothing).unwrap()
        else {
            panic!("an empty index needs nothing");
        };
        let objects = written.into_iter().map(|object| match object {
            Written::Node(digest, bytes) => (ObjectKey::Node(digest), bytes),
            Written::Bin(digest, bytes) => (ObjectKey::Bin(digest), bytes),
            Written::File(digest, bytes) => (ObjectKey::Index(digest), bytes),
        });
        let head = Head {
            origin: "registry".to_owned(),
            epoch: 1,
            log: LogHead { size: statements.len() as u64, root: log_root },
            index: root,
            revocations: None,
            issued_at: Timestamp::from_millis(1_000),
            expires_at: Timestamp::from_millis(2_000),
        };
        let objects = objects.chain(tiles.map(|(id, bytes)| (ObjectKey::Tile(id), bytes)));
        let signed = head.sign(&registry).unwrap();
        Store { objects: objects.collect(), head: signed, root, log: head.log }
    }

    /// The objects that a reader meets who looks for a subject.
    pub(super) fn path(&self, subject: &Subject) -> Vec<ObjectKey> {
        let slot = Slot::of(subject);
        let mut keys = vec![ObjectKey::Node(self.root)];
        let root = Node::parse(&self.objects[&keys[0]]).unwrap();
        let Some(node) = root.child(slot.node).map(ObjectKey::Node) else { return keys };
        keys.push(node);
        let Some(bin) = Node::parse(&self.objects[&node]).unwrap().child(slot.bin) else {
            return keys;
        };
        let bin = ObjectKey::Bin(bin);
        keys.push(bin);
        let bin = Bin::parse(slot, &self.objects[&bin]).unwrap();
        keys.extend(bin.get(subject).map(ObjectKey::Index));
        keys
    }

    /// What must be there for a plugin to be proven.
    pub(super) fn proof(&self, plugin: &str) -> BTreeSet<ObjectKey> {
        let plugin: PluginName = plugin.parse().unwrap();
        let org = Subject::Org(plugin.org());
        self.path(&Subject::Plugin(plugin)).into_iter().chain(self.path(&org)).collect()
    }

    /// The answer, as it is sent, the way a shell makes it.
    pub(super) fn send(&self, request: ClosureRequest, limits: Limits) -> Vec<u8> {
        let mut closure = Closure::new(request, &self.head, limits).unwrap();
        let mut sent = Vec::new();
        push_frame(&mut sent, Part::Object(ObjectKey::Head), &self.head);
        let mut send = |(part, bytes): FrameParts<'_>| push_frame(&mut sent, part, &bytes);
        while let ClosureStep::Need(keys) = closure.step() {
            assert!(!keys.is_empty());
            for key in keys {
                closure.provide(key, &self.objects[&key]).unwrap().map(&mut send);
            }
        }
        closure.proof().map(&mut send);
        assert_eq!(closure.proof(), None);
        sent
    }

    /// The objects of the answer, without the head.
    pub(super) fn answer(&self, request: ClosureRequest, limits: Limits) -> Vec<ObjectKey> {
        let (frames, end) = frame::read_in_pieces(&self.send(request, limits), usize::MAX);
        assert_eq!(end, Ok(()));
        let objects = frames.into_iter().skip(1).filter_map(|Frame { part, bytes }| match part {
            Part::Object(key) => {
                assert_eq!(bytes, self.objects[&key]);
                Some(key)
            }
            Part::Proof => None,
        });
        objects.collect()
    }
}

impl Spec {
    fn release(&self, link: Link) -> Statement {
        let mut release = test_release(self.plugin, self.version, link);
        release.dependencies = self.dependencies();
        release.builds[0].target =
            BuildTarget::Native { target: self.target.parse().unwrap(), libc: None, abi: 1 };
        Statement::Release(std::sync::Arc::new(release))
    }

    /// One a plugin, and none on itself, as statements must have it.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let mut dependencies: Vec<Dependency> = Vec::new();
        for link in self.links.split(',').map(str::trim).filter(|link| !link.is_empty()) {
            let (other, requirement) = link.split_once(' ').unwrap();
            let plugin: PluginName = other.trim_end_matches('?').parse().unwrap();
            let known = dependencies.iter().any(|dependency| dependency.plugin == plugin);
            if !known && plugin.as_str() != self.plugin {
                let requirement = requirement.parse().unwrap();
                let optional = other.ends_with('?');
                dependencies.push(Dependency { plugin, requirement, optional });
            }
        }
        dependencies
    }
}
