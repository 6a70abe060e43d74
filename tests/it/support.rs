//! Starts the real binary, talks to it in bytes, and reads back what it stored.
//!
//! Every answer that a [`Client`] reads is checked for framing and for the fields that all answers have,
//! so that no test has to; what breaks HTTP panics here, whatever the test was about.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client;

/// The longest wait for anything; only a failing test waits as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// Makes two tests of each function, `name::io_uring` and `name::epoll`.
macro_rules! both_drivers {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            #[test]
            fn io_uring() {
                super::$name($crate::support::Driver::IoUring);
            }

            #[test]
            fn epoll() {
                super::$name($crate::support::Driver::Epoll);
            }
        }
    )+ };
}
pub(crate) use both_drivers;

/// Looks at a condition until it holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_in_time(condition), "waited in vain: {what}");
}

fn holds_in_time(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// What a server is to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// As the log spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    /// The variables that ask for it.
    pub(crate) fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Driver::IoUring => &[],
            Driver::Epoll => &[("MONOIO_FORCE_LEGACY_DRIVER", "1")],
        }
    }
}

/// Has an empty configuration file, which keeps servers from looking for one in /etc.
const EMPTY_CONFIG: (&str, &str) = (
    "XDG_CONFIG_HOME",
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/config"),
);

/// The binary, in an environment that holds nothing of the caller's.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netwatch-server"));
    command.env_clear().env("RUST_BACKTRACE", "1");
    command.env(EMPTY_CONFIG.0, EMPTY_CONFIG.1);
    command.stdin(Stdio::null());
    command
}

/// What a run that ends by itself leaves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(args: &[A], settings: &[(&str, &str)]) -> Run {
    let mut command = command();
    command.args(args).envs(settings.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // It prints less than a pipe holds, so it ends without a reader.
    let has_ended = holds_in_time(|| child.try_wait().is_ok_and(|status| status.is_some()));
    if !has_ended {
        child.kill().expect("the process is ours to end");
    }
    let output = child.wait_with_output().expect("the binary runs");
    let run = Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("standard output is text"),
        stderr: String::from_utf8(output.stderr).expect("standard error is text"),
    };
    assert!(has_ended, "still running: {run:?}");
    run
}

/// A running server on loopback with a port and a data directory of its own. Killed on drop.
pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    /// Removed with the server, unless the caller brought the directory.
    _temporary: Option<TempDir>,
}

impl Server {
    /// Starts a server in a fresh directory; `settings` are environment variables, and win over those
    /// that tests have in common.
    #[track_caller]
    pub(crate) fn start(driver: Driver, settings: &[(&str, &str)]) -> Server {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut server = Server::start_in(driver, dir.path(), settings);
        server._temporary = Some(dir);
        server
    }

    /// Starts a server in a directory that outlives it.
    #[track_caller]
    pub(crate) fn start_in(driver: Driver, dir: &Path, settings: &[(&str, &str)]) -> Server {
        Server::start_command(command(), driver, dir, settings)
    }

    /// Starts a server in a fresh directory by a command that `wrap` makes of the binary's.
    #[track_caller]
    pub(crate) fn start_with(
        driver: Driver,
        settings: &[(&str, &str)],
        wrap: impl FnOnce(&Command) -> Command,
    ) -> Server {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut server = Server::start_in_with(driver, dir.path(), settings, wrap);
        server._temporary = Some(dir);
        server
    }

    /// The same, in a directory that outlives the server.
    #[track_caller]
    pub(crate) fn start_in_with(
        driver: Driver,
        dir: &Path,
        settings: &[(&str, &str)],
        wrap: impl FnOnce(&Command) -> Command,
    ) -> Server {
        Server::start_command(wrap(&command()), driver, dir, settings)
    }

    #[track_caller]
    fn start_command(
        mut command: Command,
        driver: Driver,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> Server {
        command
            // Again: what wraps the binary's command brings an environment of its own.
            .env(EMPTY_CONFIG.0, EMPTY_CONFIG.1)
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("ADMIN_ADDR", "127.0.0.1:0")
            .env("DATA_DIR", dir)
            .env("LOG_FORMAT", "json")
            .env("WORKERS", "2")
            // Where tests run, little may be left.
            .env("MIN_FREE_BYTES", "0")
            .envs(driver.env().iter().copied())
            .envs(settings.iter().copied());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("the binary runs");
        let log = Arc::new(Log::default());
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        let readers = outputs.into_iter().flatten().map(|output| {
            log.open();
            let log = Arc::clone(&log);
            thread::spawn(move || log.collect(output))
        });
        let mut server = Server {
            child,
            dir: dir.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            readers: readers.collect(),
            log,
            _temporary: None,
        };
        let started = server.wait_for_event("started");
        server.address = first_address(&started);
        server.admin = started["admin"].as_str().and_then(|text| text.parse().ok());
        server.check_driver(driver, &started);
        server
    }

    fn check_driver(&self, driver: Driver, started: &Value) {
        let found = started["driver"].as_str().expect("the driver is named");
        if found == driver.name() {
            return;
        }
        assert_eq!(
            (driver, found),
            (Driver::IoUring, "epoll"),
            "the driver asked for"
        );
        // As many entries as the server asks for.
        assert!(
            io_uring::IoUring::new(4096).is_err(),
            "io_uring works here, and the server did not take it"
        );
        self.wait_for_event("no io_uring");
        println!("no io_uring here: ran on epoll");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin listener is.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("the admin listener is on")
    }

    /// What it counts and measures, by name and labels.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let (head, body) = plain_exchange(self.admin(), request);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        Metrics::parse(&body)
    }

    /// Its data directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new connection.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address).expect("the server listens")
    }

    /// The log line with this event, waited for.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, event: &str) -> Value {
        self.log.wait_for(event)
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines().lines.clone()
    }

    /// Waits until a drain has begun on every core: none listens any more.
    #[track_caller]
    pub(crate) fn wait_until_draining(&self) {
        wait_until("no core listens", || {
            let connected = TcpStream::connect(self.address);
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server is ours to signal");
    }

    /// Asks it to end, and waits for that.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Ends it as a power switch would, except for what the kernel holds.
    #[track_caller]
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        let status = self.child.try_wait().expect("the server is our child");
        status.is_none()
    }

    /// Waits for its end; the log is complete then.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("the server ends", || !self.is_running());
        for reader in self.readers.drain(..) {
            reader.join().expect("the log is text");
        }
        self.child.wait().expect("the server has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("log of the server:\n{}", self.log().join("\n"));
        }
    }
}

/// Sends a request that is to be the last on its connection; head and body of the answer.
#[track_caller]
pub(crate) fn plain_exchange(address: SocketAddr, request: &str) -> (String, String) {
    let mut client = Client::connect(address).expect("the listener is there");
    client
        .send(request.as_bytes())
        .expect("the request is taken");
    let (answer, ended) = client.rest();
    ended.expect("the connection ends without a reset");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (format!("{head}\r\n"), body.to_owned())
}

/// The samples of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// From the text format.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name.to_owned(), value.parse().expect("a value is a number"))
        });
        Metrics(samples.collect())
    }

    /// All samples whose name and labels have all of these in them, added up.
    pub(crate) fn sum(&self, parts: &[&str]) -> u64 {
        let (name, labels) = parts.split_first().expect("a name is asked for");
        let found = self.0.iter().filter(|(sample, _)| {
            sample.split('{').next() == Some(name)
                && labels.iter().all(|part| sample.contains(part))
        });
        found.map(|(_, value)| *value as u64).sum()
    }
}

/// The log has the addresses as a list in a string: `[127.0.0.1:40123]`.
fn first_address(started: &Value) -> SocketAddr {
    let addresses = started["addresses"].as_str();
    let first = addresses.and_then(|list| list.split(',').next());
    let address = first.and_then(|text| text.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {started}"))
}

/// What a server prints, line by line, as it comes.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// Outputs that may still bring lines.
    open: usize,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("no holder panics")
    }

    fn open(&self) {
        self.lines().open += 1;
    }

    fn collect(&self, output: impl Read) {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            self.lines().lines.push(line);
            self.changed.notify_all();
        }
        self.lines().open -= 1;
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait_for(&self, event: &str) -> Value {
        let find = |lines: &Lines| {
            let mut parsed = lines.lines.iter().filter_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == event).then_some(line)
            });
            parsed.next_back()
        };
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines();
        loop {
            if let Some(line) = find(&lines) {
                return line;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.open == 0 || left.is_zero() {
                let printed = lines.lines.join("\n");
                drop(lines);
                panic!("no event {event:?} in the log:\n{printed}");
            }
            let waited = self.changed.wait_timeout(lines, left);
            lines = waited.expect("no holder panics").0;
        }
    }
}

/// A connection, in bytes.
pub(crate) struct Client {
    stream: TcpStream,
    /// Read and not yet taken.
    buffer: Vec<u8>,
}

impl Client {
    /// Opens a connection.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The port of this side.
    pub(crate) fn local_port(&self) -> u16 {
        let address = self.stream.local_addr();
        address.expect("the connection has two ends").port()
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends nothing more.
    pub(crate) fn end_writing(&mut self) {
        let ended = self.stream.shutdown(Shutdown::Write);
        ended.expect("the connection is open");
    }

    /// The next answer. `None`: the server has closed the connection between two answers.
    pub(crate) fn try_answer(&mut self) -> io::Result<Option<Answer>> {
        self.read_answer(Answer::content_length)
    }

    /// The next answer, which has to come.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let answer = self.try_answer().expect("an answer comes");
        answer.expect("an answer comes before the end")
    }

    /// As [`Client::try_answer`], to a HEAD request: it has no body, whatever its fields say.
    pub(crate) fn try_answer_to_head(&mut self) -> io::Result<Option<Answer>> {
        self.read_answer(|_| 0)
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Answer {
        self.send(request).expect("the request is taken");
        self.answer()
    }

    /// Whether anything comes within this time, an end included.
    pub(crate) fn has_bytes_within(&mut self, time: Duration) -> bool {
        let set = |time| self.stream.set_read_timeout(Some(time));
        set(time).expect("the socket takes a timeout");
        let peeked = self.stream.peek(&mut [0]);
        set(PATIENCE).expect("the socket takes a timeout");
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Checks that the connection takes another request.
    #[track_caller]
    pub(crate) fn expect_kept(&mut self) {
        assert!(self.buffer.is_empty(), "more than one answer");
        let health = self.exchange(b"GET /.well-known/healthcheck HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!([200, 503].contains(&health.status), "{health:?}");
    }

    /// Checks that nothing more comes: the server has ended the connection.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let (rest, ended) = self.rest();
        assert_eq!(rest, "", "after the last answer");
        ended.expect("the connection ends without a reset");
    }

    /// All that comes up to the end of the connection, and whether it ends without a reset.
    pub(crate) fn rest(&mut self) -> (String, io::Result<()>) {
        let mut rest = std::mem::take(&mut self.buffer);
        let ended = self.stream.read_to_end(&mut rest);
        (String::from_utf8_lossy(&rest).into_owned(), ended.map(drop))
    }

    fn read_answer(&mut self, body_len: fn(&Answer) -> usize) -> io::Result<Option<Answer>> {
        let head_len = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.read_more()? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let mut answer = Answer::parse(&self.buffer[..head_len]);
        let end = head_len + body_len(&answer);
        while self.buffer.len() < end {
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answer.body = self.buffer[head_len..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some(answer))
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let count = client::read_once(&mut self.stream, &mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// An answer that keeps the rules.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status line, fields and blank line, as they came.
    pub(crate) head: String,
    /// The status code.
    pub(crate) status: u16,
    /// Names in lower case, in order.
    pub(crate) fields: Vec<(String, String)>,
    /// The whole body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|field| field.0 == name);
        found.map(|field| field.1.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is text")
    }

    /// Whether the server keeps the connection, by what it says.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.field("connection") != Some("close")
    }

    fn content_length(&self) -> usize {
        let length = self.field("content-length").unwrap_or("0");
        length.parse().expect("content-length is a number")
    }

    /// Reads a head and checks what every answer has.
    fn parse(head: &[u8]) -> Answer {
        let head = str::from_utf8(head).expect("a head is ASCII");
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split_once(' '));
        let Some((status, _reason)) = status else {
            panic!("no status line: {status_line:?}");
        };
        let fields = lines.map(|line| {
            let field = line.split_once(": ");
            let (name, value) = field.unwrap_or_else(|| panic!("no field line: {line:?}"));
            (name.to_owned(), value.to_owned())
        });
        let answer = Answer {
            head: head.to_owned(),
            status: status.parse().expect("a status is a number"),
            fields: fields.collect(),
            body: Vec::new(),
        };
        answer.check();
        answer
    }

    /// Panics if a field that every answer has is missing or wrong, or one stands there that none has.
    fn check(&self) {
        if self.status == 100 {
            assert_eq!(self.fields, [], "100 Continue has no fields");
            return;
        }
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let repeated = self.fields[..index].iter().any(|field| field.0 == *name);
            assert!(!repeated, "{name} twice in {self:?}");
            let is_good = match name.as_str() {
                "date" => is_now(value),
                "connection" => ["close", "keep-alive"].contains(&value.as_str()),
                "content-type" => value == "application/json; charset=utf-8",
                "content-length" | "retry-after" => value.parse::<u64>().is_ok(),
                "allow" | "accept-encoding" => !value.is_empty(),
                "vary" => value == "origin",
                _ if name.starts_with("access-control-") => !value.is_empty(),
                "x-content-type-options" => value == "nosniff",
                "cache-control" => value == "no-store",
                _ => false,
            };
            assert!(is_good, "field {name}: {value} in {self:?}");
        }
        let framing: &[&str] = match self.status {
            204 => &[],
            _ => &["content-length", "content-type"],
        };
        let always = ["date", "vary", "x-content-type-options", "cache-control"];
        for name in always.iter().chain(framing) {
            assert!(self.field(name).is_some(), "no {name} in {self:?}");
        }
    }
}

/// Whether a date is spelled as it must be and not far from the clock, which is the server's too.
fn is_now(date: &str) -> bool {
    let Ok(time) = httpdate::parse_http_date(date) else {
        return false;
    };
    let now = SystemTime::now();
    let distance = now
        .duration_since(time)
        .or_else(|_| time.duration_since(now));
    httpdate::fmt_http_date(time) == date && distance.is_ok_and(|distance| distance < PATIENCE)
}

/// A POST of this body to the reports.
pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A segment as it lies in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The file's name, without its directory.
    pub(crate) name: String,
    /// Whole lines, each without its line feed.
    pub(crate) lines: Vec<String>,
}

/// The sealed segments of a data directory, by name. Panics if one is not a whole frame of whole lines,
/// or if there is anything else among them.
pub(crate) fn sealed(dir: &Path) -> Vec<Segment> {
    files(dir)
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .map(|name| {
            let bytes = fs::read(dir.join(&name)).expect("a segment can be read");
            let lines = decode_sealed(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            Segment { name, lines }
        })
        .collect()
}

/// The segments being written, by name: what of them decodes, up to the last whole line. Those that are
/// sealed meanwhile are left out.
pub(crate) fn open(dir: &Path) -> Vec<Segment> {
    let dir = dir.join(".open");
    files(&dir)
        .into_iter()
        .filter_map(|name| {
            let bytes = match fs::read(dir.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                read => read.expect("a segment can be read"),
            };
            let lines = decode_open(&bytes);
            Some(Segment { name, lines })
        })
        .collect()
}

/// All lines of a data directory, sealed or not, each once: also while a server seals segments, under the names
/// that they have.
pub(crate) fn lines(dir: &Path) -> Vec<String> {
    // The open ones first: one that is moved up in between is then found among the sealed.
    let mut open = open(dir);
    let mut segments = sealed(dir);
    open.retain(|segment| segments.iter().all(|sealed| sealed.name != segment.name));
    segments.extend(open);
    segments
        .into_iter()
        .flat_map(|segment| segment.lines)
        .collect()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory can be listed");
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("the directory can be listed").file_name();
            name.into_string().expect("file names are text")
        })
        .collect();
    names.sort();
    names
}

/// One frame, with a checksum, and nothing behind it.
fn decode_sealed(bytes: &[u8]) -> Result<Vec<String>, String> {
    // RFC 8878 §3.1.1.1.1: the third bit of the frame header's first byte, behind four bytes of magic.
    if bytes.get(4).is_none_or(|descriptor| descriptor & 4 == 0) {
        return Err("no checksum".to_owned());
    }
    let mut rest = bytes;
    let mut text = Vec::new();
    zstd::Decoder::with_buffer(&mut rest)
        .and_then(|decoder| decoder.single_frame().read_to_end(&mut text))
        .map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes after the frame", rest.len()));
    }
    if text.last() != Some(&b'\n') {
        return Err("the last line does not end".to_owned());
    }
    split_lines(text)
}

/// What decodes, up to the last line feed; the rest is not committed.
fn decode_open(bytes: &[u8]) -> Vec<String> {
    let mut text = Vec::new();
    // Reading ends in an error where the frame breaks off; what came before has been taken.
    let _ =
        zstd::Decoder::with_buffer(bytes).and_then(|mut decoder| decoder.read_to_end(&mut text));
    let end = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
    text.truncate(end);
    split_lines(text).expect("lines are text")
}

fn split_lines(text: Vec<u8>) -> Result<Vec<String>, String> {
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}
