//! How many questions about what is stored are being answered, and how they have ended. Many threads write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Questions that are answered at once. There are more threads for the admin listener, so that metrics are always to
/// be had.
pub const QUERIES_MAX: u64 = 4;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Lines.
    Reports,
    /// Samples.
    Samples,
    /// Figures.
    Summary,
    /// The list of segments.
    Segments,
    /// The file of one.
    Segment,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 5] = [
        Route::Reports,
        Route::Samples,
        Route::Summary,
        Route::Segments,
        Route::Segment,
    ];

    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Route::Reports => "reports",
            Route::Samples => "samples",
            Route::Summary => "summary",
            Route::Segments => "segments",
            Route::Segment => "segment",
        }
    }
}

/// How a question has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With all of the answer.
    Ok,
    /// It cannot be answered as it is.
    Refused,
    /// What is stored could not be read.
    Failed,
    /// Its client has gone.
    ClientGone,
    /// Too many others were being answered.
    TooMany,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 5] = [
        Outcome::Ok,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::ClientGone,
        Outcome::TooMany,
    ];

    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::ClientGone => "client_gone",
            Outcome::TooMany => "too_many",
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Queries {
    running: AtomicU64,
    /// By route, then by outcome.
    ended: [[AtomicU64; Outcome::ALL.len()]; Route::ALL.len()],
}

/// A question that is being answered. One that panics has failed.
#[derive(Debug)]
pub struct Running<'q> {
    queries: &'q Queries,
    route: Route,
    outcome: Outcome,
}

impl Queries {
    /// Begins to answer one, unless [`QUERIES_MAX`] are being answered.
    pub fn begin(&self, route: Route) -> Option<Running<'_>> {
        let more = |running| (running < QUERIES_MAX).then_some(running + 1);
        match self.running.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Some(Running {
                queries: self,
                route,
                outcome: Outcome::Failed,
            }),
            Err(_) => {
                self.count(route, Outcome::TooMany);
                None
            }
        }
    }

    fn count(&self, route: Route, outcome: Outcome) {
        self.ended[route as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// How many are being answered.
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// How many have ended so.
    pub fn ended(&self, route: Route, outcome: Outcome) -> u64 {
        self.ended[route as usize][outcome as usize].load(Relaxed)
    }
}

impl Running<'_> {
    /// It has ended so.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.queries.count(self.route, self.outcome);
        self.queries.running.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_no_more() {
        let queries = Queries::default();
        let mut running: Vec<_> = (0..QUERIES_MAX)
            .map(|_| queries.begin(Route::Summary).unwrap())
            .collect();
        assert!(queries.begin(Route::Reports).is_none());
        assert_eq!(queries.running(), QUERIES_MAX);
        running.pop().unwrap().end(Outcome::Ok);
        // As by a panic.
        drop(running.pop());
        assert_eq!(queries.running(), QUERIES_MAX - 2);
        assert!(queries.begin(Route::Reports).is_some());
        let ended = |route, outcome| queries.ended(route, outcome);
        assert_eq!(ended(Route::Reports, Outcome::TooMany), 1);
        assert_eq!(ended(Route::Reports, Outcome::Failed), 1);
        assert_eq!(ended(Route::Summary, Outcome::Ok), 1);
        assert_eq!(ended(Route::Summary, Outcome::Failed), 1);
    }
}
