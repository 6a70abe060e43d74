//! Bytes in, exact bytes out.

use crate::support::{self, Driver, Server, both_drivers, post};

both_drivers!(a_report_is_stored_as_it_came);

const REPORT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;

fn a_report_is_stored_as_it_came(driver: Driver) {
    let mut server = Server::start(driver, &[]);
    let mut client = server.connect();
    let answer = client.exchange(&post(REPORT.as_bytes()));
    assert_eq!(
        (answer.status, answer.text()),
        (200, "{\"status\":\"ok\"}\n")
    );
    client.expect_kept();
    assert_eq!(support::open(server.dir()).len(), 1);
    drop(client);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(support::open(server.dir()), []);
    let lines = support::lines(server.dir());
    let [line] = lines.as_slice() else {
        panic!("one line expected, found {lines:?}");
    };
    let (stamp, rest) = line.split_at(r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#.len());
    assert!(stamp.starts_with(r#"{"receivedAt":""#) && stamp.ends_with(r#"Z","#));
    assert_eq!(rest, &REPORT[1..]);
}
