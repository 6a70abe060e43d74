//! What adds to HTTP: RFC 6585, further status codes; RFC 9113, HTTP/2, as far as a server meets it that
//! does not speak it.

use super::{REPORT, Table, malformed, not_found, refused, report_head, request, stored};

pub(super) fn rows(table: &mut Table) {
    table.section("RFC 6585 §5, RFC 9110 §5.4, fields too large");
    let large = |message| {
        refused(
            "431 Request Header Fields Too Large",
            "head_too_large",
            message,
        )
    };
    let bytes = large("header section exceeds 16384 bytes");
    let of = |len: usize| {
        let rest = report_head("Content-Length: 43\r\nCookie: \r\n").len();
        let cookie = "x".repeat(len - rest);
        report_head(&format!("Content-Length: 43\r\nCookie: {cookie}\r\n")) + REPORT
    };
    table.kept(of(16384), stored());
    table.closed(of(16385), bytes.clone());
    table.closed(of(40_000), bytes.clone());
    // One field without an end, and lines without one.
    table.closed(
        format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}", "y".repeat(16384)),
        bytes.clone(),
    );
    table.closed(
        format!("GET / HTTP/1.1\r\n{}", "x".repeat(16384)),
        bytes.clone(),
    );
    table.closed(
        format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(4000)),
        bytes,
    );
    // With the host.
    table.kept(
        request("GET / HTTP/1.1", &"x: y\r\n".repeat(63)),
        not_found(),
    );
    let count = large("more than 64 header fields");
    table.closed(
        request("GET / HTTP/1.1", &"x: y\r\n".repeat(64)),
        count.clone(),
    );
    table.closed(request("GET / HTTP/1.1", &"x:\r\n".repeat(2000)), count);

    table.section("RFC 9113 §3.4, the preface of HTTP/2");
    let message = "expected HTTP/1.1 or HTTP/1.0, found HTTP/2.0";
    let version = refused(
        "505 HTTP Version Not Supported",
        "unsupported_version",
        message,
    );
    table.closed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", version.clone());
    // With the client's first frame.
    table.closed(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        version.clone(),
    );
    // Its first part is enough.
    table.closed("PRI * HTTP/2.0\r\n\r\n", version);
    let asterisk = malformed("request target * without method OPTIONS");
    table.closed(request("PRI * HTTP/1.1", ""), asterisk);
}
