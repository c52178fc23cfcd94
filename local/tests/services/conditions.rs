//! Conditional reads and writes, ranges.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use futures_util::future::join_all;

use crate::harness::{BUCKET, Harness, code, content_of, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_forty_concurrent_creators_exactly_one_wins() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    for (round, size) in [(0, 100), (1, 100), (2, 100_000), (3, 100_000)] {
        let key = format!("race/{round}");
        let puts = (0..40).map(|writer| {
            let (s3, key) = (harness.s3.clone(), key.clone());
            tokio::spawn(async move {
                let bytes = content_of(&format!("writer {writer}"), size);
                let put = s3
                    .put_object()
                    .bucket(BUCKET)
                    .key(key)
                    .if_none_match("*")
                    .body(ByteStream::from(bytes));
                match put.send().await {
                    Ok(_) => Some(writer),
                    Err(error) => {
                        assert_eq!(code(&error), "PreconditionFailed");
                        None
                    }
                }
            })
        });
        let winners: Vec<i32> =
            join_all(puts).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let expected = content_of(&format!("writer {}", winners[0]), size);
        assert_eq!(harness.get(&key).await.unwrap(), expected);
    }
    harness.services.shutdown().await.unwrap();
    assert_eq!(crate::uploads::object_files(folder.path()), 2, "the losers' files are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_swaps_once() {
    let harness = Harness::ephemeral().await;
    let put = |bytes: &'static str, etag: &str| {
        harness
            .s3
            .put_object()
            .bucket(BUCKET)
            .key("head")
            .if_match(etag)
            .body(ByteStream::from_static(bytes.as_bytes()))
            .send()
    };
    assert_eq!(code(&put("x", "\"none\"").await.unwrap_err()), "NoSuchKey");
    harness.put("head", "1").await;
    let first = harness.s3.head_object().bucket(BUCKET).key("head").send().await.unwrap();
    let etag = first.e_tag().unwrap().to_owned();
    let swaps = join_all([put("2", &etag), put("3", &etag), put("4", &etag)]).await;
    assert_eq!(swaps.iter().filter(|swap| swap.is_ok()).count(), 1);
    for swap in swaps.into_iter().filter_map(Result::err) {
        assert_eq!((code(&swap), status(&swap)), ("PreconditionFailed".into(), 412));
    }
    assert_eq!(code(&put("5", &etag).await.unwrap_err()), "PreconditionFailed");
    let stale = harness
        .s3
        .delete_object()
        .bucket(BUCKET)
        .key("head")
        .if_match(&etag)
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&stale), "PreconditionFailed");
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn conditional_reads_are_honoured() {
    let harness = Harness::ephemeral().await;
    for size in [10, 100_000] {
        harness.put("k", content_of("k", size)).await;
        let head = harness.s3.head_object().bucket(BUCKET).key("k").send().await.unwrap();
        let etag = head.e_tag().unwrap();
        let get = || harness.s3.get_object().bucket(BUCKET).key("k");
        let hour = Duration::from_secs(3600);
        let (before, after) =
            (DateTime::from(SystemTime::now() - hour), DateTime::from(SystemTime::now() + hour));

        let fresh = get().if_none_match(etag).send().await.unwrap_err();
        assert_eq!(status(&fresh), 304);
        assert_eq!(fresh.raw_response().unwrap().headers().get("etag"), Some(etag));
        assert_eq!(status(&get().if_modified_since(after).send().await.unwrap_err()), 304);
        assert_eq!(status(&get().if_match("\"other\"").send().await.unwrap_err()), 412);
        assert_eq!(status(&get().if_unmodified_since(before).send().await.unwrap_err()), 412);
        get().if_match(etag).send().await.unwrap();
        get().if_none_match("\"other\"").send().await.unwrap();
        get().if_modified_since(before).send().await.unwrap();
        get().if_unmodified_since(after).send().await.unwrap();
        let head = harness
            .s3
            .head_object()
            .bucket(BUCKET)
            .key("k")
            .if_none_match(etag)
            .send()
            .await
            .unwrap_err();
        assert_eq!(status(&head), 304);
    }
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn ranges_are_parts_of_the_whole() {
    let harness = Harness::ephemeral().await;
    for size in [1000_usize, 700_000] {
        let bytes = content_of("ranges", size);
        harness.put("k", bytes.clone()).await;
        let last = size - 1;
        let cases = [
            ("bytes=0-0".to_owned(), 0..1),
            ("bytes=10-99".to_owned(), 10..100),
            (format!("bytes={}-", size - 7), size - 7..size),
            ("bytes=-5".to_owned(), size - 5..size),
            (format!("bytes=5-{}", size * 2), 5..size),
        ];
        for (range, expected) in cases {
            let part =
                harness.s3.get_object().bucket(BUCKET).key("k").range(&range).send().await.unwrap();
            let wanted = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
            assert_eq!(part.content_range(), Some(wanted.as_str()), "{range}");
            assert_eq!(
                part.body.collect().await.unwrap().into_bytes(),
                bytes.slice(expected),
                "{range}"
            );
        }
        let beyond = harness
            .s3
            .get_object()
            .bucket(BUCKET)
            .key("k")
            .range(format!("bytes={}-", last + 1))
            .send()
            .await;
        assert_eq!(status(&beyond.unwrap_err()), 416);
    }
    harness.put("empty", "").await;
    let nothing =
        harness.s3.get_object().bucket(BUCKET).key("empty").range("bytes=-5").send().await;
    assert_eq!(status(&nothing.unwrap_err()), 416);
    harness.services.shutdown().await.unwrap();
}
