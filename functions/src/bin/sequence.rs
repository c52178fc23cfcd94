//! The sequencer's heartbeat as a Lambda function, driven by a schedule.

use std::process::ExitCode;

use modunest_functions::lambda::{Program, main as serve};

fn main() -> ExitCode {
    serve(Program::Sequence)
}
