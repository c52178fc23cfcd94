//! What became of a runner, in words.

use std::collections::VecDeque;

use modunest_core::time::Timestamp;
use rustix::process::WaitIdStatus;

/// Last words that are kept, in bytes: a panic's message with its place, and what led to it.
const WORDS_MAX_BYTES: usize = 2048;

/// The end of a plugin's process that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// When.
    pub at: Timestamp,
    /// What happened, such as `was killed by SIGSEGV (invalid memory)`.
    pub reason: String,
    /// The end of what it wrote to its standard output and error; often empty.
    pub last_words: String,
}

impl Crash {
    /// Reason and last words in one line.
    pub fn text(&self) -> String {
        match self.last_words.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(line) => format!("{}; its last words: {line}", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// What a runner writes, of which the end is kept.
#[derive(Debug, Default)]
pub(super) struct LastWords(VecDeque<u8>);

impl LastWords {
    pub(super) fn take_in(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(WORDS_MAX_BYTES)..];
        let above = (self.0.len() + bytes.len()).saturating_sub(WORDS_MAX_BYTES);
        self.0.drain(..above);
        self.0.extend(bytes);
    }

    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        // What a terminal would obey is nothing that a screen or a log should repeat.
        text.chars().filter(|c| *c == '\n' || !c.is_control()).collect::<String>().trim().to_owned()
    }
}

/// What a process's end says. `killed_for` is why the agent ended it, if it did; `by_group` is why
/// the kernel did, where that says so.
pub(super) fn describe(
    status: Option<&WaitIdStatus>,
    killed_for: Option<&str>,
    by_group: Option<&str>,
) -> String {
    if let Some(reason) = killed_for {
        return format!("was ended by the agent: {reason}");
    }
    let Some(status) = status else { return "ended, and nobody can say how".to_owned() };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended by itself with exit code {code}"),
        (None, Some(signal)) => match by_group {
            Some(reason) if signal == libc::SIGKILL => {
                format!("was killed by the kernel: {reason}")
            }
            _ => format!("was killed by {}", signal_text(signal)),
        },
        (None, None) => "ended, and nobody can say how".to_owned(),
    }
}

fn signal_text(signal: i32) -> String {
    let (name, meaning) = match signal {
        libc::SIGABRT => ("SIGABRT", "it gave up by itself"),
        libc::SIGBUS => ("SIGBUS", "memory that is not there"),
        libc::SIGFPE => ("SIGFPE", "impossible arithmetic"),
        libc::SIGILL => ("SIGILL", "an impossible instruction"),
        libc::SIGKILL => ("SIGKILL", "by the system, where memory ran out, or by somebody"),
        libc::SIGSEGV => ("SIGSEGV", "invalid memory, or a stack that overflowed"),
        libc::SIGSYS => ("SIGSYS", "a forbidden system call"),
        libc::SIGTERM => ("SIGTERM", "by somebody"),
        libc::SIGTRAP => ("SIGTRAP", "a trap in its code"),
        libc::SIGXFSZ => ("SIGXFSZ", "a file above its limit"),
        other => return format!("signal {other}"),
    };
    format!("{name} ({meaning})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_written_is_kept() {
        let mut words = LastWords::default();
        words.take_in(&vec![b'x'; 10 * WORDS_MAX_BYTES]);
        words.take_in(b"\nthe \x1b[31mend\n");
        let text = words.text();
        assert_eq!(text.lines().last(), Some("the [31mend"));
        assert!(text.len() <= WORDS_MAX_BYTES);
        let crash =
            Crash { at: Timestamp::from_millis(0), reason: "ended".into(), last_words: text };
        assert_eq!(crash.text(), "ended; its last words: the [31mend");
        let silent = Crash { last_words: String::new(), ..crash };
        assert_eq!(silent.text(), "ended");
    }
}
