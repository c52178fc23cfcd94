//! The gallery as a host sees it: its own table, and behind the host's services
//! the other two plugins, loaded as the libraries that they are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;

use demo_gallery::modunest_plugin_v1;
use modunest_sdk::abi::{ENTRY_SYMBOL, EntryPoint};
use modunest_sdk::testing::{TestHost, TestPlugin};
use modunest_sdk::{Error, HttpRequest, HttpResponse};

/// Loads a plugin library that cargo built beside this test.
fn load(library: &str) -> TestPlugin {
    let file = format!("{}{library}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = std::env::current_exe().unwrap().with_file_name(file);
    // SAFETY: a plugin of this workspace, which obeys the ABI; never unmapped.
    unsafe {
        let library = libloading::Library::new(&path).unwrap();
        let entry = *library.get::<EntryPoint>(ENTRY_SYMBOL).unwrap();
        std::mem::forget(library);
        TestPlugin::from_table(entry(), &TestHost::new(), b"").unwrap()
    }
}

fn host() -> TestHost {
    let markdown = Arc::new(load("demo_markdown"));
    let thumbnail = Arc::new(load("demo_thumbnail"));
    TestHost::new()
        .with_assets_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .with_service("demo/markdown", "render", move |request| {
            markdown.service("render", &request.payload)
        })
        .with_service("demo/thumbnail", "resize", move |request| {
            thumbnail.service("resize", &request.payload)
        })
}

#[test]
fn an_opened_picture_is_told_to_whoever_listens() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = told.clone();
    let host = host().with_operation(modunest_sdk::links::PUBLISH, move |request| {
        let (event, payload) = modunest_sdk::links::read_publish(request)?;
        let text = String::from_utf8_lossy(payload).into_owned();
        heard.lock().unwrap().push(format!("{event} {text}"));
        Ok(Vec::new())
    });
    let gallery = gallery(&host).unwrap();
    for path in ["/gallery/image/dunes", "/gallery/thumb/hills", "/gallery/image/nothing"] {
        drop(gallery.http(HttpRequest::get(path)));
    }
    assert_eq!(*told.lock().unwrap(), [r#"opened {"picture":"dunes"}"#]);
}

fn gallery(host: &TestHost) -> Result<TestPlugin, Error> {
    // SAFETY: the entry that the plugin's macro made.
    unsafe { TestPlugin::from_table(modunest_plugin_v1(), host, b"") }
}

fn get(path: &str) -> Result<HttpResponse, Error> {
    gallery(&host()).unwrap().http(HttpRequest::get(path))
}

const NAMES: [&str; 4] = ["dunes", "hills", "northern-lights", "sailing"];

#[test]
fn the_page_lists_every_entry_with_its_rendered_text() {
    let response = get("/gallery").unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(response.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let page = String::from_utf8(response.body).unwrap();
    for name in NAMES {
        assert!(page.contains(&format!(r#"src="gallery/thumb/{name}""#)), "{page}");
        assert!(page.contains(&format!(r#"href="gallery/image/{name}""#)), "{page}");
    }
    // Rendered by demo/markdown, not copied.
    assert_eq!(page.matches("<h2>").count(), NAMES.len());
    assert!(page.contains("<h2>Dunes at noon</h2>") && !page.contains("## "));
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn thumbnails_are_small_pngs_and_images_are_the_files() {
    for name in NAMES {
        let thumbnail = get(&format!("/gallery/thumb/{name}")).unwrap();
        assert_eq!(thumbnail.header("content-type"), Some("image/png"));
        assert!(thumbnail.body.starts_with(b"\x89PNG\r\n\x1a\n"));
        // Width and height in the PNG's first chunk: fitted into 640 x 640.
        assert_eq!(thumbnail.body[16..24], [0, 0, 2, 128, 0, 0, 1, 171]);

        let image = get(&format!("/gallery/image/{name}")).unwrap();
        let (extension, content_type) = match name {
            "hills" => ("png", "image/png"),
            _ => ("jpg", "image/jpeg"),
        };
        assert_eq!(image.header("content-type"), Some(content_type));
        let file = format!("{}/assets/{name}.{extension}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(image.body, std::fs::read(file).unwrap());
    }
}

#[test]
fn what_is_not_there_is_not_found_and_not_a_file() {
    for path in [
        "/",
        "/galleryx",
        "/gallery/x",
        "/gallery/thumb/",
        "/gallery/thumb/x",
        "/gallery/image/../../plugin.toml",
        "/gallery/image/hills.png",
        "/gallery/image/%2e%2e",
    ] {
        let error = get(path).unwrap_err();
        assert_eq!(error.http_status(), 404, "{path}: {error}");
    }
    let post = HttpRequest { method: "POST".into(), ..HttpRequest::get("/gallery") };
    let response = gallery(&host()).unwrap().http(post).unwrap();
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn a_service_that_is_away_makes_the_page_unavailable() {
    let host = TestHost::new().with_assets_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).with_service(
        "demo/markdown",
        "render",
        |_| Err(Error::Unavailable("reloading".into())),
    );
    let error = gallery(&host).unwrap().http(HttpRequest::get("/gallery")).unwrap_err();
    assert_eq!(error, Error::Unavailable("reloading".into()));
}

#[test]
fn a_package_without_its_entries_does_not_load() {
    let empty = tempfile::tempdir().unwrap();
    let host = TestHost::new().with_assets_dir(empty.path());
    assert!(matches!(gallery(&host).err(), Some(Error::Failed(_))));
    assert!(matches!(gallery(&TestHost::new()).err(), Some(Error::Unsupported(_))));
}
