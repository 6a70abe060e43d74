//! One connection of the admin listener: read a head, answer, keep alive or close. Calls block, and each wait
//! has what is left until a deadline.

use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::exchange::Exchange;
use super::{Admin, Answer, Refused};
use crate::api::JSON;
use crate::api::reject::Rejection;
use crate::http::HEAD_BYTES_MAX;
use crate::http::body::Framing;
use crate::http::head::{self, HeadScan, Persistence};
use crate::http::response::{Terms, Value};
use crate::rt::Panicked;
use crate::rt::net::is_of_connection;

/// How long a connection may stay without a request, and take for a head: short, since it has a thread.
const IDLE_MS: u64 = 10_000;
const HEAD_MS: u64 = 5_000;
/// After a last answer the peer may send this much more in [`LINGER_MS`], so that closing does not reset the
/// connection before the peer has read it (RFC 9112 §9.6).
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER_MS: u64 = 1_000;

const READ_BYTES: usize = 4 << 10;

/// A connection that is older than this ends with its next answer: others may wait for its thread.
const KEPT_MS: u64 = 30_000;

/// How long to wait for a descriptor, or whatever else is missing.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Serves one connection after the other. Never ends.
pub(super) fn accept(listener: &TcpListener, admin: &Admin) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let mut connection = Connection {
                    stream,
                    buffer: Vec::new(),
                    kept_until_ms: (admin.clock)().monotonic_ms + KEPT_MS,
                    admin,
                };
                match catch_unwind(AssertUnwindSafe(|| connection.serve())) {
                    // Or the peer has gone, or takes too long: there is nobody to tell.
                    Ok(_) => (),
                    // The next one needs the thread.
                    Err(payload) => {
                        let panic = Panicked::from_payload(payload.as_ref());
                        tracing::error!(%panic, "admin connection panicked");
                    }
                }
            }
            // The client has gone again.
            Err(error) if is_of_connection(&error) => (),
            // Without a pause this would be all that the thread does until there is one.
            Err(_) => std::thread::sleep(EXHAUSTED_PAUSE),
        }
    }
}

struct Connection<'a> {
    stream: TcpStream,
    /// What has been read and not consumed: at most a head and one read.
    buffer: Vec<u8>,
    kept_until_ms: u64,
    admin: &'a Admin,
}

impl Connection<'_> {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.buffer.is_empty() && self.read_more(self.now_ms() + IDLE_MS)? == 0 {
                return Ok(());
            }
            match self.answer_next()? {
                Some(Persistence::KeepAlive) => (),
                Some(Persistence::Close) => return self.linger(),
                None => return Ok(()),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        (self.admin.clock)().monotonic_ms
    }

    /// Reads a head and answers it: what becomes of the connection then; `None` if the peer has closed.
    fn answer_next(&mut self) -> io::Result<Option<Persistence>> {
        let deadline_ms = self.now_ms() + HEAD_MS;
        let mut scan = HeadScan::default();
        let head_len = loop {
            match scan.find_end(&self.buffer) {
                Ok(Some(len)) => break len,
                Ok(None) => (),
                Err(error) => return self.refuse(&Rejection::Head(error)).map(Some),
            }
            if self.read_more(deadline_ms)? == 0 {
                return Ok(None);
            }
        };
        let head = match head::parse(&self.buffer[..head_len]) {
            Ok(head) => head,
            Err(error) => return self.refuse(&Rejection::Head(error)).map(Some),
        };
        let is_old = self.now_ms() > self.kept_until_ms;
        let mut exchange = self.exchange(Terms::of(&head));
        // Others may wait for the thread.
        if is_old {
            exchange.close();
        }
        match head.framing {
            Framing::None | Framing::Length(0) => self.admin.answer(&head, &exchange)?,
            Framing::Length(_) | Framing::Chunked => exchange.whole(&Refused::Body.answer())?,
        }
        let persistence = exchange.persistence();
        self.buffer.drain(..head_len);
        Ok(Some(persistence))
    }

    fn exchange(&self, terms: Terms) -> Exchange<'_> {
        Exchange::new(&self.stream, self.admin.clock, terms)
    }

    fn refuse(&self, rejection: &Rejection) -> io::Result<Persistence> {
        let (status, _) = rejection.status_and_code();
        let field = rejection.field().map(|(name, value)| match value {
            Value::Text(text) => (name, text.to_owned()),
            Value::Number(number) => (name, number.to_string()),
        });
        let exchange = self.exchange(Terms::of_refused(&self.buffer));
        exchange.whole(&Answer {
            status,
            content_type: JSON,
            body: rejection.body(),
            fields: field.into_iter().collect(),
        })?;
        Ok(Persistence::Close)
    }

    /// One read behind what the buffer holds; 0 if the peer has closed.
    fn read_more(&mut self, deadline_ms: u64) -> io::Result<usize> {
        self.stream
            .set_read_timeout(Some(self.left(deadline_ms)?))?;
        let had = self.buffer.len();
        // The scan refuses what exceeds a head.
        assert!(had <= HEAD_BYTES_MAX, "a head is refused at its limit");
        self.buffer.resize(had + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[had..]);
        self.buffer.truncate(had + *read.as_ref().unwrap_or(&0));
        read
    }

    /// What is left until then.
    fn left(&self, deadline_ms: u64) -> io::Result<Duration> {
        match deadline_ms.saturating_sub(self.now_ms()) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            left_ms => Ok(Duration::from_millis(left_ms)),
        }
    }

    fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let deadline_ms = self.now_ms() + LINGER_MS;
        let mut left = LINGER_BYTES_MAX;
        loop {
            self.buffer.clear();
            match self.read_more(deadline_ms)? {
                0 => return Ok(()),
                count if count < left => left -= count,
                _ => return Ok(()),
            }
        }
    }
}
