//! Organisations and their members.

use modunest_core::api::{CreateOrg, OrgView};
use modunest_core::authorise::{Action, Role};
use modunest_core::name::{OrgName, UserName};
use modunest_core::problem::{Code, Refusal};

use super::Caller;
use crate::Functions;
use crate::error::Error;
use crate::store::Write;
use crate::store::orgs::{MEMBERS_MAX, Org};

/// How often a change of members is tried while others change them too.
const MEMBER_TRIES: u32 = 5;

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

fn view(org: Org) -> OrgView {
    OrgView { org: org.org, members: org.members, keys: org.keys }
}

impl Functions {
    pub(crate) async fn create_org(
        &self,
        caller: &Caller,
        request: CreateOrg,
    ) -> Result<OrgView, Error> {
        self.authorise(caller, &Action::CreateOrg)?;
        let org = Org::new(request.org, caller.user.clone(), self.now());
        match self.0.store.create_org(&org).await? {
            Write::Done => {
                tracing::info!(org = %org.org, user = %caller.user, created_at = %org.created_at, "founded an organisation");
                Ok(view(org))
            }
            Write::Conflict => match self.0.store.name_holder(org.org.as_str()).await? {
                Some(holder) if holder != org.org.as_str() => refuse(
                    Code::NameTaken,
                    format!(
                        "{} looks like {holder}, which exists; choose a name that cannot be mistaken for it",
                        org.org
                    ),
                ),
                _ => {
                    refuse(Code::NameTaken, format!("there is an organisation {} already", org.org))
                }
            },
        }
    }

    /// Members and keys are no secret among those who have a token: agents read keys from
    /// the index anyway, and members know each other.
    pub(crate) async fn org_view(&self, caller: &Caller, org: &OrgName) -> Result<OrgView, Error> {
        let not_found = || {
            refuse(
                Code::NotFound,
                format!("there is no organisation {org}, or you are not a member"),
            )
        };
        match self.0.store.org(org).await? {
            Some(found) if caller.registry_admin || found.members.contains_key(&caller.user) => {
                Ok(view(found))
            }
            _ => not_found(),
        }
    }

    pub(crate) async fn set_member(
        &self,
        caller: &Caller,
        org: &OrgName,
        user: &UserName,
        role: Role,
    ) -> Result<OrgView, Error> {
        self.authorise_manage(caller, org).await?;
        if self.0.store.user(user).await?.is_none() {
            return refuse(Code::NotFound, format!("there is no user {user}"));
        }
        self.change_members(caller, org, |org| {
            org.members.insert(user.clone(), role);
            if org.members.len() > MEMBERS_MAX {
                return refuse(
                    Code::TooLarge,
                    format!("an organisation has at most {MEMBERS_MAX} members"),
                );
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn remove_member(
        &self,
        caller: &Caller,
        org: &OrgName,
        user: &UserName,
    ) -> Result<OrgView, Error> {
        self.change_members(caller, org, |org| match org.members.remove(user) {
            Some(_) => Ok(()),
            None => refuse(Code::NotFound, format!("{user} is not a member of {}", org.org)),
        })
        .await
    }

    async fn change_members(
        &self,
        caller: &Caller,
        org: &OrgName,
        change: impl Fn(&mut Org) -> Result<(), Error>,
    ) -> Result<OrgView, Error> {
        for _ in 0..MEMBER_TRIES {
            let mut org = self.authorise_manage(caller, org).await?;
            change(&mut org)?;
            if !org.members.values().any(|role| *role == Role::Owner) {
                return refuse(
                    Code::PreconditionFailed,
                    format!("{} would have no owner; make somebody else an owner first", org.org),
                );
            }
            if self.0.store.set_members(&org).await? == Write::Done {
                tracing::info!(org = %org.org, user = %caller.user, "changed the members");
                return Ok(view(org));
            }
        }
        refuse(Code::Unavailable, "the members change too often just now; try again")
    }
}
