//! Refusals that every shell words the same.

use modunest_core::keys::ObjectKey;
use modunest_core::problem::{Code, Refusal};

use super::{AnswerHead, HeaderText};

/// Period of the rate limits, in seconds: one of the two that the platform knows.
pub const RATE_LIMIT_PERIOD_SECS: u64 = 60;

/// The refusal of an API path where no API is configured.
pub fn no_api() -> AnswerHead {
    AnswerHead::refuse(Refusal::new(
        Code::NotFound,
        "This server hands out files; no API is configured behind it.",
    ))
}

/// The refusal of a path whose object the bucket does not hold.
pub fn no_object(key: &ObjectKey) -> AnswerHead {
    AnswerHead::refuse(Refusal::new(Code::NotFound, format!("There is no object {key}.")))
}

/// The refusal while no store can be asked.
pub fn store_unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "The object store does not answer. Try again in a moment.")
}

/// The refusal of stored bytes that are not those their name promises.
pub fn store_damaged() -> Refusal {
    Refusal::new(Code::Unavailable, "The stored object is damaged and is not handed out.")
}

/// The refusal of one address that asks too often.
pub fn too_many_requests() -> AnswerHead {
    let mut head = AnswerHead::refuse(Refusal::new(
        Code::RateLimited,
        format!(
            "Too many requests came from this address. Try again in {RATE_LIMIT_PERIOD_SECS} seconds."
        ),
    ));
    head.headers.push(("retry-after", HeaderText::Number(RATE_LIMIT_PERIOD_SECS)));
    head
}

/// The answer to a mistake of ours. What it was stands in the log.
pub fn internal() -> AnswerHead {
    AnswerHead::refuse(Refusal::new(
        Code::Internal,
        "Something failed on our side. The log has the details under this trace.",
    ))
}

/// The refusal of everything while the settings cannot work.
pub fn not_configured() -> AnswerHead {
    AnswerHead::refuse(Refusal::new(
        Code::Unavailable,
        "This server's settings cannot work. Its log says which.",
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_often_is_told_for_how_long() {
        let head = too_many_requests();
        assert_eq!(head.status, 429);
        assert_eq!(head.header("retry-after").as_deref(), Some("60"));
        assert_eq!(head.header("cache-control").as_deref(), Some("no-store"));
        assert_eq!(internal().status, 500);
        assert_eq!(not_configured().status, 503);
    }
}
