//! The writer and the reader against each other, and against the `zip` crate.

use std::io::{Cursor, Read as _};

use proptest::prelude::*;

use crate::archive::*;
use crate::digest::Digest;

fn files_strategy() -> impl Strategy<Value = Vec<PackFile>> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (0u8..4, 0usize..200_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    // Up to "m", none of which spells a device of Windows.
    prop::collection::btree_map("[a-mä]{1,3}(/[a-m]{3}){0,2}", (content, any::<bool>()), 1..8)
        .prop_map(|files| {
            files
                .into_iter()
                .map(|(name, (content, executable))| PackFile { name, content, executable })
                .collect()
        })
}

/// Contents by name as the `zip` crate sees them; `None` when it fails anywhere.
fn zip_crate_view(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).ok()?;
        let name = file.name().ok()?.into_owned();
        let mut content = Vec::new();
        file.read_to_end(&mut content).ok()?;
        files.push((name, content));
    }
    Some(files)
}

fn our_view(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let archive = Archive::open(bytes).ok()?;
    archive
        .entries()
        .map(|entry| Some((entry.name().to_owned(), archive.read(entry).ok()?)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn what_pack_writes_comes_back(files in files_strategy()) {
        let bytes = match pack(files.clone()) {
            Ok(bytes) => bytes,
            // Names from the strategy may be file and folder at once.
            Err(PackError::Refused(ArchiveError::FileAndFolder { .. })) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let mut reversed = files.clone();
        reversed.reverse();
        prop_assert_eq!(&pack(reversed).unwrap(), &bytes);
        let archive = Archive::open(&bytes).unwrap();
        let list = archive.file_list().unwrap();
        prop_assert_eq!(list.files().len(), files.len());
        for file in &files {
            let entry = archive.entry(&file.name).unwrap();
            prop_assert_eq!(&archive.read(entry).unwrap(), &file.content);
            prop_assert_eq!(entry.executable(), file.executable);
            prop_assert_eq!(list.get(&file.name).unwrap().sha256, Digest::of(&file.content));
        }
        prop_assert_eq!(zip_crate_view(&bytes), our_view(&bytes));
    }
}

fn sample() -> Vec<u8> {
    let file = |name: &str, content: &[u8]| PackFile {
        name: name.into(),
        content: content.into(),
        executable: name.ends_with(".so"),
    };
    pack(vec![
        file("plugin.toml", b"[plugin]\nname = \"demo/a\"\n"),
        file("lib/plugin.so", &b"\x7fELF and the rest of it ".repeat(9)),
        file("a", b""),
    ])
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Whatever a few changed bytes do: no panic, and never two readings.
    #[test]
    fn mutations(changes in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = sample();
        for (kind, at, value) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] ^= 1 << (value % 8),
                1 => bytes[at] = value,
                2 => bytes.insert(at, value),
                _ => { bytes.remove(at); }
            }
        }
        check_invariants(&bytes);
        if let Some(ours) = our_view(&bytes) {
            prop_assert_eq!(Some(ours), zip_crate_view(&bytes));
        }
    }
}

#[test]
fn every_single_byte_flip_is_harmless() {
    let good = sample();
    let view = our_view(&good).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            if let Some(ours) = our_view(&bytes) {
                assert_eq!(Some(&ours), zip_crate_view(&bytes).as_ref(), "byte {at} bit {bit}");
                assert_eq!(
                    ours.iter().map(|f| &f.1).collect::<Vec<_>>(),
                    view.iter().map(|f| &f.1).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[test]
fn pack_puts_the_manifest_first_and_refuses_what_the_gate_refuses() {
    let bytes = sample();
    let archive = Archive::open(&bytes).unwrap();
    let names: Vec<&str> = archive.entries().map(Entry::name).collect();
    assert_eq!(names, ["plugin.toml", "a", "lib/plugin.so"]);
    assert!(archive.entry("lib/plugin.so").unwrap().executable());
    let file = |name: &str| PackFile { name: name.into(), content: vec![], executable: false };
    for names in [vec!["../a"], vec!["a", "a"], vec!["a", "A"], vec!["a", "a/b"], vec![]] {
        let files = names.into_iter().map(file).collect();
        assert!(matches!(pack(files), Err(PackError::Refused(_))));
    }
}
