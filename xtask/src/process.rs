//! Starting programs.

use std::process::{Command, Stdio};

use crate::error::Error;

/// The command line, as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs a program to its end with our output and no input, and fails if it fails.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::Start { command: shown(command), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: shown(command), status }) }
}

/// Runs a program and returns what it wrote to its standard output, as text.
pub fn output(command: &mut Command) -> Result<String, Error> {
    bytes(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a program and returns what it wrote to its standard output.
pub fn bytes(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start { command: shown(command), source })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::Failed { command: shown(command), status: output.status })
    }
}

/// Whether a program runs and succeeds, without showing anything. For programs that may be absent.
pub fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(Command::new("false").arg("--now")).unwrap_err();
        assert_eq!(error.to_string(), "`false --now` failed: exit status: 1");
    }

    #[test]
    fn an_absent_program_is_an_error_to_run_and_none_to_ask() {
        let name = "a-program-that-is-not-there";
        assert!(matches!(run(&mut Command::new(name)), Err(Error::Start { .. })));
        assert_eq!(first_line(&mut Command::new(name)), None);
    }
}
