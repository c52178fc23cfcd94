//! What commands print: answers on standard output, errors on standard error.

use std::io::Write as _;

use modunest_agent::Error;
use serde::Serialize;

/// Prints a text, or the same as JSON.
pub(super) fn text_or_json(json: bool, text: &str, value: &impl Serialize) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut out, value)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        writeln!(out, "{}", text.trim_end())
    };
    written.map_err(Error::Output)
}

/// Prints an error, with the trace that the registry's logs have too where it was asked.
pub(super) fn error(error: &Error, trace_id: &str, json: bool) {
    let mut out = std::io::stderr().lock();
    let written = if json {
        let exit_code = error.exit_code();
        let value = serde_json::json!({ "error": error.to_string(), "exit_code": exit_code, "trace_id": trace_id });
        writeln!(out, "{value}")
    } else if matches!(error, Error::Sync(_)) {
        writeln!(out, "error: {error}\ntrace {trace_id}")
    } else {
        writeln!(out, "error: {error}")
    };
    // There is nowhere left to say that standard error cannot be written.
    drop(written);
}

/// Prints a text.
pub(super) fn text(text: &str) -> Result<(), Error> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).map_err(Error::Output)
}

/// Prints JSON on one line.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(Error::Output)
}

/// A table with aligned columns; the last one is not padded.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.to_vec()).collect();
    wide_table(&header, &rows)
}

/// As [`table`], where the columns are not counted.
pub(super) fn wide_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(header.iter().map(|heading| (*heading).to_owned()).collect());
    for row in rows {
        text.push_str(&line(row.iter().map(|cell| printable(cell)).collect()));
    }
    text
}

/// What a plugin says goes to a terminal: without the characters that steer one.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
