//! Figures, as one JSON object or as a table for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::samples::{json_text, number};
use super::summary::{Figures, Grouping, Row, Summary};
use crate::tally::{Cell, GroupName};

/// The quantiles that are told.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// Heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The most characters of a name in a table.
const NAME_CHARS_MAX: usize = 60;

/// The most characters of a sparkline.
pub const SPARKS_MAX: u64 = 48;

/// Of a cell's latencies: least, mean, [`QUANTILES`], greatest.
fn latencies(cell: &Cell) -> [(&'static str, Option<f64>); 7] {
    let quantiles = cell.quantiles(QUANTILES.map(|(_, quantile)| quantile));
    let quantile = |index: usize| (QUANTILES[index].0, quantiles.map(|values| values[index]));
    let mean = cell.mean();
    let if_any = |extreme: f64| mean.is_some().then_some(extreme);
    [
        ("min", if_any(cell.min)),
        ("mean", mean),
        quantile(0),
        quantile(1),
        quantile(2),
        quantile(3),
        ("max", if_any(cell.max)),
    ]
}

/// `{"rows":[…],"skipped_lines":n,…}`, on one line.
///
/// # Errors
///
/// `out` takes no more.
pub fn json(figures: &Figures, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    for (index, row) in figures.rows.iter().enumerate() {
        text.clear();
        text.extend_from_slice(if index == 0 { b"{\"rows\":[" } else { b"," });
        json_row(row, &summary.group, &mut text);
        out.write_all(&text)?;
    }
    let begin = match figures.rows.is_empty() {
        true => "{\"rows\":[",
        false => "",
    };
    let Figures {
        skipped_lines,
        decoded_segments,
        indexed_segments,
        ..
    } = figures;
    writeln!(
        out,
        "{begin}],\"skipped_lines\":{skipped_lines},\"decoded_segments\":{decoded_segments},\
         \"indexed_segments\":{indexed_segments}}}"
    )
}

fn json_row(row: &Row, group: &Grouping, text: &mut Vec<u8>) {
    text.extend_from_slice(b"{\"start\":");
    json_text(text, Some(&row.start.to_string()));
    text.push(b',');
    json_text(text, Some(group.member()));
    text.push(b':');
    match (group, &row.group) {
        // It is JSON.
        (Grouping::Pointer(_), Some(value)) => text.extend_from_slice(value.as_bytes()),
        (_, name) => json_text(text, name.as_deref()),
    }
    let cell = &row.cell;
    let counts = [
        ("samples", cell.samples),
        ("errors", cell.errors),
        ("no_data", cell.no_data),
    ];
    for (name, count) in counts {
        text.extend_from_slice(format!(",\"{name}\":{count}").as_bytes());
    }
    for (name, value) in latencies(cell) {
        text.extend_from_slice(format!(",\"{name}\":").as_bytes());
        number(text, value.filter(|value| value.is_finite()), b"null");
    }
    text.push(b'}');
}

/// How a table looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A row for each step and group.
    BySteps,
    /// A row for each group.
    ByGroups,
    /// The same, with a sparkline of the 95th percentile over the steps.
    WithSparklines,
}

/// A header and a row a line, in columns.
///
/// # Errors
///
/// `out` takes no more.
pub fn table(
    figures: Figures,
    summary: &Summary,
    look: Look,
    out: &mut impl Write,
) -> io::Result<()> {
    let skipped_lines = figures.skipped_lines;
    let mut lines: Vec<Vec<String>> = Vec::new();
    let group = summary.group.member();
    match look {
        Look::BySteps => {
            lines.push(header(&["start", group], &[]));
            for row in &figures.rows {
                let start = row.start.to_string();
                lines.push(line(&[&start, name(&row.group)], &row.cell, None));
            }
        }
        Look::ByGroups | Look::WithSparklines => {
            let last: &[&str] = match look {
                Look::WithSparklines => &["p95 over time"],
                _ => &[],
            };
            lines.push(header(&[group], last));
            let (groups, count) = by_group(figures, summary);
            for (group, steps) in groups {
                let sparkline = (look == Look::WithSparklines).then(|| sparkline(&steps, count));
                let mut whole = Cell::default();
                for cell in steps.into_values() {
                    whole.add(cell);
                }
                lines.push(line(&[name(&group)], &whole, sparkline));
            }
        }
    }
    print_columns(&lines, look, out)?;
    if skipped_lines > 0 {
        writeln!(out, "{skipped_lines} lines are no reports")?;
    }
    Ok(())
}

fn name(group: &GroupName) -> &str {
    group.as_deref().unwrap_or("-")
}

fn header(first: &[&str], last: &[&str]) -> Vec<String> {
    let counts = ["samples", "errors", "no data"];
    let latencies = ["min", "mean", "p50", "p90", "p95", "p99", "max"];
    let columns = first.iter().chain(&counts).chain(&latencies).chain(last);
    columns.map(|&column| column.to_owned()).collect()
}

fn line(first: &[&str], cell: &Cell, last: Option<String>) -> Vec<String> {
    let first = first.iter().map(|&text| printable(text));
    let counts = [cell.samples, cell.errors, cell.no_data].map(|count| count.to_string());
    let latencies = latencies(cell).map(|(_, value)| match value {
        None => "-".to_owned(),
        Some(value) if value.abs() < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    });
    first.chain(counts).chain(latencies).chain(last).collect()
}

/// What a client chose may hold what a terminal takes for a command, and be of any length.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    let mut chars = text.chars().map(shown);
    let mut short: String = chars.by_ref().take(NAME_CHARS_MAX).collect();
    short.extend(chars.next().map(|_| '…'));
    short
}

fn print_columns(lines: &[Vec<String>], look: Look, out: &mut impl Write) -> io::Result<()> {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let texts = match look {
        Look::BySteps => 2,
        Look::ByGroups | Look::WithSparklines => 1,
    };
    for line in lines {
        let mut text = String::new();
        for (column, field) in line.iter().enumerate() {
            if column > 0 {
                text.push_str("  ");
            }
            let blanks = " ".repeat(widths[column] - field.chars().count());
            let is_left = column < texts || look == Look::WithSparklines && column + 1 == columns;
            match is_left {
                true => text += &(field.clone() + &blanks),
                false => text += &(blanks + field),
            }
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// The figures of a group by the number of their step.
type Steps = BTreeMap<u64, Cell>;

/// The steps of each group, by group, and how many there are in all.
fn by_group(figures: Figures, summary: &Summary) -> (BTreeMap<GroupName, Steps>, u64) {
    let starts = figures.rows.iter().map(|row| row.start.ms());
    let first = starts.clone().min().unwrap_or(0);
    let last = starts.max().unwrap_or(0);
    // Without steps it is all one.
    let step_ms = summary.step_ms.unwrap_or(u64::MAX);
    let count = ((last - first) / step_ms + 1).min(SPARKS_MAX * 2);
    let mut groups: BTreeMap<GroupName, Steps> = BTreeMap::new();
    for row in figures.rows {
        let step = ((row.start.ms() - first) / step_ms).min(count - 1);
        let steps = groups.entry(row.group).or_default();
        steps.entry(step).or_default().add(row.cell);
    }
    (groups, count)
}

/// The 95th percentile of each step, as a part of the greatest.
fn sparkline(steps: &Steps, count: u64) -> String {
    let p95 = |step| steps.get(&step)?.quantiles([0.95]).map(|[p95]| p95);
    let values: Vec<Option<f64>> = (0..count).map(p95).collect();
    let greatest = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: Option<f64>| match value {
        None => ' ',
        Some(value) => {
            let part = (value / greatest).clamp(0.0, 1.0);
            BARS[(part * (BARS.len() - 1) as f64).round() as usize]
        }
    };
    values.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::summary::Counting;
    use crate::tally::{Outcome, Tally};
    use crate::time::Timestamp;

    fn figures(group: Grouping, names: [Option<&str>; 2]) -> (Figures, Summary) {
        let mut tally = Tally::default();
        for (minute, latencies) in [(0, &[10.0, 20.0][..]), (1, &[40.0]), (3, &[80.0, 2.5])] {
            let outcomes = latencies.iter().map(|&latency| Outcome {
                latency: Some(latency),
                is_error: false,
            });
            tally.record(names[0], minute * 60_000, outcomes);
        }
        let outcomes = [true, false].map(|is_error| Outcome {
            latency: None,
            is_error,
        });
        tally.record(names[1], 60_000, outcomes);
        let rows = tally.into_groups().flat_map(|(group, steps)| {
            steps.into_iter().map(move |(start, cell)| Row {
                start: Timestamp::from_ms(start),
                group: group.clone(),
                cell,
            })
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.sort_by_key(|row| (row.start, row.group.clone()));
        let figures = Figures {
            rows,
            skipped_lines: 1,
            decoded_segments: 2,
            indexed_segments: 3,
        };
        let summary = Summary {
            step_ms: Some(60_000),
            group,
            counting: Counting::Each,
        };
        (figures, summary)
    }

    #[test]
    fn as_json() {
        let (figures, summary) = figures(Grouping::Host, [Some("Git\"Hub"), None]);
        let mut out = Vec::new();
        json(&figures, &summary, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let begin = concat!(
            r#"{"rows":[{"start":"1970-01-01T00:00:00.000Z","host":"Git\"Hub","samples":2,"errors":0,"no_data":0,"#,
            r#""min":10,"mean":15,"p50":"#,
        );
        assert!(text.starts_with(begin), "{text}");
        let without = concat!(
            r#"{"start":"1970-01-01T00:01:00.000Z","host":null,"samples":2,"errors":1,"no_data":1,"#,
            r#""min":null,"mean":null,"p50":null,"p90":null,"p95":null,"p99":null,"max":null}"#,
        );
        assert!(text.contains(without), "{text}");
        let end = "],\"skipped_lines\":1,\"decoded_segments\":2,\"indexed_segments\":3}\n";
        assert!(text.ends_with(end), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let none = Figures {
            rows: Vec::new(),
            ..figures
        };
        let mut out = Vec::new();
        json(&none, &summary, &mut out).unwrap();
        let expected =
            "{\"rows\":[],\"skipped_lines\":1,\"decoded_segments\":2,\"indexed_segments\":3}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_pointers_value_is_json() {
        let pointer = Grouping::by_pointer("/geo/country").unwrap();
        let (figures, summary) = figures(pointer, [Some("\"DE\""), Some("[1]")]);
        let mut out = Vec::new();
        json(&figures, &summary, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\"/geo/country\":\"DE\","), "{text}");
        assert!(text.contains("\"/geo/country\":[1],"), "{text}");
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(printable(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(printable(&"é".repeat(61)), "é".repeat(60) + "…");
    }

    #[test]
    fn as_tables() {
        #[track_caller]
        fn check(look: Look, expected: &str) {
            let (figures, summary) = figures(Grouping::Host, [Some("GitHub\x1b"), None]);
            let mut out = Vec::new();
            table(figures, &summary, look, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        check(
            Look::WithSparklines,
            concat!(
                "host     samples  errors  no data  min  mean   p50   p90   p95   p99   max  p95 over time\n",
                "-              2       1        1    -     -     -     -     -     -     -\n",
                "GitHub\u{FFFD}        5       0        0  2.5  30.5  20.0  80.0  80.0  80.0  80.0  ▃▅ █\n",
                "1 lines are no reports\n",
            ),
        );
        check(
            Look::ByGroups,
            concat!(
                "host     samples  errors  no data  min  mean   p50   p90   p95   p99   max\n",
                "-              2       1        1    -     -     -     -     -     -     -\n",
                "GitHub\u{FFFD}        5       0        0  2.5  30.5  20.0  80.0  80.0  80.0  80.0\n",
                "1 lines are no reports\n",
            ),
        );
        check(
            Look::BySteps,
            concat!(
                "start                     host     samples  errors  no data   min  mean   ",
                "p50   p90   p95   p99   max\n",
                "1970-01-01T00:00:00.000Z  GitHub\u{FFFD}        2       0        0  10.0  15.0  ",
                "10.0  20.0  20.0  20.0  20.0\n",
                "1970-01-01T00:01:00.000Z  -              2       1        1     -     -     ",
                "-     -     -     -     -\n",
                "1970-01-01T00:01:00.000Z  GitHub\u{FFFD}        1       0        0  40.0  40.0  ",
                "40.0  40.0  40.0  40.0  40.0\n",
                "1970-01-01T00:03:00.000Z  GitHub\u{FFFD}        2       0        0   2.5  41.2   ",
                "2.5  80.0  80.0  80.0  80.0\n",
                "1 lines are no reports\n",
            ),
        );
    }
}
