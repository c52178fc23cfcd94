//! Texts in two forms: plain, and as gzip to whoever takes it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Read as _;

use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use reqwest::{Method, Response};
use support::{Site, field};

const GZIP: (&str, &str) = ("accept-encoding", "br;q=1.0, gzip;q=0.8");

fn text() -> Vec<u8> {
    (0..200).flat_map(|line| format!("release {line} of many\n").into_bytes()).collect()
}

async fn ask(site: &Site, method: Method, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = site.request(method, path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn unpacked(response: Response) -> Vec<u8> {
    let length: usize = field(&response, "content-length").parse().unwrap();
    let packed = response.bytes().await.unwrap();
    assert_eq!(packed.len(), length);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed.as_ref()).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_comes_as_gzip_and_can_be_asked_for_again() {
    let site = Site::start(None).await;
    let content = text();
    let digest = Digest::of(&content);
    for key in [ObjectKey::Bin(digest), ObjectKey::Index(digest), ObjectKey::Report(digest)] {
        site.put(&key, content.clone()).await;
        let path = key.path();
        // The first is made, the second kept.
        for _ in 0..2 {
            let response = ask(&site, Method::GET, &path, &[GZIP]).await;
            assert_eq!(response.status(), 200, "{key}");
            assert_eq!(field(&response, "content-encoding"), "gzip");
            assert_eq!(field(&response, "etag"), format!("W/\"{digest}\""));
            assert_eq!(field(&response, "vary"), "accept-encoding");
            assert_eq!(field(&response, "accept-ranges"), "");
            assert_eq!(field(&response, "content-type"), key.content_type());
            assert_eq!(unpacked(response).await, content);
        }
        let head = ask(&site, Method::HEAD, &path, &[GZIP]).await;
        assert_eq!((head.status().as_u16(), field(&head, "content-encoding")), (200, "gzip"));
        assert_eq!(field(&head, "content-length"), "", "nobody made it to count its bytes");
        for tag in [format!("\"{digest}\""), format!("W/\"{digest}\"")] {
            for fields in [vec![GZIP, ("if-none-match", &tag)], vec![("if-none-match", &tag)]] {
                let response = ask(&site, Method::GET, &path, &fields).await;
                assert_eq!(response.status(), 304, "{fields:?}");
                assert_eq!(field(&response, "vary"), "accept-encoding");
            }
        }
        let weak = format!("W/\"{digest}\"");
        let resumed = [("range", "bytes=10-19"), ("if-range", &weak), GZIP];
        let response = ask(&site, Method::GET, &path, &resumed).await;
        assert_eq!((response.status().as_u16(), field(&response, "content-encoding")), (200, ""));
        assert_eq!(response.bytes().await.unwrap(), content);
        let part = ask(&site, Method::GET, &path, &[("range", "bytes=10-19"), GZIP]).await;
        assert_eq!((part.status().as_u16(), field(&part, "content-encoding")), (206, ""));
        assert_eq!(field(&part, "etag"), format!("\"{digest}\""));
        assert_eq!(part.bytes().await.unwrap(), content[10..20]);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_ask_gets_plain_bytes_and_so_does_what_is_no_text() {
    let site = Site::start(None).await;
    let content = text();
    let index = ObjectKey::Index(Digest::of(&content));
    site.put(&index, content.clone()).await;
    for fields in [vec![], vec![("accept-encoding", "gzip;q=0")], vec![("accept-encoding", "br")]] {
        let response = ask(&site, Method::GET, &index.path(), &fields).await;
        assert_eq!(field(&response, "content-encoding"), "", "{fields:?}");
        assert_eq!(field(&response, "vary"), "accept-encoding", "{fields:?}");
        assert_eq!(response.bytes().await.unwrap(), content);
    }
    let blob = site.put_blob(&content).await;
    let short = ObjectKey::Index(Digest::of(b"short"));
    site.put(&short, b"short".as_slice()).await;
    for key in [blob, short] {
        let response = ask(&site, Method::GET, &key.path(), &[GZIP]).await;
        assert_eq!((field(&response, "content-encoding"), field(&response, "vary")), ("", ""));
    }
    let page = ask(&site, Method::GET, "/", &[GZIP]).await;
    assert_eq!(field(&page, "content-encoding"), "gzip");
    assert!(String::from_utf8(unpacked(page).await).unwrap().starts_with("<!doctype html>"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_head_comes_as_gzip_and_is_never_an_old_one() {
    let site = Site::start(None).await;
    for version in 1..3 {
        let head = format!("version {version}\n").repeat(200).into_bytes();
        site.put(&ObjectKey::Head, head.clone()).await;
        let response = ask(&site, Method::GET, "/head", &[GZIP]).await;
        assert_eq!(field(&response, "cache-control"), "public, max-age=1, must-revalidate");
        assert_eq!(unpacked(response).await, head);
    }
    site.stop().await;
}
