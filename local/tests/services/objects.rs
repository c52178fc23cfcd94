//! Copies, listings, removals, buckets.

use aws_sdk_s3::types::{Delete, MetadataDirective, ObjectIdentifier};

use crate::harness::{BUCKET, Harness, code, content_of, status};

#[tokio::test]
async fn copies_keep_bytes_and_headers_and_survive_their_source() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    for size in [100, 100_000] {
        let bytes = content_of("copied", size);
        harness
            .s3
            .put_object()
            .bucket(BUCKET)
            .key("from here")
            .content_type("text/plain")
            .metadata("a", "b")
            .body(bytes.clone().into())
            .send()
            .await
            .unwrap();
        let copy =
            || harness.s3.copy_object().bucket(BUCKET).copy_source(format!("{BUCKET}/from%20here"));
        let copied = copy().key("to/there").send().await.unwrap();
        assert!(copied.copy_object_result().unwrap().e_tag().is_some());
        let replaced = copy()
            .key("replaced")
            .metadata_directive(MetadataDirective::Replace)
            .content_type("x/y");
        replaced.send().await.unwrap();
        let itself = copy().key("from here").send().await.unwrap_err();
        assert_eq!(code(&itself), "InvalidRequest");
        let mismatch =
            copy().key("never").copy_source_if_match("\"other\"").send().await.unwrap_err();
        assert_eq!(status(&mismatch), 412);
        let occupied = copy()
            .key("to/there")
            .customize()
            .mutate_request(|request| drop(request.headers_mut().insert("if-none-match", "*")))
            .send()
            .await
            .unwrap_err();
        assert_eq!(status(&occupied), 412);
        harness.s3.delete_object().bucket(BUCKET).key("from here").send().await.unwrap();
        assert_eq!(harness.get("to/there").await.unwrap(), bytes);
        assert_eq!(harness.get("replaced").await.unwrap(), bytes);
        let head = |key: &str| harness.s3.head_object().bucket(BUCKET).key(key).send();
        let kept = head("to/there").await.unwrap();
        assert_eq!((kept.content_type(), kept.metadata().unwrap().len()), (Some("text/plain"), 1));
        let replaced = head("replaced").await.unwrap();
        assert_eq!((replaced.content_type(), replaced.metadata().unwrap().len()), (Some("x/y"), 0));
        let missing = copy().key("never").send().await.unwrap_err();
        assert_eq!(code(&missing), "NoSuchKey");
        assert_eq!(harness.keys().await, ["replaced", "to/there"]);
    }
    harness.services.shutdown().await.unwrap();
    assert_eq!(crate::uploads::object_files(folder.path()), 2);
}

#[tokio::test]
async fn listings_have_prefixes_groups_and_pages() {
    let harness = Harness::ephemeral().await;
    for key in ["a", "dir/1", "dir/2", "dir/sub/3", "other/4", "z z"] {
        harness.put(key, "x").await;
    }
    let list = || harness.s3.list_objects_v2().bucket(BUCKET);
    let names = |page: &aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output| {
        let keys: Vec<String> =
            page.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
        let groups: Vec<String> =
            page.common_prefixes().iter().map(|group| group.prefix().unwrap().to_owned()).collect();
        (keys, groups)
    };
    let top = list().delimiter("/").send().await.unwrap();
    assert_eq!(names(&top), (vec!["a".into(), "z z".into()], vec!["dir/".into(), "other/".into()]));
    let inside = list().prefix("dir/").delimiter("/").send().await.unwrap();
    assert_eq!(names(&inside), (vec!["dir/1".into(), "dir/2".into()], vec!["dir/sub/".into()]));
    let later = list().start_after("dir/2").send().await.unwrap();
    assert_eq!(names(&later).0, ["dir/sub/3", "other/4", "z z"]);
    let none = list().max_keys(0).send().await.unwrap();
    assert_eq!((none.key_count(), none.is_truncated()), (Some(0), Some(false)));

    let mut all = (Vec::new(), Vec::new());
    let mut pages = list().delimiter("/").max_keys(1).into_paginator().send();
    let mut count = 0;
    while let Some(page) = pages.next().await {
        let (keys, groups) = names(&page.unwrap());
        all.0.extend(keys);
        all.1.extend(groups);
        count += 1;
    }
    assert_eq!((all, count), (names(&top), 4));
    let garbage = list().continuation_token("garbage!").send().await.unwrap_err();
    assert_eq!(code(&garbage), "InvalidArgument");
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_keys_are_removed_at_once() {
    let harness = Harness::ephemeral().await;
    for key in ["a", "b", "c"] {
        harness.put(key, "x").await;
    }
    let named = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder()
        .objects(named("a"))
        .objects(named("b"))
        .objects(named("absent"))
        .build()
        .unwrap();
    let removed = harness.s3.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!((removed.deleted().len(), removed.errors().len()), (3, 0));
    assert_eq!(harness.keys().await, ["c"]);
    // S3 counts an absent key as removed.
    harness.s3.delete_object().bucket(BUCKET).key("absent").send().await.unwrap();
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn buckets_come_and_go() {
    let harness = Harness::ephemeral().await;
    let s3 = &harness.s3;
    s3.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(status(&s3.head_bucket().bucket("absent").send().await.unwrap_err()), 404);
    s3.create_bucket().bucket("second").send().await.unwrap();
    let again = s3.create_bucket().bucket("second").send().await.unwrap_err();
    assert_eq!(code(&again), "BucketAlreadyOwnedByYou");
    let listed = s3.list_buckets().send().await.unwrap();
    let names: Vec<_> = listed.buckets().iter().map(|bucket| bucket.name().unwrap()).collect();
    assert_eq!(names, [BUCKET, "second"]);
    harness.put("k", "x").await;
    assert_eq!(
        code(&s3.delete_bucket().bucket(BUCKET).send().await.unwrap_err()),
        "BucketNotEmpty"
    );
    s3.delete_bucket().bucket("second").send().await.unwrap();
    assert_eq!(
        code(&s3.delete_bucket().bucket("second").send().await.unwrap_err()),
        "NoSuchBucket"
    );
    for size in [1, 100_000] {
        let put = s3
            .put_object()
            .bucket("second")
            .key("k")
            .body(content_of("k", size).into())
            .send()
            .await;
        assert_eq!(code(&put.unwrap_err()), "NoSuchBucket");
    }
    let get = s3.get_object().bucket("second").key("k").send().await.unwrap_err();
    assert_eq!(code(&get), "NoSuchBucket");
    harness.services.shutdown().await.unwrap();
}
