//! The sequencer: pending statements into the index, and a new head for readers.
//!
//! ```text
//! read the head item and what is pending
//! judge each statement against its chain        refused ones leave, with the reason
//! write the new index objects                   immutable: no harm if nobody names them
//! swap the head item                            with all that follows from it, or not at all
//! sign and show the head                        never over a newer one
//! sessions become published
//! ```
//! Any number of processes may do this at once: the swap has one winner, and who loses reads
//! everything anew. A crash between any two lines is repaired by the next run: the first
//! thing it does, when nothing is pending, is to show the head that the item speaks of.

mod batch;
mod judge;
mod objects;
mod show;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use modunest_core::digest::Digest;
use modunest_core::index::Node;
use modunest_core::keys::{ObjectKey, SessionId};
use modunest_core::problem::Refusal;
use tokio::sync::Mutex;

use crate::Functions;
use crate::error::Error;
use crate::store::head::HeadRecord;
use crate::store::pending::Pending;
use crate::store::{TRANSACTION_MAX_ITEMS, Write};

use batch::Batch;
use objects::Objects;
use show::Shown;

/// Most statements in one swap. Each takes three items of the transaction (its subject, the
/// pending item, and its release or outcome), the head takes one.
const BATCH_MAX: usize = (TRANSACTION_MAX_ITEMS - 1) / 3;
/// How often a run starts anew because another process was quicker.
const LOST_MAX: u32 = 20;
/// The longest random pause after a lost swap.
const LOST_PAUSE: Duration = Duration::from_millis(50);

/// What a run of the sequencer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequenced {
    /// Epoch of the head that readers see now.
    pub epoch: u64,
    /// Statements that this run put into the index.
    pub added: usize,
    /// Statements that it refused.
    pub refused: usize,
}

/// What the sequencer keeps between runs: nothing that matters.
pub(crate) struct Sequencer {
    /// One run at a time in a process. Whoever waits learns from the run that was made
    /// meanwhile, if that began after it asked.
    turn: Mutex<Turn>,
    asked: AtomicU64,
    objects: Objects,
    shown: std::sync::Mutex<Option<Shown>>,
}

#[derive(Default)]
struct Turn {
    covered: u64,
    last: Sequenced,
}

impl Sequencer {
    pub(crate) fn new() -> Self {
        Sequencer {
            turn: Mutex::new(Turn::default()),
            asked: AtomicU64::new(0),
            objects: Objects::new(),
            shown: std::sync::Mutex::new(None),
        }
    }
}

impl Functions {
    /// Puts what is pending into the index and shows the head; signs the head again when it
    /// gets old. When this returns, everything that was pending before the call is visible
    /// or refused. Concurrent calls in a process share runs.
    ///
    /// # Errors
    /// When a service failed. Nothing is lost: the next call goes on.
    pub async fn sequence(&self) -> Result<Sequenced, Error> {
        let sequencer = &self.0.sequencer;
        let ticket = sequencer.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut turn = sequencer.turn.lock().await;
        if turn.covered >= ticket {
            return Ok(turn.last);
        }
        let covered = sequencer.asked.load(Ordering::SeqCst);
        let last = Box::pin(self.run()).await?;
        *turn = Turn { covered, last };
        Ok(last)
    }

    async fn run(&self) -> Result<Sequenced, Error> {
        let mut sum = Sequenced::default();
        let mut lost = 0;
        loop {
            let head = self.head().await?;
            let pending = self.0.store.pending(BATCH_LIMIT).await?;
            let last_page = pending.len() < BATCH_MAX;
            if pending.is_empty() {
                sum.epoch = self.show(head).await?;
                return Ok(sum);
            }
            let Batch { accepted, refused, swapped } = self.batch(head, pending).await?;
            let mut progress = false;
            for (pending, refusal) in refused {
                if self.refuse(&pending, refusal).await? == Write::Done {
                    sum.refused += 1;
                    progress = true;
                }
            }
            if let Some(next) = swapped {
                sum.epoch = self.show(next).await?;
                sum.added += accepted.len();
                progress = true;
                self.mark_all_published(&accepted, next.epoch).await;
                if last_page {
                    return Ok(sum);
                }
            }
            if !progress {
                lost += 1;
                if lost > LOST_MAX {
                    return Err(Error::Unavailable {
                        service: "sequencer",
                        operation: "swap",
                        detail: format!("lost {LOST_MAX} swaps of the head in a row"),
                    });
                }
                let [random] = modunest_runtime::random::bytes::<1>();
                tokio::time::sleep(LOST_PAUSE.mul_f64(f64::from(random) / 256.0)).await;
            }
        }
    }

    /// The newest state of the index; that of an empty one at a registry's beginning.
    async fn head(&self) -> Result<HeadRecord, Error> {
        if let Some(head) = self.0.store.head().await? {
            return Ok(head);
        }
        let root = Node::EMPTY.to_bytes();
        let first = HeadRecord { epoch: 1, index: Digest::of(&root) };
        self.0.storage.put_content(ObjectKey::Node(first.index), root.into()).await?;
        match self.0.store.create_head(first).await? {
            Write::Done => Ok(first),
            Write::Conflict => {
                self.0.store.head().await?.ok_or(Error::Broken("the head item came and went"))
            }
        }
    }

    async fn refuse(&self, pending: &Pending, refusal: Refusal) -> Result<Write, Error> {
        let digest = pending.statement.digest();
        let subject = pending.statement.statement().subject();
        tracing::info!(%subject, statement = %digest, code = refusal.code.as_str(), detail = refusal.detail, "refused a statement");
        let Some(id) = pending.session else {
            let problem = refusal.into_problem(modunest_runtime::trace::current_id());
            return self.0.store.reject_statement(&digest, &problem, self.now()).await;
        };
        let trace_id = match self.0.store.session(id).await? {
            Some(session) => session.traceparent.trace_id(),
            None => modunest_runtime::trace::current_id(),
        };
        let problem = refusal.into_problem(trace_id);
        self.0.store.reject_committing(id, &digest, &problem, self.now()).await
    }

    /// Who fails here is marked by whoever concludes the session, or by the sweep.
    async fn mark_all_published(&self, accepted: &[Pending], epoch: u64) {
        let sessions = accepted.iter().filter_map(|pending| pending.session);
        let marked = join_all(sessions.map(|id| self.mark_published(id, epoch))).await;
        for error in marked.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, epoch, "could not mark a session as published yet");
        }
    }

    pub(crate) async fn mark_published(&self, id: SessionId, epoch: u64) -> Result<(), Error> {
        if let Some(session) = self.0.store.published(id, epoch, self.now()).await? {
            tracing::info!(
                session = %id, plugin = %session.plugin, version = %session.version,
                org = %session.plugin.org(), user = %session.user, epoch,
                trace_id = %session.traceparent.trace_id(), "published"
            );
        }
        Ok(())
    }
}

/// [`BATCH_MAX`] as the SDK wants it.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "BATCH_MAX is 33")]
const BATCH_LIMIT: i32 = BATCH_MAX as i32;
