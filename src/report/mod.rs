//! One posted report: body bytes → [`Report`], checked → its line, as it is stored.
//!
//! Owns what a report may look like and how its line is spelled. Left to others: how the body came
//! in and was decoded, batches, status and code of a refusal (`api`), the clock (`worker`).
//!
//! ```text
//! report  { clientId: string of 1 to 128 bytes, timestamp: string, hosts: [host], geo?: any }
//! host    { name?, url?, status?: string or null, history?: [sample] or null }
//! sample  { t?, latency?: number or null, error?: string or null }
//!
//! line    {"receivedAt":"2026-02-27T05:14:34.123Z", the report's bytes after its { LF
//! ```
//!
//! - A line is the client's own bytes: nothing is re-encoded, so unknown members, the digits of
//!   numbers and the order of members stay. Only line breaks become spaces, one byte for one.
//! - `receivedAt` is ours and stands first: [`received_at`] reads it without parsing, and a report
//!   that brings one is refused. Members are compared by their unescaped names.
//! - A member with a name above appears once in its object, since readers differ in which of two
//!   they take (RFC 8259 §4). Unknown members are not looked into.
//! - JSON is what RFC 8259 says, with its §9 limits set here: [`REPORT_BYTES_MAX`], [`DEPTH_MAX`],
//!   numbers within the range of an f64 (`1e400` is refused; digits beyond its precision are fine),
//!   and no escapes of lone surrogates. A byte order mark is refused (§8.1).
//! - A report of up to 256 KiB is checked and stored without allocation, once buffers have grown.

pub mod batch;
mod compact;
pub mod extract;
pub mod fast;
mod fault;

use std::error::Error;
use std::fmt;
use std::mem;

use simd_json::{Buffers, Node, StaticNode, Tape};

use crate::time::Timestamp;

/// A posted report, decoded, is at most this long.
pub const REPORT_BYTES_MAX: usize = 1 << 20;

/// Objects and arrays nest at most this deep; the report itself is the first level.
pub const DEPTH_MAX: usize = 64;

/// The most bytes of a `clientId`, unescaped.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// The most bytes of a line, with its line feed.
pub const LINE_BYTES_MAX: usize = STAMP_LEN + REPORT_BYTES_MAX;

/// What a longer report took is given back: a parse needs up to 30 bytes for each of its input.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// A line begins with these and a time between them, in place of the report's `{`.
const STAMP_BEGIN: &[u8] = b"{\"receivedAt\":\"";
const STAMP_END: &[u8] = b"\",";
const STAMP_LEN: usize = STAMP_BEGIN.len() + Timestamp::RFC3339_LEN + STAMP_END.len();

/// A report that keeps the schema, as it was posted: from its `{` to its `}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'b>(&'b [u8]);

impl Report<'_> {
    /// Bytes that [`Report::append_line`] appends; at most [`LINE_BYTES_MAX`].
    pub fn line_len(&self) -> usize {
        // The line feed takes the place of the `{` in this sum.
        STAMP_LEN + self.0.len()
    }

    /// Appends the line as stored: stamped with `received_at`, and ending in the only line feed.
    pub fn append_line(&self, received_at: Timestamp, out: &mut Vec<u8>) {
        out.reserve(self.line_len());
        out.extend_from_slice(STAMP_BEGIN);
        out.extend_from_slice(&received_at.rfc3339());
        out.extend_from_slice(STAMP_END);
        let members_at = out.len();
        // A report has members, so the comma before them is right.
        out.extend_from_slice(&self.0[1..]);
        // Strings cannot hold a raw line break (RFC 8259 §7): these stand between tokens.
        let members = &mut out[members_at..];
        if let Some(at) = memchr::memchr2(b'\n', b'\r', members) {
            // Where there is one there are many, and this loop does not branch on them.
            for byte in &mut members[at..] {
                *byte = match *byte {
                    b'\n' | b'\r' => b' ',
                    other => other,
                };
            }
        }
        out.push(b'\n');
    }
}

/// The time that [`Report::append_line`] put in front of a line, whatever else the line holds.
pub fn received_at(line: &[u8]) -> Option<Timestamp> {
    let (text, rest) = line
        .strip_prefix(STAMP_BEGIN)?
        .split_at_checked(Timestamp::RFC3339_LEN)?;
    let time = Timestamp::parse_rfc3339(text)?;
    rest.starts_with(STAMP_END).then_some(time)
}

/// Checks reports, one after the other: in one pass those that are spelled as browsers spell them ([`fast`]),
/// and the others with simd-json, in buffers that are kept: 150 KB for reports of 13 KB.
///
/// What a report beyond 256 KiB took is given back, so what is kept is at worst about 15 MiB.
pub struct Validator {
    /// The document and simd-json's padding. The parse rewrites strings in place, which is why it
    /// never sees the bytes that are stored.
    scratch: Vec<u8>,
    buffers: Buffers,
    /// Empty between checks; kept for its allocation.
    tape: Tape<'static>,
    ways: Ways,
}

/// How many reports a [`Validator`] has checked, by the way that they took. Bodies that are empty or too
/// large took none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Spelled as browsers do, and accepted in one pass ([`fast`]).
    pub usual: u64,
    /// Judged by simd-json: all refusals are among these.
    pub unusual: u64,
}

impl Validator {
    /// A validator whose buffers have yet to grow.
    pub fn new() -> Validator {
        Validator {
            scratch: Vec::new(),
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            ways: Ways::default(),
        }
    }

    /// The report in `body`, which may have whitespace around it and nothing else.
    pub fn check<'b>(&mut self, body: &'b [u8]) -> Result<Report<'b>, ReportError> {
        let (begin, report) = trim(body)?;
        if !self.is_usual(fast::read(report, &mut ())) {
            self.check_parts(b"", report)
                .map_err(|error| error.moved(begin))?;
        }
        Ok(Report(report))
    }

    /// Checks a stored line, with or without its line feed, as the report that it was, and returns
    /// when that was received. A line that does not begin with our stamp may still be a report, of
    /// another server: then there is no time.
    pub fn check_line(&mut self, line: &[u8]) -> Result<Option<Timestamp>, ReportError> {
        let Some(received_at) = received_at(line) else {
            return self.check(line).map(|_| None);
        };
        let members = &line[STAMP_LEN..];
        let members = members.strip_suffix(b"\n").unwrap_or(members);
        if members.len() >= REPORT_BYTES_MAX {
            return Err(ReportError::TooLarge {
                bytes: 1 + members.len(),
            });
        }
        if !self.is_usual(fast::read_members(members, &mut ())) {
            // The `{` that the stamp replaced stands one byte before its end.
            self.check_parts(b"{", members)
                .map_err(|error| error.moved(STAMP_LEN - 1))?;
        }
        Ok(Some(received_at))
    }

    /// How many reports took which way so far.
    pub fn ways(&self) -> Ways {
        self.ways
    }

    /// Counts a report by what [`fast`] made of it, and tells whether it is checked with that.
    fn is_usual(&mut self, read: Option<()>) -> bool {
        match read {
            Some(()) => self.ways.usual += 1,
            None => self.ways.unusual += 1,
        }
        read.is_some()
    }

    /// Checks the document that `head` and `tail` make together, with simd-json.
    fn check_parts(&mut self, head: &[u8], tail: &[u8]) -> Result<(), ReportError> {
        let len = head.len() + tail.len();
        self.scratch.clear();
        self.scratch.reserve(len + simd_json::INPUT_PADDING);
        self.scratch.extend_from_slice(head);
        self.scratch.extend_from_slice(tail);
        self.scratch.resize(len + simd_json::INPUT_PADDING, 0);
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed =
            simd_json::fill_tape_padded(&mut self.scratch, len, &mut self.buffers, &mut tape);
        let checked = match parsed {
            Ok(()) => Walk::new(&tape.0).report(),
            // The parser's index may be a token's, or 0, or counted from a string's start. It is
            // right for a number out of range, the one fault that the grammar does not know.
            Err(error) => {
                fault::first_fault(&[head, tail].concat()).and(Err(ReportError::NotJson {
                    offset: error.index(),
                }))
            }
        };
        self.tape = tape.reset();
        if len > KEPT_BYTES_MAX {
            *self = Validator {
                ways: self.ways,
                ..Validator::new()
            };
        }
        checked
    }
}

impl Default for Validator {
    fn default() -> Validator {
        Validator::new()
    }
}

/// Why a body is not a report. Says nothing that the client chose, numbers aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportError {
    /// Nothing, or nothing but whitespace.
    Empty,
    /// `bytes > REPORT_BYTES_MAX`.
    TooLarge {
        /// Length of the body.
        bytes: usize,
    },
    /// The body is no JSON text, or has something after it (RFC 8259 §2).
    NotJson {
        /// The byte that cannot follow those before it; the body's length if it ends too early. For
        /// an escaped surrogate without its other half, a byte next to it.
        offset: usize,
    },
    /// The body is no UTF-8 (RFC 8259 §8.1).
    NotUtf8 {
        /// Where the first bad sequence begins.
        offset: usize,
    },
    /// Deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A known member, or a place for an object, holds something else.
    WrongType {
        /// Where.
        path: Path,
        /// What could stand there.
        expected: &'static str,
    },
    /// A required member is not there.
    Missing {
        /// Which.
        path: Path,
    },
    /// A known member stands twice in its object.
    Duplicate {
        /// Which.
        path: Path,
    },
    /// The report has a `receivedAt`, which is the server's to set.
    Reserved,
    /// `clientId` is empty or `bytes > CLIENT_ID_BYTES_MAX`.
    ClientIdLength {
        /// Its length, unescaped.
        bytes: usize,
    },
}

impl ReportError {
    /// The same error when `by` bytes stand before the document.
    fn moved(self, by: usize) -> ReportError {
        match self {
            Self::NotJson { offset } => Self::NotJson {
                offset: offset + by,
            },
            Self::NotUtf8 { offset } => Self::NotUtf8 {
                offset: offset + by,
            },
            error => error,
        }
    }
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "body is empty"),
            Self::TooLarge { bytes } => {
                write!(f, "body of {bytes} bytes exceeds {REPORT_BYTES_MAX} bytes")
            }
            Self::NotJson { offset } => write!(f, "body is not valid JSON at byte {offset}"),
            Self::NotUtf8 { offset } => write!(f, "body is not valid UTF-8 at byte {offset}"),
            Self::TooDeep => write!(f, "nesting deeper than {DEPTH_MAX}"),
            Self::WrongType { path, expected } => write!(f, "{path}: expected {expected}"),
            Self::Missing { path } => write!(f, "{path}: required but missing"),
            Self::Duplicate { path } => write!(f, "{path}: appears more than once"),
            Self::Reserved => write!(f, "receivedAt: reserved for the server"),
            Self::ClientIdLength { bytes } => write!(
                f,
                "clientId: expected string of 1 to {CLIENT_ID_BYTES_MAX} bytes, found {bytes} bytes"
            ),
        }
    }
}

impl Error for ReportError {}

/// A place in a report. Names are those of the schema, indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The whole body.
    Body,
    /// A member of the report.
    Member(&'static str),
    /// A host.
    Host(usize),
    /// A member of a host.
    HostMember(usize, &'static str),
    /// A sample of a host, in this order.
    Sample(usize, usize),
    /// A member of a sample of a host.
    SampleMember(usize, usize, &'static str),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => write!(f, "body"),
            Self::Member(name) => write!(f, "{name}"),
            Self::Host(host) => write!(f, "hosts[{host}]"),
            Self::HostMember(host, name) => write!(f, "hosts[{host}].{name}"),
            Self::Sample(host, sample) => write!(f, "hosts[{host}].history[{sample}]"),
            Self::SampleMember(host, sample, name) => {
                write!(f, "hosts[{host}].history[{sample}].{name}")
            }
        }
    }
}

/// The schema, against the nodes of a parsed document: one pass, one method for each kind of
/// object, so that no input makes it recurse. simd-json promises that an object's node is followed
/// by its `len` keys and values, and that every container's is followed by `count` nodes in all.
struct Walk<'t> {
    nodes: &'t [Node<'t>],
    /// `0 <= at <= nodes.len()`; all before it is checked or skipped.
    at: usize,
}

/// What a member without members of its own may hold.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    TextOrNull,
    NumberOrNull,
}

impl<'t> Walk<'t> {
    fn new(nodes: &'t [Node<'t>]) -> Walk<'t> {
        Walk { nodes, at: 0 }
    }

    fn report(&mut self) -> Result<(), ReportError> {
        const REQUIRED: [&str; 3] = ["clientId", "timestamp", "hosts"];
        let mut seen = Seen::default();
        for _ in 0..self.object(|| Path::Body)? {
            match self.key() {
                "clientId" => {
                    seen.once(0, || Path::Member("clientId"))?;
                    self.client_id()?;
                }
                "timestamp" => {
                    seen.once(1, || Path::Member("timestamp"))?;
                    self.leaf(Holds::Text, || Path::Member("timestamp"))?;
                }
                "hosts" => {
                    seen.once(2, || Path::Member("hosts"))?;
                    self.hosts()?;
                }
                "geo" => {
                    seen.once(3, || Path::Member("geo"))?;
                    self.skip();
                }
                "receivedAt" => return Err(ReportError::Reserved),
                _ => self.skip(),
            }
        }
        match (0..).zip(REQUIRED).find(|&(member, _)| !seen.has(member)) {
            Some((_, name)) => Err(ReportError::Missing {
                path: Path::Member(name),
            }),
            None => Ok(()),
        }
    }

    fn client_id(&mut self) -> Result<(), ReportError> {
        match self.next() {
            Node::String(id) if (1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) => Ok(()),
            Node::String(id) => Err(ReportError::ClientIdLength { bytes: id.len() }),
            _ => Err(ReportError::WrongType {
                path: Path::Member("clientId"),
                expected: "string",
            }),
        }
    }

    fn hosts(&mut self) -> Result<(), ReportError> {
        let Node::Array { len, .. } = self.next() else {
            return Err(ReportError::WrongType {
                path: Path::Member("hosts"),
                expected: "array",
            });
        };
        (0..*len).try_for_each(|host| self.host(host))
    }

    fn host(&mut self, host: usize) -> Result<(), ReportError> {
        let mut seen = Seen::default();
        for _ in 0..self.object(|| Path::Host(host))? {
            let (member, name) = match self.key() {
                "name" => (0, "name"),
                "url" => (1, "url"),
                "status" => (2, "status"),
                "history" => {
                    seen.once(3, || Path::HostMember(host, "history"))?;
                    self.history(host)?;
                    continue;
                }
                _ => {
                    self.skip();
                    continue;
                }
            };
            seen.once(member, || Path::HostMember(host, name))?;
            self.leaf(Holds::TextOrNull, || Path::HostMember(host, name))?;
        }
        Ok(())
    }

    fn history(&mut self, host: usize) -> Result<(), ReportError> {
        match self.next() {
            Node::Array { len, .. } => (0..*len).try_for_each(|sample| self.sample(host, sample)),
            Node::Static(StaticNode::Null) => Ok(()),
            _ => Err(ReportError::WrongType {
                path: Path::HostMember(host, "history"),
                expected: "array or null",
            }),
        }
    }

    fn sample(&mut self, host: usize, sample: usize) -> Result<(), ReportError> {
        let mut seen = Seen::default();
        for _ in 0..self.object(|| Path::Sample(host, sample))? {
            let (member, name, holds) = match self.key() {
                "t" => (0, "t", Holds::NumberOrNull),
                "latency" => (1, "latency", Holds::NumberOrNull),
                "error" => (2, "error", Holds::TextOrNull),
                _ => {
                    self.skip();
                    continue;
                }
            };
            seen.once(member, || Path::SampleMember(host, sample, name))?;
            self.leaf(holds, || Path::SampleMember(host, sample, name))?;
        }
        Ok(())
    }

    /// Enters an object and returns how many members it has.
    fn object(&mut self, path: impl Fn() -> Path) -> Result<usize, ReportError> {
        match self.next() {
            Node::Object { len, .. } => Ok(*len),
            _ => Err(ReportError::WrongType {
                path: path(),
                expected: "object",
            }),
        }
    }

    fn leaf(&mut self, holds: Holds, path: impl Fn() -> Path) -> Result<(), ReportError> {
        use StaticNode::{F64, I64, Null, U64};
        let expected = match (holds, self.next()) {
            (Holds::Text | Holds::TextOrNull, Node::String(_)) => return Ok(()),
            (Holds::TextOrNull | Holds::NumberOrNull, Node::Static(Null)) => return Ok(()),
            (Holds::NumberOrNull, Node::Static(U64(_) | I64(_) | F64(_))) => return Ok(()),
            (Holds::Text, _) => "string",
            (Holds::TextOrNull, _) => "string or null",
            (Holds::NumberOrNull, _) => "number or null",
        };
        Err(ReportError::WrongType {
            path: path(),
            expected,
        })
    }

    fn key(&mut self) -> &'t str {
        match self.next() {
            Node::String(key) => key,
            node => unreachable!("a key is a string, found {node:?}"),
        }
    }

    /// Passes over one value with all that is in it.
    fn skip(&mut self) {
        if let Node::Object { count, .. } | Node::Array { count, .. } = self.next() {
            self.at += count;
        }
    }

    fn next(&mut self) -> &'t Node<'t> {
        let node = &self.nodes[self.at];
        self.at += 1;
        node
    }
}

/// The known members that an object has had so far, one bit each.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn once(&mut self, member: u8, path: impl Fn() -> Path) -> Result<(), ReportError> {
        if self.has(member) {
            return Err(ReportError::Duplicate { path: path() });
        }
        self.0 |= 1 << member;
        Ok(())
    }

    fn has(&self, member: u8) -> bool {
        self.0 & 1 << member != 0
    }
}

/// What stands between the whitespace around `body`, and where it begins.
fn trim(body: &[u8]) -> Result<(usize, &[u8]), ReportError> {
    if body.len() > REPORT_BYTES_MAX {
        return Err(ReportError::TooLarge { bytes: body.len() });
    }
    let begin = body.iter().position(|byte| !is_space(byte));
    let last = body.iter().rposition(|byte| !is_space(byte));
    match (begin, last) {
        (Some(begin), Some(last)) => Ok((begin, &body[begin..=last])),
        _ => Err(ReportError::Empty),
    }
}

/// Whitespace of RFC 8259 §2, which is less than what ASCII has.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
#[path = "../../tests/support/reports.rs"]
pub(crate) mod reports;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::reports::{Generator, Random};
    use super::*;

    const NOW_MS: u64 = 1_772_169_274_123;
    const STAMP: &str = r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#;

    /// A report with these members beside an id and a time.
    fn root(members: &str) -> String {
        format!(r#"{{"clientId":"a","timestamp":"t",{members}}}"#)
    }

    /// A report with a second host of these members.
    fn host(members: &str) -> String {
        root(&format!(r#""hosts":[{{}},{{{members}}}]"#))
    }

    /// A report with a third sample of these members.
    fn sample(members: &str) -> String {
        host(&format!(r#""history":[{{}},{{}},{{{members}}}]"#))
    }

    /// A report with this value where anything goes.
    fn geo(value: &str) -> String {
        root(&format!(r#""hosts":[],"geo":{value}"#))
    }

    fn line_of(report: Report<'_>) -> Vec<u8> {
        let mut line = b"line before\n".to_vec();
        report.append_line(Timestamp::from_ms(NOW_MS), &mut line);
        line.split_off(12)
    }

    /// What becomes of `body` if it is left to simd-json, however usual it is.
    fn by_simd_json(validator: &mut Validator, body: &[u8]) -> Result<(), ReportError> {
        let (begin, report) = trim(body)?;
        let found = validator.check_parts(b"", report);
        found.map_err(|error| error.moved(begin))
    }

    /// Checks `body`, alone and as the line it is or would be stored as, against the error's text.
    #[track_caller]
    fn check(body: impl AsRef<[u8]>, expected: Result<(), &str>) {
        let body = body.as_ref();
        let mut validator = Validator::new();
        let found = validator.check(body);
        assert_eq!(by_simd_json(&mut validator, body), found.map(|_| ()));
        let text = found.map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(text, expected.map_err(str::to_owned));
        match found {
            Ok(report) => {
                let line = line_of(report);
                let members = body.trim_ascii()[1..].iter();
                let members = members.map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte });
                let spelled: Vec<u8> = STAMP.bytes().chain(members).chain(*b"\n").collect();
                assert_eq!(
                    String::from_utf8_lossy(&line),
                    String::from_utf8_lossy(&spelled)
                );
                assert_eq!(line.len(), report.line_len());
                assert!(line.len() <= LINE_BYTES_MAX);
                let received_at = Some(Timestamp::from_ms(NOW_MS));
                assert_eq!(super::received_at(&line), received_at);
                assert_eq!(validator.check_line(&line), Ok(received_at));
                assert_eq!(validator.check_line(line.trim_ascii_end()), Ok(received_at));
                assert_eq!(validator.check_line(body), Ok(None));
            }
            Err(error) if body.starts_with(b"{") => {
                let line = [STAMP.as_bytes(), &body[1..]].concat();
                assert_eq!(
                    validator.check_line(&line),
                    Err(error.moved(STAMP.len() - 1))
                );
            }
            Err(error) => assert_eq!(validator.check_line(body), Err(error)),
        }
    }

    #[test]
    fn whole_reports() {
        check(root(r#""hosts":[]"#), Ok(()));
        check(root(r#""hosts":[{}]"#), Ok(()));
        check(root(r#""hosts":[{"history":[{}]}]"#), Ok(()));
        check(
            sample(r#""t":1772169274123,"latency":12,"error":null"#),
            Ok(()),
        );
        check(
            sample(r#""t":1.5,"latency":null,"error":"timeout""#),
            Ok(()),
        );
        check(sample(r#""t":null,"latency":null,"error":null"#), Ok(()));
        check(
            host(r#""name":"GitHub","url":"https://github.com","status":"online""#),
            Ok(()),
        );
        check(
            host(r#""name":null,"url":null,"status":null,"history":null"#),
            Ok(()),
        );
        check(host(r#""history":[]"#), Ok(()));
        check(geo("null"), Ok(()));
        check(
            geo(r#"{"city":"São Paulo","loc":[1,2,{"geo":null}]}"#),
            Ok(()),
        );
        check(geo("17"), Ok(()));
        check(r#"{"hosts":[],"timestamp":"","clientId":"a"}"#, Ok(()));
    }

    #[test]
    fn white_space() {
        check(
            " \t\r\n{\"clientId\":\"a\",\"timestamp\":\"t\",\"hosts\":[]}\n\r\t ",
            Ok(()),
        );
        check(
            "{\n  \"clientId\": \"a\",\n  \"timestamp\": \"t\",\n  \"hosts\": []\n}\n",
            Ok(()),
        );
        check(
            "{\r\n\t\"clientId\":\r\n\"a\",\"timestamp\":\"t\",\"hosts\":[\r\n\r\n]\r}",
            Ok(()),
        );
        check("\x0c{}", Err("body is not valid JSON at byte 0"));
        check("{\x0b}", Err("body is not valid JSON at byte 1"));
        check("{}\u{a0}", Err("body is not valid JSON at byte 2"));
        // A line separator of Unicode is text like any other; no reader of JSON lines splits there.
        check(geo("\"\u{2028}\u{85}\""), Ok(()));
        check(geo(r#""line\r\nbreak""#), Ok(()));
    }

    #[test]
    fn no_json() {
        check("", Err("body is empty"));
        check(" \r\n\t", Err("body is empty"));
        check("hello", Err("body is not valid JSON at byte 0"));
        check("nul", Err("body is not valid JSON at byte 3"));
        check("{", Err("body is not valid JSON at byte 1"));
        check("  {", Err("body is not valid JSON at byte 3"));
        check("}", Err("body is not valid JSON at byte 0"));
        check("]", Err("body is not valid JSON at byte 0"));
        check("{]", Err("body is not valid JSON at byte 1"));
        check("{'clientId':1}", Err("body is not valid JSON at byte 1"));
        check("{clientId:1}", Err("body is not valid JSON at byte 1"));
        check(r#"{"a" 1}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":1,}"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":[1,]}"#, Err("body is not valid JSON at byte 8"));
        check(r#"{"a":[1}"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":1]"#, Err("body is not valid JSON at byte 6"));
        check(r#"{"a":1 "b":2}"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":,}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{,"a":1}"#, Err("body is not valid JSON at byte 1"));
        check(r#"{"a":1}"b""#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":tru}"#, Err("body is not valid JSON at byte 8"));
        check(r#"{"a":nulll}"#, Err("body is not valid JSON at byte 9"));
        check(r#"{"a":True}"#, Err("body is not valid JSON at byte 5"));
        check(
            r#"{"a":1} // comment"#,
            Err("body is not valid JSON at byte 8"),
        );
        check("\u{feff}{}", Err("body is not valid JSON at byte 0"));
        check(
            root(r#""hosts":[]"#) + "x",
            Err("body is not valid JSON at byte 43"),
        );
        check(
            root(r#""hosts":[]"#) + "{}",
            Err("body is not valid JSON at byte 43"),
        );
        check(
            root(r#""hosts":[]"#) + "\n{}",
            Err("body is not valid JSON at byte 44"),
        );
        check(
            root(r#""hosts":[]"#) + "\0",
            Err("body is not valid JSON at byte 43"),
        );
        check(
            root(r#""hosts":[]"#) + ",",
            Err("body is not valid JSON at byte 43"),
        );
        check("{}{}", Err("body is not valid JSON at byte 2"));
        check("clientId=a&hosts=", Err("body is not valid JSON at byte 0"));
    }

    #[test]
    fn numbers() {
        for number in [
            "0", "-0", "-0.0", "0.1", "12.75", "1e3", "1E+3", "2.5e-3", "1e-400",
        ] {
            check(
                sample(&format!(r#""t":{number},"latency":{number}"#)),
                Ok(()),
            );
        }
        for integer in [
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "123456789012345678901234567890123456789012345678901234567890",
            "0.123456789012345678901234567890123456789012345678901234567890",
        ] {
            check(
                sample(&format!(r#""t":{integer},"latency":{integer}"#)),
                Ok(()),
            );
        }
        // Out of range, which is the parser's limit and not the grammar's: its number begins at 5.
        check(r#"{"a":1e400}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":-1e309}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":01}"#, Err("body is not valid JSON at byte 6"));
        check(r#"{"a":-}"#, Err("body is not valid JSON at byte 6"));
        check(r#"{"a":+1}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":1.}"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":.1}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":1e}"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":1e+}"#, Err("body is not valid JSON at byte 8"));
        check(r#"{"a":0x10}"#, Err("body is not valid JSON at byte 6"));
        check(r#"{"a":1_000}"#, Err("body is not valid JSON at byte 6"));
        check(r#"{"a":NaN}"#, Err("body is not valid JSON at byte 5"));
        check(r#"{"a":Infinity}"#, Err("body is not valid JSON at byte 5"));
        check(
            r#"{"a":-Infinity}"#,
            Err("body is not valid JSON at byte 6"),
        );
    }

    #[test]
    fn strings() {
        check(
            geo(r#""\" \\ \/ \b \f \n \r \t \u0000 \u00e9 \ud83d\ude00""#),
            Ok(()),
        );
        check("{\"a\":\"\n\"}", Err("body is not valid JSON at byte 6"));
        check("{\"a\":\"\t\"}", Err("body is not valid JSON at byte 6"));
        check("{\"a\":\"\x1f\"}", Err("body is not valid JSON at byte 6"));
        check("{\"a\":\"\0\"}", Err("body is not valid JSON at byte 6"));
        check(r#"{"a":"b"#, Err("body is not valid JSON at byte 7"));
        check(r#"{"a":"b\"#, Err("body is not valid JSON at byte 8"));
        check(r#"{"a":"\x41"}"#, Err("body is not valid JSON at byte 7"));
        check(
            r#"{"a":"\u12g4"}"#,
            Err("body is not valid JSON at byte 10"),
        );
        check(
            r#"{"a":"\ud83d"}"#,
            Err("body is not valid JSON at byte 12"),
        );
        check(
            r#"{"a":"\ud83d\n"}"#,
            Err("body is not valid JSON at byte 13"),
        );
        check(
            r#"{"a":"\ud83d\u0041"}"#,
            Err("body is not valid JSON at byte 17"),
        );
        check(
            r#"{"a":"\ude00"}"#,
            Err("body is not valid JSON at byte 11"),
        );
        check(
            b"{\"a\":\"\xff\"}",
            Err("body is not valid UTF-8 at byte 6"),
        );
        check(b"{\"a\":\"\xc3", Err("body is not valid UTF-8 at byte 6"));
        check(
            b"{\"a\":\"\xc0\x80\"}",
            Err("body is not valid UTF-8 at byte 6"),
        );
        check(
            b"{\"a\":\"\xed\xa0\x80\"}",
            Err("body is not valid UTF-8 at byte 6"),
        );
        check(
            b"  {\"a\":\"\xf5\"}",
            Err("body is not valid UTF-8 at byte 8"),
        );
        check(b"{}\xff", Err("body is not valid UTF-8 at byte 2"));
        check(b"\xff\xfe{\0}\0", Err("body is not valid UTF-8 at byte 0"));
        check(b"{]\"\xff\"", Err("body is not valid JSON at byte 1"));
    }

    #[test]
    fn depth() {
        let nested = |open: &str, close: &str, levels| {
            geo(&format!("{}{}", open.repeat(levels), close.repeat(levels)))
        };
        // The report is the first level.
        check(nested("[", "]", DEPTH_MAX - 1), Ok(()));
        check(nested("[", "]", DEPTH_MAX), Err("nesting deeper than 64"));
        check(nested("[{\"a\":", "}]", 31).replace(":}", ":0}"), Ok(()));
        check(
            nested("[{\"a\":", "}]", 32).replace(":}", ":0}"),
            Err("nesting deeper than 64"),
        );
        check(
            nested("[[[{\"a\":[[", "]]}]]]", 50_000),
            Err("nesting deeper than 64"),
        );
        check("[".repeat(100_000), Err("nesting deeper than 64"));
        check("{\"a\":".repeat(100_000), Err("nesting deeper than 64"));
        check(
            "[".repeat(63) + "x" + &"[".repeat(9),
            Err("body is not valid JSON at byte 63"),
        );
    }

    #[test]
    fn wrong_types() {
        for body in ["[]", "null", "true", "17", "\"report\"", "[{}]"] {
            check(body, Err("body: expected object"));
        }
        let text = [
            "null",
            "true",
            "1",
            "1.5",
            "[]",
            "{}",
            r#"["a"]"#,
            r#"{"a":"a"}"#,
        ];
        for value in text {
            let body = format!(r#"{{"clientId":{value},"timestamp":"t","hosts":[]}}"#);
            check(body, Err("clientId: expected string"));
            let body = format!(r#"{{"clientId":"a","timestamp":{value},"hosts":[]}}"#);
            check(body, Err("timestamp: expected string"));
        }
        for value in ["null", "false", "0", "\"[]\"", "{}", r#"{"0":{}}"#] {
            check(
                root(&format!(r#""hosts":{value}"#)),
                Err("hosts: expected array"),
            );
        }
        for value in ["null", "false", "0", "\"{}\"", "[]", "[{}]"] {
            let body = root(&format!(r#""hosts":[{{}},{value},{{}}]"#));
            check(body, Err("hosts[1]: expected object"));
            let body = host(&format!(r#""history":[{{}},{{}},{value}]"#));
            check(body, Err("hosts[1].history[2]: expected object"));
        }
        for value in &text[1..] {
            for name in ["name", "url", "status"] {
                let text = format!("hosts[1].{name}: expected string or null");
                check(host(&format!(r#""{name}":{value}"#)), Err(&text));
            }
            let text = "hosts[1].history[2].error: expected string or null";
            check(sample(&format!(r#""error":{value}"#)), Err(text));
        }
        for value in ["true", "0", "\"[]\"", "{}", r#"{"t":1}"#] {
            let text = "hosts[1].history: expected array or null";
            check(host(&format!(r#""history":{value}"#)), Err(text));
        }
        for value in [
            "true",
            "false",
            "\"1\"",
            "\"\"",
            "[]",
            "[1]",
            "{}",
            r#"{"t":1}"#,
        ] {
            for name in ["t", "latency"] {
                let text = format!("hosts[1].history[2].{name}: expected number or null");
                check(sample(&format!(r#""{name}":{value}"#)), Err(&text));
            }
        }
        // The first fault is told, in the order of the bytes.
        check(
            r#"{"hosts":[7],"clientId":7}"#,
            Err("hosts[0]: expected object"),
        );
    }

    #[test]
    fn required_members() {
        check("{}", Err("clientId: required but missing"));
        check(
            r#"{"timestamp":"t","hosts":[]}"#,
            Err("clientId: required but missing"),
        );
        check(
            r#"{"clientId":"a","hosts":[]}"#,
            Err("timestamp: required but missing"),
        );
        check(
            r#"{"clientId":"a","timestamp":"t"}"#,
            Err("hosts: required but missing"),
        );
        check(
            r#"{"ClientId":"a","timestamp":"t","hosts":[]}"#,
            Err("clientId: required but missing"),
        );
        check(
            r#"{"geo":{"clientId":"a"}}"#,
            Err("clientId: required but missing"),
        );
    }

    #[test]
    fn client_ids() {
        let with = |id: &str| format!(r#"{{"clientId":"{id}","timestamp":"t","hosts":[]}}"#);
        let refused =
            |bytes| format!("clientId: expected string of 1 to 128 bytes, found {bytes} bytes");
        check(with(""), Err(&refused(0)));
        check(with("a"), Ok(()));
        check(with("9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"), Ok(()));
        check(with(&"a".repeat(128)), Ok(()));
        check(with(&"a".repeat(129)), Err(&refused(129)));
        // Bytes, not characters, and those of the name and not of its spelling.
        check(with(&"é".repeat(64)), Ok(()));
        check(with(&"é".repeat(65)), Err(&refused(130)));
        check(with(&r"\u0061".repeat(128)), Ok(()));
        check(with(&r"\u0061".repeat(129)), Err(&refused(129)));
        check(with(&r"\ud83d\ude00".repeat(32)), Ok(()));
    }

    #[test]
    fn duplicates() {
        check(
            r#"{"clientId":"a","timestamp":"t","hosts":[],"clientId":"a"}"#,
            Err("clientId: appears more than once"),
        );
        check(
            r#"{"clientId":"a","timestamp":"t","hosts":[],"client\u0049d":"b"}"#,
            Err("clientId: appears more than once"),
        );
        check(
            root(r#""hosts":[],"timestamp":7"#),
            Err("timestamp: appears more than once"),
        );
        check(
            root(r#""hosts":[],"hosts":[]"#),
            Err("hosts: appears more than once"),
        );
        check(
            root(r#""hosts":[],"geo":1,"g\u0065o":1"#),
            Err("geo: appears more than once"),
        );
        for (name, value) in [("name", "\"a\""), ("url", "null"), ("history", "[]")] {
            let text = format!("hosts[1].{name}: appears more than once");
            check(
                host(&format!(r#""{name}":{value},"{name}":{value}"#)),
                Err(&text),
            );
        }
        check(
            host(r#""status":"online","url":"","\u0073tatus":"offline""#),
            Err("hosts[1].status: appears more than once"),
        );
        for (name, value) in [("t", "1"), ("latency", "null"), ("error", "\"timeout\"")] {
            let text = format!("hosts[1].history[2].{name}: appears more than once");
            check(
                sample(&format!(r#""{name}":{value},"x":0,"{name}":{value}"#)),
                Err(&text),
            );
        }
        check(
            sample(r#""\u0074":1,"t":1"#),
            Err("hosts[1].history[2].t: appears more than once"),
        );
        // The names mean something in their own object alone.
        check(root(r#""hosts":[],"t":1,"t":2,"name":3,"name":4"#), Ok(()));
        check(host(r#""clientId":1,"clientId":2,"hosts":3"#), Ok(()));
        check(sample(r#""history":1,"name":2,"receivedAt":3"#), Ok(()));
        check(geo(r#"{"geo":1,"geo":2}"#), Ok(()));
    }

    #[test]
    fn received_at_is_ours() {
        check(
            root(r#""hosts":[],"receivedAt":"x""#),
            Err("receivedAt: reserved for the server"),
        );
        check(
            root(r#""hosts":[],"receivedAt":null"#),
            Err("receivedAt: reserved for the server"),
        );
        check(
            root(r#""hosts":[],"r\u0065ceivedAt":1"#),
            Err("receivedAt: reserved for the server"),
        );
        check(
            r#"{"receivedAt":1}"#,
            Err("receivedAt: reserved for the server"),
        );
        check(root(r#""hosts":[],"received_at":1,"receivedat":2"#), Ok(()));
    }

    #[test]
    fn unknown_members() {
        check(root(r#""x":{"hosts":7},"hosts":[],"x":[[],{}]"#), Ok(()));
        check(root(r#""":0,"hosts":[],"\u0000":1,"é":2"#), Ok(()));
        check(
            host(r#""x":[1,[2,{"name":3}]],"name":"a","y":{"name":7}"#),
            Ok(()),
        );
        check(
            sample(r#""x":[1,[2,{"t":"3"}]],"t":1,"y":{"t":"7"}"#),
            Ok(()),
        );
        check(
            sample(r#""T":"1","latency ":"1","errors":[],"tt":{}"#),
            Ok(()),
        );
        let many = r#"{"t":[0,{"name":"x"}]},"#.repeat(20_000);
        check(
            host(&format!(r#""x":[{many}0],"status":"a","y":[{many}0]"#)),
            Ok(()),
        );
        check(
            host(&format!(r#""x":[{many}0],"status":7"#)),
            Err("hosts[1].status: expected string or null"),
        );
    }

    #[test]
    fn sizes() {
        let of_size = |bytes: usize| {
            let rest = geo("\"\"").len();
            geo(&format!("\"{}\"", "x".repeat(bytes - rest)))
        };
        check(of_size(KEPT_BYTES_MAX), Ok(()));
        check(of_size(KEPT_BYTES_MAX + 1), Ok(()));
        check(of_size(REPORT_BYTES_MAX), Ok(()));
        let too_large = "body of 1048577 bytes exceeds 1048576 bytes";
        check(of_size(REPORT_BYTES_MAX + 1), Err(too_large));
        let body = of_size(REPORT_BYTES_MAX) + " ";
        assert_eq!(
            Validator::new().check(body.as_bytes()),
            Err(ReportError::TooLarge {
                bytes: REPORT_BYTES_MAX + 1
            })
        );
        check(geo(&format!("[{}0]", "0,".repeat(500_000))), Ok(()));
        check("[".repeat(REPORT_BYTES_MAX), Err("nesting deeper than 64"));
    }

    #[test]
    fn stamps() {
        #[track_caller]
        fn check(line: &str, expected: Option<u64>) {
            assert_eq!(received_at(line.as_bytes()).map(Timestamp::ms), expected);
        }
        check(
            r#"{"receivedAt":"2026-02-27T05:14:34.123Z","clientId""#,
            Some(NOW_MS),
        );
        check(STAMP, Some(NOW_MS));
        check(r#"{"receivedAt":"2026-02-27T05:14:34.123Z""#, None);
        check(r#"{"receivedAt":"2026-02-27T05:14:34.123Z"}"#, None);
        check(r#"{"receivedAt":"2026-02-30T05:14:34.123Z","#, None);
        check(r#"{"receivedAt":"2026-02-27T05:14:34Z","a":1}"#, None);
        check(r#"{"receivedAt": "2026-02-27T05:14:34.123Z","#, None);
        check(r#" {"receivedAt":"2026-02-27T05:14:34.123Z","#, None);
        check(r#"{"receivedAt":17}"#, None);
        check(r#"{"receivedAt":"é""#, None);
        check(r#"{"clientId":"a"}"#, None);
        check("", None);
    }

    #[test]
    fn stored_lines() {
        #[track_caller]
        fn check(line: &str, expected: &str) {
            let found = Validator::new().check_line(line.as_bytes());
            assert_eq!(found.expect_err("the line is broken").to_string(), expected);
        }
        check("", "body is empty");
        check("\n", "body is empty");
        check(STAMP, "body is not valid JSON at byte 41");
        check(&format!("{STAMP}}}\n"), "clientId: required but missing");
        check(
            &format!("{STAMP}\"clientId\":\"a\"\n"),
            "body is not valid JSON at byte 55",
        );
        check(
            &format!("{STAMP}{}", &STAMP[1..]),
            "body is not valid JSON at byte 81",
        );
        check(
            &format!("{STAMP}\"receivedAt\":1}}"),
            "receivedAt: reserved for the server",
        );
        check(
            r#"{"receivedAt":"yesterday","clientId":"a"}"#,
            "receivedAt: reserved for the server",
        );
    }

    #[test]
    fn a_body_cut_short_stops_at_its_end() {
        let body = sample(r#""t":-1.5e+3,"x":[true,false,null,"a\u00e9\n\ud83d\ude00é"],"y":{}"#);
        let mut validator = Validator::new();
        for end in 1..body.len() {
            let expected = match body.is_char_boundary(end) {
                true => ReportError::NotJson { offset: end },
                false => ReportError::NotUtf8 {
                    offset: body.floor_char_boundary(end),
                },
            };
            assert_eq!(validator.check(&body.as_bytes()[..end]), Err(expected));
        }
    }

    /// The schema once more, in the plainest way.
    fn is_report(body: &Value) -> bool {
        let is = |value: &Value, member, expected: fn(&Value) -> bool| {
            value
                .get(member)
                .is_none_or(|value| value.is_null() || expected(value))
        };
        let is_sample = |value: &Value| {
            value.is_object()
                && is(value, "t", Value::is_number)
                && is(value, "latency", Value::is_number)
                && is(value, "error", Value::is_string)
        };
        let is_host = |value: &Value| {
            let history = &value["history"];
            value.is_object()
                && is(value, "name", Value::is_string)
                && is(value, "url", Value::is_string)
                && is(value, "status", Value::is_string)
                && is(value, "history", Value::is_array)
                && history
                    .as_array()
                    .is_none_or(|samples| samples.iter().all(is_sample))
        };
        body.is_object()
            && body["clientId"]
                .as_str()
                .is_some_and(|id| (1..=128).contains(&id.len()))
            && body["timestamp"].is_string()
            && body["hosts"]
                .as_array()
                .is_some_and(|hosts| hosts.iter().all(is_host))
            && body.get("receivedAt").is_none()
    }

    /// Whether some object has two members with one name: serde_json has kept one of them.
    fn has_duplicates(body: &[u8], parsed: &Value) -> bool {
        fn nodes(value: &Value) -> usize {
            match value {
                Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
                Value::Object(members) => {
                    1 + members
                        .values()
                        .map(|value| 1 + nodes(value))
                        .sum::<usize>()
                }
                _ => 1,
            }
        }
        let mut text = body.to_vec();
        let tape = simd_json::to_tape(&mut text).expect("serde_json takes it");
        tape.0.len() > nodes(parsed)
    }

    /// Agrees with serde_json and the schema above, but for duplicates and the limit of depth.
    #[track_caller]
    fn check_against_model(validator: &mut Validator, body: &[u8]) -> Result<(), ReportError> {
        let found = validator.check(body).map(|_| ());
        let parsed = serde_json::from_slice::<Value>(body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(by_simd_json(validator, body), found, "{shown}");
        match (found, &parsed) {
            (Err(ReportError::TooDeep), _) => (),
            (
                Err(ReportError::Empty | ReportError::NotJson { .. } | ReportError::NotUtf8 { .. }),
                parsed,
            ) => assert!(parsed.is_err(), "{found:?} {shown}"),
            // Either of the two may be the one that breaks the schema.
            (_, Ok(parsed)) if has_duplicates(body, parsed) => (),
            (found, Ok(parsed)) => {
                assert!(
                    !matches!(found, Err(ReportError::Duplicate { .. })),
                    "{shown}"
                );
                assert_eq!(found.is_ok(), is_report(parsed), "{found:?} {shown}");
            }
            (found, Err(error)) => panic!("{found:?}, but {error}: {shown}"),
        }
        // The text for the message is found by other means: it has to know of the same faults.
        let text = body.trim_ascii();
        let scanned = fault::first_fault(text);
        match found {
            Err(ReportError::Empty | ReportError::TooLarge { .. }) => (),
            Err(ReportError::NotJson { .. }) if scanned.is_ok() => {
                let error = parsed.expect_err("asserted above").to_string();
                assert!(error.starts_with("number out of range"), "{error} {shown}");
            }
            Err(
                ReportError::TooDeep | ReportError::NotJson { .. } | ReportError::NotUtf8 { .. },
            ) => assert!(scanned.is_err(), "{shown}"),
            _ => assert_eq!(scanned, Ok(()), "{shown}"),
        }
        found
    }

    /// Replaces what stands between two structural characters, or some bytes anywhere.
    pub(super) fn mutate(random: &mut Random, body: &mut Vec<u8>) {
        const VALUES: [&str; 24] = [
            "null",
            "true",
            "0",
            "-1.5e3",
            "1e999",
            "1e-999",
            "99999999999999999999",
            "01",
            "\"\"",
            "\"a\\u0041\"",
            "\"\\ud800\"",
            "{}",
            "[]",
            "[null]",
            "[[[[0]]]]",
            "{\"t\":0,\"t\":1}",
            "{\"t\":\"0\"}",
            "\"t\"",
            "\"latency\"",
            "\"name\"",
            "\"hosts\"",
            "\"clientId\"",
            "\"receivedAt\"",
            "\"history\"",
        ];
        const BYTES: &[u8] = b"\"\\{}[],:0e-. \n\r\t\x00\x1f\x7f\x80\xc3\xa9\xed\xf0\xfft";
        let is_structural = |byte: &u8| b"{}[],:".contains(byte);
        // The members of the report itself stand at its ends.
        let near = random.below(body.len() as u64 / 20) as usize;
        let at = match random.below(4) {
            0 => near,
            1 => body.len() - 1 - near,
            _ => random.below(body.len() as u64) as usize,
        };
        if random.below(8) > 0 {
            let begin = body[at..]
                .iter()
                .position(is_structural)
                .map_or(0, |found| at + found + 1);
            let end = body[begin..].iter().position(is_structural);
            let end = end.map_or(body.len(), |found| begin + found);
            body.splice(begin..end, random.pick(&VALUES).bytes());
        } else {
            let end = body.len().min(at + random.below(4) as usize);
            let new: Vec<u8> = (0..random.below(3)).map(|_| *random.pick(BYTES)).collect();
            body.splice(at..end, new);
        }
    }

    #[test]
    fn agrees_with_a_model() {
        let mut random = Random::new(7);
        let mut validator = Validator::new();
        let (mut accepted, mut texts, mut types, mut members) = (0, 0, 0, 0);
        for round in 0..2_500u64 {
            let mut generator = Generator::new(round, (round % 3) as usize);
            let mut body = generator.next_report("9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d");
            assert_eq!(check_against_model(&mut validator, &body), Ok(()));
            for _ in 0..3 {
                mutate(&mut random, &mut body);
                match check_against_model(&mut validator, &body) {
                    Ok(()) => accepted += 1,
                    Err(ReportError::NotJson { .. } | ReportError::NotUtf8 { .. }) => texts += 1,
                    Err(ReportError::WrongType { .. }) => types += 1,
                    Err(_) => members += 1,
                }
            }
        }
        // The mutations reach what they are for.
        let fewest = [accepted, texts, types, members].into_iter().min();
        assert!(fewest > Some(100), "{accepted} {texts} {types} {members}");
    }

    #[test]
    fn ways_are_counted() {
        let mut validator = Validator::new();
        let mut check = |body: &str, expected: [u64; 2]| {
            let _ = validator.check(body.as_bytes());
            let line = format!("{STAMP}{}", body.get(1..).unwrap_or(""));
            let _ = validator.check_line(line.as_bytes());
            let Ways { usual, unusual } = validator.ways();
            assert_eq!([usual, unusual], expected, "{body}");
        };
        check(&geo("0"), [2, 0]);
        check(&geo(" 0"), [2, 2]);
        check(&geo("00"), [2, 4]);
        check(&geo(&format!("{}0", " ".repeat(KEPT_BYTES_MAX))), [2, 6]);
        // Neither the body nor the line that is too large, but the empty line.
        check(&geo(&" ".repeat(REPORT_BYTES_MAX)), [2, 6]);
        check("", [2, 7]);
        check(&geo("0"), [4, 7]);
    }

    #[test]
    fn checking_and_storing_allocate_nothing() {
        let now = Timestamp::from_ms(NOW_MS);
        for samples in [1, 20, 100] {
            let mut generator = Generator::new(1, samples);
            let mut bodies: Vec<Vec<u8>> = (0..8).map(|_| generator.next_report("a")).collect();
            // With a blank, simd-json checks them.
            bodies.extend_from_within(..);
            bodies[8..].iter_mut().for_each(|body| body.insert(1, b' '));
            let mut validator = Validator::new();
            let mut batch = Vec::new();
            let mut pass = || {
                batch.clear();
                for body in &bodies {
                    let report = validator
                        .check(body)
                        .expect("the generator keeps the schema");
                    report.append_line(now, &mut batch);
                    assert!(
                        validator
                            .check_line(&batch[batch.len() - report.line_len()..])
                            .is_ok()
                    );
                }
            };
            pass();
            assert_eq!(
                allocation_counter::measure(pass).count_total,
                0,
                "{samples} samples"
            );
        }
    }

    #[test]
    fn a_large_report_pins_no_memory() {
        let body = geo(&format!("[ {}0]", "0,".repeat(500_000)));
        let mut validator = Validator::new();
        let left = allocation_counter::measure(|| {
            assert!(validator.check(body.as_bytes()).is_ok());
            assert!(validator.check(&body.as_bytes()[..body.len() - 1]).is_err());
        });
        assert!(
            left.bytes_max > 10_000_000 && left.bytes_current < 1_000,
            "{left:?}"
        );
    }
}
