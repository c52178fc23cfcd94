//! The sample plugin `demo/gallery`: a page from a folder of Markdown and images.
//!
//! Every text goes through the service `render` of `demo/markdown`, every
//! thumbnail through `resize` of `demo/thumbnail`; this plugin parses neither.
//!
//! | Path | What |
//! |---|---|
//! | `/gallery` | the page |
//! | `/gallery/thumb/NAME` | an entry's image, made small |
//! | `/gallery/image/NAME` | an entry's image as it is; publishes the event `opened` |

mod entries;
mod page;

use std::fs::File;
use std::io::Read;

use modunest_sdk::{Error, Host, HttpRequest, HttpResponse, Level, Plugin, export_plugin};

pub use entries::{Entry, MAX_ENTRIES, MAX_IMAGE_BYTES, MAX_TEXT_BYTES};

/// Width and height into which a thumbnail fits: a card of the page at twice its
/// width in CSS pixels, for dense screens.
const THUMBNAIL_SIDE: u32 = 640;
/// How long a browser may reuse an image. A new version of the plugin has new ones.
const IMAGE_CACHE: &str = "public, max-age=300";

/// The plugin: the list of entries, read once.
pub struct Gallery {
    host: Host,
    entries: Vec<Entry>,
}

impl Plugin for Gallery {
    fn create(host: Host, _config: &[u8]) -> Result<Self, Error> {
        let entries = entries::read_folder(&host.assets_dir()?.join("assets"))?;
        host.log(Level::Info, &format!("the gallery has {} entries", entries.len()));
        Ok(Self { host, entries })
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            let response = HttpResponse::new(405, "text/plain; charset=utf-8", "only GET\n");
            return Ok(response.with_header("allow", "GET, HEAD"));
        }
        let path = request.path.trim_end_matches('/');
        if path == "/gallery" {
            return self.page();
        }
        if let Some(name) = path.strip_prefix("/gallery/thumb/") {
            return self.thumbnail(self.entry(name)?);
        }
        if let Some(name) = path.strip_prefix("/gallery/image/") {
            let entry = self.entry(name)?;
            let image = read_bounded(entry)?;
            self.tell_opened(entry);
            return Ok(image_response(entry.image_type.content_type(), image));
        }
        Err(Error::not_found(format!("nothing at {}", request.path)))
    }
}

impl Gallery {
    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| Error::not_found(format!("no entry `{name}`")))
    }

    /// Tells those who want to know that a picture was opened. That nobody could be told is no
    /// reason to keep the picture back.
    fn tell_opened(&self, entry: &Entry) {
        let event = format!("{{\"picture\":\"{}\"}}", entry.name);
        if let Err(error) = self.host.publish("opened", event.as_bytes()) {
            self.host.log(Level::Warn, &format!("opened {}: {error}", entry.name));
        }
    }

    fn page(&self) -> Result<HttpResponse, Error> {
        let mut cards = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let html = self.host.service("demo/markdown", "render", entry.markdown.as_bytes())?;
            let html = String::from_utf8(html)
                .map_err(|_| Error::failed("demo/markdown answered something else than UTF-8"))?;
            cards.push(page::Card { name: &entry.name, html });
        }
        // The page runs no script and loads only its own images.
        Ok(HttpResponse::new(200, "text/html; charset=utf-8", page::render(&cards))
            .with_header(
                "content-security-policy",
                "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
            )
            .with_header("x-content-type-options", "nosniff")
            .with_header("cache-control", "no-cache"))
    }

    fn thumbnail(&self, entry: &Entry) -> Result<HttpResponse, Error> {
        let side = THUMBNAIL_SIDE.to_le_bytes();
        let payload = [&side[..], &side, &read_bounded(entry)?].concat();
        let png = self.host.service("demo/thumbnail", "resize", &payload)?;
        Ok(image_response("image/png", png))
    }
}

fn image_response(content_type: &str, body: Vec<u8>) -> HttpResponse {
    HttpResponse::new(200, content_type, body)
        .with_header("x-content-type-options", "nosniff")
        .with_header("cache-control", IMAGE_CACHE)
}

/// Reads an image; its size was checked at start, and is enforced again here.
fn read_bounded(entry: &Entry) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::failed(format!("the image of `{}`: {error}", entry.name));
    let file = File::open(&entry.image).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_IMAGE_BYTES {
        return Err(Error::Failed(format!("the image of `{}` has grown too large", entry.name)));
    }
    Ok(bytes)
}

export_plugin!(Gallery);
