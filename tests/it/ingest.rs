//! What was acknowledged is stored, once, byte for byte, in segments as they are described.

use std::collections::BTreeSet;
use std::path::PathBuf;

use netwatch_server::segment::name::SegmentName;
use netwatch_server::time::Timestamp;
use tempfile::TempDir;

use crate::journal::Journal;
use crate::ledger::{Check, Findings};
use crate::load::{Load, OnError, Pace, Tally, Until};
use crate::support::{self, Driver, Segment, Server, both_drivers};

both_drivers!(
    durable_reports,
    written_reports,
    buffered_reports,
    a_segment_for_every_report,
    a_shard_that_is_full_refuses_and_recovers,
);

/// Of twenty reports 14 have 2 KB, 5 have 13 KB, one has 62 KB.
const MIXED: [u32; 20] = [
    1, 1, 20, 1, 1, 1, 20, 1, 1, 100, 1, 20, 1, 1, 1, 20, 1, 1, 20, 1,
];

const REPORTS: u32 = 10_000;

fn durable_reports(driver: Driver) {
    mixed_reports(driver, "durable");
}

fn written_reports(driver: Driver) {
    mixed_reports(driver, "written");
}

fn buffered_reports(driver: Driver) {
    mixed_reports(driver, "buffered");
}

fn mixed_reports(driver: Driver, ack: &str) {
    let mut stored = Stored::new(driver, &[("ACK", ack), ("FLUSH_BYTES", "256KiB")]);
    stored.post(REPORTS, 32, &MIXED);
    let segments = stored.stop(REPORTS);
    // 78 MB of text.
    assert!(segments.len() > 250, "{} segments", segments.len());
    assert_eq!(check_names(&segments), BTreeSet::from([0, 1]));
}

/// Several a millisecond: their names have to make way for each other.
fn a_segment_for_every_report(driver: Driver) {
    let mut stored = Stored::new(driver, &[("FLUSH_BYTES", "1KiB"), ("ACK", "written")]);
    stored.post(600, 8, &[1]);
    let segments = stored.stop(600);
    assert_eq!(segments.len(), 600);
    check_names(&segments);
}

/// Sixteen reports of almost 1 MiB where there is room for two.
fn a_shard_that_is_full_refuses_and_recovers(driver: Driver) {
    let settings = [("SHARD_BYTES_MAX", "2MiB"), ("WORKERS", "1")];
    let mut stored = Stored::new(driver, &settings);
    let tally = stored.load(96, 16, &[1500]);
    let refused: Vec<_> = tally.refused.keys().map(String::as_str).collect();
    assert_eq!(
        (refused, tally.without_retry_after),
        (vec!["shard_full"], 0)
    );
    stored.post(100, 1, &[1]);
    stored.stop(tally.acknowledged as u32 + 100);
}

/// A server, and the journals of what was sent to it.
struct Stored {
    server: Server,
    dir: TempDir,
    journals: Vec<PathBuf>,
}

impl Stored {
    #[track_caller]
    fn new(driver: Driver, settings: &[(&str, &str)]) -> Stored {
        Stored {
            server: Server::start(driver, settings),
            dir: TempDir::new().expect("a temporary directory can be made"),
            journals: Vec::new(),
        }
    }

    /// Sends reports; all of them are answered.
    #[track_caller]
    fn load(&mut self, count: u32, connections: u32, samples: &[u32]) -> Tally {
        let seed = self.journals.len() as u64;
        let path = self.dir.path().join(format!("journal-{seed}"));
        let load = Load {
            addr: self.server.address(),
            connections,
            seed,
            samples: samples.to_vec(),
            until: Until::Count(count),
            pace: Pace::Closed,
            on_error: OnError::Stop,
        };
        let journal = Journal::create(&path, seed).expect("the journal can be made");
        let tally = load.run(journal).expect("the journal can be written");
        assert_eq!((tally.sent, tally.errors), (u64::from(count), 0));
        self.journals.push(path);
        tally
    }

    /// Sends reports; all of them are acknowledged.
    #[track_caller]
    fn post(&mut self, count: u32, connections: u32, samples: &[u32]) {
        let tally = self.load(count, connections, samples);
        let refused = &tally.refused;
        assert_eq!(tally.acknowledged, u64::from(count), "{refused:?}");
    }

    /// Stops the server and checks that it has stored what it acknowledged, so many reports, and nothing
    /// else.
    #[track_caller]
    fn stop(&mut self, reports: u32) -> Vec<Segment> {
        assert_eq!(self.server.stop().code(), Some(0));
        assert_eq!(support::open(self.server.dir()), []);
        let check = Check {
            journals: &self.journals,
            data: self.server.dir(),
            with_open: false,
            newer: None,
            may_lose_ms: 0,
        };
        let segments = support::sealed(self.server.dir());
        let all_right = Findings {
            segments: segments.len() as u64,
            lines: u64::from(reports),
            acknowledged: u64::from(reports),
            ..Findings::default()
        };
        let findings = check.run().expect("everything can be read");
        assert_eq!(findings, all_right);
        segments
    }
}

/// Checks that each name is the time of the first line or, where that was taken, shortly after it.
/// Returns the cores.
#[track_caller]
fn check_names(segments: &[Segment]) -> BTreeSet<u16> {
    let mut cores = BTreeSet::new();
    for Segment { name, lines } in segments {
        let parsed = SegmentName::parse(name).unwrap_or_else(|| panic!("no name: {name}"));
        let first = netwatch_server::report::received_at(lines[0].as_bytes());
        let first = first.map_or(0, Timestamp::ms);
        assert!(
            (first..first + 1000).contains(&parsed.time.ms()),
            "{name} begins with {}",
            lines[0]
        );
        cores.insert(parsed.core);
    }
    cores
}
