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
    /// It is loaded, and takes its predecessor's state over before it serves.
    Prepared,
    /// It is proven and planned, and will be loaded when it is first used.
    Idle,
    /// It is being loaded because somebody uses it; calls wait.
    Activating,
    /// It serves.
    Ready,
    /// It serves, and says that it is not well.
    Unhealthy,
    /// Its state is being handed to its successor; calls wait.
    Switching,
    /// Its successor serves; it is kept for a while, to go back to.
    Standby,
    /// Its release was quarantined; it answers no call.
    Denied,
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
    pub const ALL: [State; 15] = [
        State::Waiting,
        State::Loading,
        State::Prepared,
        State::Idle,
        State::Activating,
        State::Ready,
        State::Unhealthy,
        State::Switching,
        State::Standby,
        State::Denied,
        State::Failed,
        State::Blocked,
        State::Restarting,
        State::Stopping,
        State::Stopped,
    ];

    /// Whether calls are answered, at once or after a wait.
    pub fn serves(self) -> bool {
        match self {
            State::Ready
            | State::Unhealthy
            | State::Switching
            | State::Restarting
            | State::Idle
            | State::Activating => true,
            State::Waiting
            | State::Loading
            | State::Prepared
            | State::Failed
            | State::Blocked
            | State::Standby
            | State::Denied
            | State::Stopping
            | State::Stopped => false,
        }
    }

    /// Whether it is loaded, or will be when it is used: nothing that needs it is blocked.
    pub fn is_up(self) -> bool {
        self.serves() || matches!(self, State::Prepared | State::Standby)
    }

    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Loading => "loading",
            State::Prepared => "prepared",
            State::Idle => "idle",
            State::Activating => "activating",
            State::Ready => "ready",
            State::Unhealthy => "unhealthy",
            State::Switching => "switching",
            State::Standby => "standby",
            State::Denied => "denied",
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
    /// Why, for [`State::Failed`], [`State::Blocked`], [`State::Restarting`],
    /// [`State::Unhealthy`] and [`State::Denied`].
    pub reason: Option<String>,
}
