//! The sequencer: pending statements into the log and the index, and a new head for readers.
//!
//! ```text
//! read the head item                     not carried out yet? carry it out, then go on
//! read what is pending
//! judge each statement                   against its chain; a verdict behind each release
//! work the step out                      tiles, index objects, and the roots they give
//! stage the bundle                       from it alone the step can be worked out again
//! swap the head item                     the decision: one winner, and a loser reads anew
//! store tiles and index objects          unless they are there
//! show checkpoint, then head             never over newer ones
//! tell the table                         sessions are published, chains go on
//! refuse the others                      with the reason
//! ```
//! Any number of processes may do this at once. Everything behind the swap follows from the
//! bundle that the head item names, so whoever finds a step that is not carried out does it,
//! with the same code; nothing new is decided before. A second log cannot come to be: a step
//! is swapped in only behind the one that its positions and roots follow.

mod bundle;
mod judge;
mod log_end;
mod objects;

mod apply;
mod show;
mod step;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use modunest_core::digest::Digest;
use modunest_core::index::{LogHead, Node};
use modunest_core::keys::{ObjectKey, StagingKey};
use modunest_core::problem::Refusal;
use modunest_tlog::TreeHash;
use tokio::sync::Mutex;

use crate::Functions;
use crate::error::Error;
use crate::storage::Fetch;
use crate::store::Write;
use crate::store::head::{HeadRecord, Roots};
use crate::store::pending::Pending;
use crate::witness::Collector;

use bundle::{BUNDLE_MAX_BYTES, BUNDLE_MAX_STATEMENTS, Bundle, Previous};
use judge::Judged;
use log_end::LogEnd;
use objects::Objects;
use show::Shown;

/// Most pending statements in one step: each may bring a verdict.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "it is 2,000")]
const PENDING_MAX: i32 = (BUNDLE_MAX_STATEMENTS / 2) as i32;
/// How often a run starts anew because another process was quicker.
const LOST_MAX: u32 = 20;
/// The longest random pause after a lost swap.
const LOST_PAUSE: Duration = Duration::from_millis(50);
/// How often the head item is looked at while another process seems to carry its step out,
/// before this one does it as well: a second or so, which is longer than a step takes.
const PATIENCE: u32 = 40;

/// What a run of the sequencer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequenced {
    /// Epoch of the head that readers see now.
    pub epoch: u64,
    /// Statements that this run put before readers, verdicts of its own among them.
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
    end: std::sync::Mutex<Option<LogEnd>>,
    shown: std::sync::Mutex<Shown>,
    witnesses: Option<Collector>,
}

#[derive(Default)]
struct Turn {
    covered: u64,
    last: Sequenced,
}

impl Sequencer {
    pub(crate) fn new(witnesses: Option<Collector>) -> Self {
        Sequencer {
            turn: Mutex::new(Turn::default()),
            asked: AtomicU64::new(0),
            objects: Objects::new(),
            end: std::sync::Mutex::default(),
            shown: std::sync::Mutex::default(),
            witnesses,
        }
    }

    fn end(&self) -> Option<LogEnd> {
        // A panic while it was held cannot have left it half-written.
        self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn keep_end(&self, end: LogEnd) {
        *self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(end);
    }
}

/// Waits for up to `longest`, at random, so that processes that met do not meet again.
async fn pause(longest: Duration) {
    let [random] = modunest_runtime::random::bytes::<1>();
    tokio::time::sleep(longest.mul_f64(f64::from(random) / 256.0)).await;
}

/// How often other processes were quicker in a run.
struct Lost(u32);

impl Lost {
    async fn once_more(&mut self) -> Result<(), Error> {
        self.0 += 1;
        if self.0 > LOST_MAX {
            return Err(Error::Unavailable {
                service: "sequencer",
                operation: "swap",
                detail: format!("other processes were quicker {LOST_MAX} times in a row"),
            });
        }
        pause(LOST_PAUSE).await;
        Ok(())
    }
}

impl Functions {
    /// Puts what is pending into the log and shows it to readers; signs head and checkpoint
    /// again when they get old. When this returns, everything that was pending before the call
    /// is visible or refused. Concurrent calls in a process share runs.
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
        let mut lost = Lost(0);
        // Statements that stood ahead of their chains when they were looked at before.
        let mut ahead_before: BTreeSet<Digest> = BTreeSet::new();
        loop {
            let head = self.head().await?;
            self.check_not_behind(&head).await?;
            if head.is_pending() {
                sum.added += self.take_over(&head).await?;
                continue;
            }
            sum.epoch = head.roots.epoch;
            let pending = self.0.store.pending(PENDING_MAX).await?;
            let last_page = pending.len() < PENDING_MAX as usize;
            let Judged { entries, ahead, mut refused, plugins } =
                self.judge(&head.roots, pending).await?;
            if entries.is_empty() {
                self.show(&head.roots).await?;
            } else {
                let previous = Previous { roots: head.roots, bundle: head.bundle };
                let step = self.step(previous, entries).await?;
                self.keep_folded(&step, plugins);
                if self.decide(&step).await? == Write::Conflict {
                    lost.once_more().await?;
                    continue;
                }
                sum.epoch = step.next.epoch;
                sum.added += Box::pin(self.apply(step)).await?;
            }
            // What they follow may have been handed in behind the part of the queue that had been
            // read when they were: so they are looked at once more, from its beginning.
            let mut look_again = false;
            for (pending, refusal) in ahead {
                if ahead_before.insert(pending.statement.digest()) {
                    look_again = true;
                } else {
                    refused.push((pending, refusal));
                }
            }
            // Who is refused follows neither what was before nor what was added just now. That
            // the swap was won, or nothing was to be swapped, is what makes this final.
            let mut all_refused = true;
            for (pending, refusal) in refused {
                match self.refuse(sum.epoch, &pending, refusal).await? {
                    Write::Done => sum.refused += 1,
                    Write::Conflict => all_refused = false,
                }
            }
            if !all_refused {
                lost.once_more().await?;
            } else if last_page && !look_again {
                return Ok(sum);
            }
        }
    }

    /// The newest state; that of an empty log and index at a registry's beginning.
    async fn head(&self) -> Result<HeadRecord, Error> {
        if let Some(head) = self.0.store.head().await? {
            return Ok(head);
        }
        let root = Node::EMPTY.to_bytes();
        let first = Roots {
            epoch: 1,
            index: Digest::of(&root),
            log: LogHead { size: 0, root: Digest::from_bytes(*TreeHash::empty().as_bytes()) },
        };
        self.0.storage.put_content(ObjectKey::Node(first.index), root.into()).await?;
        match self.0.store.create_head(&first).await? {
            Write::Done | Write::Conflict => self.newest().await,
        }
    }

    /// Stages the step's bundle and swaps the head item.
    async fn decide(&self, step: &step::Step) -> Result<Write, Error> {
        let bytes = step.bundle.to_bytes()?;
        let digest = Digest::of(&bytes);
        let key = StagingKey::Bundle(digest);
        self.0.storage.put_staged(key, bytes.into()).await?;
        let last = &step.bundle.previous.roots;
        if self.0.store.swap_head(last, &step.next, digest).await? == Write::Done {
            return Ok(Write::Done);
        }
        // Won all the same, if only the answer was lost; or another process decided the same.
        if self.newest().await?.bundle != Some(digest) {
            self.0.storage.delete_staged(&[key]).await?;
        }
        Ok(Write::Conflict)
    }

    /// Carries out the step that the head item names, unless another process does.
    async fn take_over(&self, head: &HeadRecord) -> Result<usize, Error> {
        if !self.0.sole_writer {
            for _ in 0..PATIENCE {
                pause(LOST_PAUSE).await;
                if self.newest().await?.applied >= head.roots.epoch {
                    return Ok(0);
                }
            }
        }
        let digest =
            head.bundle.ok_or(Error::Damaged { entity: "head", attribute: "bundle".to_owned() })?;
        tracing::info!(epoch = head.roots.epoch, bundle = %digest, "carrying out a step that nobody ended");
        let fetched =
            self.0.storage.get_staged(StagingKey::Bundle(digest), BUNDLE_MAX_BYTES).await?;
        let bytes = match fetched {
            Fetch::Found(fetched) if Digest::of(&fetched.bytes) == digest => fetched.bytes,
            Fetch::Found(_) | Fetch::TooLong => {
                return Err(Error::Broken("the bundle that the head item names has other bytes"));
            }
            // Another process may have ended it meanwhile.
            Fetch::Absent if self.newest().await?.applied >= head.roots.epoch => return Ok(0),
            Fetch::Absent => {
                return Err(Error::Broken("the bundle that the head item names is not there"));
            }
        };
        let Bundle { previous, entries } = Bundle::parse(&bytes)?;
        let step = self.step(previous, entries).await?;
        if step.next != head.roots {
            return Err(Error::Broken(
                "a bundle does not lead to the roots that the head item has",
            ));
        }
        Box::pin(self.apply(step)).await
    }

    async fn refuse(
        &self,
        epoch: u64,
        pending: &Pending,
        refusal: Refusal,
    ) -> Result<Write, Error> {
        let store = &self.0.store;
        let digest = pending.statement.digest();
        let subject = pending.statement.statement().subject();
        tracing::info!(%subject, statement = %digest, code = refusal.code.as_str(), detail = refusal.detail, "refused a statement");
        let Some(checked) = pending.checked else {
            let problem = refusal.into_problem(modunest_runtime::trace::current_id());
            return store.reject_statement(epoch, &pending.statement, &problem, self.now()).await;
        };
        let trace_id = match store.session(checked.session).await? {
            Some(session) => session.traceparent.trace_id(),
            None => modunest_runtime::trace::current_id(),
        };
        let problem = refusal.into_problem(trace_id);
        let (session, statement) = (checked.session, &pending.statement);
        store.reject_committing(epoch, session, statement, &problem, self.now()).await
    }
}
