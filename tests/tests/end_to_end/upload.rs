//! Presigned uploads: what exactly they allow, and what they do not.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use modunest_core::api::{PublishResponse, Upload};
use modunest_core::keys::StagingKey;
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_runtime::aws;
use modunest_tests::client::{Publisher, checksum};
use modunest_tests::fixtures::{Package, Plugin};
use modunest_tests::registry::Registry;

struct Opened {
    registry: Registry,
    publisher: Publisher,
    package: Package,
    answer: PublishResponse,
}

async fn open() -> Opened {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let answer = publisher.open(&publisher.sign(&package, Link::FIRST)).await.unwrap();
    assert_eq!((answer.state, answer.uploads.len()), (State::Uploading, 1));
    Opened { registry, publisher, package, answer }
}

impl Opened {
    fn upload(&self) -> &Upload {
        &self.answer.uploads[0]
    }

    /// The upload is refused, nothing was kept of it, and the right one still works.
    async fn refused(&self, upload: &Upload, bytes: Vec<u8>, status: u16) {
        let answer = self.publisher.upload(upload, bytes).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let session = self.answer.session.unwrap();
        assert_eq!(self.publisher.session(session).await.state, State::Uploading);
    }

    async fn complete(&self) {
        let answer = self.publisher.upload(self.upload(), self.package.archive.clone()).await;
        assert!(answer.status.is_success(), "{answer:?}");
        let view = self.publisher.follow(self.answer.session.unwrap()).await;
        assert_eq!(view.state, State::Published);
    }
}

#[tokio::test]
async fn bytes_of_another_checksum_are_refused() {
    let opened = open().await;
    let mut wrong = opened.package.archive.clone();
    wrong[40] ^= 1;
    opened.refused(opened.upload(), wrong.clone(), 400).await;

    // Declaring the wrong bytes' own checksum breaks the signature.
    let mut upload = opened.upload().clone();
    let digest = modunest_core::digest::Digest::of(&wrong);
    upload.headers.insert("x-amz-checksum-sha256".to_owned(), checksum(&digest));
    opened.refused(&upload, wrong, 403).await;
    opened.complete().await;
}

#[tokio::test]
async fn another_length_is_refused() {
    let opened = open().await;
    let mut longer = opened.package.archive.clone();
    longer.push(0);
    let mut upload = opened.upload().clone();
    upload.headers.insert("content-length".to_owned(), longer.len().to_string());
    opened.refused(&upload, longer, 403).await;
    opened.complete().await;
}

#[tokio::test]
async fn a_url_uploads_once() {
    let opened = open().await;
    opened.complete().await;
    // What was in staging is gone by then or is not: neither may be written over.
    let replayed = opened.publisher.upload(opened.upload(), opened.package.archive.clone()).await;
    let view = opened.publisher.session(opened.answer.session.unwrap()).await;
    assert_eq!(view.state, State::Published, "{replayed:?}");

    let package = Plugin::new("acme/two", "1.0.0").pack();
    let signed = opened.publisher.sign(&package, Link::FIRST);
    let answer = opened.publisher.open(&signed).await.unwrap();
    // Two uploads that race: one is taken, the other is told that something is there.
    let upload = || opened.publisher.upload(&answer.uploads[0], package.archive.clone());
    let (first, second) = tokio::join!(upload(), upload());
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert!(matches!(statuses, [200, 409 | 412]), "{statuses:?}");
}

#[tokio::test]
async fn a_url_is_for_one_key_and_one_method() {
    let opened = open().await;
    let mut elsewhere = opened.upload().clone();
    elsewhere.url = elsewhere.url.replace("/upload/", "/ready/");
    opened.refused(&elsewhere, opened.package.archive.clone(), 403).await;
    let mut read = opened.upload().clone();
    read.method = "GET".to_owned();
    opened.refused(&read, Vec::new(), 403).await;
    opened.complete().await;
}

/// The registry's own URLs live a quarter of an hour, so this one is signed with the same
/// credentials for the same upload, and for a second.
#[tokio::test]
async fn an_expired_url_is_refused() {
    let opened = open().await;
    let secret = std::fs::read_to_string(opened.registry.folder.data().join("s3.secret")).unwrap();
    let s3 = aws::s3(&aws::Settings {
        region: "local".to_owned(),
        access_key_id: "modunest-local".to_owned(),
        secret_access_key: secret.trim().to_owned(),
        session_token: None,
        s3_endpoint: Some(opened.registry.started.s3.to_string()),
        dynamodb_endpoint: None,
        kms_endpoint: None,
    });
    let archive = opened.upload().archive;
    let key = StagingKey::Upload(opened.answer.session.unwrap(), archive);
    let valid_for = Duration::from_secs(1);
    let signed = s3
        .put_object()
        .bucket("modunest-staging")
        .key(key.to_string())
        .content_length(i64::try_from(opened.package.archive.len()).unwrap())
        .checksum_sha256(checksum(&archive))
        .if_none_match("*")
        .presigned(PresigningConfig::expires_in(valid_for).unwrap())
        .await
        .unwrap();
    let upload = Upload { url: signed.uri().to_owned(), ..opened.upload().clone() };
    tokio::time::sleep(valid_for * 2).await;
    opened.refused(&upload, opened.package.archive.clone(), 403).await;
    opened.complete().await;
}

#[tokio::test]
async fn a_session_taken_up_again_gets_a_new_url_for_the_same_upload() {
    let opened = open().await;
    let signed = opened.publisher.sign(&opened.package, Link::FIRST);
    let again = opened.publisher.open(&signed).await.unwrap();
    assert_eq!((again.session, again.state), (opened.answer.session, State::Uploading));
    assert_eq!(again.uploads.len(), 1);
    opened.complete().await;
}

#[tokio::test]
async fn a_cancelled_session_takes_no_upload_further() {
    let opened = open().await;
    let session = opened.answer.session.unwrap();
    let path = format!("/v1/sessions/{session}");
    let cancelled: modunest_core::api::SessionView = opened
        .publisher
        .client
        .answer(reqwest::Method::DELETE, &path, None::<&()>)
        .await
        .value()
        .unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    opened.publisher.upload(opened.upload(), opened.package.archive.clone()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(opened.publisher.session(session).await.state, State::Cancelled);
    // Publishing again opens another session.
    opened.publisher.publish(&opened.package).await;
}
