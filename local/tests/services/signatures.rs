//! Who may do what: only the holder of the key, exactly what was signed, in time, once.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;

use crate::harness::{
    BUCKET, Harness, code, content_of, presigned_upload, presigning, s3_client, send,
    sha256_base64, status,
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_presigned_upload_works_once() {
    let harness = Harness::ephemeral().await;
    for size in [100, 100_000] {
        let key = format!("upload/{size}");
        let bytes = content_of(&key, size);
        let request = presigned_upload(&harness.s3, &key, &bytes, MINUTE).await;
        let (first, body) = send(&request, bytes.clone(), |_| {}).await;
        assert_eq!(first, 200, "{body}");
        let (replay, body) = send(&request, bytes.clone(), |_| {}).await;
        assert_eq!(replay, 412, "{body}");
        assert_eq!(harness.get(&key).await.unwrap(), bytes);
    }
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn altered_presigned_uploads_are_refused() {
    let harness = Harness::ephemeral().await;
    let bytes = content_of("upload", 1000);
    let request = presigned_upload(&harness.s3, "upload", &bytes, MINUTE).await;
    let longer = content_of("upload", 1001);

    let (status, _) = send(&request, longer.clone(), |headers| {
        headers.insert("content-length", "1001".parse().unwrap());
    })
    .await;
    assert_eq!(status, 403, "another length than signed");

    let (status, _) = send(&request, longer.clone(), |headers| {
        headers.insert("x-amz-checksum-sha256", sha256_base64(&longer).parse().unwrap());
    })
    .await;
    assert_eq!(status, 403, "another checksum than signed");

    for header in ["if-none-match", "x-amz-checksum-sha256"] {
        let (status, _) = send(&request, bytes.clone(), |headers| {
            headers.remove(header).unwrap();
        })
        .await;
        assert_eq!(status, 403, "{header} left out");
    }

    let elsewhere = request.uri().replacen("/upload?", "/elsewhere?", 1);
    let uri: http::Uri = elsewhere.parse().unwrap();
    let moved = tampered(&harness, uri).await;
    assert_eq!(moved, 403, "another key than signed");

    assert_eq!(harness.keys().await, Vec::<String>::new());
    harness.services.shutdown().await.unwrap();
}

async fn tampered(harness: &Harness, uri: http::Uri) -> u16 {
    use http_body_util::Full;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let request = http::Request::put(uri).body(Full::new(bytes::Bytes::from_static(b"x"))).unwrap();
    assert!(harness.services.s3_endpoint().starts_with("http://127.0.0.1:"));
    client.request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_presigned_request_expires() {
    let harness = Harness::ephemeral().await;
    harness.put("k", "value").await;
    let request = harness
        .s3
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(presigning(Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(send(&request, "", |_| {}).await, (200, "value".to_owned()));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let (status, body) = send(&request, "", |_| {}).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("expired"), "{body}");
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn other_keys_and_no_key_are_refused() {
    let harness = Harness::ephemeral().await;
    harness.put("k", "value").await;
    let stranger = s3_client(&harness.services.s3_endpoint(), "another secret");
    let read = stranger.get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!((code(&read), status(&read)), ("SignatureDoesNotMatch".into(), 403));
    let write = stranger
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"x"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(status(&write), 403);
    let presigned = presigned_upload(&stranger, "new", b"x", MINUTE).await;
    assert_eq!(send(&presigned, "x", |_| {}).await.0, 403);

    let uri: http::Uri = format!("{}/{BUCKET}/k", harness.services.s3_endpoint()).parse().unwrap();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let request = http::Request::builder()
            .method(method)
            .uri(uri.clone())
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .unwrap();
        assert_eq!(client.request(request).await.unwrap().status(), 403, "anonymous {method}");
    }
    assert_eq!(harness.get("k").await.unwrap(), "value");
    assert_eq!(harness.keys().await, ["k"]);
    harness.services.shutdown().await.unwrap();
}
