//! Plugins and their releases.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::Version;
use modunest_core::keys::SessionId;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Chain, Link, SignedStatement};
use modunest_core::time::Timestamp;

use super::Store;
use super::item::{Change, Key, Row, blob, number, text, time};
use super::orgs::{LinkAttributes, NEXT, next_link, set_next};
use crate::error::Error;

/// A plugin, as far as whoever says something about it must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// The organisation whose keys sign for it.
    pub(crate) owner: OrgName,
    /// Place of the owner's next statement.
    pub(crate) next: Link,
    /// Place of the registry's next statement about it.
    pub(crate) registry_next: Link,
}

impl Plugin {
    /// A plugin that nobody began to publish: whose it would be, the name says.
    pub(crate) fn new(plugin: &PluginName) -> Self {
        Plugin { owner: plugin.org(), next: Link::FIRST, registry_next: Link::FIRST }
    }
}

/// A release that was begun.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseRecord {
    /// The session that brings or brought it.
    pub(crate) session: SessionId,
    /// The release statement.
    pub(crate) statement: SignedStatement,
    /// Epoch of the head that first shows it.
    pub(crate) epoch: Option<u64>,
}

/// The attributes of the chain of what the registry says.
const REGISTRY_NEXT: LinkAttributes = ["registry_next_sequence", "registry_next_previous"];

fn plugin_key(plugin: &PluginName) -> Key {
    Key::new(format!("plugin#{plugin}"), "plugin")
}

fn release_key(plugin: &PluginName, version: &Version) -> Key {
    Key::new(format!("plugin#{plugin}"), format!("release#{version}"))
}

impl Store {
    /// What is known of a plugin; `None` of one that nobody began to publish.
    pub(crate) async fn plugin(&self, plugin: &PluginName) -> Result<Option<Plugin>, Error> {
        let Some(item) = self.get(&plugin_key(plugin)).await? else { return Ok(None) };
        let row = Row::new("plugin", &item);
        Ok(Some(Plugin {
            owner: row.parse_optional("owner")?.unwrap_or_else(|| plugin.org()),
            next: next_link(&row, NEXT)?,
            registry_next: next_link(&row, REGISTRY_NEXT)?,
        }))
    }

    pub(crate) async fn release(
        &self,
        plugin: &PluginName,
        version: &Version,
    ) -> Result<Option<ReleaseRecord>, Error> {
        let Some(item) = self.get(&release_key(plugin, version)).await? else { return Ok(None) };
        let row = Row::new("release", &item);
        Ok(Some(ReleaseRecord {
            session: row.parse("session")?,
            statement: SignedStatement::parse(row.blob("statement")?)?,
            epoch: row.number_optional("epoch")?,
        }))
    }

    /// Makes a plugin and reserves its name.
    pub(super) fn new_plugin(
        &self,
        plugin: &PluginName,
        now: Timestamp,
    ) -> Result<[TransactWriteItem; 2], Error> {
        let item = plugin_key(plugin).item([("created_at", Some(time(now)))]);
        Ok([self.in_transaction_put(item, &Change::absent())?, self.reserve(plugin.as_str())?])
    }

    /// Gives a version to a session: a free version, or one whose session `instead_of` ended.
    pub(super) fn begin_release(
        &self,
        plugin: &PluginName,
        version: &Version,
        session: SessionId,
        statement: &SignedStatement,
        instead_of: Option<SessionId>,
    ) -> Result<TransactWriteItem, Error> {
        let item = release_key(plugin, version)
            .item([("session", Some(text(session))), ("statement", Some(blob(statement.bytes())))]);
        let condition = match instead_of {
            None => Change::absent(),
            Some(old) => Change::new()
                .when("#session = :old AND attribute_not_exists(#epoch)")
                .value(":old", text(old)),
        };
        self.in_transaction_put(item, &condition)
    }

    /// Part of carrying out an epoch: what a plugin's statements of this epoch change. `next`
    /// are the places behind them, by chain.
    pub(crate) fn plugin_folded(
        &self,
        plugin: &PluginName,
        owner: Option<&OrgName>,
        next: &BTreeMap<Chain, Link>,
    ) -> Result<TransactWriteItem, Error> {
        let mut change = Change::new().set_optional("owner", owner.map(text));
        for (chain, link) in next {
            let attributes = match chain {
                Chain::Owner => NEXT,
                Chain::Registry => REGISTRY_NEXT,
            };
            change = set_next(change, attributes, *link);
        }
        self.in_transaction_update(&plugin_key(plugin), &change)
    }

    /// Part of carrying out an epoch: the release is in the index from then on.
    pub(crate) fn release_published(
        &self,
        plugin: &PluginName,
        version: &Version,
        epoch: u64,
    ) -> Result<TransactWriteItem, Error> {
        let change = Change::new().set("epoch", number(epoch));
        self.in_transaction_update(&release_key(plugin, version), &change)
    }
}
