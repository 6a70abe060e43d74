//! At a limit the server waits or refuses, says so, and goes on.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::reports::Generator;
use crate::support::{Answer, Driver, Server, both_drivers, lines, post, wait_until};

both_drivers!(
    connections_beyond_the_limit_wait,
    readers_share_what_a_core_may_hold,
    buffered_reports_that_come_too_fast_wait,
    an_address_asks_no_faster_than_its_rate,
    proxies_name_whose_rate_it_is,
    an_address_keeps_no_more_connections_than_it_may,
    a_body_has_the_time_that_its_bytes_are_worth,
    what_is_refused_is_counted_by_its_code,
    batches_leave_room_for_single_reports,
);

const REPORT: &[u8] = br#"{"clientId":"c","timestamp":"t","hosts":[]}"#;

/// With so many descriptors one core keeps 8 connections: 96 are for other things.
fn connections_beyond_the_limit_wait(driver: Driver) {
    let server = Server::start_with(driver, &[("WORKERS", "1")], |binary| {
        let mut command = Command::new("/bin/sh");
        command.env_clear();
        command.arg("-c").arg("ulimit -n 104; exec \"$0\"");
        command.arg(binary.get_program());
        command
    });
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let warning = server.wait_for_event("as many connections as may be");
    assert_eq!(warning["limit"], 8);
    // Each of those that were accepted is served; the rest wait for one of them to leave.
    for client in &mut clients {
        client.send(&post(REPORT)).expect("the kernel takes it");
    }
    for (index, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.answer().status, 200, "client {index}");
    }
    assert_eq!(lines(server.dir()).len(), 20);
}

/// Status, and what health says of reports.
fn health(server: &Server) -> (u16, String) {
    let request = b"GET /.well-known/healthcheck HTTP/1.1\r\nHost: h\r\n\r\n";
    let answer = server.connect().exchange(request);
    let health: Value = serde_json::from_str(answer.text()).expect("health is JSON");
    let word = health["checks"]["reports"].as_str();
    (answer.status, word.expect("a word for reports").to_owned())
}

/// Bodies that are announced and not sent hold buffers, but not more than a core may.
fn readers_share_what_a_core_may_hold(driver: Driver) {
    let settings = [("WORKERS", "1"), ("SHARD_BYTES_MAX", "2MiB")];
    let server = Server::start(driver, &settings);
    let head = b"POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    let probe = "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nOrigin: https://netwatch.example\r\n";
    let probe = format!(
        "{probe}Content-Length: 900000\r\n\r\n{}",
        " ".repeat(900_000)
    );
    assert_eq!(health(&server), (200, "accepting".to_owned()));
    let mut held = Vec::new();
    let refused = loop {
        let mut client = server.connect();
        client.send(head).expect("the kernel takes it");
        // The server may answer and close before all of it is sent.
        let _ = client.send(&[b' '; 500_000]);
        held.push(client);
        let answer = server.connect().exchange(probe.as_bytes());
        if answer.status == 503 {
            break answer;
        }
        // It was read whole, then.
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(held.len() < 8, "never refused");
    };
    // Half a body holds half a MiB or one, and the probe nearly one: so two of the former fit beside it,
    // or one, and five do not. One may not have been read yet when the probe is.
    assert!((2..=5).contains(&held.len()), "{} held", held.len());
    let message = "{\"status\":\"error\",\"code\":\"shard_full\",\
        \"message\":\"more reports wait than may\"}\n";
    assert_eq!(
        (refused.text(), refused.field("retry-after")),
        (message, Some("1"))
    );
    let origin = refused.field("access-control-allow-origin");
    assert_eq!(origin, Some("https://netwatch.example"));
    assert_eq!(health(&server), (503, "shard_full".to_owned()));
    // Room again once they are gone.
    drop(held);
    // Health does not look before a commit does.
    assert_eq!(health(&server), (503, "shard_full".to_owned()));
    wait_until("there is room again", || {
        server.connect().exchange(&post(REPORT)).status == 200
    });
    assert_eq!(health(&server), (200, "accepting".to_owned()));
    assert_eq!(lines(server.dir()).len(), 1);
}

/// Answered before they are compressed, reports come faster than they can be, and add up to six times
/// what the core may hold.
fn buffered_reports_that_come_too_fast_wait(driver: Driver) {
    const CLIENTS: u64 = 32;
    const REPORTS: usize = 24;
    let settings = [
        ("WORKERS", "1"),
        ("ACK", "buffered"),
        ("COMPRESSION_LEVEL", "9"),
        ("SHARD_BYTES_MAX", "8MiB"),
    ];
    let mut server = Server::start(driver, &settings);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut connection = server.connect();
            scope.spawn(move || {
                let id = format!("client-{client}");
                let mut generator = Generator::new(client, 100);
                for index in 0..REPORTS {
                    let answer = connection.exchange(&post(&generator.next_report(&id)));
                    assert_eq!(answer.status, 200, "report {index}: {}", answer.text());
                }
            });
        }
    });
    assert!(server.stop().success());
    assert_eq!(lines(server.dir()).len(), CLIENTS as usize * REPORTS);
}

/// The answer to this report with these fields, on a connection of its own.
fn answer_to(server: &Server, fields: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n{fields}");
    let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    server.connect().exchange(request.as_bytes())
}

const REPORT_TEXT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
const LINES: &str = "Content-Type: application/x-ndjson\r\n";

/// Wants a refusal with a time of so many seconds; one less, if the clock has just gone on.
#[track_caller]
fn expect_rate_limited(answer: &Answer, secs: u32) {
    let retry_after = answer.field("retry-after").expect("there is a time");
    let found: u32 = retry_after.parse().expect("the time is a number");
    assert!((secs - 1..=secs).contains(&found), "{found}, not {secs}");
    let message = format!(
        "{{\"status\":\"error\",\"code\":\"rate_limited\",\"message\":\
         \"this address asks too often, the next request is taken in {found} s\"}}\n"
    );
    assert_eq!((answer.status, answer.text()), (429, &*message));
}

fn an_address_asks_no_faster_than_its_rate(driver: Driver) {
    let mut server = Server::start(driver, &[("RATE_PER_IP", "6/h")]);
    // Whatever core they come to; what is no report counts as well.
    for body in [REPORT_TEXT, "{}", REPORT_TEXT] {
        assert_ne!(answer_to(&server, "", body).status, 429);
    }
    // Each of a batch counts: the fourth to the seventh, which nothing has to wait for but the next.
    let four = [REPORT_TEXT; 4].join("\n");
    assert_eq!(answer_to(&server, LINES, &four).status, 200);
    let origin = "Origin: https://netwatch.example\r\n";
    let answer = answer_to(&server, origin, REPORT_TEXT);
    expect_rate_limited(&answer, 1200);
    let exposed = answer.field("access-control-expose-headers");
    assert_eq!(exposed, Some("retry-after"));
    // The connection is kept, and what is not a report is not counted.
    let mut client = server.connect();
    assert_eq!(client.exchange(&post(REPORT)).status, 429);
    client.expect_kept();
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(lines(server.dir()).len(), 6);
}

fn proxies_name_whose_rate_it_is(driver: Driver) {
    let settings = [("RATE_PER_IP", "1/h"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let server = Server::start(driver, &settings);
    let status = |fields: &str| answer_to(&server, fields, REPORT_TEXT).status;
    assert_eq!(status("X-Forwarded-For: 192.0.2.1\r\n"), 200);
    assert_eq!(status("X-Forwarded-For: 192.0.2.1\r\n"), 429);
    // What the client claims is in front of what the proxy says.
    assert_eq!(status("X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\n"), 429);
    assert_eq!(status("X-Forwarded-For: 192.0.2.2\r\n"), 200);
    assert_eq!(status("Forwarded: for=192.0.2.2\r\n"), 429);
    assert_eq!(status("Forwarded: for=\"[2001:db8::1]:80\"\r\n"), 200);
    // The same /64.
    assert_eq!(status("Forwarded: for=\"[2001:db8::2]\"\r\n"), 429);
    assert_eq!(status("Forwarded: for=\"[2001:db8:0:1::1]\"\r\n"), 200);
    // Its own.
    assert_eq!(status(""), 200);
    assert_eq!(status(""), 429);
    drop(server);
    // Whom nobody trusts is nobody's proxy.
    let server = Server::start(driver, &[("RATE_PER_IP", "1/h")]);
    let status = |fields: &str| answer_to(&server, fields, REPORT_TEXT).status;
    assert_eq!(status("X-Forwarded-For: 192.0.2.1\r\n"), 200);
    assert_eq!(status("X-Forwarded-For: 192.0.2.2\r\n"), 429);
}

fn an_address_keeps_no_more_connections_than_it_may(driver: Driver) {
    let mut server = Server::start(driver, &[("CONNECTIONS_PER_IP", "2")]);
    let [mut first, mut second] = [server.connect(), server.connect()];
    first.expect_kept();
    second.expect_kept();
    server.connect().expect_closed();
    let warning = server.wait_for_event("an address has as many connections as it may");
    assert_eq!(warning["limit"], 2);
    first.expect_kept();
    drop(first);
    wait_until("there is room again", || {
        let mut client = server.connect();
        let sent = client.send(&post(REPORT));
        sent.is_ok() && matches!(client.try_answer(), Ok(Some(answer)) if answer.status == 200)
    });
    second.expect_kept();
    drop(second);
    assert_eq!(server.stop().code(), Some(0));
    drop(server);
    // A proxy's are those of many clients.
    let settings = [
        ("CONNECTIONS_PER_IP", "1"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    let server = Server::start(driver, &settings);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.expect_kept();
    }
}

/// A body at 640 bytes a second where 64 are asked for, which takes longer than a body may at first.
fn a_body_has_the_time_that_its_bytes_are_worth(driver: Driver) {
    let settings = [("BODY_SECS", "1"), ("BODY_RATE_MIN", "64")];
    let server = Server::start(driver, &settings);
    let blanks = " ".repeat(2048);
    let body = format!("{REPORT_TEXT}{blanks}");
    let head = "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    let mut client = server.connect();
    client.send(head.as_bytes()).expect("the head is taken");
    let began = Instant::now();
    for piece in body.as_bytes().chunks(64) {
        client.send(piece).expect("the body is taken");
        // Which is also the pace.
        let is_answered = client.has_bytes_within(Duration::from_millis(100));
        assert!(!is_answered || piece.len() < 64, "no answer before its end");
    }
    assert!(began.elapsed() > Duration::from_secs(3));
    assert_eq!(client.answer().status, 200);
}

fn what_is_refused_is_counted_by_its_code(driver: Driver) {
    let settings = [("WORKERS", "1"), ("HEAD_SECS", "1")];
    let mut server = Server::start(driver, &settings);
    for (fields, body) in [
        ("", REPORT_TEXT),
        ("", "{}"),
        ("", "{"),
        ("", "[]"),
        (LINES, "{}\n{\n{}\n"),
        ("Content-Encoding: br\r\n", REPORT_TEXT),
        ("Content-Encoding: gzip\r\n", REPORT_TEXT),
        ("Expect: x\r\n", REPORT_TEXT),
        ("Host: h\r\n", REPORT_TEXT),
    ] {
        answer_to(&server, fields, body);
    }
    let some = [REPORT_TEXT, "7", REPORT_TEXT].join("\n");
    assert_eq!(answer_to(&server, LINES, &some).status, 200);
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /api/v1/reports HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        server.connect().exchange(head.as_bytes());
    }
    let mut late = server.connect();
    late.send(b"G").expect("the byte is taken");
    assert_eq!(late.answer().status, 408);
    drop(late);
    let metrics = server.metrics();
    let counted = |name, parts: &[&str]| metrics.sum(&[&[name], parts].concat());
    let reports = "netwatch_reports_total";
    assert_eq!(counted(reports, &["stored"]), 3);
    let refused = [
        ("unknown_expectation", 1),
        ("unsupported_coding", 1),
        ("malformed_coding", 1),
        ("nothing_accepted", 1),
        ("not_json", 2),
        ("not_a_report", 4),
    ];
    for (code, count) in refused {
        let code = format!("code=\"{code}\"");
        assert_eq!(counted(reports, &["refused", &code]), count, "{code}");
    }
    assert_eq!(counted(reports, &["refused"]), 10);
    assert_eq!(counted("netwatch_reports_received_total", &[]), 13);
    let requests = "netwatch_requests_total";
    for (route, code, count) in [
        ("reports", "ok", 2),
        ("reports", "not_json", 1),
        ("reports", "not_a_report", 1),
        ("reports", "nothing_accepted", 2),
        ("none", "malformed_head", 1),
        ("none", "not_found", 1),
        ("none", "method_not_allowed", 1),
        ("none", "too_slow", 1),
    ] {
        let labels = format!("route=\"{route}\",code=\"{code}\"");
        assert_eq!(counted(requests, &[&labels]), count, "{labels}");
    }
    assert_eq!(server.stop().code(), Some(0));
    let stopped = server.wait_for_event("core stopped");
    assert_eq!(stopped["stored"], 3);
    assert_eq!(
        stopped["refused"],
        "unknown_expectation=1 unsupported_coding=1 malformed_coding=1 nothing_accepted=1 \
         not_json=2 not_a_report=4"
    );
}

/// Batches that lack their last byte fill the half that is theirs, and no more.
fn batches_leave_room_for_single_reports(driver: Driver) {
    const BATCH_BYTES: usize = 3 << 20;
    let settings = [("WORKERS", "1"), ("SHARD_BYTES_MAX", "16MiB")];
    let server = Server::start(driver, &settings);
    let head = "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n";
    let head = format!("{head}{LINES}Content-Length: {BATCH_BYTES}\r\n\r\n");
    let blanks = vec![b' '; BATCH_BYTES - 1];
    let mut held = Vec::new();
    let full = loop {
        let mut client = server.connect();
        client.send(head.as_bytes()).expect("the kernel takes it");
        // The server may answer and close before all of it is sent.
        let _ = client.send(&blanks);
        held.push(client);
        let probe = "\n".repeat(BATCH_BYTES);
        let answer = answer_to(&server, LINES, &probe);
        if answer.status == 503 {
            break answer;
        }
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(held.len() < 8, "never refused");
    };
    assert!(full.text().contains("shard_full"), "{}", full.text());
    // Two and the probe are more than half. One may not have been read yet when the probe is; all of the room
    // would be enough for five.
    assert!((2..=3).contains(&held.len()), "{} held", held.len());
    let single = format!("{REPORT_TEXT}{}", " ".repeat(900_000));
    assert_eq!(answer_to(&server, "", &single).status, 200);
    drop(held);
    wait_until("there is room for a batch again", || {
        answer_to(&server, LINES, REPORT_TEXT).status == 200
    });
}
