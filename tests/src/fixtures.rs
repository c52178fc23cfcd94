//! Plugins to publish: compiled from C in a moment, packed and described as `modunest` does.

use std::path::Path;
use std::process::Command;

use modunest_core::archive::{self, Archive, MANIFEST_NAME, PackFile};
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::relation::{BuildTarget, NATIVE_ABI};
use modunest_core::scan::{self, LIBRARY_NAME};
use modunest_core::statement::{Build, Link, Release};

use crate::process::run;

/// A plugin that is ready to be published.
#[derive(Clone, Debug)]
pub struct Package {
    /// What its manifest says.
    pub manifest: Manifest,
    /// Digest of the manifest's bytes.
    pub manifest_digest: Digest,
    /// The archive.
    pub archive: Vec<u8>,
    /// What a release says of the archive.
    pub build: Build,
}

impl Package {
    /// The release of the package at a place in its plugin's chain.
    pub fn release(&self, link: Link) -> Release {
        Release::declared_by(&self.manifest, self.manifest_digest, link, vec![self.build.clone()])
    }

    /// The same package with another archive, as far as a publisher can tell from outside: its
    /// size and hash are right, whatever is in it.
    #[must_use]
    pub fn with_archive(&self, archive: Vec<u8>) -> Package {
        let build = Build {
            archive: Digest::of(&archive),
            size_bytes: archive.len() as u64,
            ..self.build.clone()
        };
        Package { archive, build, ..self.clone() }
    }
}

/// A plugin to be.
#[derive(Clone, Debug)]
pub struct Plugin {
    name: String,
    version: String,
    sections: String,
    library: Library,
    files: Vec<PackFile>,
}

/// What a plugin does.
#[derive(Clone, Debug)]
enum Library {
    /// `plugins/answer.c` with these macros.
    C(Vec<(&'static str, String)>),
    /// A library that is there.
    Bytes(Vec<u8>),
}

impl Plugin {
    /// A plugin without any relation to another. It answers with its name and version.
    pub fn new(name: &str, version: &str) -> Plugin {
        Plugin {
            name: name.to_owned(),
            version: version.to_owned(),
            sections: String::new(),
            library: Library::C(vec![("ANSWER", format!("{name} {version}"))]),
            files: Vec::new(),
        }
    }

    /// With further sections of the manifest.
    #[must_use]
    pub fn section(mut self, text: &str) -> Plugin {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// Needs another plugin.
    #[must_use]
    pub fn needs(mut self, plugin: &str, requirement: &str) -> Plugin {
        let line = format!("\"{plugin}\" = \"{requirement}\"\n");
        match self.sections.find("[dependencies]\n") {
            Some(at) => self.sections.insert_str(at + "[dependencies]\n".len(), &line),
            None => self.sections.insert_str(0, &format!("[dependencies]\n{line}")),
        }
        self
    }

    /// Exports the service `say`.
    #[must_use]
    pub fn says(self) -> Plugin {
        self.section("[[service]]\nname = \"say\"\nversion = \"1.0.0\"")
    }

    /// Needs another plugin and adds what it says to every answer.
    #[must_use]
    pub fn asks(mut self, plugin: &str, requirement: &str) -> Plugin {
        if let Library::C(macros) = &mut self.library {
            macros.push(("ASK", plugin.to_owned()));
        }
        self.needs(plugin, requirement)
            .section(&format!("[[import]]\nplugin = \"{plugin}\"\nservice = \"say\""))
    }

    /// Answers at a path.
    #[must_use]
    pub fn route(self, path: &str) -> Plugin {
        self.section(&format!("[[route]]\npath = \"{path}\"\nmethods = [\"GET\"]"))
    }

    /// Cannot be made, for this reason.
    #[must_use]
    pub fn fails(mut self, reason: &str) -> Plugin {
        if let Library::C(macros) = &mut self.library {
            macros.push(("FAIL_CREATE", reason.to_owned()));
        }
        self
    }

    /// With a library that is there, instead of one in C.
    #[must_use]
    pub fn library(mut self, bytes: Vec<u8>) -> Plugin {
        self.library = Library::Bytes(bytes);
        self
    }

    /// With another file.
    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Plugin {
        self.files.push(PackFile {
            name: name.to_owned(),
            content: content.to_owned(),
            executable: false,
        });
        self
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        format!(
            "[plugin]\nname = \"{}\"\nversion = \"{}\"\n\
             description = \"A plugin for the end-to-end tests.\"\n\
             authors = [\"The Modu-Nest authors\"]\nlicense = \"MIT\"\n\n\
             [host]\nabi = 1\n\n{}\n[build]\nnative = {{ library = \"answer\" }}\n",
            self.name, self.version, self.sections
        )
    }

    /// Compiles and packs it.
    ///
    /// # Panics
    /// When the compiler or a rule refuses it.
    pub fn pack(&self) -> Package {
        let manifest = self.manifest();
        self.pack_with(&manifest, &manifest)
    }

    /// As [`Plugin::pack`], with a release that says what `declared` says, and an archive that
    /// holds `packed`, which need not be a manifest.
    ///
    /// # Panics
    /// When the compiler or a rule refuses it.
    pub fn pack_with(&self, declared: &str, packed: &str) -> Package {
        let library = match &self.library {
            Library::C(macros) => compile(macros),
            Library::Bytes(bytes) => bytes.clone(),
        };
        let target = BuildTarget::Native {
            target: format!("{}-unknown-linux-gnu", std::env::consts::ARCH).parse().unwrap(),
            libc: scan::glibc_floor(&library).unwrap(),
            abi: NATIVE_ABI,
        };
        let file = |name: &str, content: Vec<u8>, executable| PackFile {
            name: name.to_owned(),
            content,
            executable,
        };
        let mut files = vec![
            file(MANIFEST_NAME, packed.as_bytes().to_vec(), false),
            file(LIBRARY_NAME, library, true),
            file("LICENSE", b"MIT\n".to_vec(), false),
        ];
        files.extend(self.files.clone());
        let archive = archive::pack(files).unwrap();
        let build = Build {
            target,
            archive: Digest::of(&archive),
            size_bytes: archive.len() as u64,
            files: Archive::open(&archive).unwrap().file_list().unwrap().digest(),
        };
        Package {
            manifest: Manifest::parse(declared).unwrap_or_else(|e| panic!("{e}\n{declared}")),
            manifest_digest: Digest::of(packed.as_bytes()),
            archive,
            build,
        }
    }
}

/// Compiles `plugins/answer.c`.
fn compile(macros: &[(&str, String)]) -> Vec<u8> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("plugin.so");
    let mut command = Command::new("cc");
    command
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-s", "-shared", "-fPIC", "-I"])
        .arg(tests.join("../sdk/include"))
        .args(macros.iter().map(|(name, value)| format!("-D{name}=\"{value}\"")))
        .arg("-o")
        .arg(&library)
        .arg(tests.join("plugins/answer.c"));
    let _compiled = run(&mut command).good();
    std::fs::read(&library).unwrap()
}

/// Replaces every occurrence of some bytes by as many others: how a good archive turns bad
/// without losing its form.
///
/// # Panics
/// When there is none, or the lengths differ.
pub fn patch(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut patched = bytes.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            patched[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "there is nothing to patch");
    patched
}

/// Changes a field of one file's header in a zip archive's central directory, and the same
/// field of its local header where that has one (APPNOTE.TXT, sections 4.3.7 and 4.3.12).
///
/// # Panics
/// When the archive has no such file.
pub fn patch_entry(archive: &[u8], name: &str, field: Field, value: &[u8]) -> Vec<u8> {
    let (central, local) = headers(archive, name);
    let mut patched = archive.to_vec();
    let mut write = |at: usize| patched[at..at + value.len()].copy_from_slice(value);
    match field {
        Field::Size => {
            write(central + 24);
            write(local + 22);
        }
        Field::ExternalAttributes => write(central + 38),
    }
    patched
}

/// A field of an archive entry.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// Unpacked size, 4 bytes.
    Size,
    /// Mode and attributes, 4 bytes; the central directory's alone.
    ExternalAttributes,
}

/// Where an entry's central and local headers start.
fn headers(archive: &[u8], name: &str) -> (usize, usize) {
    let number = |at: usize| {
        usize::from(archive[at])
            | usize::from(archive[at + 1]) << 8
            | usize::from(archive[at + 2]) << 16
    };
    for at in 0..archive.len() - 46 {
        if archive[at..].starts_with(b"PK\x01\x02")
            && archive[at + 46..].starts_with(name.as_bytes())
        {
            return (at, number(at + 42));
        }
    }
    panic!("the archive has no {name}")
}
