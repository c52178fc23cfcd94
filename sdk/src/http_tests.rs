#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(head.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn the_form_is_as_documented() {
    let request = HttpRequest {
        method: "POST".into(),
        path: "/gallery/a%20b".into(),
        query: Some("x=1?&y".into()),
        headers: vec![("accept".into(), "text/html".into())],
        body: b"\0body".to_vec(),
        ..HttpRequest::get("/")
    };
    let head = r#"{"method":"POST","path":"/gallery/a%20b","query":"x=1?&y","headers":[["accept","text/html"]]}"#;
    assert_eq!(request.clone().encode().unwrap(), raw(head, b"\0body"));
    assert_eq!(HttpRequest::decode(&raw(head, b"\0body")).unwrap(), request);

    let response = HttpResponse::new(200, "text/plain", "hi");
    let head = r#"{"status":200,"headers":[["content-type","text/plain"]]}"#;
    assert_eq!(response.encode().unwrap(), raw(head, b"hi"));
}

#[test]
fn malformed_requests_are_refused_with_the_reason() {
    let request = |method: &str, path: &str, query: &str, headers: &str| {
        let head = format!(
            r#"{{"method":"{method}","path":"{path}","query":{query},"headers":{headers}}}"#
        );
        HttpRequest::decode(&raw(&head, b"")).unwrap_err()
    };
    assert_eq!(request("get", "/", "null", "[]"), HttpError::Method);
    assert_eq!(request("", "/", "null", "[]"), HttpError::Method);
    assert_eq!(request("GET", "gallery", "null", "[]"), HttpError::Path);
    assert_eq!(request("GET", "/a?b", "null", "[]"), HttpError::Path);
    assert_eq!(request("GET", "/a b", "null", "[]"), HttpError::Path);
    assert_eq!(request("GET", "/", r##""a#b""##, "[]"), HttpError::Query);
    assert_eq!(request("GET", "/", "null", r#"[["ok","1"],["Bad","1"]]"#), HttpError::Header(1));
    assert_eq!(request("GET", "/", "null", r#"[["a b","1"]]"#), HttpError::Header(0));
    assert_eq!(
        request("GET", "/", "null", r#"[["a","1\r\nset-cookie: x"]]"#),
        HttpError::Header(0)
    );
    assert_eq!(request("GET", "/", "null", r#"[["a"," 1"]]"#), HttpError::Header(0));
    let many = format!("[{}]", vec![r#"["a","b"]"#; MAX_HEADERS + 1].join(","));
    assert_eq!(request("GET", "/", "null", &many), HttpError::TooManyHeaders(MAX_HEADERS + 1));
    let long = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
    assert_eq!(request("GET", &long, "null", "[]"), HttpError::Path);
}

#[test]
fn malformed_frames_are_refused_with_the_reason() {
    assert_eq!(HttpRequest::decode(b"\x01\0\0"), Err(HttpError::Truncated));
    assert_eq!(HttpRequest::decode(b"\x03\0\0\0{}"), Err(HttpError::Truncated));
    assert_eq!(
        HttpRequest::decode(&u32::MAX.to_le_bytes()),
        Err(HttpError::HeadTooLarge(u32::MAX as usize))
    );
    for head in ["", "{}", "[]", r#"{"status":200}"#, r#"{"status":200,"headers":7}"#] {
        let error = HttpResponse::decode(&raw(head, b"")).unwrap_err();
        assert!(matches!(error, HttpError::Head(_)), "{head}: {error}");
    }
    for status in [0, 100, 199, 600, 999] {
        let head = format!(r#"{{"status":{status},"headers":[]}}"#);
        assert_eq!(HttpResponse::decode(&raw(&head, b"")), Err(HttpError::Status(status)));
        assert_eq!(HttpResponse::new(status, "x", "").encode(), Err(HttpError::Status(status)));
    }
}

#[test]
fn users_uploads_and_streams_stand_in_the_head() {
    let identity = Identity {
        subject: "ada".into(),
        issuer: "https://id.example.org".into(),
        roles: vec!["admin".into()],
        expires_ms: 7,
        claims: [("email".to_owned(), "ada@example.org".to_owned())].into(),
    };
    let upload = Some(Upload { id: 9, length: Some(20_000_000) });
    let request =
        HttpRequest { identity: Some(identity), upload, websocket: true, ..HttpRequest::get("/") };
    let head = r#"{"method":"GET","path":"/","query":null,"headers":[],"identity":{"subject":"ada","issuer":"https://id.example.org","roles":["admin"],"expires_ms":7,"claims":{"email":"ada@example.org"}},"upload":{"id":9,"length":20000000},"websocket":true}"#;
    assert_eq!(request.clone().encode().unwrap(), raw(head, b""));
    assert_eq!(HttpRequest::decode(&raw(head, b"")).unwrap(), request);
    assert_eq!(HttpRequest::decode(&raw(head, b"body")), Err(HttpError::Upload));
    let nobody = head.replace("\"ada\"", "\"\"");
    assert_eq!(HttpRequest::decode(&raw(&nobody, b"")), Err(HttpError::Identity));

    let response = HttpResponse::streamed(200, "text/event-stream", 3);
    let head = r#"{"status":200,"headers":[["content-type","text/event-stream"]],"stream":3}"#;
    assert_eq!(response.clone().encode().unwrap(), raw(head, b""));
    assert_eq!(HttpResponse::decode(&raw(head, b"")).unwrap(), response);
    let head = r#"{"status":200,"headers":[],"stream":3,"websocket":true}"#;
    assert_eq!(HttpResponse::websocket(3).encode().unwrap(), raw(head, b""));
    for (head, body) in [(head, "body"), (r#"{"status":200,"headers":[],"websocket":true}"#, "")] {
        assert_eq!(HttpResponse::decode(&raw(head, body.as_bytes())), Err(HttpError::WebSocket));
    }
}

#[test]
fn fields_of_later_versions_are_skipped() {
    let head = r#"{"method":"GET","path":"/","query":null,"headers":[],"later":{"a":[1]}}"#;
    assert_eq!(HttpRequest::decode(&raw(head, b"")).unwrap(), HttpRequest::get("/"));
}

#[test]
fn bodies_are_bounded_on_both_sides() {
    let head = r#"{"status":200,"headers":[]}"#;
    let large = vec![0; MAX_BODY_BYTES + 1];
    let too_large = HttpError::BodyTooLarge(MAX_BODY_BYTES + 1);
    assert_eq!(HttpResponse::decode(&raw(head, &large)), Err(too_large.clone()));
    let response = HttpResponse { status: 200, body: large, ..HttpResponse::default() };
    assert_eq!(response.encode(), Err(too_large));
}

prop_compose! {
    fn any_request()(
        method in "[A-Z-]{1,8}",
        path in "/[!-\"$->@-~]{0,40}",
        query in proptest::option::of("[!-\"$-~]{0,40}"),
        headers in proptest::collection::vec(("[a-z0-9_-]{1,12}", "[!-~é][ -~é]{0,20}[!-~]"), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) -> HttpRequest {
        HttpRequest { method, path, query, headers, body, ..HttpRequest::get("/") }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_as_the_same(request in any_request()) {
        let bytes = request.clone().encode().unwrap();
        prop_assert_eq!(HttpRequest::decode(&bytes), Ok(request));
    }

    #[test]
    fn damaged_messages_never_panic(
        request in any_request(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = request.encode().unwrap();
        let place = at.index(bytes.len());
        bytes[place] = with;
        check_decoders(&bytes);
        check_decoders(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_decoders(&bytes);
    }

    #[test]
    fn arbitrary_responses_are_written_or_refused(status in any::<u16>(), name in ".{0,8}", value in ".{0,12}") {
        let response = HttpResponse { status, headers: vec![(name, value)], ..HttpResponse::default() };
        if let Ok(bytes) = response.clone().encode() {
            prop_assert_eq!(HttpResponse::decode(&bytes), Ok(response));
        }
    }
}
