//! What the server says of itself adds up, and is what the documentation says it is.

use std::collections::BTreeSet;
use std::thread;

use netwatch_server::metrics::families::{FAMILIES, Kind};

use crate::support::{
    Driver, Metrics, Server, both_drivers, lines, plain_exchange, post, wait_until,
};

both_drivers!(
    the_ledger_adds_up,
    the_ledger_adds_up_with_a_full_disk,
    every_family_is_shown,
    commits_segments_and_recovery_are_counted,
    ways_of_checking_are_counted,
);

const REPORT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
const LINES: &str = "Content-Type: application/x-ndjson\r\n";

fn request(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n");
    format!("{head}{fields}\r\n{body}").into_bytes()
}

/// The ledger at rest: every report that was received is stored or refused.
#[track_caller]
fn settled(server: &Server) -> Metrics {
    let mut last = server.metrics();
    wait_until("received = stored + refused", || {
        last = server.metrics();
        last.sum(&["netwatch_reports_received_total"]) == last.sum(&["netwatch_reports_total"])
    });
    last
}

/// Many clients at once send what is taken, in part or not at all; some go before their answer.
fn the_ledger_adds_up(driver: Driver) {
    const CLIENTS: u64 = 8;
    const ROUNDS: u64 = 40;
    let server = Server::start(driver, &[("FLUSH_BYTES", "4KiB")]);
    let batch = [REPORT, "{}", REPORT, "{", REPORT].join("\n");
    // Reports in it, those that are stored, and the code of the first that is not.
    let kinds: [(&str, &str, u64, u64); 7] = [
        ("", REPORT, 1, 1),
        (LINES, &batch, 5, 3),
        ("", "{}", 1, 0),
        ("", "[]", 1, 0),
        (LINES, "{}\n{}\n", 2, 0),
        ("Content-Encoding: br\r\n", REPORT, 1, 0),
        ("", "not JSON", 1, 0),
    ];
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let mut client = server.connect();
                    for (fields, body, _, stored) in kinds {
                        let answer = client.exchange(&request(fields, body));
                        assert_eq!(answer.status == 200, stored > 0, "{}", answer.text());
                    }
                    // It is stored whether or not somebody waits for the answer.
                    client.send(&post(REPORT.as_bytes())).expect("taken");
                    if round % 2 == 0 {
                        assert_eq!(client.answer().status, 200);
                    }
                    // Half a request is none.
                    let mut client = server.connect();
                    client
                        .send(b"POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n")
                        .expect("taken");
                }
            });
        }
    });
    let rounds = CLIENTS * ROUNDS;
    let (reports, stored) = kinds.iter().fold((1, 1), |(reports, stored), kind| {
        (reports + kind.2, stored + kind.3)
    });
    wait_until("the last report has come", || {
        server.metrics().sum(&["netwatch_reports_received_total"]) == rounds * reports
    });
    let metrics = settled(&server);
    let total = |parts: &[&str]| metrics.sum(parts);
    assert_eq!(
        total(&["netwatch_reports_total", "stored"]),
        rounds * stored
    );
    assert_eq!(
        total(&["netwatch_reports_total", "refused"]),
        rounds * (reports - stored)
    );
    assert_eq!(total(&["netwatch_stored_lines_total"]), rounds * stored);
    assert_eq!(lines(server.dir()).len() as u64, rounds * stored);
    assert_eq!(total(&["netwatch_ack_seconds_count"]), rounds * 3);
    wait_until("nothing waits", || {
        let metrics = server.metrics();
        metrics.sum(&["netwatch_waiting_reports"]) == 0
            && metrics.sum(&["netwatch_buffer_bytes"]) == 0
    });
}

fn the_ledger_adds_up_with_a_full_disk(driver: Driver) {
    // Nothing has as much free.
    let settings = [("WORKERS", "1"), ("MIN_FREE_BYTES", "1TiB")];
    let server = Server::start(driver, &settings);
    let batch = [REPORT, "{}", REPORT].join("\n");
    for _ in 0..20 {
        let mut client = server.connect();
        assert_eq!(client.exchange(&post(REPORT.as_bytes())).status, 503);
        assert_eq!(client.exchange(&request(LINES, &batch)).status, 503);
        assert_eq!(client.exchange(&request("", "{}")).status, 400);
    }
    let metrics = settled(&server);
    assert_eq!(metrics.sum(&["netwatch_reports_received_total"]), 100);
    assert_eq!(metrics.sum(&["netwatch_reports_total", "disk_full"]), 80);
    assert_eq!(metrics.sum(&["netwatch_stored_lines_total"]), 0);
    assert_eq!(metrics.sum(&["netwatch_accepting"]), 0);
    assert!(metrics.sum(&["netwatch_commits_total", "failed"]) > 0);
    assert_eq!(metrics.sum(&["netwatch_disk_reserve_bytes"]), 1 << 40);
}

fn commits_segments_and_recovery_are_counted(driver: Driver) {
    let dir = tempfile::TempDir::new().expect("a directory");
    let settings = [("WORKERS", "1"), ("FLUSH_BYTES", "1KiB")];
    let mut server = Server::start_in(driver, dir.path(), &settings);
    let mut client = server.connect();
    for _ in 0..30 {
        assert_eq!(client.exchange(&post(REPORT.as_bytes())).status, 200);
    }
    let metrics = server.metrics();
    let total = |parts: &[&str]| metrics.sum(parts);
    let line_bytes = REPORT.len() + r#""receivedAt":"2026-02-27T05:14:34.123Z","#.len() + 1;
    let raw = 30 * line_bytes as u64;
    assert_eq!(total(&["netwatch_stored_bytes_total", "raw"]), raw);
    assert_eq!(total(&["netwatch_commit_bytes_sum"]), raw);
    assert_eq!(total(&["netwatch_commits_total", "committed"]), 30);
    assert_eq!(total(&["netwatch_commit_bytes_count"]), 30);
    assert_eq!(total(&["netwatch_commit_bytes_bucket", "4096.0"]), 30);
    let flushes = raw / (1 << 10);
    assert_eq!(total(&["netwatch_flushes_total", "size"]), flushes);
    assert_eq!(total(&["netwatch_flushes_total"]), flushes);
    assert_eq!(total(&["netwatch_connections_total"]), 1);
    assert!(total(&["netwatch_received_bytes_total"]) >= 30 * post(REPORT.as_bytes()).len() as u64);
    wait_until("they are sealed", || {
        server.metrics().sum(&["netwatch_sealed_segments_total"]) == flushes
    });
    // One for each commit, and one more for each segment of so many, whose zeros have been cut off.
    let syncs = server.metrics().sum(&["netwatch_sync_seconds_count"]);
    assert!(1024_u64.div_ceil(line_bytes as u64) > 4);
    assert_eq!(syncs, 30 + flushes);
    wait_until("the connection is seen", || {
        server.metrics().sum(&["netwatch_open_connections"]) == 1
    });
    let written: u64 = std::fs::read_dir(dir.path())
        .expect("listed")
        .chain(std::fs::read_dir(dir.path().join(".open")).expect("listed"))
        .map(|entry| entry.expect("an entry").metadata().expect("is there"))
        .filter(|file| file.is_file())
        .map(|file| file.len())
        .sum();
    assert_eq!(
        server
            .metrics()
            .sum(&["netwatch_stored_bytes_total", "compressed"]),
        written
    );
    server.kill();
    let server = Server::start_in(driver, dir.path(), &settings);
    let metrics = server.metrics();
    let left = 30 - flushes * 1024_u64.div_ceil(line_bytes as u64);
    assert_eq!(
        metrics.sum(&["netwatch_recovered_segments_total", "sealed"]),
        1
    );
    assert_eq!(metrics.sum(&["netwatch_recovered_lines_total"]), left);
    assert!(metrics.sum(&["netwatch_recovered_bytes_total", "kept"]) > 0);
}

fn every_family_is_shown(driver: Driver) {
    let server = Server::start(driver, &[]);
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let (_, text) = plain_exchange(server.admin(), request);
    let mut expected = String::new();
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        let (name, help) = (family.name, family.help);
        expected += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
    let described: String = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(described, expected);
    // Each one has a sample, and none has a label that the table does not know.
    for family in FAMILIES {
        let of_family = |sample: &&str| {
            let name = sample.split(['{', ' ']).next().unwrap_or_default();
            let stem = ["_sum", "_count", "_bucket"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let is_histogram = family.kind == Kind::Histogram;
            name == family.name || (is_histogram && stem == Some(family.name))
        };
        let samples: Vec<&str> = text.lines().filter(of_family).collect();
        assert!(!samples.is_empty(), "{}", family.name);
        for sample in samples {
            let labels = sample
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            for label in labels
                .map_or("", |(labels, _)| labels)
                .split(',')
                .filter(|l| !l.is_empty())
            {
                let name = label.split('=').next().unwrap_or_default();
                assert!(name == "le" || family.labels.contains(&name), "{sample}");
            }
        }
    }
}

#[test]
fn the_documented_metrics() {
    let text = include_str!("../../docs/operations.md");
    let rows: BTreeSet<[String; 4]> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" |");
            let name = cells.next()?.strip_suffix('`')?;
            let is_metric = name.starts_with("netwatch_") || name.starts_with("process_");
            let mut cell = || Some(cells.next()?.trim().to_owned());
            let row = [name.to_owned(), cell()?, cell()?, cell()?];
            is_metric.then_some(row)
        })
        .collect();
    let expected: BTreeSet<[String; 4]> = FAMILIES
        .iter()
        .map(|family| {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge | Kind::Info => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
            [family.name, kind, &labels.join(", "), family.help].map(str::to_owned)
        })
        .collect();
    assert_eq!(rows, expected);
}

fn ways_of_checking_are_counted(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    let spaced = REPORT.replacen('{', "{ ", 1);
    for (body, status) in [(REPORT, 200), (&spaced, 200), (REPORT, 200), ("{}", 400)] {
        assert_eq!(client.exchange(&post(body.as_bytes())).status, status);
    }
    wait_until("they are seen", || {
        let metrics = server.metrics();
        let way = |way| metrics.sum(&["netwatch_checked_reports_total", way]);
        (way("\"usual\""), way("\"unusual\"")) == (2, 2)
    });
}
