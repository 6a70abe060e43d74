//! Content codings of requests: encoded bytes in, bounded decoded bytes out (RFC 9110 §8.4).
//!
//! ```text
//! content-encoding ──▶ parse ──▶ Coding ──▶ Decoder ──▶ OutputDue   its share of work is done, call again
//!                                 bytes ──▶         ├─▶ More        hand in what comes next
//!                                                   ├─▶ Done        whole as it stands; may go on
//!                                                   └─▶ CodingError
//! body ends ──▶ Decoder::end ──▶ whole, or Truncated
//! ```
//!
//! Owns what the codings mean, and how much work and memory a body may cost. Leaves to others: how
//! the body is framed (`body`), the time between calls (`conn`), the status of a refusal (`api`).
//!
//! - gzip is RFC 1952: several members are one text (§2.2), header fields are skipped, both
//!   checksums and the length are compared. `x-gzip` is the same (RFC 9110 §8.4.1.3).
//! - deflate is the zlib format (RFC 9110 §8.4.1.2, RFC 1950). Some clients send the bare stream
//!   of RFC 1951 under that name; the first two bytes tell them apart.
//! - zstd is RFC 8878: frames, skippable ones among them, are one text. A window beyond
//!   [`WINDOW_BYTES_MAX`] is refused (RFC 9659 §3), and so is a dictionary.
//!
//! Invariants: one call takes at most [`ENCODED_BYTES_MAX`] and gives at most [`DECODE_BYTES_MAX`].
//! A body that is not refused gives no more than `limit` in all, and for any whole
//! [`RATIO_STEP_BYTES`] of it no more than [`RATIO_FREE_BYTES`] and [`RATIO_MAX`] times what was
//! taken. Whether a body is refused does not depend on how it was split on arrival; which of two
//! faults is named may. All sizes are in bytes.
//!
//! Memory: 47 KiB for gzip or deflate. For zstd 94 KiB, and while it decodes the window of the frame
//! and 384 KiB: [`STATE_BYTES_MAX`] at most, [`Decoder::state_bytes`] at any time.

mod deflate;
mod gzip;
mod zstd;

use std::fmt;
use std::mem;

use self::deflate::Deflate;
use self::gzip::Gzip;
use self::zstd::Zstd;

/// The codings that are decoded, for the field that says so (RFC 9110 §12.5.3).
pub const ACCEPT_ENCODING: &str = "gzip, deflate, zstd";

/// One call decodes to at most this many bytes: 0.2 to 0.4 ms of reports, 1.2 ms of what inflates
/// slowest.
pub const DECODE_BYTES_MAX: usize = 256 << 10;

/// One call takes at most this many encoded bytes, since not all of them make output: 530 empty deflate
/// blocks with full Huffman tables, the dearest there are, take some 2.6 ms.
pub const ENCODED_BYTES_MAX: usize = 16 << 10;

/// So much may come out however little went in.
pub const RATIO_FREE_BYTES: usize = 64 << 10;

/// Beyond [`RATIO_FREE_BYTES`] a body decodes to at most this many times its size.
///
/// One report compresses 3 to 12 times, and a batch of unlike ones up to 23. Reports of one client
/// that share most of their samples reach 58 with gzip and 252 with zstd 19, if each brings one new
/// sample in a hundred. This is twice as much. Deflate can reach 1032, a zstd block 32,000: such a
/// body is refused with 622,592 bytes out at most, after 0.1 ms.
pub const RATIO_MAX: usize = 512;

/// A body may take this much without decoding to anything: more than the largest zstd block (RFC 8878
/// §3.1.1.2.4), which decodes as a whole.
pub const PADDING_FREE_BYTES: usize = 256 << 10;

/// Beyond [`PADDING_FREE_BYTES`] a body takes at most this many times what it decodes to. What does not
/// compress takes hardly more than itself; empty blocks and skippable frames make work and nothing else.
pub const PADDING_RATIO_MAX: usize = 2;

/// How often the ratio is looked at, in encoded bytes. At fixed places, so that a split on arrival
/// does not matter.
pub const RATIO_STEP_BYTES: usize = 1 << 10;

/// The largest window of a zstd frame (RFC 9659 §3).
pub const WINDOW_BYTES_MAX: usize = 1 << WINDOW_LOG_MAX;
const WINDOW_LOG_MAX: u32 = 23;

/// What a decoder may hold, beside its output: a zstd window, and half a MiB.
pub const STATE_BYTES_MAX: usize = WINDOW_BYTES_MAX + (512 << 10);

/// Output is made in pieces of at most this size, and of less if `out` has room for less, down to the
/// smaller size.
const PIECE_BYTES: usize = 32 << 10;
const PIECE_BYTES_MIN: usize = 4 << 10;

/// What a larger state took is given back: it holds the window of a body that is gone.
const KEPT_STATE_BYTES_MAX: usize = 4 << 20;

/// What zlib-rs needs: the window, and tables.
const INFLATE_BYTES: usize = 47 << 10;

const _: () = assert!(PIECE_BYTES_MIN <= PIECE_BYTES && PIECE_BYTES <= DECODE_BYTES_MAX);
const _: () = assert!(ENCODED_BYTES_MAX.is_multiple_of(RATIO_STEP_BYTES));

/// How the body of a request is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 alone.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The coding that the values of all Content-Encoding lines name together (RFC 9110 §8.4).
///
/// Each is a list, in which empty elements count for nothing (§5.6.1.2), and `identity` for nothing
/// either.
///
/// # Errors
///
/// A coding that is not known here, or more than one.
pub fn parse<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Coding, CodingError> {
    let elements = values.flat_map(|value| value.split(|&byte| byte == b','));
    let mut found = Coding::Identity;
    for element in elements {
        let coding = match trim_blanks(element).to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            b"zstd" => Coding::Zstd,
            _ => return Err(CodingError::UnknownCoding),
        };
        if found != Coding::Identity {
            return Err(CodingError::UnknownCoding);
        }
        found = coding;
    }
    Ok(found)
}

/// Without the optional whitespace around a list element (RFC 9110 §5.6.3).
fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Decodes one body. Done with after an error, until [`Decoder::reset`].
pub struct Decoder {
    engine: Engine,
    /// Most decoded bytes.
    limit: usize,
    /// Bytes taken.
    encoded: u64,
    /// Bytes given; `decoded <= limit` but for the one that is too many.
    decoded: usize,
    /// Whether the engine filled all the room that it was offered, and may hold more.
    is_full: bool,
}

/// What one call of [`Decoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with; all of them, if `progress` is not
    /// [`Progress::OutputDue`].
    pub consumed: usize,
    /// What is to be done next.
    pub progress: Progress,
}

/// How far a body is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The coding is in the middle of something: more bytes have to come.
    More,
    /// One call may do no more. The next one, after others have had their turn, gets the rest of the
    /// input, even if none is left.
    OutputDue,
    /// The coding is whole if the body ends here. It may go on: with another member or frame, or
    /// anything where there is no coding.
    Done,
}

impl Decoder {
    /// A decoder for a body of at most `limit` decoded bytes.
    pub fn new(coding: Coding, limit: usize) -> Decoder {
        Decoder {
            engine: Engine::new(coding),
            limit,
            encoded: 0,
            decoded: 0,
            is_full: false,
        }
    }

    /// Makes it ready for another body, of the same coding, whatever became of the last one.
    pub fn reset(&mut self, limit: usize) {
        self.engine.reset();
        (self.limit, self.encoded, self.decoded) = (limit, 0, 0);
        self.is_full = false;
    }

    /// What it decodes.
    pub fn coding(&self) -> Coding {
        match self.engine {
            Engine::Identity => Coding::Identity,
            Engine::Gzip(_) => Coding::Gzip,
            Engine::Deflate(_) => Coding::Deflate,
            Engine::Zstd(_) => Coding::Zstd,
        }
    }

    /// Bounds the body; `limit` is of the whole of it.
    fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Memory that it holds now, beside the output; at most [`STATE_BYTES_MAX`].
    pub fn state_bytes(&self) -> usize {
        match &self.engine {
            Engine::Identity => 0,
            Engine::Gzip(_) | Engine::Deflate(_) => INFLATE_BYTES,
            Engine::Zstd(zstd) => zstd.state_bytes(),
        }
    }

    /// Decodes some of `input`, and appends what comes out to `out`.
    ///
    /// # Errors
    ///
    /// The body is refused. What was appended to `out` is then of no use.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, CodingError> {
        // Beyond `filled` there is room that is cleared once and not for each piece.
        let mut filled = out.len();
        let step = self.decode_pieces(input, out, &mut filled);
        out.truncate(filled);
        step
    }

    /// Whether the body is whole, now that it has ended.
    ///
    /// # Errors
    ///
    /// [`CodingError::Truncated`]: bytes are missing at its end, or all of them.
    /// [`CodingError::Ratio`]: its last bytes, fewer than [`RATIO_STEP_BYTES`], gave too much.
    pub fn end(&self) -> Result<(), CodingError> {
        if self.is_full || !self.engine.is_whole() {
            let coding = self.coding();
            return Err(CodingError::Truncated { coding });
        }
        self.check_ratio(self.encoded)
    }

    fn decode_pieces(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        filled: &mut usize,
    ) -> Result<Step, CodingError> {
        let begin = *filled;
        let mut consumed = 0;
        loop {
            let made = *filled - begin;
            if made == DECODE_BYTES_MAX || (consumed == ENCODED_BYTES_MAX && consumed < input.len())
            {
                let progress = Progress::OutputDue;
                return Ok(Step { consumed, progress });
            }
            // What is held back comes out before more goes in, so that the ratio is looked at with
            // everything out that a step can give.
            let step = RATIO_STEP_BYTES - (self.encoded % RATIO_STEP_BYTES as u64) as usize;
            let rest = &input[consumed..input.len().min(ENCODED_BYTES_MAX)];
            let fed = match self.is_full {
                true => &[],
                false => &rest[..rest.len().min(step)],
            };
            if fed.is_empty() && !self.is_full {
                let progress = match self.engine.is_whole() {
                    true => Progress::Done,
                    false => Progress::More,
                };
                return Ok(Step { consumed, progress });
            }
            // One more than the limit shows that there is more than the limit.
            let left = self.limit.saturating_sub(self.decoded).saturating_add(1);
            let most = PIECE_BYTES.min(DECODE_BYTES_MAX - made).min(left);
            let room = make_room(out, *filled, most, left);
            let moved = self.engine.step(fed, &mut out[*filled..*filled + room])?;
            consumed += moved.taken;
            *filled += moved.made;
            self.encoded += moved.taken as u64;
            self.decoded += moved.made;
            self.is_full = moved.made == room;
            self.check_ratio(self.encoded.next_multiple_of(RATIO_STEP_BYTES as u64))?;
            self.check_padding()?;
            if self.decoded > self.limit {
                let limit = self.limit;
                return Err(CodingError::TooLarge { limit });
            }
        }
    }

    /// Whether so many encoded bytes may have given what they have.
    fn check_ratio(&self, encoded: u64) -> Result<(), CodingError> {
        let most =
            (RATIO_FREE_BYTES as u64).saturating_add(encoded.saturating_mul(RATIO_MAX as u64));
        match self.decoded as u64 > most {
            true => Err(CodingError::Ratio),
            false => Ok(()),
        }
    }

    /// Whether so few decoded bytes may have taken what they have; looked at where a step has ended and
    /// everything is out.
    fn check_padding(&self) -> Result<(), CodingError> {
        if self.is_full || !self.encoded.is_multiple_of(RATIO_STEP_BYTES as u64) {
            return Ok(());
        }
        match self.encoded > (PADDING_FREE_BYTES + PADDING_RATIO_MAX * self.decoded) as u64 {
            true => Err(CodingError::Padding),
            false => Ok(()),
        }
    }
}

/// Makes room for `most` bytes behind the first `filled` of `out`, or for what its capacity has, and
/// returns how much. The capacity doubles, but not beyond what `left` more bytes can need.
fn make_room(out: &mut Vec<u8>, filled: usize, most: usize, left: usize) -> usize {
    let mut spare = out.capacity() - filled;
    if spare < most.min(PIECE_BYTES_MIN) {
        let wanted = (2 * out.capacity()).clamp(filled + most, filled.saturating_add(left));
        out.reserve_exact(wanted - out.len());
        spare = out.capacity() - filled;
    }
    let room = most.min(spare);
    if out.len() < filled + room {
        out.resize(filled + room, 0);
    }
    room
}

/// Decoders that a core keeps for its next bodies, one of a coding: decoding allocates nothing but
/// room for the output, once each has been used.
#[derive(Default)]
pub struct Decoders {
    gzip: Option<Decoder>,
    deflate: Option<Decoder>,
    zstd: Option<Decoder>,
}

impl Decoders {
    /// A decoder for one body; see [`Decoder::new`].
    pub fn take(&mut self, coding: Coding, limit: usize) -> Decoder {
        match self.slot(coding).and_then(mem::take) {
            Some(mut decoder) => {
                decoder.set_limit(limit);
                decoder
            }
            None => Decoder::new(coding, limit),
        }
    }

    /// Keeps a decoder that is done with, unless there is one already.
    pub fn keep(&mut self, mut decoder: Decoder) {
        if let Some(slot @ None) = self.slot(decoder.coding()) {
            decoder.reset(0);
            *slot = Some(decoder);
        }
    }

    fn slot(&mut self, coding: Coding) -> Option<&mut Option<Decoder>> {
        match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(&mut self.gzip),
            Coding::Deflate => Some(&mut self.deflate),
            Coding::Zstd => Some(&mut self.zstd),
        }
    }
}

/// Bytes that an engine has taken and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    taken: usize,
    made: usize,
}

impl Moved {
    const NOTHING: Moved = Moved { taken: 0, made: 0 };
}

/// What understands one coding. Given input and room it takes some, makes some, or goes to another part
/// of the body; it may hold back what there is no room for.
enum Engine {
    Identity,
    Gzip(Gzip),
    Deflate(Deflate),
    Zstd(Zstd),
}

impl Engine {
    fn new(coding: Coding) -> Engine {
        match coding {
            Coding::Identity => Engine::Identity,
            Coding::Gzip => Engine::Gzip(Gzip::new()),
            Coding::Deflate => Engine::Deflate(Deflate::new()),
            Coding::Zstd => Engine::Zstd(Zstd::new()),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Identity => (),
            Self::Gzip(gzip) => gzip.reset(),
            Self::Deflate(deflate) => deflate.reset(),
            Self::Zstd(zstd) => zstd.reset(),
        }
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Moved, CodingError> {
        match self {
            Self::Identity => {
                let len = input.len().min(out.len());
                out[..len].copy_from_slice(&input[..len]);
                Ok(Moved {
                    taken: len,
                    made: len,
                })
            }
            Self::Gzip(gzip) => gzip.step(input, out),
            Self::Deflate(deflate) => deflate.step(input, out),
            Self::Zstd(zstd) => zstd.step(input, out),
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip(gzip) => gzip.is_whole(),
            Self::Deflate(deflate) => deflate.is_whole(),
            Self::Zstd(zstd) => zstd.is_whole(),
        }
    }
}

/// Why a coded body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingError {
    /// Content-Encoding names something else, or more than one coding (RFC 9110 §15.5.16).
    UnknownCoding,
    /// The body is not what its coding says; a checksum may be wrong.
    Malformed {
        /// The coding.
        coding: Coding,
    },
    /// Bytes follow that begin nothing.
    Trailing {
        /// The coding.
        coding: Coding,
    },
    /// The body ends too early.
    Truncated {
        /// The coding.
        coding: Coding,
    },
    /// The body decodes to more than `limit` bytes (RFC 9110 §15.5.14).
    TooLarge {
        /// The decoder's limit.
        limit: usize,
    },
    /// The body decodes to more than [`RATIO_MAX`] times its size.
    Ratio,
    /// The body takes more than [`PADDING_RATIO_MAX`] times what it decodes to.
    Padding,
    /// A zstd frame needs a window beyond [`WINDOW_BYTES_MAX`] (RFC 9659 §3).
    Window,
}

impl fmt::Display for CodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCoding => {
                write!(f, "expected one content coding of {ACCEPT_ENCODING}")
            }
            Self::Malformed { coding } => write!(f, "body is not valid {}", coding.name()),
            Self::Trailing { coding } => {
                write!(f, "body goes on after its {} data", coding.name())
            }
            Self::Truncated { coding } => {
                write!(f, "body ends within its {} data", coding.name())
            }
            Self::TooLarge { limit } => write!(f, "decoded body exceeds {limit} bytes"),
            Self::Ratio => write!(f, "body decodes to more than {RATIO_MAX} times its size"),
            Self::Padding => {
                write!(
                    f,
                    "body takes more than {PADDING_RATIO_MAX} times what it decodes to"
                )
            }
            Self::Window => write!(f, "zstd window exceeds {WINDOW_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for CodingError {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ::zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
    use ::zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use flate2::{Compression, Crc, GzBuilder};

    use super::*;
    use crate::report::reports::{Generator, Random};

    const LIMIT: usize = 16 << 20;

    fn gzip(level: u32, text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(level: u32, text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bare(level: u32, text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// One frame of these pieces, each ending in a flush, with these parameters.
    fn zstd_with(parameters: &[CParameter], pieces: &[&[u8]]) -> Vec<u8> {
        let mut context = CCtx::create();
        for &parameter in parameters {
            context.set_parameter(parameter).unwrap();
        }
        let mut encoded = Vec::new();
        let mut compress = |text: &[u8], directive| {
            let mut input = InBuffer::around(text);
            loop {
                encoded.reserve(64 << 10);
                let filled = encoded.len();
                let mut out = OutBuffer::around_pos(&mut encoded, filled);
                let left = context.compress_stream2(&mut out, &mut input, directive);
                if left.unwrap() == 0 {
                    break;
                }
            }
        };
        for piece in pieces {
            compress(piece, ZSTD_EndDirective::ZSTD_e_flush);
        }
        compress(b"", ZSTD_EndDirective::ZSTD_e_end);
        encoded
    }

    fn zstd(level: i32, text: &[u8]) -> Vec<u8> {
        let parameters = [
            CParameter::CompressionLevel(level),
            CParameter::ChecksumFlag(true),
        ];
        zstd_with(&parameters, &[text])
    }

    /// A frame with this descriptor and what follows it.
    fn zstd_frame(descriptor: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x28, 0xb5, 0x2f, 0xfd, descriptor], rest].concat()
    }

    fn lines(samples: usize, bytes: usize) -> Vec<u8> {
        let mut generator = Generator::new(5, samples);
        let mut text = Vec::new();
        while text.len() < bytes {
            text.extend(generator.next_report("9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"));
            text.push(b'\n');
        }
        text
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut random = Random::new(9);
        (0..bytes).map(|_| random.next_u64() as u8).collect()
    }

    /// Decodes pieces as they arrive, as a connection would, and checks what holds of every call.
    fn decode_with<'a>(
        decoder: &mut Decoder,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<u8>, CodingError> {
        let mut out = b"before".to_vec();
        for mut piece in pieces {
            loop {
                let begin = out.len();
                let step = decoder.decode(piece, &mut out)?;
                assert!(step.consumed <= ENCODED_BYTES_MAX, "{step:?}");
                assert!(out.len() - begin <= DECODE_BYTES_MAX, "{step:?}");
                piece = &piece[step.consumed..];
                match step.progress {
                    Progress::OutputDue => {
                        assert!(step.consumed > 0 || out.len() > begin, "no progress");
                    }
                    Progress::More => assert!(decoder.end().is_err()),
                    Progress::Done => assert!(decoder.end() != truncated(decoder.coding())),
                }
                if step.progress != Progress::OutputDue {
                    assert!(piece.is_empty(), "{step:?}");
                    break;
                }
            }
        }
        decoder.end()?;
        Ok(out.split_off(b"before".len()))
    }

    fn truncated(coding: Coding) -> Result<(), CodingError> {
        Err(CodingError::Truncated { coding })
    }

    /// Decodes these bytes whole and in some splits. All have to agree on the text, or in that there is
    /// none.
    #[track_caller]
    fn decode(coding: Coding, limit: usize, bytes: &[u8]) -> Result<Vec<u8>, CodingError> {
        let mut decoder = Decoder::new(coding, limit);
        let whole = decode_with(&mut decoder, [bytes]);
        let mut check = |pieces: &mut dyn Iterator<Item = &[u8]>, what: &dyn Fn() -> String| {
            decoder.reset(limit);
            let split = decode_with(&mut decoder, pieces);
            // No assert_eq: nobody wants to read the texts.
            assert!(split.as_ref().ok() == whole.as_ref().ok(), "{}", what());
        };
        for size in [1 + bytes.len() / 2048, 7 + bytes.len() / 300] {
            check(&mut bytes.chunks(size), &|| format!("pieces of {size}"));
        }
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 24) {
            let (first, second) = bytes.split_at(at);
            check(&mut [first, b"", second].into_iter(), &|| {
                format!("split at {at}")
            });
        }
        whole
    }

    /// Wants this text or this error.
    #[track_caller]
    fn check(coding: Coding, bytes: &[u8], expected: Result<&[u8], &str>) {
        let found = decode(coding, LIMIT, bytes).map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert!(found == expected, "{} bytes, other text", found.len());
            }
            (Err(found), Err(expected)) => assert_eq!(found, expected),
            (found, expected) => panic!(
                "expected {:?} bytes, found {:?}",
                expected.map(<[u8]>::len),
                found.map(|text| text.len())
            ),
        }
    }

    #[test]
    fn codings() {
        #[track_caller]
        fn check(lines: &[&str], expected: Result<Coding, &str>) {
            let found = parse(lines.iter().map(|line| line.as_bytes()));
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_ref().copied().map_err(String::as_str), expected);
        }
        // RFC 9110 §8.4.1
        check(&[], Ok(Coding::Identity));
        check(&["gzip"], Ok(Coding::Gzip));
        check(&["x-gzip"], Ok(Coding::Gzip));
        check(&["deflate"], Ok(Coding::Deflate));
        check(&["zstd"], Ok(Coding::Zstd));
        check(&["GZip"], Ok(Coding::Gzip));
        check(&["X-GZIP"], Ok(Coding::Gzip));
        check(&["ZSTD"], Ok(Coding::Zstd));
        check(&["identity"], Ok(Coding::Identity));
        check(&["identity, gzip"], Ok(Coding::Gzip));
        check(&["gzip", "Identity"], Ok(Coding::Gzip));
        check(&["identity", "identity"], Ok(Coding::Identity));
        // §5.6.1.2
        check(&[""], Ok(Coding::Identity));
        check(&[" \t"], Ok(Coding::Identity));
        check(&[", ,\tgzip ,"], Ok(Coding::Gzip));
        check(&["", "zstd", ""], Ok(Coding::Zstd));
        // §15.5.16
        let unknown = Err("expected one content coding of gzip, deflate, zstd");
        check(&["br"], unknown);
        check(&["gzip, br"], unknown);
        check(&["br", "gzip"], unknown);
        check(&["compress"], unknown);
        check(&["x-zstd"], unknown);
        check(&["gzip, gzip"], unknown);
        check(&["gzip", "gzip"], unknown);
        check(&["gzip", "x-gzip"], unknown);
        check(&["deflate, zstd"], unknown);
        check(&["gzip;q=1"], unknown);
        check(&["gzip gzip"], unknown);
        check(&["\"gzip\""], unknown);
        check(&["gzi"], unknown);
        check(&["gzip\0"], unknown);
        check(&["*"], unknown);
        check(&["aws-chunked"], unknown);
        let names: Vec<&[u8]> = ACCEPT_ENCODING.split(", ").map(str::as_bytes).collect();
        for name in names {
            let coding = parse([name].into_iter()).unwrap();
            assert_eq!(coding.name().as_bytes(), name);
        }
    }

    #[test]
    fn errors() {
        #[track_caller]
        fn check(error: CodingError, text: &str) {
            assert_eq!(error.to_string(), text);
        }
        let coding = Coding::Gzip;
        check(CodingError::Malformed { coding }, "body is not valid gzip");
        check(
            CodingError::Trailing { coding },
            "body goes on after its gzip data",
        );
        check(
            CodingError::Truncated { coding },
            "body ends within its gzip data",
        );
        check(
            CodingError::TooLarge { limit: 5 },
            "decoded body exceeds 5 bytes",
        );
        check(
            CodingError::Ratio,
            "body decodes to more than 512 times its size",
        );
        check(CodingError::Window, "zstd window exceeds 8388608 bytes");
    }

    #[test]
    fn all_levels_round_trip() {
        let texts = [
            Vec::new(),
            b"a".to_vec(),
            lines(1, 1),
            lines(20, 1),
            lines(100, 1),
            lines(3, 40_000),
            noise(20_000),
            vec![b' '; 60_000],
        ];
        for text in &texts {
            let text = text.as_slice();
            for level in 0..=9 {
                check(Coding::Gzip, &gzip(level, text), Ok(text));
                check(Coding::Deflate, &zlib(level, text), Ok(text));
                check(Coding::Deflate, &bare(level, text), Ok(text));
            }
            for level in [-7, -1, 1, 2, 3, 4, 5, 6, 9, 12, 15, 19] {
                check(Coding::Zstd, &zstd(level, text), Ok(text));
            }
            check(Coding::Identity, text, Ok(text));
        }
    }

    #[test]
    fn gzip_headers() {
        let text = b"{\"a\":1}";
        let builder = || {
            GzBuilder::new()
                .filename("report.json")
                .comment("a comment")
                .extra("extra\0")
                .mtime(7)
                .operating_system(3)
        };
        let mut encoder = builder().write(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        let all_fields = encoder.finish().unwrap();
        check(Coding::Gzip, &all_fields, Ok(text));

        // RFC 1952 §2.3.1, by hand.
        let member = |flags: u8, fields: &[u8]| {
            let fixed = [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 255];
            [&fixed, fields, &gzip(6, text)[10..]].concat()
        };
        let with_crc = |flags: u8, fields: &[u8], wrong: u8| {
            let mut crc = Crc::new();
            crc.update(&member(flags, fields)[..10 + fields.len()]);
            let crc = crc.sum().to_le_bytes();
            member(flags, &[fields, &[crc[0] ^ wrong, crc[1]]].concat())
        };
        let malformed = Err("body is not valid gzip");
        check(Coding::Gzip, &member(0, b""), Ok(text));
        check(Coding::Gzip, &member(1, b""), Ok(text));
        check(Coding::Gzip, &member(8, b"name\0"), Ok(text));
        check(Coding::Gzip, &member(8, b"\0"), Ok(text));
        check(Coding::Gzip, &member(16, b"comment\0"), Ok(text));
        check(Coding::Gzip, &member(24, b"name\0comment\0"), Ok(text));
        check(Coding::Gzip, &member(24, b"\0\0"), Ok(text));
        check(Coding::Gzip, &member(4, b"\0\0"), Ok(text));
        check(Coding::Gzip, &member(4, b"\x03\0abc"), Ok(text));
        check(Coding::Gzip, &member(12, b"\x01\0\0\0"), Ok(text));
        let long = [&b"\xff\xff"[..], &[b'x'; 65_535], &[b'n'; 5_000], b"\0"].concat();
        check(Coding::Gzip, &member(12, &long), Ok(text));
        check(Coding::Gzip, &with_crc(2, b"", 0), Ok(text));
        check(Coding::Gzip, &with_crc(31, b"\x01\0en\0c\0", 0), Ok(text));
        check(
            Coding::Gzip,
            &with_crc(10, &[&[b'n'; 5000][..], b"\0"].concat(), 0),
            Ok(text),
        );
        check(Coding::Gzip, &with_crc(2, b"", 1), malformed);
        check(
            Coding::Gzip,
            &with_crc(31, b"\x01\0en\0c\0", 128),
            malformed,
        );
        for reserved in [32, 64, 128] {
            check(Coding::Gzip, &member(reserved, b""), malformed);
        }
        let mut other_method = member(0, b"");
        other_method[2] = 7;
        check(Coding::Gzip, &other_method, malformed);
    }

    #[test]
    fn gzip_members() {
        // RFC 1952 §2.2
        let (one, two) = (lines(1, 1), lines(20, 30_000));
        let both = [gzip(6, &one), gzip(1, &two)].concat();
        check(Coding::Gzip, &both, Ok(&[one.clone(), two].concat()));
        let many = gzip(6, b"ab").repeat(3000);
        check(Coding::Gzip, &many, Ok(&b"ab".repeat(3000)));
        let empty = gzip(6, b"").repeat(2000);
        check(Coding::Gzip, &empty, Ok(b""));
        let one = gzip(6, &one);
        let trailing = Err("body goes on after its gzip data");
        check(Coding::Gzip, &[&one[..], b"\0"].concat(), trailing);
        check(Coding::Gzip, &[&one[..], b"\n"].concat(), trailing);
        check(Coding::Gzip, &[&one[..], &[0; 512]].concat(), trailing);
        check(Coding::Gzip, &[&one[..], b"\x1f\x8c"].concat(), trailing);
        check(
            Coding::Gzip,
            &[&one[..], b"POST / HTTP/1.1\r\n"].concat(),
            trailing,
        );
        check(Coding::Gzip, &[&one[..], &zlib(6, b"a")].concat(), trailing);
        let within = Err("body ends within its gzip data");
        check(Coding::Gzip, &[&one[..], b"\x1f"].concat(), within);
        check(
            Coding::Gzip,
            &[&one[..], b"\x1f\x8b\x08\0\0"].concat(),
            within,
        );
        let malformed = Err("body is not valid gzip");
        check(Coding::Gzip, b"\0", malformed);
        check(Coding::Gzip, b"{\"clientId\":\"a\"}", malformed);
        check(Coding::Gzip, &zlib(6, b"a"), malformed);
        check(Coding::Gzip, &zstd(1, b"a"), malformed);
        check(Coding::Gzip, b"", within);
        // Checksum and length (§2.3.1).
        for at in 1..=8 {
            let mut wrong = one.clone();
            let len = wrong.len();
            wrong[len - at] ^= 1;
            check(Coding::Gzip, &wrong, malformed);
            wrong.extend(gzip(6, b"more"));
            check(Coding::Gzip, &wrong, malformed);
        }
    }

    #[test]
    fn deflate_of_two_kinds() {
        let text = lines(20, 1);
        check(Coding::Deflate, &zlib(6, &text), Ok(&text));
        check(Coding::Deflate, &bare(6, &text), Ok(&text));
        // RFC 1951 §3.2.4, and the shortest streams.
        check(Coding::Deflate, b"\x01\0\0\xff\xff", Ok(b""));
        check(Coding::Deflate, b"\x01\x02\0\xfd\xffab", Ok(b"ab"));
        check(Coding::Deflate, b"\x03\0", Ok(b""));
        check(Coding::Deflate, b"\x78\x9c\x03\0\0\0\0\x01", Ok(b""));
        check(Coding::Deflate, b"\x08\x1d\x03\0\0\0\0\x01", Ok(b""));
        let malformed = Err("body is not valid deflate");
        // No zlib header: its check is wrong, or its window. Then it is no bare stream either.
        check(Coding::Deflate, b"\x78\x9d\x03\0\0\0\0\x01", malformed);
        check(Coding::Deflate, b"\x88\x1c\x03\0\0\0\0\x01", malformed);
        // A preset dictionary (RFC 1950 §2.2).
        check(
            Coding::Deflate,
            b"\x78\xbb\0\0\0\x01\x03\0\0\0\0\x01",
            malformed,
        );
        // Adler-32.
        check(Coding::Deflate, b"\x78\x9c\x03\0\0\0\0\x02", malformed);
        check(Coding::Deflate, b"\x07", malformed);
        check(Coding::Deflate, b"{\"clientId\":\"a\"}", malformed);
        check(Coding::Deflate, &gzip(6, &text), malformed);
        check(Coding::Deflate, &zstd(1, &text), malformed);
        let trailing = Err("body goes on after its deflate data");
        check(
            Coding::Deflate,
            &[&zlib(6, &text)[..], b"\n"].concat(),
            trailing,
        );
        check(
            Coding::Deflate,
            &[&bare(6, &text)[..], b"\0"].concat(),
            trailing,
        );
        check(Coding::Deflate, &bare(6, &text).repeat(2), trailing);
        check(Coding::Deflate, &zlib(6, &text).repeat(2), trailing);
        let within = Err("body ends within its deflate data");
        check(Coding::Deflate, b"", within);
        check(Coding::Deflate, b"\x78", within);
        check(Coding::Deflate, b"\x78\x9c", within);
        check(Coding::Deflate, b"\x03", within);
    }

    #[test]
    fn zstd_frames() {
        let (one, two) = (lines(1, 1), lines(20, 300_000));
        let both = [zstd(1, &one), zstd(19, &two)].concat();
        check(Coding::Zstd, &both, Ok(&[one.clone(), two].concat()));
        check(Coding::Zstd, &zstd(1, b"").repeat(1000), Ok(b""));
        let pieces: Vec<&[u8]> = one.chunks(100).collect();
        check(Coding::Zstd, &zstd_with(&[], &pieces), Ok(&one));
        // RFC 8878 §3.1.1: no window, blocks of all kinds.
        check(
            Coding::Zstd,
            &zstd_frame(0x20, b"\x02\x11\0\0ab"),
            Ok(b"ab"),
        );
        check(Coding::Zstd, &zstd_frame(0x20, b"\x02\x13\0\0a"), Ok(b"aa"));
        check(
            Coding::Zstd,
            &zstd_frame(0, b"\0\x10\0\0ab\x13\0\0a"),
            Ok(b"abaa"),
        );
        // §3.1.2
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
        let plain = zstd(3, &one);
        let skipped = [skippable, &plain[..], skippable, &plain, skippable].concat();
        check(Coding::Zstd, &skipped, Ok(&one.repeat(2)));
        check(Coding::Zstd, skippable, Ok(b""));

        let trailing = Err("body goes on after its zstd data");
        check(Coding::Zstd, &[&plain[..], b"\0"].concat(), trailing);
        check(Coding::Zstd, &[&plain[..], b"\n"].concat(), trailing);
        check(
            Coding::Zstd,
            &[&plain[..], b"{\"clientId\":1}"].concat(),
            trailing,
        );
        let within = Err("body ends within its zstd data");
        check(Coding::Zstd, b"", within);
        check(
            Coding::Zstd,
            &[&plain[..], b"\x28\xb5\x2f"].concat(),
            within,
        );
        check(Coding::Zstd, &[&plain[..], b"\x50"].concat(), within);
        check(Coding::Zstd, &skippable[..10], within);
        let malformed = Err("body is not valid zstd");
        check(Coding::Zstd, b"\0", malformed);
        check(Coding::Zstd, b"{\"clientId\":\"a\"}", malformed);
        check(Coding::Zstd, &gzip(6, &one), malformed);
        // A reserved bit, a reserved block type, a block beyond 128 KiB, a content size that is not.
        check(
            Coding::Zstd,
            &zstd_frame(0x28, b"\x02\x11\0\0ab"),
            malformed,
        );
        check(
            Coding::Zstd,
            &zstd_frame(0x20, b"\x02\x17\0\0ab"),
            malformed,
        );
        check(Coding::Zstd, &zstd_frame(0, b"\x58\x0b\0\x10a"), malformed);
        check(
            Coding::Zstd,
            &zstd_frame(0x20, b"\x03\x11\0\0ab"),
            malformed,
        );
        // Frames of zstd 0.7 and before.
        check(Coding::Zstd, b"\x27\xb5\x2f\xfd\0\0\0\0\0\0", malformed);
        // A dictionary (§3.1.1.1.3): its number, and no number for none.
        check(
            Coding::Zstd,
            &zstd_frame(0x21, b"\x07\x02\x11\0\0ab"),
            malformed,
        );
        check(
            Coding::Zstd,
            &zstd_frame(0x21, b"\0\x02\x11\0\0ab"),
            Ok(b"ab"),
        );
        // The content checksum.
        let mut wrong = plain.clone();
        let len = wrong.len();
        wrong[len - 1] ^= 1;
        check(Coding::Zstd, &wrong, malformed);
    }

    #[test]
    fn zstd_windows() {
        // RFC 9659 §3
        let window = |log: u32| {
            let parameters = [CParameter::WindowLog(log)];
            zstd_with(&parameters, &[b"{\"a\"", b":1}"])
        };
        for log in [10, 19, 22, 23] {
            check(Coding::Zstd, &window(log), Ok(b"{\"a\":1}"));
        }
        let too_large = Err("zstd window exceeds 8388608 bytes");
        for log in [24, 27] {
            check(Coding::Zstd, &window(log), too_large);
        }
        // 8 MiB and an eighth; the largest there is; without a window, as long as the content.
        check(Coding::Zstd, &zstd_frame(0, b"\x69\x03\0\0"), too_large);
        check(Coding::Zstd, &zstd_frame(0, b"\xff\x03\0\0"), too_large);
        check(
            Coding::Zstd,
            &zstd_frame(0xa0, b"\0\0\x80\0\x0b\0\0a"),
            Err("body is not valid zstd"),
        );
        check(
            Coding::Zstd,
            &zstd_frame(0xa0, b"\x01\0\x80\0\x01\0\0"),
            too_large,
        );
        check(
            Coding::Zstd,
            &zstd_frame(0xe0, b"\xff\xff\xff\xff\xff\xff\xff\x7f\x01\0\0"),
            too_large,
        );
    }

    #[test]
    fn a_zstd_frame_that_is_all_there_is_read_as_any_other() {
        let malformed = Err("body is not valid zstd");
        // A window of 1 KiB, a content of 5000 bytes, and one block that repeats a byte so often.
        let long_run = zstd_frame(0x40, b"\0\x88\x12\x43\x9c\0a");
        check(Coding::Zstd, &long_run, malformed);
        // The number of a dictionary, which spells the beginning of a frame that is whole.
        let inner = zstd_frame(0x20, b"\x01\x09\0\0a");
        check(Coding::Zstd, &inner, Ok(b"a"));
        check(Coding::Zstd, &zstd_frame(0x23, &inner), malformed);
    }

    #[test]
    fn a_body_cut_short() {
        let text = lines(1, 1);
        let short = b"{\"a\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}".as_slice();
        let two_members = [gzip(6, short), gzip(0, short)].concat();
        let two_frames = [zstd(1, short), zstd(19, short)].concat();
        let bodies = [
            (Coding::Gzip, gzip(6, &text), vec![]),
            (Coding::Gzip, gzip(0, &text), vec![]),
            (Coding::Gzip, two_members, vec![gzip(6, short).len()]),
            (Coding::Deflate, zlib(6, &text), vec![]),
            (Coding::Deflate, bare(6, &text), vec![]),
            (Coding::Deflate, bare(0, &text), vec![]),
            (Coding::Zstd, zstd(1, &text), vec![]),
            (Coding::Zstd, zstd(19, &noise(3000)), vec![]),
            (Coding::Zstd, two_frames, vec![zstd(1, short).len()]),
        ];
        for (coding, body, ends) in bodies {
            let mut decoder = Decoder::new(coding, LIMIT);
            for len in 0..body.len() {
                decoder.reset(LIMIT);
                let found = decode_with(&mut decoder, [&body[..len]]);
                match ends.contains(&len) {
                    true => assert_eq!(found.as_deref(), Ok(short)),
                    false => assert_eq!(found, Err(CodingError::Truncated { coding }), "{len}"),
                }
            }
        }
    }

    #[test]
    fn every_bit_flipped() {
        let text = lines(1, 1);
        let bodies = [
            (Coding::Gzip, gzip(6, &text)),
            (Coding::Deflate, zlib(6, &text)),
            (Coding::Deflate, bare(6, &text)),
            (Coding::Zstd, zstd(3, &text)),
        ];
        for (coding, body) in bodies {
            let has_checksum = body != bare(6, &text);
            let mut decoder = Decoder::new(coding, LIMIT);
            for bit in 0..8 * body.len() {
                let mut flipped = body.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                decoder.reset(LIMIT);
                let found = decode_with(&mut decoder, [&flipped[..]]);
                // Some bits mean nothing, like a gzip header's time.
                if has_checksum && let Ok(found) = found {
                    assert!(found == text, "bit {bit} of {coding:?}");
                }
            }
            decoder.reset(LIMIT);
            assert!(decode_with(&mut decoder, [&body[..]]).unwrap() == text);
        }
    }

    #[test]
    fn damaged_bodies() {
        let mut random = Random::new(3);
        let texts = [lines(1, 4000), noise(700), vec![b'a'; 70_000]];
        let (mut whole, mut refused) = (0, 0);
        for round in 0..600 {
            let text = random.pick(&texts);
            let level = random.below(10) as u32;
            let (coding, mut body) = match round % 4 {
                0 => (Coding::Gzip, gzip(level, text)),
                1 => (Coding::Deflate, zlib(level, text)),
                2 => (Coding::Deflate, bare(level, text)),
                _ => (Coding::Zstd, zstd(level as i32, text)),
            };
            for _ in 0..1 + random.below(4) {
                let at = random.below(body.len() as u64) as usize;
                match random.below(5) {
                    0 => body[at] = random.next_u64() as u8,
                    1 if body.len() > 1 => drop(body.remove(at)),
                    2 => body.insert(at, random.next_u64() as u8),
                    3 => body.extend_from_within(at..),
                    _ => body.truncate(at + 1),
                }
            }
            let limit = [1000, 100_000, LIMIT][random.below(3) as usize];
            match decode(coding, limit, &body) {
                Ok(_) => whole += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(whole > 5 && refused > 300, "{whole} {refused}");
    }

    #[test]
    fn the_limit_is_of_decoded_bytes() {
        let text = lines(3, 40_000);
        let bodies = [
            (Coding::Identity, text.clone()),
            (Coding::Gzip, gzip(6, &text)),
            (
                Coding::Gzip,
                [gzip(6, &text[..100]), gzip(6, &text[100..])].concat(),
            ),
            (Coding::Deflate, zlib(6, &text)),
            (Coding::Deflate, bare(0, &text)),
            (Coding::Zstd, zstd(1, &text)),
        ];
        for (coding, body) in bodies {
            for limit in [text.len(), text.len() + 1, LIMIT, usize::MAX] {
                assert!(decode(coding, limit, &body).unwrap() == text);
            }
            for limit in [0, 1, 99, 100, 32_768, text.len() - 1] {
                let error = CodingError::TooLarge { limit };
                assert_eq!(decode(coding, limit, &body), Err(error));
            }
            let mut decoder = Decoder::new(coding, 1);
            let mut out = Vec::new();
            let error = CodingError::TooLarge { limit: 1 };
            assert_eq!(decoder.decode(&body, &mut out), Err(error));
            assert!(
                out.len() <= 2,
                "no more comes out than shows that it is too much"
            );
        }
        // Lowered under way.
        let mut decoder = Decoder::new(Coding::Gzip, 1 << 20);
        let mut out = Vec::new();
        let body = gzip(6, &text);
        let step = decoder.decode(&body[..100], &mut out).unwrap();
        assert_eq!(step.progress, Progress::More);
        decoder.set_limit(text.len() - 1);
        let limit = text.len() - 1;
        assert_eq!(
            decoder.decode(&body[100..], &mut out),
            Err(CodingError::TooLarge { limit })
        );
    }

    /// A bare stream of `blocks` blocks, 12 bytes each with tables of their own, and no output.
    fn empty_blocks(blocks: usize) -> Vec<u8> {
        let mut bits: Vec<u8> = Vec::new();
        let mut put =
            |value: u32, count: u32| bits.extend((0..count).map(|i| (value >> i) as u8 & 1));
        for _ in 0..blocks {
            // RFC 1951 §3.2.7: lengths 1 for the end of the block and one distance, as runs of zeros.
            put(0b100, 3);
            put(0, 10);
            put(14, 4);
            (0..18).for_each(|index| put(u32::from(index == 2 || index == 17), 3));
            for zeros in [138, 118] {
                put(1, 1);
                put(zeros - 11, 7);
            }
            put(0, 3);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | bit))
            .collect()
    }

    /// Gives a body to a decoder as a whole and wants this error, soon.
    #[track_caller]
    fn check_refused(coding: Coding, body: &[u8], expected: CodingError, decoded_max: usize) {
        let mut decoder = Decoder::new(coding, LIMIT);
        let mut out = Vec::new();
        let mut at = 0;
        let mut found = Ok(());
        let used = allocation_counter::measure(|| {
            found = loop {
                match decoder.decode(&body[at..], &mut out) {
                    Ok(step) => at += step.consumed,
                    Err(error) => break Err(error),
                }
            };
        });
        assert_eq!(found, Err(expected));
        assert!(out.len() <= decoded_max, "{} bytes came out", out.len());
        assert!(used.bytes_max <= 3 * decoded_max as u64, "{used:?}");
        assert_eq!(decode(coding, LIMIT, body).unwrap_err(), expected);
    }

    #[test]
    fn bombs() {
        // 1 GiB of zeros: 1 MiB of deflate, 64 times a piece that ends in a flush, and 64 zstd frames.
        let zeros = vec![0; 16 << 20];
        let at_most = RATIO_FREE_BYTES + RATIO_MAX * RATIO_STEP_BYTES + PIECE_BYTES;
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        let bomb = encoder.get_ref().repeat(64);
        assert!((1 << 19..1 << 21).contains(&bomb.len()), "{}", bomb.len());
        check_refused(Coding::Deflate, &bomb, CodingError::Ratio, at_most);
        let bomb = [&gzip(9, b"")[..10], &bomb].concat();
        check_refused(Coding::Gzip, &bomb, CodingError::Ratio, at_most);
        let bomb = zstd(19, &zeros).repeat(64);
        check_refused(Coding::Zstd, &bomb, CodingError::Ratio, at_most);
        // 1 MiB of blocks of one byte repeated: 32 GiB.
        let runs = b"\x02\0\x10a".repeat(1 << 18);
        check_refused(
            Coding::Zstd,
            &zstd_frame(0, &[b"\x58", &runs[..]].concat()),
            CodingError::Ratio,
            at_most,
        );
        // As many members and frames of 60 KiB.
        let small = &zeros[..60 << 10];
        check_refused(
            Coding::Gzip,
            &gzip(9, small).repeat(5000),
            CodingError::Ratio,
            at_most,
        );
        check_refused(
            Coding::Zstd,
            &zstd(3, small).repeat(5000),
            CodingError::Ratio,
            at_most,
        );
        // Below the ratio the limit is what ends it.
        let mut text = Vec::new();
        for noise in noise(60_000).chunks(60) {
            text.extend_from_slice(&[b' '; 20_000]);
            text.extend_from_slice(noise);
        }
        assert!(text.len() > LIMIT);
        let limit = LIMIT;
        check_refused(
            Coding::Gzip,
            &gzip(9, &text),
            CodingError::TooLarge { limit },
            LIMIT + 1,
        );
    }

    #[test]
    fn the_ratio() {
        #[track_caller]
        fn check(parts: &[&[u8]], expected: Result<usize, &str>) {
            let found = decode(Coding::Zstd, LIMIT, &parts.concat());
            let found = found.map(|text| text.len());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_ref().copied().map_err(String::as_str), expected);
        }
        // RFC 8878 §3.1.1.2: 6 bytes, and 4 for each 128 KiB of one byte repeated.
        let run = |bytes: usize| {
            let mut blocks = vec![0x58];
            for begin in (0..bytes).step_by(128 << 10) {
                let size = (bytes - begin).min(128 << 10) as u32;
                let is_last = u32::from(begin + size as usize == bytes);
                blocks.extend_from_slice(&(size << 3 | 1 << 1 | is_last).to_le_bytes()[..3]);
                blocks.push(b' ');
            }
            zstd_frame(0, &blocks)
        };
        let skippable = |bytes: usize| {
            let len = (bytes - 8) as u32;
            [
                b"\x50\x2a\x4d\x18",
                &len.to_le_bytes()[..],
                &vec![0; bytes - 8],
            ]
            .concat()
        };
        let ratio = Err("body decodes to more than 512 times its size");
        check(&[&run(RATIO_FREE_BYTES)], Ok(RATIO_FREE_BYTES));
        // A short body is looked at when it ends,
        let most = RATIO_FREE_BYTES + RATIO_MAX * 10;
        check(&[&run(most)], Ok(most));
        check(&[&run(most + 1)], ratio);
        check(&[&run(most + 1), &skippable(8)], Ok(most + 1));
        // and a longer one each KiB: what comes later does not make good for it.
        let most = RATIO_FREE_BYTES + RATIO_MAX * 1024;
        let fill = skippable(1024 - run(most).len());
        check(&[&run(most), &fill], Ok(most));
        check(&[&run(most), &fill, &zstd(1, &noise(9))], Ok(most + 9));
        check(&[&run(most + 1), &fill], ratio);
        check(&[&run(most + 1), &fill, &zstd(1, &noise(9))], ratio);
        check(&[&run(most + 1), &zstd(1, &noise(100_000))], ratio);
        check(&[&zstd(1, &noise(2000)), &run(most + 1)], Ok(most + 2001));
    }

    #[test]
    fn bytes_that_decode_to_nothing() {
        let blocks = |bytes: usize| empty_blocks(bytes / (empty_blocks(1000).len() / 1000));
        let error = decode(
            Coding::Deflate,
            LIMIT,
            &blocks(PADDING_FREE_BYTES + (64 << 10)),
        );
        assert_eq!(error, Err(CodingError::Padding));
        let few = decode(Coding::Deflate, LIMIT, &blocks(PADDING_FREE_BYTES / 2));
        assert_ne!(few, Err(CodingError::Padding));
    }

    #[test]
    fn one_call_does_little() {
        // Zeros inflate from almost nothing, and noise from as much; empty blocks make nothing.
        let body = bare(9, &vec![0; 500_000]);
        let mut decoder = Decoder::new(Coding::Deflate, LIMIT);
        let mut out = Vec::new();
        let first = decoder.decode(&body, &mut out).unwrap();
        assert_eq!(
            (first.progress, out.len()),
            (Progress::OutputDue, DECODE_BYTES_MAX)
        );
        let body = empty_blocks(5000);
        let steps = |body: &[u8], coding| {
            let mut decoder = Decoder::new(coding, LIMIT);
            let mut out = Vec::new();
            let (mut at, mut steps) = (0, 0);
            loop {
                let step = decoder.decode(&body[at..], &mut out).unwrap();
                at += step.consumed;
                steps += 1;
                match step.progress {
                    Progress::OutputDue => assert_eq!(step.consumed, ENCODED_BYTES_MAX),
                    Progress::More | Progress::Done => break (steps, out.len()),
                }
            }
        };
        let expected = body.len().div_ceil(ENCODED_BYTES_MAX);
        assert_eq!(steps(&body, Coding::Deflate), (expected, 0));
        let frames = zstd_frame(0x20, b"\0\x01\0\0").repeat(10_000);
        let expected = frames.len().div_ceil(ENCODED_BYTES_MAX);
        assert_eq!(steps(&frames, Coding::Zstd), (expected, 0));
        let plain = noise(100_000);
        let expected = plain.len().div_ceil(ENCODED_BYTES_MAX);
        assert_eq!(steps(&plain, Coding::Identity), (expected, 100_000));
    }

    #[test]
    fn decoders_are_kept() {
        let text = lines(20, 1);
        let bodies = [
            (Coding::Identity, text.clone()),
            (Coding::Gzip, gzip(6, &text)),
            (Coding::Deflate, zlib(6, &text)),
            (Coding::Deflate, bare(6, &text)),
            (Coding::Zstd, zstd(3, &text)),
        ];
        let mut decoders = Decoders::default();
        let mut out = Vec::new();
        let mut pass = || {
            for (coding, body) in &bodies {
                out.clear();
                let mut decoder = decoders.take(*coding, text.len());
                let step = decoder.decode(body, &mut out).unwrap();
                assert_eq!(step.progress, Progress::Done);
                assert_eq!(decoder.end(), Ok(()));
                assert!(out == text);
                decoders.keep(decoder);
                // An error leaves nothing behind.
                let mut decoder = decoders.take(*coding, LIMIT);
                if *coding != Coding::Identity {
                    assert!(decoder.decode(b"\x07", &mut out).is_err());
                }
                decoders.keep(decoder);
            }
        };
        pass();
        assert_eq!(allocation_counter::measure(pass).count_total, 0);
    }

    #[test]
    fn state_bytes() {
        #[track_caller]
        fn check(coding: Coding, body: &[u8], at_most: usize, kept_at_most: usize) {
            let mut decoder = Decoder::new(coding, LIMIT);
            let mut out = Vec::new();
            decoder.decode(body, &mut out).unwrap();
            assert!(
                decoder.state_bytes() <= at_most,
                "{}",
                decoder.state_bytes()
            );
            decoder.reset(LIMIT);
            assert!(
                decoder.state_bytes() <= kept_at_most,
                "{}",
                decoder.state_bytes()
            );
            assert!(
                decode_with(&mut decoder, [&zstd(1, b"a")[..]]).is_ok() == (coding == Coding::Zstd)
            );
        }
        let new = allocation_counter::measure(|| drop(Decoder::new(Coding::Gzip, LIMIT)));
        assert!(
            new.bytes_max.abs_diff(INFLATE_BYTES as u64) < 1024,
            "{new:?}"
        );
        check(Coding::Gzip, &gzip(6, b"a"), INFLATE_BYTES, INFLATE_BYTES);
        check(
            Coding::Zstd,
            &zstd_frame(0x20, b"\x02\x11\0\0ab"),
            96 << 10,
            96 << 10,
        );
        let window = |log| zstd_with(&[CParameter::WindowLog(log)], &[b"a", b"b"]);
        check(Coding::Zstd, &window(21), 5 << 19, 5 << 19);
        // A window of 8 MiB goes with its body.
        check(Coding::Zstd, &window(23), STATE_BYTES_MAX, 96 << 10);
    }
}
