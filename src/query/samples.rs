//! One row for each sample, oldest report first.
//!
//! ```text
//! receivedAt, clientId, host, url, t, latency, error      a member that is missing or null: null, or an empty field
//! ```
//!
//! As JSON, one object to a line, or as CSV (RFC 4180) with the names in the first line. Numbers are spelled in the
//! shortest way that is the same f64; whole ones without a point.

use std::io::Write;

use super::cursor::Cursor;
use super::merge::{Item, Line, Merge, Want};
use super::sources::Store;
use super::{Ended, EndedBy, Extent, Filter, LINES_BETWEEN, QueryError, Sink};
use crate::report::extract::{Extractor, Host, Reading, Sample};

/// How rows are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON objects, one to a line.
    Ndjson,
    /// Fields with commas between, and a line of names first.
    Csv,
}

/// The names of the fields.
const FIELDS: [&str; 7] = [
    "receivedAt",
    "clientId",
    "host",
    "url",
    "t",
    "latency",
    "error",
];

/// Bytes of rows that are given at a time.
const GIVEN_BYTES: usize = 32 << 10;

/// Whole numbers below this are exact as f64, and spelled without a point.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// Gives the rows that are asked for.
///
/// # Errors
///
/// What has been given is then not all of it.
pub fn write(
    store: &Store,
    filter: &Filter,
    cursor: &Cursor,
    extent: Extent,
    format: Format,
    sink: &mut impl Sink,
) -> Result<Ended, QueryError> {
    let mut merge = Merge::new(store, filter, cursor)?;
    let mut extractor = Extractor::default();
    let mut rows = Rows::new(format);
    let mut lines = 0;
    while !extent.is_reached(rows.count, rows.bytes) {
        let line = match merge.next(Want::Lines)? {
            Some(Item::Line(line)) => line,
            Some(Item::Segment { .. }) => unreachable!("lines are wanted"),
            Some(Item::Passed) => match sink.is_gone() {
                true => return Err(QueryError::Gone),
                false => continue,
            },
            None => {
                rows.give(sink)?;
                let cursor = merge.into_cursor(None)?;
                let by = EndedBy::Data;
                return Ok(Ended { cursor, by });
            }
        };
        let left = match filter.may_match(line.text) {
            false => None,
            true => extractor.read(line.text, |reading| match filter.takes_client(reading) {
                true => rows.add_line(&line, reading, filter, extent, sink),
                false => Ok(None),
            }),
        };
        let left = left.unwrap_or(Ok(None))?;
        lines += 1;
        if lines % LINES_BETWEEN == 0 && sink.is_gone() {
            return Err(QueryError::Gone);
        }
        if left.is_some() {
            rows.give(sink)?;
            let cursor = merge.into_cursor(left)?;
            let by = EndedBy::Extent;
            return Ok(Ended { cursor, by });
        }
    }
    rows.give(sink)?;
    let cursor = merge.into_cursor(None)?;
    let by = EndedBy::Extent;
    Ok(Ended { cursor, by })
}

struct Rows {
    format: Format,
    count: u64,
    bytes: u64,
    /// Those that have not been given.
    text: Vec<u8>,
    /// What the rows of one host begin with.
    begin: Vec<u8>,
}

impl Rows {
    fn new(format: Format) -> Rows {
        let text = match format {
            Format::Ndjson => String::new(),
            Format::Csv => FIELDS.join(",") + "\r\n",
        };
        Rows {
            format,
            count: 0,
            bytes: 0,
            text: text.into_bytes(),
            begin: Vec::new(),
        }
    }

    fn give(&mut self, sink: &mut impl Sink) -> Result<(), QueryError> {
        if !self.text.is_empty() {
            sink.text(&self.text).map_err(QueryError::Sink)?;
            self.text.clear();
        }
        Ok(())
    }

    /// Adds the samples of a line that have not been had, and gives what has come together. If not all of them may be:
    /// how many of the line's have been had now, those that are not asked for included.
    fn add_line(
        &mut self,
        line: &Line<'_>,
        reading: &Reading<'_>,
        filter: &Filter,
        extent: Extent,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, QueryError> {
        let mut index = 0;
        let received = line.received.to_string();
        for host in reading.hosts() {
            if !filter.takes_host(host.name) {
                index += host.samples.len() as u64;
                continue;
            }
            self.begin_host(&received, reading.client, &host);
            for sample in host.samples {
                if index >= line.rows_before {
                    if extent.is_reached(self.count, self.bytes) {
                        return Ok(Some(index));
                    }
                    let before = self.text.len();
                    self.add(sample);
                    self.count += 1;
                    self.bytes += (self.text.len() - before) as u64;
                    // A name of a MiB stands in each of its rows: a line's rows may be more than memory.
                    if self.text.len() >= GIVEN_BYTES {
                        self.give(sink)?;
                    }
                }
                index += 1;
            }
        }
        Ok(None)
    }

    fn begin_host(&mut self, received: &str, client: Option<&str>, host: &Host<'_, '_>) {
        let fields = [Some(received), client, host.name, host.url];
        self.begin.clear();
        match self.format {
            Format::Ndjson => {
                self.begin.push(b'{');
                for (name, value) in FIELDS.iter().zip(fields) {
                    // A vector takes everything.
                    let _ = write!(self.begin, "\"{name}\":");
                    json_text(&mut self.begin, value);
                    self.begin.push(b',');
                }
                self.begin.extend_from_slice(b"\"t\":");
            }
            Format::Csv => {
                for value in fields {
                    csv_text(&mut self.begin, value);
                    self.begin.push(b',');
                }
            }
        }
    }

    fn add(&mut self, sample: &Sample<'_>) {
        let text = &mut self.text;
        text.extend_from_slice(&self.begin);
        match self.format {
            Format::Ndjson => {
                number(text, sample.t, b"null");
                text.extend_from_slice(b",\"latency\":");
                number(text, sample.latency, b"null");
                text.extend_from_slice(b",\"error\":");
                json_text(text, sample.error);
                text.extend_from_slice(b"}\n");
            }
            Format::Csv => {
                number(text, sample.t, b"");
                text.push(b',');
                number(text, sample.latency, b"");
                text.push(b',');
                csv_text(text, sample.error);
                text.extend_from_slice(b"\r\n");
            }
        }
    }
}

pub(super) fn json_text(out: &mut Vec<u8>, text: Option<&str>) {
    // A vector takes everything, and text and null are JSON.
    let _ = serde_json::to_writer(out, &text);
}

/// A field (RFC 4180 §2): in quotes, and quotes in it doubled, where it would not be one otherwise. Text that is
/// empty is told by its quotes from a field that has none.
fn csv_text(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else {
        return;
    };
    if !text.is_empty() && !text.bytes().any(|byte| b",\"\r\n".contains(&byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

pub(super) fn number(out: &mut Vec<u8>, number: Option<f64>, none: &[u8]) {
    // A vector takes everything.
    let _ = match number {
        None => out.write_all(none),
        Some(number) if number.fract() == 0.0 && number.abs() < WHOLE_MAX => {
            write!(out, "{}", number as i64)
        }
        Some(number) => write!(out, "{number:?}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the length of the longest text.
    struct Longest(usize);

    impl Sink for Longest {
        fn text(&mut self, text: &[u8]) -> std::io::Result<()> {
            self.0 = self.0.max(text.len());
            Ok(())
        }
    }

    #[test]
    fn rows_of_one_line_are_given_bit_by_bit() {
        let name = "x".repeat(1000);
        let line = format!(
            "{{\"hosts\":[{{\"name\":\"{name}\",\"history\":[{}{{}}]}}]}}",
            "{},".repeat(9999)
        );
        let mut rows = Rows::new(Format::Ndjson);
        let mut longest = Longest(0);
        let mut extractor = Extractor::default();
        let read = extractor.read(line.as_bytes(), |reading| {
            let line = Line {
                received: crate::time::Timestamp::from_ms(0),
                text: b"",
                rows_before: 0,
            };
            rows.add_line(
                &line,
                reading,
                &Filter::default(),
                Extent::Whole,
                &mut longest,
            )
        });
        assert_eq!(read.unwrap().unwrap(), None);
        assert_eq!(rows.count, 10_000);
        assert!(
            (GIVEN_BYTES..GIVEN_BYTES + 2000).contains(&longest.0),
            "{}",
            longest.0
        );
    }

    #[test]
    fn numbers() {
        #[track_caller]
        fn check(value: f64, expected: &str) {
            let mut out = Vec::new();
            number(&mut out, Some(value), b"");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            let parsed: f64 = serde_json::from_str(expected).unwrap();
            assert_eq!(parsed, value);
        }
        check(1_772_169_274_123.0, "1772169274123");
        check(-0.0, "0");
        check(-3.0, "-3");
        check(41.25, "41.25");
        check(1e300, "1e300");
        check(9_007_199_254_740_992.0, "9007199254740992.0");
        check(1e-7, "1e-7");
    }

    #[test]
    fn fields_of_csv() {
        #[track_caller]
        fn check(text: Option<&str>, expected: &str) {
            let mut out = Vec::new();
            csv_text(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        check(None, "");
        check(Some(""), "\"\"");
        check(Some("GitHub"), "GitHub");
        check(Some("a,b"), "\"a,b\"");
        check(Some("a\"b\nc"), "\"a\"\"b\nc\"");
    }
}
