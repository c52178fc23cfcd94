//! What those who run the registry say about plugins: quarantines and trust levels.

use modunest_core::api::{SetQuarantine, SetTrust, StatementResponse};
use modunest_core::authorise::Action;
use modunest_core::name::PluginName;
use modunest_core::problem::Code;
use modunest_core::statement::{Link, Quarantine, Statement, Trust};

use super::statement::refuse;
use crate::Functions;
use crate::error::Error;
use crate::identity::Caller;

impl Functions {
    /// Quarantines a release, or releases it from quarantine.
    pub(crate) async fn quarantine(
        &self,
        caller: &Caller,
        plugin: &PluginName,
        request: &SetQuarantine,
    ) -> Result<StatementResponse, Error> {
        self.authorise(caller, &Action::JudgePlugins)?;
        if request.reason.trim().is_empty() {
            return refuse(
                Code::InvalidRequest,
                "/reason: say why; whoever runs the plugin reads it",
            );
        }
        self.check_published(plugin, &request.version).await?;
        let answer = self
            .say(|| async {
                let Link { sequence, previous } = self.registry_next(plugin).await?;
                Ok(Statement::Quarantine(Quarantine {
                    plugin: plugin.clone(),
                    version: request.version.clone(),
                    sequence,
                    previous,
                    quarantined: request.quarantined,
                    reason: request.reason.clone(),
                }))
            })
            .await?;
        tracing::info!(
            %plugin, version = %request.version, user = %caller.user, reason = request.reason,
            quarantined = request.quarantined, epoch = answer.epoch, "changed a quarantine"
        );
        Ok(answer)
    }

    /// Sets how far the registry trusts a plugin.
    pub(crate) async fn set_trust(
        &self,
        caller: &Caller,
        plugin: &PluginName,
        request: &SetTrust,
    ) -> Result<StatementResponse, Error> {
        self.authorise(caller, &Action::JudgePlugins)?;
        let answer = self
            .say(|| async {
                let Link { sequence, previous } = self.registry_next(plugin).await?;
                Ok(Statement::Trust(Trust {
                    plugin: plugin.clone(),
                    sequence,
                    previous,
                    level: request.level,
                    reason: request.reason.clone(),
                }))
            })
            .await?;
        tracing::info!(
            %plugin, user = %caller.user, reason = request.reason, level = %request.level,
            epoch = answer.epoch, "changed a trust level"
        );
        Ok(answer)
    }

    /// Place of the registry's next statement about a plugin that has a release.
    async fn registry_next(&self, plugin: &PluginName) -> Result<Link, Error> {
        match self.0.store.plugin(plugin).await? {
            Some(found) if found.next != Link::FIRST => Ok(found.registry_next),
            _ => refuse(Code::NotFound, format!("there is no plugin {plugin} with a release")),
        }
    }
}
