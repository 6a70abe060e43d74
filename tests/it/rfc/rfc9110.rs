//! RFC 9110, HTTP semantics: methods, fields, expectations, status codes.

use super::{
    After, HIDDEN, LAST, REPORT, Step, Table, chunked, go_on, health, malformed, malformed_body,
    methods, not_found, refused, report, report_head, request, stored, wrong_method,
};

const OF_REPORTS: &str = "POST, OPTIONS";
const OF_HEALTH: &str = "GET, HEAD, OPTIONS";
/// For what is larger by far than all that is taken.
const BODY_TOO_LARGE: &str = "body exceeds 16777216 bytes";
const HEALTH: &str = "/.well-known/healthcheck";

pub(super) fn rows(table: &mut Table) {
    fields(table);
    routing(table);
    head_requests(table);
    other_methods(table);
    expectations(table);
    refusals(table);
}

fn fields(table: &mut Table) {
    let of = |version: &str| request(&format!("GET / {version}"), "");
    table.section("RFC 9110 §2.5, versions");
    for version in [
        "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/9.9",
    ] {
        let message = format!("expected HTTP/1.1 or HTTP/1.0, found {version}");
        let reply = refused(
            "505 HTTP Version Not Supported",
            "unsupported_version",
            &message,
        );
        table.closed(of(version), reply);
    }

    table.section("RFC 9110 §5.1, names");
    for name in [
        "X-Y",
        "x_y",
        "!#$%&'*+-.^_`|~09az",
        "Content-Type",
        "Cookie",
    ] {
        table.kept(
            request("GET / HTTP/1.1", &format!("{name}: y\r\n")),
            not_found(),
        );
    }

    table.section("RFC 9110 §5.3, repeated fields");
    let twice = "x: y\r\nX: z\r\nAccept: a\r\nAccept: b\r\n";
    table.kept(request("GET / HTTP/1.1", twice), not_found());

    table.section("RFC 9110 §5.5, values");
    let control = malformed("control character in a header field value");
    for byte in [0, 1, 8, 0x0b, 0x0c, 0x0e, 0x1b, 0x1f, 0x7f] {
        for value in [&[byte][..], &[b'a', byte, b'b']] {
            let bytes = [b"GET / HTTP/1.1\r\nHost: h\r\nx: ", value, b"\r\n\r\n"].concat();
            table.closed(bytes, control.clone());
        }
    }
    for value in [
        &b""[..],
        b" ",
        b"\t",
        b"a\tb  c",
        b"\x80\xff",
        "\u{e9}".as_bytes(),
        b"a: b, \"c",
        b":",
    ] {
        let bytes = [b"GET / HTTP/1.1\r\nHost: h\r\nx:", value, b"\r\n\r\n"].concat();
        table.kept(bytes, not_found());
    }

    table.section("RFC 9110 §6.5, trailers announced");
    let announced = chunked(&format!("2b\r\n{REPORT}\r\n0\r\nx: y\r\n\r\n"));
    table.kept(
        announced.replace("\r\n\r\n2b", "\r\nTrailer: x\r\nTE: trailers\r\n\r\n2b"),
        stored(),
    );

    table.section("RFC 9110 §7.8, Upgrade");
    for fields in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n",
        "Upgrade: h2c\r\n",
    ] {
        table.kept(request(&format!("GET {HEALTH} HTTP/1.1"), fields), health());
        table.kept(report(&format!("{fields}Content-Length: 43\r\n")), stored());
    }
}

fn routing(table: &mut Table) {
    table.section("RFC 9110 §9.1, §15.6.2, methods nobody knows");
    let unknown = refused("501 Not Implemented", "unknown_method", "unknown method");
    let long = "M".repeat(200);
    for method in [
        "BREW", "post", "Post", "get", "PROPFIND", "POST.", "!", "P0ST", "PRI", &long,
    ] {
        table.kept(
            request(&format!("{method} /api/v1/reports HTTP/1.1"), ""),
            unknown.clone(),
        );
    }
    table.kept(request("BREW / HTTP/1.1", ""), unknown);

    table.section("RFC 9110 §15.5.6, methods that are not for this");
    for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE"] {
        let line = format!("{method} /api/v1/reports HTTP/1.1");
        table.kept(request(&line, ""), wrong_method(OF_REPORTS));
    }
    for path in [HEALTH, "/.well-known/healthcheck.json"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let line = format!("{method} {path} HTTP/1.1");
            table.kept(request(&line, ""), wrong_method(OF_HEALTH));
        }
    }

    table.section("RFC 9110 §15.5.5, paths that are not there");
    for target in [
        "/metrics",
        "/api/v1/segments",
        "/api/v1/summary",
        "/api/v1",
        "/.well-known/",
        "/favicon.ico",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            table.kept(
                request(&format!("{method} {target} HTTP/1.1"), ""),
                not_found(),
            );
        }
    }
}

fn head_requests(table: &mut Table) {
    table.section("RFC 9110 §9.3.1, GET");
    table.kept(request(&format!("GET {HEALTH} HTTP/1.1"), ""), health());
    table.kept(
        request("GET /.well-known/healthcheck.json?a HTTP/1.1", ""),
        health(),
    );
    table.kept(
        request(&format!("GET {HEALTH} HTTP/1.1"), "Content-Length: 0\r\n"),
        health(),
    );

    table.section("RFC 9110 §9.3.2, HEAD");
    let head = |target: &str, fields: &str| request(&format!("HEAD {target} HTTP/1.1"), fields);
    table.kept(head(HEALTH, ""), health().without_body());
    table.kept(
        head("/.well-known/healthcheck.json", ""),
        health().without_body(),
    );
    table.kept(head("/", ""), not_found().without_body());
    table.kept(
        head("/api/v1/reports", ""),
        wrong_method(OF_REPORTS).without_body(),
    );
    table.kept(
        head("/", "Content-Length: 5\r\n") + "hello",
        not_found().without_body(),
    );
    table.last(
        head(HEALTH, "Connection: close\r\n"),
        health().without_body(),
    );
    table.closed(
        head("/", "Transfer-Encoding: chunked\r\n"),
        not_found().without_body(),
    );
    let expectation = "expected no expectation but 100-continue";
    let expectation = refused("417 Expectation Failed", "unknown_expectation", expectation);
    table.kept(head("/", "Expect: x\r\n"), expectation.without_body());
    // What is refused by its head alone is HEAD's all the same.
    table.closed(
        "HEAD / HTTP/1.1\r\n\r\n",
        malformed("host field is missing").without_body(),
    );
    table.closed(
        "\r\nHEAD / HTTP/1.1\r\n\r\n",
        malformed("host field is missing").without_body(),
    );
    let line_feed = malformed("bare line feed at byte 15 of the head");
    table.closed("HEAD / HTTP/1.1\nHost: h\n\n", line_feed.without_body());
    let both = malformed("both content-length and transfer-encoding");
    let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    table.closed(head("/", fields), both.without_body());
    let version = "expected HTTP/1.1 or HTTP/1.0, found HTTP/1.2";
    let version = refused(
        "505 HTTP Version Not Supported",
        "unsupported_version",
        version,
    );
    table.closed(
        head("/", "").replace("/1.1", "/1.2"),
        version.without_body(),
    );
    let too_long = refused(
        "414 URI Too Long",
        "target_too_long",
        "request line exceeds 8192 bytes",
    );
    table.closed(
        head(&format!("/{}", "x".repeat(8192)), ""),
        too_long.without_body(),
    );
    table.kept(
        "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        not_found().without_body().keep_alive(),
    );
    // Not every word that begins so, nor what is refused before the word has come.
    let empty = malformed("more than 2 empty lines before the head");
    table.closed("\r\n\r\n\r\nHEAD / HTTP/1.1\r\n\r\n", empty);
    let line_feed = malformed("bare line feed at byte 0 of the head");
    table.closed("\nHEAD / HTTP/1.1\r\n\r\n", line_feed);
    let line = malformed("request line is not method, target and version");
    table.closed("HEAD\t/ HTTP/1.1\r\n\r\n", line.clone());
    table.closed("HEADER / HTTP/1.1 x\r\n\r\n", line);
}

fn other_methods(table: &mut Table) {
    table.section("RFC 9110 §9.3.3, POST");
    let post = |fields: &str, body: &str| report_head(fields) + body;
    table.kept(post("Content-Length: 43\r\n", REPORT), stored());
    let type_line = |value: &str| format!("Content-Type: {value}\r\nContent-Length: 43\r\n");
    for value in [
        "application/json",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "x",
        "",
    ] {
        table.kept(post(&type_line(value), REPORT), stored());
    }

    table.section("RFC 9110 §9.3.6, CONNECT");
    let tunnel = refused(
        "501 Not Implemented",
        "unknown_method",
        "method CONNECT is not supported",
    );
    for target in ["h:80", "/", "h", "http://h/"] {
        table.closed(
            request(&format!("CONNECT {target} HTTP/1.1"), ""),
            tunnel.clone(),
        );
    }

    table.section("RFC 9110 §9.3.7, §8.6, §15.3.5, OPTIONS and no content");
    let options =
        |target: &str, fields: &str| request(&format!("OPTIONS {target} HTTP/1.1"), fields);
    table.kept(options("/api/v1/reports", ""), methods(OF_REPORTS));
    table.kept(options("http://h/api/v1/reports", ""), methods(OF_REPORTS));
    table.kept(options(HEALTH, ""), methods(OF_HEALTH));
    table.kept(
        options(HEALTH, "Content-Length: 2\r\n") + "{}",
        methods(OF_HEALTH),
    );
    table.last(options(HEALTH, "Connection: close\r\n"), methods(OF_HEALTH));
    table.closed(
        options(HEALTH, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        methods(OF_HEALTH),
    );
    let old = options("/api/v1/reports", "").replace("/1.1", "/1.0");
    table.last(old, methods(OF_REPORTS));
}

fn expectations(table: &mut Table) {
    table.section("RFC 9110 §10.1.1, Expect");
    let chunks = format!("2b\r\n{REPORT}\r\n0\r\n\r\n");
    let length = "Content-Length: 43\r\n";
    let coding = "Transfer-Encoding: chunked\r\n";
    let expect = "Expect: 100-continue\r\n";
    for (fields, body) in [
        (format!("{expect}{length}"), REPORT),
        (format!("{length}expect:100-Continue\r\n"), REPORT),
        (format!("{expect}{expect}{length}"), REPORT),
        (
            format!("Expect: 100-continue, 100-continue\r\n{length}"),
            REPORT,
        ),
        (format!("{expect}{coding}"), &*chunks),
    ] {
        // The client waits to be invited.
        let head = Step {
            bytes: report_head(&fields).into(),
            replies: vec![go_on()],
        };
        let body = Step {
            bytes: body.into(),
            replies: vec![stored()],
        };
        table.steps(vec![head, body], After::Kept);
    }
    // An invited body is a body like others.
    let steps = |chunks: &str| {
        let head = Step {
            bytes: report_head(&format!("{expect}{coding}")).into(),
            replies: vec![go_on()],
        };
        let size = malformed_body("chunk size is not 1 to 16 hexadecimal digits");
        let body = Step {
            bytes: chunks.into(),
            replies: vec![size.close()],
        };
        vec![head, body]
    };
    table.steps(steps("\r\n"), After::Closed);
    // Nobody invites no body, nor one that comes unasked.
    let empty = refused("400 Bad Request", "not_json", "body is empty");
    table.kept(
        report_head(&format!("{expect}Content-Length: 0\r\n")),
        empty,
    );
    let required = refused(
        "411 Length Required",
        "length_required",
        "expected content-length or chunked",
    );
    table.kept(report_head(expect), required);
    table.kept(request(&format!("GET {HEALTH} HTTP/1.1"), expect), health());
    table.kept(report(&format!("Expect:\r\n{length}")), stored());
    table.kept(report(&format!("Expect: ,\r\n{length}")), stored());
    // A refusal instead of an invitation: whether the body comes nevertheless cannot be known.
    let elsewhere = |fields: &str| request("POST / HTTP/1.1", fields);
    table.closed(
        elsewhere(&format!("{expect}Content-Length: 5\r\n")),
        not_found(),
    );
    table.closed(
        elsewhere(&format!("{expect}Content-Length: 5\r\n")) + "hello",
        not_found(),
    );
    table.closed(elsewhere(&format!("{expect}{coding}")), not_found());
    let health_line = format!("GET {HEALTH} HTTP/1.1");
    table.closed(
        request(&health_line, &format!("{expect}Content-Length: 5\r\n")),
        health(),
    );

    table.section("RFC 9110 §10.1.1, §15.5.18, what cannot be expected");
    let message = "expected no expectation but 100-continue";
    let failed = refused("417 Expectation Failed", "unknown_expectation", message);
    for value in [
        "200-ok",
        "100-continue, x",
        "x, 100-continue",
        "100-continue;a=b",
        "100",
        "\"100-continue\"",
        "100-continue x",
    ] {
        table.closed(
            report(&format!("Expect: {value}\r\n{length}")),
            failed.clone(),
        );
    }
    table.closed(
        report(&format!("{expect}Expect: x\r\n{length}")),
        failed.clone(),
    );
    table.closed(
        report_head(&format!("Expect: x\r\n{coding}")) + &chunks,
        failed.clone(),
    );
    // Where no body can come, the next request is found.
    table.kept(request(&health_line, "Expect: x\r\n"), failed);

    table.section("RFC 9110 §10.1.1, §15.2, no interim answers in HTTP/1.0");
    let old = |fields: &str| report_head(fields).replace("HTTP/1.1", "HTTP/1.0");
    table.last(old(&format!("{expect}{length}")) + REPORT, stored());
    table.last(old(&format!("Expect: x\r\n{length}")) + REPORT, stored());
    let kept = format!("{expect}Connection: keep-alive\r\n{length}");
    table.kept(old(&kept) + REPORT, stored().keep_alive());
    // The body comes later, uninvited.
    let head = Step {
        bytes: old(&format!("{expect}{length}")).into(),
        replies: vec![],
    };
    let body = Step {
        bytes: REPORT.into(),
        replies: vec![stored().close()],
    };
    table.steps(vec![head, body], After::Agreed);
}

fn refusals(table: &mut Table) {
    table.section("RFC 9110 §15.5.1, what is no report");
    let empty = refused("400 Bad Request", "not_json", "body is empty");
    table.kept(report_head("Content-Length: 0\r\n"), empty);
    let invalid = refused(
        "400 Bad Request",
        "not_json",
        "body is not valid JSON at byte 0",
    );
    table.kept(report_head("Content-Length: 5\r\n") + "hello", invalid);
    let missing = refused(
        "400 Bad Request",
        "not_a_report",
        "clientId: required but missing",
    );
    table.kept(report_head("Content-Length: 2\r\n") + "{}", missing.clone());
    table.kept(chunked("2\r\n{}\r\n0\r\n\r\n"), missing.clone());
    table.last(
        report_head("Connection: close\r\nContent-Length: 2\r\n") + "{}",
        missing.clone(),
    );
    let old = report_head("Content-Length: 2\r\n").replace("HTTP/1.1", "HTTP/1.0");
    table.last(old + "{}", missing);
    // A body is as long as its length says, and no byte of it is a request.
    let cut = refused(
        "400 Bad Request",
        "not_json",
        "body is not valid JSON at byte 0",
    );
    let hidden =
        format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\n{HIDDEN}");
    let fields = format!("Content-Length: {}\r\n", hidden.len());
    table.kept(report_head(&fields) + &hidden, cut);

    table.section("RFC 9110 §15.5.9, too slow");
    let late = |part: &str| {
        let message = format!("request {part} took too long");
        refused("408 Request Timeout", "too_slow", &message)
    };
    let whole = report("Content-Length: 43\r\n");
    let body_at = whole.len() - REPORT.len();
    table.late("\r\n", late("head"));
    table.late("P", late("head"));
    table.late(&whole[..body_at - 1], late("head"));
    table.late(
        "HEAD / HTTP/1.1\r\nHost: h\r\n",
        late("head").without_body(),
    );
    table.late(&whole[..body_at], late("body"));
    table.late(&whole[..whole.len() - 1], late("body"));
    table.late(chunked(&format!("2b\r\n{REPORT}\r\n0\r\n")), late("body"));
    table.pipelined(
        &[
            (
                LAST.replace("Connection: close\r\n", "").as_bytes(),
                health(),
            ),
            (b"G", late("head").close()),
        ],
        After::Late,
    );

    table.section("RFC 9110 §15.5.12, no length");
    let required = refused(
        "411 Length Required",
        "length_required",
        "expected content-length or chunked",
    );
    table.kept(report_head(""), required.clone());
    table.kept(
        report_head("Content-Type: application/json\r\n"),
        required.clone(),
    );
    // A body that nobody announced would be the next request.
    let line = malformed("request line is not method, target and version");
    table.pipelined(
        &[
            (report_head("").as_bytes(), required.clone()),
            (REPORT.as_bytes(), line.close()),
        ],
        After::Closed,
    );
    table.last(report_head("").replace("HTTP/1.1", "HTTP/1.0"), required);

    table.section("RFC 9110 §15.5.14, RFC 9112 §7.1, too large");
    let too_large = refused("413 Payload Too Large", "body_too_large", BODY_TOO_LARGE);
    for length in [
        "104857600",
        "18446744073",
        "9223372036854775808",
        "9999999999999999999",
    ] {
        let fields = format!("Content-Length: {length}\r\n");
        table.closed(report(&fields), too_large.clone());
        let asked = format!("Expect: 100-continue\r\n{fields}");
        table.closed(report_head(&asked), too_large.clone());
    }
    for size in [
        "6400000",
        "7fffffff",
        "80000000",
        "ffffffff",
        "100000000",
        "7fffffffffffffff",
        "8000000000000000",
        "ffffffffffffffff",
    ] {
        table.closed(
            chunked(&format!("{size}\r\n{REPORT}\r\n0\r\n\r\n")),
            too_large.clone(),
        );
    }
    // Together more than 64 bits hold; and what begins like this is no batch, with its larger limit.
    let message = "body exceeds 1048576 bytes";
    let too_large = refused("413 Payload Too Large", "body_too_large", message);
    for size in ["ffffffffffffffff", "fffffffffffffffe", "fffffffffffffff6"] {
        table.closed(
            chunked(&format!("a\r\n0123456789\r\n{size}\r\n")),
            too_large.clone(),
        );
    }
}
