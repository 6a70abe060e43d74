//! Body framing, and the chunked coding as an explicit state machine (RFC 9112 §6, §7.1).
//!
//! ```text
//!  ┌──────────────── CR LF ─────────────────┐
//!  ▼                                        │
//! Size ──size > 0──▶ Data ──all of it──▶ DataEnd
//!  │
//!  └───size = 0───▶ Trailers ──blank line──▶ Done
//!                    ▲      │
//!                    └─field─┘
//! ```
//!
//! Owns the decoding and its limits. Leaves to others: reading and keeping bytes, deadlines (`conn`);
//! content codings and the meaning of the bytes (`api`, `report`).
//!
//! A line is taken whole or not at all, data in any amount. What is not taken stays with the caller,
//! who hands it in again with more behind it. Trailers are checked as fields are, and dropped: merged
//! into the head they would be a second, later head (RFC 9110 §6.5.1).
//!
//! Invariants: at most `limit` bytes are decoded, and a chunk beyond it is refused before its data;
//! less than [`TRAILER_BYTES_MAX`] bytes are ever waited for at a time.

use std::fmt;

use super::head::{is_token_byte, is_value_byte};
use super::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, FIELDS_MAX,
    TRAILER_BYTES_MAX,
};

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The head announces no body.
    None,
    /// So many bytes follow.
    Length(u64),
    /// Chunks follow, see [`ChunkedDecoder`].
    Chunked,
}

/// Decodes one chunked body. Done with after [`Progress::Done`] or an error.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Most bytes of data.
    limit: u64,
    /// Bytes of data in all chunks announced; `announced <= limit`.
    announced: u64,
    /// Bytes of chunk lines and chunk ends; `overhead <= CHUNK_OVERHEAD_BYTES_MAX + announced`.
    overhead: u64,
    /// `extension_bytes <= CHUNK_EXTENSION_BYTES_MAX`
    extension_bytes: usize,
    /// `trailer_bytes <= TRAILER_BYTES_MAX`
    trailer_bytes: usize,
    /// `trailer_fields <= FIELDS_MAX`
    trailer_fields: usize,
}

/// What comes next in the body.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A line with a chunk's size.
    Size,
    /// `left` bytes of data, `left > 0`.
    Data { left: u64 },
    /// The CR LF behind the data.
    DataEnd,
    /// A trailer field or the blank line.
    Trailers,
    /// The next request.
    Done,
}

/// What one call of [`ChunkedDecoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with; `consumed <= input.len()`. The others belong to the
    /// next call, or behind [`Progress::Done`] to the next request.
    pub consumed: usize,
    /// Is there more to come?
    pub progress: Progress,
}

/// Whether a body is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The body goes on.
    More,
    /// The body has ended, trailers included.
    Done,
}

impl ChunkedDecoder {
    /// A decoder for a body of at most `limit` bytes of data.
    pub fn new(limit: u64) -> ChunkedDecoder {
        ChunkedDecoder {
            state: State::Size,
            limit,
            announced: 0,
            overhead: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
        }
    }

    /// Bounds the body anew, when its first bytes have told what it is.
    ///
    /// # Errors
    ///
    /// More has been announced already.
    pub fn set_limit(&mut self, limit: u64) -> Result<(), BodyError> {
        if self.announced > limit {
            return Err(BodyError::TooLarge { limit });
        }
        self.limit = limit;
        Ok(())
    }

    /// Takes as much of `input` as it can, and appends the data in it to `out`.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, BodyError> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let taken = match self.state {
                State::Size => self.size_line(rest)?,
                State::Data { left } => self.data(rest, left, out),
                State::DataEnd => self.data_end(rest)?,
                State::Trailers => self.trailer_line(rest)?,
                State::Done => {
                    return Ok(Step {
                        consumed,
                        progress: Progress::Done,
                    });
                }
            };
            if taken == 0 {
                return Ok(Step {
                    consumed,
                    progress: Progress::More,
                });
            }
            consumed += taken;
        }
    }

    // The steps below return the bytes they took. 0: the input ends before they could.

    fn size_line(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        let Some((size, line_len)) = chunk_line(rest)? else {
            return Ok(0);
        };
        let line = &rest[..line_len - LINE_END.len()];
        let extension_at = memchr::memchr(b';', line).unwrap_or(line.len());
        self.extension_bytes += line.len() - extension_at;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(BodyError::ExtensionsTooLarge);
        }
        if size > self.limit - self.announced {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        self.announced += size;
        self.overhead += match size {
            0 => line_len,
            _ => line_len + LINE_END.len(),
        } as u64;
        if self.overhead > CHUNK_OVERHEAD_BYTES_MAX.saturating_add(self.announced) {
            return Err(BodyError::Overhead);
        }
        self.state = match size {
            0 => State::Trailers,
            left => State::Data { left },
        };
        Ok(line_len)
    }

    fn data(&mut self, rest: &[u8], left: u64, out: &mut Vec<u8>) -> usize {
        let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        out.extend_from_slice(&rest[..taken]);
        self.state = match left - taken as u64 {
            0 => State::DataEnd,
            left => State::Data { left },
        };
        taken
    }

    fn data_end(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        match rest {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.state = State::Size;
                Ok(LINE_END.len())
            }
            _ => Err(BodyError::DataEnd),
        }
    }

    fn trailer_line(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let window = &rest[..rest.len().min(room)];
        let Some(line) = first_line(window)? else {
            if window.len() == room {
                return Err(BodyError::TrailersTooLarge);
            }
            return Ok(0);
        };
        let line_len = line.len() + LINE_END.len();
        self.trailer_bytes += line_len;
        if line.is_empty() {
            self.state = State::Done;
            return Ok(line_len);
        }
        if self.trailer_fields == FIELDS_MAX {
            return Err(BodyError::TooManyTrailers);
        }
        self.trailer_fields += 1;
        let name_len = line.iter().take_while(|&&byte| is_token_byte(byte)).count();
        match &line[name_len..] {
            [b':', value @ ..] if name_len > 0 && value.iter().all(|&byte| is_value_byte(byte)) => {
                Ok(line_len)
            }
            _ => Err(BodyError::Trailer),
        }
    }
}

const LINE_END: &[u8] = b"\r\n";

/// Reads `chunk-size [chunk-ext] CRLF` (RFC 9112 §7.1): the size, and the bytes the line took.
/// `Ok(None)`: incomplete, and shorter than [`CHUNK_LINE_BYTES_MAX`]. Extensions mean nothing here;
/// only their bytes are checked.
pub fn chunk_line(bytes: &[u8]) -> Result<Option<(u64, usize)>, BodyError> {
    let window = &bytes[..bytes.len().min(CHUNK_LINE_BYTES_MAX)];
    let Some(line) = first_line(window)? else {
        if window.len() == CHUNK_LINE_BYTES_MAX {
            return Err(BodyError::ChunkLineTooLong);
        }
        return Ok(None);
    };
    let digits_len = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, extension) = line.split_at(digits_len);
    // By hand: `from_str_radix` would also take a leading `+`, which the grammar does not. A blank
    // before the `;` is refused: the grammar once allowed it, and parsers disagree (errata 7633).
    let (1..=16, None | Some(b';')) = (digits_len, extension.first()) else {
        return Err(BodyError::ChunkSize);
    };
    if !extension.iter().all(|&byte| is_value_byte(byte)) {
        return Err(BodyError::Extension);
    }
    // 16 digits of 4 bits fill a u64 and cannot exceed it.
    let size = digits.iter().fold(0, |size, &digit| {
        size << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or_default())
    });
    Ok(Some((size, line.len() + LINE_END.len())))
}

/// The line at the start of `bytes`, without its CR LF. `Ok(None)`: its end is not there yet.
fn first_line(bytes: &[u8]) -> Result<Option<&[u8]>, BodyError> {
    let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else {
        return Ok(None);
    };
    match bytes[end..] {
        [b'\r', b'\n', ..] => Ok(Some(&bytes[..end])),
        [b'\r'] => Ok(None),
        _ => Err(BodyError::LineEnd),
    }
}

/// Why a chunked body is refused. Where the next request begins is then unknown: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More than `limit` bytes of data were announced (RFC 9110 §15.5.14).
    TooLarge {
        /// The decoder's limit.
        limit: u64,
    },
    /// A CR or LF alone in a chunk line or a trailer (RFC 9112 §2.2, §7.1).
    LineEnd,
    /// A chunk line does not begin with a size and then end or go on with `;` (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk line exceeds [`CHUNK_LINE_BYTES_MAX`] (RFC 9112 §7.1.1).
    ChunkLineTooLong,
    /// A control character in a chunk extension (RFC 9112 §7.1.1).
    Extension,
    /// The extensions of a body exceed [`CHUNK_EXTENSION_BYTES_MAX`] (RFC 9112 §7.1.1).
    ExtensionsTooLarge,
    /// Something other than CR LF follows the data of a chunk (RFC 9112 §7.1).
    DataEnd,
    /// Framing exceeds the data by more than [`CHUNK_OVERHEAD_BYTES_MAX`].
    Overhead,
    /// A trailer line is no field line (RFC 9112 §5, §7.1.2).
    Trailer,
    /// The trailer section exceeds [`TRAILER_BYTES_MAX`] (RFC 9112 §7.1.2).
    TrailersTooLarge,
    /// More than [`FIELDS_MAX`] trailer fields (RFC 9112 §7.1.2).
    TooManyTrailers,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "body exceeds {limit} bytes"),
            Self::LineEnd => f.write_str("chunk or trailer line does not end in CR LF"),
            Self::ChunkSize => f.write_str("chunk size is not 1 to 16 hexadecimal digits"),
            Self::ChunkLineTooLong => {
                write!(f, "chunk size line exceeds {CHUNK_LINE_BYTES_MAX} bytes")
            }
            Self::Extension => f.write_str("control character in a chunk extension"),
            Self::ExtensionsTooLarge => {
                write!(
                    f,
                    "chunk extensions exceed {CHUNK_EXTENSION_BYTES_MAX} bytes"
                )
            }
            Self::DataEnd => f.write_str("chunk data is not followed by CR LF"),
            Self::Overhead => write!(
                f,
                "chunk framing exceeds the data by more than {CHUNK_OVERHEAD_BYTES_MAX} bytes"
            ),
            Self::Trailer => f.write_str("trailer line is not a field name, a colon and a value"),
            Self::TrailersTooLarge => {
                write!(f, "trailer section exceeds {TRAILER_BYTES_MAX} bytes")
            }
            Self::TooManyTrailers => write!(f, "more than {FIELDS_MAX} trailer fields"),
        }
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_line(bytes: impl AsRef<[u8]>, expected: Result<Option<(u64, usize)>, &str>) {
        let found = chunk_line(bytes.as_ref()).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().copied().map_err(String::as_str), expected);
        if let Ok(Some((_, line_len))) = found {
            for len in 0..line_len {
                assert_eq!(chunk_line(&bytes.as_ref()[..len]), Ok(None));
            }
        }
    }

    #[test]
    fn chunk_lines() {
        // RFC 9112 §7.1: 1*HEXDIG
        check_line("", Ok(None));
        check_line("1", Ok(None));
        check_line("1\r", Ok(None));
        check_line("1\r\n", Ok(Some((1, 3))));
        check_line("0\r\n", Ok(Some((0, 3))));
        check_line("000\r\n", Ok(Some((0, 5))));
        check_line("1A\r\nrest", Ok(Some((26, 4))));
        check_line("fF\r\n\r\n", Ok(Some((255, 4))));
        check_line("ffffffffffffffff\r\n", Ok(Some((u64::MAX, 18))));
        check_line("0000000000000001\r\n", Ok(Some((1, 18))));
        let size = Err("chunk size is not 1 to 16 hexadecimal digits");
        check_line("\r\n", size);
        check_line(";a\r\n", size);
        check_line("+1\r\n", size);
        check_line("-1\r\n", size);
        check_line("0x1\r\n", size);
        check_line("1g\r\n", size);
        check_line("1.0\r\n", size);
        check_line("1_0\r\n", size);
        check_line("10000000000000000\r\n", size);
        check_line("00000000000000001\r\n", size);
        check_line("\u{661}\r\n", size);
        check_line("1\0\r\n", size);
        // Errata 7633: blanks around the size.
        check_line(" 1\r\n", size);
        check_line("1 \r\n", size);
        check_line("1\t\r\n", size);
        check_line("1 A\r\n", size);
        check_line("1 ;a\r\n", size);
        // §7.1.1
        check_line("1;\r\n", Ok(Some((1, 4))));
        check_line("1A;name=value\r\nrest", Ok(Some((26, 15))));
        check_line("1; a = \"b;c\t\\\"d\" ;e\r\n", Ok(Some((1, 21))));
        check_line(b"1;a=\"\x80\xff\"\r\n", Ok(Some((1, 10))));
        check_line("1;a\0\r\n", Err("control character in a chunk extension"));
        check_line("1;\x7f\r\n", Err("control character in a chunk extension"));
        // §2.2
        let line_end = Err("chunk or trailer line does not end in CR LF");
        check_line("1\n", line_end);
        check_line("1\rx", line_end);
        check_line("1\r\r\n", line_end);
        check_line("1;a\nb\r\n", line_end);
        check_line("1;a\rb\r\n", line_end);
        check_line("\n", line_end);
        // The limit of a line.
        let line_with = |len: usize| format!("1;{}\r\n", "a".repeat(len - 4));
        check_line(
            line_with(CHUNK_LINE_BYTES_MAX),
            Ok(Some((1, CHUNK_LINE_BYTES_MAX))),
        );
        let too_long = Err("chunk size line exceeds 256 bytes");
        check_line(line_with(CHUNK_LINE_BYTES_MAX + 1), too_long);
        check_line(line_with(CHUNK_LINE_BYTES_MAX + 2), too_long);
        check_line("1".repeat(CHUNK_LINE_BYTES_MAX - 1), Ok(None));
        check_line("1".repeat(CHUNK_LINE_BYTES_MAX), too_long);
        check_line("1".repeat(1 << 20), too_long);
    }

    /// What became of a body: bytes consumed and progress or the error, and the data so far.
    type Outcome = (Result<(usize, Progress), BodyError>, Vec<u8>);

    /// Decodes these pieces as they arrive, keeping what is left over as a connection would.
    fn decode<'a>(limit: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut decoder = ChunkedDecoder::new(limit);
        let mut waiting = Vec::new();
        let mut out = Vec::new();
        let mut consumed = 0;
        for piece in pieces {
            waiting.extend_from_slice(piece);
            match decoder.decode(&waiting, &mut out) {
                Ok(step) => {
                    consumed += step.consumed;
                    waiting.drain(..step.consumed);
                    if step.progress == Progress::Done {
                        return (Ok((consumed, Progress::Done)), out);
                    }
                }
                Err(error) => return (Err(error), out),
            }
        }
        (Ok((consumed, Progress::More)), out)
    }

    /// Wants the same of these bytes whole, byte by byte and in every two pieces; a long body is cut at
    /// fewer places.
    #[track_caller]
    fn decode_any_split(limit: u64, bytes: &[u8]) -> Outcome {
        let whole = decode(limit, [bytes]);
        let small = 1 + bytes.len() / 1024;
        assert_eq!(
            decode(limit, bytes.chunks(small)),
            whole,
            "pieces of {small}"
        );
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 256) {
            let (first, second) = bytes.split_at(at);
            assert_eq!(decode(limit, [first, second]), whole, "split at {at}");
        }
        whole
    }

    const LIMIT: u64 = 10;

    /// Wants this data, and this number of bytes left over behind the end, or this error.
    #[track_caller]
    fn check(bytes: impl AsRef<[u8]>, expected: Result<(&str, usize), &str>) {
        let bytes = bytes.as_ref();
        let (outcome, data) = decode_any_split(LIMIT, bytes);
        match (outcome, expected) {
            (Ok((consumed, Progress::Done)), Ok((text, left))) => {
                assert_eq!((data, bytes.len() - consumed), (text.into(), left));
                for len in 0..consumed {
                    let (prefix, _) = decode(LIMIT, [&bytes[..len]]);
                    assert!(matches!(prefix, Ok((_, Progress::More))), "prefix of {len}");
                }
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    /// Wants more, with this data so far.
    #[track_caller]
    fn check_more(bytes: &str, expected: &str) {
        let (outcome, data) = decode_any_split(LIMIT, bytes.as_bytes());
        assert!(matches!(outcome, Ok((_, Progress::More))), "{outcome:?}");
        assert_eq!(data, expected.as_bytes());
    }

    #[test]
    fn bodies() {
        // RFC 9112 §7.1
        check("0\r\n\r\n", Ok(("", 0)));
        check("3\r\nabc\r\n0\r\n\r\n", Ok(("abc", 0)));
        check("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Ok(("abcde", 0)));
        check("3\r\n\r\n0\r\n0\r\n\r\n", Ok(("\r\n0", 0)));
        check("A\r\n0123456789\r\n000\r\n\r\n", Ok(("0123456789", 0)));
        check("3;a=b\r\nabc\r\n0;c\r\n\r\n", Ok(("abc", 0)));
        check("3\r\nabc\r\n0\r\n\r\nPOST / HTTP/1.1\r\n", Ok(("abc", 17)));
        check("0\r\n\r\n\n", Ok(("", 1)));
        check_more("", "");
        check_more("3\r\nab", "ab");
        check_more("3\r\nabc", "abc");
        check_more("3\r\nabc\r", "abc");
        check_more("3\r\nabc\r\n", "abc");
        check_more("3\r\nabc\r\n0\r\n", "abc");
        check_more("3\r\nabc\r\n0\r\n\r", "abc");
        check_more("3\r\nabc\r\n0\r\na: b\r\n", "abc");
        // The CR LF behind the data.
        let data_end = Err("chunk data is not followed by CR LF");
        check("3\r\nabcd\r\n0\r\n\r\n", data_end);
        check("3\r\nabc0\r\n\r\n", data_end);
        check("3\r\nabc\n0\r\n\r\n", data_end);
        check("3\r\nabc\r0\r\n\r\n", data_end);
        check("3\r\nab\r\n0\r\n\r\n", data_end);
        // Size lines: an empty one is not a size of 0.
        let size = Err("chunk size is not 1 to 16 hexadecimal digits");
        check("\r\n", size);
        check("3\r\nabc\r\n\r\n", size);
        check("3\r\nabc\r\n;a\r\n\r\n", size);
        check("{\"a\":1}\r\n", size);
        check(
            "3\nabc\r\n0\r\n\r\n",
            Err("chunk or trailer line does not end in CR LF"),
        );
        check(
            "0\r\n\n",
            Err("chunk or trailer line does not end in CR LF"),
        );
        check("0\n\n", Err("chunk or trailer line does not end in CR LF"));
    }

    #[test]
    fn sizes_beyond_the_limit() {
        // RFC 9110 §15.5.14: refused at the announcement.
        let too_large = Err("body exceeds 10 bytes");
        check("B\r\n", too_large);
        check("8\r\n01234567\r\n3\r\n", too_large);
        check("A\r\n0123456789\r\n1\r\n", too_large);
        check("7fffffffffffffff\r\n", too_large);
        check("ffffffffffffffff\r\n", too_large);
        check("1\r\na\r\nffffffffffffffff\r\n", too_large);
        check(
            "8\r\n01234567\r\n2\r\n89\r\n0\r\n\r\n",
            Ok(("0123456789", 0)),
        );
        let all = decode(u64::MAX, [&b"ffffffffffffffff\r\nabc"[..]]);
        assert_eq!(all, (Ok((21, Progress::More)), b"abc".to_vec()));
        assert_eq!(decode(0, [&b"0\r\n\r\n"[..]]).0, Ok((5, Progress::Done)));
        assert_eq!(
            decode(0, [&b"1\r\n"[..]]).0,
            Err(BodyError::TooLarge { limit: 0 })
        );
    }

    #[test]
    fn trailers() {
        // RFC 9112 §7.1.2: checked and dropped.
        check("0\r\na: b\r\n\r\n", Ok(("", 0)));
        check("0\r\na:\r\nb:c\r\n\r\nrest", Ok(("", 4)));
        check("0\r\ncontent-length: 5\r\nhost: a\r\n\r\n", Ok(("", 0)));
        check(b"0\r\na: \t\x80\xff\r\n\r\n", Ok(("", 0)));
        let trailer = Err("trailer line is not a field name, a colon and a value");
        check("0\r\na\r\n\r\n", trailer);
        check("0\r\n: a\r\n\r\n", trailer);
        check("0\r\na : b\r\n\r\n", trailer);
        check("0\r\na: b\r\n c\r\n\r\n", trailer);
        check("0\r\n\ta: b\r\n\r\n", trailer);
        check("0\r\n(a): b\r\n\r\n", trailer);
        check("0\r\na: \0\r\n\r\n", trailer);
        check("0\r\na: b\x7f\r\n\r\n", trailer);
        check("0\r\nGET / HTTP/1.1\r\n", trailer);
        let line_end = Err("chunk or trailer line does not end in CR LF");
        check("0\r\na: b\n\r\n", line_end);
        check("0\r\na: b\rc\r\n\r\n", line_end);
        check("0\r\n\rx", line_end);
        // RFC 9110 §5.4
        let trailers_with = |len: usize| format!("0\r\na: {}\r\n\r\n", "b".repeat(len - 7));
        check(trailers_with(TRAILER_BYTES_MAX), Ok(("", 0)));
        let too_large = Err("trailer section exceeds 16384 bytes");
        check(trailers_with(TRAILER_BYTES_MAX + 1), too_large);
        check(trailers_with(TRAILER_BYTES_MAX + 2), too_large);
        check(trailers_with(TRAILER_BYTES_MAX + 3), too_large);
        check(trailers_with(TRAILER_BYTES_MAX * 2), too_large);
        check(
            format!("0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX)),
            Ok(("", 0)),
        );
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        check(many, Err("more than 64 trailer fields"));
    }

    #[test]
    fn framing_costs() {
        // RFC 9112 §7.1.1: extensions over a whole body.
        let line = format!("1;{}\r\na\r\n", "b".repeat(127));
        let most = line.repeat(CHUNK_EXTENSION_BYTES_MAX / 128);
        check(format!("{most}0\r\n\r\n"), Ok(("aaaaaaaa", 0)));
        check(
            format!("{most}0;\r\n\r\n"),
            Err("chunk extensions exceed 1024 bytes"),
        );

        let body = |chunks: usize| format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(chunks)).into_bytes();
        // 5 bytes of framing and 1 of data each, 3 bytes for the last chunk: 4 * n + 3 <= 16384.
        let (outcome, data) = decode_any_split(1 << 20, &body(4095));
        assert!(matches!(outcome, Ok((_, Progress::Done))), "{outcome:?}");
        assert_eq!(data.len(), 4095);
        let (outcome, _) = decode_any_split(1 << 20, &body(4096));
        let text = "chunk framing exceeds the data by more than 16384 bytes";
        assert_eq!(outcome.map_err(|error| error.to_string()), Err(text.into()));
        let (outcome, data) = decode(1 << 20, [&body(1 << 20)[..]]);
        assert_eq!((outcome, data.len()), (Err(BodyError::Overhead), 4096));

        let fives = format!("{}0\r\n\r\n", "5\r\nabcde\r\n".repeat(100_000));
        let (outcome, data) = decode(1 << 20, [fives.as_bytes()]);
        assert_eq!(outcome, Ok((fives.len(), Progress::Done)));
        assert_eq!(data.len(), 500_000);
    }

    #[test]
    fn nothing_is_taken_behind_the_end() {
        let mut decoder = ChunkedDecoder::new(LIMIT);
        let mut out = Vec::new();
        let done = |consumed| Step {
            consumed,
            progress: Progress::Done,
        };
        assert_eq!(decoder.decode(b"0\r\n\r\n0\r\n", &mut out), Ok(done(5)));
        assert_eq!(decoder.decode(b"0\r\n", &mut out), Ok(done(0)));
    }

    /// What the model makes of a body.
    #[derive(Debug, PartialEq)]
    enum Verdict {
        Done(usize),
        More,
        Refused,
    }

    /// The whole body at once, by splitting text, without state; for bodies far below the limits of
    /// extensions, overhead and trailers.
    fn model(limit: usize, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut data = Vec::new();
        let verdict = model_into(limit, bytes, &mut data).unwrap_or_else(|verdict| verdict);
        (verdict, data)
    }

    fn model_into(limit: usize, bytes: &[u8], data: &mut Vec<u8>) -> Result<Verdict, Verdict> {
        let mut rest = bytes;
        let line = |rest: &mut &[u8]| {
            let ends = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let end = ends.ok_or(Verdict::More)?;
            let (line, behind) = rest.split_at(end);
            *rest = match behind.strip_prefix(b"\r\n") {
                Some(behind) => behind,
                None if behind == b"\r" => return Err(Verdict::More),
                None => return Err(Verdict::Refused),
            };
            match line
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
            {
                true => Err(Verdict::Refused),
                false => Ok(String::from_utf8_lossy(line).into_owned()),
            }
        };
        loop {
            let text = line(&mut rest)?;
            let digits = text.split(';').next().unwrap();
            let is_size = digits.len() <= 16 && digits.chars().all(|c| c.is_ascii_hexdigit());
            let size = match u64::from_str_radix(digits, 16) {
                Ok(size) if is_size => usize::try_from(size).unwrap(),
                _ => return Err(Verdict::Refused),
            };
            if size == 0 {
                break;
            }
            if size > limit - data.len() {
                return Err(Verdict::Refused);
            }
            let (chunk, behind) = rest.split_at(size.min(rest.len()));
            data.extend_from_slice(chunk);
            rest = match behind {
                [] | [b'\r'] => return Err(Verdict::More),
                [b'\r', b'\n', behind @ ..] => behind,
                _ => return Err(Verdict::Refused),
            };
        }
        loop {
            let text = line(&mut rest)?;
            let name = text.split(':').next().unwrap();
            let is_name = !name.is_empty() && !name.contains([' ', '\t', ';', '"', '\u{fffd}']);
            match text.is_empty() {
                true => return Ok(Verdict::Done(bytes.len() - rest.len())),
                false if is_name && text.contains(':') => (),
                false => return Err(Verdict::Refused),
            }
        }
    }

    #[test]
    fn decoder_agrees_with_the_model() {
        const NOISE: &[u8] = b"\r\n\r\n0159afAF;: \t\0\"x\xff";
        let mut random = 1u64;
        let mut below = |bound: usize| {
            // Xorshift: any sequence will do, as long as it is the same each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) as usize % bound
        };
        let mut done = 0;
        for _ in 0..5_000 {
            let mut body = Vec::new();
            for _ in 0..below(5) {
                let size = 1 + below(20);
                let extension = ["", "", ";a", ";a=\"b\""][below(4)];
                body.extend_from_slice(format!("{size:0$X}{extension}\r\n", below(4)).as_bytes());
                body.extend((0..size).map(|_| NOISE[below(NOISE.len())]));
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n");
            body.extend_from_slice(["", "", "a: b\r\n", "a:\r\nb: c\r\n"][below(4)].as_bytes());
            body.extend_from_slice(b"\r\nrest");
            for _ in 0..below(3) {
                let at = below(body.len());
                match below(4) {
                    0 => body[at] = NOISE[below(NOISE.len())],
                    1 => drop(body.remove(at)),
                    2 => body.insert(at, NOISE[below(NOISE.len())]),
                    _ => body.truncate(at + 1),
                }
            }
            let limit = [30, 1000][below(2)];

            let (outcome, data) = decode_any_split(limit as u64, &body);
            let verdict = match outcome {
                Ok((consumed, Progress::Done)) => Verdict::Done(consumed),
                Ok((_, Progress::More)) => Verdict::More,
                Err(_) => Verdict::Refused,
            };
            done += usize::from(matches!(verdict, Verdict::Done(_)));
            let text = String::from_utf8_lossy(&body);
            assert_eq!((verdict, data), model(limit, &body), "{text:?}");
        }
        assert!(done > 1000, "only {done} bodies were good");
    }
}
