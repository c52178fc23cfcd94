//! Ending what nobody ended: sessions whose worker died or whose publisher went away, and
//! statements and heads that a crash left between two steps.

use futures_util::stream::{self, StreamExt as _};
use modunest_core::keys::SessionId;
use modunest_core::publish::{LEASE, Overdue, State, overdue};

use crate::Functions;
use crate::error::Error;
use crate::sequence::Sequenced;
use crate::store::sessions::Session;

/// Sessions looked at in one sweep; the next one takes what is left.
const SESSIONS_MAX: i32 = 200;
/// Sessions worked on at once.
const SESSIONS_AT_ONCE: usize = 4;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions that were due.
    pub looked_at: usize,
    /// Of these: taken over from a worker that is gone.
    pub taken_over: usize,
    /// Of these: ended because the upload took too long.
    pub expired: usize,
    /// Of these: had ended, and what they left in staging was removed.
    pub settled: usize,
    /// Of these: left for the next sweep because a service failed.
    pub failed: usize,
    /// What the sequencer did.
    pub sequenced: Sequenced,
}

enum Did {
    Nothing,
    TookOver,
    Expired,
    Settled,
    Failed,
}

impl Functions {
    /// Looks at everything that is due. To be called at the start and then every some
    /// seconds; calling it more often, or in several processes, does no harm.
    ///
    /// # Errors
    /// When the table or the sequencer fails as a whole; the failure of a single session is
    /// counted, logged and left for the next sweep.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        self.forget_shown();
        let sequenced = self.sequence().await?;
        // Where others are dead, their leases end now, not at the time that the index knows.
        let now = self.now();
        let until = if self.0.sole_writer { now.plus(LEASE) } else { now };
        let due = self.0.store.due(until, SESSIONS_MAX).await?;
        let mut swept = Swept { sequenced, ..Swept::default() };
        let mut work = stream::iter(due.into_iter().map(|id| self.sweep_one(id)))
            .buffer_unordered(SESSIONS_AT_ONCE);
        while let Some(did) = work.next().await {
            swept.looked_at += 1;
            match did {
                Did::Nothing => {}
                Did::TookOver => swept.taken_over += 1,
                Did::Expired => swept.expired += 1,
                Did::Settled => swept.settled += 1,
                Did::Failed => swept.failed += 1,
            }
        }
        Ok(swept)
    }

    async fn sweep_one(&self, id: SessionId) -> Did {
        let session = match self.0.store.session(id).await {
            // The index lags behind: gone, or nothing to do any more.
            Ok(Some(session)) if session.due => session,
            Ok(_) => return Did::Nothing,
            Err(error) => {
                tracing::warn!(session = %id, %error, "could not read a session that is due");
                return Did::Failed;
            }
        };
        let swept = self.in_trace(&session, "sweep", async {
            Box::pin(self.sweep_session(&session)).await.unwrap_or_else(|error| {
                tracing::warn!(%error, state = %session.state, "could not bring a session further; the next sweep tries again");
                Did::Failed
            })
        });
        swept.await
    }

    async fn sweep_session(&self, session: &Session) -> Result<Did, Error> {
        let now = self.now();
        if session.state.is_end() {
            self.settle(session).await;
            return Ok(Did::Settled);
        }
        match overdue(session.state, self.effective_lease(session), session.upload_until, now) {
            Overdue::Leave => Ok(Did::Nothing),
            Overdue::Expire => self.expire(session).await,
            Overdue::TakeOver(_) if session.state == State::Committing => {
                self.0.store.look_again(session, now).await?;
                self.conclude(session).await?;
                Ok(Did::TookOver)
            }
            Overdue::TakeOver(lease) => {
                tracing::info!(state = %session.state, attempt = lease.attempt, "taking a session over");
                self.work(session).await?;
                Ok(Did::TookOver)
            }
            Overdue::GiveUp => {
                self.work(session).await?;
                Ok(Did::TookOver)
            }
        }
    }

    /// The time to upload is over. If everything is there all the same, only the events got
    /// lost, and the publisher should not pay for that.
    async fn expire(&self, session: &Session) -> Result<Did, Error> {
        if self.still_missing(session).await?.is_empty() {
            self.note_present(session).await?;
            return Ok(Did::TookOver);
        }
        if let Some(ended) = self.0.store.end_upload(session.id, State::Expired, self.now()).await?
        {
            tracing::info!("a session expired: its uploads did not arrive in time");
            self.settle(&ended).await;
        }
        Ok(Did::Expired)
    }
}
