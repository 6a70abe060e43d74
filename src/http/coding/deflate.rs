//! Deflate streams (RFC 1951), and the coding of that name: such a stream in the zlib format (RFC 1950),
//! or bare.
//!
//! ```text
//! Begin ─┬─ could be zlib ─▶ First ─┬─▶ Text ─▶ End
//!        └───── cannot be ──────────┘
//! ```
//!
//! The streams are flate2's to decode, on zlib-rs. Its other decoder in Rust, miniz_oxide, is as fast on
//! reports, but builds the fixed tables anew for each block that uses them: 10 bits of input cost it
//! 5 µs, and zlib-rs 25 ns.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Coding, CodingError, Moved};

/// The decoder of deflate streams.
pub(super) struct Inflate {
    state: Decompress,
}

/// What is in front of a deflate stream, and a checksum behind it.
pub(super) enum Wrapping {
    None,
    Zlib,
}

/// Whether a stream goes on.
pub(super) enum Stream {
    Open,
    /// All that was in it is out.
    Ended,
}

/// The stream does not inflate.
pub(super) struct NotDeflate;

impl Inflate {
    pub(super) fn new() -> Inflate {
        Inflate {
            state: Decompress::new(false),
        }
    }

    /// Forgets the last stream; allocates nothing.
    pub(super) fn begin(&mut self, wrapping: Wrapping) {
        self.state.reset(matches!(wrapping, Wrapping::Zlib));
    }

    /// Inflates some of `input`. Without input, what has been held back.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<(Moved, Stream), NotDeflate> {
        let (taken, made) = (self.state.total_in(), self.state.total_out());
        let status = self.state.decompress(input, out, FlushDecompress::None);
        let moved = Moved {
            taken: (self.state.total_in() - taken) as usize,
            made: (self.state.total_out() - made) as usize,
        };
        match status {
            Ok(Status::StreamEnd) => Ok((moved, Stream::Ended)),
            Ok(_) if moved != Moved::NOTHING || input.is_empty() => Ok((moved, Stream::Open)),
            Ok(_) | Err(_) => Err(NotDeflate),
        }
    }
}

/// The `deflate` coding: zlib, whose checksum flate2 compares, or a bare stream.
pub(super) struct Deflate {
    inflate: Inflate,
    part: Part,
}

enum Part {
    /// Nothing has come.
    Begin,
    /// The first byte, which could begin a zlib header.
    First(u8),
    Text,
    End,
}

impl Deflate {
    pub(super) fn new() -> Deflate {
        Deflate {
            inflate: Inflate::new(),
            part: Part::Begin,
        }
    }

    pub(super) fn reset(&mut self) {
        self.part = Part::Begin;
    }

    /// Whether the body may end here.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.part, Part::End)
    }

    /// Takes some of the part at hand.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Moved, CodingError> {
        match (&self.part, input) {
            (Part::End, [_, ..]) => {
                let coding = Coding::Deflate;
                return Err(CodingError::Trailing { coding });
            }
            (Part::Begin | Part::First(_) | Part::End, []) => {
                return Ok(Moved::NOTHING);
            }
            // RFC 1950 §2.2: method 8, a window of up to 32 KiB. A bare stream that looks like this
            // begins with a stored block whose padding is not zero, which nothing writes.
            (Part::Begin, &[first, ..]) if first & 0x0f == 8 && first >> 4 <= 7 => {
                self.part = Part::First(first);
                return Ok(Moved { taken: 1, made: 0 });
            }
            (Part::Begin, [_, ..]) => {
                self.inflate.begin(Wrapping::None);
                self.part = Part::Text;
            }
            (&Part::First(first), &[second, ..]) => {
                self.inflate
                    .begin(match u16::from_be_bytes([first, second]) % 31 {
                        0 => Wrapping::Zlib,
                        _ => Wrapping::None,
                    });
                // No stream makes output of its first byte.
                self.inflate_some(&[first], out)?;
                self.part = Part::Text;
            }
            (Part::Text, _) => (),
        }
        let (moved, stream) = self.inflate_some(input, out)?;
        if let Stream::Ended = stream {
            self.part = Part::End;
        }
        Ok(moved)
    }

    fn inflate_some(
        &mut self,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<(Moved, Stream), CodingError> {
        let coding = Coding::Deflate;
        let inflated = self.inflate.step(input, out);
        inflated.map_err(|NotDeflate| CodingError::Malformed { coding })
    }
}
