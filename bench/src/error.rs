//! Why a benchmark could not measure.

use std::io;
use std::path::Path;

/// Why there is no figure. A missed target is a figure, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        /// The file, folder or program.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// A peer is not installed.
    #[error("{program} is not to be found; {way_out}")]
    NoProgram {
        /// The program.
        program: String,
        /// How to get it.
        way_out: &'static str,
    },
    /// A program that was started did not come to serve.
    #[error("{program} was not ready within {seconds} s{said}")]
    NotReady {
        /// The program.
        program: String,
        /// How long it had.
        seconds: u64,
        /// What it said, for people.
        said: String,
    },
    /// A program ended with a failure.
    #[error("{program} failed: {status}{said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, for people.
        said: String,
    },
    /// A request came to nothing.
    #[error("{what}: {source}")]
    Request {
        /// What was asked for.
        what: String,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// What is measured did not do its work, so its time means nothing.
    #[error("{what}: {why}")]
    Wrong {
        /// What was measured.
        what: &'static str,
        /// What it did instead.
        why: String,
    },
}

impl Error {
    /// For `map_err` of work on files.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let what = path.display().to_string();
        move |source| Error::Io { what, source }
    }

    /// For `map_err` of work that was to be measured.
    pub fn wrong<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |error| Error::Wrong { what, why: error.to_string() }
    }

    /// For `map_err` of requests.
    pub fn request(what: impl Into<String>) -> impl FnOnce(reqwest::Error) -> Error {
        let what = what.into();
        move |source| Error::Request { what, source }
    }
}
