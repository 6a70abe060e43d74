//! Bytes in, exact bytes out: what is stored, what is refused with which words, and what becomes of the
//! connection (RFC 9110, RFC 9112).

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{self, Answer, Client, Driver, Server, both_drivers, post};

both_drivers!(
    a_report_is_stored_as_it_came,
    bodies_that_are_no_reports,
    bodies_at_the_limit,
    requests_for_what_is_not_here,
    heads_that_are_refused,
    chunked_bodies,
    chunked_bodies_that_are_refused,
    nothing_is_read_behind_an_error,
    pipelined_requests_are_answered_in_order,
    expectations,
    answers_to_head_have_no_body,
    persistence,
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
    assert_eq!(stored(server), [largest.clone(), largest]);
}

fn requests_for_what_is_not_here(driver: Driver) {
    let server = Server::start(driver, &[]);
    let refused = |line: &str, status, code, message| {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        kept(&server, request, status, code, message);
    };
    let not_found = |line: &str| refused(line, 404, "not_found", "there is nothing at this path");
    not_found("GET /");
    not_found("GET /metrics");
    not_found("GET /api/v1/segments");
    not_found("POST /api/v1/reports/");
    not_found("POST /api/v1/%72eports");
    not_found("GET /../etc/passwd");
    not_found("OPTIONS *");
    let allow_post = "expected method POST, OPTIONS";
    refused("GET /api/v1/reports", 405, "method_not_allowed", allow_post);
    refused("PUT /api/v1/reports", 405, "method_not_allowed", allow_post);
    let allow_get = "expected method GET, HEAD, OPTIONS";
    refused(
        "POST /.well-known/healthcheck",
        405,
        "method_not_allowed",
        allow_get,
    );
    refused(
        "DELETE /.well-known/healthcheck.json",
        405,
        "method_not_allowed",
        allow_get,
    );
    refused("BREW /", 501, "unknown_method", "unknown method");
    refused(
        "post /api/v1/reports",
        501,
        "unknown_method",
        "unknown method",
    );
    let length = "expected content-length or chunked";
    refused("POST /api/v1/reports", 411, "length_required", length);

    // A short body of a refused request is passed over, not read as a request.
    let good = String::from_utf8(post(report("hidden").as_bytes())).expect("is text");
    let hidden = |line: &str, fields: &str| {
        let length = good.len();
        format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{good}")
    };
    let (not_found, message) = ("not_found", "there is nothing at this path");
    kept(&server, hidden("POST /", ""), 404, not_found, message);
    kept(
        &server,
        hidden("POST /api/v1/reports", "Content-Encoding: br\r\n"),
        415,
        "unsupported_coding",
        "expected one content coding of gzip, deflate, zstd",
    );
    // A longer one, or one without a length, is not waited for.
    let long = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n";
    closed(&server, long, 404, not_found, message);
    let chunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    closed(&server, chunks, 404, not_found, message);

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

fn heads_that_are_refused(driver: Driver) {
    let server = Server::start(driver, &[]);
    let malformed = |head: &str, message: &str| {
        closed(&server, head, 400, "malformed_head", message);
    };
    // Line ends.
    malformed(
        "GET / HTTP/1.1\nHost: h\n\n",
        "bare line feed at byte 14 of the head",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "bare line feed at byte 23 of the head",
    );
    malformed(
        "GET / HTTP/1.1\r\nHost: h\rx: y\r\n\r\n",
        "bare carriage return at byte 23 of the head",
    );
    malformed(
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "more than 2 empty lines before the head",
    );
    // Request lines.
    let line = "request line is not method, target and version";
    malformed("GET /\r\n\r\n", line);
    malformed("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", line);
    malformed("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", line);
    malformed("GET / http/1.1\r\nHost: h\r\n\r\n", line);
    malformed("\x16\x03\x01\x02\0\x01\0\x01", line);
    let form = "request target is neither a path nor an http URI";
    malformed("GET x HTTP/1.1\r\nHost: h\r\n\r\n", form);
    malformed("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", form);
    malformed(
        "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "request target has no valid host and port",
    );
    malformed(
        "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        "request target * without method OPTIONS",
    );
    malformed(
        "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
        "invalid byte 0x23 at byte 2 of the request target",
    );
    malformed(
        "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
        "invalid byte 0x25 at byte 1 of the request target",
    );
    // Fields.
    let name = "header line has no field name and colon at its start";
    malformed("GET / HTTP/1.1\r\nHost : h\r\n\r\n", name);
    malformed("GET / HTTP/1.1\r\nHost: h\r\n x\r\n\r\n", name);
    malformed("GET / HTTP/1.1\r\n Host: h\r\n\r\n", name);
    malformed("GET / HTTP/1.1\r\nHost: h\r\nx\r\n\r\n", name);
    malformed("GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", name);
    malformed(
        "GET / HTTP/1.1\r\nHost: h\r\nx: \0\r\n\r\n",
        "control character in a header field value",
    );
    malformed("GET / HTTP/1.1\r\n\r\n", "host field is missing");
    malformed(
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "more than one host field",
    );
    let host = "host field is not a host with an optional port";
    malformed("GET / HTTP/1.1\r\nHost:\r\n\r\n", host);
    malformed("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", host);
    malformed("GET / HTTP/1.1\r\nHost: h:x\r\n\r\n", host);
    // Framing.
    let malformed = |fields: &str, message: &str| malformed(&request(fields, ""), message);
    malformed(
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "more than one content-length field",
    );
    let length = "content-length is not a number of 1 to 19 digits";
    malformed("Content-Length: 5, 5\r\n", length);
    malformed("Content-Length: +5\r\n", length);
    malformed("Content-Length: -1\r\n", length);
    malformed("Content-Length: 0x5\r\n", length);
    malformed("Content-Length:\r\n", length);
    malformed("Content-Length: 18446744073709551616\r\n", length);
    malformed(
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "both content-length and transfer-encoding",
    );
    let coding = "transfer-encoding is malformed, expected chunked";
    malformed("Transfer-Encoding: chunked, chunked\r\n", coding);
    malformed("Transfer-Encoding: chunked;a=b\r\n", coding);
    malformed(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        coding,
    );
    malformed("Transfer-Encoding:\r\n", coding);
    // Without an end, which is worse than unknown (RFC 9112 §6.3).
    malformed(
        "Transfer-Encoding: gzip\r\n",
        "transfer-encoding does not end in chunked",
    );
    closed(
        &server,
        "POST /api/v1/reports HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_head",
        "transfer-encoding in an HTTP/1.0 request",
    );

    // Well formed, and yet not for us.
    let closed = |head: &str, status, code, message| closed(&server, head, status, code, message);
    closed(
        &request("Transfer-Encoding: gzip, chunked\r\n", ""),
        501,
        "unknown_transfer_coding",
        "transfer-encoding is more than chunked",
    );
    closed(
        "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
        501,
        "unknown_method",
        "method CONNECT is not supported",
    );
    closed(
        "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        505,
        "unsupported_version",
        "expected HTTP/1.1 or HTTP/1.0, found HTTP/2.0",
    );
    closed(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        505,
        "unsupported_version",
        "expected HTTP/1.1 or HTTP/1.0, found HTTP/2.0",
    );
    closed(
        &format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(8192)),
        414,
        "target_too_long",
        "request line exceeds 8192 bytes",
    );
    let field = "x".repeat(16 << 10);
    closed(
        &format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: {field}\r\n\r\n"),
        431,
        "head_too_large",
        "header section exceeds 16384 bytes",
    );
    let fields = "x: y\r\n".repeat(64);
    closed(
        &format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"),
        431,
        "head_too_large",
        "more than 64 header fields",
    );
    assert_eq!(stored(server), [""; 0]);
}

fn chunked_bodies(driver: Driver) {
    let server = Server::start(driver, &[]);
    let body = report("c");
    let len = body.len();
    let chunk = format!("{len:X}\r\n{body}\r\n0\r\n");
    let bytes: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let bodies = [
        format!("{chunk}\r\n"),
        format!("0000{len:x};a=\"b\"\r\n{body}\r\n00;c\r\n\r\n"),
        format!("{chunk}x-trailer: y\r\nContent-Length: 1\r\n\r\n"),
        format!("{bytes}0\r\n\r\n"),
    ];
    for body in &bodies {
        for (mut client, answer) in send(&server, chunked(body).as_bytes()) {
            expect_answer(&answer, 200, OK);
            client.expect_kept();
        }
    }
    // However it is cut.
    let request = chunked(&bodies[1]);
    let mut client = server.connect();
    for byte in request.as_bytes() {
        client.send(&[*byte]).expect("the byte is taken");
    }
    expect_answer(&client.answer(), 200, OK);
    drop(client);
    assert_eq!(stored(server), vec![body; 2 * bodies.len() + 1]);
}

fn chunked_bodies_that_are_refused(driver: Driver) {
    let server = Server::start(driver, &[]);
    let body = report("c");
    let len = body.len();
    let refused = |framed: &str, message: &str| {
        closed(&server, chunked(framed), 400, "malformed_body", message);
    };
    let size = "chunk size is not 1 to 16 hexadecimal digits";
    refused(&format!("+{len:x}\r\n{body}\r\n0\r\n\r\n"), size);
    refused(&format!("0x{len:x}\r\n{body}\r\n0\r\n\r\n"), size);
    refused(&format!("{len:x} \r\n{body}\r\n0\r\n\r\n"), size);
    refused(&format!("\r\n{body}\r\n0\r\n\r\n"), size);
    refused("10000000000000000\r\n", size);
    let line_end = "chunk or trailer line does not end in CR LF";
    refused(&format!("{len:x}\n{body}\r\n0\r\n\r\n"), line_end);
    refused(&format!("{len:x}\r\n{body}\r\n0\r\n\n"), line_end);
    let data_end = "chunk data is not followed by CR LF";
    refused(&format!("{len:x}\r\n{body}\n0\r\n\r\n"), data_end);
    refused(&format!("{len:x}\r\n{body}x\r\n0\r\n\r\n"), data_end);
    refused(
        &format!("{len:x};{}\r\n", "x".repeat(256)),
        "chunk size line exceeds 256 bytes",
    );
    refused("1;\0\r\n", "control character in a chunk extension");
    let extension = "x".repeat(200);
    let line = format!("1;{extension}\r\nx\r\n");
    refused(&line.repeat(6), "chunk extensions exceed 1024 bytes");
    refused(
        &"1\r\nx\r\n".repeat(5000),
        "chunk framing exceeds the data by more than 16384 bytes",
    );
    refused(
        &format!("{len:x}\r\n{body}\r\n0\r\nx y\r\n\r\n"),
        "trailer line is not a field name, a colon and a value",
    );
    refused(
        &format!(
            "{len:x}\r\n{body}\r\n0\r\nx: {}\r\n\r\n",
            "y".repeat(16 << 10)
        ),
        "trailer section exceeds 16384 bytes",
    );
    refused(
        &format!("{len:x}\r\n{body}\r\n0\r\n{}\r\n", "x: y\r\n".repeat(65)),
        "more than 64 trailer fields",
    );
    // What is not a batch is known by its first byte.
    for (announced, limit) in [
        ("1000001\r\n", 16_777_216),
        ("ffffffffffffffff\r\n", 16_777_216),
        ("100001\r\n{", 1_048_576),
        ("1\r\n{\r\n100000\r\n", 1_048_576),
    ] {
        let message = format!("body exceeds {limit} bytes");
        closed(&server, chunked(announced), 413, "body_too_large", &message);
    }
    assert_eq!(stored(server), [""; 0]);
}

/// Good requests before an error are answered and stored; those behind it are not looked at.
fn nothing_is_read_behind_an_error(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    let requests = [
        post(report("before").as_bytes()),
        chunked("x\r\n").into_bytes(),
        post(report("behind").as_bytes()),
    ];
    client
        .send(&requests.concat())
        .expect("the requests are taken");
    expect_answer(&client.answer(), 200, OK);
    let message = "chunk size is not 1 to 16 hexadecimal digits";
    expect_refusal(&client.answer(), 400, "malformed_body", message);
    client.expect_closed();
    drop(client);
    assert_eq!(stored(server), [report("before")]);
}

fn pipelined_requests_are_answered_in_order(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    // An empty line between requests is what old clients send (RFC 9112 §2.2).
    let requests = [
        &post(report("a").as_bytes()),
        HEALTH,
        b"\r\n",
        &post(b"{}"),
        &post(report("b").as_bytes()),
    ];
    client
        .send(&requests.concat())
        .expect("the requests are taken");
    expect_answer(&client.answer(), 200, OK);
    assert!(client.answer().text().contains("\"appname\""));
    let message = "clientId: required but missing";
    expect_refusal(&client.answer(), 400, "not_a_report", message);
    expect_answer(&client.answer(), 200, OK);
    client.expect_kept();

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
    let mut expected = vec![report("c"); 1002];
    (expected[0], expected[1]) = (report("a"), report("b"));
    assert_eq!(stored(server), expected);
}

fn expectations(driver: Driver) {
    let server = Server::start(driver, &[]);
    let body = report("c");
    let len = body.len();
    let with_length = format!("Content-Length: {len}\r\nExpect: 100-Continue\r\n");
    let with_chunks = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n".to_owned();
    let in_chunks = format!("{len:x}\r\n{body}\r\n0\r\n\r\n");
    let mut client = server.connect();
    for (fields, body) in [(with_length, &body), (with_chunks, &in_chunks)] {
        // Invited.
        let answer = client.exchange(request(&fields, "").as_bytes());
        assert_eq!((answer.status, answer.fields.len()), (100, 0));
        expect_answer(&client.exchange(body.as_bytes()), 200, OK);
        // Not invited: the body is there.
        expect_answer(&client.exchange(request(&fields, body).as_bytes()), 200, OK);
    }
    // Nobody invites no body.
    let fields = "Content-Length: 0\r\nExpect: 100-continue\r\n";
    let answer = client.exchange(request(fields, "").as_bytes());
    expect_refusal(&answer, 400, "not_json", "body is empty");
    // HTTP/1.0 knows no interim answers (RFC 9110 §10.1.1).
    let old = "POST /api/v1/reports HTTP/1.0\r\nExpect: 100-continue\r\n";
    let old = format!("{old}Content-Length: {len}\r\n\r\n");
    client.send(old.as_bytes()).expect("the head is taken");
    expect_answer(&client.exchange(body.as_bytes()), 200, OK);
    client.expect_closed();
    drop(client);

    // Refused by its head alone; whether the body still comes is the client's choice.
    let expect = "Expect: 100-continue\r\nContent-Length:";
    let too_large = request(&format!("{expect} 16777217\r\n"), "");
    let message = "body exceeds 16777216 bytes";
    closed(&server, too_large, 413, "body_too_large", message);
    let elsewhere = format!("POST / HTTP/1.1\r\nHost: h\r\n{expect} 5\r\n\r\n");
    let message = "there is nothing at this path";
    closed(&server, elsewhere, 404, "not_found", message);
    let unknown = request("Expect: 200-ok\r\nContent-Length: 5\r\n", "");
    let message = "expected no expectation but 100-continue";
    closed(&server, unknown, 417, "unknown_expectation", message);
    assert_eq!(stored(server), vec![body; 5]);
}

fn answers_to_head_have_no_body(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    for (path, status) in [
        ("/.well-known/healthcheck", 200),
        ("/.well-known/healthcheck.json", 200),
        ("/", 404),
        ("/api/v1/reports", 405),
    ] {
        let get = client.exchange(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.send(head.as_bytes()).expect("the request is taken");
        let head = client.answer_to_head();
        assert_eq!((get.status, head.status), (status, status), "{path}");
        let names = |answer: &Answer| answer.fields.iter().map(|field| field.0.clone()).collect();
        let (get_names, head_names): (Vec<_>, Vec<_>) = (names(&get), names(&head));
        assert_eq!(get_names, head_names, "{path}");
        assert_eq!(head.field("content-type"), get.field("content-type"));
        if status != 200 {
            // Health counts the seconds.
            assert_eq!(head.field("content-length"), get.field("content-length"));
        }
        client.expect_kept();
    }
}

fn persistence(driver: Driver) {
    let server = Server::start(driver, &[]);
    let body = report("c");
    let check = |version: &str, fields: &str, connection: Option<&str>| {
        let mut client = server.connect();
        let len = body.len();
        let head = format!("POST /api/v1/reports {version}\r\nHost: h\r\n{fields}");
        let request = format!("{head}Content-Length: {len}\r\n\r\n{body}");
        let answer = client.exchange(request.as_bytes());
        expect_answer(&answer, 200, OK);
        assert_eq!(answer.field("connection"), connection, "{version} {fields}");
        match answer.keeps_connection() {
            true => client.expect_kept(),
            false => client.expect_closed(),
        }
    };
    check("HTTP/1.1", "", None);
    check("HTTP/1.1", "Connection: keep-alive\r\n", None);
    check("HTTP/1.1", "Connection: close\r\n", Some("close"));
    check(
        "HTTP/1.1",
        "Connection: x, Close\r\nConnection: keep-alive\r\n",
        Some("close"),
    );
    check("HTTP/1.0", "", Some("close"));
    check("HTTP/1.0", "Connection: Keep-Alive\r\n", Some("keep-alive"));

    // Nothing behind the last request is looked at.
    let last = b"GET /.well-known/healthcheck HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut client = server.connect();
    let behind = post(report("behind").as_bytes());
    let answer = client.exchange(&[last, &behind[..]].concat());
    assert_eq!((answer.status, answer.keeps_connection()), (200, false));
    client.expect_closed();

    // A client that ends its side after a request still gets the answer; half a request gets none.
    let mut client = server.connect();
    client
        .send(&post(body.as_bytes()))
        .expect("the request is taken");
    client.end_writing();
    expect_answer(&client.answer(), 200, OK);
    client.expect_closed();
    let mut client = server.connect();
    client
        .send(&behind[..behind.len() - 1])
        .expect("the part is taken");
    client.end_writing();
    client.expect_closed();
    assert_eq!(stored(server), vec![body; 7]);
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
    assert!(log.contains("report refused"), "{log}");
    assert!(log.contains("request refused"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains(&format!(":{port}")), "{log}");
}
