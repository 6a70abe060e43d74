//! Bytes in, bytes out: what is stored, and what is refused with which words; and what follows only from time,
//! or from many requests. Single requests by the letter of the standards are the table in `rfc`.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{self, Answer, Client, Driver, Server, both_drivers, post};

both_drivers!(
    a_report_is_stored_as_it_came,
    bodies_that_are_no_reports,
    bodies_at_the_limit,
    content_codings,
    many_pipelined_requests,
    pipelined_reports_share_a_commit,
    a_body_that_is_there_is_not_invited,
    early_refusals_reach_a_client_that_keeps_sending,
    slow_clients,
    a_client_that_takes_no_answers,
    logs_hold_no_report_and_no_client,
);

const OK: &str = "{\"status\":\"ok\"}\n";
const HEALTH: &[u8] = b"GET /.well-known/healthcheck HTTP/1.1\r\nHost: h\r\n\r\n";

/// The smallest report of this client.
fn report(client_id: &str) -> String {
    format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[]}}"#)
}

/// A report with these members beside an id and a time.
fn root(members: &str) -> String {
    format!(r#"{{"clientId":"c","timestamp":"t",{members}}}"#)
}

/// A report with a second host of these members.
fn host(members: &str) -> String {
    root(&format!(r#""hosts":[{{}},{{{members}}}]"#))
}

/// A report with a third sample of these members.
fn sample(members: &str) -> String {
    host(&format!(r#""history":[{{}},{{}},{{{members}}}]"#))
}

/// A report of so many bytes.
fn report_of(bytes: usize) -> String {
    let empty = root(r#""hosts":[],"geo":"""#);
    let filling = "x".repeat(bytes - empty.len());
    root(&format!(r#""hosts":[],"geo":"{filling}""#))
}

/// A request for reports of these fields and this body.
fn request(fields: &str, body: &str) -> String {
    format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    request("Transfer-Encoding: chunked\r\n", body)
}

#[track_caller]
fn expect_answer(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.text()), (status, body));
}

#[track_caller]
fn expect_refusal(answer: &Answer, status: u16, code: &str, message: &str) {
    expect_answer(answer, status, &refusal(code, message));
}

fn refusal(code: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":{message}}}\n")
}

/// Sends a request whole, then in two parts, and returns each answer with its connection.
fn send(server: &Server, request: &[u8]) -> [(Client, Answer); 2] {
    [request.len(), request.len() / 2].map(|first_len| {
        let mut client = server.connect();
        let (first, rest) = request.split_at(first_len);
        client.send(first).expect("the request is taken");
        client.send(rest).expect("the request is taken");
        let answer = client.answer();
        (client, answer)
    })
}

/// Wants this refusal, and the next request answered.
fn kept(server: &Server, request: impl AsRef<[u8]>, status: u16, code: &str, message: &str) {
    let request = request.as_ref();
    for (mut client, answer) in send(server, request) {
        let found = (answer.status, answer.text(), answer.field("connection"));
        let expected = (status, &*refusal(code, message), None);
        assert_eq!(found, expected, "{}", excerpt(request));
        client.expect_kept();
    }
}

/// Wants this refusal, and the connection closed, whatever good report follows.
fn closed(server: &Server, request: impl AsRef<[u8]>, status: u16, code: &str, message: &str) {
    let request = [request.as_ref(), &post(report("behind").as_bytes())].concat();
    for (mut client, answer) in send(server, &request) {
        let found = (answer.status, answer.text(), answer.field("connection"));
        let expected = (status, &*refusal(code, message), Some("close"));
        assert_eq!(found, expected, "{}", excerpt(&request));
        client.expect_closed();
    }
}

/// Names a row of a table in a failure.
fn excerpt(request: &[u8]) -> String {
    let shown = &request[..request.len().min(200)];
    format!("answer to {}", shown.escape_ascii())
}

/// Stops the server; the lines that it has stored, without their stamps, sorted.
#[track_caller]
pub(crate) fn stored(mut server: Server) -> Vec<String> {
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(support::open(server.dir()), []);
    let lines = support::lines(server.dir());
    let mut lines: Vec<String> = lines.iter().map(|line| unstamped(line)).collect();
    lines.sort();
    lines
}

/// The report of a line: the object without the member that the server puts in front.
#[track_caller]
fn unstamped(line: &str) -> String {
    let (stamp, rest) = line.split_at(r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#.len());
    let time = stamp.strip_prefix(r#"{"receivedAt":""#);
    let time = time.and_then(|rest| rest.strip_suffix(r#"","#));
    let time = time.unwrap_or_else(|| panic!("no stamp on {line}"));
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    format!("{{{rest}")
}

fn a_report_is_stored_as_it_came(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    let pretty = "{\r\n  \"clientId\": \"a\",\n\t\"timestamp\": \"t\",\r\"hosts\": [\n]\n}";
    let odd = r#"{"timestamp":"","x":[1.50,1e2,"\u00e9é"],"clientId":"b","hosts":[{"y":{}}]}"#;
    let padded = format!(" \t\r\n{}\r\n", report("c"));
    for body in [pretty, odd, &padded] {
        let answer = client.exchange(&post(body.as_bytes()));
        expect_answer(&answer, 200, OK);
    }
    client.expect_kept();
    drop(client);
    let one_line = "{    \"clientId\": \"a\", \t\"timestamp\": \"t\", \"hosts\": [ ] }".to_owned();
    assert_eq!(stored(server), [one_line, report("c"), odd.to_owned()]);
}

fn bodies_that_are_no_reports(driver: Driver) {
    let server = Server::start(driver, &[]);
    let not_json = |body: &[u8], message: &str| kept(&server, post(body), 400, "not_json", message);
    let refused = |body: &str, message: &str| {
        kept(&server, post(body.as_bytes()), 400, "not_a_report", message);
    };
    let invalid = |body: &str, at: usize| {
        let message = format!("body is not valid JSON at byte {at}");
        not_json(body.as_bytes(), &message);
    };

    not_json(b"", "body is empty");
    not_json(b" \r\n", "body is empty");
    invalid("hello", 0);
    invalid("clientId=c&hosts=", 0);
    invalid("{", 1);
    invalid("{'clientId':1}", 1);
    invalid(r#"{"a":1,}"#, 7);
    invalid(r#"{"a":NaN}"#, 5);
    invalid(r#"{"a":01}"#, 6);
    invalid(r#"{"a":1e400}"#, 5);
    invalid("{\"a\":\"\n\"}", 6);
    invalid(r#"{"a":"\ud83d"}"#, 12);
    invalid("\u{feff}{}", 0);
    // Bytes behind the object.
    invalid(&(report("c") + "x"), 43);
    invalid(&(report("c") + "\n" + &report("c")), 44);
    invalid(&(report("c") + "\0"), 43);
    not_json(b"\xff\xfe", "body is not valid UTF-8 at byte 0");
    not_json(b"{\"a\":\"\xff\"}", "body is not valid UTF-8 at byte 6");
    not_json(
        b"{\"a\":\"\xed\xa0\x80\"}",
        "body is not valid UTF-8 at byte 6",
    );
    let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
    not_json(
        root(&format!(r#""hosts":[],"geo":{}"#, nested(64))).as_bytes(),
        "nesting deeper than 64",
    );
    let deep = root(&format!(r#""hosts":[],"geo":{}"#, nested(100_000)));
    not_json(deep.as_bytes(), "nesting deeper than 64");

    refused("null", "body: expected object");
    refused("17", "body: expected object");
    refused("{}", "clientId: required but missing");
    refused(
        r#"{"clientId":"c","hosts":[]}"#,
        "timestamp: required but missing",
    );
    refused(
        r#"{"clientId":"c","timestamp":"t"}"#,
        "hosts: required but missing",
    );
    refused(
        r#"{"clientId":1,"timestamp":"t","hosts":[]}"#,
        "clientId: expected string",
    );
    refused(
        r#"{"clientId":null,"timestamp":"t","hosts":[]}"#,
        "clientId: expected string",
    );
    refused(
        &report(""),
        "clientId: expected string of 1 to 128 bytes, found 0 bytes",
    );
    refused(
        &report(&"x".repeat(129)),
        "clientId: expected string of 1 to 128 bytes, found 129 bytes",
    );
    refused(
        r#"{"clientId":"c","timestamp":17,"hosts":[]}"#,
        "timestamp: expected string",
    );
    refused(&root(r#""hosts":{}"#), "hosts: expected array");
    refused(&root(r#""hosts":null"#), "hosts: expected array");
    refused(&root(r#""hosts":[{},"a"]"#), "hosts[1]: expected object");
    for name in ["name", "url", "status"] {
        let message = format!("hosts[1].{name}: expected string or null");
        refused(&host(&format!(r#""{name}":17"#)), &message);
    }
    refused(
        &host(r#""history":{}"#),
        "hosts[1].history: expected array or null",
    );
    refused(
        &host(r#""history":[{},17]"#),
        "hosts[1].history[1]: expected object",
    );
    for name in ["t", "latency"] {
        let message = format!("hosts[1].history[2].{name}: expected number or null");
        refused(&sample(&format!(r#""{name}":"17""#)), &message);
    }
    refused(
        &sample(r#""error":false"#),
        "hosts[1].history[2].error: expected string or null",
    );
    refused(
        &root(r#""hosts":[],"clientId":"c""#),
        "clientId: appears more than once",
    );
    refused(
        &root(r#""hosts":[],"geo":1,"g\u0065o":2"#),
        "geo: appears more than once",
    );
    refused(
        &host(r#""name":"a","name":"a""#),
        "hosts[1].name: appears more than once",
    );
    refused(
        &sample(r#""t":1,"t":1"#),
        "hosts[1].history[2].t: appears more than once",
    );
    refused(
        &root(r#""hosts":[],"receivedAt":"2026-02-27T05:14:34.123Z""#),
        "receivedAt: reserved for the server",
    );

    assert_eq!(stored(server), [""; 0]);
}

fn bodies_at_the_limit(driver: Driver) {
    let server = Server::start(driver, &[]);
    let (largest, too_large) = (report_of(1 << 20), report_of((1 << 20) + 1));
    let in_chunks = |body: &str| {
        let (first, second) = body.split_at(1000);
        let (first_len, second_len) = (first.len(), second.len());
        chunked(&format!(
            "{first_len:x}\r\n{first}\r\n{second_len:x}\r\n{second}\r\n0\r\n\r\n"
        ))
    };
    let mut client = server.connect();
    expect_answer(&client.exchange(&post(largest.as_bytes())), 200, OK);
    expect_answer(&client.exchange(in_chunks(&largest).as_bytes()), 200, OK);
    client.expect_kept();
    drop(client);
    for request in [post(too_large.as_bytes()), in_chunks(&too_large).into()] {
        let message = "body exceeds 1048576 bytes";
        closed(&server, request, 413, "body_too_large", message);
    }
    // What is not a batch is known by its first byte.
    for (announced, limit) in [
        ("1000001\r\n", 16_777_216),
        ("100001\r\n{", 1_048_576),
        ("1\r\n{\r\n100000\r\n", 1_048_576),
    ] {
        let message = format!("body exceeds {limit} bytes");
        closed(&server, chunked(announced), 413, "body_too_large", &message);
    }
    assert_eq!(stored(server), [largest.clone(), largest]);
}

fn content_codings(driver: Driver) {
    let server = Server::start(driver, &[]);
    // A short body of a refused request is passed over, not read as a request.
    let good = String::from_utf8(post(report("hidden").as_bytes())).expect("is text");
    let hidden = |line: &str, fields: &str| {
        let length = good.len();
        format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{good}")
    };
    kept(
        &server,
        hidden("POST /api/v1/reports", "Content-Encoding: br\r\n"),
        415,
        "unsupported_coding",
        "expected one content coding of gzip, deflate, zstd",
    );

    let mut client = server.connect();
    for (line, fields, name, value) in [
        ("GET /api/v1/reports", "", "allow", "POST, OPTIONS"),
        (
            "PUT /.well-known/healthcheck",
            "",
            "allow",
            "GET, HEAD, OPTIONS",
        ),
        (
            "POST /api/v1/reports",
            "Content-Encoding: br\r\n",
            "accept-encoding",
            "gzip, deflate, zstd",
        ),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let answer = client.exchange(request.as_bytes());
        assert_eq!(answer.field(name), Some(value), "{request}");
    }
    // No coding is a coding that is taken.
    let body = report("plain");
    let fields = format!(
        "Content-Encoding: identity\r\nContent-Length: {}\r\n",
        body.len()
    );
    let answer = client.exchange(request(&fields, &body).as_bytes());
    expect_answer(&answer, 200, OK);
    drop(client);
    assert_eq!(stored(server), [body]);
}

fn many_pipelined_requests(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    // As many as a buffer holds several times over.
    let many: Vec<u8> = (0..1000)
        .flat_map(|_| post(report("c").as_bytes()))
        .collect();
    client.send(&many).expect("the requests are taken");
    for _ in 0..1000 {
        expect_answer(&client.answer(), 200, OK);
    }
    client.expect_kept();
    drop(client);
    assert_eq!(stored(server), vec![report("c"); 1000]);
}

/// Different answers in between keep their order, and each its own fields; what comes last may be half a request.
fn pipelined_reports_share_a_commit(driver: Driver) {
    let server = Server::start(driver, &[("WORKERS", "1")]);
    let mut client = server.connect();
    let of_page = "Origin: https://a.example\r\nContent-Length: 2\r\n";
    let half = post(report("half").as_bytes());
    let sent: Vec<u8> = [
        post(report("a").as_bytes()),
        post(report("b").as_bytes()),
        request(of_page, "{}").into_bytes(),
        post(report("c").as_bytes()),
        b"GET /.well-known/healthcheck HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        post(report("d").as_bytes()),
        post(report("e").as_bytes()),
        half[..half.len() / 2].to_vec(),
    ]
    .concat();
    client.send(&sent).expect("the requests are taken");
    for _ in ["a", "b"] {
        let answer = client.answer();
        expect_answer(&answer, 200, OK);
        assert_eq!(answer.field("access-control-allow-origin"), None);
    }
    let refused = client.answer();
    assert_eq!(refused.status, 400);
    let allowed = refused.field("access-control-allow-origin");
    assert_eq!(allowed, Some("https://a.example"));
    expect_answer(&client.answer(), 200, OK);
    let health = client.answer();
    assert_eq!(
        (health.status, health.text().contains("uptime_seconds")),
        (200, true)
    );
    for _ in ["d", "e"] {
        expect_answer(&client.answer(), 200, OK);
    }
    client
        .send(&half[half.len() / 2..])
        .expect("the rest is taken");
    expect_answer(&client.answer(), 200, OK);
    client.expect_kept();
    drop(client);
    let metrics = server.metrics();
    // Those in front of the refusal, the one in front of the health, the last two, the half one.
    assert!(metrics.sum(&["netwatch_commits_total", "committed"]) <= 4);
    assert_eq!(metrics.sum(&["netwatch_ack_seconds_count"]), 6);
    assert_eq!(
        stored(server),
        ["a", "b", "c", "d", "e", "half"].map(report)
    );
}

/// Whether it is there when the head is looked at is not for a client to know.
fn a_body_that_is_there_is_not_invited(driver: Driver) {
    let server = Server::start(driver, &[]);
    let body = report("c");
    let len = body.len();
    let with_length = format!("Content-Length: {len}\r\nExpect: 100-Continue\r\n");
    let with_chunks = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n".to_owned();
    let in_chunks = format!("{len:x}\r\n{body}\r\n0\r\n\r\n");
    let mut client = server.connect();
    for (fields, body) in [(with_length, &body), (with_chunks, &in_chunks)] {
        expect_answer(&client.exchange(request(&fields, body).as_bytes()), 200, OK);
        client.expect_kept();
    }
    drop(client);
    assert_eq!(stored(server), vec![body; 2]);
}

/// The client sends for a while before it looks for an answer, as many do.
fn early_refusals_reach_a_client_that_keeps_sending(driver: Driver) {
    let server = Server::start(driver, &[]);
    for head in [
        request("Content-Length: 104857600\r\n", ""),
        chunked("6400000\r\n"),
    ] {
        let mut client = server.connect();
        client.send(head.as_bytes()).expect("the head is taken");
        let piece = [b'x'; 64 << 10];
        for _ in 0..96 {
            client.send(&piece).expect("the server goes on reading");
        }
        let message = "body exceeds 16777216 bytes";
        expect_refusal(&client.answer(), 413, "body_too_large", message);
        client.end_writing();
        client.expect_closed();
    }
    assert_eq!(stored(server), [""; 0]);
}

/// Deadlines are kept to within a tick of a quarter of a second, and count from the last tick.
const TICK: Duration = Duration::from_millis(300);

fn slow_clients(driver: Driver) {
    // All different: none stands in for another.
    let [head_secs, body_secs, idle_secs] = [1, 2, 3];
    let settings = [("HEAD_SECS", "1"), ("BODY_SECS", "2"), ("IDLE_SECS", "3")];
    let server = Server::start(driver, &settings);
    let head = request("Content-Length: 100\r\n", "");
    let invited = request("Content-Length: 100\r\nExpect: 100-continue\r\n", "");
    let began = Instant::now();
    let connect = |bytes: &str| {
        let mut client = server.connect();
        client.send(bytes.as_bytes()).expect("the bytes are taken");
        client
    };
    let expect_late = |secs: u64| {
        let elapsed = began.elapsed();
        assert!(elapsed > Duration::from_secs(secs) - TICK, "{elapsed:?}");
    };
    // All at once: each waits for its own deadline. An empty line begins a head.
    let in_head = ["\r\n", &head[..1], &head[..20], &head[..head.len() - 1]].map(connect);
    let in_body = [head.clone() + "{", head.clone(), chunked("5\r\n{")].map(|part| connect(&part));
    let mut waiting = connect(&invited);
    assert_eq!(waiting.answer().status, 100);
    let idle = connect("");
    let mut after_one = connect("");
    after_one.expect_kept();
    let is_refused = |mut client: Client, part: &str, secs| {
        let message = format!("request {part} took too long");
        expect_refusal(&client.answer(), 408, "too_slow", &message);
        expect_late(secs);
        client.expect_closed();
    };
    // Each is looked at by a thread of its own, so that none is found late because another was.
    thread::scope(|scope| {
        for client in in_head {
            scope.spawn(move || is_refused(client, "head", head_secs));
        }
        for client in in_body.into_iter().chain([waiting]) {
            scope.spawn(move || is_refused(client, "body", body_secs));
        }
        for mut client in [idle, after_one] {
            scope.spawn(move || {
                client.expect_closed();
                expect_late(idle_secs);
            });
        }
    });

    // Bytes that keep coming do not move a deadline.
    let spaces = " ".repeat(100);
    for (at_once, slowly, message) in [
        ("", &head, "request head took too long"),
        (&head, &spaces, "request body took too long"),
    ] {
        let mut client = connect(at_once);
        let mut rest = slowly.as_bytes().chunks(1);
        for byte in rest.by_ref() {
            if client.has_bytes_within(Duration::from_millis(50)) {
                break;
            }
            client.send(byte).expect("the byte is taken");
        }
        // The client goes on until it reads the answer, and is not reset for it.
        for byte in rest.by_ref().take(5) {
            client.send(byte).expect("the byte is taken");
        }
        expect_refusal(&client.answer(), 408, "too_slow", message);
        client.expect_closed();
    }
    assert_eq!(stored(server), [""; 0]);
}

/// It asks and asks and never reads: when no more of its answers fit, the connection is cut.
fn a_client_that_takes_no_answers(driver: Driver) {
    let server = Server::start(driver, &[("WRITE_SECS", "1")]);
    let mut client = server.connect();
    let requests = HEALTH.repeat(1000);
    let error = loop {
        if let Err(error) = client.send(&requests) {
            break error;
        }
    };
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error}");
    server.connect().expect_kept();
}

fn logs_hold_no_report_and_no_client(driver: Driver) {
    let mut server = Server::start(driver, &[("DEBUG", "true")]);
    let mut client = server.connect();
    let port = client.local_port();
    let bad = root(r#""hosts":17,"geo":"secret""#);
    for request in [
        post(report("secret").as_bytes()),
        post(bad.as_bytes()),
        b"GET /secret?secret HTTP/1.1\r\nHost: secret\r\nsecret: secret\r\n\r\n".to_vec(),
        chunked("secret\r\n").into_bytes(),
    ] {
        client.exchange(&request);
    }
    drop(client);
    assert_eq!(server.stop().code(), Some(0));
    let log = server.log().join("\n");
    assert_eq!(log.matches("request refused").count(), 3, "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains(&format!(":{port}")), "{log}");
}
