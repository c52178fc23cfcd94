//! The gateway over real sockets, with a real plugin, users and an issuer.

mod issuer;
mod limits;
mod pressure;
mod reload;
mod sockets;
mod streams;
mod users;

use modunest_agent::Agent;
use modunest_agent::config::Config;
use tempfile::TempDir;

use crate::plugins::{library_of, release_of};
use crate::registry::Registry;

/// `demo/front` at `/front`, which calls `demo/back`'s service `who`; and `demo/other` at
/// `/other`.
pub struct Setup {
    pub registry: Registry,
    pub folder: TempDir,
    pub config: Config,
}

pub async fn setup() -> Setup {
    setup_with(&[]).await
}

/// The same, with more macros for the plugin.
pub async fn setup_with(macros: &[&str]) -> Setup {
    let registry = Registry::start().await;
    let who = "\n[[service]]\nname = \"who\"\nversion = \"1.0.0\"\n";
    registry.publish(release_of("demo/back", "1.0.0", library(&["ROUTE=\"\""]), who));
    let uses = "\n[dependencies]\n\"demo/back\" = \"^1\"\n\n[[import]]\nplugin = \"demo/back\"\nservice = \"who\"\n";
    let front = uses.to_owned() + &route("/front");
    registry.publish(release_of("demo/front", "1.0.0", front_library(macros), &front));
    let other = library(&["ROUTE=\"/other\""]);
    registry.publish(release_of("demo/other", "1.0.0", other, &route("/other")));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/front", "^1"), ("demo/other", "^1")];
    let config = registry.config(folder.path(), &wanted);
    Setup { registry, folder, config }
}

fn library(macros: &[&str]) -> Vec<u8> {
    library_of("gateway.c", macros)
}

fn front_library(macros: &[&str]) -> Vec<u8> {
    let own = ["ROUTE=\"/front\"", "PLUGIN=\"demo/back\""];
    library(&own.iter().chain(macros).copied().collect::<Vec<_>>())
}

/// Manifest lines of a route that takes everything.
fn route(path: &str) -> String {
    format!(
        "\n[[route]]\npath = \"{path}\"\nmethods = [\"GET\", \"POST\"]\nstream = [\"upload\", \"websocket\"]\n"
    )
}

pub fn url(agent: &Agent, path: &str) -> String {
    format!("http://{}{path}", agent.gateway_addr())
}
