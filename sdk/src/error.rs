//! Status codes, and the one error type of a plugin.

use std::fmt;

use crate::abi::MAX_ERROR_TEXT_BYTES;

/// The outcome of a call across the border, as a number. New codes are only
/// ever added.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done; the out buffer holds the answer.
    Ok = 0,
    /// The plugin tried and could not.
    Failed = 1,
    /// The plugin's code panicked.
    Panicked = 2,
    /// The callee does not know this request, or this ABI.
    Unsupported = 3,
    /// The caller sent something wrong; the same call will fail again.
    InvalidInput = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// Could not find out or not now; the same call may work later.
    Unavailable = 6,
    /// The deadline passed.
    DeadlineExceeded = 7,
    /// The caller may not do this, for example call a service it does not import.
    Denied = 8,
}

impl Status {
    /// The status with this code, if version 1 knows it.
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Ok,
            1 => Self::Failed,
            2 => Self::Panicked,
            3 => Self::Unsupported,
            4 => Self::InvalidInput,
            5 => Self::NotFound,
            6 => Self::Unavailable,
            7 => Self::DeadlineExceeded,
            8 => Self::Denied,
            _ => return None,
        })
    }

    /// The number that crosses the border.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }
}

/// Why a call failed, with a text for people. Each variant is a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The plugin tried and could not.
    Failed(String),
    /// The plugin's code panicked.
    Panicked(String),
    /// The callee does not know this request, or this ABI.
    Unsupported(String),
    /// The caller sent something wrong; the same call will fail again.
    InvalidInput(String),
    /// What was asked for does not exist.
    NotFound(String),
    /// Could not find out or not now; the same call may work later.
    Unavailable(String),
    /// The deadline passed.
    DeadlineExceeded(String),
    /// The caller may not do this.
    Denied(String),
}

impl Error {
    /// A failure with the text of any error.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }

    /// A refusal of the caller's input.
    pub fn invalid_input(text: impl fmt::Display) -> Self {
        Self::InvalidInput(text.to_string())
    }

    /// Something that does not exist.
    pub fn not_found(text: impl fmt::Display) -> Self {
        Self::NotFound(text.to_string())
    }

    /// The error that a status code and its text stand for. `None` for
    /// [`Status::Ok`]; an unknown code is a failure that names the code.
    #[must_use]
    pub fn from_status(code: i32, text: &str) -> Option<Self> {
        let text = text.to_owned();
        Some(match Status::from_code(code) {
            Some(Status::Ok) => return None,
            Some(Status::Failed) => Self::Failed(text),
            Some(Status::Panicked) => Self::Panicked(text),
            Some(Status::Unsupported) => Self::Unsupported(text),
            Some(Status::InvalidInput) => Self::InvalidInput(text),
            Some(Status::NotFound) => Self::NotFound(text),
            Some(Status::Unavailable) => Self::Unavailable(text),
            Some(Status::DeadlineExceeded) => Self::DeadlineExceeded(text),
            Some(Status::Denied) => Self::Denied(text),
            None => Self::Failed(format!("unknown status {code}: {text}")),
        })
    }

    /// The code that crosses the border.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Failed(_) => Status::Failed,
            Self::Panicked(_) => Status::Panicked,
            Self::Unsupported(_) => Status::Unsupported,
            Self::InvalidInput(_) => Status::InvalidInput,
            Self::NotFound(_) => Status::NotFound,
            Self::Unavailable(_) => Status::Unavailable,
            Self::DeadlineExceeded(_) => Status::DeadlineExceeded,
            Self::Denied(_) => Status::Denied,
        }
    }

    /// The text alone, as it crosses the border.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Failed(text)
            | Self::Panicked(text)
            | Self::Unsupported(text)
            | Self::InvalidInput(text)
            | Self::NotFound(text)
            | Self::Unavailable(text)
            | Self::DeadlineExceeded(text)
            | Self::Denied(text) => text,
        }
    }

    /// The HTTP status with which a gateway answers when a route fails so.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Failed(_) | Self::Panicked(_) => 500,
            Self::Unsupported(_) => 501,
            Self::InvalidInput(_) => 400,
            Self::NotFound(_) => 404,
            Self::Unavailable(_) => 503,
            Self::DeadlineExceeded(_) => 504,
            Self::Denied(_) => 403,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
            Self::Unsupported(_) => "unsupported",
            Self::InvalidInput(_) => "invalid input",
            Self::NotFound(_) => "not found",
            Self::Unavailable(_) => "unavailable",
            Self::DeadlineExceeded(_) => "deadline exceeded",
            Self::Denied(_) => "denied",
        };
        if self.text().is_empty() {
            f.write_str(kind)
        } else {
            write!(f, "{kind}: {}", self.text())
        }
    }
}

impl std::error::Error for Error {}

/// Cuts a text to what may cross the border, at a character's edge.
pub(crate) fn cut_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ERROR_TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_border() {
        for code in 0..=8 {
            let status = Status::from_code(code);
            assert_eq!(status.map(Status::code), Some(code));
            let error = Error::from_status(code, "why");
            assert_eq!(error.as_ref().map(Error::status), status.filter(|s| *s != Status::Ok));
        }
        assert_eq!(
            Error::from_status(99, "why").map(|e| e.to_string()).as_deref(),
            Some("failed: unknown status 99: why")
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MAX_ERROR_TEXT_BYTES);
        assert_eq!(cut_text(&text).len(), MAX_ERROR_TEXT_BYTES);
        let text = format!("x{text}");
        assert_eq!(cut_text(&text).len(), MAX_ERROR_TEXT_BYTES - 1);
        assert_eq!(cut_text("short"), "short");
    }
}
