//! The sample plugin `demo/visits`: counts which pictures of `demo/gallery` are opened.
//!
//! It receives the gallery's event `opened`, shows the counts at `/visits`, and lets its guard
//! `same-site` stand before `/visits/reset`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modunest_sdk::{
    Decision, Error, GuardRequest, Host, HttpRequest, HttpResponse, Plugin, Request, export_plugin,
};
use serde::Deserialize;

/// Most pictures that are counted; a gallery has at most 100.
const MAX_PICTURES: usize = 1000;

/// The plugin: how often each picture was opened.
pub struct Visits {
    counts: Mutex<BTreeMap<String, u64>>,
}

/// The event `opened` of `demo/gallery`. The host has held it against the gallery's schema.
#[derive(Deserialize)]
struct Opened {
    picture: String,
}

impl Plugin for Visits {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self { counts: Mutex::default() })
    }

    fn event(&self, request: Request<'_>) -> Result<(), Error> {
        if request.target != "opened" {
            return Err(Error::Unsupported(format!("no handler for event `{}`", request.target)));
        }
        let Opened { picture } =
            serde_json::from_slice(request.payload).map_err(Error::invalid_input)?;
        let mut counts = self.counts();
        if counts.len() >= MAX_PICTURES && !counts.contains_key(&picture) {
            return Err(Error::InvalidInput(format!("more than {MAX_PICTURES} pictures")));
        }
        *counts.entry(picture).or_default() += 1;
        Ok(())
    }

    fn guard(&self, request: GuardRequest) -> Result<Decision, Error> {
        if request.guard != "same-site" {
            return Err(Error::Unsupported(format!("no guard `{}`", request.guard)));
        }
        // Whoever is no browser sends no such header, and is nobody's unwitting hand.
        let site = request.http.as_ref().and_then(|http| http.header("sec-fetch-site"));
        Ok(match site {
            None | Some("same-origin" | "none") => Decision::Allow,
            Some(site) => Decision::Deny(format!("a {site} request")),
        })
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let path = request.path.trim_end_matches('/');
        match (request.method.as_str(), path) {
            ("GET", "/visits") => {
                let mut text = String::new();
                for (picture, count) in self.counts().iter() {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{count} {picture}");
                }
                let response = HttpResponse::new(200, "text/plain; charset=utf-8", text);
                Ok(response.with_header("cache-control", "no-store"))
            }
            ("POST", "/visits/reset") => {
                self.counts().clear();
                Ok(HttpResponse::new(200, "text/plain; charset=utf-8", "counting anew\n"))
            }
            _ => Err(Error::not_found(format!("nothing at {}", request.path))),
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&*self.counts()).map_err(Error::failed)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        if !snapshot.is_empty() {
            *self.counts() = serde_json::from_slice(snapshot).map_err(Error::invalid_input)?;
        }
        Ok(())
    }
}

impl Visits {
    /// A panic while the counts were held leaves them whole.
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

export_plugin!(Visits);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    fn plugin() -> TestPlugin {
        // SAFETY: the entry of this very crate, made by the macro.
        unsafe { TestPlugin::from_table(modunest_plugin_v1(), &TestHost::new(), b"") }.unwrap()
    }

    fn shown(plugin: &TestPlugin) -> String {
        let response = plugin.http(HttpRequest::get("/visits")).unwrap();
        String::from_utf8(response.body).unwrap()
    }

    #[test]
    fn pictures_are_counted_over_a_reload_until_somebody_resets() {
        let first = plugin();
        for picture in ["dunes", "hills", "dunes"] {
            first.event("opened", format!("{{\"picture\":\"{picture}\"}}").as_bytes()).unwrap();
        }
        assert!(first.event("opened", b"dunes").is_err());
        assert!(first.event("closed", b"{}").is_err());
        assert_eq!(shown(&first), "2 dunes\n1 hills\n");
        let second = plugin();
        second.restore(&first.snapshot().unwrap()).unwrap();
        assert_eq!(shown(&second), shown(&first));
        let reset = HttpRequest { method: "POST".into(), ..HttpRequest::get("/visits/reset") };
        second.http(reset).unwrap();
        assert_eq!(shown(&second), "");
    }

    #[test]
    fn the_guard_denies_what_other_sites_send() {
        let decide = |site: Option<&str>| {
            let mut request = HttpRequest::get("/visits/reset");
            request.headers.extend(site.map(|site| ("sec-fetch-site".into(), site.to_owned())));
            let asked = GuardRequest::route("demo/visits", "/visits/reset", request);
            plugin().guard("same-site", &asked).unwrap()
        };
        assert_eq!(decide(None), Decision::Allow);
        assert_eq!(decide(Some("same-origin")), Decision::Allow);
        assert_eq!(decide(Some("cross-site")), Decision::Deny("a cross-site request".into()));
        let asked = GuardRequest::service("demo/visits", "x", "demo/gallery", None);
        assert!(plugin().guard("other", &asked).is_err());
    }
}
