//! Where an answer has ended, so that the next one goes on from there.
//!
//! A cursor has a place for each core: how many lines have been read of which of its segments. What a core
//! commits comes behind that place, in the same segment or in a later one, so nothing is missed and nothing
//! comes twice, whatever the order in which cores commit, and while segments are sealed. A core that has no
//! place yet is read from its first segment on. Segments are in the order of their names, so that those which a core
//! begins after its clock was set back are taken for read.
//!
//! Its text is base64url (RFC 4648 §5) without padding; behind that a version and, for each place, numbers in
//! LEB128: 7 bits to a byte, the lowest first.
//!
//! ```text
//! 1 │ 0, or 1 + core │ time in the segment's name │ 0                                │ …
//!   │                                             │ 1 │ lines                        │ …
//!   │                                             │ 2 │ lines │ rows of the next one │ …
//!   └ 0: of other servers: the file's time, and then the name's length and its bytes
//! ```
//!
//! What is no cursor is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sources::{Lane, Position};
use crate::segment::name::{CoreIndex, SegmentName, is_segment};
use crate::time::Timestamp;

const VERSION: u8 = 1;

/// More than fits in a request line is none of ours.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// How far a segment has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// These of its lines, and these rows of the next one.
    Some {
        /// Whole lines.
        lines: u64,
        /// Rows of the line behind those.
        rows: u64,
    },
    /// All that there was, of a segment that may get more.
    SoFar {
        /// Whole lines.
        lines: u64,
    },
    /// All of it: nothing comes behind.
    All,
}

/// A place in the segments of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which segment.
    pub position: Position,
    /// How far it has been read.
    pub read: Read,
}

/// A place for each core that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// One a lane.
    pub places: Vec<Place>,
}

impl Cursor {
    /// As text for a query.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        for Place { position, read } in &self.places {
            match position {
                Position::Ours(name) => {
                    push(&mut bytes, 1 + u64::from(name.core));
                    push(&mut bytes, name.time.ms());
                }
                Position::Foreign { modified, name } => {
                    push(&mut bytes, 0);
                    push(&mut bytes, modified.ms());
                    push(&mut bytes, name.len() as u64);
                    bytes.extend_from_slice(name.as_bytes());
                }
            }
            let numbers: &[u64] = match *read {
                Read::All => &[0],
                Read::SoFar { lines } => &[1, lines],
                Read::Some { lines, rows } => &[2, lines, rows],
            };
            for &number in numbers {
                push(&mut bytes, number);
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] writes; `None` if this is something else.
    pub fn decode(text: &str) -> Option<Cursor> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&VERSION, mut rest) = bytes.split_first()? else {
            return None;
        };
        let mut places: Vec<Place> = Vec::new();
        while !rest.is_empty() {
            let place = take_place(&mut rest)?;
            let lane = place.position.lane();
            if places.iter().any(|other| other.position.lane() == lane) {
                return None;
            }
            places.push(place);
        }
        Some(Cursor { places })
    }

    /// The place in this lane, if it has been read.
    pub fn place(&self, lane: Lane) -> Option<&Place> {
        let mut places = self.places.iter();
        places.find(|place| place.position.lane() == lane)
    }
}

fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return None;
        }
        number |= shifted;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_time(rest: &mut &[u8]) -> Option<Timestamp> {
    let ms = take(rest)?;
    let time = Timestamp::from_ms(ms);
    (time.ms() == ms).then_some(time)
}

fn take_place(rest: &mut &[u8]) -> Option<Place> {
    let position = match take(rest)? {
        0 => {
            let modified = take_time(rest)?;
            let len = usize::try_from(take(rest)?).ok()?;
            let (name, after) = rest.split_at_checked(len)?;
            *rest = after;
            let name = str::from_utf8(name).ok()?;
            if !is_segment(name) || SegmentName::parse(name).is_some() {
                return None;
            }
            Position::Foreign {
                modified,
                name: name.into(),
            }
        }
        core => Position::Ours(SegmentName {
            core: CoreIndex::try_from(core - 1).ok()?,
            time: take_time(rest)?,
        }),
    };
    let read = match take(rest)? {
        0 => Read::All,
        1 => Read::SoFar { lines: take(rest)? },
        2 => Read::Some {
            lines: take(rest)?,
            rows: take(rest)?,
        },
        _ => return None,
    };
    Some(Place { position, read })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(core: CoreIndex, ms: u64) -> Position {
        Position::Ours(SegmentName {
            time: Timestamp::from_ms(ms),
            core,
        })
    }

    fn cursor() -> Cursor {
        let some = |lines, rows| Read::Some { lines, rows };
        let foreign = Position::Foreign {
            modified: Timestamp::from_ms(1),
            name: "reports-é.jsonl.zst".into(),
        };
        let places = [
            (ours(0, 1_772_169_274_123), some(0, 0)),
            (ours(u16::MAX, 0), Read::All),
            (ours(7, 1), Read::SoFar { lines: 3 }),
            (foreign, some(u64::MAX, 300)),
        ];
        let places = places.map(|(position, read)| Place { position, read });
        Cursor {
            places: places.into(),
        }
    }

    #[test]
    fn they_come_back() {
        for cursor in [cursor(), Cursor::default()] {
            let text = cursor.encode();
            assert_eq!(Cursor::decode(&text), Some(cursor));
        }
        assert_eq!(Cursor::default().encode(), "AQ");
    }

    #[test]
    fn what_is_none_is_refused() {
        let whole = cursor().encode();
        let bytes = URL_SAFE_NO_PAD.decode(&whole).unwrap();
        // Every prefix is shorter by a place, or none; no change of a byte is a panic.
        for end in 0..bytes.len() {
            if let Some(shorter) = Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes[..end])) {
                assert!(shorter.places.len() < 4);
            }
            let mut changed = bytes.clone();
            changed[end] ^= 0xff;
            let _ = Cursor::decode(&URL_SAFE_NO_PAD.encode(&changed));
        }
        let twice = Cursor {
            places: [cursor().places, cursor().places].concat(),
        };
        let long = "A".repeat(TEXT_BYTES_MAX + 1);
        for text in ["", "AQ=", "Ag", "%", "AQD", &twice.encode(), &long] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }

    #[test]
    fn places_by_lane() {
        let cursor = cursor();
        assert_eq!(cursor.place(Lane::Core(0)), Some(&cursor.places[0]));
        assert_eq!(cursor.place(Lane::Foreign), Some(&cursor.places[3]));
        assert_eq!(cursor.place(Lane::Core(1)), None);
    }
}
