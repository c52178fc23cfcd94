//! The sample plugin `demo/markdown`, version 1: its service `render` takes
//! Markdown bytes and answers sanitised HTML bytes.

use demo_markdown_render::render;
use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};

/// The plugin. It keeps no state.
pub struct Markdown;

impl Plugin for Markdown {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "render" => match render(request.payload, &[]) {
                Ok(rendered) => Ok(rendered.html.into_bytes()),
                Err(error) => Err(Error::invalid_input(error)),
            },
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }
}

export_plugin!(Markdown);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    fn plugin() -> TestPlugin {
        // SAFETY: the entry of this very crate, made by the macro.
        unsafe { TestPlugin::from_table(modunest_plugin_v1(), &TestHost::new(), b"") }.unwrap()
    }

    #[test]
    fn markdown_goes_in_and_html_comes_out() {
        let html = plugin().service("render", b"*hi* <script>x</script>").unwrap();
        assert_eq!(String::from_utf8(html).unwrap(), "<p><em>hi</em> </p>\n");
    }

    #[test]
    fn bad_input_and_unknown_services_are_refused() {
        let plugin = plugin();
        assert_eq!(
            plugin.service("render", b"\xff"),
            Err(Error::InvalidInput("the text is not UTF-8 from byte 0 on".into()))
        );
        assert_eq!(plugin.service("x", b""), Err(Error::NotFound("no service `x`".into())));
        plugin.health().unwrap();
    }
}
