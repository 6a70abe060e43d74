//! Questions about what is stored: which lines, which samples, how many and how slow.
//!
//! Owns what may be asked ([`params`]), where the lines are ([`sources`]), their order ([`merge`], [`cursor`]),
//! and three kinds of answer: lines ([`reports`]), rows ([`samples`]) and figures ([`summary`], [`mod@print`]). Leaves
//! to `admin` and `main` who asks, how the answer is coded and where it goes.
//!
//! ```text
//! Filter ─▶ sources: segments that may hold some, by name ─┬─▶ merge: line by line, oldest first ─▶ reports, samples
//!                                                          └─▶ summary: segment by segment, several at once;
//!                                                              a sidecar stands for its segment where it can
//! ```
//!
//! A line is looked through for the names that are asked for before it is parsed.
//!
//! What is read stays: a segment that is open here is not removed (see `disk`). One that was removed before it
//! could be opened is never left out of an answer that holds an older one: the answer begins anew, or ends with
//! an error.
//!
//! Times are those of `receivedAt`, the server's clock. A line without one, of the Go server, has its file's.

pub mod command;
pub mod cursor;
mod distinct;
pub mod merge;
pub mod params;
pub mod print;
pub mod reports;
pub mod samples;
pub mod sources;
pub mod summary;

use std::error::Error;
use std::fmt;
use std::io;

use memchr::memmem::Finder;

use crate::disk::OpenError;
use crate::report::extract::Reading;
use crate::segment::reader::ReadError;
use crate::time::Timestamp;

/// Which lines, and which of their samples, are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received before that.
    pub until: Option<Timestamp>,
    /// Posted by this client.
    pub client: Option<Name>,
    /// Of this host.
    pub host: Option<Name>,
}

/// A name that is asked for.
#[derive(Clone, Debug)]
pub struct Name {
    text: Box<str>,
    /// Finds it as JSON spells it, quotes included.
    spelled: Finder<'static>,
}

impl Name {
    /// This one.
    pub fn new(text: &str) -> Name {
        let spelled = serde_json::Value::from(text).to_string();
        Name {
            text: text.into(),
            spelled: Finder::new(spelled.as_bytes()).into_owned(),
        }
    }

    /// The name itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn is(&self, other: Option<&str>) -> bool {
        other == Some(&self.text)
    }
}

impl Filter {
    /// Whether a line that was received then may be asked for.
    pub fn takes_time(&self, received: Timestamp) -> bool {
        self.since.is_none_or(|since| received >= since)
            && self.until.is_none_or(|until| received < until)
    }

    /// Whether all lines that were received between these, both included, are asked for.
    pub fn takes_times(&self, (first, last): (Timestamp, Timestamp)) -> bool {
        self.takes_time(first) && self.takes_time(last)
    }

    /// Whether some line that was received between these, both included, may be asked for.
    pub fn may_take_times(&self, (first, last): (Timestamp, Timestamp)) -> bool {
        self.since.is_none_or(|since| last >= since) && self.until.is_none_or(|until| first < until)
    }

    /// Whether a line has to be parsed to know.
    pub fn asks_for_names(&self) -> bool {
        self.client.is_some() || self.host.is_some()
    }

    /// Whether a line may hold the names, without parsing it.
    pub fn may_match(&self, line: &[u8]) -> bool {
        let names = [&self.client, &self.host];
        let is_spelled = |name: &Name| name.spelled.find(line).is_some();
        names.into_iter().flatten().all(is_spelled)
            // With escapes a name has other spellings.
            || memchr::memchr(b'\\', line).is_some()
    }

    /// Whether the report is the client's.
    pub fn takes_client(&self, reading: &Reading<'_>) -> bool {
        let client = self.client.as_ref();
        client.is_none_or(|client| client.is(reading.client))
    }

    /// Whether this host of a report is the one.
    pub fn takes_host(&self, name: Option<&str>) -> bool {
        self.host.as_ref().is_none_or(|host| host.is(name))
    }

    /// Whether the report is the client's and has the host.
    pub fn takes_report(&self, reading: &Reading<'_>) -> bool {
        self.takes_client(reading)
            && (self.host.is_none() || reading.hosts().any(|host| self.takes_host(host.name)))
    }
}

/// Where an answer goes.
pub trait Sink {
    /// Takes more of its text.
    ///
    /// # Errors
    ///
    /// Nobody takes it.
    fn text(&mut self, text: &[u8]) -> io::Result<()>;

    /// Whether the asker has gone. Asked now and then.
    fn is_gone(&mut self) -> bool {
        false
    }
}

/// Lines between two looks whether anybody still asks.
const LINES_BETWEEN: u64 = 256;

/// How much of an answer there is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// So much, and one row at least.
    Page {
        /// At most so many rows, 1 or more.
        rows: u64,
        /// No more rows once it has so many bytes.
        bytes: u64,
    },
}

impl Extent {
    /// Whether an answer of so many rows and bytes has all that it may have.
    fn is_reached(self, rows: u64, bytes: u64) -> bool {
        match self {
            Extent::Whole => false,
            Extent::Page {
                rows: rows_max,
                bytes: bytes_max,
            } => rows >= rows_max || bytes >= bytes_max,
        }
    }
}

/// How an answer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Behind the last row.
    pub cursor: cursor::Cursor,
    /// Whether there may be more.
    pub by: EndedBy,
}

/// Why an answer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// There is no more now.
    Data,
    /// It has all that it may have.
    Extent,
}

/// Why a question is not answered, or not to its end.
#[derive(Debug)]
pub enum QueryError {
    /// It is not one.
    Param(params::ParamError),
    /// The data directory cannot be used.
    Open(OpenError),
    /// A directory cannot be listed.
    List {
        /// Which: `the data directory`, `.open`.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A segment cannot be read.
    Read {
        /// Which, below the data directory.
        path: String,
        /// Why not.
        source: ReadError,
    },
    /// A segment was removed before it could be read, and others have been read.
    Removed {
        /// Which.
        name: String,
    },
    /// No sealed segment has this name.
    NoSegment,
    /// The segment that the cursor stands in is not there any more.
    CursorExpired {
        /// Which.
        name: String,
    },
    /// The figures take more memory than they may.
    TooManyRows {
        /// The most that they may take.
        bytes_max: usize,
    },
    /// There are more samples to be told from each other than can be.
    TooManySamples {
        /// The most.
        samples_max: u64,
    },
    /// The system gives no thread to read with.
    Thread(io::Error),
    /// The asker has gone.
    Gone,
    /// Nobody takes the answer.
    Sink(io::Error),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Param(error) => error.fmt(f),
            QueryError::Open(error) => error.fmt(f),
            QueryError::List { path, .. } => write!(f, "cannot list {path}"),
            QueryError::Read { path, source } => write!(f, "{path} {source}"),
            QueryError::Removed { name } => {
                write!(f, "{name} was removed while older segments were being read")
            }
            QueryError::NoSegment => f.write_str("no sealed segment has this name"),
            QueryError::CursorExpired { name } => {
                write!(f, "cursor: {name}, which it stands in, has been removed")
            }
            QueryError::TooManyRows { bytes_max } => write!(
                f,
                "the figures take more than {bytes_max} bytes: expected a larger step, a shorter time, \
                 or fewer groups"
            ),
            QueryError::TooManySamples { samples_max } => write!(
                f,
                "more than {samples_max} samples to be told from each other: expected a shorter time, \
                 or one client or host"
            ),
            QueryError::Thread(_) => f.write_str("cannot make a thread to read with"),
            QueryError::Gone => f.write_str("the asker has gone"),
            QueryError::Sink(_) => f.write_str("cannot write the answer"),
        }
    }
}

impl Error for QueryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            QueryError::Param(_)
            | QueryError::Removed { .. }
            | QueryError::NoSegment
            | QueryError::CursorExpired { .. }
            | QueryError::TooManyRows { .. }
            | QueryError::TooManySamples { .. }
            | QueryError::Gone => None,
            QueryError::Open(error) => error.source(),
            QueryError::List { source, .. } => Some(source),
            // Its own text is part of ours.
            QueryError::Read { source, .. } => source.source(),
            QueryError::Thread(source) | QueryError::Sink(source) => Some(source),
        }
    }
}

impl From<params::ParamError> for QueryError {
    fn from(error: params::ParamError) -> QueryError {
        QueryError::Param(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_may_match() {
        let filter = |client: &str, host: &str| Filter {
            client: Some(Name::new(client)),
            host: Some(Name::new(host)),
            ..Filter::default()
        };
        let line = br#"{"clientId":"a","hosts":[{"name":"GitHub"}]}"#;
        assert!(filter("a", "GitHub").may_match(line));
        assert!(!filter("a", "Git").may_match(line));
        assert!(!filter("b", "GitHub").may_match(line));
        let escaped = br#"{"clientId":"\u0061","hosts":[]}"#;
        assert!(filter("b", "c").may_match(escaped));
        assert!(!filter("a\"b", "c").may_match(line));
    }

    #[test]
    fn times() {
        let [a, b, c] = [1, 2, 3].map(Timestamp::from_ms);
        let filter = Filter {
            since: Some(b),
            until: Some(c),
            ..Filter::default()
        };
        assert_eq!(
            [a, b, c].map(|time| filter.takes_time(time)),
            [false, true, false]
        );
        assert!(
            filter.takes_times((b, b))
                && !filter.takes_times((a, b))
                && !filter.takes_times((b, c))
        );
        assert!(filter.may_take_times((a, b)) && filter.may_take_times((a, c)));
        assert!(!filter.may_take_times((a, a)) && !filter.may_take_times((c, c)));
        assert!(Filter::default().takes_times((a, c)));
    }
}
