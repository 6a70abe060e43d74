//! Figures by group and step: how many samples, how many errors, how slow.
//!
//! Owns which cell a sample is counted in, how segments are shared among threads, and when a sidecar stands for
//! its segment. Leaves the figures themselves to [`crate::tally`], and telling samples from each other to `distinct`.
//!
//! ```text
//! segment ─▶ sidecar, if all of it is asked for, by host, and each of its minutes lies in one step ─┐
//!        └─▶ else its lines: names searched for, then parsed, then counted ────────────────────────┴─▶ sum
//! ```
//!
//! Steps begin at multiples of their length since the epoch. A sum is the same in whatever order segments come,
//! but for the rounding of the mean of fractional latencies.
//!
//! What is not told by lines that are looked through for names alone is not told at all: `skipped_lines` are counted
//! where no names are asked for.
//!
//! Memory: [`ROWS_BYTES_MAX`] for the figures, the reading of a segment for each thread, and what `distinct` keeps.

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use serde::Deserialize;

use super::merge::may_hold;
use super::sources::{Source, Store};
use super::{Filter, QueryError, distinct};
use crate::idle;
use crate::report::extract::{Extractor, Host, Reading};
use crate::report::received_at;
use crate::sidecar::{MINUTE_MS, Sidecar, outcomes};
use crate::tally::{Cell, GroupName, Pace, Tally};
use crate::time::Timestamp;

/// The most that the figures may take in memory.
pub const ROWS_BYTES_MAX: usize = 16 << 20;

/// The most threads that read for one answer.
const THREADS_MAX: usize = 4;

/// How often segments may be removed while they are read before that is the answer.
const TRIES_MAX: usize = 3;

/// What samples are put together by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// The host that was asked.
    Host,
    /// Who has posted them.
    Client,
    /// What the report has at this JSON pointer (RFC 6901), which begins with `/geo`.
    Pointer(Box<str>),
}

impl Grouping {
    /// By what stands there; `None` if it is not in `geo`.
    pub fn by_pointer(pointer: &str) -> Option<Grouping> {
        let rest = pointer.strip_prefix("/geo")?;
        let is_escaped = |part: &str| part.starts_with(['0', '1']);
        let is_whole = rest.split('~').skip(1).all(is_escaped);
        let is_in_geo = rest.is_empty() || rest.starts_with('/');
        (is_in_geo && is_whole).then(|| Grouping::Pointer(pointer.into()))
    }

    /// The name of the member that says which group a row is of.
    pub fn member(&self) -> &str {
        match self {
            Grouping::Host => "host",
            Grouping::Client => "client",
            Grouping::Pointer(pointer) => pointer,
        }
    }
}

/// Which samples count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Each that was sent.
    Each,
    /// One of those that are the same.
    Distinct,
}

/// What figures are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The length of a step; without one the whole time is one.
    pub step_ms: Option<u64>,
    /// By what.
    pub group: Grouping,
    /// Which samples.
    pub counting: Counting,
}

/// The figures of a group in a step.
#[derive(Debug)]
pub struct Row {
    /// Where the step begins; without steps, the start of the time asked for, or the first line's.
    pub start: Timestamp,
    /// The group: a name, or the JSON text of what stands at a pointer.
    pub group: GroupName,
    /// Its figures.
    pub cell: Cell,
}

/// An answer.
#[derive(Debug)]
pub struct Figures {
    /// By step, then by group.
    pub rows: Vec<Row>,
    /// Lines of the time asked for that are no reports.
    pub skipped_lines: u64,
    /// Segments that were decoded.
    pub decoded_segments: usize,
    /// Segments whose sidecar was enough.
    pub indexed_segments: usize,
}

/// Looks on while figures are made.
pub trait Watch: Sync {
    /// Whether the asker has gone.
    fn is_gone(&self) -> bool;

    /// One more of so many segments is done.
    fn note_progress(&self, of: usize);
}

/// The figures that are asked for.
///
/// # Errors
///
/// They cannot be had.
pub fn run(
    store: &Store,
    filter: &Filter,
    summary: &Summary,
    watch: &dyn Watch,
) -> Result<Figures, QueryError> {
    match summary.counting {
        Counting::Each => {
            let count = |worker: &mut Worker<'_>, next: &AtomicUsize| worker.count_segments(next);
            tried(store, filter, summary, watch, THREADS_MAX, count)
        }
        Counting::Distinct => {
            let count = |worker: &mut Worker<'_>| distinct::count(worker, distinct::SEEN_MAX);
            count_with(store, filter, summary, watch, count)
        }
    }
}

/// The figures that one worker counts.
pub(super) fn count_with(
    store: &Store,
    filter: &Filter,
    summary: &Summary,
    watch: &dyn Watch,
    count: impl Fn(&mut Worker<'_>) -> Result<(), QueryError> + Sync,
) -> Result<Figures, QueryError> {
    tried(store, filter, summary, watch, 1, |worker, _| count(worker))
}

fn tried(
    store: &Store,
    filter: &Filter,
    summary: &Summary,
    watch: &dyn Watch,
    threads_max: usize,
    count: impl Fn(&mut Worker<'_>, &AtomicUsize) -> Result<(), QueryError> + Sync,
) -> Result<Figures, QueryError> {
    let mut tries = 1;
    loop {
        let work = Work::new(store, filter, summary, watch)?;
        match work.share(threads_max, &count) {
            // Nothing has been told yet: it can be asked anew.
            Err(QueryError::Removed { .. }) if tries < TRIES_MAX => tries += 1,
            found => return Ok(found?.into_figures(filter, summary)),
        }
    }
}

/// What the threads share.
pub(super) struct Work<'w> {
    pub(super) store: &'w Store,
    pub(super) filter: &'w Filter,
    pub(super) summary: &'w Summary,
    watch: &'w dyn Watch,
    pub(super) sources: Vec<Source>,
    /// Bytes of all figures so far.
    held_bytes: AtomicUsize,
    /// One of them has failed: the others may stop.
    has_failed: AtomicBool,
}

/// What one thread has counted, or all of them.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) tally: Tally,
    first: Option<Timestamp>,
    pub(super) skipped_lines: u64,
    pub(super) decoded_segments: usize,
    indexed_segments: usize,
}

impl<'w> Work<'w> {
    fn new(
        store: &'w Store,
        filter: &'w Filter,
        summary: &'w Summary,
        watch: &'w dyn Watch,
    ) -> Result<Work<'w>, QueryError> {
        Ok(Work {
            store,
            filter,
            summary,
            watch,
            sources: store.sources(filter)?,
            held_bytes: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
        })
    }

    /// Has at most so many threads work, all with one counter, and adds up what they have counted.
    fn share(
        &self,
        threads_max: usize,
        work: impl Fn(&mut Worker<'_>, &AtomicUsize) -> Result<(), QueryError> + Sync,
    ) -> Result<Counted, QueryError> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.min(threads_max).min(self.sources.len()).max(1);
        let next = AtomicUsize::new(0);
        let one = || {
            if let Err(error) = idle::yield_to_all() {
                tracing::debug!(cause = %error, "reading at the priority of the others");
            }
            let mut worker = Worker {
                work: self,
                counted: Counted::default(),
                extractor: Extractor::default(),
                held_bytes: 0,
            };
            let worked = work(&mut worker, &next);
            if worked.is_err() {
                self.has_failed.store(true, Relaxed);
            }
            worked.map(|()| worker.counted)
        };
        thread::scope(|scope| {
            let spawn = |_| {
                thread::Builder::new()
                    .name("scan".to_owned())
                    .spawn_scoped(scope, one)
            };
            let threads: Vec<_> = (0..threads).map(spawn).collect();
            let mut sum = Ok(Counted::default());
            for thread in threads {
                let counted = match thread.map(thread::ScopedJoinHandle::join) {
                    Ok(Ok(counted)) => counted,
                    Ok(Err(panic)) => std::panic::resume_unwind(panic),
                    Err(error) => {
                        self.has_failed.store(true, Relaxed);
                        Err(QueryError::Thread(error))
                    }
                };
                sum = match (sum, counted) {
                    (Ok(mut sum), Ok(counted)) => {
                        sum.add(counted);
                        Ok(sum)
                    }
                    // Of two the one that says more: who stops because another has failed says nothing.
                    (Err(QueryError::Gone), Err(error)) => Err(error),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
            sum
        })
    }

    pub(super) fn expect_going_on(&self) -> Result<(), QueryError> {
        match self.has_failed.load(Relaxed) || self.watch.is_gone() {
            true => Err(QueryError::Gone),
            false => Ok(()),
        }
    }

    /// The start of the step that a time lies in.
    pub(super) fn step_of(&self, received: Timestamp) -> u64 {
        let ms = received.ms();
        self.summary.step_ms.map_or(0, |step_ms| ms - ms % step_ms)
    }

    /// Whether a sidecar tells all that is asked of its segment.
    fn is_enough(&self, sidecar: &Sidecar) -> bool {
        let Some((first, last)) = sidecar.received else {
            return true;
        };
        let is_in_step = match self.summary.step_ms {
            Some(step_ms) if !step_ms.is_multiple_of(MINUTE_MS) => {
                self.step_of(first) == self.step_of(last)
            }
            _ => true,
        };
        self.summary.group == Grouping::Host
            && self.filter.client.is_none()
            && self.filter.takes_times((first, last))
            && is_in_step
    }
}

impl Counted {
    pub(super) fn add(&mut self, other: Counted) {
        self.tally.add(other.tally);
        self.note_first(other.first);
        self.skipped_lines += other.skipped_lines;
        self.decoded_segments += other.decoded_segments;
        self.indexed_segments += other.indexed_segments;
    }

    pub(super) fn note_first(&mut self, received: Option<Timestamp>) {
        self.first = match (self.first, received) {
            (Some(first), Some(received)) => Some(first.min(received)),
            (first, received) => first.or(received),
        };
    }

    fn into_figures(self, filter: &Filter, summary: &Summary) -> Figures {
        let whole = filter.since.or(self.first);
        let whole = whole.unwrap_or(Timestamp::from_ms(0));
        let start = |step_ms| match summary.step_ms {
            Some(_) => Timestamp::from_ms(step_ms),
            None => whole,
        };
        let groups = self.tally.into_groups();
        let mut rows: Vec<Row> = groups
            .flat_map(|(group, steps)| {
                let row = move |(step_ms, cell)| Row {
                    start: start(step_ms),
                    group: group.clone(),
                    cell,
                };
                steps.into_iter().map(row)
            })
            .filter(|row| row.cell.samples > 0)
            .collect();
        rows.sort_by(|a, b| (a.start, &a.group).cmp(&(b.start, &b.group)));
        Figures {
            rows,
            skipped_lines: self.skipped_lines,
            decoded_segments: self.decoded_segments,
            indexed_segments: self.indexed_segments,
        }
    }
}

/// What one thread has.
pub(super) struct Worker<'w> {
    pub(super) work: &'w Work<'w>,
    pub(super) counted: Counted,
    pub(super) extractor: Extractor,
    /// What it has added to those of all.
    held_bytes: usize,
}

impl Worker<'_> {
    fn count_segments(&mut self, next: &AtomicUsize) -> Result<(), QueryError> {
        let work = self.work;
        while let Some(source) = work.sources.get(next.fetch_add(1, Relaxed)) {
            work.expect_going_on()?;
            match work.store.sidecar(source) {
                Some(sidecar) if !may_hold(work.filter, &sidecar) => self.note_left_out(&sidecar),
                Some(sidecar) if sidecar.hosts.is_some() && work.is_enough(&sidecar) => {
                    self.add_sidecar(sidecar);
                }
                _ => self.add_lines(source)?,
            }
            self.check_bytes(0)?;
            work.watch.note_progress(work.sources.len());
        }
        Ok(())
    }

    /// The first line counts as the first, whatever it says.
    pub(super) fn note_left_out(&mut self, sidecar: &Sidecar) {
        let received = sidecar.received;
        if received.is_some_and(|times| self.work.filter.may_take_times(times)) {
            self.counted.note_first(received.map(|(first, _)| first));
        }
    }

    fn add_sidecar(&mut self, sidecar: Sidecar) {
        self.counted.indexed_segments += 1;
        if !self.work.filter.asks_for_names() {
            self.counted.skipped_lines += sidecar.skipped_lines;
        }
        self.counted
            .note_first(sidecar.received.map(|(first, _)| first));
        let groups = sidecar.hosts.map(Tally::into_groups);
        for (host, minutes) in groups.into_iter().flatten() {
            if !self.work.filter.takes_host(host.as_deref()) {
                continue;
            }
            for (minute, cell) in minutes {
                let step_ms = self.work.step_of(Timestamp::from_ms(minute));
                let step_ms = match self.work.summary.step_ms {
                    // The one step that all of the segment lies in.
                    Some(length) if !length.is_multiple_of(MINUTE_MS) => {
                        let first = sidecar.received.map_or(minute, |(first, _)| first.ms());
                        first - first % length
                    }
                    _ => step_ms,
                };
                self.counted.tally.add_cell(host.as_deref(), step_ms, cell);
            }
        }
    }

    fn add_lines(&mut self, source: &Source) -> Result<(), QueryError> {
        let work = self.work;
        let Some(mut opened) = work.store.open(source)? else {
            let name = source.position.file_name();
            return Err(QueryError::Removed { name });
        };
        self.counted.decoded_segments += 1;
        let mut of_segment = Tally::default();
        let mut pace = Pace::default();
        let unreadable = |error| source.unreadable(error);
        while opened.lines.advance().map_err(unreadable)? {
            let line = opened.lines.line();
            let received = received_at(line).unwrap_or(opened.stat.modified);
            if pace.is_due(line.len()) {
                work.expect_going_on()?;
                self.check_bytes(of_segment.bytes())?;
            }
            if !work.filter.takes_time(received) {
                continue;
            }
            self.counted.note_first(Some(received));
            if !work.filter.may_match(line) {
                continue;
            }
            let counted = self.extractor.read(line, |reading| {
                if !work.filter.takes_client(reading) {
                    return;
                }
                let step_ms = work.step_of(received);
                let group = Group::of(&work.summary.group, line, reading);
                for host in reading.hosts() {
                    if work.filter.takes_host(host.name) && !host.samples.is_empty() {
                        of_segment.record(group.name(&host), step_ms, outcomes(&host));
                    }
                }
            });
            if !work.filter.asks_for_names() {
                self.counted.skipped_lines += u64::from(counted.is_none());
            }
        }
        of_segment.compact();
        self.counted.tally.add(of_segment);
        Ok(())
    }

    /// Publishes what its figures take, and what takes room for a moment.
    pub(super) fn check_bytes(&mut self, more: usize) -> Result<(), QueryError> {
        let held_bytes = self.counted.tally.bytes() + more;
        // What is more or less than before, in one go: no other thread sees a sum that never was.
        let change = held_bytes.wrapping_sub(self.held_bytes);
        let before = self.work.held_bytes.fetch_add(change, Relaxed);
        self.held_bytes = held_bytes;
        match before.wrapping_add(change) > ROWS_BYTES_MAX {
            true => Err(QueryError::TooManyRows {
                bytes_max: ROWS_BYTES_MAX,
            }),
            false => Ok(()),
        }
    }
}

/// The group of a report's samples, where it is not that of each host.
pub(super) enum Group<'l> {
    OfHost,
    OfReport(Option<Cow<'l, str>>),
}

#[derive(Deserialize)]
struct Geo {
    geo: Option<serde_json::Value>,
}

impl<'l> Group<'l> {
    pub(super) fn of(grouping: &Grouping, line: &[u8], reading: &Reading<'l>) -> Group<'l> {
        match grouping {
            Grouping::Host => Group::OfHost,
            Grouping::Client => Group::OfReport(reading.client.map(Cow::Borrowed)),
            Grouping::Pointer(pointer) => {
                let geo = serde_json::from_slice::<Geo>(line)
                    .ok()
                    .and_then(|line| line.geo);
                let below = pointer.strip_prefix("/geo").unwrap_or_default();
                let found = geo.as_ref().and_then(|geo| geo.pointer(below));
                let found = found.filter(|found| !found.is_null());
                Group::OfReport(found.map(|found| Cow::Owned(found.to_string())))
            }
        }
    }

    pub(super) fn name<'n>(&'n self, host: &Host<'_, 'n>) -> Option<&'n str> {
        match self {
            Group::OfHost => host.name,
            Group::OfReport(name) => name.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers() {
        for (pointer, is_one) in [
            ("/geo", true),
            ("/geo/country", true),
            ("/geo/a~1b/~0/0", true),
            ("/geo/", true),
            ("/geox", false),
            ("/geo/~2", false),
            ("/geo/~", false),
            ("/clientId", false),
            ("", false),
            ("geo", false),
        ] {
            assert_eq!(Grouping::by_pointer(pointer).is_some(), is_one, "{pointer}");
        }
    }
}
