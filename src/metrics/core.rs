//! What one core counts and measures: the core writes, anyone reads.
//!
//! One thread writes, so a count is a load and a store; nothing is locked, and no cache line is shared with
//! another core that writes. A reader sees each number as it was a moment ago, and who sees a count sees
//! those that were added to before it.
//!
//! Reports make a ledger: each one that was received is stored or refused in the end, and between the two
//! it waits for its commit.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::api::reject::CODES;
use crate::route::Label;
use crate::shard::Reason;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. For the one thread that writes.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Release);
    }

    /// What has been added so far.
    pub fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// A number that is what it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it. For the one thread that writes.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// As it was set last.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Nanoseconds of a clock that only goes forward, from a start that means nothing.
pub type Nanos = u64;

/// Measures times of a core.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Where they go.
    pub metrics: Arc<CoreMetrics>,
    /// Reads the clock.
    pub clock: fn() -> Nanos,
}

/// Upper bounds of the buckets for times, in nanoseconds: 0.1 ms to 10 s.
pub const NANOS_BOUNDS: [Nanos; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of the buckets for the bytes of a commit: from one small report to the largest body of many.
pub const BYTES_BOUNDS: [u64; 8] = [
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    16 << 20,
];

/// How often values have lain between bounds, and their sum.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [u64; N],
    /// Values up to each bound and beyond the one before.
    counts: [Counter; N],
    /// Values beyond the last bound.
    beyond: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    /// With nothing in it.
    pub fn new(bounds: [u64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Adds a value. For the one thread that writes.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|&bound| bound < value);
        self.counts.get(place).unwrap_or(&self.beyond).add(1);
        self.sum.add(value);
    }

    /// How many values each bucket has, the one beyond the last bound included.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().chain([&self.beyond]).map(Counter::get)
    }

    /// All values together.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// A count for each of [`CODES`].
#[derive(Debug, Default)]
pub struct ByCode([Counter; CODES.len()]);

impl ByCode {
    /// The count of this code, one of [`CODES`].
    pub fn of(&self, code: &str) -> &Counter {
        let place = CODES.iter().position(|known| *known == code);
        &self.0[place.expect("`CODES` lists every code")]
    }

    /// Every code with its count, in the order of [`CODES`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.into_iter().zip(self.0.iter().map(Counter::get))
    }
}

/// The requests of one route.
#[derive(Debug, Default)]
pub struct Requests {
    /// Answered with what was asked for.
    pub ok: Counter,
    /// Refused.
    pub refused: ByCode,
}

/// All numbers of one core.
// Aligned, so that no two cores write to one cache line.
#[repr(align(128))]
#[derive(Debug)]
pub struct CoreMetrics {
    /// Reports that were read whole, or refused before that.
    pub received: Counter,
    /// Reports that were answered with 200.
    pub stored: Counter,
    /// Reports that were refused.
    pub refused: ByCode,
    /// Requests in the order of [`Label::ALL`].
    requests: [Requests; Label::ALL.len()],
    /// Reports that were checked in one pass, and
    pub usual_reports: Gauge,
    /// by simd-json, as the last tick found it.
    pub unusual_reports: Gauge,
    /// Bytes that clients have sent.
    pub received_bytes: Counter,
    /// Connections that were accepted, and how many are open.
    pub connections: Counter,
    /// As the last tick found it.
    pub open_connections: Gauge,
    /// How many may be open.
    pub connections_max: Gauge,
    /// Connections that were closed since their address has as many as it may.
    pub refused_connections: Counter,
    /// Failures of `accept4(2)`.
    pub accept_errors: Counter,
    /// Bytes of lines that are not committed, as the last tick found it.
    pub buffer_bytes: Gauge,
    /// Those lines.
    pub waiting_reports: Gauge,
    /// Commits that reached as far as answers wait for.
    pub committed: Counter,
    /// Commits that failed.
    pub failed_commits: Counter,
    /// Lines that were committed.
    pub lines: Counter,
    /// Their bytes,
    pub raw_bytes: Counter,
    /// and the bytes of files that they have become.
    pub compressed_bytes: Counter,
    /// Bytes of lines in a commit.
    pub commit_bytes: Histogram<8>,
    /// Nanoseconds of an `fdatasync(2)`.
    pub sync: Histogram<16>,
    /// Nanoseconds from a request's last byte to its 200.
    pub ack: Histogram<16>,
    /// Nanoseconds that the core came late to its tick.
    pub lag: Histogram<16>,
    /// Segments that have ended, in the order of [`Reason::ALL`].
    flushes: [Counter; Reason::ALL.len()],
    /// Segments that were moved up into the data directory.
    pub sealed: Counter,
}

impl Default for CoreMetrics {
    fn default() -> CoreMetrics {
        CoreMetrics {
            received: Counter::default(),
            stored: Counter::default(),
            refused: ByCode::default(),
            requests: Default::default(),
            usual_reports: Gauge::default(),
            unusual_reports: Gauge::default(),
            received_bytes: Counter::default(),
            connections: Counter::default(),
            open_connections: Gauge::default(),
            connections_max: Gauge::default(),
            refused_connections: Counter::default(),
            accept_errors: Counter::default(),
            buffer_bytes: Gauge::default(),
            waiting_reports: Gauge::default(),
            committed: Counter::default(),
            failed_commits: Counter::default(),
            lines: Counter::default(),
            raw_bytes: Counter::default(),
            compressed_bytes: Counter::default(),
            commit_bytes: Histogram::new(BYTES_BOUNDS),
            sync: Histogram::new(NANOS_BOUNDS),
            ack: Histogram::new(NANOS_BOUNDS),
            lag: Histogram::new(NANOS_BOUNDS),
            flushes: Default::default(),
            sealed: Counter::default(),
        }
    }
}

impl CoreMetrics {
    /// The requests of a route.
    pub fn requests(&self, label: Label) -> &Requests {
        &self.requests[label as usize]
    }

    /// The segments that have ended for this reason.
    pub fn flushes(&self, reason: Reason) -> &Counter {
        &self.flushes[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_code() {
        let counts = ByCode::default();
        counts.of("too_slow").add(1);
        counts.of("not_json").add(2);
        counts.of("too_slow").add(1);
        let counted: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("too_slow", 2), ("not_json", 2)]);
    }

    #[test]
    fn values_lie_up_to_their_bound() {
        let histogram = Histogram::new([10, 20]);
        for value in [0, 10, 11, 20, 21, 1000] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(histogram.sum(), 1062);
    }

    #[test]
    fn each_label_and_reason_has_its_place() {
        let metrics = CoreMetrics::default();
        for (count, label) in (1..).zip(Label::ALL) {
            metrics.requests(label).ok.add(count);
        }
        for (count, reason) in (1..).zip(Reason::ALL) {
            metrics.flushes(reason).add(count);
        }
        for (count, label) in (1..).zip(Label::ALL) {
            assert_eq!(metrics.requests(label).ok.get(), count, "{label:?}");
        }
        for (count, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(metrics.flushes(reason).get(), count, "{reason:?}");
        }
    }
}
