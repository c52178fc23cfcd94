//! `modunest key`: publisher keys.

use std::path::PathBuf;

use clap::Subcommand;
use modunest_core::api::{RegisterKey, RevokeKey, RotateKey, StatementResponse};
use modunest_core::name::OrgName;
use modunest_tlog::{KeyName, SigningKey};
use reqwest::Method;
use serde::Serialize;

use super::Context;
use crate::error::Error;
use crate::files;
use crate::profile::read_key;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Make a publisher key and write it to a file that only you can read
    New {
        /// The organisation that the key signs for
        #[arg(required_unless_present = "registry")]
        org: Option<OrgName>,
        /// Make the key of a whole registry, of this name, for whoever deploys one
        #[arg(long, value_name = "ORIGIN", conflicts_with = "org")]
        registry: Option<KeyName>,
        /// Where to write it [default: ORG.key, or registry.key]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Show the public half of a key file
    Show {
        /// The key file
        file: PathBuf,
    },
    /// Register a key with its organisation; needs an owner's token
    Register {
        /// The key file
        file: PathBuf,
    },
    /// Put a new key in the place of one that nobody stole; what that one signed stays good
    Rotate {
        /// The key file of the old key
        old: PathBuf,
        /// The key file of the new key, as `modunest key new` writes it
        new: PathBuf,
    },
    /// Revoke a key that was stolen or lost: everything it ever signed is refused from then on
    Revoke {
        /// The organisation
        org: OrgName,
        /// The key's hash: the eight digits behind its name
        hash: String,
        /// Why, for everybody to read
        #[arg(long)]
        reason: Option<String>,
        /// Yes, refuse every release that the key signed; there is no way back
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    file: Option<PathBuf>,
    key: String,
}

#[derive(Serialize)]
struct Rotated {
    key: String,
    replaces: String,
    epoch: u64,
}

#[derive(Serialize)]
struct Registered {
    key: String,
    epoch: u64,
}

/// Runs the command.
///
/// # Errors
/// Why it failed.
pub async fn run(context: &Context, command: Command) -> Result<(), Error> {
    match command {
        Command::New { org, registry, out } => {
            let (name, stem) = match (&org, &registry) {
                (Some(org), _) => (org.as_str(), org.as_str()),
                (None, Some(registry)) => (registry.as_str(), "registry"),
                (None, None) => return Err(Error::Usage("name an organisation".to_owned())),
            };
            let file = out.unwrap_or_else(|| PathBuf::from(format!("{stem}.key")));
            let key = generate(name)?;
            files::create_secret(&file, &format!("{}\n", key.expose()))?;
            let shown = Shown { file: Some(file), key: key.verifying_key().to_string() };
            context.output.print(&shown, |shown| {
                let file =
                    shown.file.as_deref().map(|f| f.display().to_string()).unwrap_or_default();
                let next = match registry {
                    Some(_) => format!("put {file} into the keys bucket, as docs/deploy.md says"),
                    None => format!("modunest key register {file}"),
                };
                format!(
                    "wrote {file}; keep it secret and keep a copy\npublic key: {}\nnext: {next}",
                    shown.key
                )
            })
        }
        Command::Show { file } => {
            let shown = Shown { key: read_key(&file)?.verifying_key().to_string(), file: None };
            context.output.print(&shown, |shown| shown.key.clone())
        }
        Command::Register { file } => {
            let key = read_key(&file)?;
            let org = org_of(&key)?;
            let answer: StatementResponse = context
                .api()?
                .send(Method::POST, &format!("/v1/orgs/{org}/keys"), &registration(&org, &key)?)
                .await?;
            let registered =
                Registered { key: key.verifying_key().to_string(), epoch: answer.epoch };
            context.output.print(&registered, |r| {
                format!("{} may sign for {org} from epoch {} on", r.key, r.epoch)
            })
        }
        Command::Rotate { old, new } => {
            let (old, new) = (read_key(&old)?, read_key(&new)?);
            let org = org_of(&old)?;
            let replaced = old.verifying_key();
            let hash = u32::from_be_bytes(replaced.hash());
            let path = format!("/v1/orgs/{org}/keys/{hash:08x}/rotate");
            let answer: StatementResponse =
                context.api()?.send(Method::POST, &path, &rotation(&org, &old, &new)?).await?;
            let rotated = Rotated {
                key: new.verifying_key().to_string(),
                replaces: replaced.to_string(),
                epoch: answer.epoch,
            };
            context.output.print(&rotated, |r| {
                format!(
                    "{} signs for {org} from epoch {} on\n{} signs nothing more; what it signed stays good",
                    r.key, r.epoch, r.replaces
                )
            })
        }
        Command::Revoke { org, hash, reason, yes } => {
            if !yes {
                return Err(Error::Usage(format!(
                    "a revoked key never comes back, and every host refuses every release that it \
                     signed, also those it has: publish them again under new versions, signed \
                     with another key.\nIf nobody else has the key, put a new one in its place \
                     instead: modunest key rotate OLD.key NEW.key\nTo revoke {org}'s key {hash} \
                     nevertheless, say --yes"
                )));
            }
            let path = format!("/v1/orgs/{org}/keys/{hash}/revoke");
            let answer: StatementResponse =
                context.api()?.send(Method::POST, &path, &RevokeKey { reason }).await?;
            let revoked = Registered { key: hash, epoch: answer.epoch };
            context.output.print(&revoked, |r| {
                format!(
                    "{org}'s key {} is revoked from epoch {} on: every release that it signed is refused",
                    r.key, r.epoch
                )
            })
        }
    }
}

/// Makes a key.
///
/// # Errors
/// When `name` cannot be a key's name.
pub fn generate(name: &str) -> Result<SigningKey, Error> {
    let name = name.parse().map_err(|error| Error::Usage(format!("{name}: {error}")))?;
    Ok(SigningKey::from_seed(name, &modunest_runtime::random::bytes()))
}

/// The request that registers a key, with the proof that it is held.
///
/// # Errors
/// Never, for a key of [`generate`].
pub fn registration(org: &OrgName, key: &SigningKey) -> Result<RegisterKey, Error> {
    let public = key.verifying_key().to_string();
    let proof = prove(&RegisterKey::proof_text(org, &public), &[key])?;
    Ok(RegisterKey { key: public, proof })
}

/// The request that puts `new` in the place of `old`, with the proof that both are held.
fn rotation(org: &OrgName, old: &SigningKey, new: &SigningKey) -> Result<RotateKey, Error> {
    let public = new.verifying_key().to_string();
    let text = RotateKey::proof_text(org, &old.verifying_key().to_string(), &public);
    Ok(RotateKey { key: public, proof: prove(&text, &[old, new])? })
}

fn prove(text: &str, keys: &[&SigningKey]) -> Result<String, Error> {
    let proof =
        modunest_tlog::sign(text, keys).map_err(|error| Error::Failed(error.to_string()))?;
    String::from_utf8(proof).map_err(|error| Error::Failed(error.to_string()))
}

/// The organisation that a key is of.
fn org_of(key: &SigningKey) -> Result<OrgName, Error> {
    let name = key.name().as_str();
    name.parse().map_err(|error| {
        Error::Input(format!("the key is named {name}, which is no organisation: {error}"))
    })
}
