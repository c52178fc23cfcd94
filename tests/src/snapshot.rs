//! The whole log and index at one head, read and proven as anybody can: every hash from the head
//! down, every statement's signature and place in the log, the log's tree built anew from its
//! entries, and the index from the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::index::{Bin, Head, IndexFile, Node, Slot, Update, prove, update};
use modunest_core::keys::ObjectKey;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{
    Authorities, OrgState, PluginState, RegistryKeys, SignedStatement, Subject,
};
use modunest_tlog::{
    Frontier, SignedCheckpoint, TILE_WIDTH, TileId, TreeHash, VerifyingKey, parse_entries,
};
use reqwest::Method;
use url::Url;

use crate::client::Client;
use crate::registry::ORIGIN;

/// Everything that readers can see at one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The head.
    pub head: Head,
    /// Every index file.
    pub files: BTreeMap<Subject, IndexFile>,
    /// What the organisations' statements come to.
    pub orgs: BTreeMap<OrgName, OrgState>,
    /// What the plugins' statements come to.
    pub plugins: BTreeMap<PluginName, PluginState>,
}

impl Snapshot {
    /// Reads and proves the whole log and the whole index.
    ///
    /// # Panics
    /// When anything does not prove.
    pub async fn read(url: &Url, keys: &[VerifyingKey]) -> Snapshot {
        let client = Client::new(url.clone(), None);
        let bytes = object(&client, ObjectKey::Head).await;
        let head = Head::verify(&bytes, ORIGIN, keys).unwrap();
        let log = read_log(&client, keys).await;
        assert_eq!(rebuilt(&log[..usize::try_from(head.log.size).unwrap()]), head.index);
        let files = walk(&client, head.index).await;
        assert_eq!(
            files.values().map(|file| file.entries.len() as u64).sum::<u64>(),
            head.log.size
        );
        assert_eq!(root_of(log.iter().take(head.log.size as usize)), head.log.root);
        let (orgs, plugins) = fold(&files, &RegistryKeys::in_use(keys.iter().cloned()));
        let snapshot = Snapshot { head, files, orgs, plugins };
        snapshot.prove_archives(&client).await;
        snapshot
    }

    /// No release is half there: what it names can be had, and is what it says.
    async fn prove_archives(&self, client: &Client) {
        for state in self.plugins.values().flat_map(|plugin| plugin.releases.values()) {
            let release = &state.release;
            let archives = release.builds.iter().map(|build| build.archive);
            for digest in archives.chain([release.manifest]) {
                let bytes = object(client, ObjectKey::Blob(digest)).await;
                assert_eq!(Digest::of(&bytes), digest, "{} {}", release.plugin, release.version);
            }
        }
    }

    /// Whether a release is to be seen.
    pub fn has(&self, plugin: &str, version: &str) -> bool {
        let plugin: PluginName = plugin.parse().unwrap();
        let state = self.plugins.get(&plugin);
        state.is_some_and(|state| state.releases.contains_key(&version.parse().unwrap()))
    }
}

/// The index file of one plugin, found but not proven to belong to a signed head: the
/// signature is for readers who believe what they read; a publisher whom somebody misleads is
/// refused by the registry. `None` when the connection breaks.
///
/// # Panics
/// When an object is not what its name says.
pub async fn file_of(client: &Client, plugin: &PluginName) -> Option<Option<IndexFile>> {
    let head = try_object(client, ObjectKey::Head).await?;
    let text = String::from_utf8(head.to_vec()).unwrap();
    let head: Head = serde_json::from_str(text.lines().nth(1)?).unwrap();
    let subject = Subject::Plugin(plugin.clone());
    let slot = Slot::of(&subject);
    let root = Node::parse(&try_object(client, ObjectKey::Node(head.index)).await?).unwrap();
    let Some(node) = root.child(slot.node) else { return Some(None) };
    let node = Node::parse(&try_object(client, ObjectKey::Node(node)).await?).unwrap();
    let Some(bin) = node.child(slot.bin) else { return Some(None) };
    let bin = Bin::parse(slot, &try_object(client, ObjectKey::Bin(bin)).await?).unwrap();
    let Some(file) = bin.get(&subject) else { return Some(None) };
    let file = try_object(client, ObjectKey::Index(file)).await?;
    Some(Some(IndexFile::parse(&subject, &file).unwrap()))
}

/// An object of the read side, proven where its name can prove it.
///
/// # Panics
/// When it cannot be had or is another.
pub async fn object(client: &Client, key: ObjectKey) -> Bytes {
    try_object(client, key).await.expect("the registry to answer")
}

async fn try_object(client: &Client, key: ObjectKey) -> Option<Bytes> {
    let answer = client.try_answer(Method::GET, &key.path(), None::<&()>).await?;
    assert_eq!(answer.status, 200, "{key}: {answer:?}");
    if let Some(digest) = key.content_digest() {
        prove("object", digest, &answer.body).unwrap();
    }
    Some(answer.body)
}

async fn walk(client: &Client, root: Digest) -> BTreeMap<Subject, IndexFile> {
    let mut files = BTreeMap::new();
    let root = Node::parse(&object(client, ObjectKey::Node(root)).await).unwrap();
    for (node_place, node) in root.children() {
        let node = Node::parse(&object(client, ObjectKey::Node(node)).await).unwrap();
        for (bin_place, bin) in node.children() {
            let slot = Slot { node: node_place, bin: bin_place };
            let bin = Bin::parse(slot, &object(client, ObjectKey::Bin(bin)).await).unwrap();
            for (subject, file) in bin.entries() {
                let bytes = object(client, ObjectKey::Index(file)).await;
                let file = IndexFile::parse(subject, &bytes).unwrap();
                assert_eq!(file.to_bytes(), bytes, "{subject}'s file has another spelling");
                files.insert(subject.clone(), file);
            }
        }
    }
    files
}

/// The root of an index that is built from nothing but the log.
fn rebuilt(log: &[SignedStatement]) -> Digest {
    if log.is_empty() {
        return Digest::of(&Node::EMPTY.to_bytes());
    }
    let statements: Vec<(u64, SignedStatement)> = (0..).zip(log.iter().cloned()).collect();
    match update(None, &statements, &BTreeMap::new()).unwrap() {
        Update::Done { root, .. } => root,
        need => panic!("an empty index needs {need:?}"),
    }
}

fn root_of<'a>(log: impl Iterator<Item = &'a SignedStatement>) -> Digest {
    let mut frontier = Frontier::new();
    for signed in log {
        frontier.append(TreeHash::of_leaf(signed.bytes()));
    }
    Digest::from_bytes(*frontier.root().as_bytes())
}

/// Every entry of the log at its checkpoint, from the bundles. Every tile of hashes is what
/// the entries give.
async fn read_log(client: &Client, keys: &[VerifyingKey]) -> Vec<SignedStatement> {
    let bytes = object(client, ObjectKey::Checkpoint).await;
    let checkpoint = SignedCheckpoint::verify(&bytes, ORIGIN, keys).unwrap().checkpoint;
    let (mut log, mut frontier, mut tiles) = (Vec::new(), Frontier::new(), BTreeMap::new());
    for index in 0..checkpoint.size.div_ceil(TILE_WIDTH) {
        let id = TileId::entries(index, checkpoint.size).unwrap();
        let bundle = object(client, ObjectKey::Tile(id)).await;
        for entry in parse_entries(id, &bundle).unwrap() {
            frontier.append(TreeHash::of_leaf(entry));
            log.push(SignedStatement::parse(entry.to_vec()).unwrap());
        }
        // Partial tiles of smaller trees are replaced by the full ones.
        tiles.retain(|id: &TileId, _| id.is_full());
        tiles.extend(frontier.take_tiles());
    }
    assert_eq!(frontier.root(), checkpoint.root, "the entries do not give the checkpoint's root");
    for (id, expected) in tiles {
        assert_eq!(object(client, ObjectKey::Tile(id)).await, expected, "{id}");
    }
    log
}

type Folded = (BTreeMap<OrgName, OrgState>, BTreeMap<PluginName, PluginState>);

fn fold(files: &BTreeMap<Subject, IndexFile>, registry: &RegistryKeys) -> Folded {
    let (mut orgs, mut plugins) = (BTreeMap::new(), BTreeMap::new());
    for (subject, file) in files {
        if let Subject::Org(org) = subject {
            let mut state = OrgState::new(org.clone());
            for (position, signed) in &file.entries {
                state.apply(*position, signed, registry).unwrap();
            }
            orgs.insert(org.clone(), state);
        }
    }
    let authorities = Authorities { registry, orgs: &orgs };
    for (subject, file) in files {
        if let Subject::Plugin(plugin) = subject {
            let mut state = PluginState::new(plugin.clone());
            for (position, signed) in &file.entries {
                state.apply(*position, signed, authorities).unwrap();
            }
            plugins.insert(plugin.clone(), state);
        }
    }
    (orgs, plugins)
}
