//! At a limit the server waits or refuses, says so, and goes on.

use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::reports::Generator;
use crate::support::{Driver, Server, both_drivers, lines, post, wait_until};

both_drivers!(
    connections_beyond_the_limit_wait,
    readers_share_what_a_core_may_hold,
    buffered_reports_that_come_too_fast_wait,
);

const REPORT: &[u8] = br#"{"clientId":"c","timestamp":"t","hosts":[]}"#;

/// With so many descriptors one core keeps 8 connections: 112 are for files, rings and threads.
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
