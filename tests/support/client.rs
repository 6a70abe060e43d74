//! A blocking HTTP client for one kind of request: a report, on a connection that is kept.
//!
//! It reads no more than the framing needs to be right about where an answer ends: status, length, and
//! whether the connection goes on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that takes longer to connect, to read or to answer is counted as broken. Longer than a
/// server may take over a slow disk.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// No answer of the server is longer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One connection, made when it is first needed and again after the server has closed it.
pub(crate) struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// What the server said to one report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the status line.
    pub(crate) status: u16,
    /// Whether it says when to try again.
    pub(crate) has_retry_after: bool,
    /// As text; the server's answers are JSON.
    pub(crate) body: String,
}

impl Answer {
    /// The stable code of a refusal, or the status where there is none.
    pub(crate) fn code(&self) -> String {
        let code = self.body.split_once("\"code\":\"");
        match code.and_then(|(_, rest)| rest.split_once('"')) {
            Some((code, _)) => code.to_owned(),
            None => self.status.to_string(),
        }
    }
}

impl Client {
    /// Not connected yet.
    pub(crate) fn new(addr: SocketAddr) -> Client {
        Client {
            addr,
            stream: None,
            request: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Posts a report and reads the answer. After an error the next report gets a new connection.
    pub(crate) fn post(&mut self, report: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.addr)?,
        };
        self.request.clear();
        write!(
            self.request,
            "POST /api/v1/reports HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.addr,
            report.len()
        )?;
        self.request.extend_from_slice(report);
        stream.write_all(&self.request)?;
        let (answer, is_kept) = read_answer(&mut stream, &mut self.answer)?;
        self.stream = is_kept.then_some(stream);
        Ok(answer)
    }
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, IO_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}

/// The answer, and whether the connection may be used again.
fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<(Answer, bool)> {
    bytes.clear();
    let head_len = loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        read_more(stream, bytes)?;
    };
    let head = str::from_utf8(&bytes[..head_len]).map_err(|_| malformed("head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|line| line.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| malformed("no status line"))?;
    let (mut body_len, mut has_retry_after, mut is_kept) = (None, false, true);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body_len = value.parse::<usize>().ok(),
            "retry-after" => has_retry_after = value.parse::<u64>().is_ok(),
            "connection" => is_kept = !value.eq_ignore_ascii_case("close"),
            _ => (),
        }
    }
    let body_len = body_len.ok_or_else(|| malformed("no length"))?;
    while bytes.len() < head_len + body_len {
        read_more(stream, bytes)?;
    }
    if bytes.len() > head_len + body_len {
        return Err(malformed("more than one answer"));
    }
    let body = String::from_utf8(bytes[head_len..].to_vec());
    let answer = Answer {
        status,
        has_retry_after,
        body: body.map_err(|_| malformed("body is not text"))?,
    };
    Ok((answer, is_kept))
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(malformed("too long"));
    }
    let had = bytes.len();
    bytes.resize(had + 4096, 0);
    let read = read_once(stream, &mut bytes[had..]);
    bytes.truncate(had + *read.as_ref().unwrap_or(&0));
    match read? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// One read. With a timeout it is interrupted when the process is stopped and goes on (signal(7)).
pub(crate) fn read_once(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            other => return other,
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("answer: {what}"))
}
