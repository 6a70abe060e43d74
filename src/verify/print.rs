//! The outcome of a check, as a table for people or as one JSON object.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Outcome;
use super::check::Checked;

/// What is wrong, a line each, and a summary as the last line.
///
/// # Errors
///
/// `out` takes no more.
pub fn table(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let bad: Vec<(String, &Checked)> = outcome
        .files
        .iter()
        .filter(|file| file.problems_count > 0 || file.unreadable.is_some())
        .map(|file| (path(file), file))
        .collect();
    let width = bad.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    for (path, file) in &bad {
        for problem in &file.problems {
            writeln!(out, "{path:width$}  {problem}")?;
        }
        let more = file.problems_count - file.problems.len() as u64;
        if more > 0 {
            writeln!(out, "{path:width$}  and {more} more")?;
        }
        if let Some(why) = &file.unreadable {
            writeln!(out, "{path:width$}  cannot be read: {why}")?;
        }
    }
    let damaged = bad
        .iter()
        .filter(|(_, file)| file.problems_count > 0)
        .count();
    let unreadable = bad
        .iter()
        .filter(|(_, file)| file.unreadable.is_some())
        .count();
    let lines: u64 = outcome.files.iter().map(|file| file.lines).sum();
    let segments = outcome.files.len();
    writeln!(
        out,
        "{segments} segments, {lines} lines, {damaged} damaged, {unreadable} unreadable"
    )
}

/// The same as one JSON object on one line.
///
/// # Errors
///
/// `out` takes no more.
pub fn json(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let files: Vec<Value> = outcome.files.iter().map(file_json).collect();
    writeln!(out, "{}", json!({ "segments": files }))
}

fn file_json(file: &Checked) -> Value {
    json!({
        "path": path(file),
        "lines": file.lines,
        "text_bytes": file.text_bytes,
        "problems": file.problems,
        "problems_count": file.problems_count,
        "unreadable": file.unreadable,
    })
}

fn path(file: &Checked) -> String {
    format!("{}{}", file.dir.prefix(), file.name)
}
