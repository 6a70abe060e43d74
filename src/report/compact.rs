//! Compact JSON, passed over eight bytes at a time.
//!
//! Owns what is usual about a text: no whitespace between tokens, no backslash, no exponent, integers of
//! up to 18 digits. Left to others: what the members mean (`fast`), and all that is unusual.
//!
//! - Each method passes over what it is named for, all of it, and returns what is left: by value, so that
//!   it stays in registers. `None`: something else stands there, or something unusual.
//! - Strings are checked to be UTF-8 one by one, those with a byte beyond ASCII: between them is ASCII alone.
//! - Bytes are compared in words, the first of them in the lowest place, by arithmetic on all at once.
//!   A branch for each byte would be mispredicted at the end of most numbers.

use super::DEPTH_MAX;
use super::fast::Sink;

/// An integer of more digits is left to simd-json: from 20 on it may be out of a u64.
const INTEGER_DIGITS_MAX: usize = 18;

/// Up to here, an integer is an f64 as well, and so are the first powers of ten: one division of the two
/// is then as exact as can be (Clinger 1990).
const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;

const POWERS_OF_TEN: [u64; INTEGER_DIGITS_MAX + 1] = {
    let mut powers = [1; _];
    let mut power = 1;
    while power < powers.len() {
        powers[power] = 10 * powers[power - 1];
        power += 1;
    }
    powers
};

/// Bytes that are looked at together: one word.
const WORD_LEN: usize = size_of::<u64>();

/// Each byte of a word as this one.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD_LEN])
}

/// What is left of a text.
#[derive(Clone, Copy)]
pub(super) struct Scan<'b> {
    pub(super) rest: &'b [u8],
}

/// What a member holds. `None`: the member has not been there, or holds `null`.
pub(super) type Place<T> = Option<Option<T>>;

/// A number that is passed over, and not worked out yet.
#[derive(Clone, Copy)]
pub(super) struct Number<'b> {
    text: &'b [u8],
    is_negative: bool,
    integer: Digits,
    /// Those behind the point. `None`: there is no point.
    fraction: Option<Digits>,
}

/// Digits, at least one.
#[derive(Clone, Copy)]
struct Digits {
    len: usize,
    /// As an integer, if `len <= INTEGER_DIGITS_MAX`; any, if not.
    value: u64,
}

impl<'b> Scan<'b> {
    /// Any value, inside of `depth` objects and arrays; calls itself at most [`DEPTH_MAX`] deep.
    #[inline(never)]
    pub(super) fn value(self, depth: usize) -> Option<Self> {
        match self.rest.first()? {
            b'{' | b'[' if depth == DEPTH_MAX => None,
            b'{' => self.byte(b'{')?.items(b'}', |scan| {
                let (_, scan) = scan.name()?;
                scan.value(depth + 1)
            }),
            b'[' => self.byte(b'[')?.items(b']', |scan| scan.value(depth + 1)),
            b'"' => self.string().map(|(_, scan)| scan),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number::<()>().map(|(_, scan)| scan),
        }
    }

    /// Items with commas between them, or none, and `close`.
    #[inline(always)]
    pub(super) fn items(
        self,
        close: u8,
        mut item: impl FnMut(Self) -> Option<Self>,
    ) -> Option<Self> {
        if let Some(scan) = self.byte(close) {
            return Some(scan);
        }
        let mut scan = self;
        loop {
            scan = item(scan)?;
            match scan.byte(b',') {
                Some(next) => scan = next,
                None => return scan.byte(close),
            }
        }
    }

    /// A member's name and its colon.
    #[inline(always)]
    pub(super) fn name(self) -> Option<(&'b [u8], Self)> {
        let (name, scan) = self.string()?;
        Some((name, scan.byte(b':')?))
    }

    /// A number or `null`, into a place that is empty so far.
    #[inline(always)]
    pub(super) fn number_or_null<S: Sink<'b>>(self, place: &mut Place<Number<'b>>) -> Option<Self> {
        let (number, scan) = match self.literal(b"null") {
            Some(scan) => (None, scan),
            None => self
                .number::<S>()
                .map(|(number, scan)| (Some(number), scan))?,
        };
        scan.fill(place, number)
    }

    /// A string or `null`, into a place that is empty so far.
    #[inline(always)]
    pub(super) fn text_or_null(self, place: &mut Place<&'b [u8]>) -> Option<Self> {
        let (text, scan) = match self.literal(b"null") {
            Some(scan) => (None, scan),
            None => self.string().map(|(text, scan)| (Some(text), scan))?,
        };
        scan.fill(place, text)
    }

    /// Passes over nothing. `None`: the place is not empty.
    #[inline(always)]
    pub(super) fn fill<T>(self, place: &mut Option<T>, value: T) -> Option<Self> {
        place.replace(value).is_none().then_some(self)
    }

    /// A string, without its quotes: UTF-8, with nothing in it to unescape.
    #[inline(always)]
    pub(super) fn string(self) -> Option<(&'b [u8], Self)> {
        let text = self.byte(b'"')?.rest;
        let mut bits = 0;
        let rest = until(text, |word| {
            bits |= word;
            stops(word)
        });
        let string = &text[..text.len() - rest.len()];
        // Of the bytes behind the string, some are in `bits` as well; they only make this look.
        if bits & all(0x80) != 0 {
            str::from_utf8(string).ok()?;
        }
        Some((string, Scan { rest }.byte(b'"')?))
    }

    #[inline(always)]
    fn number<S: Sink<'b>>(self) -> Option<(Number<'b>, Self)> {
        let unsigned = self.byte(b'-');
        let is_negative = unsigned.is_some();
        let unsigned = unsigned.unwrap_or(self);
        let (integer, scan) = unsigned.digits::<S>()?;
        let has_zero = unsigned.rest.first() == Some(&b'0');
        if integer.len > INTEGER_DIGITS_MAX || has_zero && integer.len > 1 {
            return None;
        }
        // No digit, point or exponent can follow: whoever calls wants what can.
        let (fraction, scan) = match scan.byte(b'.') {
            Some(scan) => scan
                .digits::<S>()
                .map(|(digits, scan)| (Some(digits), scan))?,
            None => (None, scan),
        };
        let number = Number {
            text: &self.rest[..self.rest.len() - scan.rest.len()],
            is_negative,
            integer,
            fraction,
        };
        Some((number, scan))
    }

    #[inline(always)]
    fn digits<S: Sink<'b>>(self) -> Option<(Digits, Self)> {
        let mut value = 0u64;
        let rest = until(self.rest, |word| {
            let marked = others(word);
            if S::READS {
                let (count, digits) = match marked {
                    0 => (WORD_LEN, word),
                    // What stands behind the digits goes, and zeros come in front of them.
                    _ => (first(marked), word << 8 << (56 - 8 * first(marked))),
                };
                value = value
                    .wrapping_mul(POWERS_OF_TEN[count])
                    .wrapping_add(eight_digits(digits));
            }
            marked
        });
        let len = self.rest.len() - rest.len();
        (len > 0).then_some((Digits { len, value }, Scan { rest }))
    }

    #[inline(always)]
    pub(super) fn byte(self, byte: u8) -> Option<Self> {
        match self.rest {
            [first, rest @ ..] if *first == byte => Some(Scan { rest }),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn literal(self, bytes: &[u8]) -> Option<Self> {
        let rest = self.rest.strip_prefix(bytes)?;
        Some(Scan { rest })
    }
}

impl Number<'_> {
    /// The f64 that is nearest, as simd-json has it.
    #[inline(always)]
    pub(super) fn value(self) -> Option<f64> {
        let Some(fraction) = self.fraction else {
            // As an integer, zero has no sign.
            let integer = self.integer.value.cast_signed();
            return Some(if self.is_negative { -integer } else { integer } as f64);
        };
        if self.integer.len + fraction.len <= INTEGER_DIGITS_MAX {
            let power = POWERS_OF_TEN[fraction.len];
            let mantissa = self.integer.value * power + fraction.value;
            if mantissa <= EXACT_MAX {
                let value = mantissa as f64 / power as f64;
                return Some(if self.is_negative { -value } else { value });
            }
        }
        self.parse()
    }

    #[cold]
    #[inline(never)]
    fn parse(self) -> Option<f64> {
        str::from_utf8(self.text).ok()?.parse().ok()
    }
}

/// What is left of `text` from the first byte on that `marks` marks by its highest bit, in a word of which
/// the first byte is the lowest.
#[inline(always)]
fn until(text: &[u8], mut marks: impl FnMut(u64) -> u64) -> &[u8] {
    let mut rest = text;
    while let Some((word, next)) = rest.split_first_chunk() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return &rest[first(marked)..];
        }
        rest = next;
    }
    // Behind the end are zeros, which are no digits and end strings.
    let marked = marks(last_word(rest));
    &rest[first(marked).min(rest.len())..]
}

/// Fewer bytes than a word has.
#[cold]
#[inline(never)]
fn last_word(rest: &[u8]) -> u64 {
    let bytes = rest.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The index of the first marked byte; [`WORD_LEN`] if there is none.
#[inline(always)]
fn first(marked: u64) -> usize {
    (marked.trailing_zeros() / 8) as usize
}

/// Marks the bytes of `word` that are no digits.
#[inline(always)]
fn others(word: u64) -> u64 {
    // Digits become 0 to 9, of which 0x76 more leave the highest bit alone; no sum reaches the next byte.
    let values = word ^ all(b'0');
    (((values & all(0x7f)) + all(0x76)) | values) & all(0x80)
}

/// Marks the first byte of `word` that ends a string or cannot stand in one as it is: `"`, `\` and those
/// below 0x20 (RFC 8259 §7). Bytes behind it may be marked for nothing.
#[inline(always)]
fn stops(word: u64) -> u64 {
    // With 2 flipped, a quote follows right on those below 0x20. A difference borrows from the next byte
    // if its own is marked, and only then.
    let low = word ^ all(2);
    let backslash = word ^ all(b'\\');
    let marks =
        (low.wrapping_sub(all(0x21)) & !low) | (backslash.wrapping_sub(all(1)) & !backslash);
    marks & all(0x80)
}

/// The value of eight digits, the first in the lowest place; a byte of 0 is one as well.
#[inline(always)]
fn eight_digits(word: u64) -> u64 {
    // Pairs, then fours, then all.
    let word = (word & all(0x0f)).wrapping_mul(10 * 256 + 1) >> 8;
    let word = (word & 0x00ff_00ff_00ff_00ff).wrapping_mul(100 * 65_536 + 1) >> 16;
    (word & 0x0000_ffff_0000_ffff).wrapping_mul((10_000 << 32) + 1) >> 32
}
