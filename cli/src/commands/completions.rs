//! `modunest completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::error::Error;

/// Prints a shell's completion script.
///
/// # Errors
/// When standard output is closed.
pub fn run(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Arguments::command(), "modunest", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)
        .map_err(Error::file("standard output"))
}
