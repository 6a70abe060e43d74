//! What was stored is read back: over the admin listener and on the command line, all of it, in order, and counted
//! right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    self, Driver, PATIENCE, Run, Server, both_drivers, lines, post, run, sealed, wait_until,
};

both_drivers!(
    lines_come_back_in_order,
    lines_are_chosen_by_time_and_name,
    pages_miss_nothing_while_reports_come,
    a_cursor_outlives_what_has_been_read,
    samples_are_rows,
    figures_are_those_of_a_model,
    sidecars_are_made_and_made_again,
    a_sample_that_is_sent_again_counts_once,
    segments_are_files,
    answers_are_coded,
    whole_segments_pass_through,
    what_is_no_question_is_refused,
    a_token_is_asked_for,
    a_client_that_goes_is_given_up,
    so_many_questions_at_once,
    a_removed_segment_is_no_silent_hole,
    a_damaged_segment_is_an_error,
    files_of_the_go_server_are_read,
    a_report_goes_all_the_way,
);

/// An answer of the admin listener.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Status line and fields, in lower case.
    head: String,
    /// Without its chunks.
    body: Vec<u8>,
    /// Whether the body has come to its end.
    is_whole: bool,
}

impl Answer {
    fn of(bytes: &[u8]) -> Answer {
        let at = memchr::memmem::find(bytes, b"\r\n\r\n").expect("an answer has a head");
        let head = str::from_utf8(&bytes[..at + 2]).expect("a head is text");
        let status = head.split(' ').nth(1).expect("a status line");
        let head = head.to_ascii_lowercase();
        let rest = &bytes[at + 4..];
        let (body, is_whole) = match head.contains("\r\ntransfer-encoding: chunked\r\n") {
            true => unchunked(rest),
            false => {
                let length = field_of(&head, "content-length").map(|text| text.parse());
                let is_whole = length.is_none_or(|length| length == Ok(rest.len()));
                (rest.to_vec(), is_whole)
            }
        };
        Answer {
            status: status.parse().expect("a status is a number"),
            head,
            body,
            is_whole,
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        field_of(&self.head, name)
    }

    #[track_caller]
    fn text(&self) -> &str {
        assert!(self.is_whole, "{self:?}");
        str::from_utf8(&self.body).expect("the body is text")
    }

    #[track_caller]
    fn lines(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        self.text().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn field_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.split("\r\n");
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        let size = str::from_utf8(&rest[..at]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        let data = &rest[at + 2..];
        if data.len() < size + 2 {
            break;
        }
        if size == 0 {
            assert_eq!(data, b"\r\n");
            return (body, true);
        }
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
    }
    (body, false)
}

fn request(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Connection: close\r\n\r\n")
}

/// A connection that has sent this.
fn ask(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the listener is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it is taken");
    stream
}

/// The same, by a client that has little room for what it does not read.
fn ask_without_room(address: SocketAddr, request: &str) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 16 << 10).expect("it is set");
    connect(&socket, &address).expect("the listener is there");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it is taken");
    stream
}

/// All that comes until the connection ends, by a reset as well.
fn rest(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Answer::of(&bytes)
}

#[track_caller]
fn get_with(server: &Server, target: &str, fields: &str) -> Answer {
    rest(ask(server.admin(), &request(target, fields)))
}

#[track_caller]
fn get(server: &Server, target: &str) -> Answer {
    get_with(server, target, "")
}

#[track_caller]
fn send(server: &Server, reports: &[Value]) {
    let mut client = server.connect();
    for report in reports {
        let answer = client.exchange(&post(report.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A report of one host with these samples: time, latency, error.
fn report(client: &str, host: &str, samples: &[(u64, Option<f64>, Option<&str>)]) -> Value {
    let history = samples
        .iter()
        .map(|(t, latency, error)| json!({ "t": t, "latency": latency, "error": error }));
    json!({
        "clientId": client,
        "timestamp": "2026-02-27T05:14:34.000Z",
        "geo": { "country": if client < "m" { "DE" } else { "TH" } },
        "hosts": [{ "name": host, "url": "https://host.example", "status": "online",
                    "history": history.collect::<Vec<_>>() }],
    })
}

/// Reports of some clients and hosts, with all that samples may be.
fn varied(count: u64) -> Vec<Value> {
    let sample = |n: u64| match n % 7 {
        0 => (n, None, Some("timeout")),
        1 => (n, None, None),
        2 => (n, Some(n as f64 / 8.0), Some("slow")),
        _ => (n, Some((n * 7919 % 500) as f64), None),
    };
    let reports = (0..count).map(|n| {
        let samples: Vec<_> = (n * 10..n * 10 + 9).map(sample).collect();
        let host = ["GitHub", "Łódź \"q\"", "Local CPE"][(n % 3) as usize];
        report(["a", "b", "x"][(n % 4 % 3) as usize], host, &samples)
    });
    reports.collect()
}

fn received(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("a line is JSON");
    line["receivedAt"].as_str().expect("a time").to_owned()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn wait_until_sealed(server: &Server) {
    wait_until("every segment is sealed", || {
        support::open(server.dir()).is_empty()
    });
}

fn wait_until_indexed(server: &Server) {
    wait_until("every segment has its sidecar", || {
        let sidecars = fs::read_dir(server.dir().join(".index")).expect("it is there");
        let names = sidecars.map(|entry| entry.expect("an entry").file_name());
        let sidecars = names.filter(|name| name.to_string_lossy().ends_with(".json"));
        sidecars.count() == sealed(server.dir()).len()
    });
}

fn lines_come_back_in_order(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "4KiB")]);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| send(&server, &varied(20)));
        }
    });
    let told = get(&server, "/api/v1/reports");
    assert_eq!(
        told.field("content-type"),
        Some("application/x-ndjson; charset=utf-8")
    );
    let told = told.lines();
    let times: Vec<String> = told.iter().map(|line| received(line)).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(sorted(told), sorted(lines(server.dir())));
    assert_eq!(times.len(), 120);
    let segments = sealed(server.dir());
    assert!(segments.len() > 5, "{} segments", segments.len());
}

fn lines_are_chosen_by_time_and_name(driver: Driver) {
    let server = Server::start(driver, &[("WORKERS", "1"), ("FLUSH_BYTES", "2KiB")]);
    send(&server, &varied(12));
    // So that times tell the two halves apart.
    wait_until("the clock goes on", || {
        let last = lines(server.dir()).pop().expect("there are lines");
        let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("after 1970").as_millis();
        ms_of(&received(&last)) + 5 < now
    });
    send(&server, &varied(12));
    let all = get(&server, "/api/v1/reports").lines();
    let [first_half, second_half] = [&all[..12], &all[12..]];
    let middle = received(&second_half[0]);
    let told = |query: &str| get(&server, &format!("/api/v1/reports?{query}")).lines();
    assert_eq!(told(&format!("until={middle}")), first_half);
    assert_eq!(told(&format!("since={middle}")), second_half);
    assert_eq!(told(&format!("since={}", ms_of(&middle))), second_half);
    assert_eq!(told("since=-1h"), all);
    assert_eq!(told("until=-1h"), [""; 0]);
    let of_client = |line: &&String| line.contains("\"clientId\":\"b\"");
    let expected: Vec<String> = all.iter().filter(of_client).cloned().collect();
    assert!(!expected.is_empty());
    assert_eq!(told("client=b"), expected);
    let expected: Vec<String> = all
        .iter()
        .filter(|line| line.contains("Łódź"))
        .cloned()
        .collect();
    assert_eq!(expected.len(), 8);
    assert_eq!(told("host=%C5%81%C3%B3d%C5%BA+%22q%22"), expected);
    let both: Vec<String> = expected.iter().filter(of_client).cloned().collect();
    assert_eq!(told("client=b&host=%C5%81%C3%B3d%C5%BA%20%22q%22"), both);
    assert_eq!(told("client=GitHub"), [""; 0]);
}

/// Milliseconds since the epoch of a time as lines have it.
fn ms_of(time: &str) -> u128 {
    let time = netwatch_server::time::Timestamp::parse_rfc3339(time.as_bytes());
    u128::from(time.expect("a time").ms())
}

/// The lines of all pages from a cursor on, and the last cursor.
fn pages(server: &Server, limit: usize, cursor: Option<&str>) -> (Vec<String>, String) {
    let mut told = Vec::new();
    let mut target = format!("/api/v1/reports?limit={limit}");
    if let Some(cursor) = cursor {
        target += &format!("&cursor={cursor}");
    }
    loop {
        let raw = rest_with_case(server, &target);
        let lines = raw.lines();
        assert!(lines.len() <= limit);
        told.extend(lines);
        match raw.next_target() {
            Some(next) => target = next,
            None => return (told, raw.cursor()),
        }
    }
}

/// An answer whose fields keep their case, as a cursor needs it.
struct Page(Answer, String);

fn rest_with_case(server: &Server, target: &str) -> Page {
    let mut stream = ask(server.admin(), &request(target, ""));
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("no reset");
    let at = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..at + 2].to_vec()).expect("text");
    Page(Answer::of(&bytes), head)
}

impl Page {
    #[track_caller]
    fn lines(&self) -> Vec<String> {
        self.0.lines()
    }

    fn next_target(&self) -> Option<String> {
        let link = field_of(&self.1, "link")?;
        let target = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
        Some(target.to_owned())
    }

    fn cursor(&self) -> String {
        let cursor = field_of(&self.1, "next-cursor");
        cursor.expect("a page has a cursor").to_owned()
    }
}

fn pages_miss_nothing_while_reports_come(driver: Driver) {
    const CLIENTS: usize = 4;
    const REPORTS: usize = 60;
    let server = Server::start(driver, &[("FLUSH_BYTES", "3KiB")]);
    let has_ended = AtomicBool::new(false);
    let mut told = Vec::new();
    thread::scope(|scope| {
        let senders: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let server = &server;
                scope.spawn(move || {
                    for n in 0..REPORTS {
                        let id = format!("{client}-{n}");
                        send(server, &[report(&id, "GitHub", &[(1, Some(1.0), None)])]);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut told: Vec<String> = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                // Asked first, so that the last round comes after the last report.
                let is_last = has_ended.load(Relaxed);
                let (lines, next) = pages(&server, 7, cursor.as_deref());
                told.extend(lines);
                cursor = Some(next);
                if is_last {
                    return told;
                }
            }
        });
        for sender in senders {
            sender.join().expect("all are sent");
        }
        has_ended.store(true, Relaxed);
        told = reader.join().expect("all are read");
    });
    let ids: Vec<String> = told
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["clientId"].as_str().expect("an id").to_owned()
        })
        .collect();
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(
        (ids.len(), distinct.len()),
        (CLIENTS * REPORTS, CLIENTS * REPORTS)
    );
}

fn a_cursor_outlives_what_has_been_read(driver: Driver) {
    let settings = [
        ("WORKERS", "1"),
        ("FLUSH_BYTES", "2KiB"),
        ("FLUSH_SECS", "1s"),
    ];
    let server = Server::start(driver, &settings);
    send(&server, &varied(9));
    let (told, cursor) = pages(&server, 4, None);
    assert_eq!(told.len(), 9);
    wait_until_sealed(&server);
    for segment in sealed(server.dir()) {
        fs::remove_file(server.dir().join(segment.name)).expect("it is removed");
    }
    assert_eq!(pages(&server, 4, Some(&cursor)).0, [""; 0]);
    send(&server, &varied(6));
    let (told, _) = pages(&server, 4, Some(&cursor));
    assert_eq!(told, get(&server, "/api/v1/reports").lines());
    assert_eq!(told.len(), 6);
    // It stands between two lines of a segment that is gone.
    wait_until_sealed(&server);
    let first = rest_with_case(&server, "/api/v1/reports?limit=1");
    let next = first.next_target().expect("there is more");
    for segment in sealed(server.dir()) {
        fs::remove_file(server.dir().join(segment.name)).expect("it is removed");
    }
    let expired = get(&server, &next);
    assert_eq!(expired.status, 410);
    assert_eq!(expired.json()["code"], "cursor_expired");
}

/// The samples of lines, one by one, as rows are to have them.
fn rows_of(lines: &[String]) -> Vec<Value> {
    let mut rows = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).expect("JSON");
        for host in line["hosts"].as_array().expect("hosts") {
            for sample in host["history"].as_array().expect("history") {
                rows.push(json!({
                    "receivedAt": line["receivedAt"], "clientId": line["clientId"],
                    "host": host["name"], "url": host["url"],
                    "t": sample["t"], "latency": whole(&sample["latency"]), "error": sample["error"],
                }));
            }
        }
    }
    rows
}

/// A whole number without a point, as rows have it.
fn whole(number: &Value) -> Value {
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 => json!(value as i64),
        _ => number.clone(),
    }
}

fn samples_are_rows(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "2KiB")]);
    send(&server, &varied(20));
    let lines = get(&server, "/api/v1/reports").lines();
    let expected = rows_of(&lines);
    let parsed = |lines: Vec<String>| -> Vec<Value> {
        let parse = |line: &String| serde_json::from_str(line).expect("a row is JSON");
        lines.iter().map(parse).collect()
    };
    assert_eq!(parsed(get(&server, "/api/v1/samples").lines()), expected);
    // Pages end within reports.
    let mut told = Vec::new();
    let mut target = Some("/api/v1/samples?limit=13&host=GitHub".to_owned());
    while let Some(next) = target {
        let page = rest_with_case(&server, &next);
        told.extend(page.lines());
        target = page.next_target();
    }
    let of_host: Vec<Value> = expected
        .iter()
        .filter(|row| row["host"] == "GitHub")
        .cloned()
        .collect();
    assert_eq!(parsed(told), of_host);
    let csv = get(&server, "/api/v1/samples?format=csv&client=x");
    let expected: Vec<&Value> = expected
        .iter()
        .filter(|row| row["clientId"] == "x")
        .collect();
    let fields = [
        "receivedAt",
        "clientId",
        "host",
        "url",
        "t",
        "latency",
        "error",
    ];
    let mut rows = csv.text().split_terminator("\r\n");
    assert_eq!(rows.next(), Some(fields.join(",").as_str()));
    let rows: Vec<&str> = rows.collect();
    let spelled = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains('"') => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let expected: Vec<String> = expected
        .into_iter()
        .map(|row| fields.map(|name| spelled(&row[name])).join(","))
        .collect();
    assert_eq!(rows, expected);
}

/// What a row of figures is to be, from the rows of its samples.
fn figures_of(rows: &[&Value]) -> Value {
    let latencies: Vec<f64> = rows
        .iter()
        .filter_map(|row| row["latency"].as_f64())
        .collect();
    let sum: f64 = latencies.iter().sum();
    let count = latencies.len();
    let errors = rows.iter().filter(|row| !row["error"].is_null()).count();
    let no_data = |row: &&&Value| row["error"].is_null() && row["latency"].is_null();
    json!({
        "samples": rows.len(), "errors": errors, "no_data": rows.iter().filter(no_data).count(),
        "min": latencies.iter().copied().reduce(f64::min),
        "max": latencies.iter().copied().reduce(f64::max),
        "mean": (count > 0).then(|| sum / count as f64),
    })
}

#[track_caller]
fn check_quantiles(row: &Value, rows: &[&Value]) {
    let mut latencies: Vec<f64> = rows
        .iter()
        .filter_map(|row| row["latency"].as_f64())
        .collect();
    latencies.sort_by(f64::total_cmp);
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
        let rank = (quantile * latencies.len() as f64).ceil() as usize;
        let Some(exact) = latencies.get(rank.max(1) - 1) else {
            assert!(row[name].is_null());
            continue;
        };
        let found = row[name].as_f64().expect("a number");
        assert!(
            (found - exact).abs() <= exact * 0.01 + 0.001,
            "{name}: {found}, {exact}"
        );
    }
}

/// Compares figures with those of a model: rows by start and group.
#[track_caller]
fn check_figures(
    answer: &Value,
    member: &str,
    rows: &[Value],
    key: impl Fn(&Value) -> (String, Value),
) {
    let mut expected: BTreeMap<(String, String), Vec<&Value>> = BTreeMap::new();
    for row in rows {
        let (start, group) = key(row);
        expected
            .entry((start, group.to_string()))
            .or_default()
            .push(row);
    }
    let found = answer["rows"].as_array().expect("rows");
    let keys: Vec<(String, String)> = found
        .iter()
        .map(|row| {
            (
                row["start"].as_str().expect("a start").to_owned(),
                row[member].to_string(),
            )
        })
        .collect();
    assert_eq!(keys, expected.keys().cloned().collect::<Vec<_>>());
    for (row, rows) in found.iter().zip(expected.values()) {
        let figures = figures_of(rows);
        for (name, value) in figures.as_object().expect("an object") {
            assert_eq!(row[name].as_f64(), value.as_f64(), "{name} of {row}");
        }
        check_quantiles(row, rows);
    }
}

/// The start of the step of a row.
fn step_of(row: &Value, step_ms: u64) -> String {
    let ms = ms_of(row["receivedAt"].as_str().expect("a time")) as u64;
    netwatch_server::time::Timestamp::from_ms(ms - ms % step_ms).to_string()
}

#[track_caller]
fn check_all_figures(server: &Server) {
    let lines = get(server, "/api/v1/reports").lines();
    let rows = rows_of(&lines);
    let first = received(&lines[0]);
    let told = |query: &str| get(server, &format!("/api/v1/summary?{query}")).json();
    check_figures(&told(""), "host", &rows, |row| {
        (first.clone(), row["host"].clone())
    });
    check_figures(&told("group=client&step=1s"), "client", &rows, |row| {
        (step_of(row, 1000), row["clientId"].clone())
    });
    check_figures(&told("step=1m"), "host", &rows, |row| {
        (step_of(row, 60_000), row["host"].clone())
    });
    check_figures(&told("step=1s"), "host", &rows, |row| {
        (step_of(row, 1_000), row["host"].clone())
    });
    check_figures(&told("group=/geo/country"), "/geo/country", &rows, |row| {
        let country = if row["clientId"].as_str() < Some("m") {
            "DE"
        } else {
            "TH"
        };
        (first.clone(), json!(country))
    });
    let of_host: Vec<Value> = rows
        .iter()
        .filter(|row| row["host"] == "GitHub")
        .cloned()
        .collect();
    check_figures(&told("host=GitHub&step=1h"), "host", &of_host, |row| {
        (step_of(row, 3_600_000), row["host"].clone())
    });
    let middle = received(&lines[lines.len() / 2]);
    let later: Vec<Value> = rows
        .iter()
        .filter(|row| row["receivedAt"].as_str() >= Some(&middle))
        .cloned()
        .collect();
    check_figures(&told(&format!("since={middle}")), "host", &later, |row| {
        (middle.clone(), row["host"].clone())
    });
}

fn figures_are_those_of_a_model(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "4KiB"), ("FLUSH_SECS", "1s")]);
    let none =
        json!({"rows": [], "skipped_lines": 0, "decoded_segments": 0, "indexed_segments": 0});
    assert_eq!(get(&server, "/api/v1/summary").json(), none);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| send(&server, &varied(20)));
        }
    });
    // Sealed or not, with sidecars or without.
    check_all_figures(&server);
    wait_until_sealed(&server);
    wait_until_indexed(&server);
    check_all_figures(&server);
    // By sidecars alone, where these tell.
    let segments = sealed(server.dir()).len();
    let counted = |query: &str| {
        let told = get(&server, &format!("/api/v1/summary?{query}")).json();
        ["indexed_segments", "decoded_segments"]
            .map(|name| told[name].as_u64().expect("a number") as usize)
    };
    for query in ["", "step=1m", "since=-1d"] {
        assert_eq!(counted(query), [segments, 0], "{query}");
    }
    let have_host = sealed(server.dir());
    let have_host = have_host
        .iter()
        .filter(|segment| segment.lines.concat().contains("GitHub"));
    assert_eq!(counted("host=GitHub&step=1d"), [have_host.count(), 0]);
    for query in [
        "client=a",
        "group=client",
        "group=/geo/country",
        "dedupe=true",
    ] {
        assert_eq!(counted(query), [0, segments], "{query}");
    }
}

fn sidecars_are_made_and_made_again(driver: Driver) {
    let settings = [
        ("FLUSH_BYTES", "4KiB"),
        ("FLUSH_SECS", "1s"),
        ("WORKERS", "1"),
    ];
    let dir = TempDir::new().expect("a directory");
    let mut server = Server::start_in(driver, dir.path(), &settings);
    send(&server, &varied(20));
    wait_until_sealed(&server);
    wait_until_indexed(&server);
    let rows = |server: &Server| get(server, "/api/v1/summary").json()["rows"].clone();
    let before = rows(&server);
    let index = dir.path().join(".index");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&index).expect("it is there");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names
            .map(|name| name.into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    let made = |name: &str| fs::read(index.join(name)).expect("it can be read");
    let all = names();
    let contents: Vec<Vec<u8>> = all.iter().map(|name| made(name)).collect();
    assert!(all.len() > 2);
    // It says what its segment holds.
    let text: Value = serde_json::from_slice(&contents[0]).expect("JSON");
    let first = &sealed(dir.path())[0];
    assert_eq!(text["index"]["segment"], first.name.as_str());
    assert_eq!(text["index"]["lines"], first.lines.len());
    // Gone, changed, cut and of another segment; while the server runs, and while it does not.
    let damage = || {
        fs::remove_file(index.join(&all[0])).expect("removed");
        let mut changed = contents[1].clone();
        let digit = changed
            .iter()
            .rposition(u8::is_ascii_digit)
            .expect("a digit");
        changed[digit] ^= 1;
        fs::write(index.join(&all[1]), changed).expect("written");
        fs::write(index.join(&all[2]), &contents[0]).expect("written");
        if let Some(name) = all.get(3) {
            fs::write(index.join(name), &contents[3][..contents[3].len() / 2]).expect("written");
        }
    };
    let is_mended = || {
        names() == all
            && all
                .iter()
                .zip(&contents)
                .all(|(name, content)| made(name) == *content)
    };
    damage();
    assert_eq!(rows(&server), before);
    wait_until("they are made again", is_mended);
    assert_eq!(server.stop().code(), Some(0));
    damage();
    let server = Server::start_in(driver, dir.path(), &settings);
    wait_until("they are made again", is_mended);
    assert_eq!(rows(&server), before);
    let metrics = server.metrics();
    assert!(metrics.sum(&["netwatch_sidecars_total", "\"made\""]) >= 3);
    assert_eq!(metrics.sum(&["netwatch_sidecars_total", "\"failed\""]), 0);
    // Beside the server the same is told without it.
    let json = run(
        &[Path::new("summary"), Path::new("--json"), dir.path()],
        &[],
    );
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["rows"], before);
}

fn a_sample_that_is_sent_again_counts_once(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "2KiB")]);
    let sample = |n: u64| (n, Some(n as f64), None);
    // Each report has the ten samples before it once more.
    for n in 0..20 {
        let samples: Vec<_> = (n * 3..n * 3 + 10).map(sample).collect();
        let [a, b] = ["a", "b"].map(|client| report(client, "GitHub", &samples));
        send(&server, &[a, b, report("a", "Local CPE", &[sample(n % 2)])]);
    }
    send(&server, &[report("a", "GitHub", &[(3, Some(999.0), None)])]);
    let counts = |query: &str| -> Vec<(String, u64, u64)> {
        let told = get(&server, &format!("/api/v1/summary?{query}")).json();
        let rows = told["rows"].as_array().expect("rows").iter();
        rows.map(|row| {
            let [samples, max] =
                ["samples", "max"].map(|name| row[name].as_f64().expect("a number") as u64);
            (
                row["host"].as_str().expect("a host").to_owned(),
                samples,
                max,
            )
        })
        .collect()
    };
    let host = |name: &str, samples, max| (name.to_owned(), samples, max);
    assert_eq!(
        counts("dedupe=false"),
        [host("GitHub", 401, 999), host("Local CPE", 20, 1)]
    );
    // The one that came first counts.
    assert_eq!(
        counts("dedupe=true"),
        [host("GitHub", 134, 66), host("Local CPE", 2, 1)]
    );
    assert_eq!(counts("dedupe=true&client=b"), [host("GitHub", 67, 66)]);
    assert_eq!(
        counts("dedupe=true&host=Local+CPE"),
        [host("Local CPE", 2, 1)]
    );
}

fn segments_are_files(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "2KiB"), ("FLUSH_SECS", "1s")]);
    assert_eq!(
        get(&server, "/api/v1/segments").json(),
        json!({"segments": []})
    );
    send(&server, &varied(12));
    wait_until_sealed(&server);
    wait_until_indexed(&server);
    let segments = sealed(server.dir());
    let told = get(&server, "/api/v1/segments").json();
    let told = told["segments"].as_array().expect("a list");
    assert_eq!(told.len(), segments.len());
    let mut by_name: Vec<&Value> = told.iter().collect();
    by_name.sort_by_key(|row| row["name"].as_str());
    for (row, segment) in by_name.into_iter().zip(&segments) {
        let bytes = fs::read(server.dir().join(&segment.name)).expect("it can be read");
        let raw_bytes: usize = segment.lines.iter().map(|line| line.len() + 1).sum();
        let (first, last) = (&segment.lines[0], segment.lines.last().expect("a line"));
        let expected = json!({
            "name": segment.name, "file_bytes": bytes.len(), "raw_bytes": raw_bytes,
            "lines": segment.lines.len(), "first": received(first), "last": received(last),
        });
        assert_eq!(*row, expected);
        let target = format!("/api/v1/segments/{}", segment.name);
        let whole = get(&server, &target);
        assert_eq!((whole.status, &whole.body), (200, &bytes));
        assert_eq!(whole.field("content-type"), Some("application/zstd"));
        let tag = whole.field("etag").expect("a tag");
        let part = |fields: &str| get_with(&server, &target, fields);
        let range = part("Range: bytes=5-14\r\n");
        assert_eq!((range.status, &range.body[..]), (206, &bytes[5..15]));
        let expected = format!("bytes 5-14/{}", bytes.len());
        assert_eq!(range.field("content-range"), Some(expected.as_str()));
        let end = part("Range: bytes=-4\r\n");
        assert_eq!(end.body, bytes[bytes.len() - 4..]);
        let other = part("Range: bytes=5-14\r\nIf-Range: \"other\"\r\n");
        assert_eq!((other.status, &other.body), (200, &bytes));
        let beyond = part(&format!("Range: bytes={}-\r\n", bytes.len()));
        assert_eq!(beyond.status, 416);
        let expected = format!("bytes */{}", bytes.len());
        assert_eq!(beyond.field("content-range"), Some(expected.as_str()));
        let same = part(&format!("If-None-Match: {tag}\r\n"));
        assert_eq!((same.status, same.body.len()), (304, 0));
        assert_eq!(same.field("etag"), Some(tag));
    }
    for name in [
        "reports-x.jsonl.zst",
        "..%2f.lock",
        ".lock",
        "",
        "reports-/../.lock",
    ] {
        let answer = get(&server, &format!("/api/v1/segments/{name}"));
        assert_eq!(answer.status, 404, "{name}");
    }
}

fn answers_are_coded(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "2KiB")]);
    send(&server, &varied(20));
    for target in [
        "/api/v1/reports",
        "/api/v1/reports?limit=5",
        "/api/v1/reports?client=nobody",
        "/api/v1/samples?format=csv",
        "/api/v1/summary",
        "/api/v1/segments",
    ] {
        let plain = get(&server, target);
        assert_eq!(plain.field("vary"), Some("accept-encoding"), "{target}");
        assert_eq!(plain.field("content-encoding"), None);
        let gzip = get_with(&server, target, "Accept-Encoding: gzip\r\n");
        assert_eq!(gzip.field("content-encoding"), Some("gzip"));
        let mut text = String::new();
        let decoded = flate2::read::GzDecoder::new(&gzip.body[..]).read_to_string(&mut text);
        decoded.expect("it is gzip");
        assert_eq!(text, plain.text(), "{target}");
        let zstd = get_with(&server, target, "Accept-Encoding: gzip, zstd\r\n");
        assert_eq!(zstd.field("content-encoding"), Some("zstd"));
        let text = zstd::decode_all(&zstd.body[..]).expect("it is zstd");
        assert_eq!(String::from_utf8_lossy(&text), plain.text(), "{target}");
    }
    // HTTP/1.0 has no chunks: the body ends with the connection.
    let old = "GET /api/v1/reports HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let old = rest(ask(server.admin(), old));
    assert_eq!(old.field("transfer-encoding"), None);
    assert_eq!(old.field("connection"), Some("close"));
    assert_eq!(old.body, get(&server, "/api/v1/reports").body);
    let head = "HEAD /api/v1/reports HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let head = rest(ask(server.admin(), head));
    assert_eq!((head.status, head.body.len()), (200, 0));
}

fn whole_segments_pass_through(driver: Driver) {
    let settings = [
        ("WORKERS", "1"),
        ("FLUSH_BYTES", "4KiB"),
        ("FLUSH_SECS", "1s"),
    ];
    let server = Server::start(driver, &settings);
    send(&server, &varied(20));
    wait_until_sealed(&server);
    wait_until_indexed(&server);
    let zstd = get_with(&server, "/api/v1/reports", "Accept-Encoding: zstd\r\n");
    let segments = sealed(server.dir());
    let files: Vec<Vec<u8>> = segments
        .iter()
        .map(|segment| fs::read(server.dir().join(&segment.name)).expect("it can be read"))
        .collect();
    assert!(files.len() > 2);
    assert_eq!(zstd.body, files.concat());
    // From within the first segment on, only that one is coded anew.
    let all: Vec<&String> = segments.iter().flat_map(|segment| &segment.lines).collect();
    let since = received(all[1]);
    let target = format!("/api/v1/reports?since={since}");
    let later = get_with(&server, &target, "Accept-Encoding: zstd\r\n");
    let text = zstd::decode_all(&later.body[..]).expect("it is zstd");
    let text = String::from_utf8(text).expect("text");
    let expected: Vec<&String> = all
        .into_iter()
        .filter(|line| received(line) >= since)
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(later.body.ends_with(&files[1..].concat()));
}

fn what_is_no_question_is_refused(driver: Driver) {
    let server = Server::start(driver, &[]);
    for (target, message) in [
        (
            "reports?limit=0",
            "limit: expected a number of rows, 1 or more, found \"0\"",
        ),
        (
            "reports?cursor=%00",
            "cursor: expected a cursor of a former answer, found \"\\0\"",
        ),
        (
            "reports?step=1m",
            "step: expected one of since, until, client, host, limit, cursor",
        ),
        ("reports?client=a&client=b", "client: expected it once"),
        (
            "samples?format=xml",
            "format: expected ndjson or csv, found \"xml\"",
        ),
        ("summary?step=0s", "step: expected 1s to 366d, found \"0s\""),
        ("segments?limit=1", "limit: expected one of since, until"),
    ] {
        let answer = get(&server, &format!("/api/v1/{target}"));
        assert_eq!(answer.status, 400, "{answer:?}");
        let expected = json!({"status": "error", "code": "bad_query", "message": message});
        assert_eq!(answer.json(), expected);
    }
    for path in ["reports", "samples", "summary", "segments", "segments/x"] {
        let request = format!("POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = rest(ask(server.admin(), &request));
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, Some("get, head")),
            "{path}"
        );
    }
    let metrics = server.metrics();
    assert_eq!(metrics.sum(&["netwatch_queries_total", "\"refused\""]), 7);
    assert_eq!(metrics.sum(&["netwatch_running_queries"]), 0);
}

fn a_token_is_asked_for(driver: Driver) {
    const TOKEN: &str = "0123456789abcdef-0123456789abcdef";
    let server = Server::start(driver, &[("ADMIN_TOKEN", TOKEN)]);
    let with = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["reports", "samples", "summary", "segments", "segments/x"] {
        let target = format!("/api/v1/{path}");
        assert_eq!(get(&server, &target).status, 401, "{path}");
        let expected = if path == "segments/x" { 404 } else { 200 };
        assert_eq!(get_with(&server, &target, &with).status, expected, "{path}");
        let public = request(&target, &with);
        let public = rest(ask(server.address(), &public));
        assert!([404, 405].contains(&public.status), "{path}: {public:?}");
    }
}

/// Reports whose lines fill the buffers of a socket whose client does not read.
fn send_much(server: &Server) {
    // Only in parts of a few bytes, so that it stays large in a segment.
    let padding: String = (0..60_000_u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32))
        .collect();
    let mut big = report("a", "GitHub", &[(1, Some(1.0), None)]);
    big["padding"] = Value::from(padding);
    for _ in 0..28 {
        send(server, std::slice::from_ref(&big));
    }
}

fn queries(server: &Server, outcome: &str) -> u64 {
    let outcome = format!("\"{outcome}\"");
    server.metrics().sum(&["netwatch_queries_total", &outcome])
}

fn running(server: &Server) -> u64 {
    server.metrics().sum(&["netwatch_running_queries"])
}

fn a_client_that_goes_is_given_up(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "1MiB")]);
    send_much(&server);
    let stream = ask_without_room(server.admin(), &request("/api/v1/reports", ""));
    wait_until("it is being answered", || running(&server) == 1);
    drop(stream);
    wait_until("it is given up", || queries(&server, "client_gone") == 1);
    assert_eq!(running(&server), 0);
    // Nothing is written that would notice: it is looked for.
    for (told_before, target) in [(1, "/api/v1/summary"), (2, "/api/v1/summary?dedupe=true")] {
        wait_until("it is given up", || {
            let stream = ask(server.admin(), &request(target, ""));
            // With luck before it is being answered.
            stream.shutdown(Shutdown::Write).expect("it is ours");
            let _ = rest_of_nobody(stream);
            queries(&server, "client_gone") > told_before
        });
    }
    assert_eq!(running(&server), 0);
    assert_eq!(queries(&server, "failed"), 0);
}

/// Waits for the end of a connection.
fn rest_of_nobody(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn so_many_questions_at_once(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_BYTES", "1MiB")]);
    send_much(&server);
    let whole = request("/api/v1/reports", "");
    let waiting: Vec<TcpStream> = (0..4)
        .map(|_| ask_without_room(server.admin(), &whole))
        .collect();
    wait_until("they are being answered", || running(&server) == 4);
    let refused = get(&server, "/api/v1/summary");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["code"], "too_many_queries");
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(queries(&server, "too_many"), 1);
    for stream in waiting {
        assert_eq!(rest(stream).lines().len(), 28);
    }
    wait_until("they have ended", || running(&server) == 0);
    assert_eq!(get(&server, "/api/v1/summary").status, 200);
}

fn a_removed_segment_is_no_silent_hole(driver: Driver) {
    let settings = [
        ("FLUSH_BYTES", "1MiB"),
        ("FLUSH_SECS", "1s"),
        ("WORKERS", "1"),
    ];
    let server = Server::start(driver, &settings);
    send_much(&server);
    wait_until_sealed(&server);
    let segments = sealed(server.dir());
    assert!(segments.len() > 8, "{} segments", segments.len());
    let mut last_first = segments.iter().rev();
    let old = "GET /api/v1/reports HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned();
    for (failed, request) in [(1, request("/api/v1/reports", "")), (2, old)] {
        let mut stream = ask_without_room(server.admin(), &request);
        // What comes first has been read, and the client has not made room for the last.
        stream.peek(&mut [0]).expect("the answer begins");
        let last = &last_first.next().expect("there are many").name;
        fs::remove_file(server.dir().join(last)).expect("it is removed");
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let answer = Answer::of(&bytes);
        assert_eq!(answer.status, 200);
        // HTTP/1.0 has nothing else to tell it by than a reset.
        match failed {
            1 => assert!(!answer.is_whole),
            _ => assert!(ended.is_err(), "{ended:?}"),
        }
        wait_until("it has failed", || queries(&server, "failed") == failed);
        let expected = format!("{last} was removed while older segments were being read");
        wait_until("it is said", || {
            server.log().iter().any(|line| line.contains(&expected))
        });
    }
    // Asked again, what is there is all.
    let told = get(&server, "/api/v1/reports").lines().len();
    let left = sealed(server.dir());
    let left: usize = left.iter().map(|segment| segment.lines.len()).sum();
    assert_eq!(told, left);
    let samples = get(&server, "/api/v1/summary").json()["rows"][0]["samples"].as_u64();
    assert_eq!(samples, Some(left as u64));
}

fn a_damaged_segment_is_an_error(driver: Driver) {
    let settings = [
        ("FLUSH_BYTES", "2KiB"),
        ("FLUSH_SECS", "1s"),
        ("WORKERS", "1"),
    ];
    let dir = TempDir::new().expect("a directory");
    let mut server = Server::start_in(driver, dir.path(), &settings);
    send(&server, &varied(12));
    assert_eq!(server.stop().code(), Some(0));
    let segments = sealed(dir.path());
    let (first, second) = (&segments[0].name, &segments[1].name);
    for name in [first, second] {
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).expect("it can be read");
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        fs::write(&path, bytes).expect("it is changed");
    }
    fs::remove_dir_all(dir.path().join(".index")).expect("no sidecars");
    let server = Server::start_in(driver, dir.path(), &settings);
    for target in [
        "/api/v1/summary",
        "/api/v1/reports?limit=50",
        "/api/v1/summary?dedupe=true",
    ] {
        let answer = get(&server, target);
        assert_eq!(answer.status, 500, "{target}");
        assert_eq!(answer.json()["code"], "segment_unreadable");
        let message = answer.json()["message"].to_string();
        assert!(
            message.contains("is damaged: Restored data doesn't match checksum"),
            "{message}"
        );
    }
    // What was received long before or after is not asked of it.
    for times in ["until=2020-01-01", "since=2120-01-01"] {
        let told = get(&server, &format!("/api/v1/reports?{times}"));
        assert_eq!(told.lines(), [""; 0]);
    }
    let Run {
        code,
        stdout,
        stderr,
    } = run(&[Path::new("cat"), dir.path()], &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("netwatch-server: reports-"), "{stderr}");
}

fn files_of_the_go_server_are_read(driver: Driver) {
    let dir = TempDir::new().expect("a directory");
    let written = |name: &str, frames: &[&str], secs: u64| {
        let frames = frames
            .iter()
            .map(|text| zstd::encode_all(text.as_bytes(), 3).expect("it is coded"));
        let path = dir.path().join(name);
        fs::write(&path, frames.collect::<Vec<_>>().concat()).expect("it is written");
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .expect("it is there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(secs))
            .expect("it is set");
    };
    let old = "{\"clientId\":\"go\",\"hosts\":[{\"name\":\"GitHub\",\"history\":[{\"t\":1,\"latency\":5}]}]}";
    written(
        "reports-2026-02-27T05-14-34Z.jsonl.zst",
        &[&format!("{old}\n"), "{}\nno JSON"],
        1_772_169_274,
    );
    written(
        "reports-2026-01-01T00-00-00Z.jsonl.zst",
        &[&format!("{old}\n")],
        1_767_225_600,
    );
    let server = Server::start_in(driver, dir.path(), &[]);
    send(&server, &varied(1));
    let ours = lines_of_ours(&server);
    let told = get(&server, "/api/v1/reports").lines();
    let expected = [old, old, "{}", "no JSON", &ours];
    assert_eq!(told, expected);
    let since = "since=2026-02-27T05:14:34Z&until=2026-02-27T05:14:35Z";
    let told = get(&server, &format!("/api/v1/reports?{since}")).lines();
    assert_eq!(told, [old, "{}", "no JSON"]);
    let told = get(&server, &format!("/api/v1/samples?{since}")).lines();
    let row = concat!(
        r#"{"receivedAt":"2026-02-27T05:14:34.000Z","clientId":"go","host":"GitHub","url":null,"#,
        r#""t":1,"latency":5,"error":null}"#
    );
    assert_eq!(told, [row]);
    let figures = get(
        &server,
        "/api/v1/summary?until=2026-03-01&group=client&step=1d",
    )
    .json();
    assert_eq!(figures["skipped_lines"], 1);
    let rows = figures["rows"].as_array().expect("rows").iter();
    let starts: Vec<&Value> = rows.map(|row| &row["start"]).collect();
    assert_eq!(
        starts,
        ["2026-01-01T00:00:00.000Z", "2026-02-27T00:00:00.000Z"]
    );
    // Pages go through them as well.
    assert_eq!(pages(&server, 1, None).0, expected);
}

fn lines_of_ours(server: &Server) -> String {
    let mut lines = support::open(server.dir());
    let mut segment = lines.pop().expect("one is open");
    segment.lines.pop().expect("a line")
}

/// A report is posted, its file verified, and read back by each way there is.
fn a_report_goes_all_the_way(driver: Driver) {
    let server = Server::start(driver, &[("FLUSH_SECS", "1s")]);
    let sent = report("a", "GitHub", &[(1_772_169_274_000, Some(41.0), None)]);
    send(&server, std::slice::from_ref(&sent));
    let while_open = get(&server, "/api/v1/reports").lines();
    wait_until_sealed(&server);
    let segments = sealed(server.dir());
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].lines, while_open);
    let mut line: Value = serde_json::from_str(&while_open[0]).expect("JSON");
    let received = line
        .as_object_mut()
        .expect("an object")
        .remove("receivedAt");
    assert_eq!(line, sent);
    assert_eq!(get(&server, "/api/v1/reports").lines(), while_open);
    let dir = server.dir().to_str().expect("text");
    assert_eq!(run(&["verify", dir], &[]).code, Some(0));
    let cat = run(&["cat", dir], &[]);
    assert_eq!(
        (cat.code, cat.stdout),
        (Some(0), while_open[0].clone() + "\n")
    );
    let row = format!(
        "{{\"receivedAt\":{},\"clientId\":\"a\",\"host\":\"GitHub\",\"url\":\"https://host.example\",\
         \"t\":1772169274000,\"latency\":41,\"error\":null}}\n",
        received.expect("a time")
    );
    assert_eq!(get(&server, "/api/v1/samples").text(), row);
    assert_eq!(run(&["samples", dir], &[]).stdout, row);
    let table = run(&["summary", dir], &[]).stdout;
    let figures: Vec<&str> = table
        .lines()
        .nth(1)
        .expect("a row")
        .split_whitespace()
        .collect();
    let expected = [
        "GitHub", "1", "0", "0", "41.0", "41.0", "41.0", "41.0", "41.0", "41.0", "41.0",
    ];
    assert_eq!(figures, expected);
    // The settings tell where, as for every command.
    let named = run(&["cat"], &[("DATA_DIR", dir)]);
    assert_eq!(named.stdout, cat_text(&while_open));
}

/// A command beside a server finds what the server is just writing: half of a commit, in front of zeros.
#[test]
fn a_commit_that_is_half_written_is_not_read() {
    const NAME: &str = "reports-20260227T051434.123Z-c000.jsonl.zst";
    let line = |client: &str| {
        let received = r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#;
        format!("{received}\"clientId\":\"{client}\",\"timestamp\":\"t\",\"hosts\":[]}}")
    };
    let clients = (0..100).map(|client| line(&client.to_string()) + "\n");
    let texts = [line("a") + "\n", clients.collect()];
    let built = crate::segments::build(NAME, 1, &texts);
    let (first, second) = (built.commits[0].0, built.commits[1].0);
    let half = [&built.open[..(first + second) / 2], &[0; 4096]].concat();
    for (file, count) in [(half, 1), ([&built.open, &[0; 4096][..]].concat(), 101)] {
        let dir = TempDir::new().expect("a directory");
        fs::create_dir(dir.path().join(".open")).expect("it is made");
        fs::write(dir.path().join(".open").join(NAME), file).expect("it is written");
        let cat = run(&[Path::new("cat"), dir.path()], &[]);
        assert_eq!((cat.code, cat.stderr.as_str()), (Some(0), ""));
        let lines: String = built.text.split_inclusive('\n').take(count).collect();
        assert_eq!(cat.stdout, lines);
    }
}

fn cat_text(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

#[test]
fn commands_say_what_is_wrong() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path().to_str().expect("text");
    #[track_caller]
    fn check(args: &[&str], code: i32, stderr: &str) {
        let found = run(args, &[]);
        let expected = format!("netwatch-server: {stderr}\n");
        assert_eq!(
            (found.code, found.stderr),
            (Some(code), expected),
            "{args:?}"
        );
        assert_eq!(found.stdout, "");
    }
    let time = "expected a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or a time before now as -1h";
    check(
        &["cat", dir, "--since", "x"],
        2,
        &format!("since: {time}, found \"x\""),
    );
    check(
        &["samples", dir, "--format", "xml"],
        2,
        "format: expected ndjson or csv, found \"xml\"",
    );
    let missing = format!("cannot read {dir}/none: No such file or directory (os error 2)");
    for command in ["cat", "samples", "summary"] {
        check(&[command, &format!("{dir}/none")], 2, &missing);
        // Nothing is stored: nothing is told.
        let found = run(&[command, dir, "--since", "-1h"], &[]);
        assert_eq!(
            (found.code, found.stderr.as_str()),
            (Some(0), ""),
            "{command}"
        );
    }
    assert_eq!(
        run(&["summary", dir, "--json"], &[]).stdout,
        "{\"rows\":[],\"skipped_lines\":0,\"decoded_segments\":0,\"indexed_segments\":0}\n"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let server = Server::start(Driver::Epoll, &[]);
    send_much(&server);
    for args in [["cat", "--limit", "20"], ["samples", "--since", "-1h"]] {
        let mut command: Command = support::command();
        command.args(args).arg(server.dir());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut [0; 10]).expect("it prints");
        drop(out);
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(
            (ended.status.code(), &ended.stderr[..]),
            (Some(0), &b""[..]),
            "{args:?}"
        );
    }
}
