//! HTTP as its standards have it, section by section: raw bytes in, exact bytes out, and what becomes of
//! the connection and of the reports.
//!
//! Each row goes over a connection of its own, and goes there several times: whole, cut in two, and piece by
//! piece. Many connections take turns with their pieces, so that a server has seen one piece before it
//! gets the next. The answers are compared to the byte, except for the date, which has to be the present
//! one, and for the health answer's body, which has a test of its own.
//!
//! Behind a row that keeps the connection comes one more request, which is answered. Behind a row that
//! closes it comes a good report, which is neither answered nor stored: the client sees the end of the
//! stream. What follows only from time or from many requests has tests of its own in `http`.

mod others;
mod rfc9110;
mod rfc9112;

use std::fmt;

use crate::support::{self, Answer, Client, Driver, Server, both_drivers, post};

both_drivers!(requests_are_answered_by_the_standards);

/// The report that rows store.
const REPORT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
/// Rows spell its length as `43`, and in chunks as `2b`.
const _: () = assert!(REPORT.len() == 43);
/// A report that is never stored: behind an error, or in a body that is no report.
const HIDDEN: &str = r#"{"clientId":"hidden","timestamp":"t","hosts":[]}"#;

/// Connections that take turns.
const VISITS: usize = 32;
/// Pieces that a row is cut in at most.
const PIECES_MAX: usize = 400;

/// A request for health, and the last one of its connection.
const LAST: &str = "GET /.well-known/healthcheck HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// A POST of the report with these fields beside the host.
fn report(fields: &str) -> String {
    format!("{}{REPORT}", report_head(fields))
}

/// As [`report`], without the body.
fn report_head(fields: &str) -> String {
    format!("POST /api/v1/reports HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// A POST of chunks, which follow as they are.
fn chunked(chunks: &str) -> String {
    report_head("Transfer-Encoding: chunked\r\n") + chunks
}

/// A request with this request line and these fields beside the host.
fn request(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: h\r\n{fields}\r\n")
}

/// All rows, in the order of the files.
#[derive(Default)]
struct Table {
    section: &'static str,
    rows: Vec<Row>,
}

struct Row {
    section: &'static str,
    /// All but the last are answered before the next one is sent.
    steps: Vec<Step>,
    after: After,
}

struct Step {
    bytes: Vec<u8>,
    replies: Vec<Reply>,
}

/// What becomes of the connection after the row's last answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It takes another request.
    Kept,
    /// The server ends it, and looks at nothing behind the row, however long that takes to come.
    Closed,
    /// The same, as the client has asked; so no more than what is on its way with the row may follow.
    Agreed,
    /// The client has ended its side behind the row, and the server follows.
    Ended,
    /// The server ends it at the deadline for what is missing.
    Late,
}

impl Table {
    /// What the next rows are about.
    fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// A request that keeps the connection.
    fn kept(&mut self, bytes: impl AsRef<[u8]>, reply: Reply) {
        self.pipelined(&[(bytes.as_ref(), reply)], After::Kept);
    }

    /// A request that ends the connection, and says so itself.
    fn last(&mut self, bytes: impl AsRef<[u8]>, reply: Reply) {
        self.pipelined(&[(bytes.as_ref(), reply.close())], After::Agreed);
    }

    /// A request whose refusal ends the connection.
    fn closed(&mut self, bytes: impl AsRef<[u8]>, reply: Reply) {
        self.pipelined(&[(bytes.as_ref(), reply.close())], After::Closed);
    }

    /// A request of which no more comes, and nothing on the way to its deadline.
    fn late(&mut self, bytes: impl AsRef<[u8]>, reply: Reply) {
        self.pipelined(&[(bytes.as_ref(), reply.close())], After::Late);
    }

    /// Requests at once, each with its answer.
    fn pipelined(&mut self, requests: &[(&[u8], Reply)], after: After) {
        let (bytes, replies): (Vec<_>, Vec<_>) = requests.iter().cloned().unzip();
        let bytes = bytes.concat();
        self.steps(vec![Step { bytes, replies }], after);
    }

    fn steps(&mut self, steps: Vec<Step>, after: After) {
        let section = self.section;
        assert_ne!(section, "", "a row stands in a section");
        self.rows.push(Row {
            section,
            steps,
            after,
        });
    }
}

/// An answer, as rows name it.
#[derive(Clone)]
struct Reply {
    /// With its reason phrase.
    status: &'static str,
    connection: Option<&'static str>,
    /// Lines of its own.
    fields: String,
    body: Body,
    /// Without the body that its fields announce.
    is_to_head: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Body {
    /// None, and no field that says so: 100, 204.
    Absent,
    Text(String),
    Health,
}

impl Reply {
    fn of(status: &'static str, body: Body) -> Reply {
        Reply {
            status,
            connection: None,
            fields: String::new(),
            body,
            is_to_head: false,
        }
    }

    /// With a line of its own.
    fn with(mut self, line: &str) -> Reply {
        self.fields += line;
        self.fields += "\r\n";
        self
    }

    fn close(mut self) -> Reply {
        self.connection = Some("close");
        self
    }

    /// To HTTP/1.0, whose default is the other.
    fn keep_alive(mut self) -> Reply {
        self.connection = Some("keep-alive");
        self
    }

    fn without_body(mut self) -> Reply {
        self.is_to_head = true;
        self
    }

    fn stores(&self) -> bool {
        self.body == stored().body
    }
}

/// To a report that is now on disk.
fn stored() -> Reply {
    Reply::of("200 OK", Body::Text("{\"status\":\"ok\"}\n".to_owned()))
}

fn health() -> Reply {
    Reply::of("200 OK", Body::Health)
}

/// To a client that asks before it sends its body.
fn go_on() -> Reply {
    Reply::of("100 Continue", Body::Absent)
}

/// To OPTIONS.
fn methods(allow: &str) -> Reply {
    Reply::of("204 No Content", Body::Absent).with(&format!("allow: {allow}"))
}

fn refused(status: &'static str, code: &str, message: &str) -> Reply {
    let body = format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":\"{message}\"}}\n");
    Reply::of(status, Body::Text(body))
}

fn malformed(message: &str) -> Reply {
    refused("400 Bad Request", "malformed_head", message)
}

fn malformed_body(message: &str) -> Reply {
    refused("400 Bad Request", "malformed_body", message)
}

fn not_found() -> Reply {
    refused(
        "404 Not Found",
        "not_found",
        "there is nothing at this path",
    )
}

fn wrong_method(allow: &str) -> Reply {
    let message = format!("expected method {allow}");
    let reply = refused("405 Method Not Allowed", "method_not_allowed", &message);
    reply.with(&format!("allow: {allow}"))
}

/// The bytes of the answer, but for what [`comparable`] hides.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP/1.1 {}\r\n", self.status)?;
        if self.status == go_on().status {
            return f.write_str("\r\n");
        }
        f.write_str("date: NOW\r\n")?;
        if let Some(connection) = self.connection {
            write!(f, "connection: {connection}\r\n")?;
        }
        let (len, body) = match &self.body {
            Body::Absent => (String::new(), ""),
            Body::Text(text) => (text.len().to_string(), text.as_str()),
            Body::Health => ("LENGTH".to_owned(), "HEALTH"),
        };
        if self.body != Body::Absent {
            f.write_str("content-type: application/json; charset=utf-8\r\n")?;
            write!(f, "content-length: {len}\r\n")?;
        }
        f.write_str(&self.fields)?;
        f.write_str(
            "vary: origin\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n",
        )?;
        f.write_str(if self.is_to_head { "" } else { body })
    }
}

/// The bytes of an answer without what changes from run to run, once that is seen to be right.
fn comparable(answer: &Answer, expected: &Reply) -> String {
    let mut head = answer.head.clone();
    let mut hide = |name: &str, word: &str| {
        if let Some(value) = answer.field(name) {
            head = head.replace(
                &format!("\r\n{name}: {value}\r\n"),
                &format!("\r\n{name}: {word}\r\n"),
            );
        }
    };
    // Every answer's date has been compared with the clock.
    hide("date", "NOW");
    let body = answer.text();
    if expected.body != Body::Health {
        return head + body;
    }
    hide("content-length", "LENGTH");
    let is_health = body.contains(r#""appname":"netwatch-server""#) && body.ends_with("}\n");
    head + if is_health { "HEALTH" } else { body }
}

/// Where a row is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nowhere; what follows the row comes with it.
    Nowhere,
    /// Once, at a place that differs from row to row.
    Once,
    /// As often as may be.
    Everywhere,
}

impl Cut {
    fn pieces(self, bytes: &[u8], row: usize) -> Vec<&[u8]> {
        match self {
            _ if bytes.is_empty() => vec![],
            Cut::Nowhere => vec![bytes],
            Cut::Once => {
                let (first, rest) = bytes.split_at(row * 37 % bytes.len());
                vec![first, rest]
            }
            Cut::Everywhere => bytes.chunks(bytes.len().div_ceil(PIECES_MAX)).collect(),
        }
    }
}

/// One row on its way over one connection.
struct Visit<'t> {
    row: &'t Row,
    index: usize,
    client: Client,
    /// What is not as the row says, up to here.
    found: Result<(), String>,
}

impl Visit<'_> {
    fn pieces(&self, step: usize, cut: Cut) -> Vec<Vec<u8>> {
        let Some(Step { bytes, .. }) = self.row.steps.get(step) else {
            return vec![];
        };
        let hidden = post(HIDDEN.as_bytes());
        // What is cut with the row, and what comes with its last piece.
        let (cut_too, in_one): (&[u8], &[u8]) = match self.row.after {
            _ if step + 1 < self.row.steps.len() => (b"", b""),
            After::Closed => (&hidden, b""),
            After::Agreed => (b"", &hidden),
            // With the row, unless it has to wait for the row's answers.
            After::Kept if cut != Cut::Once => (LAST.as_bytes(), b""),
            After::Kept | After::Ended | After::Late => (b"", b""),
        };
        let bytes = [bytes, cut_too].concat();
        let pieces = cut.pieces(&bytes, self.index);
        let mut pieces: Vec<_> = pieces.into_iter().map(<[u8]>::to_vec).collect();
        if let Some(last) = pieces.last_mut() {
            last.extend_from_slice(in_one);
        }
        pieces
    }

    fn send(&mut self, bytes: &[u8]) {
        if let (Ok(()), Err(error)) = (&self.found, self.client.send(bytes)) {
            self.found = Err(format!("not taken: {error}"));
        }
    }

    fn end_writing(&mut self, step: usize) {
        if self.row.after == After::Ended && step + 1 == self.row.steps.len() {
            self.client.end_writing();
        }
    }

    fn read_replies(&mut self, step: usize) {
        let Some(Step { replies, .. }) = self.row.steps.get(step) else {
            return;
        };
        for reply in replies {
            self.read_reply(reply);
        }
    }

    fn read_reply(&mut self, expected: &Reply) {
        if self.found.is_err() {
            return;
        }
        let answer = match expected.is_to_head {
            true => self.client.try_answer_to_head(),
            false => self.client.try_answer(),
        };
        let found = match answer {
            Ok(Some(answer)) => comparable(&answer, expected),
            Ok(None) => "the end".to_owned(),
            Err(error) => error.to_string(),
        };
        let expected = expected.to_string();
        if found != expected {
            self.found = Err(format!("{expected}\nexpected, found\n{found}"));
        }
    }

    fn end(&mut self, cut: Cut) {
        if self.row.after == After::Kept {
            if cut == Cut::Once {
                self.send(LAST.as_bytes());
            }
            self.read_reply(&health().close());
        }
        if self.found.is_err() {
            return;
        }
        match self.client.rest() {
            (rest, Ok(())) if rest.is_empty() => (),
            (rest, ended) => {
                self.found = Err(format!("the end expected, found {rest:?}, {ended:?}"))
            }
        }
    }

    fn report(self, cut: Cut) -> Option<String> {
        let error = self.found.err()?;
        let steps = self.row.steps.iter();
        let sent: String = steps
            .map(|step| step.bytes.escape_ascii().to_string())
            .collect();
        // Of the longest, the end is what differs.
        let start = sent.len().saturating_sub(600);
        let (section, sent) = (self.row.section, &sent[start..]);
        Some(format!("{section}, cut {cut:?}: {sent}\n{error}\n"))
    }
}

/// Sends these rows, which take turns with their pieces, and returns what is not as they say.
fn visit(server: &Server, rows: &[(usize, &Row)], cut: Cut) -> Vec<String> {
    let connect = |&(index, row)| Visit {
        row,
        index,
        client: server.connect(),
        found: Ok(()),
    };
    let mut visits: Vec<Visit> = rows.iter().map(connect).collect();
    let steps = rows.iter().map(|(_, row)| row.steps.len());
    for step in 0..steps.max().unwrap_or_default() {
        let pieces: Vec<_> = visits.iter().map(|visit| visit.pieces(step, cut)).collect();
        let rounds = pieces.iter().map(Vec::len).max().unwrap_or_default();
        for round in 0..rounds {
            for (visit, pieces) in visits.iter_mut().zip(&pieces) {
                if let Some(piece) = pieces.get(round) {
                    visit.send(piece);
                }
            }
        }
        for visit in &mut visits {
            visit.end_writing(step);
        }
        for visit in &mut visits {
            visit.read_replies(step);
        }
    }
    for visit in &mut visits {
        visit.end(cut);
    }
    let reports = visits.into_iter().map(|visit| visit.report(cut));
    reports.flatten().collect()
}

fn requests_are_answered_by_the_standards(driver: Driver) {
    let mut table = Table::default();
    rfc9110::rows(&mut table);
    rfc9112::rows(&mut table);
    others::rows(&mut table);
    let rows = table.rows.iter().enumerate();
    let (late, prompt): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| row.after == After::Late);
    println!("{} rows", table.rows.len());

    let mut server = Server::start(driver, &[]);
    let mut wrong = Vec::new();
    let cuts = [Cut::Nowhere, Cut::Once, Cut::Everywhere];
    for cut in cuts {
        for rows in prompt.chunks(VISITS) {
            wrong.extend(visit(&server, rows, cut));
        }
    }
    let impatient = [("HEAD_SECS", "1"), ("BODY_SECS", "1")];
    wrong.extend(visit(
        &Server::start(driver, &impatient),
        &late,
        Cut::Nowhere,
    ));
    let count = wrong.len();
    assert_eq!(count, 0, "not as the table says:\n{}", wrong.join("\n"));

    assert_eq!(server.stop().code(), Some(0));
    let replies = prompt
        .iter()
        .flat_map(|(_, row)| &row.steps)
        .flat_map(|step| &step.replies);
    let expected = cuts.len() * replies.filter(|reply| reply.stores()).count();
    let lines = support::lines(server.dir());
    let (good, bad): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.ends_with(&REPORT[1..]));
    assert_eq!((good.len(), bad), (expected, vec![]));
}

/// The table's short forms, written out.
#[test]
fn answers_spelled_out() {
    #[track_caller]
    fn check(reply: Reply, expected: &str) {
        assert_eq!(reply.to_string(), expected);
    }
    check(go_on(), "HTTP/1.1 100 Continue\r\n\r\n");
    check(
        stored(),
        "HTTP/1.1 200 OK\r\n\
         date: NOW\r\n\
         content-type: application/json; charset=utf-8\r\n\
         content-length: 16\r\n\
         vary: origin\r\n\
         x-content-type-options: nosniff\r\n\
         cache-control: no-store\r\n\
         \r\n\
         {\"status\":\"ok\"}\n",
    );
    check(
        methods("POST, OPTIONS").keep_alive(),
        "HTTP/1.1 204 No Content\r\n\
         date: NOW\r\n\
         connection: keep-alive\r\n\
         allow: POST, OPTIONS\r\n\
         vary: origin\r\n\
         x-content-type-options: nosniff\r\n\
         cache-control: no-store\r\n\
         \r\n",
    );
    let wrong_method = wrong_method("GET").close();
    let head = "HTTP/1.1 405 Method Not Allowed\r\n\
         date: NOW\r\n\
         connection: close\r\n\
         content-type: application/json; charset=utf-8\r\n\
         content-length: 79\r\n\
         allow: GET\r\n\
         vary: origin\r\n\
         x-content-type-options: nosniff\r\n\
         cache-control: no-store\r\n\
         \r\n";
    let body = "{\"status\":\"error\",\"code\":\"method_not_allowed\",\"message\":\"expected method GET\"}\n";
    check(wrong_method.clone(), &[head, body].concat());
    check(wrong_method.without_body(), head);
}
