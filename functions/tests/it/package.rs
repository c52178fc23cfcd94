//! Archives and statements to publish.

use modunest_core::archive::{Archive, PackFile, pack};
use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::relation::BuildTarget;
use modunest_core::statement::{Build, Link, Release, SignedStatement, Statement};
use modunest_tlog::SigningKey;

/// A small shared object with the entry function, and one without it.
pub const LIBRARY: &[u8] = include_bytes!("../../../fuzz/corpus/scan/clean-minimal.so");
pub const NO_ENTRY: &[u8] = include_bytes!("../../../fuzz/corpus/scan/rejected-no-entry.so");

pub struct Package {
    pub archive: Vec<u8>,
    pub release: Release,
    pub manifest: String,
}

pub fn manifest(plugin: &str, version: &str) -> String {
    format!(
        "[plugin]\nname = \"{plugin}\"\nversion = \"{version}\"\ndescription = \"A plugin that only tests publish\"\n\
         authors = [\"Tess Example\"]\nlicense = \"MIT\"\nreadme = \"README.md\"\n\n[host]\nabi = 1\n\n\
         [build]\nnative = {{ library = \"minimal\" }}\n"
    )
}

pub fn files(manifest: &str, library: &[u8]) -> Vec<PackFile> {
    let file = |name: &str, content: &[u8]| PackFile {
        name: name.to_owned(),
        content: content.to_vec(),
        executable: false,
    };
    vec![
        file("plugin.toml", manifest.as_bytes()),
        file("README.md", b"# A plugin\n"),
        file("LICENSE", b"MIT\n"),
        file("lib/plugin.so", library),
    ]
}

pub fn package(plugin: &str, version: &str, link: Link) -> Package {
    let manifest = manifest(plugin, version);
    // Something of its own in every archive, so that none is there already.
    let mut files = files(&manifest, LIBRARY);
    files[2].content = format!("MIT, for {plugin} {version}\n").into_bytes();
    of_files(&manifest, files, link)
}

pub fn of_files(manifest: &str, files: Vec<PackFile>, link: Link) -> Package {
    let archive = pack(files).unwrap();
    let list = Archive::open(&archive).unwrap().file_list().unwrap().digest();
    of_archive(manifest, archive, list, link)
}

pub fn of_archive(manifest: &str, archive: Vec<u8>, files: Digest, link: Link) -> Package {
    let build = Build {
        target: BuildTarget::Native {
            target: "x86_64-unknown-linux-gnu".parse().unwrap(),
            libc: Some("2.36".parse().unwrap()),
            abi: 1,
        },
        archive: Digest::of(&archive),
        size_bytes: archive.len() as u64,
        files,
    };
    let parsed = Manifest::parse(manifest).unwrap_or_else(|error| panic!("{error}"));
    let digest = Digest::of(manifest.as_bytes());
    let release = Release::declared_by(&parsed, digest, link, vec![build]);
    Package { archive, release, manifest: manifest.to_owned() }
}

impl Package {
    pub fn sign(&self, key: &SigningKey) -> SignedStatement {
        Statement::Release(std::sync::Arc::new(self.release.clone())).sign(key).unwrap()
    }
}
