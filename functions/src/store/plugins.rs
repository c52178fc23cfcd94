//! Plugins and their releases.

use aws_sdk_dynamodb::types::TransactWriteItem;
use modunest_core::Version;
use modunest_core::keys::SessionId;
use modunest_core::name::PluginName;
use modunest_core::statement::{Link, PluginState, SignedStatement};
use modunest_core::time::Timestamp;

use super::Store;
use super::item::{Change, Key, Row, blob, number, text, time};
use super::orgs::{next_link, set_next};
use crate::error::Error;

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

fn plugin_key(plugin: &PluginName) -> Key {
    Key::new(format!("plugin#{plugin}"), "plugin")
}

fn release_key(plugin: &PluginName, version: &Version) -> Key {
    Key::new(format!("plugin#{plugin}"), format!("release#{version}"))
}

impl Store {
    /// Place of the next statement; `None` for a plugin that nobody began to publish.
    pub(crate) async fn plugin_next(&self, plugin: &PluginName) -> Result<Option<Link>, Error> {
        let Some(item) = self.get(&plugin_key(plugin)).await? else { return Ok(None) };
        next_link(&Row::new("plugin", &item)).map(Some)
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

    /// Part of the swap: what a plugin's statements fold to.
    pub(crate) fn plugin_folded(&self, state: &PluginState) -> Result<TransactWriteItem, Error> {
        self.in_transaction_update(
            &plugin_key(&state.plugin),
            &set_next(Change::present(), state.next),
        )
    }

    /// Part of the swap: the release is in the index from `epoch` on.
    pub(crate) fn release_published(
        &self,
        plugin: &PluginName,
        version: &Version,
        epoch: u64,
    ) -> Result<TransactWriteItem, Error> {
        let change = Change::present().set("epoch", number(epoch));
        self.in_transaction_update(&release_key(plugin, version), &change)
    }
}
