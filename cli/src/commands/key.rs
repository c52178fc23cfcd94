//! `modunest key`: publisher keys.

use std::path::PathBuf;

use clap::Subcommand;
use modunest_core::api::{RegisterKey, StatementResponse};
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
    /// Revoke a key: it can sign nothing new from then on
    Revoke {
        /// The organisation
        org: OrgName,
        /// The key's hash: the eight digits behind its name
        hash: String,
    },
}

#[derive(Serialize)]
struct Shown {
    file: Option<PathBuf>,
    key: String,
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
            let org: OrgName = key
                .name()
                .as_str()
                .parse()
                .map_err(|error| Error::Input(format!("{}: {error}", file.display())))?;
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
        Command::Revoke { org, hash } => {
            let path = format!("/v1/orgs/{org}/keys/{hash}");
            let answer: StatementResponse = context.api()?.ask(Method::DELETE, &path).await?;
            let revoked = Registered { key: hash, epoch: answer.epoch };
            context.output.print(&revoked, |r| {
                format!("{org}'s key {} is revoked from epoch {} on", r.key, r.epoch)
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
    let proof = modunest_tlog::sign(&RegisterKey::proof_text(org, &public), &[key])
        .map_err(|error| Error::Failed(error.to_string()))?;
    let proof = String::from_utf8(proof).map_err(|error| Error::Failed(error.to_string()))?;
    Ok(RegisterKey { key: public, proof })
}
