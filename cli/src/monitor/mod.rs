//! A monitor: reads a registry's log from its tiles, as far as the last run came and from
//! there on, replays every statement, and compares what the registry says its index is with
//! what the statements give.
//!
//! In scope: one run. A contradiction is a [`Finding`]: nothing that an honest registry
//! behind an honest mirror can show. What cannot be read is an error and no finding.
//! In memory are the registry's subjects, with a digest each, and the organisations' keys;
//! the statements are in files of the state folder.

mod compare;
mod fold;
mod replay;
mod report;
mod state;
mod watch;

use std::path::Path;
use std::time::Duration;

use modunest_agent::registry::{Authority, Checkpointed, read_head};
use modunest_core::index::Head;
use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_tlog::{Plan, TreeHash, verify_consistency};

use crate::error::Error;
use crate::log::{self, Files, ReadError};
pub use report::Report;
use report::{Finding, Head as ShownHead, Kind, Log as ShownLog};
use state::State;
pub use watch::Watched;

/// How often checkpoint and head are read anew when the head is over a larger log: a cache
/// may have kept one of them a moment longer than the other.
const PAIR_TRIES_MAX: u32 = 4;
/// Pause between two of these: what caches may keep a short answer for, and room.
const PAIR_PAUSE: Duration = Duration::from_millis(1_500);

/// Reads a registry once.
pub struct Monitor<'a> {
    /// Its files.
    pub files: &'a Files,
    /// The keys that it is believed by.
    pub authority: &'a Authority,
    /// Whose activity is reported.
    pub watched: &'a [Watched],
    /// What the time is.
    pub now: Timestamp,
}

/// The two files that change, as they were read.
struct Shown {
    checkpoint: Checkpointed,
    head: Head,
    head_bytes: Vec<u8>,
}

/// What stops a run.
enum Stop {
    /// It cannot go on, and nothing is proven to be wrong.
    Failed(Error),
    /// The registry contradicts itself.
    Found(Finding),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Stop::Failed(error.into())
    }
}

fn found(kind: Kind, what: impl Into<String>) -> Stop {
    Stop::Found(Finding { kind, what: what.into() })
}

impl Monitor<'_> {
    /// Reads what is new since the last run that `folder` remembers, and remembers this one,
    /// unless there was a finding: then the next run looks at the same again, and what was
    /// signed is kept beside as evidence.
    ///
    /// # Errors
    /// When something could not be read or was signed by nobody who may. Findings are no
    /// errors here; they are in the report.
    pub async fn run(&self, folder: &Path) -> Result<Report, Error> {
        let mut state = State::open(folder, &self.authority.origin)?;
        let shown = self.read().await?;
        let mut report = Report {
            origin: self.authority.origin.clone(),
            log: ShownLog {
                size: shown.checkpoint.signed.checkpoint.size,
                root: shown.checkpoint.signed.checkpoint.root.to_string(),
                cosigned: shown.checkpoint.cosigned.iter().map(|(name, _)| name.clone()).collect(),
                known_before: state.replayed().0,
            },
            head: ShownHead {
                epoch: shown.head.epoch,
                log_size: shown.head.log.size,
                index: shown.head.index.to_hex(),
                issued_at: shown.head.issued_at.to_string(),
            },
            statements: 0,
            subjects: 0,
            activity: Vec::new(),
            findings: Vec::new(),
        };
        match self.follow(&mut state, &shown, &mut report).await {
            Ok(()) => {
                let note = shown.checkpoint.signed.bytes();
                state.save(note, &shown.head_bytes, (shown.head.log.size, shown.head.log.root))?;
            }
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Found(finding)) => {
                state.keep_evidence(shown.checkpoint.signed.bytes(), &shown.head_bytes)?;
                report.findings.push(finding);
            }
        }
        if let Err(why) = log::check_age(self.authority, &shown.checkpoint, &shown.head, self.now) {
            report.findings.push(Finding { kind: Kind::Stale, what: why.to_string() });
        }
        Ok(report)
    }

    /// The head first: what it names is then in the checkpoint that is read after it.
    async fn read(&self) -> Result<Shown, Error> {
        let mut tries = 0;
        loop {
            let head_bytes = self.files.get(ObjectKey::Head).await?;
            let checkpoint = self.files.get(ObjectKey::Checkpoint).await?;
            let head = read_head(&head_bytes, self.authority)
                .map_err(|error| Error::Unproven(error.to_string()))?;
            let checkpoint = Checkpointed::read(&checkpoint, self.authority)
                .map_err(|error| Error::Unproven(error.to_string()))?;
            tries += 1;
            if head.log.size <= checkpoint.signed.checkpoint.size || tries == PAIR_TRIES_MAX {
                return Ok(Shown { checkpoint, head, head_bytes });
            }
            tokio::time::sleep(PAIR_PAUSE).await;
        }
    }

    async fn follow(
        &self,
        state: &mut State,
        shown: &Shown,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let checkpoint = &shown.checkpoint.signed.checkpoint;
        if shown.head.log.size > checkpoint.size {
            return Err(found(
                Kind::Head,
                format!(
                    "the head is over {} entries of the log, and no checkpoint with more than {} \
                     is shown",
                    shown.head.log.size, checkpoint.size
                ),
            ));
        }
        if let Some(last) = state.last_head() {
            shown.head.check_newer(last).map_err(|error| found(Kind::Head, error.to_string()))?;
        }
        if let Some(last) = state.last_checkpoint() {
            let last = (last.size, last.root);
            self.check_growth(last, (checkpoint.size, checkpoint.root)).await?;
        }
        self.replay(state, shown, report).await
    }

    /// Whether the log only grew since the last run.
    async fn check_growth(
        &self,
        (old, old_root): (u64, TreeHash),
        (new, root): (u64, TreeHash),
    ) -> Result<(), Stop> {
        if old == new && old_root != root {
            return Err(found(
                Kind::Fork,
                format!(
                    "the log shows two trees of {new} entries: the root was {old_root} at the \
                     last run, and is {root} now. Both signed notes are kept; compare them with \
                     what others were shown"
                ),
            ));
        }
        if new < old {
            return Err(found(
                Kind::Rollback,
                format!("the log went back from {old} entries to {new}"),
            ));
        }
        let Some(plan) = Plan::consistency(old, new) else { return Ok(()) };
        let proof = self.files.hashes(&plan).await?;
        verify_consistency((old, &old_root), (new, &root), &proof).map_err(|error| {
            found(
                Kind::Fork,
                format!(
                    "the log of {new} entries does not continue the one of {old} that was seen at \
                     the last run: {error}. Both signed notes are kept"
                ),
            )
        })
    }
}
