//! Everything the command can fail with, and the exit code of each.

use std::path::PathBuf;

use modunest_core::problem::Problem;

/// Why a command failed. `Display` gives the text for the terminal: what, where, and the
/// way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or an answer at a prompt makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something the author wrote breaks a rule.
    #[error("{0}")]
    Input(String),
    /// A file or folder cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The registry refused.
    #[error("{}", problem_text(.0))]
    Refused(Box<Problem>),
    /// The registry could not be reached, or broke off.
    #[error(
        "{what}: {why}\nIs the registry running, and is its address right? `modunest up` starts one on this machine."
    )]
    Unreachable {
        /// What was tried.
        what: String,
        /// What went wrong.
        why: String,
    },
    /// Something the registry or a mirror showed could not be proven.
    #[error("refused, because it could not be proven: {0}")]
    Unproven(String),
    /// A registry contradicts itself, or is too old to be believed.
    #[error("the registry misbehaves: {0}")]
    Misbehaved(String),
    /// Nothing is wrong, and what was watched for has happened.
    #[error("{0}")]
    Activity(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The exit code; documented in `modunest --help`.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) | Error::File { .. } => 1,
            Error::Usage(_) => 2,
            Error::Input(_) => 3,
            Error::Refused(_) => 4,
            Error::Unreachable { .. } => 5,
            Error::Unproven(_) => 6,
            Error::Misbehaved(_) => 7,
            Error::Activity(_) => 8,
        }
    }

    /// Names the file that could not be used.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}

/// Exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line makes no sense
  3  a manifest, archive, key or other input breaks a rule
  4  the registry refused
  5  the registry could not be reached
  6  an answer could not be proven and was not believed
  7  a registry contradicts itself (modunest monitor)
  8  watched names or keys were active (modunest monitor)";

fn problem_text(problem: &Problem) -> String {
    let mut text = format!("{} ({})", problem.detail, problem.code.as_str());
    for error in &problem.errors {
        text.push_str(&format!("\n  {}: {}", error.place, error.rule));
    }
    text.push_str(&format!("\ntrace {}", problem.trace_id));
    text
}

#[cfg(test)]
mod tests {
    use modunest_core::problem::{Code, FieldProblem};

    use super::*;

    #[test]
    fn a_refusal_reads_whole() {
        let mut problem = Problem::new(Code::InvalidArchive, "the archive is not allowed", "4bf9");
        problem
            .errors
            .push(FieldProblem { place: "lib/plugin.so".into(), rule: "stands twice".into() });
        insta::assert_snapshot!(Error::Refused(Box::new(problem)), @r"
        the archive is not allowed (invalid-archive)
          lib/plugin.so: stands twice
        trace 4bf9
        ");
    }
}
