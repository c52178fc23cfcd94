//! Files: whole, in parts, on conditions, and not at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Code;
use reqwest::Method;
use support::{Site, TRACE, TRACE_ID, field, pattern, problem};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_each_kind_is_read_as_it_was_written() {
    let site = Site::start(None).await;
    let content = pattern(4096);
    let digest = Digest::of(&content);
    for key in [
        ObjectKey::Node(digest),
        ObjectKey::Bin(digest),
        ObjectKey::Index(digest),
        ObjectKey::Blob(digest),
        ObjectKey::Report(digest),
    ] {
        site.put(&key, content.clone()).await;
        // The first is read from the bucket, the second from memory.
        for _ in 0..2 {
            let response = site.get(&key.path()).await;
            assert_eq!(response.status(), 200, "{key}");
            assert_eq!(field(&response, "content-type"), key.content_type());
            assert_eq!(field(&response, "content-length"), "4096");
            assert_eq!(field(&response, "etag"), format!("\"{digest}\""));
            assert_eq!(field(&response, "accept-ranges"), "bytes");
            assert_eq!(field(&response, "x-content-type-options"), "nosniff");
            assert_eq!(field(&response, "content-security-policy"), "default-src 'none'; sandbox");
            assert_eq!(field(&response, "cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(field(&response, "transfer-encoding"), "");
            assert_eq!(response.bytes().await.unwrap(), content);
        }
        let response = site.head(&key.path()).await;
        assert_eq!((response.status().as_u16(), field(&response, "content-length")), (200, "4096"));
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_is_a_file() {
    let site = Site::start(None).await;
    let key = site.put_blob(b"").await;
    for method in [Method::GET, Method::HEAD] {
        let response = site.request(method, &key.path()).send().await.unwrap();
        assert_eq!((response.status().as_u16(), field(&response, "content-length")), (200, "0"));
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    site.stop().await;
}

/// The same table for a file in memory and for one that streams.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_hold_for_small_and_large() {
    let site = Site::start(None).await;
    for size in [10_000, 3 * 1024 * 1024] {
        let content = pattern(size);
        let key = site.put_blob(&content).await;
        let tag = format!("\"{}\"", Digest::of(&content));
        let weak = format!("W/{tag}");
        let last = size - 1;
        let beyond = format!("bytes={size}-");
        let middle = format!("bytes 5000-5999/{size}");
        let suffix = format!("bytes {}-{last}/{size}", size - 100);
        let all = 0..size;
        // Fields of the request; status, Content-Range and bytes of the answer.
        type Case<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str, std::ops::Range<usize>);
        let cases: Vec<Case<'_>> = vec![
            (vec![], 200, "", all.clone()),
            (vec![("range", "bytes=5000-5999")], 206, &middle, 5000..6000),
            (vec![("range", "bytes=-100")], 206, &suffix, size - 100..size),
            (vec![("range", "bytes=0-1,3-4")], 200, "", all.clone()),
            (vec![("range", "bytes=5-4")], 200, "", all.clone()),
            (vec![("range", "bytes=5000-5999"), ("if-range", &tag)], 206, &middle, 5000..6000),
            (vec![("range", "bytes=5000-5999"), ("if-range", &weak)], 200, "", all.clone()),
            (vec![("range", "bytes=5000-5999"), ("if-match", &tag)], 206, &middle, 5000..6000),
            (vec![("if-none-match", &weak)], 304, "", 0..0),
            (vec![("if-none-match", "*")], 304, "", 0..0),
            // Two lines are one list.
            (vec![("if-none-match", "\"a\""), ("if-none-match", &tag)], 304, "", 0..0),
            (vec![("if-none-match", "\"a\"")], 200, "", all),
        ];
        for (fields, status, content_range, range) in cases {
            let mut request = site.request(Method::GET, &key.path());
            for (name, value) in &fields {
                request = request.header(*name, *value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{size} {fields:?}");
            assert_eq!(field(&response, "content-range"), content_range, "{size} {fields:?}");
            assert_eq!(field(&response, "etag"), tag);
            if status != 304 {
                assert_eq!(field(&response, "content-length"), range.len().to_string());
            }
            assert!(response.bytes().await.unwrap() == content[range], "{size} {fields:?}");
        }
        let response =
            site.request(Method::GET, &key.path()).header("range", &beyond).send().await.unwrap();
        assert_eq!(field(&response, "content-range"), format!("bytes */{size}"));
        problem(response, Code::RangeNotSatisfiable).await;
        let response =
            site.request(Method::GET, &key.path()).header("if-match", &weak).send().await.unwrap();
        problem(response, Code::PreconditionFailed).await;
        let response =
            site.request(Method::HEAD, &key.path()).header("range", &beyond).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(field(&response, "content-length"), size.to_string());
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_found_as_soon_as_it_comes() {
    let site = Site::start(None).await;
    let key = ObjectKey::Blob(Digest::of(b"late"));
    for path in [key.path(), "/head".to_owned(), "/nothing".to_owned(), "/v1/orgs/x".to_owned()] {
        problem(site.get(&path).await, Code::NotFound).await;
    }
    // Nothing exists that a condition could be about.
    let star = site.request(Method::GET, &key.path()).header("if-none-match", "*");
    problem(star.send().await.unwrap(), Code::NotFound).await;
    site.put_blob(b"late").await;
    assert_eq!(site.get(&key.path()).await.status(), 200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_only_read() {
    let site = Site::start(None).await;
    let key = site.put_blob(b"x").await;
    for path in [key.path(), "/head".to_owned(), "/".to_owned(), "/healthz".to_owned()] {
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let response = site.request(method, &path).send().await.unwrap();
            assert_eq!(field(&response, "allow"), "GET, HEAD, OPTIONS");
            problem(response, Code::MethodNotAllowed).await;
        }
        let response = site.request(Method::OPTIONS, &path).send().await.unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(field(&response, "access-control-allow-origin"), "*");
        assert_eq!(field(&response, "access-control-allow-methods"), "GET, HEAD, OPTIONS");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_goes_in_and_comes_out() {
    let site = Site::start(None).await;
    let response =
        site.request(Method::GET, "/nothing").header("traceparent", TRACE).send().await.unwrap();
    assert_eq!(problem(response, Code::NotFound).await.trace_id, TRACE_ID);
    let response =
        site.request(Method::GET, "/healthz").header("traceparent", TRACE).send().await.unwrap();
    assert!(field(&response, "traceparent").contains(TRACE_ID));
    assert!(!field(&site.get("/healthz").await, "traceparent").is_empty());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_its_own() {
    let site = Site::start(None).await;
    let response = site.get("/.well-known/modunest.json").await;
    assert_eq!(field(&response, "content-type"), "application/json");
    assert_eq!(field(&response, "cache-control"), "public, max-age=1, must-revalidate");
    let tag = field(&response, "etag").to_owned();
    let discovery: modunest_core::api::Discovery = response.json().await.unwrap();
    assert_eq!(discovery.origin, "local.modunest");
    let again =
        site.request(Method::GET, "/.well-known/modunest.json").header("if-none-match", tag);
    assert_eq!(again.send().await.unwrap().status(), 304);

    let response = site.get("/").await;
    assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
    assert!(field(&response, "content-security-policy").starts_with("default-src 'none'"));
    let page = response.text().await.unwrap();
    assert!(page.contains("local.modunest+00aa11bb+AQ==") && page.contains("href=\"/head\""));

    let response = site.get("/healthz").await;
    assert_eq!(field(&response, "cache-control"), "no-store");
    assert_eq!(response.text().await.unwrap(), r#"{"status":"alive"}"#);
    let response = site.get("/readyz").await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"status":"ready","bucket":"ready","api":"not-configured"}"#
    );
    site.stop().await;
}
