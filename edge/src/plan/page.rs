//! The page for people who open the registry in a browser.

use std::fmt::Write as _;

use modunest_core::api::Discovery;
use modunest_core::keys::{DISCOVERY_PATH, HEALTH_PATH, ObjectKey, READY_PATH};

/// System fonts, both colour schemes, nothing to fetch: see the page's content policy.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1d21;--soft:#5d6670;--line:#e2e5e9;--page:#fbfbfa;\
--card:#fff;--link:#0b5cad}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ad;--line:#2c3238;\
--page:#14171a;--card:#1b1f23;--link:#7db7f0}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 system-ui,sans-serif}\
main{max-width:44rem;margin:0 auto;padding:4rem 1.25rem}\
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .75rem;letter-spacing:-.01em}\
h2{font-size:1rem;margin:2.25rem 0 .5rem}\
p{margin:0 0 1rem;color:var(--soft)}\
a{color:var(--link)}\
code{font:.875rem/1.6 ui-monospace,monospace;overflow-wrap:anywhere}\
ul{list-style:none;margin:0;padding:0;background:var(--card);border:1px solid var(--line);\
border-radius:.5rem}\
li{padding:.6rem 1rem}\
li+li{border-top:1px solid var(--line)}\
li span{display:block;color:var(--soft);font-size:.875rem}";

/// The page: what this is, who it says it is, and where to look next.
pub fn home_page(discovery: &Discovery) -> String {
    let origin = Escaped(&discovery.origin);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{origin} · Modu-Nest</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{origin}</h1>\n\
         <p>A Modu-Nest plugin registry. Everything below is a file: agents fetch it and prove \
         every byte against the keys in their own configuration.</p>\n\
         <h2>Keys</h2>\n<ul>\n"
    );
    for key in &discovery.keys {
        push(&mut page, format_args!("<li><code>{}</code></li>\n", Escaped(key)));
    }
    if discovery.keys.is_empty() {
        page.push_str("<li>None announced.</li>\n");
    }
    page.push_str("</ul>\n<h2>Files</h2>\n<ul>\n");
    let head = ObjectKey::Head.path();
    for (path, what) in [
        (DISCOVERY_PATH, "Discovery: protocols, addresses, keys"),
        (head.as_str(), "Head of the index, signed"),
        (HEALTH_PATH, "Whether this process is alive"),
        (READY_PATH, "Whether what it depends on answers"),
    ] {
        let line = format_args!(
            "<li><a href=\"{path}\"><code>{path}</code></a><span>{what}</span></li>\n"
        );
        push(&mut page, line);
    }
    push(
        &mut page,
        format_args!(
            "</ul>\n<h2>API</h2>\n<ul>\n<li><code>{}</code></li>\n</ul>\n</main>\n</body>\n</html>\n",
            Escaped(&discovery.api)
        ),
    );
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _always_ok = page.write_fmt(text);
}

/// Text inside an element or a quoted attribute (HTML standard, section 13.3).
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_text_and_never_markup() {
        let page = home_page(&Discovery {
            protocols: vec![1],
            origin: "<script>alert('1')</script>".to_owned(),
            api: "http://127.0.0.1:1/v1/?a&b".to_owned(),
            files: "http://127.0.0.1:1/".to_owned(),
            keys: vec!["local.modunest+00aa11bb+\"AQ==\"".to_owned()],
        });
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"));
        assert!(page.contains("local.modunest+00aa11bb+&quot;AQ==&quot;"));
        assert!(page.contains("/v1/?a&amp;b"));
        assert!(page.contains("href=\"/.well-known/modunest.json\""));
    }
}
