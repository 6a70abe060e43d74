//! Load: connections that post reports as fast as they are answered, or at a rate, and keep a journal.
//!
//! At a rate the times are fixed beforehand, and a latency counts from the time at which the report was
//! due: a server that stops for a second is seen by all the reports of that second, not by one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::journal::{Journal, ReportId};

/// From one try to connect to the next.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What to send, and how.
pub(crate) struct Load {
    pub(crate) addr: SocketAddr,
    /// Each has a thread.
    pub(crate) connections: u32,
    /// Of the run: part of every report's name.
    pub(crate) seed: u64,
    /// The reports of a connection take these sizes in turn.
    pub(crate) samples: Vec<u32>,
    pub(crate) until: Until,
    pub(crate) pace: Pace,
    pub(crate) on_error: OnError,
}

/// When a run ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// Together the connections have sent so many.
    Count(u32),
    /// So much time has passed.
    Elapsed(Duration),
}

/// When a connection sends its next report.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Once the one before is answered.
    Closed,
    /// So many a second from all connections together, or as fast as they are answered.
    Open { reports_per_sec: f64 },
}

/// What a connection does when it breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It sends no more.
    Stop,
    /// It connects again and goes on with the next report: nobody knows what became of this one.
    Reconnect,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Tally {
    /// Reports that were begun to be sent.
    pub(crate) sent: u64,
    /// Answered 200.
    pub(crate) acknowledged: u64,
    /// Answered otherwise, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Answered 503 without being told when to try again.
    pub(crate) without_retry_after: u64,
    /// Not answered.
    pub(crate) errors: u64,
    /// From the first to the last.
    pub(crate) elapsed: Duration,
    /// Of all that were answered, in microseconds, ascending.
    pub(crate) latencies_us: Vec<u32>,
}

impl Tally {
    /// The latency in milliseconds that the fraction `at` of all answers did not exceed.
    pub(crate) fn latency_ms(&self, at: f64) -> Option<f64> {
        let last = self.latencies_us.len().checked_sub(1)?;
        let index = (last as f64 * at).round() as usize;
        Some(f64::from(self.latencies_us[index]) / 1000.0)
    }

    fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.without_retry_after += other.without_retry_after;
        self.errors += other.errors;
        self.latencies_us.extend(other.latencies_us);
    }
}

impl Load {
    /// Sends it all, and ends the journal.
    ///
    /// # Errors
    ///
    /// The journal cannot be written. What the server does is in the tally.
    pub(crate) fn run(&self, journal: Journal) -> io::Result<Tally> {
        let start = Instant::now();
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let journal = &journal;
            let threads: Vec<_> = (0..self.connections)
                .map(|connection| scope.spawn(move || self.run_one(connection, start, journal)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                let panicked = |_| Err(io::Error::other("a connection's thread panicked"));
                thread.join().unwrap_or_else(panicked)
            });
            joined.collect::<io::Result<_>>()
        })?;
        let sent: Vec<u32> = tallies.iter().map(|tally| tally.sent as u32).collect();
        journal.end(&sent)?;
        let mut total = Tally::default();
        for tally in tallies {
            total.add(tally);
        }
        total.elapsed = start.elapsed();
        total.latencies_us.sort_unstable();
        Ok(total)
    }

    fn run_one(&self, connection: u32, start: Instant, journal: &Journal) -> io::Result<Tally> {
        let mut client = Client::new(self.addr);
        let mut tally = Tally::default();
        for n in 0.. {
            let due = self.due(connection, n, start);
            if self.is_over(connection, n, due.max(Instant::now()) - start) {
                break;
            }
            let id = ReportId {
                seed: self.seed,
                connection,
                n,
                samples: self.samples[n as usize % self.samples.len()],
            };
            let report = id.report();
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = match self.pace {
                Pace::Closed => Instant::now(),
                Pace::Open { .. } => due,
            };
            tally.sent += 1;
            match client.post(&report) {
                Ok(answer) => {
                    let latency_us = began.elapsed().as_micros();
                    let latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX);
                    tally.latencies_us.push(latency_us);
                    if answer.status == 200 {
                        journal.acknowledge(id)?;
                        tally.acknowledged += 1;
                        continue;
                    }
                    let is_bare = answer.status == 503 && !answer.has_retry_after;
                    tally.without_retry_after += u64::from(is_bare);
                    *tally.refused.entry(answer.code()).or_default() += 1;
                }
                Err(_) => {
                    tally.errors += 1;
                    if self.on_error == OnError::Stop {
                        break;
                    }
                    thread::sleep(RECONNECT_PAUSE);
                }
            }
        }
        Ok(tally)
    }

    /// When the `n`-th report of a connection is to be sent.
    fn due(&self, connection: u32, n: u32, start: Instant) -> Instant {
        match self.pace {
            Pace::Closed => start,
            Pace::Open { reports_per_sec } => {
                let before = f64::from(n) * f64::from(self.connections) + f64::from(connection);
                start + Duration::from_secs_f64(before / reports_per_sec)
            }
        }
    }

    /// Whether the `n`-th report of a connection is one too many, `elapsed` after the start.
    fn is_over(&self, connection: u32, n: u32, elapsed: Duration) -> bool {
        match self.until {
            Until::Elapsed(end) => elapsed >= end,
            Until::Count(count) => {
                let is_more = connection < count % self.connections;
                n >= count / self.connections + u32::from(is_more)
            }
        }
    }
}
