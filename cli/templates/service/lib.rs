//! The plugin `{{name}}`: exports the service `shout`.

use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};

/// The plugin. Calls come from several threads at once, so state needs a lock.
pub struct {{type}};

impl Plugin for {{type}} {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "shout" => Ok(request.payload.to_ascii_uppercase()),
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }
}

export_plugin!({{type}});

#[cfg(test)]
mod tests {
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    #[test]
    fn shouts() {
        let plugin = TestPlugin::new::<{{type}}>(&TestHost::new(), b"").unwrap();
        assert_eq!(plugin.service("shout", b"hello").unwrap(), b"HELLO");
        assert!(plugin.service("whisper", b"hello").is_err());
    }
}
