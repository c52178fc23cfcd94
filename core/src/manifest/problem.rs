//! A broken rule, and how it is shown.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One broken rule of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key at fault, for example `plugin.version` or `route[0].path`; empty for the
    /// file as a whole.
    pub key: String,
    /// What is wrong.
    pub rule: String,
    /// The way out.
    pub help: String,
    /// The line at fault, shortened.
    #[serde(skip)]
    excerpt: String,
    /// Characters to underline, at least one.
    #[serde(skip)]
    width: usize,
}

/// Longest line shown, in characters.
const EXCERPT_MAX_CHARS: usize = 120;

impl ManifestProblem {
    /// Finds the place of `span` (bytes of `text`) in lines and columns.
    pub(super) fn new(
        text: &str,
        span: Range<usize>,
        key: impl Into<String>,
        rule: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_text = text[line_start..].lines().next().unwrap_or_default();
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end.max(start)).min(line_start + line_text.len());
        let width = text.get(start..end).map_or(0, |marked| marked.chars().count()).max(1);
        ManifestProblem {
            line: text[..start].matches('\n').count() + 1,
            column,
            key: key.into(),
            rule: rule.into(),
            help: help.into(),
            // Tabs and control characters would move the caret or the terminal.
            excerpt: line_text
                .chars()
                .take(EXCERPT_MAX_CHARS)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
            width,
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        writeln!(f, "error: {}", self.rule)?;
        write!(f, "{:gutter$}--> plugin.toml:{}:{}", "", self.line, self.column)?;
        if self.key.is_empty() {
            writeln!(f)?;
        } else {
            writeln!(f, " ({})", self.key)?;
        }
        if self.column <= EXCERPT_MAX_CHARS {
            let indent = self.column - 1;
            let width = self.width.min(EXCERPT_MAX_CHARS - indent);
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{} | {}", self.line, self.excerpt)?;
            writeln!(f, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(width))?;
        }
        write!(f, "{:gutter$} = help: {}", "", self.help)
    }
}

/// All broken rules of a manifest, in the order of the file; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ManifestError {
    problems: Vec<ManifestProblem>,
}

impl ManifestError {
    pub(super) fn new(mut problems: Vec<ManifestProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        problems.truncate(super::PROBLEMS_MAX);
        ManifestError { problems }
    }

    pub(super) fn not_utf8(bytes: &[u8], at: usize) -> Self {
        // Everything before `at` is valid, so the lossy text has the same positions up to it.
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(super::MANIFEST_MAX_BYTES)]);
        Self::new(vec![ManifestProblem::new(
            &text,
            at..at + 1,
            "",
            "the file is not UTF-8",
            "save it as UTF-8",
        )])
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[ManifestProblem] {
        &self.problems
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f, "\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
