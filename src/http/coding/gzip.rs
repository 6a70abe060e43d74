//! The gzip file format: members, each a header, a deflate stream and a trailer (RFC 1952 §2).
//!
//! ```text
//!    ┌──────────────────────────────────────────────────────────────────────────┐
//!    ▼                                                                          │
//! Fixed ─▶ ExtraLen ─▶ Extra ─▶ Name ─▶ Comment ─▶ HeaderCrc ─▶ Text ─▶ Trailer ┘
//!          └───────── those that the flags name ───────────┘
//! ```
//!
//! What a header says is skipped, but for its checksum: neither the name nor the time of a member means
//! anything to a request.

use flate2::Crc;

use super::deflate::{Inflate, NotDeflate, Stream, Wrapping};
use super::{Coding, CodingError, Moved};

/// ID1, ID2 and the only method (RFC 1952 §2.3.1).
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const FIXED_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

const MALFORMED: CodingError = CodingError::Malformed {
    coding: Coding::Gzip,
};

/// The members of one body.
pub(super) struct Gzip {
    inflate: Inflate,
    part: Part,
    /// Of the parts below that are taken whole, what has come.
    held: [u8; FIXED_BYTES],
    /// `held_len < FIXED_BYTES`
    held_len: usize,
    /// The optional parts of the header that are still to come.
    flags: u8,
    header_crc: Crc,
    text_crc: Crc,
    /// Whether a member has ended.
    has_members: bool,
}

enum Part {
    Fixed,
    ExtraLen,
    Extra { left: usize },
    Name,
    Comment,
    HeaderCrc,
    Text,
    Trailer,
}

impl Gzip {
    pub(super) fn new() -> Gzip {
        Gzip {
            inflate: Inflate::new(),
            part: Part::Fixed,
            held: [0; FIXED_BYTES],
            held_len: 0,
            flags: 0,
            header_crc: Crc::new(),
            text_crc: Crc::new(),
            has_members: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.begin_member();
        self.has_members = false;
    }

    /// Whether the body may end here: behind a member.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.part, Part::Fixed) && self.held_len == 0 && self.has_members
    }

    fn begin_member(&mut self) {
        self.part = Part::Fixed;
        self.held_len = 0;
    }

    /// Takes some of the part at hand.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Moved, CodingError> {
        if let Part::Text = self.part {
            let inflated = self.inflate.step(input, out);
            let (moved, stream) = inflated.map_err(|NotDeflate| MALFORMED)?;
            self.text_crc.update(&out[..moved.made]);
            if let Stream::Ended = stream {
                self.part = Part::Trailer;
            }
            return Ok(moved);
        }
        let taken = match self.part {
            Part::Fixed => self.fixed(input)?,
            Part::ExtraLen => self.extra_len(input),
            Part::Extra { left } => self.extra(input, left),
            Part::Name | Part::Comment => self.text_field(input),
            Part::HeaderCrc => self.header_crc(input)?,
            Part::Trailer => self.trailer(input)?,
            Part::Text => unreachable!("taken above"),
        };
        Ok(Moved { taken, made: 0 })
    }

    // The steps below return the bytes they took.

    fn fixed(&mut self, input: &[u8]) -> Result<usize, CodingError> {
        let (taken, fixed) = self.hold::<FIXED_BYTES>(input);
        let magic_len = self.held_len.min(MAGIC.len());
        if fixed.is_none() && self.held[..magic_len] != MAGIC[..magic_len] {
            return Err(self.not_a_member());
        }
        if let Some(fixed) = fixed {
            if fixed[..MAGIC.len()] != MAGIC {
                return Err(self.not_a_member());
            }
            self.flags = fixed[3];
            if self.flags & FLAGS_RESERVED != 0 {
                return Err(MALFORMED);
            }
            self.header_crc.reset();
            self.header_crc.update(&fixed);
            self.next_part();
        }
        Ok(taken)
    }

    fn not_a_member(&self) -> CodingError {
        let coding = Coding::Gzip;
        match self.has_members {
            true => CodingError::Trailing { coding },
            false => CodingError::Malformed { coding },
        }
    }

    fn extra_len(&mut self, input: &[u8]) -> usize {
        let (taken, len) = self.hold::<2>(input);
        if let Some(len) = len {
            self.header_crc.update(&len);
            self.extra(&[], usize::from(u16::from_le_bytes(len)));
        }
        taken
    }

    fn extra(&mut self, input: &[u8], left: usize) -> usize {
        let taken = input.len().min(left);
        self.header_crc.update(&input[..taken]);
        match left - taken {
            0 => self.next_part(),
            left => self.part = Part::Extra { left },
        }
        taken
    }

    /// Name or comment: they end with a zero byte.
    fn text_field(&mut self, input: &[u8]) -> usize {
        let end = memchr::memchr(0, input);
        let taken = end.map_or(input.len(), |end| end + 1);
        self.header_crc.update(&input[..taken]);
        if end.is_some() {
            self.next_part();
        }
        taken
    }

    fn header_crc(&mut self, input: &[u8]) -> Result<usize, CodingError> {
        let (taken, crc) = self.hold::<2>(input);
        if let Some(crc) = crc {
            // RFC 1952 §2.3.1: the two least significant bytes.
            if u32::from(u16::from_le_bytes(crc)) != self.header_crc.sum() & 0xffff {
                return Err(MALFORMED);
            }
            self.next_part();
        }
        Ok(taken)
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize, CodingError> {
        let (taken, trailer) = self.hold::<TRAILER_BYTES>(input);
        if let Some([a, b, c, d, len @ ..]) = trailer {
            let is_right = u32::from_le_bytes([a, b, c, d]) == self.text_crc.sum()
                && u32::from_le_bytes(len) == self.text_crc.amount();
            if !is_right {
                return Err(MALFORMED);
            }
            self.has_members = true;
            self.begin_member();
        }
        Ok(taken)
    }

    /// Goes to the first part of the header whose flag is set, and takes the flag off; to the text, if
    /// none is left.
    fn next_part(&mut self) {
        let optional = [
            (FLAG_EXTRA, Part::ExtraLen),
            (FLAG_NAME, Part::Name),
            (FLAG_COMMENT, Part::Comment),
            (FLAG_HEADER_CRC, Part::HeaderCrc),
        ];
        let mut coming = optional.into_iter();
        match coming.find(|&(flag, _)| self.flags & flag != 0) {
            Some((flag, part)) => {
                self.flags &= !flag;
                self.part = part;
            }
            None => {
                self.part = Part::Text;
                self.inflate.begin(Wrapping::None);
                self.text_crc.reset();
            }
        }
    }

    /// Gathers `N` bytes, and returns them when they are all there.
    fn hold<const N: usize>(&mut self, input: &[u8]) -> (usize, Option<[u8; N]>) {
        let taken = input.len().min(N - self.held_len);
        self.held[self.held_len..self.held_len + taken].copy_from_slice(&input[..taken]);
        self.held_len += taken;
        if self.held_len < N {
            return (taken, None);
        }
        self.held_len = 0;
        let mut whole = [0; N];
        whole.copy_from_slice(&self.held[..N]);
        (taken, Some(whole))
    }
}
