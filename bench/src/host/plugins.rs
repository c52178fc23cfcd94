//! Generated plugins: one C template with a number in it, compiled so many times, packed and
//! signed as a publisher would.
//!
//! Made once, into a folder that is named by all that they are made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use modunest_agent::store::{Evidence, Generations};
use modunest_agent::sync::{Lock, Locked};
use modunest_core::archive::{Archive, MANIFEST_NAME, PackFile, pack};
use modunest_core::digest::Digest;
use modunest_core::index::{HEAD_LIVES_FOR, Head, IndexFile, LogHead};
use modunest_core::manifest::Manifest;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::relation::{BuildTarget, NATIVE_ABI};
use modunest_core::scan::{self, LIBRARY_NAME};
use modunest_core::statement::{Build, Link, Release, SignedStatement, Statement, Subject};
use modunest_tlog::{Frontier, SigningKey, TreeHash, VerifyingKey};

use crate::error::Error;
use crate::folders;
use crate::trust::population;

/// How many there are: the figure of issue 2.
pub const COUNT: usize = 500;
/// The service that every one of them exports.
pub const SERVICE: &str = "number";
/// The registry that is said to have published them.
pub const ORIGIN: &str = "bench.modunest";
const ORG: &str = "bench";

const TEMPLATE: &str = include_str!("plugin.c");
const HEADER: &str = include_str!("../../../sdk/include/modunest.h");
/// Counts changes of what is made from the template.
const LAYOUT: &str = "2";
const FLAGS: [&str; 6] =
    ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-z,relro,-z,now", "-s"];

/// Keys that sign benchmarks and nothing else; the same in every run.
const REGISTRY_SEED: [u8; 32] = [1; 32];
const PUBLISHER_SEED: [u8; 32] = [2; 32];

/// One archive, and what is said of it.
pub struct Packed {
    /// The archive.
    pub bytes: Vec<u8>,
    /// The manifest in it.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub manifest_digest: Digest,
    /// The build, as a statement names it.
    pub build: Build,
}

/// A number in letters that look like no others: a registry refuses names that look alike.
pub fn letters(number: usize) -> String {
    let digits = number.to_string();
    digits.bytes().map(|digit| char::from(b"acefghjkmp"[usize::from(digit - b'0')])).collect()
}

/// The plugin with a number.
pub fn name(number: usize) -> Result<PluginName, Error> {
    let name = format!("{ORG}/plug{}", letters(number));
    name.parse().map_err(Error::wrong("a plugin's name"))
}

/// The organisation of all of them.
pub fn org() -> Result<OrgName, Error> {
    ORG.parse().map_err(Error::wrong("an organisation's name"))
}

fn signing_key(name: &str, seed: &[u8; 32]) -> Result<SigningKey, Error> {
    let name = name.parse().map_err(Error::wrong("a key's name"))?;
    Ok(SigningKey::from_seed(name, seed))
}

/// The key that an agent is configured with.
pub fn registry_key() -> Result<VerifyingKey, Error> {
    Ok(signing_key(ORIGIN, &REGISTRY_SEED)?.verifying_key())
}

/// The key that signs the releases.
pub fn publisher_key() -> Result<VerifyingKey, Error> {
    Ok(signing_key(ORG, &PUBLISHER_SEED)?.verifying_key())
}

/// Where a plugin's archive is.
pub fn archive(plugins: &Path, number: usize) -> PathBuf {
    plugins.join("archives").join(number.to_string())
}

/// Where a plugin's release statement is.
pub fn statement(plugins: &Path, number: usize) -> PathBuf {
    plugins.join("statements").join(number.to_string())
}

/// Where the registry's verdict about the release is.
pub fn verdict(plugins: &Path, number: usize) -> PathBuf {
    plugins.join("verdicts").join(number.to_string())
}

/// Where a plugin's library is, for whoever only opens it.
pub fn library(plugins: &Path, number: usize) -> PathBuf {
    plugins.join("libraries").join(format!("{number}.so"))
}

/// The folder with all of them, made if it is not there.
pub fn folder() -> Result<PathBuf, Error> {
    let content = format!("{LAYOUT}\0{TEMPLATE}\0{HEADER}\0{}\0{COUNT}", FLAGS.join(" "));
    let key = Digest::of(content.as_bytes()).to_hex();
    let cache = folders::cache()?;
    let folder = cache.join(format!("plugins-{}", &key[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("generating {COUNT} plugins into {}, once", folder.display());
    let aside = tempfile::tempdir_in(&cache).map_err(Error::io(&cache))?;
    make(aside.path())?;
    fs::rename(aside.keep(), &folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

fn make(folder: &Path) -> Result<(), Error> {
    for name in ["archives", "statements", "verdicts", "libraries"] {
        let path = folder.join(name);
        fs::create_dir(&path).map_err(Error::io(&path))?;
    }
    write(&folder.join("plugin.c"), TEMPLATE.as_bytes())?;
    write(&folder.join("modunest.h"), HEADER.as_bytes())?;
    compile(folder)?;
    let publisher = signing_key(ORG, &PUBLISHER_SEED)?;
    let registry = signing_key(ORIGIN, &REGISTRY_SEED)?;
    let mut evidence = Evidence::default();
    let mut log = Frontier::new();
    let mut append =
        |statement: SignedStatement| (log.append(TreeHash::of_leaf(statement.bytes())), statement);
    let key = population::key(org()?, &publisher.verifying_key());
    let (subject, entries) = (key.subject(), vec![append(population::signed(&key, &registry)?)]);
    let index = IndexFile { subject: subject.clone(), entries }.to_bytes();
    evidence.0.insert(subject, Arc::from(index));
    let mut locked = Vec::new();
    for number in 0..COUNT {
        let path = library(folder, number);
        let content = fs::read(&path).map_err(Error::io(&path))?;
        let packed = packed(&name(number)?, content, Vec::new())?;
        write(&archive(folder, number), &packed.bytes)?;
        let signed = release(&packed, &publisher)?;
        write(&statement(folder, number), signed.bytes())?;
        let digest = signed.digest();
        let scanned = population::verdict(&signed, Link::FIRST)?;
        let scanned = population::signed(&scanned, &registry)?;
        write(&verdict(folder, number), scanned.bytes())?;
        let subject = Subject::Plugin(packed.manifest.name.clone());
        let entries = vec![append(signed), append(scanned)];
        let index = IndexFile { subject: subject.clone(), entries }.to_bytes();
        evidence.0.insert(subject, Arc::from(index));
        locked.push(Locked {
            plugin: packed.manifest.name,
            version: packed.manifest.version,
            statement: digest,
            target: packed.build.target,
            archive: packed.build.archive,
            size_bytes: packed.build.size_bytes,
            files: packed.build.files,
            uses: Vec::new(),
        });
    }
    let now = modunest_runtime::clock::now();
    let head = Head {
        origin: ORIGIN.to_owned(),
        epoch: 1,
        log: LogHead { size: log.size(), root: Digest::from_bytes(*log.root().as_bytes()) },
        index: Digest::of(b"no tree: the evidence is at hand"),
        revocations: None,
        issued_at: now,
        expires_at: now.plus(HEAD_LIVES_FOR),
    };
    let generations = Generations::open(folder).map_err(Error::wrong("a generation"))?;
    generations.add(Lock::new(&head, locked), evidence).map_err(Error::wrong("a generation"))?;
    Ok(())
}

/// Compiles all libraries, on all processors.
fn compile(folder: &Path) -> Result<(), Error> {
    let compiler = folders::program("cc", "install Debian's gcc or clang")?;
    let one = |number: usize| {
        let mut command = Command::new(&compiler);
        command.current_dir(folder).args(FLAGS).arg(format!("-DPLUGIN_NUMBER={number}"));
        command.arg("-o").arg(library(folder, number)).arg("plugin.c");
        let output = command.output();
        let output = output.map_err(|source| Error::Io { what: "cc".to_owned(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = format!(": {}", String::from_utf8_lossy(&output.stderr));
        Err(Error::Failed { program: "cc".to_owned(), status: output.status, said })
    };
    let all: Vec<usize> = (0..COUNT).collect();
    super::in_parallel(&all, super::processors(), |&number| one(number)).map(drop)
}

/// A plugin's library, its manifest, and perhaps a file of data, as an archive.
pub fn packed(name: &PluginName, library: Vec<u8>, data: Vec<u8>) -> Result<Packed, Error> {
    let include = if data.is_empty() { "" } else { "\n[build]\ninclude = [\"data.bin\"]\n" };
    let text = format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\n\
         description = \"Answers its number\"\nauthors = [\"The Modu-Nest authors\"]\n\
         license = \"MIT\"\n\n[host]\nabi = {NATIVE_ABI}\n\n\
         [[service]]\nname = \"{SERVICE}\"\nversion = \"1.0.0\"\n{include}"
    );
    let target = native_target(&library)?;
    let file =
        |name: &str, content, executable| PackFile { name: name.to_owned(), content, executable };
    let mut files = vec![
        file(MANIFEST_NAME, text.clone().into_bytes(), false),
        file(LIBRARY_NAME, library, true),
    ];
    if !data.is_empty() {
        files.push(file("data.bin", data, false));
    }
    archived(&text, target, files)
}

/// What a library of this machine is built for.
pub fn native_target(library: &[u8]) -> Result<BuildTarget, Error> {
    Ok(BuildTarget::Native {
        target: modunest_agent::host::facts().target,
        libc: scan::glibc_floor(library).map_err(Error::wrong("a plugin's library"))?,
        abi: NATIVE_ABI,
    })
}

/// An archive of these files, with the manifest among them.
pub fn archived(text: &str, target: BuildTarget, files: Vec<PackFile>) -> Result<Packed, Error> {
    let what = "a plugin's archive";
    let manifest = Manifest::parse(text).map_err(Error::wrong("a plugin's manifest"))?;
    let bytes = pack(files).map_err(Error::wrong(what))?;
    let list = Archive::open(&bytes).and_then(|a| a.file_list()).map_err(Error::wrong(what))?;
    let build = Build {
        target,
        archive: Digest::of(&bytes),
        size_bytes: bytes.len() as u64,
        files: list.digest(),
    };
    Ok(Packed { bytes, manifest, manifest_digest: Digest::of(text.as_bytes()), build })
}

/// The signed release of an archive: the first of its plugin.
pub fn release(packed: &Packed, key: &SigningKey) -> Result<SignedStatement, Error> {
    let builds = vec![packed.build.clone()];
    let release =
        Release::declared_by(&packed.manifest, packed.manifest_digest, Link::FIRST, builds);
    Statement::Release(Arc::new(release)).sign(key).map_err(Error::wrong("a release statement"))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(Error::io(path))
}
