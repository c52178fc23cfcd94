//! The fold of the log: each statement judged by the rules of core in the order of the log,
//! and the index that they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use modunest_core::digest::{Digest, Hasher};
use modunest_core::index::{Bin, IndexFile, Node, Slot};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{
    Authorities, FoldError, OrgState, PluginState, RegistryKeys, SignedStatement, StatementError,
    Subject,
};

use crate::error::Error;

/// Bytes of statements that wait in memory to be appended to their subjects' files.
const WAITING_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Plugins whose state is kept in memory. One that was dropped is folded anew from its file
/// when the log comes back to it.
const PLUGINS_MAX: usize = 4_096;

/// A subject's file: its name in the index, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubjectFile {
    /// SHA-256 of the whole file.
    pub(super) digest: Digest,
    /// Length. What stands behind is of a run that did not end.
    pub(super) size_bytes: u64,
}

/// Why a statement does not fold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The entry is no statement.
    #[error(transparent)]
    Entry(#[from] StatementError),
    /// The statement does not follow.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The monitor's own files cannot be used.
    #[error(transparent)]
    Own(#[from] Error),
}

/// What is being appended to a subject's file.
struct Growing {
    hasher: Hasher,
    /// Bytes that are in the file.
    written_bytes: u64,
    waiting: Vec<u8>,
}

/// The statements so far.
pub(super) struct Fold<'a> {
    folder: PathBuf,
    keys: &'a RegistryKeys,
    subjects: &'a mut BTreeMap<Subject, SubjectFile>,
    orgs: BTreeMap<OrgName, OrgState>,
    plugins: BTreeMap<PluginName, PluginState>,
    growing: BTreeMap<Subject, Growing>,
    waiting_bytes: usize,
}

impl<'a> Fold<'a> {
    /// Goes on where `subjects` stand, with their files in `folder`.
    pub(super) fn new(
        folder: PathBuf,
        keys: &'a RegistryKeys,
        subjects: &'a mut BTreeMap<Subject, SubjectFile>,
    ) -> Self {
        Fold {
            folder,
            keys,
            subjects,
            orgs: BTreeMap::new(),
            plugins: BTreeMap::new(),
            growing: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes the entry at `position`.
    pub(super) fn take(&mut self, position: u64, entry: &[u8]) -> Result<SignedStatement, Refused> {
        let signed = SignedStatement::parse(entry.to_vec())?;
        let subject = signed.statement().subject();
        match &subject {
            Subject::Org(org) => {
                self.load_org(org)?;
                if let Some(state) = self.orgs.get_mut(org) {
                    state.apply(position, &signed, self.keys)?;
                }
            }
            Subject::Plugin(plugin) => {
                self.load_plugin(plugin)?;
                if let Some(state) = self.plugins.get_mut(plugin) {
                    load_orgs(&mut self.orgs, self.subjects, &self.folder, self.keys, {
                        std::slice::from_ref(&state.owner)
                    })?;
                    let authorities = Authorities { registry: self.keys, orgs: &self.orgs };
                    state.apply(position, &signed, authorities)?;
                }
            }
        }
        self.append(subject, position, signed.clone())?;
        Ok(signed)
    }

    fn load_org(&mut self, org: &OrgName) -> Result<(), Refused> {
        load_orgs(&mut self.orgs, self.subjects, &self.folder, self.keys, std::slice::from_ref(org))
    }

    fn load_plugin(&mut self, plugin: &PluginName) -> Result<(), Refused> {
        if self.plugins.contains_key(plugin) {
            return Ok(());
        }
        if self.plugins.len() == PLUGINS_MAX {
            self.write()?;
            self.plugins.clear();
        }
        let subject = Subject::Plugin(plugin.clone());
        // What waits for the file belongs to it.
        if self.growing.get(&subject).is_some_and(|growing| !growing.waiting.is_empty()) {
            self.write()?;
        }
        let mut state = PluginState::new(plugin.clone());
        if let Some(file) = read_file(&self.folder, &subject, self.file(&subject))? {
            let orgs: Vec<OrgName> = file.orgs().into_iter().collect();
            load_orgs(&mut self.orgs, self.subjects, &self.folder, self.keys, &orgs)?;
            let authorities = Authorities { registry: self.keys, orgs: &self.orgs };
            for (position, signed) in &file.entries {
                state.apply(*position, signed, authorities)?;
            }
        }
        self.plugins.insert(plugin.clone(), state);
        Ok(())
    }

    /// A subject's file as it is now.
    fn file(&self, subject: &Subject) -> Option<SubjectFile> {
        match self.growing.get(subject) {
            Some(growing) => Some(SubjectFile {
                digest: growing.hasher.clone().finish(),
                size_bytes: growing.written_bytes,
            }),
            None => self.subjects.get(subject).copied(),
        }
    }

    fn append(
        &mut self,
        subject: Subject,
        position: u64,
        signed: SignedStatement,
    ) -> Result<(), Error> {
        let mut file = IndexFile::new(subject.clone());
        let header = file.to_bytes();
        file.entries.push((position, signed));
        let bytes = file.to_bytes();
        if !self.growing.contains_key(&subject) {
            let growing = match self.subjects.get(&subject) {
                Some(known) => {
                    let mut hasher = Hasher::new();
                    hasher.update(&read_bytes(&self.folder, &subject, *known)?);
                    Growing { hasher, written_bytes: known.size_bytes, waiting: Vec::new() }
                }
                None => {
                    let mut hasher = Hasher::new();
                    hasher.update(&header);
                    Growing { hasher, written_bytes: 0, waiting: header.clone() }
                }
            };
            self.waiting_bytes += growing.waiting.len();
            self.growing.insert(subject.clone(), growing);
        }
        if let Some(growing) = self.growing.get_mut(&subject) {
            // All but the first line is what the statement adds.
            let added = &bytes[header.len()..];
            growing.hasher.update(added);
            growing.waiting.extend_from_slice(added);
            self.waiting_bytes += added.len();
        }
        if self.waiting_bytes > WAITING_MAX_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Appends what waits to the files.
    fn write(&mut self) -> Result<(), Error> {
        for (subject, growing) in &mut self.growing {
            if growing.waiting.is_empty() {
                continue;
            }
            let path = path_of(&self.folder, subject);
            append_at(&path, growing.written_bytes, &growing.waiting)
                .map_err(Error::file(&path))?;
            growing.written_bytes += growing.waiting.len() as u64;
            growing.waiting = Vec::new();
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    /// The index as it is now: its root, and its bins by their places.
    pub(super) fn index(&mut self) -> Result<Index, Error> {
        self.write()?;
        let growing: Vec<Subject> = self.growing.keys().cloned().collect();
        for subject in growing {
            if let Some(file) = self.file(&subject) {
                self.subjects.insert(subject, file);
            }
        }
        Ok(Index::of(self.subjects))
    }
}

/// The tree over all subjects.
pub(super) struct Index {
    /// Digest of the root node.
    pub(super) root: Digest,
    /// The nodes below it.
    pub(super) nodes: BTreeMap<u8, Node>,
    /// The bins below those.
    pub(super) bins: BTreeMap<Slot, Bin>,
}

impl Index {
    /// How many plugins and organisations it has.
    pub(super) fn subjects(&self) -> usize {
        self.bins.values().map(|bin| bin.entries().count()).sum()
    }

    fn of(subjects: &BTreeMap<Subject, SubjectFile>) -> Index {
        let mut bins: BTreeMap<Slot, Bin> = BTreeMap::new();
        for (subject, file) in subjects {
            bins.entry(Slot::of(subject)).or_default().set(subject.clone(), file.digest);
        }
        let mut nodes: BTreeMap<u8, Node> = BTreeMap::new();
        for (slot, bin) in &bins {
            let node = nodes.entry(slot.node).or_insert(Node::EMPTY);
            node.set(slot.bin, Digest::of(&bin.to_bytes()));
        }
        let mut root = Node::EMPTY;
        for (place, node) in &nodes {
            root.set(*place, Digest::of(&node.to_bytes()));
        }
        Index { root: Digest::of(&root.to_bytes()), nodes, bins }
    }
}

fn load_orgs(
    orgs: &mut BTreeMap<OrgName, OrgState>,
    subjects: &BTreeMap<Subject, SubjectFile>,
    folder: &Path,
    keys: &RegistryKeys,
    wanted: &[OrgName],
) -> Result<(), Refused> {
    for org in wanted {
        if orgs.contains_key(org) {
            continue;
        }
        let subject = Subject::Org(org.clone());
        let mut state = OrgState::new(org.clone());
        // An organisation that is not loaded has not grown in this run.
        if let Some(file) = read_file(folder, &subject, subjects.get(&subject).copied())? {
            for (position, signed) in &file.entries {
                state.apply(*position, signed, keys)?;
            }
        }
        orgs.insert(org.clone(), state);
    }
    Ok(())
}

fn path_of(folder: &Path, subject: &Subject) -> PathBuf {
    let name = Digest::of(subject.to_string().as_bytes()).to_hex();
    folder.join(&name[..2]).join(name)
}

fn append_at(path: &Path, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    // Whatever an earlier run left behind this is not part of the file.
    file.set_len(at)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

fn read_bytes(folder: &Path, subject: &Subject, known: SubjectFile) -> Result<Vec<u8>, Error> {
    let path = path_of(folder, subject);
    let file = File::open(&path).map_err(Error::file(&path))?;
    let mut bytes = Vec::new();
    file.take(known.size_bytes).read_to_end(&mut bytes).map_err(Error::file(&path))?;
    if Digest::of(&bytes) == known.digest {
        return Ok(bytes);
    }
    Err(Error::Input(format!(
        "{}: the file was changed, or lost in a power failure. Begin another folder with --state \
         DIR: the log is then replayed from its beginning",
        path.display()
    )))
}

fn read_file(
    folder: &Path,
    subject: &Subject,
    known: Option<SubjectFile>,
) -> Result<Option<IndexFile>, Error> {
    let Some(known) = known else { return Ok(None) };
    let bytes = read_bytes(folder, subject, known)?;
    IndexFile::parse(subject, &bytes)
        .map(Some)
        .map_err(|error| Error::Failed(format!("{}: {error}", path_of(folder, subject).display())))
}

/// Names of the subjects whose files differ between two bins.
pub(super) fn differences(ours: Option<&Bin>, theirs: Option<&Bin>) -> BTreeSet<String> {
    let entries = |bin: Option<&Bin>| -> BTreeMap<String, Digest> {
        let bin = bin.into_iter().flat_map(Bin::entries);
        bin.map(|(subject, digest)| (subject.to_string(), digest)).collect()
    };
    let (ours, theirs) = (entries(ours), entries(theirs));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)).cloned().collect()
}
