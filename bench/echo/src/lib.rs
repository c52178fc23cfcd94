//! Answers what it is given.

use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};

/// The plugin. It keeps no state.
struct Echo;

impl Plugin for Echo {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "echo" => Ok(request.payload.to_vec()),
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }
}

export_plugin!(Echo);
