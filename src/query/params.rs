//! What is asked, from the query of a URL or the flags of a command: text → a question, checked.
//!
//! Names and values are the same in both. Every name is known and stands once; whatever is wrong is said with
//! its name, what was expected and what was found.

use std::fmt;

use super::cursor::Cursor;
use super::samples::Format;
use super::summary::{Counting, Grouping, Summary};
use super::{Extent, Filter, Name};
use crate::config;
use crate::time::Timestamp;

/// The longest step, in seconds.
const STEP_SECS_MAX: u64 = 366 * 86_400;

/// Bytes of what was found that are said.
const FOUND_BYTES_MAX: usize = 64;

/// A parameter that is not as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Which.
    pub name: String,
    /// What it may be.
    pub expected: String,
    /// What it is.
    pub found: Option<String>,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.name, self.expected)?;
        match &self.found {
            Some(found) => write!(f, ", found {found:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParamError {}

/// Names with values.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Those of a URL's query, of which only these names may stand there.
    ///
    /// # Errors
    ///
    /// Another one does, or one does twice.
    pub fn of_query(query: Option<&str>, known: &[&str]) -> Result<Params, ParamError> {
        let query = query.unwrap_or_default().as_bytes();
        let mut params: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query) {
            if !known.contains(&&*name) {
                return Err(ParamError {
                    name: shown(&name),
                    expected: format!("one of {}", known.join(", ")),
                    found: None,
                });
            }
            if params.iter().any(|(other, _)| *other == name) {
                return Err(ParamError {
                    name: name.into_owned(),
                    expected: "it once".to_owned(),
                    found: None,
                });
            }
            params.push((name.into_owned(), value.into_owned()));
        }
        Ok(Params(params))
    }

    /// Those of flags.
    pub fn of_flags<const N: usize>(flags: [(&str, &Option<String>); N]) -> Params {
        let given = flags.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref()?;
            Some((name.to_owned(), value.clone()))
        });
        Params(given.collect())
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut params = self.0.iter();
        let found = params.find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter if it is there, as `parse` reads it.
    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ParamError> {
        let Some(text) = self.value(name) else {
            return Ok(None);
        };
        match parse(text) {
            Some(value) => Ok(Some(value)),
            None => Err(ParamError {
                name: name.to_owned(),
                expected: expected.to_owned(),
                found: Some(shown(text)),
            }),
        }
    }

    /// Which lines and samples; `now` is what times before now are counted from.
    ///
    /// # Errors
    ///
    /// A value is none.
    pub fn filter(&self, now: Timestamp) -> Result<Filter, ParamError> {
        let expected =
            "a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or a time before now as -1h";
        let time = |name| self.read(name, expected, |text| time_of(text, now));
        let name = |name| self.read(name, "a name", |text| Some(Name::new(text)));
        Ok(Filter {
            since: time("since")?,
            until: time("until")?,
            client: name("client")?,
            host: name("host")?,
        })
    }

    /// How much; of a page that has so many bytes no more.
    ///
    /// # Errors
    ///
    /// It is no number of rows.
    pub fn extent(&self, bytes_max: u64) -> Result<Extent, ParamError> {
        let rows = self.read("limit", "a number of rows, 1 or more", |text| {
            digits(text).filter(|&rows| rows > 0)
        })?;
        Ok(rows.map_or(Extent::Whole, |rows| Extent::Page {
            rows,
            bytes: bytes_max,
        }))
    }

    /// From where on.
    ///
    /// # Errors
    ///
    /// It is no cursor.
    pub fn cursor(&self) -> Result<Cursor, ParamError> {
        let cursor = self.read("cursor", "a cursor of a former answer", Cursor::decode)?;
        Ok(cursor.unwrap_or_default())
    }

    /// In which form.
    ///
    /// # Errors
    ///
    /// There is no such form.
    pub fn format(&self) -> Result<Format, ParamError> {
        let format = self.read("format", "ndjson or csv", |text| match text {
            "ndjson" => Some(Format::Ndjson),
            "csv" => Some(Format::Csv),
            _ => None,
        })?;
        Ok(format.unwrap_or(Format::Ndjson))
    }

    /// By which steps and groups.
    ///
    /// # Errors
    ///
    /// A value is none.
    pub fn summary(&self) -> Result<Summary, ParamError> {
        let expected = "1s to 366d";
        let step = self.read("step", expected, |text| {
            let secs = config::secs(text)?;
            (1..=STEP_SECS_MAX).contains(&secs).then_some(secs)
        })?;
        let expected = "host, client, /geo or a JSON pointer into it as /geo/country";
        let group = self.read("group", expected, |text| match text {
            "host" => Some(Grouping::Host),
            "client" => Some(Grouping::Client),
            pointer => Grouping::by_pointer(pointer),
        })?;
        let counting = self.read("dedupe", "true or false", |text| match text {
            "true" => Some(Counting::Distinct),
            "false" => Some(Counting::Each),
            _ => None,
        })?;
        Ok(Summary {
            step_ms: step.map(|secs| secs * 1000),
            group: group.unwrap_or(Grouping::Host),
            counting: counting.unwrap_or(Counting::Each),
        })
    }

    /// The query of the next page: the same question with fixed times, from this cursor on.
    pub fn next_page(&self, filter: &Filter, cursor: &Cursor) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let others = self.0.iter();
        let others = others.filter(|(name, _)| !["since", "until", "cursor"].contains(&&**name));
        query.extend_pairs(others);
        for (name, time) in [("since", filter.since), ("until", filter.until)] {
            if let Some(time) = time {
                query.append_pair(name, &time.ms().to_string());
            }
        }
        query.append_pair("cursor", &cursor.encode());
        query.finish()
    }
}

/// What was found, as far as it is said.
fn shown(text: &str) -> String {
    match text.len() > FOUND_BYTES_MAX {
        false => text.to_owned(),
        true => format!("{}…", &text[..text.floor_char_boundary(FOUND_BYTES_MAX)]),
    }
}

/// A number in digits alone.
fn digits(text: &str) -> Option<u64> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok())?
}

/// RFC 3339 or a day of it (which begins at midnight, UTC); milliseconds since the epoch; or a time before now.
fn time_of(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(before) = text.strip_prefix('-') {
        let before_ms = config::secs(before)?.checked_mul(1000)?;
        return Some(Timestamp::from_ms(now.ms().saturating_sub(before_ms)));
    }
    match digits(text) {
        Some(ms) => (ms <= Timestamp::MAX.ms()).then_some(Timestamp::from_ms(ms)),
        None => Timestamp::parse_any_rfc3339(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_772_169_274_123;

    #[test]
    fn times() {
        #[track_caller]
        fn check(text: &str, expected_ms: Option<u64>) {
            let found = time_of(text, Timestamp::from_ms(NOW_MS));
            assert_eq!(found.map(Timestamp::ms), expected_ms);
        }
        check("2026-02-27T05:14:34.123Z", Some(NOW_MS));
        check("2026-02-27 06:14:34.1239+01:00", Some(NOW_MS));
        check("2026-02-27T05:14:34z", Some(NOW_MS - 123));
        check("2026-02-26T23:44:34.123-05:30", Some(NOW_MS));
        check("2026-02-27", Some(1_772_150_400_000));
        check("1969-12-31T23:59:59Z", Some(0));
        check("1772169274123", Some(NOW_MS));
        check("0", Some(0));
        check("-1h", Some(NOW_MS - 3_600_000));
        check("-90", Some(NOW_MS - 90_000));
        check("-30000d", Some(0));
        for text in [
            "",
            "-",
            "now",
            "-1x",
            "--1h",
            "1h",
            "+1",
            "2026-02-30",
            "2026-02-27T05:14:34",
            "05:14:34",
            "99999999999999999999",
            "253402300800000",
            "2026-02-27T05:14:34 01:00",
            "2026-02-27T25:00:00Z",
        ] {
            check(text, None);
        }
    }

    fn params(query: &str) -> Result<Params, ParamError> {
        let known = [
            "since", "until", "client", "limit", "cursor", "step", "group", "dedupe", "format",
        ];
        Params::of_query(Some(query), &known)
    }

    #[test]
    fn what_is_refused() {
        #[track_caller]
        fn check(query: &str, expected: &str) {
            let now = Timestamp::from_ms(NOW_MS);
            let error = params(query).and_then(|params| {
                params.filter(now)?;
                params.extent(1)?;
                params.cursor()?;
                params.format()?;
                params.summary().map(drop)
            });
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
        check(
            "page=1",
            "page: expected one of since, until, client, limit, cursor, step, group, dedupe, format",
        );
        check("limit=1&limit=1", "limit: expected it once");
        check(
            "since=yesterday",
            "since: expected a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or a time before now as -1h, \
             found \"yesterday\"",
        );
        for limit in ["0", "-1", "+1", "1e3", "18446744073709551616", ""] {
            let expected = format!("limit: expected a number of rows, 1 or more, found {limit:?}");
            check(&format!("limit={}", limit.replace('+', "%2B")), &expected);
        }
        check(
            "cursor=a",
            "cursor: expected a cursor of a former answer, found \"a\"",
        );
        check(
            "format=xml",
            "format: expected ndjson or csv, found \"xml\"",
        );
        check("step=0s", "step: expected 1s to 366d, found \"0s\"");
        check(
            "group=/clientId",
            "group: expected host, client, /geo or a JSON pointer into it as /geo/country, found \"/clientId\"",
        );
        check(
            "dedupe=yes",
            "dedupe: expected true or false, found \"yes\"",
        );
        let long = "é".repeat(40);
        check(
            &format!("format={long}"),
            &format!(
                "format: expected ndjson or csv, found \"{}…\"",
                "é".repeat(32)
            ),
        );
    }

    #[test]
    fn the_next_page_asks_the_same() {
        let now = Timestamp::from_ms(NOW_MS);
        let params = params("client=a%26b+c&since=-1h&limit=5&cursor=AQ").unwrap();
        let filter = params.filter(now).unwrap();
        assert_eq!(filter.client.as_ref().unwrap().text(), "a&b c");
        assert_eq!(
            params.next_page(&filter, &Cursor::default()),
            format!(
                "client=a%26b+c&limit=5&since={}&cursor=AQ",
                NOW_MS - 3_600_000
            )
        );
    }
}
