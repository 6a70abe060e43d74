//! Who gets what from the admin listener, and that nobody can keep others from it for long.

use std::time::Duration;

use crate::support::{
    Client, Driver, PATIENCE, Run, Server, both_drivers, plain_exchange, run, wait_until,
};

both_drivers!(
    what_is_not_there_is_not_found,
    the_public_port_shows_nothing_of_it,
    a_token_is_asked_for,
    a_login_is_asked_for_metrics,
    a_connection_is_kept,
    heads_are_judged_as_on_the_public_port,
    those_who_say_nothing_are_cut_off,
    it_can_be_off,
);

const TOKEN: &str = "0123456789abcdef-0123456789abcdef";

/// What the server has threads for.
const SERVED_AT_ONCE: usize = 8;

/// Status line, and all of the answer's head and body, to a last request with these fields.
fn ask(server: &Server, line: &str, fields: &str) -> (String, String, String) {
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let (head, body) = plain_exchange(server.admin(), &request);
    let status = head.lines().next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
    assert!(
        head.contains("\r\nx-content-type-options: nosniff\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    (status.to_owned(), head.clone(), body)
}

#[track_caller]
fn check(server: &Server, line: &str, fields: &str, status: &str, code: &str) -> String {
    let (found, head, body) = ask(server, line, fields);
    let code = match code {
        "" => String::new(),
        code => format!("{{\"status\":\"error\",\"code\":\"{code}\","),
    };
    assert_eq!(found, status, "{line} {fields:?}: {head}{body}");
    assert!(body.starts_with(&code), "{line} {fields:?}: {body}");
    head
}

const OURS: &str = "Host: 127.0.0.1\r\n";

fn what_is_not_there_is_not_found(driver: Driver) {
    let server = Server::start(driver, &[]);
    let head = check(&server, "GET /metrics", OURS, "200 OK", "");
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    let fields = format!("{OURS}Accept: application/openmetrics-text; version=1.0.0\r\n");
    let (_, head, body) = ask(&server, "GET /metrics?a=b", &fields);
    let expected =
        "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(expected), "{head}");
    assert!(body.ends_with("\n# EOF\n"), "{body}");
    let (status, head, body) = ask(&server, "HEAD /metrics", OURS);
    assert_eq!((status.as_str(), body.as_str()), ("200 OK", ""));
    assert!(head.contains("\r\ncontent-length: "), "{head}");
    let not_allowed = "405 Method Not Allowed";
    let head = check(
        &server,
        "POST /metrics",
        OURS,
        not_allowed,
        "method_not_allowed",
    );
    assert!(head.contains("\r\nallow: GET, HEAD\r\n"), "{head}");
    for path in [
        "/",
        "/metrics/",
        "/api/v1/",
        "/api/v1/reports/",
        "/.well-known/healthcheck",
        "*",
    ] {
        let method = if path == "*" { "OPTIONS" } else { "GET" };
        check(
            &server,
            &format!("{method} {path}"),
            OURS,
            "404 Not Found",
            "not_found",
        );
    }
    let body = format!("{OURS}Content-Length: 2\r\n");
    check(
        &server,
        "GET /metrics",
        &body,
        "413 Payload Too Large",
        "body_too_large",
    );
}

fn the_public_port_shows_nothing_of_it(driver: Driver) {
    let server = Server::start(driver, &[("ADMIN_TOKEN", TOKEN)]);
    for path in ["/metrics", "/", "/api/v1/summary", "/api/v1/segments"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        assert_eq!(
            server.connect().exchange(request.as_bytes()).status,
            404,
            "{path}"
        );
    }
}

fn a_token_is_asked_for(driver: Driver) {
    let server = Server::start(driver, &[("ADMIN_TOKEN", TOKEN)]);
    let with = format!("Host: any.example\r\nAuthorization: Bearer {TOKEN}\r\n");
    check(&server, "GET /metrics", &with, "200 OK", "");
    check(&server, "GET /", &with, "404 Not Found", "not_found");
    for fields in ["", "Authorization: Bearer 0123456789abcdef\r\n"] {
        let fields = format!("{OURS}{fields}");
        for path in ["/metrics", "/", "/nothing"] {
            let line = format!("GET {path}");
            let head = check(&server, &line, &fields, "401 Unauthorized", "unauthorized");
            let challenge = "\r\nwww-authenticate: Bearer realm=\"admin\"\r\n";
            assert!(head.contains(challenge), "{head}");
        }
    }
    assert!(server.log().iter().all(|line| !line.contains(TOKEN)));
    for address in ["0.0.0.0:0", "[::]:0"] {
        let Run { code, stderr, .. } = run(&[] as &[&str], &[("ADMIN_ADDR", address)]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("admin_token: expected a token, since admin_addr = "),
            "{stderr}"
        );
    }
}

fn a_login_is_asked_for_metrics(driver: Driver) {
    let settings = [
        ("METRICS_USERNAME", "prometheus"),
        ("METRICS_PASSWORD", "a secret"),
    ];
    let server = Server::start(driver, &settings);
    // prometheus:a secret
    let right = format!("{OURS}Authorization: Basic cHJvbWV0aGV1czphIHNlY3JldA==\r\n");
    check(&server, "GET /metrics", &right, "200 OK", "");
    let head = check(
        &server,
        "GET /metrics",
        OURS,
        "401 Unauthorized",
        "unauthorized",
    );
    let challenge = "\r\nwww-authenticate: Basic realm=\"metrics\", charset=\"UTF-8\"\r\n";
    assert!(head.contains(challenge), "{head}");
    let wrong = format!("{OURS}Authorization: Basic cHJvbWV0aGV1czphIHNlY3JlVA==\r\n");
    check(
        &server,
        "GET /metrics",
        &wrong,
        "401 Unauthorized",
        "unauthorized",
    );
    // A page of another name, on this machine.
    let foreign = "421 Misdirected Request";
    check(
        &server,
        "GET /",
        "Host: evil.example\r\n",
        foreign,
        "foreign_host",
    );
}

fn a_connection_is_kept(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = Client::connect(server.admin()).expect("it listens");
    let request = format!("HEAD /metrics HTTP/1.1\r\n{OURS}\r\n");
    client
        .send(request.repeat(3).as_bytes())
        .expect("the requests are taken");
    // Not kept behind a refusal.
    let last = format!("GET / HTTP/1.1\r\n{OURS}\r\n");
    client.send(last.as_bytes()).expect("the request is taken");
    let (answers, ended) = client.rest();
    ended.expect("no reset");
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK\r\n").count(),
        3,
        "{answers}"
    );
    assert_eq!(
        answers.matches("HTTP/1.1 404 Not Found\r\n").count(),
        1,
        "{answers}"
    );
    assert_eq!(
        answers.matches("\r\nconnection: close\r\n").count(),
        1,
        "{answers}"
    );
}

fn heads_are_judged_as_on_the_public_port(driver: Driver) {
    let server = Server::start(driver, &[]);
    let long = format!("GET /{} HTTP/1.1\r\n{OURS}\r\n", "x".repeat(9000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\nHost: h\n\n", "400 Bad Request"),
        (
            "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
            "505 HTTP Version Not Supported",
        ),
        (&long, "414 URI Too Long"),
    ] {
        let (head, _) = plain_exchange(server.admin(), request);
        let found = head.lines().next().unwrap_or_default();
        assert_eq!(found, format!("HTTP/1.1 {status}"), "{request:?}");
    }
}

fn those_who_say_nothing_are_cut_off(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut silent: Vec<Client> = (0..SERVED_AT_ONCE)
        .map(|_| Client::connect(server.admin()).expect("the kernel queues it"))
        .collect();
    // Behind them all: it is served when one of them has been cut off.
    check(&server, "GET /metrics", OURS, "200 OK", "");
    let ended = silent
        .iter_mut()
        .any(|client| client.has_bytes_within(Duration::from_millis(1)));
    assert!(ended, "one of them has ended");
    let mut one = Client::connect(server.admin()).expect("it listens");
    one.send(b"GET / HTT").expect("taken");
    wait_until("half a head is cut off", || one.has_bytes_within(PATIENCE));
    one.expect_closed();
}

fn it_can_be_off(driver: Driver) {
    let mut server = Server::start(driver, &[("ADMIN_ADDR", "off")]);
    assert_eq!(server.wait_for_event("started")["admin"], "off");
    assert_eq!(server.stop().code(), Some(0));
}
