//! One connection: read, parse, dispatch, answer, keep alive or close.
//!
//! ```text
//!          ┌──────────────── kept ◀──────────────────┐
//!          ▼                                         │
//! idle ─▶ head ─▶ body ─▶ dispatch ─▶ (ticket) ─▶ answer ─▶ closed
//!           └───────┴── refused ─────────────────────▲  └─▶ linger ─▶ closed
//! ```
//!
//! An idle connection holds no buffer. Every wait has a deadline, kept by [`rt::net`]:
//! idle, head from its first byte, body from the head's end and by its rate, the answer from its first write;
//! the wait for a commit has none, since the report is stored whatever becomes of its client. What is
//! refused before its body is read is answered at once; a short body is then skipped, for a longer one the
//! connection ends, lingering so that the answer is not lost to a reset (RFC 9112 §9.6).
//!
//! Bodies and what is in them are `intake`'s. Reports that came with others behind them (RFC 9112 §9.3.2) wait
//! for their commit together, in `due`.

mod due;
mod intake;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use bytes::{Buf, BytesMut};

use self::due::Due;

use crate::api::cors::{self, Origin, Verdict};
use crate::api::forwarded;
use crate::api::reject::{Part, Rejection};
use crate::api::reports::{self, Announced};
use crate::api::{JSON, status};
use crate::config::Ack;
use crate::health::Health;
use crate::http::HEAD_BYTES_MAX;
use crate::http::body::Framing;
use crate::http::coding::Decoders;
use crate::http::head::{self, Expect, HeadScan, Persistence};
use crate::http::response::{self, Content, HttpDate, Response, Terms, Value};
use crate::limit::{Network, Opened};
use crate::live::{Deadlines, Live};
use crate::metrics::core::Meter;
use crate::pool::{Pool, READ_BYTES};
use crate::report::{REPORT_BYTES_MAX, Validator, Ways};
use crate::route::{Label, Route, route};
use crate::rt::net::{Connections, Idle, Stream, TickMs};
use crate::rt::{self, Yielder};
use crate::segment::name::CoreIndex;
use crate::shard::{Refusal, Shard};
use crate::time::Now;

/// A body that nobody wants is read and dropped up to here, to keep the connection.
const SKIP_BYTES_MAX: usize = 64 << 10;

/// A request that takes more than this has a batch: the buffer of a single report may be twice its size.
const SINGLE_BYTES_MAX: u64 = 2 * REPORT_BYTES_MAX as u64;

/// After a last answer the peer may send this much more, twice the largest body, in [`LINGER_MS`], before it
/// is cut off.
const LINGER_BYTES_MAX: usize = 32 << 20;
const LINGER_MS: TickMs = 2_000;
const LINGER_STEP: Duration = Duration::from_millis(100);
/// Through a buffer of this size.
const LINGER_READ_BYTES: usize = 4 << 10;

/// What the connections of a core need of it.
pub struct Parts {
    /// The open connections.
    pub connections: Rc<Connections>,
    /// Where lines go.
    pub shard: Rc<RefCell<Shard>>,
    /// Which core this is.
    pub core: CoreIndex,
    /// What an answer to a report waits for.
    pub ack: Ack,
    /// Bytes that requests being read and lines being committed may take together.
    pub held_bytes_max: u64,
    /// Of all cores.
    pub health: Arc<Health>,
    /// When the server started, on the monotonic clock.
    pub started_ms: u64,
    /// Reads both clocks.
    pub clock: fn() -> Now,
    /// What the core counts and measures.
    pub meter: Meter,
    /// Lets other connections run while one decodes or judges.
    pub yielder: Yielder,
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// A proxy's, if there is one.
    pub address: IpAddr,
    /// Among those of its address, until it ends.
    pub counted: Option<Opened>,
}

/// What the connections of a core share.
pub struct Shared {
    /// What the worker has made for them.
    pub parts: Parts,
    /// The time for the Date field; the worker's tick keeps it.
    pub date: Cell<HttpDate>,
    /// The settings to keep to now; the worker's tick keeps them.
    live: RefCell<Rc<Live>>,
    /// Whether connections may stay open.
    pub stay: Cell<Persistence>,
    /// Bytes of the buffers that connections are reading into.
    reading_bytes: Cell<u64>,
    batch_bytes_max: usize,
    validator: RefCell<Validator>,
    decoders: RefCell<Decoders>,
    pool: Pool,
}

impl Shared {
    /// With nothing in use.
    pub fn new(parts: Parts, live: Rc<Live>, date: HttpDate) -> Shared {
        Shared {
            date: Cell::new(date),
            live: RefCell::new(live),
            stay: Cell::new(Persistence::KeepAlive),
            reading_bytes: Cell::new(0),
            batch_bytes_max: reports::batch_bytes_max(parts.held_bytes_max),
            validator: RefCell::new(Validator::new()),
            decoders: RefCell::default(),
            pool: Pool::default(),
            parts,
        }
    }

    /// Which way the reports of this core were checked.
    pub fn ways(&self) -> Ways {
        self.validator.borrow().ways()
    }

    /// Gives buffers back that no connection has wanted since the last call.
    pub fn shrink(&self) {
        self.pool.shrink();
    }

    /// The settings to keep to now.
    pub fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    /// Keeps to other settings from now on.
    pub fn set_live(&self, live: Rc<Live>) {
        *self.live.borrow_mut() = live;
    }

    fn deadlines(&self) -> Deadlines {
        self.live.borrow().deadlines
    }

    /// Whether a connection that has `had` bytes may have `wanted`.
    fn has_room(&self, had: u64, wanted: u64) -> bool {
        let held = self.parts.shard.borrow().held_bytes() + self.reading_bytes.get();
        // Batches leave the other half to single reports.
        let most = match wanted > SINGLE_BYTES_MAX {
            true => self.parts.held_bytes_max / 2,
            false => self.parts.held_bytes_max,
        };
        held + (wanted - had) <= most
    }

    /// Whether a report is answered before it is committed: with `ACK=buffered`, while commits keep up.
    /// Once the shard holds a quarter of what it may, answers wait for them, so that clients who are
    /// faster than the disk are slowed down to it, and not refused.
    fn answers_at_once(&self) -> bool {
        let keeps_up = || self.parts.shard.borrow().held_bytes() <= self.parts.held_bytes_max / 4;
        self.parts.ack == Ack::Buffered && keeps_up()
    }
}

/// Why a connection ends.
enum End {
    /// The peer has closed it, is gone, or idle for too long: nobody waits for an answer.
    Gone,
    /// The last answer has been sent; more bytes may come.
    Linger,
    /// The last answer has been sent, and the peer knows.
    Closed,
}

/// What a request asks for.
enum Asked {
    /// To take the reports behind its head.
    Reports(Announced),
    /// As [`Route::Health`].
    Health,
    /// As [`Route::Options`].
    Options { allow: &'static str },
}

/// What the head of a request says, without its bytes.
struct Request {
    asked: Result<Asked, Rejection>,
    framing: Framing,
    terms: Terms,
    expect: Expect,
    head_len: usize,
    /// Whose rate its reports count for, if there is a limit, and by which settings.
    counted_for: Option<(Network, Rc<Live>)>,
}

/// The terms of an answer behind which nothing is queued.
#[derive(Clone, Copy)]
struct LastTerms {
    terms: Terms,
    /// Whether the connection ends because the core drains.
    is_our_end: bool,
}

/// Serves a connection to its end.
pub async fn serve(stream: Stream, peer: Peer, shared: Rc<Shared>) {
    let mut connection = Connection {
        stream,
        peer,
        body_credit: 0,
        buffer: BytesMut::new(),
        reading_bytes: Cell::new(0),
        origin: Origin::default(),
        label: Label::None,
        due: Vec::new(),
        shared,
    };
    let end = connection.serve().await;
    match end {
        End::Gone | End::Closed => (),
        // In a box, as what is rare and large would take its room in the task of every connection.
        End::Linger => Box::pin(connection.linger()).await,
    }
    connection.give_back();
}

struct Connection {
    stream: Stream,
    peer: Peer,
    /// Of bytes that came and did not make a millisecond yet, in thousandths of a byte.
    body_credit: u64,
    /// What has been read and not consumed; without capacity while idle.
    buffer: BytesMut,
    /// This connection's part of [`Shared::reading_bytes`].
    reading_bytes: Cell<u64>,
    /// Of the request being served.
    origin: Origin,
    label: Label,
    /// Reports whose answers go with the next one, in this order: `due.len() <= DUE_MAX`.
    due: Vec<Due>,
    shared: Rc<Shared>,
}

impl Connection {
    async fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.wait_for_request().await {
                return end;
            }
            if let Err(end) = self.serve_request().await {
                return end;
            }
        }
    }

    /// Leaves the buffer, which holds nothing any more, to other connections.
    fn give_back(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > 0 {
            self.shared.pool.keep_buffer(buffer);
        }
        self.note_reading(0);
    }

    /// Notes how many bytes this connection reads into.
    fn note_reading(&self, bytes: u64) {
        let others = self.shared.reading_bytes.get() - self.reading_bytes.get();
        self.shared.reading_bytes.set(others + bytes);
        self.reading_bytes.set(bytes);
    }

    /// Waits without a buffer, busy or not: reading at once would save a poll, a fortieth of a bare server's CPU and
    /// nothing that shows of this one's, and take 16 KiB for each connection that waits.
    async fn wait_for_request(&mut self) -> Result<(), End> {
        if !self.buffer.is_empty() {
            return Ok(());
        }
        self.give_back();
        self.stream.set_deadline(self.shared.deadlines().idle_ms);
        match self.stream.wait_idle().await {
            Ok(Idle::Readable) => Ok(()),
            Ok(Idle::Late) | Err(_) => Err(End::Gone),
        }
    }

    async fn serve_request(&mut self) -> Result<(), End> {
        let request = match self.read_head().await? {
            Ok(request) => request,
            Err(rejection) => {
                let terms = Terms::of_refused(&self.buffer);
                return self.reject_last(terms, &rejection).await;
            }
        };
        match &request.asked {
            Ok(Asked::Reports(announced)) => self.serve_reports(&request, *announced).await,
            Ok(Asked::Health) => {
                let shared = Rc::clone(&self.shared);
                let now = (shared.parts.clock)();
                self.note_ok();
                let (status, body) =
                    status::health(&shared.parts.health, now, shared.parts.started_ms);
                self.answer_without_body(&request, json(status, &body))
                    .await
            }
            // In a box, for the 3 KiB of its head and fields.
            Ok(Asked::Options { allow }) => Box::pin(self.serve_options(&request, allow)).await,
            Err(rejection) => {
                self.note_refused_unread(rejection);
                let (body, field) = (rejection.body(), rejection.field());
                let response = rejected(rejection, &body, &field);
                self.answer_without_body(&request, response).await
            }
        }
    }

    async fn serve_options(&mut self, request: &Request, allow: &'static str) -> Result<(), End> {
        // The answer's fields are the request's: the head is read again, from a copy that outlives it.
        let bytes = self.buffer[..request.head_len].to_vec();
        let head = head::parse(&bytes).expect("it has been parsed before");
        let fields = cors::options(&head, allow, self.origin.verdict());
        self.note_ok();
        let response = Response {
            status: StatusCode::NO_CONTENT,
            content: Content::Empty,
            fields: &fields,
        };
        self.answer_without_body(request, response).await
    }

    /// Reads up to the end of a head. The outer error ends the connection without an answer.
    async fn read_head(&mut self) -> Result<Result<Request, Rejection>, End> {
        self.stream.set_deadline(self.shared.deadlines().head_ms);
        self.origin.forget();
        self.label = Label::None;
        let mut scan = HeadScan::default();
        let head_len = loop {
            match scan.find_end(&self.buffer) {
                Ok(Some(len)) => break len,
                Ok(None) => (),
                Err(error) => return Ok(Err(Rejection::Head(error))),
            }
            // A read beyond the limit only costs memory: the scan refuses what exceeds it.
            if let Err(rejection) = self.read_more(Part::Head, HEAD_BYTES_MAX, 0).await? {
                return Ok(Err(rejection));
            }
        };
        let head = match head::parse(&self.buffer[..head_len]) {
            Ok(head) => head,
            Err(error) => return Ok(Err(Rejection::Head(error))),
        };
        let live = self.shared.live();
        self.origin.judge(&head, &live.origins);
        let mut counted_for = None;
        let route = route(head.method, head.path);
        self.label = Label::from(&route);
        let asked = match (head.expect, route) {
            (Expect::Unknown, _) => Err(Rejection::Expectation),
            (_, Err(no_route)) => Err(Rejection::NoRoute(no_route)),
            (_, Ok(Route::PostReport)) if self.origin.verdict() == Verdict::Forbidden => {
                Err(Rejection::Origin)
            }
            (_, Ok(Route::PostReport)) => {
                let mut within_rate = Ok(());
                if let Some(rate) = &live.rate {
                    let client = forwarded::client(&head, self.peer.address, &live.proxies);
                    let network = Network::from(client);
                    counted_for = Some((network, Rc::clone(&live)));
                    let now = (self.shared.parts.clock)();
                    within_rate = rate.take(network, now.monotonic_ms);
                }
                within_rate.map_err(Rejection::RateLimited).and_then(|()| {
                    let announced = reports::check_head(&head, self.shared.batch_bytes_max);
                    announced.map(Asked::Reports)
                })
            }
            (_, Ok(Route::Health)) => Ok(Asked::Health),
            (_, Ok(Route::Options { allow })) => Ok(Asked::Options { allow }),
        };
        Ok(Ok(Request {
            asked,
            framing: head.framing,
            terms: Terms::of(&head),
            expect: head.expect,
            head_len,
            counted_for,
        }))
    }

    /// Reads until the buffer holds `end` bytes.
    async fn read_until(
        &mut self,
        end: usize,
        request: &Request,
    ) -> Result<Result<(), Rejection>, End> {
        if self.buffer.len() < end && self.buffer.len() == request.head_len {
            self.invite_body(request).await?;
        }
        while self.buffer.len() < end {
            // By what has come and not by what was announced: memory follows the bytes, fourfold at most.
            // In whole steps, so that a buffer fits the next report of about this size as well.
            let missing = end - self.buffer.len();
            let room = missing.min(3 * self.buffer.len());
            let room = room.next_multiple_of(READ_BYTES);
            if let Err(rejection) = self.read_more(Part::Body, room, 0).await? {
                return Ok(Err(rejection));
            }
        }
        Ok(Ok(()))
    }

    /// Sends `100 Continue` to a client that waits for it.
    async fn invite_body(&mut self, request: &Request) -> Result<(), End> {
        if request.expect == Expect::Continue {
            let mut answer = self.begin_answer().await;
            answer.extend_from_slice(response::CONTINUE);
            self.write(answer).await?;
            self.stream.set_deadline(self.shared.deadlines().body_ms);
        }
        Ok(())
    }

    /// One read behind what the buffer holds, with some of `room` bytes of space for it. `beside` are
    /// the bytes that the same request takes elsewhere.
    async fn read_more(
        &mut self,
        part: Part,
        room: usize,
        beside: u64,
    ) -> Result<Result<(), Rejection>, End> {
        let is_full = self.buffer.len() == self.buffer.capacity();
        let more = if is_full { room.max(READ_BYTES) } else { 0 };
        let wanted = (self.buffer.capacity() + more) as u64 + beside;
        if let Err(rejection) = self.claim(wanted) {
            return Ok(Err(rejection));
        }
        // The client may wait for its answers before it sends the rest.
        if !self.due.is_empty() {
            Box::pin(self.answer_due(part)).await?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() == 0 {
            buffer = self.shared.pool.take_buffer();
        } else if is_full {
            buffer.reserve(room);
        }
        self.note_reading(buffer.capacity() as u64 + beside);
        let (result, buffer) = self.stream.read(buffer).await;
        self.buffer = buffer;
        match result {
            Ok(0) if self.stream.is_late() => Ok(Err(Rejection::TooSlow(part))),
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(count) => {
                let metrics = &self.shared.parts.meter.metrics;
                metrics.received_bytes.add(count as u64);
                if part == Part::Body {
                    self.extend_body_deadline(count as u64);
                }
                Ok(Ok(()))
            }
        }
    }

    /// Gives a body the time that its bytes are worth.
    fn extend_body_deadline(&mut self, bytes: u64) {
        let Deadlines {
            body_ms,
            body_bytes_per_sec: bytes_per_sec,
            ..
        } = self.shared.deadlines();
        let credit = self.body_credit + bytes * 1000;
        self.stream.extend_deadline(credit / bytes_per_sec, body_ms);
        self.body_credit = credit % bytes_per_sec;
    }

    /// Takes as much room as `bytes`, all in all. What a connection has already it may fill, even if lines
    /// have taken the room since.
    fn claim(&self, bytes: u64) -> Result<(), Rejection> {
        let had = self.reading_bytes.get();
        if bytes > had {
            if !self.shared.has_room(had, bytes) {
                return Err(Rejection::Shard(Refusal::ShardFull));
            }
            self.note_reading(bytes);
        }
        Ok(())
    }

    /// Answers a request whose body nobody reads: skips a short one, ends the connection at a longer.
    async fn answer_without_body(
        &mut self,
        request: &Request,
        response: Response<'_>,
    ) -> Result<(), End> {
        let short = match request.framing {
            Framing::None => Some(0),
            Framing::Length(length) => usize::try_from(length)
                .ok()
                .filter(|&length| length <= SKIP_BYTES_MAX && request.expect == Expect::None),
            Framing::Chunked => None,
        };
        let Some(length) = short else {
            return self.answer_last(request.terms, response).await;
        };
        let end = request.head_len + length;
        if self.buffer.len() >= end {
            self.buffer.advance(end);
            return self.answer(request.terms, response).await;
        }
        if let Err(end) = self.answer(request.terms, response).await {
            return match end {
                End::Closed => Err(End::Linger),
                other => Err(other),
            };
        }
        self.stream.set_deadline(self.shared.deadlines().body_ms);
        match self.read_until(end, request).await? {
            Ok(()) => {
                self.buffer.advance(end);
                Ok(())
            }
            // It has its answer; the rest of the body is what the connection ends for.
            Err(_) => Err(End::Linger),
        }
    }

    /// Counts a request that gets what it asks for.
    fn note_ok(&self) {
        let metrics = &self.shared.parts.meter.metrics;
        metrics.requests(self.label).ok.add(1);
    }

    /// Counts a request that is refused before its reports were read: that is one of them, if it has any.
    fn note_refused_unread(&self, rejection: &Rejection) {
        if self.label == Label::Reports {
            self.shared.parts.meter.metrics.received.add(1);
        }
        self.note_refused(rejection, 1);
    }

    /// Counts a refused request, and so many reports with it, if it asked to take them; health says that a
    /// shard is full until the next commit.
    fn note_refused(&self, rejection: &Rejection, reports: u64) {
        tracing::debug!(?rejection, "request refused");
        let parts = &self.shared.parts;
        let (_, code) = rejection.status_and_code();
        let metrics = &parts.meter.metrics;
        metrics.requests(self.label).refused.of(code).add(1);
        if self.label == Label::Reports {
            metrics.refused.of(code).add(reports);
        }
        if *rejection == Rejection::Shard(Refusal::ShardFull) {
            parts.health.refuse(parts.core, Refusal::ShardFull);
        }
    }

    async fn reject_last(&mut self, terms: Terms, rejection: &Rejection) -> Result<(), End> {
        self.note_refused_unread(rejection);
        let (body, field) = (rejection.body(), rejection.field());
        let response = rejected(rejection, &body, &field);
        self.answer_last(terms, response).await
    }

    /// Answers, closes for writing, and leaves what the peer still sends to [`Connection::linger`].
    async fn answer_last(&mut self, terms: Terms, response: Response<'_>) -> Result<(), End> {
        let terms = Terms {
            persistence: Persistence::Close,
            ..terms
        };
        match self.answer(terms, response).await {
            Err(End::Closed) => Err(End::Linger),
            other => other,
        }
    }

    async fn answer(&mut self, terms: Terms, response: Response<'_>) -> Result<(), End> {
        let mut answer = self.begin_answer().await;
        let last = self.last_terms(terms);
        self.render(last.terms, response, &mut answer);
        self.send(answer, last).await
    }

    /// A buffer for an answer, with those of the reports in front of it.
    async fn begin_answer(&mut self) -> Vec<u8> {
        let mut answer = self.shared.pool.take_scratch();
        if !self.due.is_empty() {
            // In a box, as what is rare takes its room in the task of every connection.
            Box::pin(self.render_due(&mut answer)).await;
        }
        answer
    }

    /// How the connection goes on behind an answer that is sent now.
    fn last_terms(&self, mut terms: Terms) -> LastTerms {
        // Now and not when the head came: a drain may have begun since. What the client has sent
        // already is still answered.
        let drains = self.shared.stay.get() == Persistence::Close;
        let is_our_end = drains && self.buffer.is_empty() && !self.stream.has_bytes();
        if is_our_end {
            terms.persistence = Persistence::Close;
        }
        LastTerms { terms, is_our_end }
    }

    fn render(&self, terms: Terms, response: Response<'_>, answer: &mut Vec<u8>) {
        let date = self.shared.date.get();
        response.write(terms, &date, &self.origin.fields(), answer);
    }

    async fn send(&mut self, answer: Vec<u8>, last: LastTerms) -> Result<(), End> {
        self.write(answer).await?;
        match last.terms.persistence {
            Persistence::KeepAlive => Ok(()),
            // More has come, or may be on its way: it belongs to a request that is not answered.
            Persistence::Close if last.is_our_end || !self.buffer.is_empty() => Err(End::Linger),
            Persistence::Close => Err(End::Closed),
        }
    }

    async fn write(&mut self, answer: Vec<u8>) -> Result<(), End> {
        self.stream.set_deadline(self.shared.deadlines().write_ms);
        let (result, answer) = self.stream.write_all(answer).await;
        self.shared.pool.keep_scratch(answer);
        result.map_err(|_: io::Error| End::Gone)
    }

    /// Reads and drops what the peer still sends, so that closing does not reset the connection before
    /// the peer has read the answer (RFC 9112 §9.6).
    async fn linger(&mut self) {
        // A deadline has shut a cut stream down for reading. Were it shut down for writing as well, Linux would
        // reset it at the next byte (RFC 1122 §4.2.2.13): its end is sent when it is closed. And 0 is not the
        // peer's end then: what it still sends is looked for in steps.
        let is_cut = self.stream.is_cut();
        if !is_cut && self.stream.end_writing().await.is_err() {
            return;
        }
        let ends = self.stream.now() + LINGER_MS;
        self.stream.set_deadline(LINGER_MS);
        // What was read goes back first: others have more use for the room. And no asking for room here,
        // since a full shard is just why many linger.
        self.give_back();
        let mut buffer = BytesMut::with_capacity(LINGER_READ_BYTES);
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            buffer.clear();
            let (result, read) = self.stream.read(buffer).await;
            buffer = read;
            match result {
                Ok(0) if is_cut && self.stream.now() < ends => {
                    self.stream.leave(rt::sleep(LINGER_STEP)).await;
                }
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let metrics = &self.shared.parts.meter.metrics;
                    metrics.received_bytes.add(count as u64);
                    left = left.saturating_sub(count);
                }
            }
        }
    }
}

fn json(status: StatusCode, body: &[u8]) -> Response<'_> {
    Response {
        status,
        content: Content::Body {
            content_type: JSON,
            bytes: body,
        },
        fields: &[],
    }
}

/// The answer to a rejection, whose body and field the caller holds.
fn rejected<'a>(
    rejection: &Rejection,
    body: &'a [u8],
    field: &'a Option<(&'static str, Value<'static>)>,
) -> Response<'a> {
    let (status, _) = rejection.status_and_code();
    Response {
        fields: field.as_slice(),
        ..json(status, body)
    }
}
