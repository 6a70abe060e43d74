//! RFC 9112, HTTP/1.1: messages, their framing, and connections.

use super::{
    After, HIDDEN, LAST, REPORT, Step, Table, chunked, go_on, health, malformed, malformed_body,
    not_found, refused, report, report_head, request, stored,
};
use crate::support::post;

pub(super) fn rows(table: &mut Table) {
    message_parsing(table);
    request_line(table);
    host(table);
    request_target(table);
    fields(table);
    transfer_encoding(table);
    length(table);
    chunks(table);
    chunk_extensions(table);
    trailers(table);
    connections(table);
}

fn message_parsing(table: &mut Table) {
    table.section("RFC 9112 §2.2, line ends");
    for (bytes, at) in [
        ("GET / HTTP/1.1\nHost: h\n\n", 14),
        ("GET / HTTP/1.1\nHost: h\r\n\r\n", 14),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", 23),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n", 25),
        ("GET / HTTP/1.1\r\nHost: h\r\nx: y\nz: a\r\n\r\n", 29),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 0),
        ("\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 2),
        // A second head, to one who takes the line feed for an end.
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\nPOST / HTTP/1.1\r\nHost: h\r\n\r\n",
            25,
        ),
        (
            "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nx: y\nTransfer-Encoding: chunked\r\n\r\n",
            44,
        ),
    ] {
        let message = format!("bare line feed at byte {at} of the head");
        table.closed(bytes, malformed(&message));
    }
    for (bytes, at) in [
        ("\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", 0),
        ("GET /\rHTTP/1.1\r\nHost: h\r\n\r\n", 5),
        ("GET / HTTP/1.1\rHost: h\r\r", 14),
        ("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 14),
        ("GET / HTTP/1.1\r\nHost: h\rx: y\r\n\r\n", 23),
        ("GET / HTTP/1.1\r\nHost: h\r\nx\r: y\r\n\r\n", 26),
        ("GET / HTTP/1.1\r\nHost: h\r\n\rX", 25),
        (
            "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nx: y\rTransfer-Encoding: chunked\r\n\r\n",
            44,
        ),
        (
            "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \rchunked\r\n\r\n",
            59,
        ),
        (
            "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r3\r\n\r\n",
            57,
        ),
    ] {
        let message = format!("bare carriage return at byte {at} of the head");
        table.closed(bytes, malformed(&message));
    }

    table.section("RFC 9112 §2.2, empty lines before a request");
    table.kept(
        format!("\r\n{}", report("Content-Length: 43\r\n")),
        stored(),
    );
    table.kept(
        format!("\r\n\r\n{}", report("Content-Length: 43\r\n")),
        stored(),
    );
    table.closed(
        format!("\r\n\r\n\r\n{}", report("Content-Length: 43\r\n")),
        malformed("more than 2 empty lines before the head"),
    );

    table.section("RFC 9112 §2.2, blanks before the first field");
    let name = malformed("header line has no field name and colon at its start");
    table.closed("GET / HTTP/1.1\r\n Host: h\r\n\r\n", name.clone());
    table.closed("GET / HTTP/1.1\r\n\tHost: h\r\n\r\n", name.clone());
    table.closed("GET / HTTP/1.1\r\n x: y\r\nHost: h\r\n\r\n", name);
}

fn request_line(table: &mut Table) {
    let line = malformed("request line is not method, target and version");
    table.section("RFC 9112 §2.3, the version's spelling");
    for version in [
        "http/1.1",
        "Http/1.1",
        "HTTP/1",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/1.",
        "HTTP/01.1",
        "HTTP/1.1.1",
        "HTTP/1,1",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "HTTPS/1.1",
        "HTTP /1.1",
        "HTTP/ 1.1",
        "HTTP",
        "1.1",
    ] {
        table.closed(request(&format!("GET / {version}"), ""), line.clone());
    }

    table.section("RFC 9112 §3");
    for bytes in [
        // HTTP/0.9, which is no more.
        "GET /\r\n\r\n",
        "GET\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1 x\r\nHost: h\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\t\r\nHost: h\r\n\r\n",
        "GET /\x0bHTTP/1.1\r\nHost: h\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        " / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: h\r\n\r\n",
        "GE(T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET: / HTTP/1.1\r\nHost: h\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
        // A TLS handshake, and what is no text at all: nobody waits for more of it.
        "\x16\x03\x01\x02\0\x01\0\x01",
        "\0",
        "{}",
    ] {
        table.closed(bytes, line.clone());
    }
    let target_len = 8192 - "GET / HTTP/1.1".len();
    let line_of = |len: usize| request(&format!("GET /{} HTTP/1.1", "x".repeat(len)), "");
    table.kept(line_of(target_len), not_found());
    let too_long = refused(
        "414 URI Too Long",
        "target_too_long",
        "request line exceeds 8192 bytes",
    );
    table.closed(line_of(target_len + 1), too_long.clone());
    table.closed(line_of(20_000), too_long.clone());
    table.closed("x".repeat(8193), too_long);
}

fn host(table: &mut Table) {
    table.section("RFC 9112 §3.2");
    let missing = malformed("host field is missing");
    table.closed("GET / HTTP/1.1\r\n\r\n", missing.clone());
    table.closed("GET / HTTP/1.1\r\nx: y\r\n\r\n", missing.clone());
    table.closed(
        "GET / HTTP/1.1\r\nHos: h\r\nHostt: h\r\n\r\n",
        missing.clone(),
    );
    table.closed("GET http://h/ HTTP/1.1\r\n\r\n", missing.clone());
    table.closed("OPTIONS * HTTP/1.1\r\n\r\n", missing);
    let repeated = malformed("more than one host field");
    table.closed(
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        repeated.clone(),
    );
    table.closed(
        "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\nhOST: b\r\n\r\n",
        repeated.clone(),
    );
    table.closed(
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        repeated.clone(),
    );
    table.closed("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", repeated);
    let invalid = malformed("host field is not a host with an optional port");
    for value in [
        &b""[..],
        b" ",
        b"a b",
        b"a\tb",
        b"h:x",
        b"h:80:80",
        b":80",
        b"h/",
        b"h/x",
        b"h?x",
        b"h#x",
        b"u@h",
        b"h\\x",
        b"a, b@c",
        b"\"h\"",
        b"http://h",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[h]",
        b"%zz",
        b"h\xc3\xa9",
        b"h\xff",
        b"<h>",
    ] {
        let bytes = [b"GET / HTTP/1.1\r\nHost: ", value, b"\r\n\r\n"].concat();
        table.closed(bytes, invalid.clone());
    }
    table.closed("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", invalid.clone());
    table.closed("GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n", invalid);
    for value in [
        "h",
        "H.Example",
        "h:80",
        "h:",
        "127.0.0.1:8080",
        "[::1]",
        "[::ffff:1.2.3.4]:80",
        "a_b",
        "%41",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
        table.kept(bytes, not_found());
    }
}

fn request_target(table: &mut Table) {
    table.section("RFC 9112 §3.2.1, RFC 3986 §3.3, origin-form");
    for (target, byte, at) in [
        ("/a#b", 0x23, 2),
        ("/api/v1/reports#", 0x23, 15),
        ("/\"", 0x22, 1),
        ("/<", 0x3c, 1),
        ("/>", 0x3e, 1),
        ("/[", 0x5b, 1),
        ("/]", 0x5d, 1),
        ("/{", 0x7b, 1),
        ("/|", 0x7c, 1),
        ("/\\", 0x5c, 1),
        ("/^", 0x5e, 1),
        ("/`", 0x60, 1),
        ("/?[", 0x5b, 2),
        ("/\u{e9}", 0xc3, 1),
        ("/%", 0x25, 1),
        ("/%4", 0x25, 1),
        ("/%zz", 0x25, 1),
        ("http://h/\\", 0x5c, 9),
    ] {
        let message = format!("invalid byte 0x{byte:02x} at byte {at} of the request target");
        table.closed(
            request(&format!("GET {target} HTTP/1.1"), ""),
            malformed(&message),
        );
    }
    // One spelling names a resource: nothing is decoded, nothing is resolved.
    for target in [
        "/",
        "/?",
        "/?a=b&c",
        "/a%2Fb",
        "//h/x",
        "/../etc/passwd",
        "/;a=b",
        "/:@!$&'()*+,=-._~",
    ] {
        table.kept(request(&format!("GET {target} HTTP/1.1"), ""), not_found());
    }
    for path in [
        "/api/v1/%72eports",
        "/api/v1/reports/",
        "//api/v1/reports",
        "/api/v1/./reports",
        "/API/v1/reports",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 43\r\n\r\n{REPORT}");
        table.kept(head, not_found());
    }
    let with_query = report("Content-Length: 43\r\n").replace("reports", "reports?a=b");
    table.kept(with_query, stored());

    table.section("RFC 9112 §3.2.2, absolute-form");
    for (target, host) in [
        ("http://h/api/v1/reports", "h"),
        ("HTTP://H:8080/api/v1/reports?a", "h"),
        ("https://h/api/v1/reports", "h"),
        ("http://[::1]:80/api/v1/reports", "h"),
        // Its authority counts, whatever the field says.
        ("http://a/api/v1/reports", "b"),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 43\r\n\r\n");
        table.kept(head + REPORT, stored());
    }
    table.kept(request("GET http://h HTTP/1.1", ""), not_found());
    table.kept(request("GET http://h?a HTTP/1.1", ""), not_found());
    let authority = malformed("request target has no valid host and port");
    for target in [
        "http:///",
        "http://:80/",
        "http://u@h/",
        "http://h:x/",
        "http://[::1/",
        "http://",
        "http://a%zz/",
    ] {
        table.closed(
            request(&format!("GET {target} HTTP/1.1"), ""),
            authority.clone(),
        );
    }
    let fragment = malformed("invalid byte 0x23 at byte 8 of the request target");
    table.closed(request("GET http://h#a HTTP/1.1", ""), fragment);
    let form = malformed("request target is neither a path nor an http URI");
    for target in [
        "ftp://h/",
        "ws://h/",
        "http:/h/",
        "http:h",
        "javascript:1",
        "api/v1/reports",
        "?a",
        "**",
    ] {
        table.closed(request(&format!("GET {target} HTTP/1.1"), ""), form.clone());
    }

    table.section("RFC 9112 §3.2.3, authority-form");
    table.closed(request("GET h:80 HTTP/1.1", ""), form.clone());
    table.closed(request("POST h HTTP/1.1", ""), form);

    table.section("RFC 9112 §3.2.4, asterisk-form");
    let asterisk = malformed("request target * without method OPTIONS");
    table.closed(request("GET * HTTP/1.1", ""), asterisk.clone());
    table.closed(request("POST * HTTP/1.1", ""), asterisk);
    table.kept(request("OPTIONS * HTTP/1.1", ""), not_found());
}

fn fields(table: &mut Table) {
    let name = malformed("header line has no field name and colon at its start");
    table.section("RFC 9112 §5");
    for line in [
        &b"x\r\n"[..],
        b": y\r\n",
        b"x y: z\r\n",
        b"x(y): z\r\n",
        b"\"x\": y\r\n",
        b"x\x80: y\r\n",
        b"x\0: y\r\n",
        b"\x0bx: y\r\n",
        b"x/y: z\r\n",
        b"x@y: z\r\n",
        b"\0Transfer-Encoding: chunked\r\n",
    ] {
        table.closed(
            [b"GET / HTTP/1.1\r\nHost: h\r\n", line, b"\r\n"].concat(),
            name.clone(),
        );
    }

    table.section("RFC 9112 §5.1, blanks around a colon");
    table.closed("GET / HTTP/1.1\r\nHost : h\r\n\r\n", name.clone());
    table.closed("GET / HTTP/1.1\r\nHost\t: h\r\n\r\n", name.clone());
    table.closed(
        chunked("0\r\n\r\n").replace("Encoding:", "Encoding :"),
        name.clone(),
    );
    table.closed(
        chunked("0\r\n\r\n").replace("Encoding:", "Encoding\t:"),
        name.clone(),
    );
    table.closed(report("Content-Length : 43\r\n"), name.clone());
    table.closed(
        report("Content-Length: 43\r\nTransfer-Encoding : chunked\r\n"),
        name.clone(),
    );
    for length in [
        "Content-Length:43",
        "content-length:   43",
        "CONTENT-LENGTH:\t43",
        "Content-Length: 43 \t ",
    ] {
        table.kept(report(&format!("{length}\r\n")), stored());
    }

    table.section("RFC 9112 §5.2, folded lines");
    for lines in [
        "x: y\r\n z\r\n",
        "x: y\r\n\tz\r\n",
        "x: y\r\n \r\n",
        "x:\r\n y\r\n",
        "Content-Length: 4\r\n 3\r\n",
        "Content-Length:\r\n 43\r\n",
        "Content-Length: 43\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\r\n\tchunked\r\n",
        "Transfer-Encoding: gzip,\r\n chunked\r\n",
    ] {
        table.closed(report(lines), name.clone());
    }
    table.closed("GET / HTTP/1.1\r\nHost: h\r\n x\r\n\r\n", name);
}

fn transfer_encoding(table: &mut Table) {
    let chunks = format!("2b\r\n{REPORT}\r\n0\r\n\r\n");
    table.section("RFC 9112 §6.1");
    for spelling in ["chunked", "Chunked", "CHUNKED", " \tchunked\t "] {
        let fields = format!("transfer-encoding: {spelling}\r\n");
        table.kept(report_head(&fields) + &chunks, stored());
    }
    let refuse = |table: &mut Table, value: &[u8], reply| {
        let fields = [b"Transfer-Encoding: ", value, b"\r\n\r\n"].concat();
        let head = report_head("");
        let head = head.strip_suffix("\r\n").expect("a blank line");
        table.closed(
            [head.as_bytes(), &fields, chunks.as_bytes()].concat(),
            reply,
        );
    };
    let coding = malformed("transfer-encoding is malformed, expected chunked");
    for value in [
        &b""[..],
        b",",
        b"chunked,",
        b",chunked",
        b"gzip,,chunked",
        b"chunked, chunked",
        b"chunked,gzip,chunked,chunked",
        b"chunked;a=b",
        b"chunked;",
        b"chunked ;a=b",
        b"gzip, chunked;q=1",
        b"\"chunked\"",
        b"'chunked' x",
        b"x chunked",
        b"chunked x",
        b"chunked;chunked",
        b"chunked=chunked",
        b"\xa0chunked",
        b"chunked\xff",
        b"chun ked",
        b"[chunked]",
        b"chunked, gzip",
        b"chunked, identity",
    ] {
        refuse(table, value, coding.clone());
    }
    let control = malformed("control character in a header field value");
    for value in [
        &b"\x0bchunked"[..],
        b"\x0cchunked",
        b"chunked\x0b",
        b"\0chunked",
        b"chunked\x7f",
    ] {
        refuse(table, value, control.clone());
    }
    let unknown = refused(
        "501 Not Implemented",
        "unknown_transfer_coding",
        "transfer-encoding is more than chunked",
    );
    for value in [
        &b"gzip, chunked"[..],
        b"gzip,chunked",
        b"identity, chunked",
        b"x;q=\"1\", chunked",
        b"deflate, gzip, chunked",
    ] {
        refuse(table, value, unknown.clone());
    }
    let lines = |first: &str, second: &str| {
        let fields = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n");
        report_head(&fields) + &chunks
    };
    table.closed(lines("chunked", "chunked"), coding.clone());
    table.closed(lines("gzip", "chunked"), coding.clone());
    table.closed(lines("chunked", "identity"), coding.clone());
    table.closed(lines("", "chunked"), coding.clone());
    let old = malformed("transfer-encoding in an HTTP/1.0 request");
    table.closed(
        chunked(&chunks).replace("HTTP/1.1", "HTTP/1.0"),
        old.clone(),
    );
    let persistent = report_head("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n");
    table.closed(persistent.replace("HTTP/1.1", "HTTP/1.0") + &chunks, old);

    table.section("RFC 9112 §6.3, item 3: both lengths");
    let both = malformed("both content-length and transfer-encoding");
    for fields in [
        "Content-Length: 43\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 43\r\n",
        "transfer-encoding: CHUNKED\r\nx: y\r\ncontent-length: 0\r\n",
        "Content-Length: 43\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 43\r\nTransfer-Encoding: xchunked\r\n",
        "Content-Length: 43\r\nTransfer-Encoding:\r\n",
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length:\r\nTransfer-Encoding: chunked\r\n",
        "Connection: content-length\r\nContent-Length: 43\r\nTransfer-Encoding: chunked\r\n",
    ] {
        table.closed(report_head(fields) + &chunks, both.clone());
    }
    // The classic ones: to one reader the body ends before the hidden request, to the other behind it.
    let hidden = String::from_utf8(post(HIDDEN.as_bytes())).expect("is text");
    let length = hidden.len() + "0\r\n\r\n".len();
    let fields = format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n");
    table.closed(
        format!("{}0\r\n\r\n{hidden}", report_head(&fields)),
        both.clone(),
    );
    let fields = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    table.closed(report_head(fields) + &chunk, both.clone());
    let elsewhere = request("GET / HTTP/1.1", fields) + &chunk;
    table.closed(elsewhere, both);

    table.section("RFC 9112 §6.3, item 4: no end");
    let endless = malformed("transfer-encoding does not end in chunked");
    for value in [
        &b"gzip"[..],
        b"identity",
        b"xchunked",
        b"chunkedx",
        b"'chunked'",
        b"chunk",
    ] {
        refuse(table, value, endless.clone());
    }
}

fn length(table: &mut Table) {
    table.section("RFC 9112 §6.2, §6.3, item 5");
    for length in ["43", "043", "0000000000000000043"] {
        table.kept(report(&format!("Content-Length: {length}\r\n")), stored());
    }
    let number = malformed("content-length is not a number of 1 to 19 digits");
    for value in [
        "",
        "+43",
        "-43",
        "-0",
        "0x2b",
        "2b",
        "4 3",
        "43,43",
        "43, 43",
        "43,",
        ",43",
        "43;a=b",
        "\"43\"",
        "43.0",
        "4_3",
        "1e1",
        "\u{664}\u{663}",
        "\u{a0}43",
        "00000000000000000043",
        "18446744073709551616",
        "18446744073709551659",
        "99999999999999999999999999999999",
        "chunked",
    ] {
        table.closed(
            report(&format!("Content-Length: {value}\r\n")),
            number.clone(),
        );
    }
    let control = malformed("control character in a header field value");
    table.closed(report("Content-Length: \x0b43\r\n"), control.clone());
    table.closed(report("Content-Length: 43\0\r\n"), control);
    let repeated = malformed("more than one content-length field");
    for fields in [
        "Content-Length: 43\r\nContent-Length: 43\r\n",
        "Content-Length: 43\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nx: y\r\ncontent-length: 43\r\n",
        "Content-Length: 43\r\nContent-Length:\r\n",
        "Content-Length: 43\r\nContent-Length: +43\r\n",
    ] {
        table.closed(report(fields), repeated.clone());
    }
    // Not the field by that name, to anyone.
    let required = refused(
        "411 Length Required",
        "length_required",
        "expected content-length or chunked",
    );
    for fields in [
        "",
        "Content_Length: 43\r\n",
        "Transfer_Encoding: chunked\r\n",
        "X-Content-Length: 43\r\n",
    ] {
        table.kept(report_head(fields), required.clone());
    }
    table.kept(
        report("Content-Length: 43\r\nContent_Length: 1\r\n"),
        stored(),
    );
    table.kept(
        report("Content-Length: 43\r\nTransfer_Encoding: chunked\r\n"),
        stored(),
    );
}

fn chunks(table: &mut Table) {
    table.section("RFC 9112 §7.1");
    let (a, b) = REPORT.split_at(10);
    let bytes: String = REPORT.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    for chunks in [
        format!("2b\r\n{REPORT}\r\n0\r\n\r\n"),
        format!("2B\r\n{REPORT}\r\n000\r\n\r\n"),
        format!("0000002b\r\n{REPORT}\r\n0\r\n\r\n"),
        format!("000000000000002b\r\n{REPORT}\r\n0000000000000000\r\n\r\n"),
        format!("a\r\n{a}\r\n21\r\n{b}\r\n0\r\n\r\n"),
        format!("{bytes}0\r\n\r\n"),
    ] {
        table.kept(chunked(&chunks), stored());
    }
    let empty = refused("400 Bad Request", "not_json", "body is empty");
    table.kept(chunked("0\r\n\r\n"), empty);
    let size = malformed_body("chunk size is not 1 to 16 hexadecimal digits");
    for line in [
        "",
        ";",
        ";a=b",
        "+2b",
        "-2b",
        "0x2b",
        "0X2b",
        "2bh",
        "2bx",
        "2b ",
        "2b\t",
        " 2b",
        "\t2b",
        "2 b",
        "2b ;a",
        "2b,2b",
        "2_b",
        "2b.0",
        "\"2b\"",
        "2b\0",
        "\x0b2b",
        "2b\x0b",
        "\u{662}",
        "0000000000000002b",
        "10000000000000000",
        "10000000000000002b",
        "00000000000000000",
        "x",
    ] {
        table.closed(
            chunked(&format!("{line}\r\n{REPORT}\r\n0\r\n\r\n")),
            size.clone(),
        );
    }
    // The last one as well.
    for line in ["", "-0", "0x0", "0 ", " 0", "0h", "00000000000000000"] {
        table.closed(
            chunked(&format!("2b\r\n{REPORT}\r\n{line}\r\n\r\n")),
            size.clone(),
        );
    }
    let line_end = malformed_body("chunk or trailer line does not end in CR LF");
    for chunks in [
        format!("2b\n{REPORT}\r\n0\r\n\r\n"),
        format!("2b\r{REPORT}\r\n0\r\n\r\n"),
        format!("2b\r\r\n{REPORT}\r\n0\r\n\r\n"),
        format!("\n2b\r\n{REPORT}\r\n0\r\n\r\n"),
        format!("2b\r\n{REPORT}\r\n0\n\r\n"),
        format!("2b\r\n{REPORT}\r\n0\r\r\n"),
        format!("2b\r\n{REPORT}\r\n0\r\n\n"),
        format!("2b\r\n{REPORT}\r\n0\r\n\rX"),
    ] {
        table.closed(chunked(&chunks), line_end.clone());
    }
    let data_end = malformed_body("chunk data is not followed by CR LF");
    for chunks in [
        format!("2b\r\n{REPORT}0\r\n\r\n"),
        format!("2b\r\n{REPORT}\n0\r\n\r\n"),
        format!("2b\r\n{REPORT}\r0\r\n\r\n"),
        format!("2b\r\n{REPORT}XX0\r\n\r\n"),
        format!("2b\r\n{REPORT} \r\n0\r\n\r\n"),
        format!("2b\r\n{REPORT}\r\r\n0\r\n\r\n"),
        // One byte more, and one less, than announced.
        format!("2a\r\n{REPORT}\r\n0\r\n\r\n"),
        format!("2c\r\n{REPORT}\r\n0\r\n\r\n"),
    ] {
        table.closed(chunked(&chunks), data_end.clone());
    }
    // As if the data went on to the next line end.
    table.closed(chunked(&format!("2b\r\n{REPORT}\r\n\r\n0\r\n\r\n")), size);
    table.closed(
        chunked(&"1\r\nx\r\n".repeat(5000)),
        malformed_body("chunk framing exceeds the data by more than 16384 bytes"),
    );
}

fn chunk_extensions(table: &mut Table) {
    table.section("RFC 9112 §7.1.1");
    for (first, last) in [
        (";a", ""),
        (";a=b;c=\"d;e\\\"f\"", ";g"),
        ("; a = b", "; c"),
        (";a=\"\r\n", ""),
    ] {
        let first = first.trim_end_matches("\r\n");
        table.kept(
            chunked(&format!("2b{first}\r\n{REPORT}\r\n0{last}\r\n\r\n")),
            stored(),
        );
    }
    let line_end = malformed_body("chunk or trailer line does not end in CR LF");
    for extension in [";\n", ";a\nb", ";a=\"\n\"", ";a\r", ";a\rb", ";a=\"\r\""] {
        table.closed(
            chunked(&format!("2b{extension}\r\n{REPORT}\r\n0\r\n\r\n")),
            line_end.clone(),
        );
    }
    // To one who takes the line feed for an end, a chunk of two bytes, the last chunk, and a request.
    let hidden = String::from_utf8(post(HIDDEN.as_bytes())).expect("is text");
    table.closed(
        chunked(&format!("2;\nxx\r\n2b\r\n0\r\n\r\n{hidden}")),
        line_end,
    );
    let control = malformed_body("control character in a chunk extension");
    for extension in [";\0", ";a=\x01", ";\x0b", ";a\x7f"] {
        table.closed(
            chunked(&format!("2b{extension}\r\n{REPORT}\r\n0\r\n\r\n")),
            control.clone(),
        );
    }
    let long = |len: usize| format!("2b;{}\r\n{REPORT}\r\n0\r\n\r\n", "x".repeat(len));
    table.kept(chunked(&long(256 - "2b;\r\n".len())), stored());
    let too_long = malformed_body("chunk size line exceeds 256 bytes");
    table.closed(chunked(&long(257 - "2b;\r\n".len())), too_long.clone());
    table.closed(chunked(&"0".repeat(257)), too_long);
    let many = format!("1;{}\r\nx\r\n", "x".repeat(200)).repeat(6);
    table.closed(
        chunked(&many),
        malformed_body("chunk extensions exceed 1024 bytes"),
    );
}

fn trailers(table: &mut Table) {
    let with = |trailers: &str| chunked(&format!("2b\r\n{REPORT}\r\n0\r\n{trailers}\r\n"));
    table.section("RFC 9112 §7.1.2");
    // They are dropped, whatever they would have meant in the head.
    for trailers in [
        "x: y\r\n",
        "x: y\r\nx:\r\nz:\ta\t\r\n",
        "Content-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: a\r\nHost: b\r\n",
        "Connection: close\r\n",
        "Expect: 200-ok\r\n",
        "Content-Encoding: br\r\n",
    ] {
        table.kept(with(trailers), stored());
    }
    let trailer = malformed_body("trailer line is not a field name, a colon and a value");
    for line in [
        "x",
        "x y",
        "x : y",
        ": y",
        " x: y",
        "\tx: y",
        "x: y\r\n z",
        "x: \0",
        "x: \x0b",
        "x\0: y",
        "GET / HTTP/1.1",
    ] {
        table.closed(with(&format!("{line}\r\n")), trailer.clone());
    }
    let line_end = malformed_body("chunk or trailer line does not end in CR LF");
    for lines in ["x: y\n", "x: y\rz: a\r\n", "x: y\n\r\n"] {
        table.closed(with(lines), line_end.clone());
    }
    table.kept(with(&"x: y\r\n".repeat(64)), stored());
    table.closed(
        with(&"x: y\r\n".repeat(65)),
        malformed_body("more than 64 trailer fields"),
    );
    let long = |len: usize| with(&format!("x: {}\r\n", "y".repeat(len)));
    let len = (16 << 10) - "x: \r\n\r\n".len();
    table.kept(long(len), stored());
    table.closed(
        long(len + 1),
        malformed_body("trailer section exceeds 16384 bytes"),
    );
}

fn connections(table: &mut Table) {
    table.section("RFC 9112 §8, cut short");
    let whole = report("Content-Length: 43\r\n");
    let in_chunks = chunked(&format!("2b\r\n{REPORT}\r\n0\r\n\r\n"));
    let ended = |table: &mut Table, bytes: &str, replies| {
        let bytes = bytes.as_bytes().to_vec();
        table.steps(vec![Step { bytes, replies }], After::Ended);
    };
    ended(table, "", vec![]);
    ended(table, "\r\n", vec![]);
    ended(table, &whole[..20], vec![]);
    ended(table, &whole[..whole.len() - REPORT.len() - 1], vec![]);
    ended(table, &whole[..whole.len() - REPORT.len()], vec![]);
    ended(table, &whole[..whole.len() - 1], vec![]);
    // The end of the data is not the end of the body.
    for missing in ["0\r\n\r\n", "\r\n\r\n", "\r\n", "\n"] {
        let at = in_chunks.len() - missing.len();
        ended(table, &in_chunks[..at], vec![]);
    }
    ended(table, &format!("{whole}{}", &whole[..40]), vec![stored()]);
    // Only its own side is closed.
    ended(table, &whole, vec![stored()]);
    ended(table, &in_chunks, vec![stored()]);

    table.section("RFC 9112 §9.3, persistence");
    let with = |version: &str, connection: &str| {
        let fields = format!("{connection}Content-Length: 43\r\n");
        report(&fields).replace("HTTP/1.1", version)
    };
    for fields in [
        "",
        "Connection: keep-alive\r\n",
        "Connection:\r\n",
        "Connection: ,, ,\r\n",
        "Connection: x\r\n",
        "Connection: closed\r\n",
        "Connection: \"close\"\r\n",
        "Connection: close-notify, x-close\r\n",
        "Connection: close;a=b\r\n",
        // Not for connections.
        "Proxy-Connection: close\r\n",
        "Keep-Alive: timeout=0\r\n",
        // Names that an origin server has no use for in the list.
        "Connection: host, content-length\r\n",
        "Connection: transfer-encoding\r\n",
    ] {
        table.kept(with("HTTP/1.1", fields), stored());
    }
    for fields in [
        "Connection: close\r\n",
        "connection: CLOSE\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: close, keep-alive\r\n",
        "Connection: x,\tClose ,y\r\n",
        "Connection: keep-alive\r\nConnection: close\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n",
    ] {
        table.last(with("HTTP/1.1", fields), stored());
    }
    for fields in [
        "",
        "Connection: x\r\n",
        "Connection: keep-alive, close\r\n",
        "Keep-Alive: timeout=9\r\n",
        "Proxy-Connection: keep-alive\r\n",
    ] {
        table.last(with("HTTP/1.0", fields), stored());
    }
    for fields in [
        "Connection: Keep-Alive\r\n",
        "Connection: x, keep-alive\r\n",
    ] {
        table.kept(with("HTTP/1.0", fields), stored().keep_alive());
    }
    table.last("GET / HTTP/1.0\r\n\r\n", not_found());
    table.kept(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        not_found().keep_alive(),
    );
    table.last(
        request("GET / HTTP/1.1", "Connection: close\r\n"),
        not_found(),
    );

    table.section("RFC 9112 §9.3, bodies that nobody wants");
    let hidden = String::from_utf8(post(HIDDEN.as_bytes())).expect("is text");
    let unwanted = |line: &str, fields: &str| {
        let fields = format!("{fields}Content-Length: {}\r\n", hidden.len());
        request(line, &fields) + &hidden
    };
    // A short one is passed over, and is no request.
    table.kept(unwanted("POST / HTTP/1.1", ""), not_found());
    table.kept(unwanted("GET / HTTP/1.1", ""), not_found());
    table.kept(
        unwanted("GET /.well-known/healthcheck HTTP/1.1", ""),
        health(),
    );
    let longest = request("POST / HTTP/1.1", "Content-Length: 65536\r\n");
    table.kept(longest + &hidden.repeat(65536)[..65536], not_found());
    // A longer one, and one whose end is to be searched for, are not waited for.
    let longer = request("POST / HTTP/1.1", "Content-Length: 65537\r\n");
    table.closed(longer.clone(), not_found());
    table.closed(longer + &hidden.repeat(65537)[..65537], not_found());
    let fields = "Transfer-Encoding: chunked\r\n";
    table.closed(
        request("POST / HTTP/1.1", fields) + "0\r\n\r\n",
        not_found(),
    );
    table.closed(
        request("GET /.well-known/healthcheck HTTP/1.1", fields) + "0\r\n\r\n",
        health(),
    );

    table.section("RFC 9112 §9.3.2, pipelining");
    let missing = refused(
        "400 Bad Request",
        "not_a_report",
        "clientId: required but missing",
    );
    let not_a_report = post(b"{}");
    let bad = chunked("x\r\n").into_bytes();
    let bad_size = malformed_body("chunk size is not 1 to 16 hexadecimal digits");
    let (whole, in_chunks) = (whole.as_bytes(), in_chunks.as_bytes());
    let keep = LAST.replace("Connection: close\r\n", "");
    let head = keep.replace("GET", "HEAD");
    table.pipelined(
        &[(whole, stored()), (whole, stored()), (in_chunks, stored())],
        After::Kept,
    );
    table.pipelined(
        &[
            (whole, stored()),
            (head.as_bytes(), health().without_body()),
            (keep.as_bytes(), health()),
            // What old clients send behind a body.
            (&[b"\r\n", &not_a_report[..]].concat(), missing.clone()),
            (whole, stored()),
        ],
        After::Kept,
    );
    table.pipelined(
        &[(&not_a_report, missing.clone()), (whole, stored())],
        After::Kept,
    );
    // Nothing behind an error.
    table.pipelined(
        &[(whole, stored()), (&bad, bad_size.clone().close())],
        After::Closed,
    );
    table.pipelined(
        &[
            (whole, stored()),
            (&not_a_report, missing),
            (in_chunks, stored()),
            (&bad, bad_size.close()),
        ],
        After::Closed,
    );
    let repeated = malformed("more than one host field");
    let hosts = b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n";
    table.pipelined(
        &[(whole, stored()), (hosts, repeated.close())],
        After::Closed,
    );
    // Nor behind the last.
    table.pipelined(
        &[(whole, stored()), (LAST.as_bytes(), health().close())],
        After::Agreed,
    );

    table.section("RFC 9112 §9.3, an invited body and the next request");
    let fields = "Expect: 100-continue\r\nContent-Length: 43\r\n";
    let invite = Step {
        bytes: report_head(fields).into(),
        replies: vec![go_on()],
    };
    let body = Step {
        bytes: [REPORT.as_bytes(), whole].concat(),
        replies: vec![stored(), stored()],
    };
    table.steps(vec![invite, body], After::Kept);
}
