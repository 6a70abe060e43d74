//! A server that is killed under load has kept what it acknowledged when it starts again.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::journal::{Journal, note_killed, now_ms};
use crate::ledger::Check;
use crate::load::{Load, OnError, Pace, Until};
use crate::reports::Random;
use crate::support::{self, Driver, PATIENCE, Server, both_drivers, wait_until};

both_drivers!(
    durable_reports_survive_a_kill,
    written_reports_survive_a_kill,
    buffered_reports_survive_a_kill_but_for_the_last,
);

const ROUNDS: u64 = 3;

/// `ACK=buffered` may lose a second. What is acknowledged is noted a little later; here much later, since
/// the machine may be busy. What it means in time is for longer runs to show.
const BUFFERED_MAY_LOSE_MS: u64 = 2000;

fn durable_reports_survive_a_kill(driver: Driver) {
    survive_kills(driver, "durable", 0);
}

fn written_reports_survive_a_kill(driver: Driver) {
    survive_kills(driver, "written", 0);
}

fn buffered_reports_survive_a_kill_but_for_the_last(driver: Driver) {
    survive_kills(driver, "buffered", BUFFERED_MAY_LOSE_MS);
}

fn survive_kills(driver: Driver, ack: &str, may_lose_ms: u64) {
    let dirs = TempDir::new().expect("a temporary directory can be made");
    let data = dirs.path().join("data");
    let settings = [("ACK", ack), ("FLUSH_BYTES", "256KiB")];
    let mut journals = Vec::new();
    for round in 0..ROUNDS {
        let mut server = Server::start_in(driver, &data, &settings);
        check(&data, &journals, may_lose_ms);
        let journal = dirs.path().join(format!("journal-{round}"));
        // At some moment of some commit.
        let more = 2 + Random::new(now_ms()).below(8) as usize;
        let segments = sealed_count(&data) + more;
        let killed_ms = kill_under_load(&mut server, &journal, round, segments);
        // Where nothing may be lost, nor may what was acknowledged while the signal was on its way.
        if may_lose_ms > 0 {
            note_killed(&journal, killed_ms).expect("the journal can be written");
        }
        journals.push(journal);
    }
    let mut server = Server::start_in(driver, &data, &settings);
    assert_eq!(support::open(&data), []);
    check(&data, &journals, may_lose_ms);
    assert_eq!(server.stop().code(), Some(0));
    check(&data, &journals, may_lose_ms);
}

/// Kills the server once there are so many sealed segments; returns when.
#[track_caller]
fn kill_under_load(server: &mut Server, journal: &Path, seed: u64, segments: usize) -> u64 {
    let load = Load {
        addr: server.address(),
        connections: 16,
        seed,
        samples: vec![1, 20, 1, 1],
        // Longer than the wait for its end.
        until: Until::Elapsed(2 * PATIENCE),
        pace: Pace::Closed,
        on_error: OnError::Stop,
    };
    let (tally, killed_ms) = thread::scope(|scope| {
        let notes = Journal::create(journal, seed).expect("the journal can be made");
        let load = scope.spawn(|| load.run(notes));
        wait_until("segments are sealed", || {
            sealed_count(server.dir()) >= segments
        });
        let killed_ms = now_ms();
        server.kill();
        let tally = load.join().expect("the load ends");
        (tally.expect("the journal can be written"), killed_ms)
    });
    assert!(tally.acknowledged > 0);
    assert_eq!(tally.errors, 16, "every connection was cut");
    assert!(tally.elapsed < PATIENCE + Duration::from_secs(1));
    killed_ms
}

fn sealed_count(data: &Path) -> usize {
    let entries = fs::read_dir(data).expect("the directory is there");
    let names = entries.map(|entry| entry.expect("the directory can be listed").file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".zst"))
        .count()
}

#[track_caller]
fn check(data: &Path, journals: &[PathBuf], may_lose_ms: u64) {
    let check = Check {
        journals,
        data,
        with_open: false,
        newer: None,
        may_lose_ms,
    };
    let findings = check.run().expect("everything can be read");
    assert!(findings.is_good(), "{findings:#?}");
}
