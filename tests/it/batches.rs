//! Bodies with many reports, and bodies with a content coding: what is stored, what is said of the rest.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::Value;

use crate::http::stored;
use crate::support::{self, Driver, Server, both_drivers};

both_drivers!(
    each_item_has_its_verdict,
    bodies_with_nothing_to_take,
    batches_at_their_limits,
    a_batch_is_committed_as_one,
    codings,
    codings_that_are_refused,
    a_bomb_is_refused,
);

const MIB: usize = 1 << 20;
const LINES: &str = "Content-Type: application/x-ndjson\r\n";

fn report(client_id: &str) -> String {
    format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[]}}"#)
}

/// A report of so many bytes.
fn report_of(client_id: &str, bytes: usize) -> String {
    let empty = format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[],"geo":""}}"#);
    let geo = "x".repeat(bytes - empty.len());
    format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[],"geo":"{geo}"}}"#)
}

/// The body behind its length, and in chunks.
fn framings(fields: &str, body: &[u8]) -> [Vec<u8>; 2] {
    let head = format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n{fields}");
    let length = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    let mut chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(100_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    [[length.as_bytes(), body].concat(), chunks]
}

/// Posts the body in both framings; each is answered like this and the connection kept.
#[track_caller]
fn check(server: &Server, fields: &str, body: &[u8], status: u16, expected: &str) {
    for request in framings(fields, body) {
        let mut client = server.connect();
        let (begin, end) = request.split_at(request.len() / 2);
        client.send(begin).expect("the request is taken");
        client.send(end).expect("the request is taken");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (status, expected));
        client.expect_kept();
    }
}

/// The same for an answer with which the connection ends, as a length alone may be enough for.
#[track_caller]
fn check_last(server: &Server, fields: &str, body: &[u8], status: u16, code: &str, message: &str) {
    for request in framings(fields, body) {
        let mut client = server.connect();
        client.send(&request).expect("the server reads on");
        let answer = client.answer();
        let refusal =
            format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":\"{message}\"}}\n");
        assert_eq!((answer.status, answer.text()), (status, &*refusal));
        assert_eq!(answer.field("connection"), Some("close"));
        client.end_writing();
        client.expect_closed();
    }
}

#[track_caller]
fn check_too_large(server: &Server, fields: &str, body: &[u8], message: &str) {
    check_last(server, fields, body, 413, "body_too_large", message);
}

fn each_item_has_its_verdict(driver: Driver) {
    let server = Server::start(driver, &[]);
    let (a, b) = (report("a"), report("b"));
    let both = "{\"status\":\"ok\",\"accepted\":2,\"rejected\":[]}\n";
    check(&server, LINES, format!("{a}\n{b}").as_bytes(), 200, both);
    check(
        &server,
        LINES,
        format!("\r\n{a}\r\n \n{b}\r\n").as_bytes(),
        200,
        both,
    );
    check(
        &server,
        "",
        format!(" [{a} ,\n{b}]\n").as_bytes(),
        200,
        both,
    );
    let type_with_parameter = "content-type: Application/X-NDJSON; charset=utf-8\r\n";
    check(
        &server,
        type_with_parameter,
        format!("{a}\n{b}\n").as_bytes(),
        200,
        both,
    );

    let large = report_of("c", MIB + 1);
    let some = "{\"status\":\"ok\",\"accepted\":1,\"rejected\":[\
        {\"index\":0,\"code\":\"not_json\",\"message\":\"body is not valid JSON at byte 0\"},\
        {\"index\":2,\"code\":\"not_a_report\",\"message\":\"body: expected object\"},\
        {\"index\":3,\"code\":\"body_too_large\",\
        \"message\":\"body of 1048577 bytes exceeds 1048576 bytes\"}]}\n";
    check(
        &server,
        LINES,
        format!("x\n{a}\n7\n{large}\n").as_bytes(),
        200,
        some,
    );
    check(
        &server,
        "",
        format!("[x,{a},7,{large}]").as_bytes(),
        200,
        some,
    );

    let mut expected = vec![a; 12];
    expected.extend(vec![b; 8]);
    assert_eq!(stored(server), expected);
}

fn bodies_with_nothing_to_take(driver: Driver) {
    let server = Server::start(driver, &[]);
    let none = |message: &str, rejected: &str| {
        format!(
            "{{\"status\":\"error\",\"code\":\"nothing_accepted\",\"message\":\"{message}\",\
             \"accepted\":0,\"rejected\":[{rejected}]}}\n"
        )
    };
    let empty = none("body has no reports", "");
    check(&server, "", b"[]", 400, &empty);
    check(&server, "", b" [ ] ", 400, &empty);
    check(&server, LINES, b"", 400, &empty);
    check(&server, LINES, b"\n\r\n", 400, &empty);
    let rejected = r#"{"index":0,"code":"not_json","message":"body is not valid JSON at byte 1"}"#;
    let broken = none("none of 1 items is a report", rejected);
    check(&server, LINES, b"{", 400, &broken);
    // Where an array is broken, nothing of it is taken.
    for (tail, at) in [("", 52), (",", 53), ("}", 52), ("]x", 53)] {
        let message = format!(
            "{{\"status\":\"error\",\"code\":\"not_json\",\
             \"message\":\"body is not a JSON array at byte {at}\"}}\n"
        );
        let body = format!("[{}{tail}", report("broken---"));
        check(&server, "", body.as_bytes(), 400, &message);
    }
    assert_eq!(stored(server), [""; 0]);
}

fn batches_at_their_limits(driver: Driver) {
    let server = Server::start(driver, &[("WORKERS", "1")]);
    // 16 MiB with the line feeds.
    let lines: Vec<String> = (0..16).map(|_| report_of("l", MIB - 1)).collect();
    let body = lines.join("\n") + "\n";
    assert_eq!(body.len(), 16 * MIB);
    let all = "{\"status\":\"ok\",\"accepted\":16,\"rejected\":[]}\n";
    check(&server, LINES, body.as_bytes(), 200, all);
    let message = "body exceeds 16777216 bytes";
    let body = body + "\n";
    check_too_large(&server, LINES, body.as_bytes(), message);
    // What is no batch is known as soon as it begins.
    let message = "body exceeds 1048576 bytes";
    let one = report_of("o", MIB + 1);
    check_too_large(&server, "", one.as_bytes(), message);
    let blank = " ".repeat(MIB + 1);
    check_too_large(&server, "", blank.as_bytes(), message);

    // The first MiB tells, however it comes.
    let late = |blanks: usize| format!("{}[{}]", " ".repeat(blanks), report("late"));
    let one = "{\"status\":\"ok\",\"accepted\":1,\"rejected\":[]}\n";
    check(&server, "", late(MIB - 1).as_bytes(), 200, one);
    check_too_large(&server, "", late(MIB).as_bytes(), message);

    let many = "{}\n".repeat(16_384);
    let mut client = server.connect();
    let answer = client.exchange(&framings(LINES, many.as_bytes())[0]);
    let verdicts: Value = serde_json::from_str(answer.text()).expect("the answer is JSON");
    let rejected = verdicts["rejected"].as_array().expect("there is a list");
    assert_eq!((answer.status, rejected.len()), (400, 16_384));
    assert_eq!(rejected[16_383]["index"], 16_383);
    drop(client);
    let message = "{\"status\":\"error\",\"code\":\"too_many_reports\",\
        \"message\":\"body has more than 16384 reports\"}\n";
    check(&server, LINES, (many + "{}").as_bytes(), 413, message);

    let mut expected = [lines.clone(), lines, vec![report("late"); 2]].concat();
    expected.sort();
    assert!(stored(server) == expected, "every one is stored as it was");

    // A batch takes a quarter of what may be held.
    let server = Server::start(driver, &[("SHARD_BYTES_MAX", "8MiB")]);
    let body = format!("{}\n", report_of("q", MIB - 1)).repeat(2);
    let two = "{\"status\":\"ok\",\"accepted\":2,\"rejected\":[]}\n";
    check(&server, LINES, body.as_bytes(), 200, two);
    let message = "body exceeds 2097152 bytes";
    let body = body + "\n";
    check_too_large(&server, LINES, body.as_bytes(), message);
}

/// By what can be seen of it: a batch fills one segment, however small a segment is to be.
fn a_batch_is_committed_as_one(driver: Driver) {
    let mut server = Server::start(driver, &[("FLUSH_BYTES", "1KiB")]);
    let lines: Vec<String> = (0..5000).map(|n| report_of("b", 900 + n % 100)).collect();
    let all = "{\"status\":\"ok\",\"accepted\":5000,\"rejected\":[]}\n";
    check(&server, LINES, lines.join("\n").as_bytes(), 200, all);
    assert_eq!(server.stop().code(), Some(0));
    let segments = support::sealed(server.dir());
    let counts: Vec<usize> = segments.iter().map(|segment| segment.lines.len()).collect();
    assert_eq!(counts, [5000, 5000]);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn codings(driver: Driver) {
    let server = Server::start(driver, &[("WORKERS", "1")]);
    let zlib = |body: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).expect("memory takes all");
        encoder.finish().expect("memory takes all")
    };
    let bare = |body: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).expect("memory takes all");
        encoder.finish().expect("memory takes all")
    };
    let zstd = |body: &[u8]| zstd::encode_all(body, 3).expect("memory takes all");
    type Encode<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let encoders: [(&str, Encode<'_>); 6] = [
        ("gzip", &gzip),
        ("X-Gzip", &gzip),
        ("deflate", &zlib),
        ("deflate", &bare),
        ("zstd", &zstd),
        ("identity", &|body| body.to_vec()),
    ];
    // Unlike each other, or a batch of them would be a bomb.
    let mut random = crate::reports::Random::new(7);
    let geo: String = (0..MIB / 2)
        .map(|_| char::from(b'a' + (random.next_u64() % 16) as u8))
        .collect();
    let one = format!(r#"{{"clientId":"one","timestamp":"t","hosts":[],"geo":"{geo}"}}"#);
    let many = format!("{one}\n").repeat(6);
    let array = format!("[{}]", [&*one; 6].join(","));
    for (coding, encode) in encoders {
        let fields = format!("Content-Encoding: {coding}\r\n");
        check(
            &server,
            &fields,
            &encode(one.as_bytes()),
            200,
            "{\"status\":\"ok\"}\n",
        );
        let six = "{\"status\":\"ok\",\"accepted\":6,\"rejected\":[]}\n";
        check(&server, &fields, &encode(array.as_bytes()), 200, six);
        let fields = format!("{LINES}{fields}");
        check(&server, &fields, &encode(many.as_bytes()), 200, six);
    }
    assert!(
        stored(server) == vec![one; 6 * 2 * 13],
        "every one is stored as it was"
    );
}

fn codings_that_are_refused(driver: Driver) {
    let server = Server::start(driver, &[]);
    let coded = "Content-Encoding: gzip\r\n";
    let whole = gzip(report("whole").as_bytes());
    let refused = |body: &[u8], status, code: &str, message: &str| {
        check_last(&server, coded, body, status, code, message);
    };
    refused(
        &whole[..whole.len() - 1],
        400,
        "malformed_coding",
        "body ends within its gzip data",
    );
    refused(
        b"",
        400,
        "malformed_coding",
        "body ends within its gzip data",
    );
    refused(b"{}", 400, "malformed_coding", "body is not valid gzip");
    let message = "decoded body exceeds 1048576 bytes";
    refused(
        &gzip(report_of("long", MIB + 1).as_bytes()),
        413,
        "body_too_large",
        message,
    );
    let mut random = crate::reports::Random::new(7);
    let noise: Vec<u8> = (0..MIB)
        .map(|_| b'a' + (random.next_u64() % 16) as u8)
        .collect();
    refused(
        &gzip(&[b"{", &noise[..]].concat()),
        413,
        "body_too_large",
        message,
    );
    assert_eq!(stored(server), [""; 0]);
}

/// 1 MiB that decodes to 1 GiB.
fn a_bomb_is_refused(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..1024 {
        bomb.write_all(&[b'['; MIB]).expect("memory takes all");
    }
    let bomb = bomb.finish().expect("memory takes all");
    assert!((MIB * 9 / 10..MIB * 11 / 10).contains(&bomb.len()));
    for fields in ["", LINES] {
        let fields = format!("{fields}Content-Encoding: gzip\r\n");
        let message = "body decodes to more than 512 times its size";
        check_last(&server, &fields, &bomb, 413, "coding_ratio", message);
    }
    assert_eq!(stored(server), [""; 0]);
}
