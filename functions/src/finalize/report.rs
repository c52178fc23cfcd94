//! What the scan found, as everybody can read it at `/report/<digest>`.

use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::problem::{Code, Refusal};
use modunest_core::scan::{Outcome, RULESET};
use modunest_core::statement::{Build, VerdictOutcome};
use serde::Serialize;

use crate::error::Error;

/// Most findings that a session repeats; the report has them all.
const FINDINGS_SHOWN_MAX: usize = 50;

/// A report. Its JSON is named by its digest, and says no time: the same scan again is the
/// same object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    format: &'static str,
    statement: Digest,
    ruleset: u32,
    builds: Vec<Scanned>,
}

#[derive(Debug, Serialize)]
struct Scanned {
    archive: Digest,
    target: String,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Report {
    pub(super) fn new(statement: Digest) -> Self {
        Report { format: "modunest/report/v1", statement, ruleset: RULESET, builds: Vec::new() }
    }

    /// Takes the outcome of a build.
    ///
    /// # Errors
    /// When the outcome does not let the release pass.
    pub(super) fn add(&mut self, build: &Build, outcome: Outcome) -> Result<(), Refusal> {
        let refuse = |reason: String| {
            Err(Refusal::new(
                Code::ScanRejected,
                format!("the library for {}: {reason}", build.target),
            ))
        };
        match &outcome {
            Outcome::Clean | Outcome::Findings(_) => {}
            Outcome::Rejected(reason) => return refuse(reason.to_string()),
            Outcome::CouldNotRun(obstacle) => {
                return refuse(format!("{obstacle}; what cannot be scanned is not published"));
            }
        }
        self.builds.push(Scanned {
            archive: build.archive,
            target: build.target.to_string(),
            outcome,
        });
        Ok(())
    }

    /// What all builds together came to.
    pub(super) fn outcome(&self) -> VerdictOutcome {
        let found = self.builds.iter().any(|build| build.outcome != Outcome::Clean);
        if found { VerdictOutcome::Findings } else { VerdictOutcome::Clean }
    }

    /// The findings in words, for whoever follows the session.
    pub(super) fn findings(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for build in &self.builds {
            if let Outcome::Findings(findings) = &build.outcome {
                texts.extend(findings.iter().map(|finding| format!("{}: {finding}", build.target)));
            }
        }
        texts.truncate(FINDINGS_SHOWN_MAX);
        texts
    }

    pub(super) fn bytes(&self) -> Result<Bytes, Error> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|_| Error::Broken("a report could not be written as JSON"))
    }

    pub(super) fn digest(&self) -> Result<Digest, Error> {
        Ok(Digest::of(&self.bytes()?))
    }
}
