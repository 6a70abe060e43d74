//! The segments of `.open` that a core writes or has given up, and how much of each may be read.
//!
//! The core is the one writer: it replaces the list when a segment is made or sealed, and raises a number at
//! each commit. Whoever reads sees both without a lock. What stands in a file behind its committed bytes has
//! been promised to nobody: it may be refused yet.
//!
//! ```text
//! create ─▶ note_created ─▶ commit, note_committed, … ─▶ seal ─▶ note_sealed
//!                                  └─▶ given up: it stays, as salvage may take its time
//! ```

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use arc_swap::ArcSwap;

/// Segments of one core that are kept in mind: one being written, one being sealed, and more that were given
/// up than can wait for salvage.
const OPEN_MAX: usize = 128;

/// The open segments of one core.
#[derive(Debug, Default)]
pub struct OpenSegments(ArcSwap<Vec<Arc<OpenSegment>>>);

/// An open segment.
#[derive(Debug)]
pub struct OpenSegment {
    /// Its name in `.open`.
    name: Box<str>,
    /// Bytes of the file that readers may take.
    committed: AtomicU64,
}

impl OpenSegment {
    /// Notes that so many bytes of the file are committed. For its core.
    pub fn note_committed(&self, bytes: u64) {
        self.committed.store(bytes, Release);
    }
}

impl OpenSegments {
    /// Adds a segment of which nothing is committed. For its core; the oldest makes room.
    pub fn note_created(&self, name: &str) -> Arc<OpenSegment> {
        let created = Arc::new(OpenSegment {
            name: name.into(),
            committed: AtomicU64::new(0),
        });
        let mut segments = Vec::clone(&self.0.load());
        if segments.len() == OPEN_MAX {
            segments.remove(0);
        }
        segments.push(Arc::clone(&created));
        self.0.store(Arc::new(segments));
        created
    }

    /// Drops a segment that has been moved up. For its core.
    pub fn note_sealed(&self, name: &str) {
        let mut segments = Vec::clone(&self.0.load());
        segments.retain(|segment| *segment.name != *name);
        self.0.store(Arc::new(segments));
    }

    /// How much of a file in `.open` may be read; `None` if this core knows nothing of it.
    pub fn committed(&self, name: &str) -> Option<u64> {
        let segments = self.0.load();
        let segment = segments.iter().find(|segment| *segment.name == *name)?;
        Some(segment.committed.load(Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_read() {
        let segments = OpenSegments::default();
        let first = segments.note_created("a");
        let second = segments.note_created("b");
        assert_eq!(segments.committed("a"), Some(0));
        first.note_committed(5);
        second.note_committed(7);
        first.note_committed(6);
        assert_eq!(segments.committed("a"), Some(6));
        segments.note_sealed("a");
        assert_eq!(segments.committed("a"), None);
        assert_eq!(segments.committed("b"), Some(7));
    }

    #[test]
    fn the_oldest_makes_room() {
        let segments = OpenSegments::default();
        for index in 0..=OPEN_MAX {
            segments.note_created(&index.to_string());
        }
        assert_eq!(segments.committed("0"), None);
        assert_eq!(segments.committed("1"), Some(0));
    }
}
