//! What is kept, and what is not.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    BUCKET, Harness, code, content_of, presigned_upload, send, sha256_base64, status,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Above the size up to which objects are kept inline, and one below.
const SIZES: [usize; 4] = [0, 5, 64 * 1024, 300_000];

#[tokio::test]
async fn bytes_headers_and_checksums_come_back() {
    let harness = Harness::ephemeral().await;
    for size in SIZES {
        let key = format!("blob/{size}");
        let bytes = content_of(&key, size);
        harness
            .s3
            .put_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_sha256(sha256_base64(&bytes))
            .content_type("application/zip")
            .cache_control("public, max-age=31536000, immutable")
            .metadata("traceparent", "00-1")
            .body(ByteStream::from(bytes.clone()))
            .send()
            .await
            .unwrap();
        let head = harness
            .s3
            .head_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        assert_eq!(head.checksum_sha256(), Some(sha256_base64(&bytes).as_str()));
        assert_eq!(head.content_length(), Some(size as i64));
        assert_eq!(head.content_type(), Some("application/zip"));
        assert_eq!(head.cache_control(), Some("public, max-age=31536000, immutable"));
        assert_eq!(head.metadata().unwrap()["traceparent"], "00-1");
        let got = harness.s3.get_object().bucket(BUCKET).key(&key).send().await.unwrap();
        assert_eq!(got.e_tag(), head.e_tag());
        // The SDK asks for the checksum by itself, and compares.
        assert_eq!(got.checksum_sha256(), head.checksum_sha256());
        assert_eq!(got.body.collect().await.unwrap().into_bytes(), bytes, "{size}");
    }
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_kind_of_checksum_is_verified_and_kept() {
    let harness = Harness::ephemeral().await;
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let key = algorithm.as_str().to_owned();
        harness
            .s3
            .put_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_algorithm(algorithm)
            .body(ByteStream::from_static(b"bytes"))
            .send()
            .await
            .unwrap();
        assert_eq!(harness.get(&key).await.unwrap(), "bytes");
    }
    let replaced =
        harness.s3.head_object().bucket(BUCKET).key("SHA256").checksum_mode(ChecksumMode::Enabled);
    assert_eq!(
        replaced.send().await.unwrap().checksum_sha256(),
        Some(sha256_base64(b"bytes").as_str())
    );
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_wrong_digest_leaves_what_was_there() {
    let harness = Harness::ephemeral().await;
    for size in [10, 200_000] {
        let key = format!("digest/{size}");
        let (good, bad) = (content_of("good", size), content_of("bad", size));
        harness.put(&key, good.clone()).await;
        let put =
            || harness.s3.put_object().bucket(BUCKET).key(&key).body(ByteStream::from(bad.clone()));
        let by_checksum = put().checksum_sha256(sha256_base64(&good)).send().await.unwrap_err();
        assert_eq!((code(&by_checksum), status(&by_checksum)), ("BadDigest".into(), 400));
        let by_md5 = put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await.unwrap_err();
        assert_eq!((code(&by_md5), status(&by_md5)), ("BadDigest".into(), 400));
        let malformed = put().content_md5("AAAA").send().await.unwrap_err();
        assert_eq!(code(&malformed), "InvalidDigest");
        assert_eq!(harness.get(&key).await.unwrap(), good);

        let absent = format!("absent/{size}");
        let refused = harness
            .s3
            .put_object()
            .bucket(BUCKET)
            .key(&absent)
            .checksum_sha256(sha256_base64(b"other"))
            .body(ByteStream::from(bad.clone()))
            .send()
            .await;
        assert_eq!(code(&refused.unwrap_err()), "BadDigest");
        assert_eq!(harness.get(&absent).await, None);
    }
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_body_unlike_its_signed_hash_is_not_kept() {
    let harness = Harness::ephemeral().await;
    let bytes = content_of("signed", 100_000);
    let request = presigned_upload(&harness.s3, "signed", &bytes, MINUTE).await;
    let other = content_of("other", 100_000);
    let (status, body) = send(&request, other.clone(), |headers| {
        let hash: String = sha2_hex(&bytes);
        headers.insert("x-amz-content-sha256", hash.parse().unwrap());
    })
    .await;
    assert_eq!(status, 400, "{body}");
    let (status, body) = send(&request, other, |_| {}).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("BadDigest"), "{body}");
    assert_eq!(harness.keys().await, Vec::<String>::new());
    let (status, body) = send(&request, bytes.clone(), |_| {}).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(harness.get("signed").await.unwrap(), bytes);
    harness.services.shutdown().await.unwrap();
}

fn sha2_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    for size in [5_000, 500_000] {
        let bytes = content_of("half", size);
        let request = presigned_upload(&harness.s3, "half", &bytes, MINUTE).await;
        let uri: http::Uri = request.uri().parse().unwrap();
        let authority = uri.authority().unwrap().as_str();
        let mut head =
            format!("PUT {} HTTP/1.1\r\nhost: {authority}\r\n", uri.path_and_query().unwrap());
        for (name, value) in request.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes[..size / 2]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // The server may cut the connection or answer with an error; both end the read.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(harness.keys().await, Vec::<String>::new());
    harness.services.shutdown().await.unwrap();
    assert_eq!(object_files(folder.path()), 0, "no half file stays");
}

pub fn object_files(data: &std::path::Path) -> usize {
    std::fs::read_dir(data.join("objects"))
        .unwrap()
        .map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count())
        .sum()
}

#[tokio::test]
async fn replaced_and_removed_objects_give_their_files_back() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    for round in 0..3 {
        harness.put("big", content_of(&format!("{round}"), 200_000)).await;
    }
    harness.put("other", content_of("other", 200_000)).await;
    harness.put("small", "small").await;
    harness.s3.delete_object().bucket(BUCKET).key("other").send().await.unwrap();
    assert_eq!(harness.get("big").await.unwrap(), content_of("2", 200_000));
    harness.services.shutdown().await.unwrap();
    assert_eq!(object_files(folder.path()), 1);
}

#[tokio::test]
async fn keys_are_data_and_never_paths() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let harness = Harness::start(Some(data.clone()), Vec::new()).await;
    let keys = [
        "../../x",
        "../x",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "..",
        ".",
        "a b+c%2F",
        "é\u{10ffff}",
        "a/",
    ];
    for key in keys {
        for size in [3, 100_000] {
            harness.put(key, content_of(key, size)).await;
            assert_eq!(harness.get(key).await.unwrap(), content_of(key, size), "{key}");
        }
    }
    let mut expected = keys.map(str::to_owned);
    expected.sort();
    assert_eq!(harness.keys().await, expected);
    harness.services.shutdown().await.unwrap();
    let beside: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["data"]);
    assert_eq!(object_files(&data), keys.len());
}

#[tokio::test]
async fn an_upload_too_large_is_refused_before_it_is_read() {
    let harness = Harness::ephemeral().await;
    let too_large = modunest_local::MAX_OBJECT_BYTES as i64 + 1;
    let request = harness
        .s3
        .put_object()
        .bucket(BUCKET)
        .key("large")
        .content_length(too_large)
        .presigned(crate::harness::presigning(MINUTE))
        .await
        .unwrap();
    let uri: http::Uri = request.uri().parse().unwrap();
    let authority = uri.authority().unwrap().as_str();
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {too_large}\r\n\r\n",
        uri.path_and_query().unwrap()
    );
    let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("EntityTooLarge"), "{answer}");
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let harness = Harness::ephemeral().await;
    let refused = harness
        .s3
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .tagging("a=b")
        .body(ByteStream::from_static(b"x"))
        .send()
        .await
        .unwrap_err();
    assert_eq!((code(&refused), status(&refused)), ("NotImplemented".into(), 501));
    let multipart =
        harness.s3.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!(code(&multipart), "NotImplemented");
    harness.services.shutdown().await.unwrap();
}
