//! Makes the sidecars that are missing or wrong, one segment after the other.
//!
//! Each segment's sidecar is looked at once in the life of a process, and made if it is not as it should be, or
//! if it is gone later. A segment that is damaged gets none, and is not tried again before the next start; one that the
//! system does not give is tried once a round, which ends when no other is left.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;

use super::{Sidecar, load, store};
use crate::catalog::Segment;
use crate::disk::{Dir, Fs};
use crate::segment::name::SegmentName;
use crate::segment::reader::{Lines, ReadError, Shape};

/// Segments that are looked at in one go: retention waits for its end.
const GO_MAX: usize = 16;

/// What is known of the sidecars.
#[derive(Debug, Default)]
pub struct Maker {
    /// Of the segments that have been looked at.
    known: BTreeMap<Box<str>, Known>,
    round: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is as it should be.
    Good,
    /// There can be none.
    Damaged,
    /// The system did not give the segment in this round.
    Refused {
        /// Which.
        round: u64,
    },
}

/// What a go has done.
#[derive(Debug, Default)]
pub struct Made {
    /// Sidecars that were made.
    pub made: u64,
    /// Segments that cannot have one, or could not now.
    pub failed: u64,
    /// Segments that have none yet, and whose turn comes.
    pub left: u64,
    /// What keeps those from having one.
    pub halted: Option<Halt>,
}

/// What ends a go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It has done what it may at a time, or may not go on.
    Turn,
    /// The disk takes none now.
    Disk,
}

/// Why a sidecar was not made.
#[derive(Debug)]
pub enum MakeError {
    /// Its segment cannot be read.
    Read(ReadError),
    /// It cannot be written.
    Store(io::Error),
    /// It would take space that is left to others.
    NoSpace,
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MakeError::Read(error) => write!(f, "its segment {error}"),
            MakeError::Store(_) => f.write_str("it cannot be written"),
            MakeError::NoSpace => f.write_str("it would take space that MIN_FREE_BYTES keeps"),
        }
    }
}

impl Error for MakeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            MakeError::Read(error) => error.source(),
            MakeError::Store(source) => Some(source),
            MakeError::NoSpace => None,
        }
    }
}

impl Maker {
    /// Makes some of the sidecars that these segments have not, while it may go on; and leaves `free_bytes_min`
    /// of the disk to others.
    pub fn go(
        &mut self,
        fs: &Fs,
        segments: &[Segment],
        free_bytes_min: u64,
        mut may_go_on: impl FnMut() -> bool,
    ) -> Made {
        self.known.retain(|name, _| {
            let found = segments.binary_search_by(|segment| segment.name.cmp(name));
            found.is_ok()
        });
        let mut made = Made::default();
        let lacking = segments.iter().filter(|segment| self.lacks(segment));
        let lacking: Vec<&Segment> = lacking.collect();
        for (index, segment) in lacking.iter().enumerate() {
            made.left = (lacking.len() - index) as u64;
            if index == GO_MAX || !may_go_on() {
                made.halted = Some(Halt::Turn);
                return made;
            }
            let error = match make(fs, &segment.name, free_bytes_min) {
                Ok(outcome) => {
                    made.made += u64::from(outcome == Outcome::Made);
                    self.note(segment, Known::Good);
                    continue;
                }
                // It has been removed.
                Err(MakeError::Read(ReadError::Io(error)))
                    if error.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => error,
            };
            made.failed += 1;
            let cause = error.source().map(ToString::to_string);
            match self.known.get(&segment.name) {
                // It has been said.
                Some(Known::Refused { .. }) => {
                    tracing::debug!(name = %segment.name, %error, cause, "sidecar still not made");
                }
                _ => tracing::warn!(name = %segment.name, %error, cause, "sidecar not made"),
            }
            let round = self.round;
            match error {
                MakeError::Read(ReadError::Damaged(_)) => self.note(segment, Known::Damaged),
                MakeError::Read(ReadError::Io(_)) => self.note(segment, Known::Refused { round }),
                MakeError::Store(_) | MakeError::NoSpace => {
                    made.halted = Some(Halt::Disk);
                    return made;
                }
            }
        }
        made.left = 0;
        self.round += 1;
        made
    }

    fn note(&mut self, segment: &Segment, known: Known) {
        self.known.insert(segment.name.clone(), known);
    }

    fn lacks(&self, segment: &Segment) -> bool {
        match self.known.get(&segment.name) {
            None => true,
            Some(Known::Good) => segment.sidecar_bytes.is_none(),
            Some(Known::Damaged) => false,
            Some(&Known::Refused { round }) => round < self.round,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Made,
    /// There was a good one.
    Kept,
}

fn make(fs: &Fs, name: &str, free_bytes_min: u64) -> Result<Outcome, MakeError> {
    let unread = |error| MakeError::Read(ReadError::Io(error));
    let file = fs.open_for_reading(Dir::Sealed, name).map_err(unread)?;
    let stat = fs.stat_open(&file).map_err(unread)?;
    match load(fs, name, stat) {
        Ok(Some(_)) => return Ok(Outcome::Kept),
        Ok(None) => (),
        Err(error) => {
            let cause = error.cause();
            tracing::info!(name, what = %error, cause, "sidecar to be made again");
        }
    }
    let shape = match SegmentName::parse(name) {
        Some(_) => Shape::Sealed,
        None => Shape::Foreign,
    };
    let lines = Lines::new(file, shape).map_err(MakeError::Read)?;
    let sidecar = Sidecar::of_lines(lines, stat.modified).map_err(MakeError::Read)?;
    let encoded = sidecar.encode(name, stat);
    let space = fs.space().map_err(MakeError::Store)?;
    if space.free_bytes < free_bytes_min.saturating_add(encoded.len() as u64) {
        return Err(MakeError::NoSpace);
    }
    store(fs, name, encoded).map_err(MakeError::Store)?;
    Ok(Outcome::Made)
}
