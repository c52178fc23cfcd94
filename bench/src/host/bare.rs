//! The peer: the same steps by library calls alone, as a careful script would make them.
//!
//! The code that opens libraries is unsafe by nature, as in the agent's loader; here it is
//! without the loader's checks, because their cost is what is measured.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use modunest_core::statement::{SignedStatement, Statement};
use modunest_sdk::abi::{
    Buffer, Bytes, ENTRY_SYMBOL, EntryPoint, PluginTable, Request, RequestKind, size_of_table,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest as _, Sha256};

use super::{Step, Steps, Watch, in_parallel, plugins};
use crate::error::Error;

/// All steps, from files to answers.
pub fn run(plugins: &Path, work: &Path, threads: usize) -> Result<Steps, Error> {
    let publisher = bare_key(&plugins::publisher_key()?)?;
    let registry = bare_key(&plugins::registry_key()?)?;
    let digests = expected_digests(plugins)?;
    let numbers: Vec<usize> = (0..plugins::COUNT).collect();

    let mut watch = Watch::start();
    in_parallel(&numbers, threads, |&number| {
        verify(&plugins::statement(plugins, number), &publisher)?;
        verify(&plugins::verdict(plugins, number), &registry)
    })?;
    watch.step();

    let libraries = in_parallel(&numbers, threads, |&number| {
        let path = plugins::archive(plugins, number);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let found: [u8; 32] = Sha256::digest(&bytes).into();
        if found != digests[number] {
            return Err(Error::Wrong { what: "an archive", why: path.display().to_string() });
        }
        unpack(bytes, &work.join(number.to_string()))
    })?;
    watch.step();

    let folder = File::open(work).map_err(Error::io(work))?;
    rustix::fs::syncfs(&folder)
        .map_err(|error| Error::Io { what: work.display().to_string(), source: error.into() })?;
    watch.step();

    let tables = libraries.iter().map(|path| table(path)).collect::<Result<Vec<_>, _>>()?;
    watch.step();

    for (number, table) in tables.into_iter().enumerate() {
        call(table, number)?;
    }
    watch.step();
    Ok(watch.end())
}

/// Opening and calling alone, of libraries that lie there.
pub fn open(plugins: &Path) -> Result<Steps, Error> {
    let mut watch = Watch::start();
    let tables = (0..plugins::COUNT)
        .map(|number| table(&plugins::library(plugins, number)))
        .collect::<Result<Vec<_>, _>>()?;
    watch.step();
    for (number, table) in tables.into_iter().enumerate() {
        call(table, number)?;
    }
    watch.step();
    // The steps before are not made at all.
    let mut steps = vec![Step::default(); 3];
    steps.extend(watch.end());
    Ok(steps)
}

/// What a loader does that opens nothing but what it has proven: each library is copied to
/// memory, sealed, and hashed as it lies there. It stays there, as it does below a library that is
/// open.
pub fn seal(plugins: &Path) -> Result<Steps, Error> {
    let libraries: Vec<_> =
        (0..plugins::COUNT).map(|number| plugins::library(plugins, number)).collect();
    let mut kept = Vec::with_capacity(libraries.len());
    let mut watch = Watch::start();
    for path in &libraries {
        let mut bytes = fs::read(path).map_err(Error::io(path))?;
        let failed = |error: rustix::io::Errno| Error::io(path)(error.into());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(memfd_create("bench", flags).map_err(failed)?);
        memory.write_all(&bytes).map_err(Error::io(path))?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&memory, seals).map_err(failed)?;
        memory.read_exact_at(&mut bytes, 0).map_err(Error::io(path))?;
        std::hint::black_box(Sha256::digest(&bytes));
        kept.push(memory);
    }
    watch.step();
    let mut steps = vec![Step::default(); 3];
    steps.extend(watch.end());
    steps.push(Step::default());
    Ok(steps)
}

/// What the archives must hash to; a script would have it in a list.
fn expected_digests(plugins: &Path) -> Result<Vec<[u8; 32]>, Error> {
    let one = |number| {
        let path = plugins::statement(plugins, number);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let signed = SignedStatement::parse(bytes).map_err(Error::wrong("a statement"))?;
        match signed.statement() {
            Statement::Release(release) if release.builds.len() == 1 => {
                Ok(*release.builds[0].archive.as_bytes())
            }
            other => Err(Error::Wrong { what: "a statement", why: format!("{other:?}") }),
        }
    };
    (0..plugins::COUNT).map(one).collect()
}

fn bare_key(key: &modunest_tlog::VerifyingKey) -> Result<ed25519_dalek::VerifyingKey, Error> {
    ed25519_dalek::VerifyingKey::from_bytes(key.public_bytes()).map_err(Error::wrong("the key"))
}

/// Reads a signed note and proves it by the one key.
fn verify(path: &Path, key: &ed25519_dalek::VerifyingKey) -> Result<(), Error> {
    let wrong = || Error::Wrong { what: "a statement", why: path.display().to_string() };
    let note = fs::read(path).map_err(Error::io(path))?;
    let end = note.windows(2).rposition(|two| two == b"\n\n").ok_or_else(wrong)? + 1;
    let line = std::str::from_utf8(&note[end..]).map_err(|_| wrong())?.trim_ascii();
    let base64 = line.rsplit(' ').next().ok_or_else(wrong)?;
    let signature = STANDARD.decode(base64).map_err(|_| wrong())?;
    // Four bytes name the key.
    let signature = signature.get(4..).ok_or_else(wrong)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| wrong())?;
    key.verify_strict(&note[..end], &signature).map_err(|_| wrong())
}

/// Unpacks with the `zip` crate; answers the library's path.
fn unpack(bytes: Vec<u8>, folder: &Path) -> Result<PathBuf, Error> {
    let mut archive =
        zip::ZipArchive::new(Cursor::new(bytes)).map_err(Error::wrong("an archive"))?;
    let mut library = None;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(Error::wrong("an archive"))?;
        let path = folder.join(entry.name().map_err(Error::wrong("an archive"))?.as_ref());
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0));
        entry.read_to_end(&mut content).map_err(Error::io(&path))?;
        fs::write(&path, content).map_err(Error::io(&path))?;
        if path.extension().is_some_and(|extension| extension == "so") {
            library = Some(path);
        }
    }
    library.ok_or_else(|| Error::Wrong { what: "an archive", why: "no library".to_owned() })
}

fn table(path: &Path) -> Result<&'static PluginTable, Error> {
    // SAFETY: a library that this program generated; its constructors do nothing.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(Error::wrong("a library"))?;
    // SAFETY: the header that it was compiled with gives this symbol this type.
    let entry = unsafe { library.get::<EntryPoint>(ENTRY_SYMBOL) };
    // SAFETY: of the type above; takes nothing.
    let table = unsafe { entry.map_err(Error::wrong("a library"))?() };
    std::mem::forget(library);
    // SAFETY: null, or the table of a library that is never closed.
    let table = unsafe { table.as_ref() };
    table.ok_or_else(|| Error::Wrong { what: "a library", why: "no table".to_owned() })
}

fn call(table: &PluginTable, number: usize) -> Result<(), Error> {
    let wrong = |why: String| Error::Wrong { what: "a call", why };
    let (Some(create), Some(call)) = (table.create, table.call) else {
        return Err(wrong("the table is incomplete".to_owned()));
    };
    let mut instance = std::ptr::null_mut();
    let mut text = Buffer::EMPTY;
    // SAFETY: a generated plugin, which looks at no host table; the rest lives through the call.
    let code = unsafe { create(std::ptr::null(), Bytes::EMPTY, &raw mut instance, &raw mut text) };
    if code != 0 {
        return Err(wrong(format!("it was not created: {code}")));
    }
    let request = Request {
        size: size_of_table::<Request>(),
        kind: RequestKind::Service as u32,
        target: Bytes::new(plugins::SERVICE.as_bytes()),
        payload: Bytes::EMPTY,
        trace: Bytes::EMPTY,
        caller: Bytes::EMPTY,
        deadline_ms: 0,
    };
    let mut out = Buffer::EMPTY;
    // SAFETY: the instance was made above, and everything passed lives through the call.
    let code = unsafe { call(instance, &raw const request, &raw mut out) };
    // SAFETY: filled by the plugin by the ABI's rules, and nobody else has it.
    let answer = unsafe { out.into_owned() };
    if code == 0 && *answer == *number.to_string().as_bytes() {
        Ok(())
    } else {
        Err(wrong(format!("plugin {number} answered {code} and {} bytes", answer.len())))
    }
}
