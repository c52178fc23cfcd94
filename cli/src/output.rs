//! What commands print: JSON for programs, text for people, and progress on long work.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::Error;

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// No progress.
    pub quiet: bool,
}

impl Output {
    /// Prints `data` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print<T: Serialize>(
        &self,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        let shown = if self.json {
            serde_json::to_string_pretty(data).map_err(|error| Error::Failed(error.to_string()))?
        } else {
            text(data)
        };
        write_line(&shown)
    }

    /// Prints a line for people; nothing with `--json`.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn say(&self, text: &str) -> Result<(), Error> {
        if self.json { Ok(()) } else { write_line(text) }
    }

    /// Says aside, on standard error, what somebody should know; nothing with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            // Nobody reads it if that is closed, and the work goes on.
            drop(writeln!(std::io::stderr(), "note: {text}"));
        }
    }

    /// A bar over bytes.
    pub fn bytes(&self, what: &str, total: u64) -> ProgressBar {
        self.bar(
            ProgressBar::new(total),
            "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
            what,
        )
    }

    /// A spinner for work whose length nobody knows.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        let spinner = self.bar(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", what);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    fn bar(&self, bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
        if self.quiet || self.json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        // The templates are the constants above; a wrong one falls back to the library's own.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }
}

fn write_line(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::file("standard output"))
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A time that has passed, as people read it.
pub fn ago(passed: Duration) -> String {
    format!("{} ago", indicatif::HumanDuration(passed))
}
