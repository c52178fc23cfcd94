//! The one writing thread, with group commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::Error;
use crate::error::IndexError;
use crate::files::{FileName, Files};

/// Writes that may wait for the thread; more wait in their own tasks.
const QUEUE: usize = 1024;

/// Writes in one transaction at most, so that the first of them does not wait for ever.
const BATCH: usize = 256;

/// The thread's stack: SQLite needs little, and the default of 2 MiB is never touched.
const STACK_BYTES: usize = 512 * 1024;

/// What a committed write leaves to be done.
#[derive(Default)]
pub(super) struct Effects {
    /// Files that no row names after the commit.
    pub(super) unused_files: Vec<FileName>,
    /// Whether the write added events.
    pub(super) events: bool,
}

type Finish = Box<dyn FnOnce(Result<(), IndexError>) + Send>;
/// Runs inside a savepoint; says whether to keep it, and how to answer once the
/// fate of the transaction is known. Without a transaction it only gets the reason.
type Job =
    Box<dyn FnOnce(Result<(&Connection, &mut Effects), IndexError>) -> (bool, Finish) + Send>;

enum Message {
    Write(Job),
    Close,
}

pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        files: Files,
        committed: Arc<Notify>,
    ) -> Result<Self, Error> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("s3-index".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&connection, messages, &files, &committed))
            .map_err(|source| Error::Thread { name: "s3-index", source })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `decide` on the writing thread and returns its answer once it is durable.
    ///
    /// `decide` runs to its end even if the caller stops waiting. An error rolls
    /// back what it changed; a refusal is an answer, and must change nothing.
    pub(super) async fn write<T, F>(&self, decide: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Effects) -> Result<T, IndexError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |place| {
            let result = place.and_then(|(connection, effects)| decide(connection, effects));
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                // A caller that stopped waiting needs no answer.
                let _ = answer.send(committed.and(result));
            });
            (keep, finish)
        });
        self.queue.send(Message::Write(job)).await.map_err(|_| IndexError::Closed)?;
        answered.await.map_err(|_| IndexError::Closed)?
    }

    pub(super) fn close(&self) -> Result<(), IndexError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        // A failed send means that the thread has ended, which the join tells.
        let _ = self.queue.blocking_send(Message::Close);
        thread.join().map_err(|_| IndexError::Closed)
    }
}

fn run(
    connection: &Connection,
    mut messages: mpsc::Receiver<Message>,
    files: &Files,
    committed: &Notify,
) {
    let mut open = true;
    while open {
        let Some(first) = messages.blocking_recv() else { return };
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Write(job) => batch.push(job),
                Message::Close => {
                    open = false;
                    break;
                }
            }
            if batch.len() < BATCH {
                next = messages.try_recv().ok();
            }
        }
        if !batch.is_empty() {
            commit(connection, batch, files, committed);
        }
    }
}

/// Runs a batch as one transaction and then answers all of it.
fn commit(connection: &Connection, batch: Vec<Job>, files: &Files, committed: &Notify) {
    let mut finishes = Vec::with_capacity(batch.len());
    let mut effects = Effects::default();
    let mut whole = connection.execute_batch("BEGIN IMMEDIATE").map_err(IndexError::from);
    for job in batch {
        if let Err(error) = &whole {
            finishes.push(job(Err(error.clone())).1);
            continue;
        }
        let mut own = Effects::default();
        let (finish, kept) = in_savepoint(connection, job, &mut own);
        finishes.push(finish);
        match kept {
            Ok(true) => {
                effects.events |= own.events;
                effects.unused_files.append(&mut own.unused_files);
            }
            Ok(false) => {}
            Err(error) => whole = Err(error),
        }
    }
    if whole.is_ok() {
        whole = connection.execute_batch("COMMIT").map_err(IndexError::from);
    }
    if let Err(error) = &whole {
        tracing::error!(%error, "the object index could not commit; its writes are refused");
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the object index could not roll back");
        }
    }
    for finish in finishes {
        finish(whole.clone());
    }
    if whole.is_ok() {
        if effects.events {
            committed.notify_one();
        }
        for file in &effects.unused_files {
            files.remove(file);
        }
    }
}

/// Runs one job so that its failure undoes its own changes and no other's.
/// An error is the whole transaction's: SQLite could not keep the two apart.
fn in_savepoint(
    connection: &Connection,
    job: Job,
    effects: &mut Effects,
) -> (Finish, Result<bool, IndexError>) {
    let run = |sql| -> Result<(), IndexError> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    if let Err(error) = run("SAVEPOINT job") {
        return (job(Err(error.clone())).1, Err(error));
    }
    let (keep, finish) = job(Ok((connection, effects)));
    let undone = if keep { Ok(()) } else { run("ROLLBACK TO job") };
    (finish, undone.and_then(|()| run("RELEASE job")).map(|()| keep))
}
