//! A release from the first request to what readers find.

use modunest_core::archive::Archive;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{Link, VerdictOutcome};
use serde_json::Value;

use crate::package::{files, manifest, of_files, package};
use crate::registry::Registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_becomes_visible() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let signed = package.sign(&publisher.key);

    let opened = registry.open(&publisher, &signed).await;
    assert_eq!(opened.state, State::Uploading);
    let [upload] = &opened.uploads[..] else { panic!("{opened:?}") };
    let archive = Digest::of(&package.archive);
    assert_eq!((upload.archive, upload.size_bytes), (archive, package.archive.len() as u64));
    assert_eq!(upload.method, "PUT");
    // Nothing is visible before the bytes are checked.
    assert!(registry.plugin_state("demo/markdown").await.releases.is_empty());

    assert_eq!(registry.upload(upload, &package.archive).await, 200);
    let id = opened.session.unwrap();
    let view = registry.follow(&publisher, id).await;
    assert_eq!(view.state, State::Published, "{view:?}");
    assert!(view.epoch.unwrap() <= registry.head().await.epoch);

    let state = registry.plugin_state("demo/markdown").await;
    let release = &state.releases[&"1.0.0".parse().unwrap()];
    assert_eq!(*release.release, package.release);
    assert_eq!(release.statement, signed.digest());
    assert_eq!(release.verdict, Some((VerdictOutcome::Clean, view.report.unwrap())));
    // Behind the key of the organisation, and in front of the verdict.
    assert_eq!((release.position, registry.log().await.len()), (1, 3));
    let stored = registry.object(ObjectKey::Blob(archive)).await.unwrap();
    assert_eq!(stored, package.archive);
    let files = Archive::open(&stored).unwrap().file_list().unwrap();
    assert_eq!(files.digest(), package.release.builds[0].files);
    let toml = registry.object(ObjectKey::Blob(package.release.manifest)).await.unwrap();
    assert_eq!(toml, package.manifest.as_bytes());
    assert!(registry.object(ObjectKey::Blob(Digest::of(b"# A plugin\n"))).await.is_some());
    let report = registry.object(ObjectKey::Report(view.report.unwrap())).await.unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["statement"], signed.digest().to_hex());
    assert_eq!(report["builds"][0]["outcome"], "clean");

    // The upload is removed a moment after the end.
    for _ in 0..100 {
        if registry.staged().await.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(registry.staged().await, Vec::<String>::new());
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_again_and_other_bytes() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let first = package("demo/markdown", "1.0.0", Link::FIRST);
    let signed = first.sign(&publisher.key);

    // Before the upload: the same session, with a URL again.
    let opened = registry.open(&publisher, &signed).await;
    let again = registry.open(&publisher, &signed).await;
    assert_eq!((again.session, again.uploads.len()), (opened.session, 1));

    let mut other = files(&manifest("demo/markdown", "1.0.0"), crate::package::LIBRARY);
    other[1].content = b"# Another\n".to_vec();
    let other = of_files(&first.manifest, other, Link::FIRST);
    let conflict = Registry::publish_body(&other.sign(&publisher.key));
    let problem =
        registry.refused("POST", "/v1/releases", Some(&publisher.token), Some(&conflict)).await;
    assert_eq!(problem.code, Code::VersionConflict);

    let view = registry.publish_ok(&publisher, &first).await;
    assert_eq!(Some(view.session), opened.session);
    let before = registry.head().await;
    let again = registry.open(&publisher, &signed).await;
    assert_eq!(
        (again.session, again.state, again.uploads.len()),
        (opened.session, State::Published, 0)
    );
    let problem =
        registry.refused("POST", "/v1/releases", Some(&publisher.token), Some(&conflict)).await;
    assert_eq!(problem.code, Code::VersionConflict);
    assert_eq!(registry.head().await, before);
    assert!(registry.object(ObjectKey::Blob(Digest::of(&other.archive))).await.is_none());
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_archive_needs_no_upload_and_a_dry_run_changes_nothing() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let first = package("demo/markdown", "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &first).await;

    // The same archive cannot serve another version: its manifest says 1.0.0.
    let mut second = package("demo/markdown", "1.0.1", first.sign(&publisher.key).next_link());
    let mut body = Registry::publish_body(&second.sign(&publisher.key));
    body["dry_run"] = true.into();
    let dry: modunest_core::api::PublishResponse =
        registry.ok("POST", "/v1/releases", &publisher.token, Some(&body)).await;
    assert_eq!((dry.session, dry.uploads.len(), dry.state), (None, 0, State::Created));
    second.release.builds = first.release.builds.clone();
    let opened = registry.open(&publisher, &second.sign(&publisher.key)).await;
    assert_eq!((opened.state, opened.uploads.len()), (State::Uploaded, 0));
    let view = registry.follow(&publisher, opened.session.unwrap()).await;
    assert_eq!(view.rejection.unwrap().code, Code::InvalidManifest);

    // A rejected version is free again.
    let second = package("demo/markdown", "1.0.1", first.sign(&publisher.key).next_link());
    let view = registry.publish_ok(&publisher, &second).await;
    assert_ne!(Some(view.session), opened.session);
    assert_eq!(registry.plugin_state("demo/markdown").await.releases.len(), 2);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_taken_once_and_only_as_declared() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let opened = registry.open(&publisher, &package.sign(&publisher.key)).await;
    let upload = &opened.uploads[0];
    let mut wrong = package.archive.clone();
    wrong[100] ^= 1;
    assert_eq!(registry.upload(upload, &wrong).await, 400);
    assert_eq!(registry.upload(upload, &package.archive[1..]).await, 403);
    assert_eq!(registry.staged().await, Vec::<String>::new());
    assert_eq!(registry.upload(upload, &package.archive).await, 200);
    assert_eq!(registry.upload(upload, &package.archive).await, 412);

    // Uploaded, and the event still on its way: nothing is asked for again.
    let again = registry.open(&publisher, &package.sign(&publisher.key)).await;
    assert_eq!(again.uploads.len(), 0);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_may_repeat_come_late_and_out_of_order() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let opened = registry.open(&publisher, &package.sign(&publisher.key)).await;
    let id = opened.session.unwrap();
    let event = Registry::event(&format!("upload/{id}/{}", opened.uploads[0].archive));
    let stranger = Registry::event(&format!("upload/{id}/{}", Digest::of(b"not asked for")));
    let marker = Registry::event(&format!("ready/{id}"));

    // Before anything arrived.
    registry.functions.finalize(&marker).await.unwrap();
    registry.functions.finalize(&stranger).await.unwrap();
    assert_eq!(registry.session(&publisher, id).await.state, State::Uploading);
    assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
    let all = (0..8).map(|_| registry.functions.finalize(&event));
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    let view = registry.session(&publisher, id).await;
    assert_eq!((view.state, view.attempt), (State::Published, 1));
    let epoch = registry.head().await.epoch;
    for late in
        [&event, &marker, &stranger, &Registry::event("upload/x/y"), &serde_json::json!({"no": 1})]
    {
        registry.functions.finalize(late).await.unwrap();
    }
    assert_eq!(registry.head().await.epoch, epoch);
    let file = registry.plugin_state("demo/markdown").await;
    assert_eq!(file.next.sequence, 2);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_can_be_cancelled_and_expires() {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/markdown", "1.0.0", Link::FIRST);
    let signed = package.sign(&publisher.key);
    let opened = registry.open(&publisher, &signed).await;
    let path = format!("/v1/sessions/{}", opened.session.unwrap());
    let view: modunest_core::api::SessionView =
        registry.ok("DELETE", &path, &publisher.token, None).await;
    assert_eq!(view.state, State::Cancelled);
    // The URL outlives the session; what comes through it is removed.
    assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
    let event = Registry::event(&registry.staged().await[0]);
    registry.functions.finalize(&event).await.unwrap();
    assert_eq!(registry.staged().await, Vec::<String>::new());

    let second = registry.open(&publisher, &signed).await;
    assert_ne!(second.session, opened.session);
    registry.move_clock(std::time::Duration::from_secs(14 * 60));
    assert_eq!(registry.functions.sweep().await.unwrap().expired, 0);
    registry.move_clock(std::time::Duration::from_secs(2 * 60));
    assert_eq!(registry.functions.sweep().await.unwrap().expired, 1);
    let view = registry.session(&publisher, second.session.unwrap()).await;
    assert_eq!(view.state, State::Expired);
    let problem = registry
        .refused(
            "DELETE",
            &format!("/v1/sessions/{}", second.session.unwrap()),
            Some(&publisher.token),
            None,
        )
        .await;
    assert_eq!(problem.code, Code::SessionState);

    // Everything uploaded and only the event lost: the sweep goes on instead.
    let third = registry.open(&publisher, &signed).await;
    assert_eq!(registry.upload(&third.uploads[0], &package.archive).await, 200);
    registry.move_clock(std::time::Duration::from_secs(16 * 60));
    registry.functions.sweep().await.unwrap();
    registry.functions.sweep().await.unwrap();
    let view = registry.session(&publisher, third.session.unwrap()).await;
    assert_eq!(view.state, State::Published, "{view:?}");
    registry.stop().await;
}
