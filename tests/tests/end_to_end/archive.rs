//! Archives that the gate refuses, after a publisher declared and uploaded them in good order.

use modunest_core::problem::{Code, Problem};
use modunest_core::publish::State;
use modunest_tests::client::Publisher;
use modunest_tests::fixtures::{Field, Package, Plugin, patch, patch_entry};
use modunest_tests::registry::Registry;
use modunest_tests::snapshot::Snapshot;
use modunest_tests::stable::stable;

struct Gate {
    registry: Registry,
    publisher: Publisher,
}

impl Gate {
    async fn start() -> Gate {
        let registry = Registry::start().await;
        let publisher = registry.publisher("acme").await;
        Gate { registry, publisher }
    }

    async fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.registry.started.url, &self.registry.keys().await).await
    }

    /// The package is rejected with this reason, and nothing of it can be seen.
    async fn rejects(&self, package: &Package) -> Problem {
        let before = self.snapshot().await;
        let view = self.publisher.attempt(package).await.unwrap();
        assert_eq!(view.state, State::Rejected);
        let after = self.snapshot().await;
        assert_eq!(after, before);
        let path = modunest_core::keys::ObjectKey::Blob(package.build.archive).path();
        let answer = self.registry.nobody().answer(reqwest::Method::GET, &path, None::<&()>).await;
        assert_eq!(answer.problem().code, Code::NotFound);
        view.rejection.unwrap()
    }
}

fn with_files(names: &[&str]) -> Package {
    let plugin = Plugin::new("acme/one", "1.0.0");
    names.iter().fold(plugin, |plugin, name| plugin.file(name, b"some text, some text\n")).pack()
}

#[tokio::test]
async fn attacks_are_rejected_with_the_rule_and_leave_nothing() {
    let gate = Gate::start().await;
    let one = with_files(&["data/aa.txt"]);
    let two = with_files(&["data/aa.txt", "data/ab.txt"]);
    let archive = |package: &Package, bytes: Vec<u8>| package.with_archive(bytes);
    let symlink = (0o120_777_u32 << 16).to_le_bytes();
    let lying = 5_u32.to_le_bytes();
    let mut cut = one.archive.clone();
    cut.truncate(cut.len() - 1);
    let mut trailing = one.archive.clone();
    trailing.push(b'x');
    let cases = [
        ("parent path", archive(&one, patch(&one.archive, b"data/aa.txt", b"../aa/x.txt"))),
        ("absolute path", archive(&one, patch(&one.archive, b"data/aa.txt", b"/ata/aa.txt"))),
        ("duplicate name", archive(&two, patch(&two.archive, b"data/ab.txt", b"data/aa.txt"))),
        ("colliding name", archive(&two, patch(&two.archive, b"data/ab.txt", b"data/AA.txt"))),
        (
            "symlink",
            archive(
                &one,
                patch_entry(&one.archive, "data/aa.txt", Field::ExternalAttributes, &symlink),
            ),
        ),
        (
            "lying size",
            archive(&one, patch_entry(&one.archive, "data/aa.txt", Field::Size, &lying)),
        ),
        ("cut", archive(&one, cut)),
        ("trailing", archive(&one, trailing)),
        ("no archive", archive(&one, b"PK\x03\x04 is how it begins".to_vec())),
    ];
    let mut shown = String::new();
    for (name, package) in cases {
        let problem = gate.rejects(&package).await;
        assert_eq!(problem.code, Code::InvalidArchive, "{name}: {problem:?}");
        shown.push_str(&format!("{name}: {}\n", problem.detail));
        for error in problem.errors {
            shown.push_str(&format!("  {}: {}\n", error.place, error.rule));
        }
    }
    insta::assert_snapshot!(stable(&shown));
    // The same version, in good order, is welcome after all that.
    gate.publisher.publish(&one).await;
}

#[tokio::test]
async fn the_file_list_must_be_the_declared_one() {
    let gate = Gate::start().await;
    let mut package = with_files(&["data/aa.txt"]);
    package.build.files = modunest_core::digest::Digest::of(b"another list");
    let problem = gate.rejects(&package).await;
    insta::assert_snapshot!(stable(&problem.detail));
}

#[tokio::test]
async fn a_library_that_is_none_is_rejected() {
    let gate = Gate::start().await;
    // Without an entry symbol, though a library; and no library at all.
    let good = Plugin::new("acme/one", "1.0.0").pack();
    let archive = modunest_core::archive::Archive::open(&good.archive).unwrap();
    let library = archive.read(archive.entry(modunest_core::scan::LIBRARY_NAME).unwrap()).unwrap();
    let nameless = patch(&library, b"modunest_plugin_v1", b"modunest_plugin_v9");
    let problem = gate.rejects(&Plugin::new("acme/one", "1.0.0").library(nameless).pack()).await;
    assert_eq!(problem.code, Code::ScanRejected, "{problem:?}");
    insta::assert_snapshot!(stable(&problem.detail));
}
