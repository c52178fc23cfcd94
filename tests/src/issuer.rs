//! An issuer of users' tokens that nobody here wrote: npm's `oidc-provider`, started by
//! `peers/oidc/issuer.mjs`.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{Url, form_urlencoded};

use crate::client::{Client, answer};
use crate::process::Process;
use crate::tools;

/// Its only client: the name, and the secret.
const CLIENT: (&str, &str) = ("robot", "a-secret-of-the-robot");

/// How an issuer is to run.
#[derive(Clone, Debug)]
pub struct Setup {
    config: Value,
}

impl Setup {
    /// One whose key has this name, is made at the start, and signs by `algorithm`.
    pub fn new(key: &str, algorithm: &str) -> Setup {
        let client = json!({ "id": CLIENT.0, "secret": CLIENT.1 });
        let config = json!({ "key": key, "alg": algorithm, "client": client, "resources": {} });
        Setup { config }
    }

    /// With something that tokens are for. `settings` has its `audience` and `scope`; what else it
    /// may have stands at the top of the script.
    #[must_use]
    pub fn resource(mut self, indicator: &str, settings: Value) -> Setup {
        self.config["resources"][indicator] = settings;
        self
    }

    /// Where another one was.
    ///
    /// # Panics
    /// When that had no port.
    #[must_use]
    pub fn in_place_of(mut self, other: &Issuer) -> Setup {
        self.config["port"] = other.url.port().unwrap().into();
        self
    }

    /// Under the name of another one, which goes on.
    #[must_use]
    pub fn posing_as(mut self, other: &Issuer) -> Setup {
        self.config["issuer"] = other.name().into();
        self
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// When it does not, or something it needs is not there.
    pub async fn start(self) -> Issuer {
        let folder = TempDir::new().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/oidc/issuer.mjs");
        let mut command = Command::new(tools::node());
        command.arg(script).arg(self.config.to_string());
        command.env("MODUNEST_NODE_MODULES", tools::node_modules());
        let mut process = Process::start_with_input("issuer", command, folder.path());
        let ready = process.first_value().await;
        let url = ready["ready"].as_str().unwrap().parse().unwrap();
        Issuer { url, process, folder }
    }
}

/// A running issuer.
pub struct Issuer {
    /// Where it answers.
    pub url: Url,
    /// Its process.
    pub process: Process,
    #[allow(dead_code, reason = "removed when the issuer ends")]
    folder: TempDir,
}

impl Issuer {
    /// How its tokens name it, where it poses as no other.
    pub fn name(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A token of the client's own for a resource, by the client-credentials grant.
    ///
    /// # Panics
    /// When there is none, or one with another scope.
    pub async fn token(&self, resource: &str, scope: &str) -> String {
        let fields =
            [("grant_type", "client_credentials"), ("resource", resource), ("scope", scope)];
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Client::new(self.url.clone(), None).request(Method::POST, "token");
        let request = request.basic_auth(CLIENT.0, Some(CLIENT.1)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = answer(request).await.expect("the issuer to answer");
        let granted: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(granted["scope"], scope, "{granted:#}");
        granted["access_token"].as_str().unwrap().to_owned()
    }
}
