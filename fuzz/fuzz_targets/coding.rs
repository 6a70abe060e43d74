//! Content codings: how a body arrives does not matter, what comes out is what flate2 and libzstd make of
//! the whole of it, and limits are kept.
//!
//! Input: a byte for the coding and the limit, one for the split, one for the room, then what the client
//! sends.

#![no_main]

mod split;

use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use libfuzzer_sys::fuzz_target;
use netwatch_server::http::coding::{
    Coding, CodingError, DECODE_BYTES_MAX, Decoder, ENCODED_BYTES_MAX, PADDING_FREE_BYTES,
    Progress, RATIO_FREE_BYTES, RATIO_MAX, STATE_BYTES_MAX, WINDOW_BYTES_MAX,
};
use zstd::bulk::Decompressor;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// For the most decoded bytes.
const LIMITS: [usize; 5] = [1 << 20, 0, 1, 1000, 70_000];

fuzz_target!(|input: &[u8]| {
    let [choice, control, room, bytes @ ..] = input else {
        return;
    };
    let coding = [
        Coding::Gzip,
        Coding::Deflate,
        Coding::Zstd,
        Coding::Identity,
    ];
    let coding = coding[usize::from(choice % 4)];
    let limit = LIMITS[usize::from(choice / 4) % LIMITS.len()];
    let mut decoder = Decoder::new(coding, limit);
    let whole = decode(&mut decoder, limit, 0, [bytes]);
    decoder.reset(limit);
    let room = usize::from(*room) << 8;
    let split = decode(&mut decoder, limit, room, split::pieces(*control, bytes));
    // Which of two faults is named may differ.
    assert!(
        split.as_ref().ok() == whole.as_ref().ok(),
        "{:?} {:?}",
        len(&split),
        len(&whole)
    );

    let mut expected = model(coding, limit, bytes);
    // In a single call libzstd lets blocks beyond the window pass; in a stream, a content size that is wrong
    // if the last block is empty. What an encoder makes it reads in both ways.
    if coding == Coding::Zstd && expected.as_ref() != whole.as_ref().ok() {
        expected = zstd_stream(limit, bytes);
    }
    let is_within = expected.as_ref().is_some_and(|text| text.len() <= limit);
    match whole {
        Ok(text) => {
            assert!(text.len() <= limit);
            assert!(text.len() <= RATIO_FREE_BYTES + RATIO_MAX * bytes.len());
            assert!(expected == Some(text));
        }
        Err(CodingError::Ratio) => {
            assert!(!is_within || expected.is_some_and(|text| text.len() > RATIO_FREE_BYTES));
        }
        Err(CodingError::Padding) => assert!(bytes.len() > PADDING_FREE_BYTES),
        Err(CodingError::Window) => assert_eq!(coding, Coding::Zstd),
        Err(error) => assert!(!is_within, "{error:?}"),
    }
});

fn len(result: &Result<Vec<u8>, CodingError>) -> Result<usize, CodingError> {
    result.as_ref().map(Vec::len).map_err(|error| *error)
}

/// As a connection does it, with `room` in the buffer at first.
fn decode<'b>(
    decoder: &mut Decoder,
    limit: usize,
    room: usize,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Result<Vec<u8>, CodingError> {
    let mut out = Vec::with_capacity(room);
    for mut piece in pieces {
        loop {
            let begin = out.len();
            let step = decoder.decode(piece, &mut out);
            assert!(decoder.state_bytes() <= STATE_BYTES_MAX);
            let step = step?;
            assert!(out.len() <= limit);
            assert!(out.len() - begin <= DECODE_BYTES_MAX);
            assert!(step.consumed <= ENCODED_BYTES_MAX);
            piece = &piece[step.consumed..];
            match step.progress {
                Progress::OutputDue => assert!(step.consumed > 0 || out.len() > begin),
                Progress::More => {
                    assert!(piece.is_empty() && decoder.end().is_err());
                    break;
                }
                Progress::Done => {
                    assert!(piece.is_empty());
                    assert!(matches!(decoder.end(), Ok(()) | Err(CodingError::Ratio)));
                    break;
                }
            }
        }
    }
    decoder.end()?;
    Ok(out)
}

/// The text, or more than `limit` of it; `None`: there is none.
fn model(coding: Coding, limit: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    let most = limit as u64 + 1;
    let mut text = Vec::new();
    match coding {
        Coding::Identity => text.extend_from_slice(bytes),
        Coding::Gzip => {
            let mut decoder = MultiGzDecoder::new(bytes).take(most);
            decoder.read_to_end(&mut text).ok()?;
        }
        Coding::Deflate => {
            let is_zlib = matches!(*bytes, [first, second, ..]
                if first & 0x0f == 8 && first >> 4 <= 7
                    && u16::from_be_bytes([first, second]).is_multiple_of(31));
            let total_in = match is_zlib {
                true => {
                    let mut decoder = ZlibDecoder::new(bytes).take(most);
                    decoder.read_to_end(&mut text).ok()?;
                    decoder.get_ref().total_in()
                }
                false => {
                    let mut decoder = DeflateDecoder::new(bytes).take(most);
                    decoder.read_to_end(&mut text).ok()?;
                    decoder.get_ref().total_in()
                }
            };
            // Bytes behind the stream are refused. A stream that is cut off at the limit has them.
            if text.len() <= limit && total_in < bytes.len() as u64 {
                return None;
            }
        }
        // Nothing at all is no frames to libzstd, and no body here.
        Coding::Zstd if bytes.is_empty() => return None,
        Coding::Zstd => {
            let mut decoder = Decompressor::new().expect("there is memory");
            text = decoder.decompress(bytes, limit + 1).ok()?;
        }
    }
    Some(text)
}

/// What libzstd makes of it byte by byte; like `model`.
fn zstd_stream(limit: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut context = DCtx::create();
    let window_log_max = WINDOW_BYTES_MAX.ilog2();
    let parameter = DParameter::WindowLogMax(window_log_max);
    context.set_parameter(parameter).expect("it is allowed");
    let mut room = vec![0; 64 << 10];
    let mut text = Vec::new();
    let mut hint = 1;
    for byte in bytes.chunks(1) {
        let mut input = InBuffer::around(byte);
        loop {
            let mut out = OutBuffer::around(&mut room[..]);
            hint = context.decompress_stream(&mut out, &mut input).ok()?;
            text.extend_from_slice(out.as_slice());
            if text.len() > limit {
                return Some(text);
            }
            if out.pos() < out.capacity() && input.pos() == 1 {
                break;
            }
        }
    }
    (hint == 0).then_some(text)
}
