//! The plugin `{{name}}`: answers the route `/{{short}}`.

use modunest_sdk::{Error, Host, HttpRequest, HttpResponse, Plugin, export_plugin};

/// The plugin. Calls come from several threads at once, so state needs a lock.
pub struct {{type}};

impl Plugin for {{type}} {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let text = format!("hello from {}\n", request.path);
        Ok(HttpResponse::new(200, "text/plain; charset=utf-8", text))
    }
}

export_plugin!({{type}});

#[cfg(test)]
mod tests {
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    #[test]
    fn says_hello() {
        let plugin = TestPlugin::new::<{{type}}>(&TestHost::new(), b"").unwrap();
        let answer = plugin.http(HttpRequest::get("/{{short}}")).unwrap();
        assert_eq!((answer.status, answer.body), (200, b"hello from /{{short}}\n".to_vec()));
    }
}
