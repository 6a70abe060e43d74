//! The journal of a load run: which reports it has sent, and which of them the server acknowledged.
//!
//! A report is known by its `clientId`, from which all its bytes can be made again:
//!
//! ```text
//! load-<seed>-<connection>-<n>-<samples>      n-th report of a connection, samples per host
//! ```
//!
//! The file is text, a fact a line, in the order in which the facts became known:
//!
//! ```text
//! run 7                          first: the seed; runs on one data directory have different ones
//! ack 1772169274123 load-7-0-0-20    its 200 had been read then (ms of the wall clock)
//! sent 0 1234                    last, for each connection: it has begun to send 0..1234
//! killed 1772169275000           added by whoever killed the server or cut its power
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::reports::{Generator, Random};

/// The name of one report among all those of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportId {
    pub(crate) seed: u64,
    pub(crate) connection: u32,
    pub(crate) n: u32,
    /// Per host: 1, 20 and 100 make 2, 13 and 62 KB.
    pub(crate) samples: u32,
}

impl ReportId {
    /// Reads what `Display` writes, and nothing else.
    pub(crate) fn parse(text: &str) -> Option<ReportId> {
        let mut numbers = text.strip_prefix("load-")?.split('-');
        let id = ReportId {
            seed: numbers.next()?.parse().ok()?,
            connection: numbers.next()?.parse().ok()?,
            n: numbers.next()?.parse().ok()?,
            samples: numbers.next()?.parse().ok()?,
        };
        (id.to_string() == text).then_some(id)
    }

    /// The bytes of the report, always the same ones.
    pub(crate) fn report(self) -> Vec<u8> {
        let place = u64::from(self.connection) << 32 | u64::from(self.n);
        let seed = Random::new(self.seed).next_u64() ^ Random::new(place).next_u64();
        Generator::new(seed, self.samples as usize).next_report(&self.to_string())
    }
}

impl fmt::Display for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReportId {
            seed,
            connection,
            n,
            samples,
        } = self;
        write!(f, "load-{seed}-{connection}-{n}-{samples}")
    }
}

/// The journal of a run that goes on, shared by its connections.
pub(crate) struct Journal {
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    /// Begins the journal of the run `seed`.
    pub(crate) fn create(path: &Path, seed: u64) -> io::Result<Journal> {
        let mut file = BufWriter::new(File::create_new(path)?);
        writeln!(file, "run {seed}")?;
        Ok(Journal {
            file: Mutex::new(file),
        })
    }

    /// Notes that the 200 of a report has been read.
    pub(crate) fn acknowledge(&self, id: ReportId) -> io::Result<()> {
        // A thread that panicked in here has ended the run already.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "ack {} {id}", now_ms())
    }

    /// Ends the journal: how many reports each connection has begun to send.
    pub(crate) fn end(self, sent: &[u32]) -> io::Result<()> {
        let file = self.file.into_inner();
        let mut file = file.unwrap_or_else(PoisonError::into_inner);
        for (connection, count) in sent.iter().enumerate() {
            writeln!(file, "sent {connection} {count}")?;
        }
        file.flush()
    }
}

/// Adds to the journal of a run that has ended when its server was killed.
pub(crate) fn note_killed(path: &Path, killed_ms: u64) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    writeln!(file, "killed {killed_ms}")
}

/// The wall clock, in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_millis() as u64)
}

/// What a journal says, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Run { seed: u64 },
    Ack { at_ms: u64, id: ReportId },
    Sent { connection: u32, count: u32 },
    Killed { at_ms: u64 },
}

impl Fact {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Option<Fact> {
        let mut words = line.split(' ');
        let fact = match words.next()? {
            "run" => Fact::Run {
                seed: words.next()?.parse().ok()?,
            },
            "ack" => Fact::Ack {
                at_ms: words.next()?.parse().ok()?,
                id: ReportId::parse(words.next()?)?,
            },
            "sent" => Fact::Sent {
                connection: words.next()?.parse().ok()?,
                count: words.next()?.parse().ok()?,
            },
            "killed" => Fact::Killed {
                at_ms: words.next()?.parse().ok()?,
            },
            _ => return None,
        };
        words.next().is_none().then_some(fact)
    }
}
