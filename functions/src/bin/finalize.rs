//! Checks of uploads as a Lambda function, driven by a queue of storage events.

use std::process::ExitCode;

use modunest_functions::lambda::{Program, main as serve};

fn main() -> ExitCode {
    serve(Program::Finalize)
}
