//! The sample plugin `demo/markdown`, version 2: its service `render` speaks JSON,
//! so plugins that require version 1 cannot use it.
//!
//! `{"markdown": "…", "extensions": ["tables"]}` is answered with
//! `{"html": "…", "title": "…" or null}`. Extensions are `tables`,
//! `strikethrough` and `smart-punctuation`; the list may be left out.

use demo_markdown_render::{Extension, render};
use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    markdown: String,
    #[serde(default)]
    extensions: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    html: String,
    title: Option<String>,
}

/// The plugin. It keeps no state.
pub struct Markdown;

impl Plugin for Markdown {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "render" => answer(request.payload),
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }
}

fn answer(payload: &[u8]) -> Result<Vec<u8>, Error> {
    let question: Question = serde_json::from_slice(payload).map_err(Error::invalid_input)?;
    let extensions = question
        .extensions
        .iter()
        .map(|name| {
            Extension::from_name(name)
                .ok_or_else(|| Error::invalid_input(format!("no extension `{name}`")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rendered =
        render(question.markdown.as_bytes(), &extensions).map_err(Error::invalid_input)?;
    serde_json::to_vec(&Answer { html: rendered.html, title: rendered.title })
        .map_err(Error::failed)
}

export_plugin!(Markdown);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    fn ask(payload: &str) -> Result<String, Error> {
        let host = TestHost::new();
        // SAFETY: the entry of this very crate, made by the macro.
        let plugin = unsafe { TestPlugin::from_table(modunest_plugin_v1(), &host, b"") }.unwrap();
        plugin.service("render", payload.as_bytes()).map(|b| String::from_utf8(b).unwrap())
    }

    #[test]
    fn json_goes_in_and_json_comes_out() {
        assert_eq!(
            ask(r##"{"markdown": "# Hi\n\n~~a~~", "extensions": ["strikethrough"]}"##).unwrap(),
            r#"{"html":"<h1>Hi</h1>\n<p><del>a</del></p>\n","title":"Hi"}"#
        );
        assert_eq!(ask(r#"{"markdown": ""}"#).unwrap(), r#"{"html":"","title":null}"#);
    }

    #[test]
    fn what_version_1_took_is_refused() {
        for payload in ["*hi*", "{}", r#"{"markdown": "", "x": 1}"#] {
            let error = ask(payload).unwrap_err();
            assert!(matches!(error, Error::InvalidInput(_)), "{payload}: {error}");
        }
        assert_eq!(
            ask(r#"{"markdown": "", "extensions": ["x"]}"#),
            Err(Error::InvalidInput("no extension `x`".into()))
        );
    }
}
