//! The sealed segments themselves: a list of them, and the file of one, whole or a range of it.
//!
//! A file never changes and has an entity tag for life (RFC 9110 §8.8.3), so a download goes on where it was cut off:
//! `Range` takes one range of bytes (§14.1.2) from GET, `If-Range` and `If-None-Match` the tag. More than one range is
//! answered with the whole file, as §14.2 allows.

use std::io::{self, Write};

use ::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::Answer;
use super::coded::{Coded, Coding};
use super::exchange::{Exchange, Opening};
use super::read::{Reader, opening};
use crate::api::JSON;
use crate::disk::{Dir, Disk, Fs, block_on};
use crate::http::head::Head;
use crate::http::response::Delivery;
use crate::query::QueryError;
use crate::query::params::Params;
use crate::segment::CHECKSUM_BYTES;
use crate::segment::name::is_segment;
use crate::segment::reader::ReadError;

const ZSTD: &str = "application/zstd";

/// What the paths of files begin with; the rest is a name.
pub(super) const FILES: &str = "/api/v1/segments/";

/// Bytes of a file that are sent at a time.
const COPY_BYTES: usize = 128 << 10;

/// Lists the sealed segments that may hold lines of the times asked for, oldest first.
pub(super) fn list(
    reader: &Reader<'_>,
    head: &Head<'_>,
    exchange: &Exchange<'_>,
) -> Result<(), QueryError> {
    let params = Params::of_query(head.query, &["since", "until"])?;
    let filter = params.filter(reader.now)?;
    let coding = Coding::accepted(head);
    let body = exchange.begin(opening(JSON, coding, Vec::new()));
    if exchange.delivery() == Delivery::FieldsOnly {
        return body.finish().map_err(QueryError::Sink);
    }
    let fs = &reader.store.fs;
    let mut sources = reader.store.sources(&filter)?;
    sources.sort_by_key(|source| source.position.named());
    let mut coded = Coded::new(coding, body);
    let mut separator = "{\"segments\":[";
    for source in sources.iter().filter(|source| source.dir == Dir::Sealed) {
        if exchange.is_gone() {
            return Err(QueryError::Gone);
        }
        let name = source.position.file_name();
        let stat = match fs.stat(Dir::Sealed, &name) {
            // It has been removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            stat => stat.map_err(|error| source.unreadable(ReadError::Io(error)))?,
        };
        let sidecar = reader.store.sidecar(source);
        let times = sidecar.as_ref().and_then(|sidecar| sidecar.received);
        if times.is_some_and(|times| !filter.may_take_times(times)) {
            continue;
        }
        let row = serde_json::json!({
            "name": name,
            "file_bytes": stat.bytes,
            "raw_bytes": sidecar.as_ref().map(|sidecar| sidecar.raw_bytes),
            "lines": sidecar.as_ref().map(|sidecar| sidecar.lines),
            "first": times.map(|(first, _)| first.to_string()),
            "last": times.map(|(_, last)| last.to_string()),
        });
        write!(coded, "{separator}{row}").map_err(QueryError::Sink)?;
        separator = ",";
    }
    let begin = match separator {
        "," => "",
        begin => begin,
    };
    writeln!(coded, "{begin}]}}")
        .and_then(|()| coded.finish()?.finish())
        .map_err(QueryError::Sink)
}

/// The part of a file that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first of these bytes up to the second, that one not included.
    Range(u64, u64),
    /// It has none of those asked for.
    None,
}

/// Sends the file of a sealed segment.
pub(super) fn file(fs: &Fs, head: &Head<'_>, exchange: &Exchange<'_>) -> Result<(), QueryError> {
    let asked = head.path.strip_prefix(FILES).unwrap_or_default();
    let asked = percent_decode_str(asked).decode_utf8_lossy();
    // Of the names that are there, so that none of a request reaches a path.
    let names = fs.files(Dir::Sealed).map_err(|source| QueryError::List {
        path: "the data directory",
        source,
    })?;
    let mut names = names.into_iter().filter(|name| is_segment(name));
    let name = names.find(|name| *name == asked);
    let name = name.ok_or(QueryError::NoSegment)?;
    let unreadable = |source| QueryError::Read {
        path: name.clone(),
        source: ReadError::Io(source),
    };
    let file = match fs.open_for_reading(Dir::Sealed, &name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(QueryError::NoSegment),
        opened => opened.map_err(unreadable)?,
    };
    let len = fs.stat_open(&file).map_err(unreadable)?.bytes;
    let tag = entity_tag(fs, &file, len).map_err(unreadable)?;
    let etag = ("etag", tag.clone());
    let told = |sent: io::Result<()>| sent.map_err(QueryError::Sink);
    if is_listed(head, "if-none-match", &tag) {
        return told(exchange.whole(&Answer {
            status: StatusCode::NOT_MODIFIED,
            content_type: ZSTD,
            body: Vec::new(),
            fields: vec![etag],
        }));
    }
    let is_head = exchange.delivery() == Delivery::FieldsOnly;
    let ranges = ("accept-ranges", "bytes".to_owned());
    let (status, from, to, fields) = match part(head, len, &tag) {
        Part::Range(from, to) if !is_head => {
            let range = format!("bytes {from}-{}/{len}", to - 1);
            let fields = vec![etag, ranges, ("content-range", range)];
            (StatusCode::PARTIAL_CONTENT, from, to, fields)
        }
        Part::None if !is_head => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let message = format!("the file has {len} bytes");
            let mut answer = Answer::refusal(status, "range_not_satisfiable", &message);
            let range = format!("bytes */{len}");
            answer.fields.push(("content-range", range));
            return told(exchange.whole(&answer));
        }
        // RFC 9110 §14.2: to HEAD a range means nothing.
        _ => (StatusCode::OK, 0, len, vec![etag, ranges]),
    };
    let mut body = exchange.begin(Opening {
        status,
        content_type: ZSTD,
        fields,
        len: Some(to - from),
    });
    let mut at = from;
    while at < to && !is_head {
        let count = (to - at).min(COPY_BYTES as u64) as usize;
        let bytes = block_on(fs.read_at(&file, vec![0; count], at)).map_err(unreadable)?;
        if bytes.len() < count {
            return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        body.write_all(&bytes).map_err(QueryError::Sink)?;
        at += count as u64;
    }
    told(body.finish())
}

/// The length, and the checksum that the frame ends with.
fn entity_tag(fs: &Fs, file: &<Fs as Disk>::File, len: u64) -> io::Result<String> {
    let at = len.saturating_sub(CHECKSUM_BYTES as u64);
    let end = block_on(fs.read_at(file, vec![0; CHECKSUM_BYTES], at))?;
    let end: String = end.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("\"{len:x}-{end}\""))
}

/// Whether a field lists this entity tag, or takes any (RFC 9110 §13.1.2).
fn is_listed(head: &Head<'_>, field: &str, tag: &str) -> bool {
    let fields = head.fields(field);
    let fields = fields.map(|field| str::from_utf8(field).unwrap_or_default());
    let mut tags = fields
        .flat_map(|field| field.split(','))
        .map(str::trim_ascii);
    tags.any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
}

fn part(head: &Head<'_>, len: u64, tag: &str) -> Part {
    let text = |name| {
        head.fields(name)
            .map(|field| str::from_utf8(field).unwrap_or_default())
    };
    let mut ranges = text("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Part::Whole;
    };
    // RFC 9110 §13.1.5: of another file the range means nothing.
    if text("if-range").any(|wanted| wanted != tag) {
        return Part::Whole;
    }
    range_of(range, len)
}

/// What a `Range` asks of a file of this length; the whole file, if it is none that is understood.
fn range_of(range: &str, len: u64) -> Part {
    let number = |text: &str| {
        let are_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        // Digits beyond any file's length.
        let number = text.parse().unwrap_or(u64::MAX);
        (are_digits && !text.is_empty()).then_some(number)
    };
    let Some((unit, spec)) = range.split_once('=') else {
        return Part::Whole;
    };
    let Some((first, last)) = spec.trim_ascii().split_once('-') else {
        return Part::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    let (from, to) = match (first, last, number(first), number(last)) {
        ("", _, None, Some(count)) => (len.saturating_sub(count), len),
        (_, "", Some(from), None) => (from, len),
        (_, _, Some(from), Some(last)) if from <= last => (from, len.min(last.saturating_add(1))),
        _ => return Part::Whole,
    };
    match from < to {
        true => Part::Range(from, to),
        false => Part::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        #[track_caller]
        fn check(range: &str, expected: Part) {
            assert_eq!(range_of(range, 100), expected);
        }
        check("bytes=0-0", Part::Range(0, 1));
        check("bytes=10-19", Part::Range(10, 20));
        check("Bytes=10-", Part::Range(10, 100));
        check("bytes=-10", Part::Range(90, 100));
        check("bytes=-1000", Part::Range(0, 100));
        check("bytes=90-1000", Part::Range(90, 100));
        check("bytes=0-18446744073709551615", Part::Range(0, 100));
        check("bytes=100-", Part::None);
        check("bytes=99999999999999999999-", Part::None);
        check("bytes=-0", Part::None);
        for range in [
            "bytes=2-1",
            "bytes=0-1,5-6",
            "bytes=-",
            "bytes=+1-2",
            "lines=1-2",
            "bytes",
            "bytes=a-",
        ] {
            check(range, Part::Whole);
        }
    }

    #[test]
    fn conditions() {
        #[track_caller]
        fn check(fields: &str, expected: Part) {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let head = crate::http::head::parse(request.as_bytes()).unwrap();
            assert_eq!(part(&head, 100, "\"a\""), expected);
        }
        check("", Part::Whole);
        check("Range: bytes=1-2\r\n", Part::Range(1, 3));
        check("Range: bytes=1-2\r\nIf-Range: \"a\"\r\n", Part::Range(1, 3));
        check("Range: bytes=1-2\r\nIf-Range: \"b\"\r\n", Part::Whole);
        check("Range: bytes=1-2\r\nIf-Range: W/\"a\"\r\n", Part::Whole);
        check("Range: bytes=1-2\r\nRange: bytes=3-4\r\n", Part::Whole);
        let listed = |fields: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: {fields}\r\n\r\n");
            let head = crate::http::head::parse(request.as_bytes()).unwrap();
            is_listed(&head, "if-none-match", "\"a\"")
        };
        assert!(listed("\"a\"") && listed("*") && listed("\"b\", W/\"a\""));
        assert!(!listed("\"b\"") && !listed("a"));
    }
}
