//! Where a plugin stands.

use modunest_core::time::Timestamp;
use serde::Serialize;

/// Where a plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// What it needs is still loading, or no slot is free.
    Waiting,
    /// It is being loaded.
    Loading,
    /// It serves.
    Ready,
    /// It could not be loaded.
    Failed,
    /// Something that it needs could not be loaded.
    Blocked,
    /// What it runs in ended, and is started again.
    Restarting,
    /// It takes no more calls, and is being stopped.
    Stopping,
    /// It was stopped.
    Stopped,
}

impl State {
    /// All of them, in the order of a life.
    pub const ALL: [State; 7] = [
        State::Waiting,
        State::Loading,
        State::Ready,
        State::Failed,
        State::Blocked,
        State::Stopping,
        State::Stopped,
    ];

    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Loading => "loading",
            State::Ready => "ready",
            State::Failed => "failed",
            State::Blocked => "blocked",
            State::Restarting => "restarting",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        }
    }
}

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// When it came about.
    pub since: Timestamp,
    /// Why, for [`State::Failed`], [`State::Blocked`] and [`State::Restarting`].
    pub reason: Option<String>,
}
