//! `modunest org`, `token`, `user` and `whoami`: who may do what.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use modunest_core::api::{
    CreateOrg, CreateToken, CreateUser, KeyStatus, OrgView, SetMember, TokenCreated, UserView,
    WhoAmI,
};
use modunest_core::authorise::{Role, Scope};
use modunest_core::name::{OrgName, UserName};
use reqwest::Method;
use serde::Serialize;

use super::Context;
use crate::error::Error;
use crate::files;

/// What to do with organisations.
#[derive(Subcommand)]
pub enum Org {
    /// Found an organisation; you become its first owner
    New {
        /// Its name
        org: OrgName,
    },
    /// Show an organisation's members and keys
    Show {
        /// Its name
        org: OrgName,
    },
    /// Add a member or change a member's role
    SetMember {
        /// The organisation
        org: OrgName,
        /// The user
        user: UserName,
        /// The role
        role: RoleArgument,
    },
    /// Remove a member
    RemoveMember {
        /// The organisation
        org: OrgName,
        /// The user
        user: UserName,
    },
}

/// What to do with tokens.
#[derive(Subcommand)]
pub enum Token {
    /// Make a token and write it to a file that only you can read
    New {
        /// What it may be used for
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<ScopeArgument>,
        /// What it is for, in your words
        #[arg(long)]
        label: String,
        /// How many days it lives
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=365))]
        days: u64,
        /// Whose token; yours when left out, others' need the scope admin
        #[arg(long)]
        user: Option<UserName>,
        /// Where to write it
        #[arg(long)]
        out: PathBuf,
    },
    /// Revoke a token
    Revoke {
        /// The token's id
        id: String,
    },
}

/// What to do with users.
#[derive(Subcommand)]
pub enum User {
    /// Make a user; needs the scope admin
    New {
        /// The handle
        user: UserName,
        /// The user administers the registry
        #[arg(long)]
        registry_admin: bool,
    },
}

/// A role on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum RoleArgument {
    /// May publish, and say what else a plugin's owner says
    Publisher,
    /// May also change members and keys
    Owner,
}

/// A scope on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum ScopeArgument {
    /// Publish, yank, deprecate, and give plugins away
    Publish,
    /// Organisations, members, keys and own tokens
    Manage,
    /// Users and their tokens
    Admin,
    /// Quarantines and trust levels; administrators only
    Staff,
    /// Tell what was downloaded, for an edge; administrators only
    Count,
}

#[derive(Serialize)]
struct TokenShown {
    id: String,
    file: PathBuf,
    expires_at: String,
}

const SECS_A_DAY: u64 = 24 * 60 * 60;

/// `modunest org`.
///
/// # Errors
/// Why it failed.
pub async fn org(context: &Context, command: Org) -> Result<(), Error> {
    let api = context.api()?;
    let view: OrgView = match command {
        Org::New { org } => api.send(Method::POST, "/v1/orgs", &CreateOrg { org }).await?,
        Org::Show { org } => api.ask(Method::GET, &format!("/v1/orgs/{org}")).await?,
        Org::SetMember { org, user, role } => {
            let role = match role {
                RoleArgument::Publisher => Role::Publisher,
                RoleArgument::Owner => Role::Owner,
            };
            api.send(Method::PUT, &format!("/v1/orgs/{org}/members/{user}"), &SetMember { role })
                .await?
        }
        Org::RemoveMember { org, user } => {
            api.ask(Method::DELETE, &format!("/v1/orgs/{org}/members/{user}")).await?
        }
    };
    context.output.print(&view, org_text)
}

fn org_text(view: &OrgView) -> String {
    let mut text = format!("{}", view.org);
    for (user, role) in &view.members {
        let role = match role {
            Role::Publisher => "publisher",
            Role::Owner => "owner",
        };
        text.push_str(&format!("\n  {role:9} {user}"));
    }
    for key in &view.keys {
        let status = match key.status {
            KeyStatus::Valid => "",
            KeyStatus::Rotated => " (rotated)",
            KeyStatus::Revoked => " (revoked)",
        };
        text.push_str(&format!("\n  {:9} {}", format!("key{status}"), key.key));
    }
    text
}

/// `modunest token`.
///
/// # Errors
/// Why it failed.
pub async fn token(context: &Context, command: Token) -> Result<(), Error> {
    let api = context.api()?;
    match command {
        Token::New { scopes, label, days, user, out } => {
            if out.exists() {
                return Err(Error::Usage(format!(
                    "{} exists and is not overwritten",
                    out.display()
                )));
            }
            let scopes = scopes
                .iter()
                .map(|scope| match scope {
                    ScopeArgument::Publish => Scope::Publish,
                    ScopeArgument::Manage => Scope::Manage,
                    ScopeArgument::Admin => Scope::Admin,
                    ScopeArgument::Staff => Scope::Staff,
                    ScopeArgument::Count => Scope::Count,
                })
                .collect();
            let request = CreateToken { user, scopes, label, lifetime_secs: days * SECS_A_DAY };
            let created: TokenCreated = api.send(Method::POST, "/v1/tokens", &request).await?;
            files::create_secret(&out, &format!("{}\n", created.token))?;
            let shown = TokenShown {
                id: created.id,
                file: out,
                expires_at: created.expires_at.to_string(),
            };
            context.output.print(&shown, |shown| {
                format!(
                    "wrote {}; token {} expires at {}",
                    shown.file.display(),
                    shown.id,
                    shown.expires_at
                )
            })
        }
        Token::Revoke { id } => {
            let (): () = api.ask(Method::DELETE, &format!("/v1/tokens/{id}")).await?;
            context
                .output
                .print(&serde_json::json!({ "revoked": id }), |_| format!("token {id} is revoked"))
        }
    }
}

/// `modunest user`.
///
/// # Errors
/// Why it failed.
pub async fn user(context: &Context, command: User) -> Result<(), Error> {
    let User::New { user, registry_admin } = command;
    let view: UserView = context
        .api()?
        .send(Method::POST, "/v1/users", &CreateUser { user, registry_admin })
        .await?;
    context.output.print(&view, |view| {
        format!("{} can be given tokens now: modunest token new --user {}", view.user, view.user)
    })
}

/// `modunest whoami`.
///
/// # Errors
/// Why it failed.
pub async fn whoami(context: &Context) -> Result<(), Error> {
    let view: WhoAmI = context.api()?.ask(Method::GET, "/v1/whoami").await?;
    context.output.print(&view, |view| {
        let scopes: Vec<String> =
            view.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
        let end = view
            .token_expires_at
            .map_or("never expires".to_owned(), |end| format!("expires at {end}"));
        format!("{}; this token allows {} and {end}", view.user, scopes.join(", "))
    })
}
