//! What must not be published, and what the publisher is told.

use modunest_core::archive::Archive;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::{Code, Problem};
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_tlog::SigningKey;
use serde_json::json;

use crate::package::{NO_ENTRY, Package, files, manifest, of_archive, of_files, package};
use crate::registry::{Publisher, Registry};

const PLUGIN: &str = "demo/markdown";

/// Publishes what must be rejected after the upload.
async fn rejected(registry: &Registry, publisher: &Publisher, package: &Package) -> Problem {
    let view = registry.publish(publisher, package).await;
    assert_eq!(view.state, State::Rejected, "{view:?}");
    let archive = Digest::of(&package.archive);
    assert!(
        registry.object(ObjectKey::Blob(archive)).await.is_none(),
        "a rejected archive is public"
    );
    assert!(registry.plugin_state(PLUGIN).await.releases.is_empty());
    let problem = view.rejection.unwrap();
    assert_eq!(problem.trace_id.len(), 32);
    problem
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_that_attack() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let toml = manifest(PLUGIN, "1.0.0");
    let good = of_files(&toml, files(&toml, crate::package::LIBRARY), Link::FIRST);
    let list = good.release.builds[0].files;

    let parent = replaced(&good.archive, b"README.md", b"../../e.m");
    let problem =
        rejected(&registry, &publisher, &of_archive(&toml, parent, list, Link::FIRST)).await;
    assert_eq!(problem.code, Code::InvalidArchive);
    assert!(problem.detail.contains("../../e.m"), "{problem:?}");

    let duplicate = replaced(&good.archive, b"LICENSE", b"license");
    let mut many = files(&toml, crate::package::LIBRARY);
    many.push(modunest_core::archive::PackFile {
        name: "COPYING".into(),
        content: b"x".to_vec(),
        executable: false,
    });
    let many = of_files(&toml, many, Link::FIRST);
    let twice = replaced(&many.archive, b"COPYING", b"License");
    let problem =
        rejected(&registry, &publisher, &of_archive(&toml, twice, list, Link::FIRST)).await;
    assert_eq!(problem.code, Code::InvalidArchive);
    assert!(problem.detail.contains("same file"), "{problem:?}");

    let mut trailing = good.archive.clone();
    trailing.push(0);
    let problem =
        rejected(&registry, &publisher, &of_archive(&toml, trailing, list, Link::FIRST)).await;
    assert_eq!(problem.code, Code::InvalidArchive);

    // Renamed: a good archive, but not the declared files.
    let problem =
        rejected(&registry, &publisher, &of_archive(&toml, duplicate, list, Link::FIRST)).await;
    assert_eq!(problem.code, Code::DigestMismatch);

    let view = registry.publish_ok(&publisher, &good).await;
    assert_eq!(view.attempt, 1);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_and_libraries_that_do_not_fit() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let toml = manifest(PLUGIN, "1.0.0");

    // The archive holds the manifest of another version.
    let other =
        of_files(&toml, files(&manifest(PLUGIN, "2.0.0"), crate::package::LIBRARY), Link::FIRST);
    let problem = rejected(&registry, &publisher, &other).await;
    assert_eq!(problem.code, Code::InvalidManifest);

    // The statement claims what the manifest does not say.
    let mut claims = of_files(&toml, files(&toml, crate::package::LIBRARY), Link::FIRST);
    claims.release.capabilities.push("random:secure".into());
    let problem = rejected(&registry, &publisher, &claims).await;
    assert_eq!(problem.code, Code::InvalidManifest);
    assert!(problem.detail.contains("capabilities"), "{problem:?}");

    // An unknown field, with its place.
    let unknown = toml.replace("license =", "licence = \"x\"\nlicense =");
    let mut package = of_files(&toml, files(&unknown, crate::package::LIBRARY), Link::FIRST);
    package.release.manifest = Digest::of(unknown.as_bytes());
    let problem = rejected(&registry, &publisher, &package).await;
    assert_eq!(problem.code, Code::InvalidManifest);
    assert!(problem.detail.contains("plugin.toml:6:1"), "{problem:?}");
    assert_eq!(problem.errors.len(), 1);

    let mut no_readme = files(&toml, crate::package::LIBRARY);
    no_readme.remove(1);
    let problem = rejected(&registry, &publisher, &of_files(&toml, no_readme, Link::FIRST)).await;
    assert!(problem.detail.contains("README.md"), "{problem:?}");

    let problem =
        rejected(&registry, &publisher, &of_files(&toml, files(&toml, NO_ENTRY), Link::FIRST))
            .await;
    assert_eq!(problem.code, Code::ScanRejected);
    let mut no_library = files(&toml, crate::package::LIBRARY);
    no_library.remove(3);
    let problem = rejected(&registry, &publisher, &of_files(&toml, no_library, Link::FIRST)).await;
    assert_eq!(problem.code, Code::InvalidArchive);
    assert!(problem.detail.contains("lib/plugin.so"), "{problem:?}");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_refused_at_once() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package(PLUGIN, "1.0.0", Link::FIRST);
    let good = Registry::publish_body(&package.sign(&publisher.key));
    let code = async |token: Option<&str>, body: &serde_json::Value| {
        registry.refused("POST", "/v1/releases", token, Some(body)).await.code
    };
    let admin = Some(registry.admin.as_str());

    assert_eq!(code(None, &good).await, Code::Unauthenticated);
    assert_eq!(code(Some("mnt_AAAA"), &good).await, Code::Unauthenticated);
    let manage = registry.token("admin", &["manage"]).await;
    assert_eq!(code(Some(&manage), &good).await, Code::Forbidden);
    registry
        .ok::<serde_json::Value>(
            "POST",
            "/v1/users",
            &registry.admin,
            Some(&json!({"user": "mallory"})),
        )
        .await;
    let mallory = registry.token("mallory", &["publish", "manage"]).await;
    assert_eq!(code(Some(&mallory), &good).await, Code::Forbidden);

    let stranger = SigningKey::from_seed("demo".parse().unwrap(), &[6; 32]);
    assert_eq!(
        code(admin, &Registry::publish_body(&package.sign(&stranger))).await,
        Code::InvalidSignature
    );
    let text = good["statement"].as_str().unwrap().replace("1.0.0", "1.0.1");
    assert_eq!(code(admin, &json!({"statement": text})).await, Code::InvalidSignature);
    assert_eq!(code(admin, &json!({"statement": "x"})).await, Code::InvalidStatement);
    let long = format!("modunest/release/v1\n{}\n\n", "x".repeat(9_000));
    assert_eq!(code(admin, &json!({"statement": long})).await, Code::TooLarge);
    assert_eq!(code(admin, &json!({"statement": "x".repeat(70_000)})).await, Code::TooLarge);
    assert_eq!(code(admin, &json!({"statement": text, "surprise": 1})).await, Code::InvalidRequest);

    let later = Link { sequence: 2, previous: Some(Digest::of(b"x")) };
    let package = crate::package::package(PLUGIN, "1.0.0", later);
    assert_eq!(
        code(admin, &Registry::publish_body(&package.sign(&publisher.key))).await,
        Code::ChainConflict
    );

    // 50 MiB and a byte is refused while the statement is read, before any URL is given.
    let oversize = good["statement"].as_str().unwrap();
    let declared = format!(
        "\"size_bytes\":{}",
        crate::package::package(PLUGIN, "1.0.0", Link::FIRST).archive.len()
    );
    let oversize = oversize.replace(&declared, "\"size_bytes\":52428801");
    assert_eq!(code(admin, &json!({"statement": oversize})).await, Code::InvalidStatement);
    assert!(Archive::open(&[]).is_err());

    // A name that looks like one that is taken.
    registry
        .open(
            &publisher,
            &crate::package::package("demo/modern", "1.0.0", Link::FIRST).sign(&publisher.key),
        )
        .await;
    let alike = crate::package::package("demo/modem", "1.0.0", Link::FIRST);
    assert_eq!(
        code(admin, &Registry::publish_body(&alike.sign(&publisher.key))).await,
        Code::NameTaken
    );
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_methods() {
    let registry = Registry::start_silent().await;
    let problem = registry.refused("GET", "/v1/nothing", None, None).await;
    assert_eq!(problem.code, Code::NotFound);
    let problem = registry.refused("PATCH", "/v1/releases", None, None).await;
    assert_eq!(problem.code, Code::MethodNotAllowed);
    let token = Some(registry.admin.as_str());
    for session in ["x".repeat(32), "0".repeat(32)] {
        let problem =
            registry.refused("GET", &format!("/v1/sessions/{session}"), token, None).await;
        assert_eq!(problem.code, Code::NotFound);
    }
    let problem = registry.refused("GET", "/v1/orgs/UPPER", token, None).await;
    assert_eq!(problem.code, Code::InvalidName);
    assert_eq!(registry.call("GET", "/healthz", None, None).await.0, 200);
    assert_eq!(registry.call("GET", "/readyz", None, None).await.0, 200);
    // No path that writes is open.
    for (method, path) in [
        ("POST", "/v1/releases"),
        ("DELETE", "/v1/sessions/00000000000000000000000000000000"),
        ("POST", "/v1/statements"),
        ("POST", "/v1/users"),
        ("POST", "/v1/tokens"),
        ("DELETE", "/v1/tokens/0123456789ab"),
        ("POST", "/v1/orgs"),
        ("PUT", "/v1/orgs/demo/members/admin"),
        ("DELETE", "/v1/orgs/demo/members/admin"),
        ("POST", "/v1/orgs/demo/keys"),
        ("POST", "/v1/orgs/demo/keys/00000000/rotate"),
        ("POST", "/v1/orgs/demo/keys/00000000/revoke"),
        ("POST", "/v1/plugins/demo/markdown/quarantine"),
        ("POST", "/v1/plugins/demo/markdown/trust"),
    ] {
        let problem = registry.refused(method, path, None, None).await;
        assert_eq!(problem.code, Code::Unauthenticated, "{method} {path}");
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_names_the_trace_of_the_publish_request() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let toml = manifest(PLUGIN, "1.0.0");
    let package = of_files(&toml, files(&toml, NO_ENTRY), Link::FIRST);
    let context = modunest_runtime::trace::root();
    let signed = package.sign(&publisher.key);
    let opened =
        modunest_runtime::trace::scope(context, "test", registry.open(&publisher, &signed)).await;
    assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
    let view = registry.follow(&publisher, opened.session.unwrap()).await;
    assert_eq!(view.rejection.unwrap().trace_id, context.trace_id());
    registry.stop().await;
}
