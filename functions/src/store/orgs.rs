//! Organisations: members, and the fold of their key statements.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::api::{KeyStatus, OrgKey};
use modunest_core::authorise::Role;
use modunest_core::name::{OrgName, UserName, skeleton};
use modunest_core::statement::{Link, OrgState};
use modunest_core::time::Timestamp;
use modunest_tlog::VerifyingKey;

use super::item::{Change, Item, Key, Row, json, number, text, time};
use super::{Store, Write};
use crate::error::Error;

/// Most members of an organisation: 64 KB in its item.
pub(crate) const MEMBERS_MAX: usize = 1_000;
/// Most keys an organisation ever registers: 10 KB in its item, and as many statements in
/// its index file.
pub(crate) const KEYS_MAX: usize = 64;

/// An organisation.
#[derive(Clone, Debug)]
pub(crate) struct Org {
    pub(crate) org: OrgName,
    pub(crate) created_at: Timestamp,
    pub(crate) members: BTreeMap<UserName, Role>,
    pub(crate) members_version: u64,
    pub(crate) keys: Vec<OrgKey>,
    pub(crate) next: Link,
}

pub(crate) fn org_key(org: &OrgName) -> Key {
    Key::new(format!("org#{org}"), "org")
}

pub(crate) fn skeleton_key(name: &str) -> Key {
    Key::new(format!("skeleton#{}", skeleton(name)), "skeleton")
}

/// The attributes that hold the place of a chain's next statement.
pub(super) type LinkAttributes = [&'static str; 2];

/// Those of an organisation's chain, and of the chain of a plugin's owner.
pub(super) const NEXT: LinkAttributes = ["next_sequence", "next_previous"];

/// Reads the place of a chain's next statement, as organisations and plugins keep it.
pub(super) fn next_link(
    row: &Row<'_>,
    [sequence, previous]: LinkAttributes,
) -> Result<Link, Error> {
    Ok(match row.number_optional(sequence)? {
        None => Link::FIRST,
        Some(sequence) => Link { sequence, previous: row.parse_optional(previous)? },
    })
}

pub(super) fn set_next(change: Change, [sequence, previous]: LinkAttributes, next: Link) -> Change {
    change.set(sequence, number(next.sequence)).set_optional(previous, next.previous.map(text))
}

impl Org {
    /// An organisation with its first owner, not stored yet.
    pub(crate) fn new(org: OrgName, owner: UserName, now: Timestamp) -> Self {
        Org {
            org,
            created_at: now,
            members: BTreeMap::from([(owner, Role::Owner)]),
            members_version: 1,
            keys: Vec::new(),
            next: Link::FIRST,
        }
    }

    fn read(org: &OrgName, item: &Item) -> Result<Self, Error> {
        let row = Row::new("organisation", item);
        let members = row.json("members")?;
        Ok(Org {
            org: org.clone(),
            created_at: row.time("created_at")?,
            members: row.required("members", members)?,
            members_version: row.number("members_version")?,
            keys: row.json("keys")?.unwrap_or_default(),
            next: next_link(&row, NEXT)?,
        })
    }

    /// Keys that may sign now.
    pub(crate) fn valid_keys(&self) -> Result<Vec<VerifyingKey>, Error> {
        let damaged = |_| Error::Damaged { entity: "organisation", attribute: "keys".to_owned() };
        self.keys
            .iter()
            .filter(|key| key.status == KeyStatus::Valid)
            .map(|key| key.key.parse().map_err(damaged))
            .collect()
    }
}

impl Store {
    pub(crate) async fn org(&self, org: &OrgName) -> Result<Option<Org>, Error> {
        self.get(&org_key(org)).await?.map(|item| Org::read(org, &item)).transpose()
    }

    /// Who holds the names that look like `name`, if anybody does.
    pub(crate) async fn name_holder(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(item) = self.get(&skeleton_key(name)).await? else { return Ok(None) };
        Row::new("reservation", &item).text("name").map(|holder| Some(holder.to_owned()))
    }

    pub(super) fn reserve(&self, name: &str) -> Result<TransactWriteItem, Error> {
        let item = skeleton_key(name).item([("name", Some(text(name)))]);
        let condition = Change::new()
            .when("attribute_not_exists(#pk) OR #name = :name")
            .value(":name", text(name));
        self.in_transaction_put(item, &condition)
    }

    pub(crate) async fn create_org(&self, org: &Org) -> Result<Write, Error> {
        let item = org_key(&org.org).item([
            ("created_at", Some(time(org.created_at))),
            ("members", Some(json(&org.members)?)),
            ("members_version", Some(number(org.members_version))),
        ]);
        self.transact(vec![
            self.in_transaction_put(item, &Change::absent())?,
            self.reserve(org.org.as_str())?,
        ])
        .await
    }

    /// Writes the members if nobody changed them since `org` was read.
    pub(crate) async fn set_members(&self, org: &Org) -> Result<Write, Error> {
        let change = Change::new()
            .set("members", json(&org.members)?)
            .increase("members_version")
            .when("#members_version = :seen")
            .value(":seen", number(org.members_version));
        Ok(match self.update(&org_key(&org.org), &change).await? {
            Some(_) => Write::Done,
            None => Write::Conflict,
        })
    }

    /// Part of carrying out an epoch: what an organisation's statements fold to.
    pub(crate) fn org_folded(&self, state: &OrgState) -> Result<TransactWriteItem, Error> {
        let keys: Vec<OrgKey> = state.keys.iter().map(OrgKey::of).collect();
        let change = set_next(Change::new().set("keys", json(&keys)?), NEXT, state.next);
        self.in_transaction_update(&org_key(&state.org), &change)
    }
}
