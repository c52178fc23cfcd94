//! `secret`: values of the configuration that only this host can read.

use std::io::Read as _;

use clap::{Args, Subcommand};
use modunest_agent::secrets::{HostKey, PublicKey, SECRET_MAX_BYTES, SecretError};
use modunest_agent::{Config, EXIT_OK, Error};
use modunest_core::name::PluginName;
use serde_json::json;
use zeroize::Zeroizing;

use super::print;

#[derive(Subcommand)]
pub(super) enum SecretCommand {
    /// Make this host's key, once, in the state folder
    Init,
    /// Print this host's public key, for sealing elsewhere
    Public,
    /// Read a secret from standard input and print it sealed, for one plugin's configuration
    Seal(SealArguments),
}

#[derive(Args)]
pub(super) struct SealArguments {
    /// The plugin whose configuration it is for
    #[arg(long)]
    plugin: PluginName,
    /// Public key of the host it is for; this host's own if none is given
    #[arg(long, value_name = "PUBLIC_KEY")]
    host: Option<String>,
}

pub(super) fn run(config: &Config, command: &SecretCommand, json: bool) -> Result<u8, Error> {
    match command {
        SecretCommand::Init => public(&HostKey::create(&config.state_dir)?.public(), json)?,
        SecretCommand::Public => public(&HostKey::open(&config.state_dir)?.public(), json)?,
        SecretCommand::Seal(arguments) => {
            let to = match &arguments.host {
                Some(text) => text.parse()?,
                None => HostKey::open(&config.state_dir)?.public(),
            };
            let sealed = to.seal(&arguments.plugin, &secret()?)?;
            print::text_or_json(json, &sealed, &json!({ "sealed": sealed }))?;
        }
    }
    Ok(EXIT_OK)
}

fn public(key: &PublicKey, json: bool) -> Result<(), Error> {
    print::text_or_json(json, &key.to_string(), &json!({ "public_key": key.to_string() }))
}

/// Standard input whole, without the line's end that an editor or `echo` puts there.
fn secret() -> Result<Zeroizing<Vec<u8>>, Error> {
    // One byte more tells that it is too long. Reserved whole: growing would leave copies.
    let limit = SECRET_MAX_BYTES + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    let input = std::io::stdin().lock().take(limit as u64);
    { input }.read_to_end(&mut bytes).map_err(Error::Input)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(SecretError::Secret.into());
    }
    Ok(bytes)
}
