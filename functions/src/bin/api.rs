//! The API as a Lambda function.

use std::process::ExitCode;

use modunest_functions::lambda::{Program, main as serve};

fn main() -> ExitCode {
    serve(Program::Api)
}
