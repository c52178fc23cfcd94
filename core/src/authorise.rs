//! Who may do what: scopes of a token, roles in an organisation, and the one decision.

use serde::{Deserialize, Serialize};

use crate::name::{OrgName, UserName};
use crate::problem::{Code, Refusal};
use crate::time::Timestamp;

/// What a token may be used for. A token never allows more than its user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Publish, and say what else a plugin's owner says: yanks, deprecations, new owners.
    Publish,
    /// Organisations: members and keys.
    Manage,
    /// Users and their tokens. Only users who administer the registry may hold it.
    Admin,
    /// What the registry itself says about plugins: quarantines and trust levels. Only users
    /// who administer the registry may hold it.
    Staff,
    /// Tell what was downloaded. Only users who administer the registry may hold it; the
    /// edge has a token with this scope alone.
    Count,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] =
        [Scope::Publish, Scope::Manage, Scope::Admin, Scope::Staff, Scope::Count];

    /// As it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Manage => "manage",
            Scope::Admin => "admin",
            Scope::Staff => "staff",
            Scope::Count => "count",
        }
    }

    /// Whether only users who administer the registry may hold it.
    pub const fn is_for_administrators(self) -> bool {
        matches!(self, Scope::Admin | Scope::Staff | Scope::Count)
    }
}

/// A member's role in an organisation, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May publish, and say what else a plugin's owner says.
    Publisher,
    /// May also change members and keys.
    Owner,
}

/// Something that is about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish a release of a plugin that the organisation owns, say something else as its
    /// owner, or follow a session of it.
    Publish(OrgName),
    /// Change members or keys of an organisation.
    ManageOrg(OrgName),
    /// Found an organisation.
    CreateOrg,
    /// Make or revoke one's own tokens.
    ManageOwnTokens,
    /// Make users, and tokens for others.
    ManageUsers,
    /// Quarantine a release, end a quarantine, or set a plugin's trust level.
    JudgePlugins,
    /// Add to the counters of downloads.
    CountDownloads,
}

impl Action {
    const fn scope(&self) -> Scope {
        match self {
            Action::Publish(_) => Scope::Publish,
            Action::ManageOrg(_) | Action::CreateOrg | Action::ManageOwnTokens => Scope::Manage,
            Action::ManageUsers => Scope::Admin,
            Action::JudgePlugins => Scope::Staff,
            Action::CountDownloads => Scope::Count,
        }
    }
}

/// The facts about whoever asks, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's user.
    pub user: UserName,
    /// Whether the user administers the registry.
    pub registry_admin: bool,
    /// The token's scopes.
    pub scopes: Vec<Scope>,
    /// From when on the token is void; `None` for never.
    pub token_expires_at: Option<Timestamp>,
    /// The user's role in the organisation that the action names, if any.
    pub role: Option<Role>,
}

/// Decides whether `principal` may do `action` at `now`.
///
/// # Errors
/// [`Code::Unauthenticated`] for an expired token, [`Code::Forbidden`] with what is missing.
pub fn authorise(principal: &Principal, action: &Action, now: Timestamp) -> Result<(), Refusal> {
    if principal.token_expires_at.is_some_and(|end| now >= end) {
        return Err(Refusal::new(Code::Unauthenticated, "the token has expired; make a new one"));
    }
    let scope = action.scope();
    if !principal.scopes.contains(&scope) {
        let name = scope.as_str();
        return Err(Refusal::new(Code::Forbidden, format!("the token lacks the scope \"{name}\"")));
    }
    let needs_role = |org: &OrgName, needed: Role, what: &str| match principal.role {
        Some(role) if role >= needed => Ok(()),
        Some(_) => Err(Refusal::new(
            Code::Forbidden,
            format!("{} may not {what} {org}; ask one of its owners", principal.user),
        )),
        None => Err(Refusal::new(
            Code::Forbidden,
            format!(
                "{} is not a member of {org}, or there is no such organisation",
                principal.user
            ),
        )),
    };
    let needs_administrator = |what: &str| match principal.registry_admin {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Forbidden,
            format!("only administrators of the registry may {what}"),
        )),
    };
    match action {
        Action::Publish(org) => needs_role(org, Role::Publisher, "publish for"),
        Action::ManageOrg(org) => needs_role(org, Role::Owner, "manage"),
        Action::CreateOrg | Action::ManageOwnTokens => Ok(()),
        Action::ManageUsers => needs_administrator("manage users"),
        Action::JudgePlugins => needs_administrator("judge plugins"),
        Action::CountDownloads => needs_administrator("count downloads"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_as_they_are_named() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }

    #[test]
    fn scope_role_and_time_are_all_needed() {
        let org: OrgName = "demo".parse().unwrap();
        let now = Timestamp::from_millis(1_000);
        let base = Principal {
            user: "ada".parse().unwrap(),
            registry_admin: false,
            scopes: Scope::ALL.to_vec(),
            token_expires_at: Some(Timestamp::from_millis(2_000)),
            role: Some(Role::Publisher),
        };
        let publish = Action::Publish(org.clone());
        let decide =
            |p: &Principal, a: &Action, now| authorise(p, a, now).map_err(|refusal| refusal.code);
        assert_eq!(decide(&base, &publish, now), Ok(()));
        assert_eq!(
            decide(&base, &publish, Timestamp::from_millis(2_000)),
            Err(Code::Unauthenticated)
        );
        assert_eq!(decide(&base, &Action::ManageOrg(org.clone()), now), Err(Code::Forbidden));
        assert_eq!(decide(&base, &Action::ManageUsers, now), Err(Code::Forbidden));
        assert_eq!(decide(&base, &Action::JudgePlugins, now), Err(Code::Forbidden));
        assert_eq!(decide(&base, &Action::CountDownloads, now), Err(Code::Forbidden));
        let owner = Principal { role: Some(Role::Owner), registry_admin: true, ..base.clone() };
        assert_eq!(decide(&owner, &Action::ManageOrg(org.clone()), now), Ok(()));
        assert_eq!(decide(&owner, &Action::ManageUsers, now), Ok(()));
        assert_eq!(decide(&owner, &Action::JudgePlugins, now), Ok(()));
        assert_eq!(decide(&owner, &Action::CountDownloads, now), Ok(()));
        for action in [
            publish,
            Action::ManageOrg(org),
            Action::CreateOrg,
            Action::ManageUsers,
            Action::ManageOwnTokens,
            Action::JudgePlugins,
            Action::CountDownloads,
        ] {
            let powerless = Principal { scopes: vec![], ..owner.clone() };
            assert_eq!(decide(&powerless, &action, now), Err(Code::Forbidden));
        }
        let stranger = Principal { role: None, ..owner };
        assert_eq!(
            decide(&stranger, &Action::Publish("demo".parse().unwrap()), now),
            Err(Code::Forbidden)
        );
    }
}
