//! One request's answer, on its way to the client: whole, or as it is made.
//!
//! Owns the socket while a request is answered: every write has a deadline, and an answer that cannot be brought to
//! its end ends the connection without the end of its body, so that nobody takes it for a whole one.
//!
//! ```text
//! Exchange ──whole──▶ sent
//!    └──begin──▶ Body ──write*──▶ finish ──▶ sent
//!                  │ nothing has been written yet      │ dropped before
//!                  ▼                                   ▼
//!             the head can still be another       cut off
//! ```

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use super::Answer;
use crate::http::head::{Persistence, Version};
use crate::http::response::{Coming, Content, Delivery, HttpDate, Response, Terms, Value};
use crate::time::Now;

/// How long a client may take for a part of an answer.
const WRITE_MS: u64 = 30_000;

/// How long an answer may be in the making: there are few places for others.
const ANSWER_MS: u64 = 3_600_000;

/// Bytes of a body that are sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A request that is being answered.
pub(super) struct Exchange<'c> {
    stream: &'c TcpStream,
    clock: fn() -> Now,
    terms: Terms,
    /// When the answer has to be complete.
    deadline_ms: u64,
    /// Whether the connection ends with the answer, whatever the request asks for.
    closes: AtomicBool,
    /// Whether anything has been sent.
    is_begun: AtomicBool,
}

/// What stands in front of a body that is made as it is sent.
pub(super) struct Opening {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
    /// The body's length, where it is known.
    pub(super) len: Option<u64>,
}

impl<'c> Exchange<'c> {
    /// For a request with these terms.
    pub(super) fn new(stream: &'c TcpStream, clock: fn() -> Now, terms: Terms) -> Exchange<'c> {
        Exchange {
            stream,
            clock,
            terms,
            deadline_ms: clock().monotonic_ms + ANSWER_MS,
            closes: AtomicBool::new(false),
            is_begun: AtomicBool::new(false),
        }
    }

    /// Ends the connection with the answer.
    pub(super) fn close(&mut self) {
        self.closes.store(true, Relaxed);
    }

    /// What becomes of the connection once the answer is sent.
    pub(super) fn persistence(&self) -> Persistence {
        match self.closes.load(Relaxed) {
            true => Persistence::Close,
            false => self.terms.persistence,
        }
    }

    /// How much of the answer is sent.
    pub(super) fn delivery(&self) -> Delivery {
        self.terms.delivery
    }

    /// Whether a head has been sent, so that it can be no other.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun.load(Relaxed)
    }

    /// The terms of an answer with this status, whose end is told so.
    fn terms_of(&self, status: StatusCode, coming: Coming) -> Terms {
        // Who may not ask does not keep those who may from it; and only its end tells HTTP/1.0 where a body ends.
        let is_told = coming != Coming::Chunks || self.terms.version == Version::Http11;
        if status.is_client_error() || !is_told {
            self.closes.store(true, Relaxed);
        }
        Terms {
            persistence: self.persistence(),
            ..self.terms
        }
    }

    /// Sends an answer.
    pub(super) fn whole(&self, answer: &Answer) -> io::Result<()> {
        let content = match answer.body.is_empty() && answer.status == StatusCode::NOT_MODIFIED {
            true => Content::Empty,
            false => Content::Body {
                content_type: answer.content_type,
                bytes: &answer.body,
            },
        };
        let fields: Vec<_> = valued(&answer.fields).collect();
        let response = Response {
            status: answer.status,
            content,
            fields: &fields,
        };
        let mut bytes = Vec::new();
        let terms = self.terms_of(answer.status, Coming::Length(0));
        response.write(terms, &self.date(), &[], &mut bytes);
        self.send(&bytes)
    }

    /// A body that is to follow `opening`. Nothing is sent before its first byte, or its end.
    pub(super) fn begin(&self, opening: Opening) -> Body<'_> {
        Body {
            exchange: self,
            opening,
            buffer: Vec::new(),
        }
    }

    /// Whether the answer has had all the time that it may take.
    pub(super) fn is_late(&self) -> bool {
        (self.clock)().monotonic_ms > self.deadline_ms
    }

    /// Whether the client has closed the connection, or its half of it; or it is broken, or has had its time.
    pub(super) fn is_gone(&self) -> bool {
        if self.is_late() {
            return true;
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = recv(self.stream, &mut [0_u8; 1][..], flags);
        !matches!(peeked, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
    }

    fn date(&self) -> HttpDate {
        let wall = Duration::from_millis((self.clock)().wall.ms());
        HttpDate::from_system(SystemTime::UNIX_EPOCH + wall)
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        self.is_begun.store(true, Relaxed);
        let deadline_ms = (self.clock)().monotonic_ms + WRITE_MS;
        let mut stream = self.stream;
        while !bytes.is_empty() {
            let left_ms = deadline_ms.saturating_sub((self.clock)().monotonic_ms);
            if left_ms == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(Duration::from_millis(left_ms)))?;
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn valued<'f>(
    fields: &'f [(&'static str, String)],
) -> impl Iterator<Item = (&'static str, Value<'f>)> {
    let fields = fields.iter();
    fields.map(|(name, value)| (*name, Value::Text(value)))
}

/// A body on its way.
pub(super) struct Body<'x> {
    exchange: &'x Exchange<'x>,
    opening: Opening,
    /// What has not been sent; `buffer.len() <= CHUNK_BYTES`.
    buffer: Vec<u8>,
}

impl Body<'_> {
    fn coming(&self) -> Coming {
        self.opening.len.map_or(Coming::Chunks, Coming::Length)
    }

    /// Sends what the buffer holds; with it the head, if that has not been sent, and the end of the body, if this
    /// is it.
    fn send(&mut self, part: Part) -> io::Result<()> {
        let exchange = self.exchange;
        let mut bytes = Vec::with_capacity(self.buffer.len() + 1024);
        if !exchange.is_begun() {
            let fields: Vec<_> = valued(&self.opening.fields).collect();
            let response = Response {
                status: self.opening.status,
                content: Content::Coming {
                    content_type: self.opening.content_type,
                    framing: self.coming(),
                },
                fields: &fields,
            };
            let terms = exchange.terms_of(self.opening.status, self.coming());
            self.end_by(Some(Duration::ZERO))?;
            response.write(terms, &exchange.date(), &[], &mut bytes);
        }
        let is_chunked =
            self.coming() == Coming::Chunks && exchange.terms.version == Version::Http11;
        if exchange.terms.delivery == Delivery::Whole {
            if is_chunked && !self.buffer.is_empty() {
                write!(bytes, "{:x}\r\n", self.buffer.len())?;
            }
            bytes.extend_from_slice(&self.buffer);
            if is_chunked && !self.buffer.is_empty() {
                bytes.extend_from_slice(b"\r\n");
            }
            if is_chunked && part == Part::Last {
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        self.buffer.clear();
        exchange.send(&bytes)
    }

    /// Whether nothing but the end of the connection tells its end.
    fn is_told_by_end(&self) -> bool {
        self.coming() == Coming::Chunks && self.exchange.terms.version == Version::Http10
    }

    /// Has the connection end by a reset when it is closed, if there is a time for what is still to be sent and that is
    /// 0: whoever has no other way to tell must not take a part for the whole (socket(7), `SO_LINGER`).
    fn end_by(&self, linger: Option<Duration>) -> io::Result<()> {
        match self.is_told_by_end() {
            true => Ok(set_socket_linger(self.exchange.stream, linger)?),
            false => Ok(()),
        }
    }

    /// Ends the body.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.send(Part::Last)?;
        self.end_by(None)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// More comes.
    Some,
    /// It ends the body.
    Last,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send(Part::Some)?;
        }
        Ok(taken)
    }

    /// What is left goes with the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
