//! From uploaded bytes to a statement in the index.
//!
//! Storage events come at least once and in any order, so all they do is say "look". What
//! is to be done follows from the session; whoever holds its lease does it, from the start.
//! Nothing reaches the public bucket before every check of every build has passed, and the
//! bytes that are copied there are exactly those that were checked.

mod archives;
mod check;
mod event;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use modunest_core::keys::{ObjectKey, StagingKey};
use modunest_core::problem::{Code, Refusal};
use modunest_core::publish::{ATTEMPTS_MAX, Lease, Overdue, State, overdue};
use modunest_core::scan::RULESET;
use modunest_core::statement::Release;
use modunest_core::time::Timestamp;
use modunest_runtime::trace;
use tracing::Instrument as _;

use crate::Functions;
use crate::error::Error;
use crate::store::Write;
use crate::store::pending::Checked;
use crate::store::sessions::Session;

use archives::Archives;
use report::Report;

/// The first pause before work that met a failing service is tried again; doubled each
/// time. Five attempts then span a minute, longer than most hiccups.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Why work on a session stopped before its end.
enum Stop {
    /// Somebody else has the session now.
    Lost,
    /// It failed, for good or for now.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Failed(Error::Refused(refusal))
    }
}

impl Functions {
    /// Takes an S3 event notification. It may come several times, late, and in any order.
    ///
    /// # Errors
    /// When a service failed. Delivering the event again is right, and harmless always.
    pub async fn finalize(&self, event: &serde_json::Value) -> Result<(), Error> {
        let mut first_failure = None;
        for key in event::staging_keys(event) {
            if let Err(error) = Box::pin(self.look_at(key)).await {
                tracing::warn!(%key, %error, "could not take a storage event");
                first_failure.get_or_insert(error);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    async fn look_at(&self, key: StagingKey) -> Result<(), Error> {
        // The sequencer's own objects are nobody's uploads.
        let Some(id) = key.session() else { return Ok(()) };
        let Some(session) = self.0.store.session(id).await? else {
            tracing::info!(%key, "an upload for a session that is forgotten; removing it");
            return self.0.storage.delete_staged(&[key]).await;
        };
        self.in_trace(&session, "finalize", self.arrived(key, &session)).await
    }

    /// Continues the trace of the request that opened the session.
    pub(crate) async fn in_trace<F: Future>(
        &self,
        session: &Session,
        name: &'static str,
        work: F,
    ) -> F::Output {
        // Lines carry the fields of the innermost span, so it has the trace as well.
        let span = tracing::info_span!(
            "session", trace_id = %session.traceparent.trace_id(), session = %session.id, plugin = %session.plugin, version = %session.version,
            org = %session.plugin.org(), user = %session.user
        );
        trace::scope(trace::child_of(session.traceparent), name, work.instrument(span)).await
    }

    async fn arrived(&self, key: StagingKey, session: &Session) -> Result<(), Error> {
        if session.state.is_end() {
            // A URL lives on for minutes after its session.
            return self.0.storage.delete_staged(&[key]).await;
        }
        if !matches!(session.state, State::Created | State::Uploading) {
            return self.work(session).await;
        }
        let StagingKey::Upload(_, archive) = key else {
            tracing::debug!(%key, "a marker came before the uploads it speaks of");
            return Ok(());
        };
        let Some(session) = self.0.store.arrived(session.id, archive).await? else {
            // The state changed meanwhile: another event of this session was quicker.
            return Ok(());
        };
        if !session.is_complete() {
            return Ok(());
        }
        match self.0.store.uploaded(session.id, self.now()).await? {
            Some(session) => self.work(&session).await,
            None => Ok(()),
        }
    }

    /// Brings a session with all its uploads to an end, unless somebody else is about it.
    pub(crate) async fn work(&self, session: &Session) -> Result<(), Error> {
        let checks =
            self.0.checks.acquire().await.map_err(|_| Error::Broken("the checks are closed"))?;
        // Waiting may have taken a while.
        let Some(session) = self.0.store.session(session.id).await? else { return Ok(()) };
        if session.state == State::Committing {
            drop(checks);
            return self.conclude(&session).await;
        }
        let now = self.now();
        let lease =
            match overdue(session.state, self.effective_lease(&session), session.upload_until, now)
            {
                Overdue::TakeOver(lease) => lease,
                Overdue::GiveUp => return self.give_up(&session).await,
                Overdue::Leave | Overdue::Expire => return Ok(()),
            };
        let Some(mut held) = self.0.store.take(&session, lease, &self.0.instance, now).await?
        else {
            return Ok(());
        };
        let checked = Box::pin(self.check(&mut held)).await;
        drop(checks);
        match checked {
            Ok(()) => self.conclude(&held).await,
            Err(Stop::Lost) => {
                tracing::info!("somebody else took the session over");
                Ok(())
            }
            Err(Stop::Failed(Error::Refused(refusal))) => self.reject(&held, refusal).await,
            Err(Stop::Failed(error)) => {
                let pause = FIRST_PAUSE * 2u32.saturating_pow(lease.attempt.saturating_sub(1));
                tracing::warn!(%error, attempt = lease.attempt, pause_ms = pause.as_millis(), "work on a session failed for now");
                self.0.store.hold(&held, now.plus(pause)).await?;
                Err(error)
            }
        }
    }

    /// The lease as it counts: where only this process writes, others' holders are dead.
    pub(crate) fn effective_lease(&self, session: &Session) -> Lease {
        let ours = session.owner.as_deref() == Some(self.0.instance.as_str());
        if self.0.sole_writer && !ours {
            Lease { until: Timestamp::from_millis(0), ..session.lease }
        } else {
            session.lease
        }
    }

    /// Every check, and then everything that readers need but the statement itself.
    async fn check(&self, held: &mut Session) -> Result<(), Stop> {
        let release = Arc::new(held.release()?.clone());
        let mut archives = Archives::new(held.id);
        let mut readmes = Vec::new();
        let mut manifest = Bytes::new();
        for (index, _) in release.builds.iter().enumerate() {
            let bytes = archives.fetch(&self.0.storage, &release, index).await?;
            let release = release.clone();
            let checked = blocking(move || check::archive(&release, index, &bytes)).await??;
            manifest = checked.manifest;
            readmes.extend(checked.readme);
            *held = self.0.store.hold(held, self.lease_end()).await?.ok_or(Stop::Lost)?;
        }
        *held = self.0.store.advance(held, State::Scanning, self.now()).await?.ok_or(Stop::Lost)?;
        let mut report = Report::new(held.statement.digest());
        for (index, build) in release.builds.iter().enumerate() {
            let bytes = archives.fetch(&self.0.storage, &release, index).await?;
            let target = build.target.clone();
            let outcome = blocking(move || check::scan(&target, &bytes)).await??;
            report.add(build, outcome)?;
            *held = self.0.store.hold(held, self.lease_end()).await?.ok_or(Stop::Lost)?;
        }
        self.make_public(&release, &archives, manifest, readmes, &report).await?;
        let checked = Checked {
            session: held.id,
            ruleset: RULESET,
            outcome: report.outcome(),
            report: report.digest()?,
        };
        match self.0.store.commit(held, &report.findings(), checked, self.now()).await? {
            Write::Conflict => Err(Stop::Lost),
            Write::Done => {
                held.state = State::Committing;
                Ok(())
            }
        }
    }

    fn lease_end(&self) -> Timestamp {
        self.now().plus(modunest_core::publish::LEASE)
    }

    async fn make_public(
        &self,
        release: &Release,
        archives: &Archives,
        manifest: Bytes,
        readmes: Vec<Bytes>,
        report: &Report,
    ) -> Result<(), Error> {
        let storage = &self.0.storage;
        let copies = archives.staged().map(|(archive, key, etag)| async move {
            storage.publish_upload(key, etag, ObjectKey::Blob(archive)).await
        });
        let mut texts = vec![
            (ObjectKey::Blob(release.manifest), manifest),
            (ObjectKey::Report(report.digest()?), report.bytes()?),
        ];
        for readme in readmes {
            texts.push((ObjectKey::Blob(modunest_core::digest::Digest::of(&readme)), readme));
        }
        texts.sort_by_key(|(key, _)| *key);
        texts.dedup_by_key(|(key, _)| *key);
        let texts = texts.into_iter().map(|(key, bytes)| storage.put_content(key, bytes));
        // For whoever counts downloads, who sees digests only.
        let archives: BTreeSet<_> = release.builds.iter().map(|build| build.archive).collect();
        let notes = archives
            .iter()
            .map(|archive| self.0.store.note_archive(archive, &release.plugin, &release.version));
        tokio::try_join!(try_join_all(copies), try_join_all(texts), try_join_all(notes))?;
        Ok(())
    }

    /// Waits until readers can see a committing session's statement.
    pub(crate) async fn conclude(&self, session: &Session) -> Result<(), Error> {
        self.sequence().await?;
        let Some(session) = self.0.store.session(session.id).await? else { return Ok(()) };
        if session.state == State::Committing {
            return Err(Error::Unavailable {
                service: "sequencer",
                operation: "append",
                detail: "the statement is still waiting".to_owned(),
            });
        }
        self.settle(&session).await;
        Ok(())
    }

    async fn give_up(&self, session: &Session) -> Result<(), Error> {
        let refusal = Refusal::new(
            Code::Unavailable,
            format!("the checks could not be completed in {ATTEMPTS_MAX} attempts; publish again"),
        );
        self.reject(session, refusal).await
    }

    async fn reject(&self, session: &Session, refusal: Refusal) -> Result<(), Error> {
        tracing::info!(code = refusal.code.as_str(), detail = refusal.detail, "rejected a release");
        let problem = refusal.into_problem(session.traceparent.trace_id());
        if let Some(session) = self.0.store.reject(session, &problem, self.now()).await? {
            self.settle(&session).await;
        }
        Ok(())
    }

    /// Removes what an ended session left in staging. Should this fail, the sweep does it.
    pub(crate) async fn settle(&self, session: &Session) {
        if session.state == State::Published && session.due {
            tracing::info!(epoch = session.epoch, "published");
        }
        let mut keys: Vec<StagingKey> = session
            .missing
            .iter()
            .map(|archive| StagingKey::Upload(session.id, *archive))
            .collect();
        keys.push(StagingKey::Ready(session.id));
        let settled = async {
            self.0.storage.delete_staged(&keys).await?;
            self.0.store.settled(session.id).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(session = %session.id, %error, "could not remove an ended session's uploads yet");
        }
    }
}

/// Runs what takes milliseconds of processor time off the threads that serve others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|_| Error::Broken("a check panicked"))
}
