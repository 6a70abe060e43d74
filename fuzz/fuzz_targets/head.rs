//! Request heads: how they arrive does not matter, no wait is without end, and what is accepted has one
//! reading.
//!
//! Input: a byte for the split, then what the client sends.

#![no_main]

mod split;

use libfuzzer_sys::fuzz_target;
use netwatch_server::http::body::Framing;
use netwatch_server::http::head::{self, Head, HeadError, HeadScan, Persistence, Version};
use netwatch_server::http::{FIELDS_MAX, HEAD_BYTES_MAX};

fuzz_target!(|input: &[u8]| {
    let [control, bytes @ ..] = input else {
        return;
    };
    let whole = HeadScan::default().find_end(bytes);
    assert_eq!(arrive(*control, bytes), whole);
    match whole {
        Ok(None) => assert!(bytes.len() < HEAD_BYTES_MAX),
        Ok(Some(len)) => {
            assert!(len <= HEAD_BYTES_MAX);
            let bytes = &bytes[..len];
            if let Ok(head) = head::parse(bytes) {
                check(bytes, &head);
            }
        }
        Err(error) => drop(error.to_string()),
    }
    // What it says to bytes that are no head does not matter.
    drop(head::parse(bytes));
});

/// The answer of one scan, asked anew whenever a piece has come, until it has one.
fn arrive(control: u8, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut scan = HeadScan::default();
    let mut len = 0;
    for piece in split::pieces(control, bytes) {
        len += piece.len();
        match scan.find_end(&bytes[..len]) {
            Ok(None) => assert!(len < HEAD_BYTES_MAX),
            answer => return answer,
        }
    }
    Ok(None)
}

/// Wants `head` to be what the strictest of readers makes of the same bytes.
fn check(bytes: &[u8], head: &Head<'_>) {
    let lines = plain_lines(bytes);
    let (request_line, lines) = lines.split_first().expect("a head has a request line");
    let words: Vec<&[u8]> = request_line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        panic!("a request line is three words");
    };
    assert!(is_token(method) && method != b"CONNECT");
    assert!(target.iter().all(u8::is_ascii_graphic) && !target.contains(&b'#'));
    match head.version {
        Version::Http10 => assert_eq!(version, b"HTTP/1.0"),
        Version::Http11 => assert_eq!(version, b"HTTP/1.1"),
    }
    assert!(head.path == "*" && method == b"OPTIONS" || head.path.starts_with('/'));

    assert!(lines.len() <= FIELDS_MAX);
    let fields: Vec<(Vec<u8>, &[u8])> = lines.iter().map(|line| field(line)).collect();
    let values = |name: &[u8]| -> Vec<&[u8]> {
        let same = fields.iter().filter(|(known, _)| known == name);
        same.map(|(_, value)| *value).collect()
    };
    for (name, _) in &fields {
        let found = head.fields(str::from_utf8(name).expect("tokens are ASCII"));
        assert_eq!(found.collect::<Vec<_>>(), values(name));
    }

    let expected = match (
        &values(b"content-length")[..],
        &values(b"transfer-encoding")[..],
    ) {
        ([], []) => Framing::None,
        ([], [coding]) => {
            assert_eq!(coding.to_ascii_lowercase(), b"chunked");
            assert_eq!(head.version, Version::Http11);
            Framing::Chunked
        }
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit));
            let digits = str::from_utf8(length).expect("digits are ASCII");
            Framing::Length(digits.parse().expect("a number that fits"))
        }
        (lengths, codings) => panic!("accepted {lengths:?} with {codings:?}"),
    };
    assert_eq!(head.framing, expected);

    match (&values(b"host")[..], head.version) {
        ([host], _) if target.starts_with(b"/") || target == b"*" => {
            assert_eq!(head.host.map(str::as_bytes), Some(*host));
            assert!(!host.is_empty());
        }
        ([_], _) | ([], Version::Http10) => (),
        (hosts, version) => panic!("accepted {hosts:?} in {version:?}"),
    }

    let connection = values(b"connection").join(&b","[..]).to_ascii_lowercase();
    let has = |option: &[u8]| {
        let mut options = connection.split(|byte| *byte == b',');
        options.any(|found| found.trim_ascii() == option)
    };
    let is_kept = !has(b"close") && (head.version == Version::Http11 || has(b"keep-alive"));
    assert_eq!(head.persistence == Persistence::KeepAlive, is_kept);
}

/// The lines up to the blank one, without the empty ones in front.
fn plain_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(len) = rest.windows(2).position(|two| two == b"\r\n") {
        let line = &rest[..len];
        assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)));
        rest = &rest[len + 2..];
        match (line.is_empty(), lines.is_empty()) {
            (false, _) => lines.push(line),
            (true, true) => (),
            (true, false) => break,
        }
    }
    assert!(rest.is_empty(), "the head ends at its blank line");
    lines
}

/// The name in lower case, and the value without the blanks around it.
fn field(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.expect("a field has a colon"));
    assert!(is_token(name));
    let mut value = &value[1..];
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    (name.to_ascii_lowercase(), value)
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_visible = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !text.is_empty() && text.iter().all(is_visible)
}
