//! The write side as Lambda functions: four programs, each thin around [`Functions`](crate::Functions).
//!
//! | Program | Takes | Does |
//! |---|---|---|
//! | `modunest-api` | HTTP API (payload 2.0) and Function URL events | [`Functions::router`](crate::Functions::router) |
//! | `modunest-finalize` | SQS batches of S3 event notifications | [`Functions::finalize`](crate::Functions::finalize) for each |
//! | `modunest-sequence` | schedule events | [`Functions::sequence`](crate::Functions::sequence) |
//! | | `{"bootstrap":true}` from an operator | [`Functions::bootstrap`](crate::Functions::bootstrap) |
//! | | `{"recover":true}` from an operator | [`Functions::recover`](crate::Functions::recover) |
//! | `modunest-sweep` | schedule events | [`Functions::sweep`](crate::Functions::sweep) |
//!
//! Settings come from the environment and are checked before anything runs; [`Settings`]
//! lists them. The registry's keys are objects of their own private bucket. They are read with
//! the first event and not before, as are certificates and clients: the runtime's first poll,
//! which ends the start of a function, waits for none of it.
//!
//! Logs are JSON lines on standard error, written as they are made, so nothing is left to
//! flush when the runtime freezes the process. An invocation has one span; its trace is the
//! request's `traceparent` or else X-Ray's.

mod settings;
mod start;

mod invocation;

mod api;
mod finalize;
mod schedule;

use std::process::ExitCode;
use std::sync::Arc;

pub use finalize::{BatchAnswer, Failure, SqsBatch, SqsRecord};
pub use settings::{Settings, SettingsError};

use start::Start;

/// Threads of a function: Lambda has a second processor from 1,769 MB of memory on, and
/// checks of archives have threads of their own.
const THREADS: usize = 2;

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `modunest-api`.
    Api,
    /// `modunest-finalize`.
    Finalize,
    /// `modunest-sequence`.
    Sequence,
    /// `modunest-sweep`.
    Sweep,
}

/// Reads the settings and serves events until the runtime ends the process.
pub fn main(program: Program) -> ExitCode {
    modunest_runtime::logging::init();
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(?program, %error, "the function cannot start");
            return ExitCode::FAILURE;
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(program, settings)),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(?program, %error, "the Lambda runtime ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(program: Program, settings: Settings) -> Result<(), lambda_runtime::Error> {
    let start = Arc::new(Start::new(settings));
    match program {
        Program::Api => api::serve(start).await,
        Program::Finalize => finalize::serve(start).await,
        Program::Sequence => schedule::serve(start, schedule::Task::Sequence).await,
        Program::Sweep => schedule::serve(start, schedule::Task::Sweep).await,
    }
}
