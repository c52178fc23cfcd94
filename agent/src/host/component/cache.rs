//! What was compiled on this machine, kept for the next start.
//!
//! ```text
//! compiled/key                          32 random bytes, made once
//! compiled/<component>-<engine>         machine code
//! compiled/<component>-<engine>.proof   32 bytes
//! ```
//!
//! `<component>` is the SHA-256 of the component, which the release's file list proves;
//! `<engine>` stands for everything of the engine that the code depends on: its version, its
//! settings, the processor. Machine code is run as it is, so whoever could write it could do
//! what the agent may do. The folder is the agent's own (mode 0700), and the proof binds the
//! code to both names by the key: a file that was damaged, cut short, renamed or brought from
//! elsewhere is compiled anew. It is the keyed hash of BLAKE3 (section 2.3 of its paper), by a key
//! of both names, which takes a sixth of the time of a SHA-256 of the same bytes.
//!
//! Code is mapped from its file, as libraries are: what nobody changes is the system's to keep or
//! to read again, and no plugin's own.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use modunest_core::digest::Digest;
use modunest_core::scan::COMPONENT_MAX_BYTES;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::Source;
use super::engine::Runtime;
use crate::files;
use crate::host::LoadError;

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Bytes of a proof.
const PROOF_BYTES: usize = blake3::OUT_LEN;

/// Largest compiled component, in bytes: machine code is up to four times as large as what it
/// is made from.
const COMPILED_MAX_BYTES: usize = 4 * COMPONENT_MAX_BYTES;

/// What the kernel calls machine code that is on its way to a runner.
const CODE_NAME: &str = "modunest-component";

/// The folder of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Without one, everything is compiled at each start.
    folder: Option<PathBuf>,
    key: OnceLock<Option<[u8; KEY_BYTES]>>,
}

impl Cache {
    /// A cache below a folder, which is made when there is something to keep; `None` keeps
    /// nothing.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Cache { folder, key: OnceLock::new() }
    }

    /// Whether something is kept of a component for an engine, be it whole or not.
    pub(super) fn has(&self, runtime: &Runtime, of: Digest) -> bool {
        self.kept(of, runtime.fingerprint()).is_some_and(|path| proof_of(&path).exists())
    }

    /// The component of a file, compiled before or now.
    ///
    /// # Errors
    /// When the file is not what it must be, or cannot be compiled.
    pub(super) fn component(
        &self,
        runtime: &Runtime,
        source: &Source,
    ) -> Result<Component, LoadError> {
        let of = source.record.sha256;
        if let Some(component) = self.map_kept(runtime, of) {
            return Ok(component);
        }
        let code = self.compile(runtime, source)?;
        match self.map_kept(runtime, of) {
            Some(component) => Ok(component),
            None => map(runtime.engine(), &code)
                .map_err(|error| LoadError::Compile(format!("{error:#}"))),
        }
    }

    /// The machine code of a file, compiled before or now, in a sealed memory file for a runner.
    /// It is not mapped here.
    ///
    /// # Errors
    /// As [`Cache::component`], or when the system has no memory for it.
    pub(super) fn sealed(&self, runtime: &Runtime, source: &Source) -> Result<OwnedFd, LoadError> {
        let sealed = match self.read_kept(source.record.sha256, runtime.fingerprint()) {
            Some(code) => files::sealed(CODE_NAME, &code),
            None => files::sealed(CODE_NAME, &self.compile(runtime, source)?),
        };
        sealed.map_err(|error| LoadError::Io { path: source.path.clone(), source: error })
    }

    /// Compiles a file, and keeps what comes of it.
    fn compile(&self, runtime: &Runtime, source: &Source) -> Result<Vec<u8>, LoadError> {
        let (of, engine_digest) = (source.record.sha256, runtime.fingerprint());
        let bytes = read_proven(source)?;
        let started = std::time::Instant::now();
        let code = runtime
            .engine()
            .precompile_component(&bytes)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        tracing::debug!(component = %of, bytes = bytes.len(), code = code.len(), ms = started.elapsed().as_millis(), "compiled");
        if let Some(path) = self.kept(of, engine_digest)
            && let Err(error) = self.write(&path, of, engine_digest, &code)
        {
            // The next start is slower, and nothing else.
            tracing::warn!(file = %path.display(), %error, "a compiled component cannot be kept");
        }
        Ok(code)
    }

    /// Removes what was compiled from components that are not among these, and what was left
    /// half-written.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not removed.
    pub(crate) fn retain(&self, used: impl Fn(Digest) -> bool) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let component = name.split_once('-').and_then(|(component, _)| component.parse().ok());
            let superfluous = name.contains(files::ASIDE) || component.is_some_and(|of| !used(of));
            if superfluous {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where the code of a component is kept.
    fn kept(&self, of: Digest, engine: Digest) -> Option<PathBuf> {
        // Half of the digest tells engines apart; the proof has all of it.
        let engine = &engine.to_hex()[..32];
        Some(self.folder.as_ref()?.join(format!("{of}-{engine}")))
    }

    /// What is kept, mapped, if it is there and whole.
    fn map_kept(&self, runtime: &Runtime, of: Digest) -> Option<Component> {
        let (path, file) = self.proven(of, runtime.fingerprint(), |prover, file| {
            // By pieces that stay in the processor's cache: to map it as well would interrupt every
            // processor that runs us, and cost as much as the proof.
            prover.update_reader((&file).take(COMPILED_MAX_BYTES as u64))?;
            Ok(file)
        })?;
        let mapped = map_file(runtime.engine(), &file);
        mapped
            .inspect_err(|error| {
                tracing::warn!(file = %path.display(), error = %format!("{error:#}"), "a compiled component cannot be used and is made anew");
            })
            .ok()
    }

    /// The bytes of what is kept, if it is there and whole.
    fn read_kept(&self, of: Digest, engine: Digest) -> Option<Vec<u8>> {
        let read = self.proven(of, engine, |prover, file| {
            let mut code = Vec::new();
            file.take(COMPILED_MAX_BYTES as u64).read_to_end(&mut code)?;
            prover.update(&code);
            Ok(code)
        });
        read.map(|(_, code)| code)
    }

    /// What `read` makes of a kept file, if that is there and what `read` tells of its bytes is
    /// what was proven.
    fn proven<T>(
        &self,
        of: Digest,
        engine: Digest,
        read: impl FnOnce(&mut blake3::Hasher, File) -> std::io::Result<T>,
    ) -> Option<(PathBuf, T)> {
        let path = self.kept(of, engine)?;
        let mut prover = prover(&self.key()?, of, engine);
        let opened = (|| {
            let Some(proof) = files::read_limited(&proof_of(&path), PROOF_BYTES)? else {
                return Ok(None);
            };
            Ok::<_, std::io::Error>(Some((proof, read(&mut prover, File::open(&path)?)?)))
        })();
        let (proof, made) = match opened {
            Ok(opened) => opened?,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a compiled component cannot be read and is made anew");
                return None;
            }
        };
        // Hashes are compared in constant time.
        let is_proven = proof.try_into().is_ok_and(|proof: [u8; PROOF_BYTES]| {
            prover.finalize() == blake3::Hash::from_bytes(proof)
        });
        if !is_proven {
            tracing::warn!(file = %path.display(), "a compiled component was changed since it was made, and is made anew");
            return None;
        }
        Some((path, made))
    }

    fn write(&self, path: &Path, of: Digest, engine: Digest, code: &[u8]) -> std::io::Result<()> {
        let Some(key) = self.key() else { return Ok(()) };
        let proof = prover(&key, of, engine).update(code).finalize();
        // Code without its proof is as good as none, and code with another's is found out.
        files::write_cached(path, code)?;
        files::write_cached(&proof_of(path), proof.as_bytes())
    }

    /// The key, read or made once; `None` where nothing is kept.
    fn key(&self) -> Option<[u8; KEY_BYTES]> {
        let folder = self.folder.as_ref()?;
        *self.key.get_or_init(|| match read_key(folder) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "compiled components cannot be kept, and are made at each start");
                None
            }
        })
    }
}

/// Proves code that was made from a component for an engine: the key is of both, and of nothing else.
fn prover(key: &[u8; KEY_BYTES], of: Digest, engine: Digest) -> blake3::Hasher {
    let names = [*of.as_bytes(), *engine.as_bytes()].concat();
    blake3::Hasher::new_keyed(blake3::keyed_hash(key, &names).as_bytes())
}

/// Where the proof of some code is.
fn proof_of(path: &Path) -> PathBuf {
    path.with_extension("proof")
}

/// The folder's key, made if there is none. A file of another length is none.
fn read_key(folder: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join("key");
    let there = files::read_limited(&path, KEY_BYTES).ok().flatten();
    if let Some(key) = there.and_then(|bytes| bytes.try_into().ok()) {
        return Ok(key);
    }
    let key = modunest_runtime::random::bytes();
    let aside = files::aside(&path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(&key)?;
    fs::rename(&aside, &path)?;
    Ok(key)
}

/// A component's bytes, if they are what the file list says.
fn read_proven(source: &Source) -> Result<Vec<u8>, LoadError> {
    let Source { path, record } = source;
    let io = |source: std::io::Error| LoadError::Io { path: path.clone(), source };
    let bytes = files::read_limited(path, COMPONENT_MAX_BYTES)
        .map_err(io)?
        .ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
    let found = Digest::of(&bytes);
    if found != record.sha256 {
        return Err(LoadError::Changed { path: path.clone(), expected: record.sha256, found });
    }
    Ok(bytes)
}

/// Maps what [`Cache::sealed`] answered, in a runner, or what [`Cache::proven`] has read, from
/// the file itself: the parts of it that nobody changes are one copy for all who map it, and
/// memories begin with its pages.
pub(super) fn map_file(engine: &Engine, code: &impl AsRawFd) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // SAFETY: the content was made by `precompile_component` of this program, and is sealed, or
    // carries a proof by the agent's key and is in a folder where the agent alone may write.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Maps machine code that was compiled just now.
fn map(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code comes from `precompile_component` of this program.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::engine;
    use super::super::tests::probe;
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_compiled_is_used_again_and_what_was_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let compiled = folder.path().join("compiled");
        let runtime = Runtime::new(&engine::config(), None).unwrap();
        let source = probe(folder.path());
        Cache::new(Some(compiled.clone())).component(&runtime, &source).unwrap();
        let [code, _, key] = &names(&compiled)[..] else { panic!("{:?}", names(&compiled)) };
        assert_eq!(key, "key");
        let code = compiled.join(code);
        let good = fs::read(&code).unwrap();

        // The component itself is not read again.
        fs::rename(&source.path, folder.path().join("away")).unwrap();
        let cache = Cache::new(Some(compiled.clone()));
        assert!(cache.component(&runtime, &source).is_ok());

        // Anything but the bytes that were written is made anew, which needs the component.
        let mut damaged = good.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for bad in [&damaged[..], &good[..good.len() / 2], b""] {
            fs::write(&code, bad).unwrap();
            let refused = Cache::new(Some(compiled.clone())).component(&runtime, &source);
            assert!(matches!(refused, Err(LoadError::Io { .. })));
        }
        fs::write(&code, &good).unwrap();
        for bad in [&[0; PROOF_BYTES][..], b""] {
            fs::write(proof_of(&code), bad).unwrap();
            let refused = Cache::new(Some(compiled.clone())).component(&runtime, &source);
            assert!(matches!(refused, Err(LoadError::Io { .. })));
        }
        fs::remove_file(compiled.join("key")).unwrap();
        let other_key = Cache::new(Some(compiled.clone())).component(&runtime, &source);
        assert!(matches!(other_key, Err(LoadError::Io { .. })));

        // Another component's code does not pass for this one's.
        fs::rename(folder.path().join("away"), &source.path).unwrap();
        cache.component(&runtime, &source).unwrap();
        let mut other = source.clone();
        other.record.sha256 = Digest::of(b"other");
        let name = code.file_name().unwrap().to_str().unwrap();
        let engine_name = name.split_once('-').unwrap().1;
        let other_code = compiled.join(format!("{}-{engine_name}", other.record.sha256));
        fs::copy(&code, &other_code).unwrap();
        fs::copy(proof_of(&code), proof_of(&other_code)).unwrap();
        let refused = cache.component(&runtime, &other);
        assert!(matches!(refused, Err(LoadError::Changed { .. })));

        cache.retain(|digest| digest == source.record.sha256).unwrap();
        assert_eq!(names(&compiled).len(), 3);
        cache.retain(|_| false).unwrap();
        assert_eq!(names(&compiled), ["key"]);
    }
}
