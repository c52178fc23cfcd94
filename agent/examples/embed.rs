//! A program with a plugin host inside: it starts one from a configuration file, calls a service
//! of a plugin from Rust, hears what happens, forbids what it does not want, and stops.
//!
//! ```sh
//! cargo run -p modunest-agent --example embed -- agent.toml demo/markdown render '# Hello'
//! ```
//!
//! `docs/embedding.md` says where such an `agent.toml` comes from.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;

use modunest_agent::Agent;
use modunest_agent::embed::{ConfigFile, Event, FixedEnvironment, LoadAsk, Permissions};

/// Forbids plugins that want to reach the network, whatever the configuration grants.
struct NoNetwork;

impl Permissions for NoNetwork {
    fn load(&self, ask: &LoadAsk<'_>) -> Result<(), String> {
        match ask.capabilities.iter().find(|capability| capability.starts_with("http:")) {
            Some(capability) => Err(format!("{} asks for {capability}", ask.plugin)),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    // First of all, before any thread: the host starts this program again for plugins' processes.
    if let Some(code) = modunest_agent::runner::run_if_asked() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [config, plugin, service, payload] => run(config.into(), plugin, service, payload),
        _ => Err("usage: embed <agent.toml> <org/plugin> <service> <payload>".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a host, calls `plugin`'s `service` with `payload`, and prints what it hears.
#[tokio::main]
async fn run(
    config: PathBuf,
    plugin: &str,
    service: &str,
    payload: &str,
) -> Result<(), Box<dyn Error>> {
    let (heard, hears) = channel();
    let agent = Agent::builder(ConfigFile(config))
        // An observer hands on; it runs on the thread on which things happen.
        .observer(move |event: &Event<'_>| {
            let line = match event {
                Event::Plugin { plugin, version, state, reason } => {
                    let why = reason.map(|why| format!(": {why}")).unwrap_or_default();
                    format!("{plugin} {version} is {}{why}", state.as_str())
                }
                Event::Call { plugin, target, outcome, .. } => {
                    format!("{plugin} {target} was called and {}", outcome.as_str())
                }
                Event::Generation { number, plugins, ready } => {
                    format!("generation {number} serves: {ready} of {plugins} plugins are ready")
                }
                other => format!("{other:?}"),
            };
            // Fails only when nobody listens any more.
            let _ = heard.send(line);
        })
        .permissions(NoNetwork)
        .environment(FixedEnvironment::new([("LANG", "C.UTF-8")]))
        .start()
        .await?;
    let answer = agent.call_service(plugin, service, payload).await;
    let status = agent.status();
    agent.shutdown().await;
    let mut out = std::io::stdout();
    for line in hears {
        writeln!(out, "{line}")?;
    }
    for one in status.plugins.iter().filter(|one| one.plugin == plugin) {
        writeln!(out, "it ran in the tier {}", one.tier)?;
    }
    writeln!(out, "answer: {}", String::from_utf8_lossy(&answer?))?;
    Ok(())
}
