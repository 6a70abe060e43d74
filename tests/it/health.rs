//! What an operator's probe sees.

use std::time::{SystemTime, UNIX_EPOCH};

use netwatch_server::time::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Driver, Server, both_drivers};

both_drivers!(
    health_has_the_go_servers_fields,
    a_draining_server_is_not_healthy,
);

fn health_has_the_go_servers_fields(driver: Driver) {
    let server = Server::start(driver, &[("WORKERS", "1")]);
    let mut client = server.connect();
    for path in [
        "/.well-known/healthcheck",
        "/.well-known/healthcheck.json",
        "/.well-known/healthcheck?probe=1",
    ] {
        let answer = client.exchange(get(path).as_bytes());
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().ends_with("}\n"), "one line: {answer:?}");
        let mut health: Value = serde_json::from_str(answer.text()).expect("health is JSON");

        let now = health["now"].as_str().map(str::as_bytes);
        let now = now.and_then(Timestamp::parse_rfc3339).expect("a time");
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock_ms = clock.expect("the clock is right").as_millis();
        assert!(u128::from(now.ms()).abs_diff(clock_ms) < 30_000, "{health}");
        let uptime = health["uptime_seconds"].as_u64().expect("a number");
        assert!(uptime < 30, "{health}");
        let human = health["uptime_human"].as_str().expect("a text");
        assert!(human.ends_with('s'), "{health}");

        for varying in ["now", "uptime_seconds", "uptime_human"] {
            health[varying] = Value::Null;
        }
        let expected = json!({
            "status": "ok",
            "now": null,
            "uptime_seconds": null,
            "uptime_human": null,
            "version": env!("CARGO_PKG_VERSION"),
            "appname": "netwatch-server",
            "maintenance_mode": false,
            "checks": { "reports": "accepting", "cores": ["accepting"] },
        });
        assert_eq!(health, expected, "{path}");
    }
}

fn a_draining_server_is_not_healthy(driver: Driver) {
    let mut server = Server::start(driver, &[("WORKERS", "2")]);
    let request = get("/.well-known/healthcheck");
    let mut client = begun(&server, &request);
    server.signal(Signal::TERM);
    server.wait_until_draining();
    let answer = client.exchange(&request.as_bytes()[5..]);
    assert_eq!((answer.status, answer.keeps_connection()), (503, false));
    let health: Value = serde_json::from_str(answer.text()).expect("health is JSON");
    assert_eq!(health["status"], "error");
    assert_eq!(health["checks"]["reports"], "draining");
    for core in health["checks"]["cores"].as_array().expect("a list") {
        assert_eq!(core, "draining");
    }
    client.expect_closed();
    assert_eq!(server.wait().code(), Some(0));
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// A connection that has sent the first five bytes of a request, and is being served.
fn begun(server: &Server, request: &str) -> Client {
    let mut client = server.connect();
    client.expect_kept();
    client
        .send(&request.as_bytes()[..5])
        .expect("the bytes are taken");
    client
}
