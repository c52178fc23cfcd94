//! `modunest trust`: the ceremonies of a registry's trust root, on a folder of files that is
//! exactly what is uploaded below `/trust/`.
//!
//! Root keys stay with their holders. A ceremony that lacks signatures leaves drafts beside the
//! folder; the two folders go from holder to holder, and each runs `modunest trust sign`.

pub mod ceremony;
pub mod folder;
mod keys;
mod kms;
mod show;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use modunest_core::digest::Digest;
use modunest_core::statement::RegistryKeys;
use modunest_core::trust::{Config, PublicKey, RoleKeys, TrustPolicy, WitnessPolicy};
use modunest_tlog::{KeyName, VerifyingKey};
use serde::Serialize;

use super::Context;
use crate::error::Error;
use ceremony::{Founders, Missing, Report};
use folder::Folder;
use kms::Given;

/// The policy that asks for nobody's cosignature (C2SP tlog-policy).
pub const NO_WITNESSES: &str = "quorum none\n";

/// What to do with a trust root.
#[derive(Subcommand)]
pub enum Command {
    /// Make and show keys of the trust root
    #[command(subcommand)]
    Key(Key),
    /// Print a trust configuration for these keys, to be edited and then signed
    Template(Box<Template>),
    /// Make the first root, with its configuration
    Create(Box<Create>),
    /// Replace one key by another, in every role that it has
    Rotate {
        #[command(flatten)]
        at: At,
        /// The key that goes: its identifier, or a file with its public half
        #[arg(long, value_name = "KEY")]
        old: String,
        /// The key that comes: a file with either half
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
    },
    /// Make a new root: with other holders, or with the same ones for another year
    ReplaceRoot {
        #[command(flatten)]
        at: At,
        /// A holder's key, either half; once for each holder [default: the present ones]
        #[arg(long = "root-key", value_name = "FILE")]
        root_keys: Vec<PathBuf>,
        /// How many of the holders must sign [default: more than half of new ones, or as before]
        #[arg(long)]
        threshold: Option<usize>,
    },
    /// Sign what waits for signatures, and finish the ceremony if none is missing any more
    Sign {
        #[command(flatten)]
        at: At,
    },
    /// Name another configuration
    Config {
        #[command(flatten)]
        at: At,
        /// The new configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Sign snapshot and timestamp anew with the online key, if that is due
    Refresh {
        #[command(flatten)]
        at: At,
    },
    /// After the online key was stolen: give its roles to a new one
    ///
    /// Bring the folder up to date first (download what is below /trust/): file names of
    /// snapshots must not come back with other content. What the thief signed may be among it.
    Recover {
        #[command(flatten)]
        at: At,
        /// The new online key, either half
        #[arg(long, value_name = "FILE")]
        online_key: PathBuf,
    },
    /// Show a trust root in words, and whether a new host would believe it
    Show {
        /// The folder
        #[arg(long, default_value = "trust", value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// Keys of the trust root.
#[derive(Subcommand)]
pub enum Key {
    /// Make a key: FILE for its holder only, and FILE.pub for everybody
    New {
        /// Where to write it
        file: PathBuf,
    },
    /// Show a key's identifier
    Show {
        /// A file with either half
        file: PathBuf,
    },
}

/// Where a ceremony takes place, and who is there.
#[derive(Args)]
pub struct At {
    /// The folder
    #[arg(long, default_value = "trust", value_name = "FOLDER")]
    folder: PathBuf,
    /// A private key to sign with; once for each
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

/// The keys of a configuration.
#[derive(Args)]
pub struct Template {
    /// The registry's name
    #[arg(long)]
    origin: KeyName,
    /// Signs the log's checkpoints: its public half, or kms:ARN for a key in AWS KMS
    #[arg(long, value_name = "KEY")]
    log_key: Given,
    /// Signs the head: likewise
    #[arg(long, value_name = "KEY")]
    head_key: Given,
    /// Signs what the registry says
    #[arg(long, value_name = "KEY")]
    statement_key: VerifyingKey,
    /// Who witnesses the log (C2SP tlog-policy) [default: nobody]
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
}

/// How a first root is made.
#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    at: At,
    /// A holder's key; once for each. Private halves sign at once
    #[arg(long = "root-key", required = true, value_name = "FILE")]
    root_keys: Vec<PathBuf>,
    /// How many of the holders must sign [default: more than half]
    #[arg(long)]
    threshold: Option<usize>,
    /// A key that signs configurations; once for each [default: the holders]
    #[arg(long = "targets-key", value_name = "FILE")]
    targets_keys: Vec<PathBuf>,
    /// How many of these must sign [default: more than half]
    #[arg(long, requires = "targets_keys")]
    targets_threshold: Option<usize>,
    /// The key that signs snapshots and timestamps
    #[arg(long, value_name = "FILE")]
    online_key: PathBuf,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Why it failed.
pub async fn run(context: &Context, command: Command) -> Result<(), Error> {
    let now = modunest_runtime::clock::now();
    match command {
        Command::Key(command) => key(context, command),
        Command::Template(template) => {
            let log = template.log_key.public(&template.origin).await?;
            let head = template.head_key.public(&template.origin).await?;
            let config = template.config(log, head)?;
            let text = String::from_utf8(config.to_bytes())
                .map_err(|error| Error::Failed(error.to_string()))?;
            context.output.print(&config_json(&config)?, |_| text.trim_end().to_owned())
        }
        Command::Show { folder } => show::run(context, &Folder::new(&folder), now).await,
        Command::Create(create) => {
            let config = ceremony::read_config_file(&create.config)?;
            let root = keys::read(&create.root_keys)?;
            let targets = keys::read(&create.targets_keys)?;
            let online = keys::read(std::slice::from_ref(&create.online_key))?;
            let at_hand = keys::read_signing(&create.at.keys)?;
            let signing = [&root, &targets, &online]
                .into_iter()
                .flatten()
                .filter_map(|key| key.private.clone())
                .chain(at_hand)
                .collect::<Vec<_>>();
            let publics =
                |keys: &[keys::Named]| keys.iter().map(|key| key.public).collect::<Vec<_>>();
            let threshold = create.threshold.unwrap_or(majority(root.len()));
            let founders = Founders {
                root: publics(&root),
                threshold,
                targets: if targets.is_empty() {
                    (publics(&root), threshold)
                } else {
                    let threshold = create.targets_threshold.unwrap_or(majority(targets.len()));
                    (publics(&targets), threshold)
                },
                online: publics(&online),
            };
            let folder = Folder::new(&create.at.folder);
            report(context, &folder, &ceremony::create(&folder, &founders, &config, &signing, now)?)
        }
        Command::Rotate { at, old, new } => {
            let (folder, mut signing) = at.open()?;
            let new = keys::read(std::slice::from_ref(&new))?.remove(0);
            signing.extend(new.private);
            let old = identifier(&old)?;
            report(context, &folder, &ceremony::rotate(&folder, old, &new.public, &signing, now)?)
        }
        Command::ReplaceRoot { at, root_keys, threshold } => {
            let (folder, mut signing) = at.open()?;
            let holders = keys::read(&root_keys)?;
            signing.extend(holders.iter().filter_map(|key| key.private.clone()));
            let holders: Vec<PublicKey> = holders.iter().map(|key| key.public).collect();
            let change = |roles: &mut modunest_core::trust::Roles| {
                // Where the holders sign configurations too, the new ones do.
                let same = roles.targets.keyids == roles.root.keyids;
                if !holders.is_empty() {
                    roles.root = RoleKeys::new(&holders, majority(holders.len()));
                }
                roles.root.threshold = threshold.unwrap_or(roles.root.threshold);
                if same {
                    roles.targets = roles.root.clone();
                }
            };
            let done = ceremony::change_root(&folder, &holders, change, &signing, now)?;
            report(context, &folder, &done)
        }
        Command::Sign { at } | Command::Refresh { at } => {
            let (folder, signing) = at.open()?;
            report(context, &folder, &ceremony::settle(&folder, &signing, now)?)
        }
        Command::Config { at, config } => {
            let (folder, signing) = at.open()?;
            let config = ceremony::read_config_file(&config)?;
            report(context, &folder, &ceremony::configure(&folder, &config, &signing, now)?)
        }
        Command::Recover { at, online_key } => {
            let (folder, mut signing) = at.open()?;
            let new = keys::read(std::slice::from_ref(&online_key))?.remove(0);
            signing.extend(new.private);
            let change = |roles: &mut modunest_core::trust::Roles| {
                roles.snapshot = RoleKeys::new([&new.public], 1);
                roles.timestamp = roles.snapshot.clone();
            };
            let done = ceremony::change_root(&folder, &[new.public], change, &signing, now)?;
            report(context, &folder, &done)
        }
    }
}

/// More than half.
const fn majority(count: usize) -> usize {
    count / 2 + 1
}

impl At {
    fn open(&self) -> Result<(Folder, Vec<modunest_core::trust::SigningKey>), Error> {
        Ok((Folder::new(&self.folder), keys::read_signing(&self.keys)?))
    }
}

impl Template {
    fn config(&self, log: VerifyingKey, head: VerifyingKey) -> Result<Config, Error> {
        let witnesses = match &self.witness_policy {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
                WitnessPolicy::parse(text)
                    .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?
            }
            None => WitnessPolicy::parse(NO_WITNESSES.to_owned())
                .map_err(|error| Error::Failed(error.to_string()))?,
        };
        let config = Config {
            origin: self.origin.clone(),
            log_key: log,
            head_keys: RegistryKeys::in_use([head]),
            statement_keys: RegistryKeys::in_use([self.statement_key.clone()]),
            witnesses,
            policy: TrustPolicy::default(),
        };
        // Whatever the rules refuse is refused here, and not only when it is signed.
        Config::parse(&config.to_bytes()).map_err(|error| Error::Usage(error.to_string()))
    }
}

fn config_json(config: &Config) -> Result<serde_json::Value, Error> {
    serde_json::from_slice(&config.to_bytes()).map_err(|error| Error::Failed(error.to_string()))
}

#[derive(Serialize)]
struct Shown {
    key: Digest,
    files: Vec<PathBuf>,
}

fn key(context: &Context, command: Key) -> Result<(), Error> {
    match command {
        Key::New { file } => {
            let (public, beside) = keys::create(&file)?;
            let shown = Shown { key: public.id(), files: vec![file, beside] };
            context.output.print(&shown, |shown| {
                let [private, public] = [0, 1].map(|at| shown.files[at].display());
                format!(
                    "wrote {private}; keep it secret and off the network, and keep a copy\n\
                     wrote {public}; whoever makes the root needs it\nkey {}",
                    shown.key
                )
            })
        }
        Key::Show { file } => {
            let key = keys::read(std::slice::from_ref(&file))?.remove(0).public.id();
            context.output.print(&Shown { key, files: vec![file] }, |shown| shown.key.to_hex())
        }
    }
}

/// A key by its identifier or by a file.
fn identifier(text: &str) -> Result<Digest, Error> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(keys::read(&[PathBuf::from(text)])?.remove(0).public.id()),
    }
}

fn report(context: &Context, folder: &Folder, report: &Report) -> Result<(), Error> {
    context.output.print(report, |report| words(folder, report))
}

fn words(folder: &Folder, report: &Report) -> String {
    let mut lines = Vec::new();
    let at = folder.path().display();
    if !report.upload.is_empty() {
        lines.push(format!("wrote into {at}; upload below /trust/, in this order:"));
        lines.extend(report.upload.iter().map(|file| format!("  {file}")));
    }
    for waiting in &report.waiting {
        lines.push(format!("{} waits for signatures", waiting.file));
        lines.extend(waiting.signed.iter().map(|id| format!("  signed by {id}")));
        for Missing { signatures, of } in &waiting.missing {
            lines.push(format!("  {signatures} more of:"));
            lines.extend(of.iter().map(|id| format!("    {id}")));
        }
    }
    if !report.waiting.is_empty() {
        let drafts = folder.drafts();
        lines.push(format!(
            "next: whoever holds one of these keys takes {at} and {}, and runs\n  modunest trust sign --folder {at} --key FILE",
            drafts.path().display()
        ));
    } else if report.refresh {
        lines.push(format!(
            "next: where the online key is, run\n  modunest trust refresh --folder {at} --key FILE"
        ));
    } else if report.upload.is_empty() {
        lines.push("nothing is due".to_owned());
    }
    lines.join("\n")
}
