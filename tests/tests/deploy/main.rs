//! What the two deployment files say, held against the code that they deploy: nothing that
//! either side changes alone reaches an account.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod template;

mod calls;
mod policies;

mod alarms;
mod functions;
mod table;
mod worker;
