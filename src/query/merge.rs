//! The lines of many segments, oldest first.
//!
//! ```text
//! lane: core 0 ─▶ segment ─▶ segment ─▶ …  ┐
//! lane: core 1 ─▶ segment ─▶ segment ─▶ …  ├─▶ the line that was received first; of two, by segment
//! lane: others ─▶ file ─▶ file ─▶ …        ┘
//! ```
//!
//! A lane has at most one segment open, and opens it when the others have come to its first line: by its
//! sidecar, else by its name. Within a lane, lines stay in the order in which they were committed.
//!
//! Memory: that of one [`Lines`](crate::segment::reader::Lines) a lane: some 500 KiB where segments are of level 1, and
//! the larger windows of higher levels.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::io;

use super::cursor::{Cursor, Place, Read};
use super::sources::{Grows, Opened, Position, Source, Store};
use super::{Filter, QueryError};
use crate::report::received_at;
use crate::sidecar::Sidecar;
use crate::time::Timestamp;

/// Lines in order. Those of other times than asked for are left out, others not.
pub struct Merge<'q> {
    store: &'q Store,
    filter: &'q Filter,
    lanes: Vec<LaneState>,
    /// Where each lane stands, the first one on top; a lane that is current or at its end is not in it.
    queue: BinaryHeap<Reverse<Key>>,
    /// The lane whose line was given last.
    current: Option<usize>,
    /// What a segment that is gone means now.
    missing: Missing,
    /// Lines of other times since the last item.
    passed: u32,
}

/// What it means that a segment is gone which was there when they were listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: no other one has been read, so it is as if it had been asked a moment later.
    Skipped,
    /// The answer would have a hole.
    Error,
}

/// Lines of other times that are passed over at a stretch.
const PASSED_MAX: u32 = 256;

/// What decides whose turn it is: time, then the segment, then the lane.
type Key = (Timestamp, Timestamp, usize);

struct LaneState {
    /// Those that come later, in order.
    waiting: VecDeque<Source>,
    /// The one whose turn comes next.
    next: Option<Next>,
    /// The one that is being read.
    reading: Option<Reading>,
    /// How far the lane has been read; none if not at all.
    place: Option<Place>,
}

impl LaneState {
    fn new(place: Option<Place>) -> LaneState {
        LaneState {
            waiting: VecDeque::new(),
            next: None,
            reading: None,
            place,
        }
    }
}

struct Next {
    source: Source,
    /// When its first and its last line were received, if its sidecar tells.
    received: Option<(Timestamp, Timestamp)>,
}

struct Reading {
    source: Source,
    opened: Opened,
    /// Lines that have been given or left out, the current one included.
    lines: u64,
    received: Timestamp,
}

/// What comes next.
pub enum Item<'m> {
    /// A line.
    Line(Line<'m>),
    /// A sealed segment, all of whose lines are asked for and older than all that come behind.
    Segment {
        /// Its name.
        name: String,
        /// Its file.
        file: Box<dyn io::Read + Send>,
    },
    /// Nothing yet: lines of other times have been passed over. A chance to see whether anybody still asks.
    Passed,
}

/// A line of some segment.
#[derive(Clone, Copy, Debug)]
pub struct Line<'m> {
    /// When it was received.
    pub received: Timestamp,
    /// Without its line feed.
    pub text: &'m [u8],
    /// Rows of it that a former answer has had.
    pub rows_before: u64,
}

/// In what form lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Each by itself.
    Lines,
    /// Whole segments where that is the same.
    Segments,
}

impl<'q> Merge<'q> {
    /// From the cursor on.
    ///
    /// # Errors
    ///
    /// A directory cannot be listed, or the cursor stands in a segment that is gone.
    pub fn new(
        store: &'q Store,
        filter: &'q Filter,
        cursor: &Cursor,
    ) -> Result<Merge<'q>, QueryError> {
        // Not by time: the segment that the cursor stands in has to be there, wherever it lies.
        let sources = match cursor.places.is_empty() {
            true => store.sources(filter)?,
            false => store.sources(&Filter::default())?,
        };
        for place in &cursor.places {
            expect_present(place, &sources)?;
        }
        Ok(Merge::of(store, filter, sources, cursor, Missing::Skipped))
    }

    /// The same of these segments, as [`Store::sources`] has listed them.
    pub fn of(
        store: &'q Store,
        filter: &'q Filter,
        sources: Vec<Source>,
        cursor: &Cursor,
        missing: Missing,
    ) -> Merge<'q> {
        let mut lanes: Vec<LaneState> = Vec::new();
        let may_matter = |source: &Source| {
            let place = cursor.place(source.position.lane());
            match place.map(|place| (source.position.cmp(&place.position), place.read)) {
                Some((Ordering::Less, _) | (Ordering::Equal, Read::All)) => false,
                Some((Ordering::Equal, _)) => true,
                _ => filter.may_take_times(source.position.times()),
            }
        };
        for source in sources {
            let lane = source.position.lane();
            let is_of_last = |state: &LaneState| {
                let last = state.waiting.back();
                last.is_some_and(|last| last.position.lane() == lane)
            };
            if !may_matter(&source) {
                continue;
            }
            if !lanes.last().is_some_and(is_of_last) {
                lanes.push(LaneState::new(cursor.place(lane).cloned()));
            }
            let last = lanes.last_mut().expect("one has been made");
            last.waiting.push_back(source);
        }
        // Of lanes that have nothing more the places are kept.
        for place in &cursor.places {
            let is_here = |state: &LaneState| state.place.as_ref() == Some(place);
            if !lanes.iter().any(is_here) {
                lanes.push(LaneState::new(Some(place.clone())));
            }
        }
        let mut merge = Merge {
            store,
            filter,
            lanes,
            queue: BinaryHeap::new(),
            current: None,
            missing,
            passed: 0,
        };
        for lane in 0..merge.lanes.len() {
            merge.prepare_next(lane);
        }
        merge
    }

    /// The next line or segment.
    ///
    /// # Errors
    ///
    /// A segment cannot be read, or has been removed too late.
    pub fn next(&mut self, want: Want) -> Result<Option<Item<'_>>, QueryError> {
        if let Some(lane) = self.current.take() {
            self.advance(lane)?;
        }
        loop {
            let Some(Reverse((_, _, lane))) = self.queue.pop() else {
                return Ok(None);
            };
            if self.lanes[lane].reading.is_none() {
                if want == Want::Segments && self.is_whole(lane) {
                    match self.pass(lane)? {
                        Some(item) => return Ok(Some(item)),
                        None => continue,
                    }
                }
                self.open(lane)?;
                continue;
            }
            let state = &mut self.lanes[lane];
            let reading = state.reading.as_ref().expect("it is being read");
            if is_behind(self.filter, reading) {
                // Neither this line nor a later one of the lane is asked for, and none of them has been read.
                state.reading = None;
                state.waiting.clear();
                continue;
            }
            if !self.filter.takes_time(reading.received) {
                self.advance(lane)?;
                self.passed = (self.passed + 1) % PASSED_MAX;
                match self.passed {
                    0 => return Ok(Some(Item::Passed)),
                    _ => continue,
                }
            }
            let rows_before = rows_before(state);
            (self.current, self.missing) = (Some(lane), Missing::Error);
            let reading = self.lanes[lane].reading.as_ref();
            let reading = reading.expect("it is being read");
            return Ok(Some(Item::Line(Line {
                received: reading.received,
                text: reading.opened.lines.line(),
                rows_before,
            })));
        }
    }

    /// Where the answer has got to, the current line included; of its rows only these, if not all of them.
    ///
    /// # Errors
    ///
    /// It cannot be told whether a segment has more lines.
    pub fn into_cursor(mut self, rows_of_current: Option<u64>) -> Result<Cursor, QueryError> {
        if let Some(lane) = self.current.take() {
            match rows_of_current {
                Some(rows) => {
                    let state = &mut self.lanes[lane];
                    let reading = state.reading.as_ref().expect("it is being read");
                    state.place = Some(Place {
                        position: reading.source.position.clone(),
                        read: Read::Some {
                            lines: reading.lines - 1,
                            rows,
                        },
                    });
                }
                None => self.advance(lane)?,
            }
        }
        let places = self.lanes.into_iter().filter_map(|lane| lane.place);
        Ok(Cursor {
            places: places.collect(),
        })
    }

    /// Comes to the next line of a lane, and puts it into the queue.
    fn advance(&mut self, lane: usize) -> Result<(), QueryError> {
        let state = &mut self.lanes[lane];
        let reading = state.reading.as_mut().expect("it is being read");
        let position = reading.source.position.clone();
        let advanced = reading.opened.lines.advance();
        let has_more = advanced.map_err(|error| reading.source.unreadable(error))?;
        let lines = reading.lines;
        let read = match (has_more, reading.opened.grows) {
            (true, _) => Read::Some { lines, rows: 0 },
            (false, Grows::Yes) => Read::SoFar { lines },
            (false, Grows::No) => Read::All,
        };
        if has_more {
            reading.come_to_line();
            let key = (reading.received, position.named(), lane);
            self.queue.push(Reverse(key));
        }
        state.place = Some(Place { position, read });
        if !has_more {
            state.reading = None;
            self.prepare_next(lane);
        }
        Ok(())
    }

    /// Looks for the next segment of a lane that may hold what is asked for, and puts it into the queue.
    fn prepare_next(&mut self, lane: usize) {
        let state = &mut self.lanes[lane];
        while let Some(source) = state.waiting.pop_front() {
            let sidecar = self.store.sidecar(&source);
            let is_begun = is_begun(state.place.as_ref(), &source);
            if let Some(sidecar) = &sidecar
                && !is_begun
                && !may_hold(self.filter, sidecar)
            {
                continue;
            }
            let received = sidecar.and_then(|sidecar| sidecar.received);
            let first = received.map_or(source.position.first_bound(), |(first, _)| first);
            let key = (first, source.position.named(), lane);
            self.queue.push(Reverse(key));
            state.next = Some(Next { source, received });
            return;
        }
    }

    /// Whether all lines of a lane's next segment are asked for, none has been had, and all come before the
    /// other lanes' lines.
    fn is_whole(&self, lane: usize) -> bool {
        let state = &self.lanes[lane];
        let Some(next) = &state.next else {
            return false;
        };
        let Some((first, last)) = next.received else {
            return false;
        };
        let ours = matches!(next.source.position, Position::Ours(_));
        let key = (last, next.source.position.named(), lane);
        let others = self.queue.peek();
        ours && !self.filter.asks_for_names()
            && self.filter.takes_times((first, last))
            && !is_begun(state.place.as_ref(), &next.source)
            && others.is_none_or(|Reverse(other)| key < *other)
    }

    /// Gives a lane's next segment as it is; nothing, if it is gone.
    fn pass(&mut self, lane: usize) -> Result<Option<Item<'static>>, QueryError> {
        let next = self.lanes[lane].next.take();
        let source = next.expect("it is in the queue").source;
        let Some(file) = self.store.open_stored(&source)? else {
            self.go_on_without(lane, &source)?;
            return Ok(None);
        };
        self.missing = Missing::Error;
        let name = source.position.file_name();
        self.lanes[lane].place = Some(Place {
            position: source.position,
            read: Read::All,
        });
        self.prepare_next(lane);
        Ok(Some(Item::Segment { name, file }))
    }

    /// Goes on without a segment that is gone, if it may be missing.
    fn go_on_without(&mut self, lane: usize, source: &Source) -> Result<(), QueryError> {
        let name = source.position.file_name();
        match &self.lanes[lane].place {
            Some(Place {
                position,
                read: Read::Some { .. },
            }) if *position == source.position => return Err(QueryError::CursorExpired { name }),
            _ if self.missing == Missing::Error => return Err(QueryError::Removed { name }),
            _ => (),
        }
        self.prepare_next(lane);
        Ok(())
    }

    /// Opens a lane's next segment and comes to its first line that has not been had.
    fn open(&mut self, lane: usize) -> Result<(), QueryError> {
        let next = self.lanes[lane].next.take();
        let source = next.expect("it is in the queue").source;
        let Some(opened) = self.store.open(&source)? else {
            return self.go_on_without(lane, &source);
        };
        let state = &mut self.lanes[lane];
        let had = match &state.place {
            Some(place) if place.position == source.position => place.read,
            _ => Read::Some { lines: 0, rows: 0 },
        };
        let lines_had = match had {
            Read::Some { lines, .. } | Read::SoFar { lines } => lines,
            Read::All => u64::MAX,
        };
        let mut reading = Reading {
            received: opened.stat.modified,
            source,
            opened,
            lines: 0,
        };
        let mut has_more = true;
        while has_more && reading.lines <= lines_had {
            let advanced = reading.opened.lines.advance();
            has_more = advanced.map_err(|error| reading.source.unreadable(error))?;
            if has_more {
                reading.lines += 1;
            }
        }
        if !has_more {
            // What has been had stays had, also where the file has become shorter.
            self.prepare_next(lane);
            return Ok(());
        }
        reading.note_time();
        let key = (reading.received, reading.source.position.named(), lane);
        self.queue.push(Reverse(key));
        state.reading = Some(reading);
        Ok(())
    }
}

impl Reading {
    fn come_to_line(&mut self) {
        self.lines += 1;
        self.note_time();
    }

    fn note_time(&mut self) {
        let received = received_at(self.opened.lines.line());
        self.received = received.unwrap_or(self.opened.stat.modified);
    }
}

/// Whether what a lane has from here on was received when nothing more is asked for: the times of a segment of ours do
/// not go back.
fn is_behind(filter: &Filter, reading: &Reading) -> bool {
    let is_late = |until| reading.received >= until;
    matches!(reading.source.position, Position::Ours(_)) && filter.until.is_some_and(is_late)
}

/// Whether the place is in this segment.
fn is_begun(place: Option<&Place>, source: &Source) -> bool {
    place.is_some_and(|place| place.position == source.position)
}

/// Rows that have been had of the line that comes next.
fn rows_before(state: &LaneState) -> u64 {
    let reading = state.reading.as_ref().expect("it is being read");
    match &state.place {
        Some(Place {
            position,
            read: Read::Some { lines, rows },
        }) if *position == reading.source.position && lines + 1 == reading.lines => *rows,
        _ => 0,
    }
}

/// Whether a segment may hold what is asked for.
pub fn may_hold(filter: &Filter, sidecar: &Sidecar) -> bool {
    let Some(times) = sidecar.received else {
        return false;
    };
    let has_host = match (&filter.host, &sidecar.hosts) {
        (Some(host), Some(hosts)) => hosts.has_group(host.text()),
        _ => true,
    };
    filter.may_take_times(times) && has_host
}

fn expect_present(place: &Place, all: &[Source]) -> Result<(), QueryError> {
    let is_there = all.iter().any(|source| source.position == place.position);
    match (place.read, is_there) {
        // What has been read to its end may be removed.
        (Read::All | Read::SoFar { .. }, _) | (Read::Some { .. }, true) => Ok(()),
        (Read::Some { .. }, false) => Err(QueryError::CursorExpired {
            name: place.position.file_name(),
        }),
    }
}
