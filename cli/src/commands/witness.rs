//! `modunest witness`: cosigns the checkpoints of logs that only grow.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use modunest_runtime::shutdown::StopSignals;
use modunest_tlog::{KeyName, Policy, VerifyingKey, WitnessSigningKey};
use serde::Serialize;
use tokio::net::TcpListener;

use super::Context;
use crate::error::Error;
use crate::files;
use crate::witness::{Witness, router};

/// What to do as a witness.
#[derive(Subcommand)]
pub enum Command {
    /// Serve the witness protocol (c2sp.org/tlog-witness): cosign what proves to continue what
    /// was cosigned before
    Serve(Serve),
    /// Make and show witness keys
    #[command(subcommand)]
    Key(KeyCommand),
}

/// How to serve.
#[derive(Args)]
pub struct Serve {
    /// The witness's key, made by `modunest witness key new`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Folder for what must survive: keep it, and never run two witnesses with one key
    #[arg(long, value_name = "DIR", default_value = "witness-state")]
    state: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7890")]
    listen: SocketAddr,
    /// Key of a log to witness, as name+hash+base64; its name is the log's origin
    #[arg(long = "log", value_name = "KEY")]
    logs: Vec<VerifyingKey>,
    /// Witness the logs of this policy file (c2sp.org/tlog-policy) too
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// What to do with witness keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a key and write it to a file that only you can read
    New {
        /// The witness's name, such as witness.example.org
        name: KeyName,
        /// Where to write it
        #[arg(long, value_name = "FILE", default_value = "witness.key")]
        out: PathBuf,
    },
    /// Show the public half of a key file
    Show {
        /// The key file
        file: PathBuf,
    },
}

#[derive(Serialize)]
struct ShownKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    key: String,
}

#[derive(Serialize)]
struct Started {
    url: String,
    name: String,
    key: String,
    logs: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Why it failed.
pub async fn run(context: &Context, command: Command) -> Result<(), Error> {
    match command {
        Command::Serve(arguments) => serve(context, arguments).await,
        Command::Key(KeyCommand::New { name, out }) => {
            let key = WitnessSigningKey::from_seed(name, &modunest_runtime::random::bytes());
            files::create_secret(&out, &format!("{}\n", key.expose()))?;
            let shown = ShownKey { file: Some(out), key: key.witness_key().to_string() };
            context.output.print(&shown, |shown| {
                let file = shown.file.as_deref().unwrap_or(Path::new("")).display().to_string();
                format!(
                    "wrote {file}; keep it secret, on one machine\npublic key: {}\nnext: modunest \
                     witness serve --key {file} --log KEY-OF-THE-LOG",
                    shown.key
                )
            })
        }
        Command::Key(KeyCommand::Show { file }) => {
            let shown = ShownKey { key: read_key(&file)?.witness_key().to_string(), file: None };
            context.output.print(&shown, |shown| shown.key.clone())
        }
    }
}

async fn serve(context: &Context, arguments: Serve) -> Result<(), Error> {
    let key = read_key(&arguments.key)?;
    let mut logs = arguments.logs;
    if let Some(file) = &arguments.policy {
        logs.extend(read_policy(file)?.logs.into_iter().map(|log| log.key));
    }
    if logs.is_empty() {
        return Err(Error::Usage(
            "name the logs to witness: --log KEY for each, or --policy FILE".to_owned(),
        ));
    }
    let witness = Arc::new(Witness::open(key, logs, &arguments.state)?);
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        Error::Failed(format!(
            "cannot listen at {}: {error}. Choose another address with --listen",
            arguments.listen
        ))
    })?;
    let address = listener.local_addr().map_err(Error::file("socket"))?;
    let mut stop = StopSignals::catch().map_err(Error::file("signals"))?;
    let started = Started {
        url: format!("http://{address}/"),
        name: witness.key().name().to_string(),
        key: witness.key().to_string(),
        logs: witness.origins().map(str::to_owned).collect(),
    };
    context.output.print(&started, |started| {
        format!(
            "witness    {}\nkey        {}\nlogs       {}\nfor a policy:\nwitness {} {} {}",
            started.url,
            started.key,
            started.logs.join(", "),
            started.name,
            started.key,
            started.url,
        )
    })?;
    modunest_edge::native::serve(listener, router(witness), stop.received())
        .await
        .map_err(|error| Error::Failed(format!("the server failed: {error}")))
}

fn read_key(file: &Path) -> Result<WitnessSigningKey, Error> {
    files::read_secret(file)?
        .parse()
        .map_err(|error| Error::Input(format!("{}: {error}", file.display())))
}

/// Reads a policy file (<https://c2sp.org/tlog-policy>).
///
/// # Errors
/// When it cannot be read or is no policy, with the line.
pub fn read_policy(file: &Path) -> Result<Policy, Error> {
    let bytes = std::fs::read(file).map_err(Error::file(file))?;
    Policy::parse(&bytes).map_err(|error| Error::Input(format!("{}: {error}", file.display())))
}
