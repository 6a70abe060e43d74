//! Chunked bodies: the decoder agrees with a plain model, and how a body arrives does not matter.
//!
//! Input: a byte for the decoder's limit, one for the split, then what the client sends.

#![no_main]

mod split;

use libfuzzer_sys::fuzz_target;
use netwatch_server::http::body::{ChunkedDecoder, Progress};
use netwatch_server::http::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, FIELDS_MAX,
    TRAILER_BYTES_MAX,
};

/// For the most bytes of data.
const LIMITS: [u64; 6] = [1 << 20, 0, 1, 100, 20_000, u64::MAX];

fuzz_target!(|input: &[u8]| {
    let [limit, control, bytes @ ..] = input else {
        return;
    };
    let limit = LIMITS[usize::from(*limit) % LIMITS.len()];
    let whole = decode(limit, [bytes]);
    assert!(decode(limit, split::pieces(*control, bytes)) == whole);
    let (found, data) = whole;
    let found = match found {
        Found::Refused(_) => Verdict::Refused,
        Found::More => Verdict::More,
        Found::Done { len } => Verdict::Done { len },
    };
    let mut expected_data = Vec::new();
    let expected = model(limit, bytes, &mut expected_data);
    assert_eq!(found, expected.unwrap_or_else(|verdict| verdict));
    assert!(data == expected_data);
    assert!(data.len() as u64 <= limit);
});

/// What the decoder makes of a body.
#[derive(Debug, PartialEq)]
enum Found {
    Done { len: usize },
    More,
    Refused(String),
}

/// As a connection does it: what the decoder leaves is handed in again with the next piece.
fn decode<'b>(limit: u64, pieces: impl IntoIterator<Item = &'b [u8]>) -> (Found, Vec<u8>) {
    let mut decoder = ChunkedDecoder::new(limit);
    let (mut waiting, mut data, mut len) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let step = match decoder.decode(&waiting, &mut data) {
            Ok(step) => step,
            Err(error) => return (Found::Refused(error.to_string()), data),
        };
        len += step.consumed;
        waiting.drain(..step.consumed);
        if step.progress == Progress::Done {
            return (Found::Done { len }, data);
        }
        assert!(waiting.len() < TRAILER_BYTES_MAX);
    }
    (Found::More, data)
}

/// What the model makes of a body: the faults are all the same to it.
#[derive(Debug, PartialEq)]
enum Verdict {
    Done { len: usize },
    More,
    Refused,
}

/// RFC 9112 §7.1 with the limits of `http`, on the whole body.
fn model(limit: u64, bytes: &[u8], data: &mut Vec<u8>) -> Result<Verdict, Verdict> {
    let mut rest = bytes;
    let (mut framing, mut extensions, mut announced) = (0u64, 0, 0u64);
    loop {
        let text = line(&mut rest, CHUNK_LINE_BYTES_MAX)?;
        let (digits, extension) = match text.find(';') {
            Some(at) => text.split_at(at),
            None => (&text[..], ""),
        };
        let is_size = (1..=16).contains(&digits.len()) && !digits.contains('+');
        let size = u64::from_str_radix(digits, 16).ok().filter(|_| is_size);
        let size = size.ok_or(Verdict::Refused)?;
        extensions += extension.chars().count();
        framing += text.chars().count() as u64 + if size > 0 { 4 } else { 2 };
        announced = announced.checked_add(size).ok_or(Verdict::Refused)?;
        if extensions > CHUNK_EXTENSION_BYTES_MAX
            || announced > limit
            || framing > CHUNK_OVERHEAD_BYTES_MAX.saturating_add(announced)
        {
            return Err(Verdict::Refused);
        }
        if size == 0 {
            break;
        }
        let len = rest.len().min(usize::try_from(size).expect("64 bits"));
        data.extend_from_slice(&rest[..len]);
        rest = match &rest[len..] {
            [] | [b'\r'] => return Err(Verdict::More),
            [b'\r', b'\n', behind @ ..] => behind,
            _ => return Err(Verdict::Refused),
        };
    }
    let trailers = rest.len();
    for fields in 0.. {
        let room = TRAILER_BYTES_MAX - (trailers - rest.len());
        let text = line(&mut rest, room)?;
        if text.is_empty() {
            break;
        }
        let name = text.split(':').next().unwrap_or_default();
        let is_token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
        let is_field = text.contains(':') && !name.is_empty() && name.chars().all(is_token);
        if !is_field || fields == FIELDS_MAX {
            return Err(Verdict::Refused);
        }
    }
    Ok(Verdict::Done {
        len: bytes.len() - rest.len(),
    })
}

/// Takes a line of at most `most` bytes with its CR LF, a character for each byte.
fn line(rest: &mut &[u8], most: usize) -> Result<String, Verdict> {
    let window = &rest[..rest.len().min(most)];
    let incomplete = match window.len() == most {
        true => Verdict::Refused,
        false => Verdict::More,
    };
    let end = window.iter().position(|byte| b"\r\n".contains(byte));
    let Some(end) = end else {
        return Err(incomplete);
    };
    match &window[end..] {
        [b'\r', b'\n', ..] => (),
        [b'\r'] => return Err(incomplete),
        _ => return Err(Verdict::Refused),
    }
    *rest = &rest[end + 2..];
    let is_bad = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if window[..end].iter().any(is_bad) {
        return Err(Verdict::Refused);
    }
    Ok(window[..end].iter().map(|byte| char::from(*byte)).collect())
}
