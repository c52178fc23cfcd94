//! A plugin that panics: when a route of it is called, or already when it is made, if its
//! configuration says so.

use modunest_sdk::{Error, Host, HttpRequest, HttpResponse, Plugin, Request, export_plugin};

/// The plugin.
pub struct Panics;

impl Plugin for Panics {
    fn create(_host: Host, config: &[u8]) -> Result<Self, Error> {
        assert!(config.is_empty(), "told to panic while being made");
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        panic!("told to panic in service {}", request.target)
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        panic!("told to panic at {}", request.path)
    }
}

export_plugin!(Panics);
