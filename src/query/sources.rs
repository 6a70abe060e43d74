//! Where lines are: the segments of a data directory that may hold what is asked for.
//!
//! Owns the listing, sealed and open, and how one of them is opened. A lane is what one core has written: its
//! segments follow each other in time, as their names do. What other servers have left is one lane more, by the
//! files' times.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Filter, QueryError};
use crate::disk::{Dir, Fs, Stat, block_on};
use crate::segment::frame::scan;
use crate::segment::name::{CoreIndex, SegmentName, is_segment};
use crate::segment::open::OpenSegments;
use crate::segment::reader::{Lines, ReadError, Shape};
use crate::segment::writer::NAME_TRIES_MAX;
use crate::sidecar::{self, Sidecar};
use crate::time::Timestamp;

/// A segment's last line is received at most this long after the time in its name: the largest `FLUSH_SECS`,
/// and as long again for a disk that keeps a commit waiting.
const SPAN_MS_MAX: u64 = 2 * 3_600_000;

/// What is stored, for whoever reads.
#[derive(Clone, Debug)]
pub struct Store {
    /// The data directory.
    pub fs: Fs,
    /// What may be read of the open segments, by core; nothing beside another process, whose word there is
    /// none of: an open segment is then read up to its last whole line.
    pub open: Vec<Arc<OpenSegments>>,
}

/// The segments that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Those of a core.
    Core(CoreIndex),
    /// Those of other servers.
    Foreign,
}

/// The place of a segment in its lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// Ours, by its name.
    Ours(SegmentName),
    /// Another server's.
    Foreign {
        /// The file's time.
        modified: Timestamp,
        /// The file's name.
        name: Box<str>,
    },
}

impl Position {
    /// The lane it is in.
    pub fn lane(&self) -> Lane {
        match self {
            Position::Ours(name) => Lane::Core(name.core),
            Position::Foreign { .. } => Lane::Foreign,
        }
    }

    /// The file's name.
    pub fn file_name(&self) -> String {
        match self {
            Position::Ours(name) => name.to_string(),
            Position::Foreign { name, .. } => name.to_string(),
        }
    }

    /// The time that its place among others of its lane is by.
    pub fn named(&self) -> Timestamp {
        match self {
            Position::Ours(name) => name.time,
            Position::Foreign { modified, .. } => *modified,
        }
    }

    /// Its lines were received between these, both included.
    pub fn times(&self) -> (Timestamp, Timestamp) {
        (self.first_bound(), self.last_bound())
    }

    /// None of its lines was received before.
    pub fn first_bound(&self) -> Timestamp {
        match self {
            // A taken name makes way to a later one, so the first line may be somewhat older than it says.
            Position::Ours(name) => {
                Timestamp::from_ms(name.time.ms().saturating_sub(u64::from(NAME_TRIES_MAX)))
            }
            Position::Foreign { .. } => Timestamp::from_ms(0),
        }
    }

    /// None of its lines was received later.
    fn last_bound(&self) -> Timestamp {
        match self {
            Position::Ours(name) => Timestamp::from_ms(name.time.ms() + SPAN_MS_MAX),
            // Nothing was written to it later.
            Position::Foreign { modified, .. } => *modified,
        }
    }
}

/// A segment that may hold what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which.
    pub position: Position,
    /// Where it was when it was listed.
    pub dir: Dir,
}

/// A segment that is being read.
pub struct Opened {
    /// Before the first.
    pub lines: Lines<io::Take<Box<dyn Read + Send>>>,
    /// What the system says of the file.
    pub stat: Stat,
    /// Whether more lines may come to it.
    pub grows: Grows,
}

/// Whether a segment may get more lines than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// It is sealed.
    No,
    /// It is open.
    Yes,
}

impl Store {
    /// The segments that may hold lines of these times, by lane and in the order of each.
    ///
    /// # Errors
    ///
    /// A directory cannot be listed.
    pub fn sources(&self, filter: &Filter) -> Result<Vec<Source>, QueryError> {
        let mut sources = Vec::new();
        // The open ones first: one that is sealed in between is then seen twice, not missed.
        for dir in [Dir::Open, Dir::Sealed] {
            let path = match dir {
                Dir::Sealed => "the data directory",
                _ => ".open",
            };
            let names = self.fs.files(dir);
            let names = names.map_err(|source| QueryError::List { path, source })?;
            for name in names.iter().filter(|name| is_segment(name)) {
                let Some(position) = self.position(dir, name)? else {
                    continue;
                };
                if filter.may_take_times(position.times()) {
                    sources.push(Source { position, dir });
                }
            }
        }
        // Of the two, the sealed one: a sealed `Dir` is the lesser.
        sources.sort_by(|a, b| (a.lane(), &a.position, a.dir).cmp(&(b.lane(), &b.position, b.dir)));
        sources.dedup_by(|later, first| later.position == first.position);
        Ok(sources)
    }

    /// Where a file belongs; `None` if it is gone, or none that is read.
    fn position(&self, dir: Dir, name: &str) -> Result<Option<Position>, QueryError> {
        if let Some(name) = SegmentName::parse(name) {
            return Ok(Some(Position::Ours(name)));
        }
        // No other server writes to `.open`.
        if dir == Dir::Open {
            return Ok(None);
        }
        match self.fs.stat(dir, name) {
            Ok(stat) => Ok(Some(Position::Foreign {
                modified: stat.modified,
                name: name.into(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(QueryError::Read {
                path: name.to_owned(),
                source: ReadError::Io(source),
            }),
        }
    }

    /// The sidecar of a sealed segment, if it has a good one; and what the system says of the segment.
    pub fn sidecar(&self, source: &Source) -> Option<Sidecar> {
        if source.dir != Dir::Sealed {
            return None;
        }
        let name = source.position.file_name();
        let stat = self.fs.stat(Dir::Sealed, &name).ok()?;
        match sidecar::load(&self.fs, &name, stat) {
            Ok(sidecar) => sidecar,
            Err(error) => {
                let cause = error.cause();
                tracing::warn!(name, what = %error, cause, "sidecar not used");
                // Where a server's housekeeping makes the missing ones anew.
                if !self.open.is_empty() && cause.is_none() {
                    sidecar::discard(&self.fs, &name);
                }
                None
            }
        }
    }

    /// The stored bytes of a sealed segment; `None` if it is not there any more.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn open_stored(&self, source: &Source) -> Result<Option<Box<dyn Read + Send>>, QueryError> {
        let name = source.position.file_name();
        match self.fs.open_for_reading(Dir::Sealed, &name) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(source.unreadable(ReadError::Io(error))),
        }
    }

    /// Opens a segment; `None` if it is not there any more.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn open(&self, source: &Source) -> Result<Option<Opened>, QueryError> {
        let name = source.position.file_name();
        // A segment that has been sealed since is where all sealed ones are.
        let dirs = match source.dir {
            Dir::Open => &[Dir::Open, Dir::Sealed][..],
            _ => &[Dir::Sealed],
        };
        for &dir in dirs {
            let failed = |source| QueryError::Read {
                path: format!("{}{name}", dir.prefix()),
                source,
            };
            let file = match self.fs.open_for_reading(dir, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result.map_err(|error| failed(ReadError::Io(error)))?,
            };
            let stat = self.fs.stat_open(&file);
            let stat = stat.map_err(|error| failed(ReadError::Io(error)))?;
            let (shape, bytes_max) = match (dir, &source.position) {
                (Dir::Open, _) => {
                    // Asked now: what is committed is in the file. A core says what it writes before it writes,
                    // so one that nobody knows was empty when it was looked at, or is of an earlier process.
                    let committed = self.open.iter().find_map(|core| core.committed(&name));
                    let bytes = match committed {
                        Some(bytes) => bytes,
                        // Nobody says how far: up to its last whole line. What follows may be half written.
                        None => {
                            let scan = block_on(scan(&self.fs, &file, stat.bytes, |_| ()));
                            scan.map_err(|error| failed(ReadError::Io(error)))?.cut
                        }
                    };
                    (Shape::Open, bytes)
                }
                (_, Position::Ours(_)) => (Shape::Sealed, u64::MAX),
                (_, Position::Foreign { .. }) => (Shape::Foreign, u64::MAX),
            };
            let file: Box<dyn Read + Send> = Box::new(file);
            let lines = Lines::new(file.take(bytes_max), shape).map_err(failed)?;
            let grows = match dir {
                Dir::Open => Grows::Yes,
                _ => Grows::No,
            };
            return Ok(Some(Opened { lines, stat, grows }));
        }
        Ok(None)
    }
}

impl Source {
    fn lane(&self) -> Lane {
        self.position.lane()
    }

    /// That it cannot be read.
    pub fn unreadable(&self, source: ReadError) -> QueryError {
        QueryError::Read {
            path: format!("{}{}", self.dir.prefix(), self.position.file_name()),
            source,
        }
    }
}
