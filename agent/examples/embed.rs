//! A program with a plugin host inside: it starts one from a configuration file, calls a service
//! of a plugin from Rust, hears what happens, forbids what it does not want, and stops.
//!
//! ```sh
//! cargo run -p modunest-agent --example embed -- agent.toml demo/markdown render '# Hello'
//! ```

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
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

/// Starts a host, calls `plugin`'s `service` with `payload`, and writes what it hears to `out`.
pub async fn run(
    config: PathBuf,
    (plugin, service, payload): (&str, &str, &[u8]),
    out: &mut (dyn Write + Send),
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
    agent.shutdown().await;
    for line in hears {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "answer: {}", String::from_utf8_lossy(&answer?))?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, plugin, service, payload] = arguments.as_slice() else {
        return Err("usage: embed <agent.toml> <org/plugin> <service> <payload>".into());
    };
    let call = (plugin.as_str(), service.as_str(), payload.as_bytes());
    run(config.into(), call, &mut std::io::stdout()).await
}
