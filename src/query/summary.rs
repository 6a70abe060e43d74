//! Figures by group and step: how many samples, how many errors, how slow.
//!
//! Owns which cell a sample is counted in, how segments are shared among threads, and when a sidecar stands for
//! its segment. Leaves the figures themselves to [`crate::tally`].
//!
//! ```text
//! segment ─▶ sidecar, if all of it is asked for, by host, and each of its minutes lies in one step ─┐
//!        └─▶ else its lines: names searched for, then parsed, then counted ────────────────────────┴─▶ sum
//! ```
//!
//! Steps begin at multiples of their length since the epoch. A sum is the same in whatever order segments come,
//! but for the rounding of the mean of fractional latencies.
//!
//! With [`Counting::Distinct`] a sample of a client, a host and a `t` counts once, where it was received first:
//! browsers send their history again with each report. Lines are then read in their order, by one thread, and again
//! for each part of the clients whose samples it can tell from each other at a time. What has been seen is kept as
//! hashes of 64 bits: of 100 million samples one is taken for another by a chance of 1 in 3,700.
//!
//! Memory: [`ROWS_BYTES_MAX`] for the figures, the reading of a segment for each thread, and with distinct
//! counting [`SEEN_MAX`] hashes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use serde::Deserialize;
use xxhash_rust::xxh64::Xxh64;

use super::cursor::Cursor;
use super::merge::{Item, Line, Merge, Want, may_hold};
use super::sources::{Source, Store};
use super::{Filter, QueryError};
use crate::idle;
use crate::report::extract::{Extractor, Host, Reading, leading_client};
use crate::report::received_at;
use crate::sidecar::{MINUTE_MS, Sidecar, outcomes};
use crate::tally::{Cell, GroupName, Outcome, Tally};
use crate::time::Timestamp;

/// The most that the figures may take in memory.
pub const ROWS_BYTES_MAX: usize = 16 << 20;

/// The most threads that read for one answer.
const THREADS_MAX: usize = 4;

/// Hashes that are kept: as many as a table of 2^22 places takes, 36 MiB. One thread with such a table decodes half as
/// often as two with half of it each would.
pub const SEEN_MAX: usize = (1 << 22) / 8 * 7;

/// No line has more samples with a time: `{"t":1},` is 8 bytes, and a line at most 1 MiB.
const LINE_SAMPLES_MAX: usize = 1 << 17;

/// Samples are told from each other in at most 2^so many parts.
const PART_BITS_MAX: u32 = 10;

/// How often segments may be removed while they are read before that is the answer.
const TRIES_MAX: usize = 3;

/// Lines between two looks at what is done seldom.
const LINES_BETWEEN: u64 = 64;

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
    let mut tries = 1;
    loop {
        let work = Work::new(store, filter, summary, watch)?;
        let found = match summary.counting {
            Counting::Each => work.share(THREADS_MAX, |worker, next| worker.count_segments(next)),
            Counting::Distinct => {
                let bits = work.first_bits();
                work.share(1, |worker, _| worker.count_distinct(bits))
            }
        };
        match found {
            // Nothing has been told yet: it can be asked anew.
            Err(QueryError::Removed { .. }) if tries < TRIES_MAX => tries += 1,
            found => return Ok(found?.into_figures(filter, summary)),
        }
    }
}

/// What the threads share.
struct Work<'w> {
    store: &'w Store,
    filter: &'w Filter,
    summary: &'w Summary,
    watch: &'w dyn Watch,
    sources: Vec<Source>,
    /// Bytes of all figures so far.
    held_bytes: AtomicUsize,
    /// One of them has failed: the others may stop.
    has_failed: AtomicBool,
}

/// What one thread has counted, or all of them.
#[derive(Default)]
struct Counted {
    tally: Tally,
    first: Option<Timestamp>,
    skipped_lines: u64,
    decoded_segments: usize,
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
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            let mut sum = Ok(Counted::default());
            for thread in threads {
                let counted = match thread.join() {
                    Ok(counted) => counted,
                    Err(panic) => std::panic::resume_unwind(panic),
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

    /// In how many parts to tell samples from each other: 2^this.
    fn first_bits(&self) -> u32 {
        let samples = self.sources.iter().map(|source| {
            let hosts = self.store.sidecar(source).and_then(|sidecar| sidecar.hosts);
            hosts.map_or(0, |hosts| hosts.samples())
        });
        // Hashes do not spread evenly, and a table that overflows is filled for nothing.
        let usual = (SEEN_MAX - LINE_SAMPLES_MAX) as u64 / 8 * 7;
        let parts = samples.sum::<u64>().div_ceil(usual);
        parts.max(1).next_power_of_two().ilog2().min(PART_BITS_MAX)
    }

    /// Counts the samples of a line that have not been seen, of this part if there is one.
    fn count_fresh(
        &self,
        line: &Line<'_>,
        reading: &Reading<'_>,
        part: Option<Part>,
        seen: &mut Seen,
        tally: &mut Tally,
    ) {
        let step_ms = self.step_of(line.received);
        let group = Group::of(&self.summary.group, line.text, reading);
        for host in reading.hosts() {
            if !self.filter.takes_host(host.name) {
                continue;
            }
            let is_fresh = |t: Option<f64>| {
                let hash = hash(reading.client, host.name, t);
                let is_here = part.is_none_or(|part| part.has(hash));
                // One without a time is the same as no other.
                is_here && (t.is_none() || seen.insert(hash))
            };
            let fresh = fresh(&host, is_fresh);
            if !fresh.is_empty() {
                tally.record(group.name(&host), step_ms, fresh);
            }
        }
    }

    fn expect_going_on(&self) -> Result<(), QueryError> {
        match self.has_failed.load(Relaxed) || self.watch.is_gone() {
            true => Err(QueryError::Gone),
            false => Ok(()),
        }
    }

    /// The start of the step that a time lies in.
    fn step_of(&self, received: Timestamp) -> u64 {
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
    fn add(&mut self, other: Counted) {
        self.tally.add(other.tally);
        self.note_first(other.first);
        self.skipped_lines += other.skipped_lines;
        self.decoded_segments += other.decoded_segments;
        self.indexed_segments += other.indexed_segments;
    }

    fn note_first(&mut self, received: Option<Timestamp>) {
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
struct Worker<'w> {
    work: &'w Work<'w>,
    counted: Counted,
    extractor: Extractor,
    /// What it has added to those of all.
    held_bytes: usize,
}

impl Worker<'_> {
    fn count_segments(&mut self, next: &AtomicUsize) -> Result<(), QueryError> {
        let work = self.work;
        while let Some(source) = work.sources.get(next.fetch_add(1, Relaxed)) {
            work.expect_going_on()?;
            match work.store.sidecar(source) {
                Some(sidecar) if !may_hold(work.filter, &sidecar) => (),
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

    fn add_sidecar(&mut self, sidecar: Sidecar) {
        self.counted.indexed_segments += 1;
        self.counted.skipped_lines += sidecar.skipped_lines;
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
        let mut count = 0;
        let unreadable = |error| source.unreadable(error);
        while opened.lines.advance().map_err(unreadable)? {
            let line = opened.lines.line();
            let received = received_at(line).unwrap_or(opened.stat.modified);
            count += 1;
            if count % LINES_BETWEEN == 0 {
                work.expect_going_on()?;
                self.check_bytes(of_segment.bytes())?;
            }
            if !work.filter.takes_time(received) || !work.filter.may_match(line) {
                continue;
            }
            self.counted.note_first(Some(received));
            let counted = self.extractor.read(line, |reading| {
                if !work.filter.takes_client(reading) {
                    return;
                }
                let step_ms = work.step_of(received);
                let group = Group::of(&work.summary.group, line, reading);
                for host in reading.hosts() {
                    if work.filter.takes_host(host.name) {
                        of_segment.record(group.name(&host), step_ms, outcomes(&host));
                    }
                }
            });
            self.counted.skipped_lines += u64::from(counted.is_none());
        }
        of_segment.compact();
        self.counted.tally.add(of_segment);
        Ok(())
    }

    /// Publishes what its figures take, and what takes room for a moment.
    fn check_bytes(&mut self, more: usize) -> Result<(), QueryError> {
        let held_bytes = self.counted.tally.bytes() + more;
        let all = &self.work.held_bytes;
        let before = all.fetch_add(held_bytes, Relaxed);
        all.fetch_sub(self.held_bytes, Relaxed);
        let others = before - self.held_bytes;
        self.held_bytes = held_bytes;
        match others + held_bytes > ROWS_BYTES_MAX {
            true => Err(QueryError::TooManyRows {
                bytes_max: ROWS_BYTES_MAX,
            }),
            false => Ok(()),
        }
    }

    fn count_distinct(&mut self, bits: u32) -> Result<(), QueryError> {
        let mut seen = Seen::with_capacity_and_hasher(SEEN_MAX, Default::default());
        let mut waiting: Vec<Part> = (0..1 << bits).map(|index| Part { bits, index }).collect();
        while let Some(part) = waiting.pop() {
            match self.count_part(part, &mut seen)? {
                Some(counted) => self.counted.add(counted),
                None => waiting.extend(part.halves()?),
            }
            self.check_bytes(0)?;
        }
        Ok(())
    }

    /// What a part comes to; `None` if it has too many samples.
    fn count_part(&mut self, part: Part, seen: &mut Seen) -> Result<Option<Counted>, QueryError> {
        let work = self.work;
        let by = match work.filter.client {
            Some(_) => PartBy::Sample,
            None => PartBy::Client,
        };
        seen.clear();
        let mut counted = Counted::default();
        let mut merge = Merge::new(work.store, work.filter, &Cursor::default())?;
        let mut lines = 0;
        while let Some(Item::Line(line)) = merge.next(Want::Lines)? {
            lines += 1;
            if lines % LINES_BETWEEN == 0 {
                work.expect_going_on()?;
                self.check_bytes(counted.tally.bytes())?;
            }
            let is_elsewhere =
                |client| by == PartBy::Client && !part.has(hash(Some(client), None, None));
            if leading_client(line.text).is_some_and(is_elsewhere)
                || !work.filter.may_match(line.text)
            {
                continue;
            }
            let read = self.extractor.read(line.text, |reading| {
                let is_here = by == PartBy::Sample || part.has(hash(reading.client, None, None));
                if is_here && work.filter.takes_client(reading) {
                    counted.note_first(Some(line.received));
                    let of_part = (by == PartBy::Sample).then_some(part);
                    work.count_fresh(&line, reading, of_part, seen, &mut counted.tally);
                }
            });
            // Of a line that says nothing it cannot be told where it belongs.
            counted.skipped_lines += u64::from(read.is_none() && part.index == 0);
            if seen.len() > SEEN_MAX - LINE_SAMPLES_MAX {
                return Ok(None);
            }
        }
        counted.tally.compact();
        Ok(Some(counted))
    }
}

/// Some of the samples: those whose hash begins with these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// How many bits.
    bits: u32,
    /// What they are; `index < 1 << bits`.
    index: u64,
}

/// Which hash decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartBy {
    /// That of the client, which can often be seen without parsing.
    Client,
    /// That of the sample, where there is but one client.
    Sample,
}

impl Part {
    fn has(self, hash: u64) -> bool {
        // Shifting by all bits is not allowed, and means nothing.
        self.bits == 0 || hash >> (64 - self.bits) == self.index
    }

    fn halves(self) -> Result<[Part; 2], QueryError> {
        if self.bits == PART_BITS_MAX {
            return Err(QueryError::TooManySamples {
                samples_max: (SEEN_MAX as u64) << PART_BITS_MAX,
            });
        }
        let half = |bit| Part {
            bits: self.bits + 1,
            index: self.index << 1 | bit,
        };
        Ok([half(0), half(1)])
    }
}

fn fresh(host: &Host<'_, '_>, mut is_fresh: impl FnMut(Option<f64>) -> bool) -> Vec<Outcome> {
    let samples = host.samples.iter().zip(outcomes(host));
    let fresh = samples.filter(|(sample, _)| is_fresh(sample.t));
    fresh.map(|(_, outcome)| outcome).collect()
}

type Seen = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// Hashes are hashed already. The table takes its place from the low bits, a part from the high ones.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        // The table also looks at the highest bits, which are the same in a part.
        self.0.rotate_left(PART_BITS_MAX)
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is written as a number")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Of who asked, what was asked and when.
fn hash(client: Option<&str>, host: Option<&str>, t: Option<f64>) -> u64 {
    let mut hash = Xxh64::new(0);
    for name in [client, host] {
        // The length tells where one ends, and one more than any that there is none.
        let len = name.map_or(u64::MAX, |name| name.len() as u64);
        hash.update(&len.to_le_bytes());
        hash.update(name.unwrap_or_default().as_bytes());
    }
    // -0 is 0.
    hash.update(&t.map_or(u64::MAX, |t| (t + 0.0).to_bits()).to_le_bytes());
    hash.digest()
}

/// The group of a report's samples, where it is not that of each host.
enum Group<'l> {
    OfHost,
    OfReport(Option<Cow<'l, str>>),
}

#[derive(Deserialize)]
struct Geo {
    geo: Option<serde_json::Value>,
}

impl<'l> Group<'l> {
    fn of(grouping: &Grouping, line: &[u8], reading: &Reading<'l>) -> Group<'l> {
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

    fn name<'n>(&'n self, host: &Host<'_, 'n>) -> Option<&'n str> {
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

    #[test]
    fn parts_share_all_hashes() {
        let whole = Part { bits: 0, index: 0 };
        let [low, high] = whole.halves().unwrap();
        for hash in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
            assert!(whole.has(hash));
            assert!(low.has(hash) != high.has(hash));
        }
        let last = Part {
            bits: PART_BITS_MAX,
            index: 0,
        };
        let error = last.halves().unwrap_err().to_string();
        assert!(error.starts_with("more than 3758096384 samples"), "{error}");
    }

    #[test]
    fn hashes_tell_apart() {
        let hashes = [
            hash(Some("ab"), Some("c"), Some(1.0)),
            hash(Some("a"), Some("bc"), Some(1.0)),
            hash(Some("ab"), None, Some(1.0)),
            hash(None, Some("ab"), Some(1.0)),
            hash(Some("ab"), Some(""), Some(1.0)),
            hash(Some("ab"), Some("c"), Some(2.0)),
            hash(Some("ab"), Some("c"), None),
        ];
        let distinct: HashSet<u64> = hashes.into_iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(hash(None, None, Some(0.0)), hash(None, None, Some(-0.0)));
    }
}
