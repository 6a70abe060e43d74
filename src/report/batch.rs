//! Bodies with many reports: newline-delimited JSON, or one JSON array.
//!
//! ```text
//! content type, first bytes ──▶ Shape ──▶ Items ──▶ Item { index, begin, bytes } ──▶ Validator::check
//!
//! Lines   Line ──LF or end of the body──▶ Line
//!
//! Array   Open ──[──▶ First ──any──▶ Element ──,──▶ Value ──any──▶ Element
//!                       └──]──▶ Closed ◀──]──┘                any byte that is not here: BatchError
//! ```
//!
//! Owns where an item begins and ends. Leaves to others: what an item has to be (`Validator`), the
//! verdict on it and the answer (`api`).
//!
//! - Lines end with LF, the last one also with the body (RFC 8259 has no line breaks inside of strings).
//!   Blank lines are no items and do not count. So a broken line is one broken item.
//! - An array is cut at the commas of its first level, by brackets and strings alone. So if all items
//!   are JSON, the array is; and if the array is JSON, these are its elements. Where the cut itself
//!   finds no array, nobody knows where an item ends, and the whole body is refused: it is cut to its
//!   end before any of it is stored.
//! - An item longer than a report may be is cut out like any other, for its own verdict. Only such a one
//!   may have whitespace at its end.
//!
//! Invariants: items are in order, not empty, and at most [`ITEMS_MAX`]; one call passes over at most
//! [`SCAN_BYTES_MAX`]. Nothing is allocated. Indices count items from 0, offsets are in bytes from the
//! start of the body.

use std::error::Error;
use std::fmt;

use super::{REPORT_BYTES_MAX, is_space};

/// A body with many reports, decoded, is at most this long.
pub const BATCH_BODY_BYTES_MAX: usize = 16 << 20;

/// A body has at most this many items: reports of one sample a host fill the body with half as many.
pub const ITEMS_MAX: usize = 16_384;

/// One call of [`Items::next_item`] passes over at most this much of the body: 0.2 ms of reports, 1 ms of
/// what is worst.
pub const SCAN_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(REPORT_BYTES_MAX <= BATCH_BODY_BYTES_MAX);

/// The types of newline-delimited JSON; neither of them is registered.
const LINES_TYPES: [&[u8]; 2] = [b"application/x-ndjson", b"application/ndjson"];

/// What a body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A report.
    One,
    /// A report a line.
    Lines,
    /// An array of reports.
    Array,
}

impl Shape {
    /// The shape of a body of this type, which is looked at first, that begins like this; `None` while
    /// it is all whitespace. A body that ends before it is known is one report, and not a good one.
    pub fn of(content_type: Option<&[u8]>, begin: &[u8]) -> Option<Shape> {
        if content_type.is_some_and(is_lines_type) {
            return Some(Shape::Lines);
        }
        match begin.iter().find(|byte| !is_space(byte))? {
            b'[' => Some(Shape::Array),
            _ => Some(Shape::One),
        }
    }
}

/// Compares without parameters (RFC 9110 §8.3.1).
fn is_lines_type(content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let name = content_type[..end].trim_ascii();
    LINES_TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// The items of one body, one after the other. Done with after an error.
#[derive(Clone, Debug)]
pub struct Items<'b> {
    body: &'b [u8],
    /// `0 <= at <= body.len()`; all before it is looked at.
    at: usize,
    /// Where the item that is being looked at begins.
    begin: usize,
    /// Items that have been returned; `count <= ITEMS_MAX`.
    count: usize,
    state: State,
    /// [`SCAN_BYTES_MAX`], but for tests.
    scan_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Somewhere in a line.
    Line,
    /// Before the array.
    Open,
    /// Before the first element or the end.
    First,
    /// Behind a comma, before an element.
    Value,
    /// In an element.
    Element(Nesting),
    /// Behind the array.
    Closed,
}

/// What [`Items::next_item`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'b> {
    /// An item.
    Item(Item<'b>),
    /// No end of an item in [`SCAN_BYTES_MAX`]: let others have their turn, then call again.
    Due,
    /// There are no more items, and all of the body is as it should be.
    End,
}

/// A piece of a body that should be a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'b> {
    /// How many items are before it.
    pub index: usize,
    /// How many bytes are before it.
    pub begin: usize,
    /// `!bytes.is_empty()`
    pub bytes: &'b [u8],
}

impl<'b> Items<'b> {
    /// The items of a body of this shape; a single report is an item too.
    pub fn new(shape: Shape, body: &'b [u8]) -> Items<'b> {
        let (begin, at) = match shape {
            // As a line that the body ends.
            Shape::One => (spaces(body), body.len()),
            Shape::Lines | Shape::Array => (0, 0),
        };
        Items {
            body,
            at,
            begin,
            count: 0,
            state: match shape {
                Shape::One | Shape::Lines => State::Line,
                Shape::Array => State::Open,
            },
            scan_bytes_max: SCAN_BYTES_MAX,
        }
    }

    /// Looks for the next item.
    ///
    /// # Errors
    ///
    /// The body is no batch, whatever its items are.
    pub fn next_item(&mut self) -> Result<Next<'b>, BatchError> {
        let stop = self.body.len().min(self.at + self.scan_bytes_max);
        match self.state {
            State::Line => self.next_line(stop),
            _ => self.next_element(stop),
        }
    }

    fn next_line(&mut self, stop: usize) -> Result<Next<'b>, BatchError> {
        if self.at == self.begin {
            // Also over blank lines.
            self.at += spaces(&self.body[self.at..stop]);
            self.begin = self.at;
        }
        match memchr::memchr(b'\n', &self.body[self.at..stop]) {
            Some(len) => self.at += len,
            None => self.at = stop,
        }
        if self.at == stop && stop < self.body.len() {
            return Ok(Next::Due);
        }
        if self.begin == self.body.len() {
            return Ok(Next::End);
        }
        let item = self.item(self.at)?;
        self.begin = self.at;
        Ok(Next::Item(item))
    }

    fn next_element(&mut self, stop: usize) -> Result<Next<'b>, BatchError> {
        loop {
            let rest = &self.body[self.at..stop];
            self.at += match &mut self.state {
                State::Element(nesting) => nesting.pass(rest),
                _ => spaces(rest),
            };
            let offset = self.at;
            let Some(&byte) = self.body[..stop].get(offset) else {
                return match self.state {
                    _ if stop < self.body.len() => Ok(Next::Due),
                    State::Closed => Ok(Next::End),
                    _ => Err(BatchError::NotArray { offset }),
                };
            };
            let was = self.state;
            self.state = match (was, byte) {
                (State::Open, b'[') => State::First,
                (State::First, b']') | (State::Element(_), b']') => State::Closed,
                (State::Element(_), b',') => State::Value,
                (State::First | State::Value, b',' | b']' | b'}')
                | (State::Open | State::Element(_) | State::Closed | State::Line, _) => {
                    return Err(BatchError::NotArray { offset });
                }
                (State::First | State::Value, _) => {
                    self.begin = offset;
                    self.state = State::Element(Nesting::default());
                    continue;
                }
            };
            self.at += 1;
            if let State::Element(_) = was {
                return Ok(Next::Item(self.item(offset)?));
            }
        }
    }

    /// The item between `begin` and this offset. If it is too long for a report, whitespace at its end
    /// is not looked for: that could be long too.
    fn item(&mut self, end: usize) -> Result<Item<'b>, BatchError> {
        if self.count == ITEMS_MAX {
            return Err(BatchError::TooManyItems);
        }
        let bytes = &self.body[self.begin..end];
        let len = match bytes.len() > REPORT_BYTES_MAX {
            true => bytes.len(),
            false => bytes.len() - bytes.iter().rev().take_while(|byte| is_space(byte)).count(),
        };
        self.count += 1;
        Ok(Item {
            index: self.count - 1,
            begin: self.begin,
            bytes: &bytes[..len],
        })
    }
}

/// How many bytes of whitespace are in front.
fn spaces(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_space(byte)).count()
}

/// How deep in brackets, and where in a string, a place in an element is. Which bracket closes which is for
/// the parser to judge.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    String,
    /// Behind a backslash in a string.
    Escape,
}

impl Nesting {
    /// Passes over bytes up to a comma or closing bracket outside of all brackets, or over all of
    /// them. Returns how many.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            at += self.pass_words(&bytes[at..]);
            let end = bytes.len().min(at + WORD_BYTES);
            match self.pass_bytes(&bytes[at..end]) {
                Some(passed) => return at + passed,
                None if end == bytes.len() => return end,
                None => at = end,
            }
        }
    }

    /// Byte by byte; `Some` where such a comma or bracket is.
    fn pass_bytes(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match (self.place, byte) {
                (Place::Outside, b'"') => self.place = Place::String,
                (Place::Outside, b'{' | b'[') => self.depth += 1,
                (Place::Outside, b'}' | b']' | b',') if self.depth == 0 => return Some(at),
                (Place::Outside, b'}' | b']') => self.depth -= 1,
                (Place::String, b'"') => self.place = Place::Outside,
                (Place::String, b'\\') => self.place = Place::Escape,
                (Place::Escape, _) => self.place = Place::String,
                (Place::Outside | Place::String, _) => (),
            }
        }
        None
    }

    /// The same for eight bytes at a time, which have no branch for each byte, as far as they have no
    /// backslash and cannot lead out of all brackets. Returns the bytes passed.
    fn pass_words(&mut self, bytes: &[u8]) -> usize {
        let mut strings = match self.place {
            Place::Outside => 0,
            Place::String => LANES,
            Place::Escape => return 0,
        };
        let mut at = 0;
        while let Some(&word) = bytes[at..].first_chunk() {
            let word = u64::from_le_bytes(word);
            // The cases of brackets differ by this bit, and no other byte becomes one.
            let folded = word | 0x2020_2020_2020_2020;
            // From each quote on the other of in and out: a sum without carry over those before it.
            let mut within = lanes_of(word, b'"');
            within ^= within << 8;
            within ^= within << 16;
            within ^= within << 32;
            within ^= strings;
            let opened = (lanes_of(folded, b'{') & !within).count_ones() as usize;
            let closed = (lanes_of(folded, b'}') & !within).count_ones() as usize;
            if lanes_of(word, b'\\') != 0 || self.depth <= closed {
                break;
            }
            self.depth = self.depth + opened - closed;
            strings = match within >> 63 {
                0 => 0,
                _ => LANES,
            };
            at += WORD_BYTES;
        }
        self.place = match strings {
            0 => Place::Outside,
            _ => Place::String,
        };
        at
    }
}

const WORD_BYTES: usize = size_of::<u64>();

/// The highest bit of each byte.
const LANES: u64 = 0x8080_8080_8080_8080;

/// The highest bit of each byte of `word` that is `byte`.
fn lanes_of(word: u64, byte: u8) -> u64 {
    let differing = word ^ (u64::from(byte) * 0x0101_0101_0101_0101);
    // A sum of seven bits reaches the eighth unless they are all 0, and stays in its byte.
    !(((differing & !LANES) + !LANES) | differing) & LANES
}

/// Why a body is refused as a batch, with all that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The body is no JSON array (RFC 8259 §5), whatever its elements are.
    NotArray {
        /// The byte that cannot follow those before it; the body's length if it ends too early.
        offset: usize,
    },
    /// More than [`ITEMS_MAX`].
    TooManyItems,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotArray { offset } => {
                write!(f, "body is not a JSON array at byte {offset}")
            }
            Self::TooManyItems => write!(f, "body has more than {ITEMS_MAX} reports"),
        }
    }
}

impl Error for BatchError {}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::Validator;
    use crate::report::reports::{Generator, Random};

    /// All items with their offsets, looked for `scan_bytes_max` bytes at a time.
    fn items_by(
        shape: Shape,
        body: &[u8],
        scan_bytes_max: usize,
    ) -> Result<Vec<(usize, &[u8])>, BatchError> {
        let mut items = Items {
            scan_bytes_max,
            ..Items::new(shape, body)
        };
        let mut found = Vec::new();
        loop {
            let before = items.at;
            match items.next_item()? {
                Next::Item(Item {
                    index,
                    begin,
                    bytes,
                }) => {
                    assert_eq!(index, found.len());
                    assert_eq!(&body[begin..begin + bytes.len()], bytes);
                    found.push((begin, bytes));
                }
                Next::Due => assert!(before < items.at && items.at < body.len()),
                Next::End => {
                    assert_eq!(items.next_item(), Ok(Next::End));
                    return Ok(found);
                }
            }
            assert!(items.at - before <= scan_bytes_max + 1);
        }
    }

    /// All items; the same whatever is looked at in one call.
    #[track_caller]
    fn items(shape: Shape, body: &[u8]) -> Result<Vec<(usize, &[u8])>, BatchError> {
        let found = items_by(shape, body, SCAN_BYTES_MAX);
        for scan_bytes_max in [1, 2, 7, 8, 9, 64] {
            assert_eq!(items_by(shape, body, scan_bytes_max), found);
        }
        found
    }

    #[track_caller]
    fn check(shape: Shape, body: &str, expected: Result<&[&str], &str>) {
        let found = items(shape, body.as_bytes()).map_err(|error| error.to_string());
        let found = found.map(|found| {
            let texts = found.iter().map(|(_, bytes)| str::from_utf8(bytes));
            texts.collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{body}");
    }

    #[test]
    fn shapes() {
        #[track_caller]
        fn check(content_type: &str, begin: &str, expected: Option<Shape>) {
            let found = Shape::of(Some(content_type.as_bytes()), begin.as_bytes());
            assert_eq!(found, expected, "{content_type} {begin}");
        }
        let lines = Some(Shape::Lines);
        check("application/x-ndjson", "", lines);
        check("application/x-ndjson", "{}", lines);
        check("application/x-ndjson", "[]", lines);
        check("application/ndjson", "", lines);
        check("application/ndjson", "", lines);
        check("Application/X-NDJSON", "", lines);
        check("application/x-ndjson;charset=utf-8", "", lines);
        check(" application/ndjson ; charset=utf-8", "", lines);
        let by_first_byte = [
            ("{", Some(Shape::One)),
            ("[", Some(Shape::Array)),
            ("", None),
            (" \t\r\n", None),
            (" \t\r\n[", Some(Shape::Array)),
            (" \t\r\n{", Some(Shape::One)),
            ("\u{feff}[", Some(Shape::One)),
            ("\u{c}[", Some(Shape::One)),
            ("null", Some(Shape::One)),
        ];
        for (begin, expected) in by_first_byte {
            for content_type in [
                "application/json",
                "text/plain;charset=UTF-8",
                "",
                ";application/x-ndjson",
                "application/x-ndjson2",
                "application/x-ndjson/",
                "application/ndjson, application/ndjson",
            ] {
                check(content_type, begin, expected);
            }
            assert_eq!(Shape::of(None, begin.as_bytes()), expected);
        }
    }

    #[test]
    fn lines() {
        let check = |body: &str, expected: &[&str]| check(Shape::Lines, body, Ok(expected));
        check("", &[]);
        check("\n", &[]);
        check("a", &["a"]);
        check("a\n", &["a"]);
        check("a\nb", &["a", "b"]);
        check("a\nb\n", &["a", "b"]);
        check("a\r\nb\r\n", &["a", "b"]);
        check("a\r\nb\r", &["a", "b"]);
        check("\n\r\n \t\n\na\n\n \n b \n\t", &["a", "b"]);
        check("{\"a\":\r1}\n[1,\n2]\n", &["{\"a\":\r1}", "[1,", "2]"]);
        check("a\u{b}\n\u{c}\n", &["a\u{b}", "\u{c}"]);
        check("a\0b\nc\u{2028}d", &["a\0b", "c\u{2028}d"]);
        check("\"a\\nb\"\n", &["\"a\\nb\""]);
    }

    #[test]
    fn one_report_is_an_item() {
        check(Shape::One, " {\n\"a\":1}\n", Ok(&["{\n\"a\":1}"]));
        check(Shape::One, "a\nb", Ok(&["a\nb"]));
        check(Shape::One, " \n", Ok(&[]));
        check(Shape::One, "", Ok(&[]));
    }

    #[test]
    fn arrays() {
        let check =
            |body: &str, expected: Result<&[&str], &str>| check(Shape::Array, body, expected);
        check("[]", Ok(&[]));
        check(" [ \n ] \r\n\t", Ok(&[]));
        check("[1]", Ok(&["1"]));
        check(" [ 1 , 2,3 ] ", Ok(&["1", "2", "3"]));
        check(
            "[\n{\"a\":1},\n{\"a\":2}\n]\n",
            Ok(&["{\"a\":1}", "{\"a\":2}"]),
        );
        check("[[1,2],[],[[3]]]", Ok(&["[1,2]", "[]", "[[3]]"]));
        check(
            r#"["a,b]","\"],[","\\",{"]":"}"}]"#,
            Ok(&[r#""a,b]""#, r#""\"],[""#, r#""\\""#, r#"{"]":"}"}"#]),
        );
        check(r#"["\\\\\"",1]"#, Ok(&[r#""\\\\\"""#, "1"]));
        check(
            "[{\"a\":[{\"b\":[1,2]},3],\"c\":{}},4]",
            Ok(&["{\"a\":[{\"b\":[1,2]},3],\"c\":{}}", "4"]),
        );
        // Items that are no JSON are judged one by one.
        check(
            "[nul,{\"a\"},1 2,\"\\x\",'a']",
            Ok(&["nul", "{\"a\"}", "1 2", "\"\\x\"", "'a'"]),
        );
        check("[{\"a\":1],2]", Ok(&["{\"a\":1]", "2"]));
        // The outside is not.
        let not_array = [
            ("[{]},1]", 3),
            ("", 0),
            (" ", 1),
            ("1", 0),
            ("{}", 0),
            ("]", 0),
            ("[", 1),
            ("[ ", 2),
            ("[1", 2),
            ("[1,", 3),
            ("[1, ", 4),
            ("[,]", 1),
            ("[,1]", 1),
            ("[1,]", 3),
            ("[1 , ]", 5),
            ("[1,,2]", 3),
            ("[}", 1),
            ("[1}", 2),
            ("[1,}", 3),
            ("[{}}]", 3),
            ("[{\"a\":1}", 8),
            ("[{\"a\":1]", 8),
            ("[\"a]", 4),
            ("[\"a\\\"]", 6),
            ("[\"a\\", 4),
            ("[[]", 3),
            ("[] 1", 3),
            ("[]]", 2),
            ("[1],", 3),
            ("[1][2]", 3),
            ("[1]\0", 3),
            ("\u{feff}[]", 0),
        ];
        for (body, offset) in not_array {
            let text = format!("body is not a JSON array at byte {offset}");
            check(body, Err(&text));
        }
    }

    #[test]
    fn counts() {
        let most = ITEMS_MAX;
        let check = |shape, body: String, expected| {
            let found = items_by(shape, body.as_bytes(), SCAN_BYTES_MAX);
            let found = found.map(|found| found.len());
            assert_eq!(found.map_err(|error| error.to_string()), expected);
        };
        let too_many = || Err("body has more than 16384 reports".to_owned());
        check(Shape::Lines, "{}\n".repeat(most), Ok(most));
        check(Shape::Lines, "{}\n".repeat(most + 1), too_many());
        check(Shape::Lines, "\n".repeat(BATCH_BODY_BYTES_MAX), Ok(0));
        let array = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
        check(Shape::Array, array(most), Ok(most));
        check(Shape::Array, array(most + 1), too_many());
    }

    #[test]
    fn one_call_looks_at_little() {
        let long = "x".repeat(5 * SCAN_BYTES_MAX);
        let bodies = [
            (Shape::Lines, long.clone()),
            (Shape::Lines, "\n".repeat(5 * SCAN_BYTES_MAX)),
            (Shape::Lines, " ".repeat(5 * SCAN_BYTES_MAX)),
            (Shape::Array, format!("[\"{long}\"]")),
            (Shape::Array, format!("[{{\"a\":\"{long}\"}}]")),
            (Shape::Array, format!("[{}", " ".repeat(5 * SCAN_BYTES_MAX))),
            (Shape::Array, "[".repeat(5 * SCAN_BYTES_MAX)),
        ];
        for (shape, body) in bodies {
            let mut items = Items::new(shape, body.as_bytes());
            for calls in 1.. {
                match items.next_item() {
                    Ok(Next::Due) => assert_eq!(items.at, calls * SCAN_BYTES_MAX),
                    Ok(Next::Item(item)) => assert!(item.bytes.len() > REPORT_BYTES_MAX),
                    Ok(Next::End) | Err(_) => {
                        assert!((5..=7).contains(&calls), "{calls}");
                        break;
                    }
                }
            }
        }
    }

    /// The cut once more, byte by byte.
    fn model(body: &[u8]) -> Result<Vec<(usize, &[u8])>, BatchError> {
        let is_blank = |byte: &u8| b" \t\r\n".contains(byte);
        let error = |offset| Err(BatchError::NotArray { offset });
        let mut found = Vec::new();
        let open = body.iter().position(|byte| !is_blank(byte));
        let open = open.unwrap_or(body.len());
        if body.get(open) != Some(&b'[') {
            return error(open);
        }
        let (mut begin, mut depth, mut in_string, mut at) = (open + 1, 0, false, open + 1);
        let end = loop {
            let Some(&byte) = body.get(at) else {
                return error(body.len());
            };
            match byte {
                b'"' => in_string = !in_string,
                b'\\' if in_string => at += 1,
                _ if in_string => (),
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b'}' => return error(at),
                b']' | b',' if depth == 0 => {
                    let item = body[begin..at].trim_ascii_start();
                    let is_empty = body[begin..at].iter().all(is_blank);
                    match (is_empty, byte) {
                        (true, b']') if found.is_empty() => break at,
                        (true, _) => return error(at),
                        (false, _) => {
                            let first = at - item.len();
                            found.push((first, item.trim_ascii_end()));
                        }
                    }
                    begin = at + 1;
                    if byte == b']' {
                        break at;
                    }
                }
                _ => (),
            }
            at += 1;
        };
        match body[end + 1..].iter().position(|byte| !is_blank(byte)) {
            Some(behind) => error(end + 1 + behind),
            None => Ok(found),
        }
    }

    const SPACES: [&str; 6] = ["", "", "", " ", "\n", "\r\n\t "];

    fn push_value(random: &mut Random, text: &mut String, depth: usize) {
        const STRINGS: [&str; 10] = [
            "\"\"",
            "\"a\"",
            "\"],[\"",
            "\"\\\"\"",
            "\"\\\\\"",
            "\"\\\\\\\"}\"",
            "\"\\u005d{\"",
            "\"[[{{\"",
            "\"latency, é\"",
            "\"a long string without much in it\"",
        ];
        const OTHERS: [&str; 6] = ["null", "true", "-1.5e3", "0", "17", "[]"];
        let space = |random: &mut Random, text: &mut String| {
            text.push_str(random.pick::<&str>(&SPACES));
        };
        space(random, text);
        match random.below(4) {
            0 if depth > 0 => {
                text.push('[');
                for index in 0..random.below(4) {
                    text.push_str(if index > 0 { "," } else { "" });
                    push_value(random, text, depth - 1);
                }
                text.push(']');
            }
            1 if depth > 0 => {
                text.push('{');
                for index in 0..random.below(4) {
                    text.push_str(if index > 0 { "," } else { "" });
                    text.push_str(random.pick::<&str>(&STRINGS));
                    space(random, text);
                    text.push(':');
                    push_value(random, text, depth - 1);
                }
                text.push('}');
            }
            2 => text.push_str(random.pick::<&str>(&STRINGS)),
            _ => text.push_str(random.pick::<&str>(&OTHERS)),
        }
        space(random, text);
    }

    fn mutate(random: &mut Random, body: &mut Vec<u8>) {
        const BYTES: &[u8] = b"[]{}[]{},,:\"\"\\ \n1a\x80\0";
        let at = random.below(body.len() as u64 + 1) as usize;
        match random.below(4) {
            0 if at < body.len() => body[at] = *random.pick(BYTES),
            1 if at < body.len() => drop(body.remove(at)),
            2 => body.truncate(at),
            _ => body.insert(at, *random.pick(BYTES)),
        }
    }

    #[test]
    fn cuts_as_a_parser_does() {
        const ENDS: [&str; 3] = ["]", "] ", "]\n"];
        let mut random = Random::new(11);
        let (mut arrays, mut broken_items, mut refused) = (0, 0, 0);
        for round in 0..6_000 {
            let mut text = String::new();
            text.push_str(random.pick::<&str>(&SPACES));
            text.push('[');
            for index in 0..random.below(6) {
                text.push_str(if index > 0 { "," } else { "" });
                push_value(&mut random, &mut text, 3);
            }
            text.push_str(random.pick::<&str>(&ENDS));
            let mut body = text.into_bytes();
            for _ in 0..round % 4 {
                mutate(&mut random, &mut body);
            }
            let shown = String::from_utf8_lossy(&body);
            let found = items(Shape::Array, &body);
            assert_eq!(found, model(&body), "{shown}");
            let parsed = serde_json::from_slice::<Value>(&body);
            let is_array = parsed.as_ref().is_ok_and(Value::is_array);
            match &found {
                Ok(found) => {
                    let values = found
                        .iter()
                        .map(|(_, bytes)| serde_json::from_slice::<Value>(bytes));
                    match values.collect::<Result<Vec<_>, _>>() {
                        Ok(values) => assert_eq!(parsed.unwrap(), Value::Array(values), "{shown}"),
                        Err(_) => assert!(!is_array, "{shown}"),
                    }
                    match is_array {
                        true => arrays += 1,
                        false => broken_items += 1,
                    }
                }
                Err(_) => {
                    assert!(!is_array, "{shown}");
                    refused += 1;
                }
            }
        }
        let fewest = [arrays, broken_items, refused].into_iter().min();
        assert!(fewest > Some(500), "{arrays} {broken_items} {refused}");
    }

    #[test]
    fn cuts_reports() {
        let mut random = Random::new(12);
        let mut validator = Validator::new();
        let (mut whole, mut broken) = (0, 0);
        for round in 0..150 {
            let mut generator = Generator::new(round, (round % 20) as usize);
            let reports: Vec<Vec<u8>> = (0..4)
                .map(|_| generator.next_report("a \\ \"b\"]"))
                .collect();
            let reports_as = |separator: &[u8]| reports.join(separator);
            let lines = reports_as(b"\r\n");
            let array = [b"[", &reports_as(b", \n")[..], b"]"].concat();
            for found in [items(Shape::Lines, &lines), items(Shape::Array, &array)] {
                let found = found.unwrap();
                assert!(found.iter().map(|(_, bytes)| bytes).eq(&reports));
            }
            for _ in 0..20 {
                let mut array = array.clone();
                mutate(&mut random, &mut array);
                let found = items_by(Shape::Array, &array, SCAN_BYTES_MAX);
                assert_eq!(found, model(&array));
                let parsed = serde_json::from_slice::<Value>(&array);
                let mut all_pass = |found: Vec<(usize, &[u8])>| {
                    found
                        .iter()
                        .all(|(_, bytes)| validator.check(bytes).is_ok())
                };
                match found.is_ok_and(&mut all_pass) {
                    true => {
                        assert!(parsed.unwrap().is_array());
                        whole += 1;
                    }
                    false => broken += 1,
                }
            }
        }
        assert!(whole > 100 && broken > 100, "{whole} {broken}");
    }

    #[test]
    fn lanes() {
        for byte in 0..=255u8 {
            for other in 0..=255u8 {
                let word = u64::from_le_bytes([other, byte, other, byte, byte, other, 0, 255]);
                let expected = word.to_le_bytes().map(|lane| match lane == byte {
                    true => 0x80,
                    false => 0,
                });
                assert_eq!(lanes_of(word, byte), u64::from_le_bytes(expected));
            }
        }
    }

    #[test]
    fn nothing_is_allocated() {
        let body = format!("[{}{{}}]", "{\"a\":[1,\"b\\\\\"]},".repeat(1000));
        let used = allocation_counter::measure(|| {
            let mut items = Items::new(Shape::Array, body.as_bytes());
            while items.next_item() != Ok(Next::End) {}
        });
        assert_eq!(used.count_total, 0);
    }
}
