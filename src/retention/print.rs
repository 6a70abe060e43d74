//! What `retention` has found and done, as a table for people or as one JSON object.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Limits;
use super::command::{Fate, Going, Mode, Outcome};
use crate::time::Timestamp;

/// A line for each segment that goes: name, bytes, age, reason; and a summary as the last line.
///
/// # Errors
///
/// `out` takes no more.
pub fn table(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    if outcome.limits == Limits::default() {
        writeln!(out, "neither RETENTION_AGE nor RETENTION_BYTES is set")?;
    }
    let rows: Vec<[String; 4]> = outcome
        .going
        .iter()
        .map(|going| {
            [
                going.segment.name.to_string(),
                going.segment.bytes().to_string(),
                age(going.segment.last_line, outcome.now),
                format!("{}{}", going.reason, fate_note(&going.fate)),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [names, bytes, ages] = [0, 1, 2].map(width);
    for [name, size, age, why] in &rows {
        writeln!(out, "{name:names$}  {size:>bytes$}  {age:>ages$}  {why}")?;
    }
    for (name, fate) in &outcome.sidecars {
        let note = fate_note(fate);
        writeln!(out, ".index/{name}  without a segment{note}")?;
    }
    let is_gone = |going: &&Going| matches!(going.fate, Fate::Planned | Fate::Removed);
    let gone = || outcome.going.iter().filter(is_gone);
    let gone_bytes: u64 = gone().map(|going| going.segment.bytes()).sum();
    writeln!(
        out,
        "{} of {} segments {}, {gone_bytes} of {} bytes",
        gone().count(),
        outcome.segments,
        match outcome.mode {
            Mode::DryRun => "would be removed",
            Mode::Remove => "removed",
        },
        outcome.bytes,
    )
}

/// The same as one JSON object on one line, and how long it took.
///
/// # Errors
///
/// `out` takes no more.
pub fn json(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let segments: Vec<Value> = outcome
        .going
        .iter()
        .map(|going| {
            let (fate, error) = fate_and_error(&going.fate);
            json!({
                "name": going.segment.name,
                "bytes": going.segment.bytes(),
                "last_line": going.segment.last_line.to_string(),
                "reason": going.reason.to_string(),
                "fate": fate,
                "error": error,
            })
        })
        .collect();
    let sidecars: Vec<Value> = outcome
        .sidecars
        .iter()
        .map(|(name, fate)| {
            let (fate, error) = fate_and_error(fate);
            json!({ "name": name, "fate": fate, "error": error })
        })
        .collect();
    let whole = json!({
        "dry_run": outcome.mode == Mode::DryRun,
        "retention_age_secs": outcome.limits.age.map(|age| age.as_secs()),
        "retention_bytes": outcome.limits.bytes,
        "found": { "segments": outcome.segments, "bytes": outcome.bytes },
        "segments": segments,
        "sidecars": sidecars,
        "listed_ms": outcome.listed_ms,
        "planned_ms": outcome.planned_ms,
    });
    writeln!(out, "{whole}")
}

/// What has to be said beside the reason.
fn fate_note(fate: &Fate) -> String {
    match fate {
        Fate::Planned | Fate::Removed => String::new(),
        Fate::BeingRead => ", kept: it is being read".to_owned(),
        Fate::Failed(error) => format!(", kept: {error}"),
    }
}

fn fate_and_error(fate: &Fate) -> (&'static str, Option<String>) {
    match fate {
        Fate::Planned => ("planned", None),
        Fate::Removed => ("removed", None),
        Fate::BeingRead => ("being_read", None),
        Fate::Failed(error) => ("failed", Some(error.to_string())),
    }
}

/// In the largest unit that it fills.
fn age(from: Timestamp, to: Timestamp) -> String {
    let secs = to.ms().saturating_sub(from.ms()) / 1000;
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let unit = units.iter().find(|(_, size)| secs >= *size);
    let (unit, size) = unit.unwrap_or(&("s", 1));
    format!("{}{unit}", secs / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        #[track_caller]
        fn check(from_ms: u64, to_ms: u64, expected: &str) {
            let [from, to] = [from_ms, to_ms].map(Timestamp::from_ms);
            assert_eq!(age(from, to), expected);
        }
        check(0, 999, "0s");
        check(1_000, 0, "0s");
        check(0, 59_999, "59s");
        check(0, 60_000, "1m");
        check(0, 3_599_999, "59m");
        check(0, 3_600_000, "1h");
        check(0, 86_399_999, "23h");
        check(0, 86_400_000, "1d");
        check(0, 86_400_000 * 400, "400d");
    }
}
