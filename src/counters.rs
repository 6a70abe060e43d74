//! What a core has stored and refused, by stable code: the core counts, anyone reads.
//!
//! One thread writes, so a count is a load and a store; nothing is locked, and no cache line is shared with
//! another core that writes. A reader sees each count as it was a moment ago.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::api::reject::CODES;

/// The counts of one core.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reports that were answered with 200.
    stored: AtomicU64,
    /// Reports, and requests without any, that were refused; in the order of [`CODES`].
    refused: [AtomicU64; CODES.len()],
}

impl Counters {
    /// Counts reports that have been answered with 200. For the core's own thread.
    pub fn count_stored(&self, reports: u64) {
        add(&self.stored, reports);
    }

    /// Counts refusals of this code, one of [`CODES`]. For the core's own thread.
    pub fn count_refused(&self, code: &str, count: u64) {
        let place = CODES.iter().position(|known| *known == code);
        let place = place.expect("`CODES` lists every code");
        add(&self.refused[place], count);
    }

    /// Reports that were answered with 200.
    pub fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// The codes that something was refused with, and how often.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Relaxed));
        CODES
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed) + more, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let counters = Counters::default();
        assert_eq!((counters.stored(), counters.refused().count()), (0, 0));
        counters.count_stored(3);
        counters.count_stored(1);
        counters.count_refused("too_slow", 1);
        counters.count_refused("not_json", 2);
        counters.count_refused("too_slow", 1);
        assert_eq!(counters.stored(), 4);
        let refused: Vec<_> = counters.refused().collect();
        assert_eq!(refused, [("too_slow", 2), ("not_json", 2)]);
    }
}
