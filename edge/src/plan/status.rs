//! What the health paths say.

use serde::Serialize;

use super::answer::AnswerHead;

/// Body of the liveness answer: the process can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Alive {
    status: &'static str,
}

impl Alive {
    /// The one thing it can say.
    pub const NOW: Alive = Alive { status: "alive" };
}

/// How a dependency answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It answered as it should.
    Ready,
    /// It did not answer, or not in time, or with an error.
    Unavailable,
    /// None is configured.
    NotConfigured,
}

/// Body of the readiness answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// [`State::Ready`] when no dependency is unavailable.
    pub status: State,
    /// The public bucket.
    pub bucket: State,
    /// The API behind `/v1/`.
    pub api: State,
}

impl Readiness {
    /// Judges the whole by its parts.
    pub fn of(bucket: State, api: State) -> Self {
        let any_down = [bucket, api].contains(&State::Unavailable);
        Readiness { status: if any_down { State::Unavailable } else { State::Ready }, bucket, api }
    }

    /// The answer's head: 200, or 503 so that a balancer sends requests elsewhere.
    pub fn head(&self) -> AnswerHead {
        AnswerHead::json(if self.status == State::Ready { 200 } else { 503 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn one_dependency_down_is_not_ready() {
        let up = Readiness::of(State::Ready, State::NotConfigured);
        assert_eq!(up.head().status, 200);
        assert_eq!(
            serde_json::to_string(&up).unwrap(),
            r#"{"status":"ready","bucket":"ready","api":"not-configured"}"#
        );
        for (bucket, api) in
            [(State::Unavailable, State::Ready), (State::Ready, State::Unavailable)]
        {
            let down = Readiness::of(bucket, api);
            assert_eq!((down.status, down.head().status), (State::Unavailable, 503));
        }
    }
}
