//! Whether reports are being accepted, core by core, and why not.
//!
//! Written by each core when its state changes, around each commit and seal, and at each tick; read by whoever
//! answers a health check, shows metrics, or feeds the watchdog. Atomics, each on its core's own cache line: no
//! core waits for another.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::segment::name::CoreIndex;
use crate::shard::Refusal;

/// A commit or seal that takes longer than this is stuck: the disk does not answer.
pub const WRITE_STUCK_MS: u64 = 5_000;

/// What a core says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reports are accepted.
    Accepting,
    /// Reports are refused.
    Refusing(Refusal),
    /// A commit or seal has been under way for this long.
    Stuck {
        /// Milliseconds.
        since_ms: u64,
    },
}

/// The state of every core.
#[derive(Debug)]
pub struct Health {
    cores: Box<[CoreHealth]>,
}

#[repr(align(64))]
#[derive(Debug, Default)]
struct CoreHealth {
    /// 0: accepting; else 1 + the index of the refusal in `REFUSALS`.
    refusal: AtomicU8,
    /// When the commit or seal under way began, on the monotonic clock; 0: none is.
    write_began_ms: AtomicU64,
    /// When the core last came to its tick, on the monotonic clock.
    ticked_ms: AtomicU64,
}

const REFUSALS: [Refusal; 4] = [
    Refusal::ShardFull,
    Refusal::DiskFull,
    Refusal::DiskFailing,
    Refusal::Draining,
];

impl Health {
    /// All cores accepting.
    pub fn new(cores: usize) -> Health {
        Health {
            cores: (0..cores).map(|_| CoreHealth::default()).collect(),
        }
    }

    fn core(&self, core: CoreIndex) -> &CoreHealth {
        &self.cores[usize::from(core)]
    }

    /// The core accepts reports.
    pub fn accept(&self, core: CoreIndex) {
        self.core(core).refusal.store(0, Relaxed);
    }

    /// The core refuses reports.
    pub fn refuse(&self, core: CoreIndex, why: Refusal) {
        let index = REFUSALS.iter().position(|&refusal| refusal == why);
        let index = index.expect("`REFUSALS` has them all") as u8;
        self.core(core).refusal.store(index + 1, Relaxed);
    }

    /// The core begins a commit or a seal.
    pub fn begin_write(&self, core: CoreIndex, now_ms: u64) {
        let began = &self.core(core).write_began_ms;
        began.store(now_ms.max(1), Relaxed);
    }

    /// The core's commit or seal has ended, whatever came of it.
    pub fn end_write(&self, core: CoreIndex) {
        self.core(core).write_began_ms.store(0, Relaxed);
    }

    /// The core has come to its tick.
    pub fn note_tick(&self, core: CoreIndex, now_ms: u64) {
        self.core(core).ticked_ms.store(now_ms, Relaxed);
    }

    /// The core has ended, and comes to no tick any more.
    pub fn note_end(&self, core: CoreIndex) {
        self.note_tick(core, u64::MAX);
    }

    /// The core that came to its tick the longest ago, and when that was.
    pub fn last_tick(&self) -> Option<(CoreIndex, u64)> {
        let ticks = self.cores.iter().map(|core| core.ticked_ms.load(Relaxed));
        (0..).zip(ticks).min_by_key(|(_, ticked_ms)| *ticked_ms)
    }

    /// What each core says, by index.
    pub fn verdicts(&self, now_ms: u64) -> impl Iterator<Item = Verdict> {
        self.cores.iter().map(move |core| {
            let refusal = usize::from(core.refusal.load(Relaxed));
            if refusal > 0 {
                return Verdict::Refusing(REFUSALS[refusal - 1]);
            }
            match core.write_began_ms.load(Relaxed) {
                0 => Verdict::Accepting,
                began => match now_ms.saturating_sub(began) {
                    since_ms if since_ms > WRITE_STUCK_MS => Verdict::Stuck { since_ms },
                    _ => Verdict::Accepting,
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_speaks_for_itself() {
        let health = Health::new(2);
        let verdicts = |now_ms| health.verdicts(now_ms).collect::<Vec<_>>();
        assert_eq!(verdicts(0), [Verdict::Accepting; 2]);
        for why in REFUSALS {
            health.refuse(1, why);
            assert_eq!(verdicts(0), [Verdict::Accepting, Verdict::Refusing(why)]);
        }
        health.accept(1);
        health.begin_write(0, 10);
        assert_eq!(verdicts(10 + WRITE_STUCK_MS), [Verdict::Accepting; 2]);
        let since_ms = WRITE_STUCK_MS + 1;
        assert_eq!(
            verdicts(10 + since_ms),
            [Verdict::Stuck { since_ms }, Verdict::Accepting]
        );
        health.end_write(0);
        assert_eq!(verdicts(10 + since_ms), [Verdict::Accepting; 2]);
        assert_eq!(health.last_tick(), Some((0, 0)));
        health.note_tick(0, 20);
        assert_eq!(health.last_tick(), Some((1, 0)));
        health.note_tick(1, 30);
        assert_eq!(health.last_tick(), Some((0, 20)));
    }
}
