//! What the publish decision needs to know, read once.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use modunest_core::digest::Digest;
use modunest_core::keys::{ObjectKey, SessionId};
use modunest_core::name::PluginName;
use modunest_core::publish::{Existing, Facts, State};
use modunest_core::statement::{Link, Release, Statement};

use crate::Functions;
use crate::error::Error;
use crate::store::orgs::Org;
use crate::store::plugins::Plugin;

/// The facts, and what of them the opening relies on.
pub(super) struct Read {
    pub(super) facts: Facts,
    /// Nobody began to publish the plugin before.
    pub(super) new_plugin: bool,
    /// The session that began this version and ended without publishing it.
    pub(super) ended_session: Option<SessionId>,
}

impl Functions {
    /// Reads what is still to be known of a release of a plugin of `org`; `plugin` is `None`
    /// when nobody began to publish it.
    pub(super) async fn facts(
        &self,
        release: &Release,
        plugin: Option<Plugin>,
        org: &Org,
    ) -> Result<Read, Error> {
        let (holder, existing, present) = tokio::try_join!(
            self.0.store.name_holder(release.plugin.as_str()),
            self.existing(release),
            self.present(release),
        )?;
        let look_alike = match holder {
            Some(holder) if holder != release.plugin.as_str() => {
                let damaged =
                    |_| Error::Damaged { entity: "reservation", attribute: "name".to_owned() };
                Some(holder.parse::<PluginName>().map_err(damaged)?)
            }
            _ => None,
        };
        let ended_session = existing
            .as_ref()
            .filter(|e| matches!(e.state, State::Rejected | State::Expired | State::Cancelled))
            .map(|e| e.session);
        Ok(Read {
            new_plugin: plugin.is_none(),
            ended_session,
            facts: Facts {
                owner: org.org.clone(),
                keys: org.valid_keys()?,
                next: plugin.map_or(Link::FIRST, |plugin| plugin.next),
                look_alike,
                existing,
                present,
            },
        })
    }

    async fn existing(&self, release: &Release) -> Result<Option<Existing>, Error> {
        let Some(record) = self.0.store.release(&release.plugin, &release.version).await? else {
            return Ok(None);
        };
        let Statement::Release(known) = record.statement.statement() else {
            return Err(Error::Damaged { entity: "release", attribute: "statement".to_owned() });
        };
        let state = match self.0.store.session(record.session).await? {
            Some(session) => session.state,
            // Sessions are forgotten some days after their end; published releases are not.
            None if record.epoch.is_some() => State::Published,
            None => State::Expired,
        };
        Ok(Some(Existing { session: record.session, state, release: (**known).clone() }))
    }

    async fn present(&self, release: &Release) -> Result<BTreeSet<Digest>, Error> {
        let archives: BTreeSet<Digest> = release.builds.iter().map(|build| build.archive).collect();
        let asked = archives.into_iter().map(|archive| async move {
            let present = self.0.storage.is_public(ObjectKey::Blob(archive)).await?;
            Ok::<_, Error>(present.then_some(archive))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }
}
