//! The body of a request for reports: read, decoded, judged, given to the shard, answered.
//!
//! ```text
//! length, no coding   buffer ───────────────────────────────────────────▶ one report ──▶ Ticket
//! else                buffer ──chunks──▶ encoded ──coding──▶ decoded ──▶ or a batch ──▶ Ticket, Verdicts
//! ```
//!
//! A body whose type does not say so shows with its first byte whether it is a batch, and gets its limit by
//! that. Decoding and judging let others have their turn after every 256 KiB.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;

use ::http::StatusCode;
use bytes::{Buf, BytesMut};

use super::{Connection, End, Request, json, rejected};
use crate::api::batch::Verdicts;
use crate::api::reject::{Part, Rejection};
use crate::api::reports::{self, Announced, Judge, Judged};
use crate::http::body::{BodyError, ChunkedDecoder, Framing, Progress};
use crate::http::coding::{self, Coding, CodingError, Decoder};
use crate::http::response::Terms;
use crate::limit::Network;
use crate::live::Live;
use crate::metrics::core::Nanos;
use crate::pool::READ_BYTES;
use crate::report::REPORT_BYTES_MAX;
use crate::report::batch::Shape;
use crate::shard::Ticket;

/// A body that has been read.
enum Body {
    /// In the buffer, up to `end`.
    InPlace { begin: usize, end: usize },
    /// Decoded, and no longer in the buffer.
    Decoded(Vec<u8>),
}

/// What is due to a client whose reports the shard has: when the ticket is, this answer.
pub(super) struct Taken {
    ticket: Ticket,
    reports: u64,
    answer: Cow<'static, [u8]>,
}

/// What a client is told whose reports are as safe as the ack level says.
pub(super) struct Answered {
    reports: u64,
    answer: Cow<'static, [u8]>,
}

/// A refused body, and its answer.
pub(super) struct Refused {
    rejection: Rejection,
    /// How many reports are refused for it; for none there is another reason each.
    reports: u64,
    answer: Vec<u8>,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Refused {
        Refused {
            answer: rejection.body(),
            rejection,
            reports: 1,
        }
    }
}

/// Where the encoded bytes of a body come from.
enum Source {
    /// So many are still to come.
    Length(usize),
    Chunked(ChunkedDecoder),
    Ended,
}

impl Connection {
    pub(super) async fn serve_reports(
        &mut self,
        request: &Request,
        announced: Announced,
    ) -> Result<(), End> {
        self.stream.set_deadline(self.shared.deadlines().body_ms);
        // What is rare and large goes in a box: it would take its room in the task of every connection.
        let read = match (request.framing, announced.coding) {
            (Framing::Length(length), Coding::Identity) => {
                let length = usize::try_from(length).expect("`check_head` has bounded it");
                self.read_in_place(request, announced, length).await?
            }
            _ => Box::pin(self.read_decoded(request, announced)).await?,
        };
        let (body, shape) = match read {
            Ok(read) => read,
            Err(rejection) => return self.reject_last(request.terms, &rejection).await,
        };
        let shared = Rc::clone(&self.shared);
        let meter = &shared.parts.meter;
        let received_at = (meter.clock)();
        let taken = match (&body, shape) {
            (body, Shape::One) => self.take_one(self.bytes_of(body)),
            (body, shape) => {
                let counted_for = request.counted_for.as_ref();
                Box::pin(self.take_batch(shape, self.bytes_of(body), counted_for)).await
            }
        };
        match body {
            Body::InPlace { end, .. } => self.buffer.advance(end),
            Body::Decoded(decoded) => self.shared.pool.keep_scratch(decoded),
        }
        if self.buffer.is_empty() {
            // Others may use it while this one waits for its commit.
            self.give_back();
        } else {
            self.leave_large_buffer();
        }
        let taken = match taken {
            Ok(taken) if self.may_put_off(request, shape) => {
                self.put_off(request, taken, received_at);
                return Ok(());
            }
            taken => taken,
        };
        let answered = self.await_commit(taken, received_at).await;
        let mut answer = self.begin_answer().await;
        let last = self.last_terms(request.terms);
        self.render_taken(last.terms, answered, &mut answer);
        self.send(answer, last).await
    }

    /// Moves what belongs to the next request to a buffer of its own, if there was a large body in front of
    /// it: that room would stay taken, and not even be part of the buffer's capacity.
    fn leave_large_buffer(&mut self) {
        if self.reading_bytes.get() > READ_BYTES as u64 {
            let mut next = self.shared.pool.take_buffer();
            next.extend_from_slice(&self.buffer);
            let large = mem::replace(&mut self.buffer, next);
            self.shared.pool.keep_buffer(large);
        }
        self.note_reading(self.buffer.capacity() as u64);
    }

    fn bytes_of<'b>(&'b self, body: &'b Body) -> &'b [u8] {
        match body {
            Body::InPlace { begin, end } => &self.buffer[*begin..*end],
            Body::Decoded(decoded) => decoded,
        }
    }

    /// Waits as long as the ack level asks for: the answer that is due then, and for how many reports.
    pub(super) async fn await_commit(
        &mut self,
        taken: Result<Taken, Refused>,
        received_at: Nanos,
    ) -> Result<Answered, Refused> {
        let answer_bytes = match &taken {
            Ok(taken) => taken.answer.len(),
            Err(refused) => refused.answer.len(),
        };
        // With its copy that is being sent: a verdict on each of many items takes room.
        self.note_reading(self.reading_bytes.get() + 2 * answer_bytes as u64);
        let Taken {
            ticket,
            reports,
            answer,
        } = taken?;
        if self.shared.answers_at_once() {
            drop(ticket);
        } else if let Err(refusal) = self.stream.leave(ticket).await {
            return Err(Refused {
                reports,
                ..Refused::from(Rejection::Shard(refusal))
            });
        }
        let meter = &self.shared.parts.meter;
        meter.metrics.ack.observe((meter.clock)() - received_at);
        Ok(Answered { reports, answer })
    }

    pub(super) fn render_taken(
        &self,
        terms: Terms,
        answered: Result<Answered, Refused>,
        out: &mut Vec<u8>,
    ) {
        match answered {
            Ok(Answered { reports, answer }) => {
                self.shared.parts.meter.metrics.stored.add(reports);
                self.note_ok();
                self.render(terms, json(StatusCode::OK, &answer), out);
            }
            Err(Refused {
                rejection,
                reports,
                answer,
            }) => {
                self.note_refused(&rejection, reports);
                let field = rejection.field();
                self.render(terms, rejected(&rejection, &answer, &field), out);
            }
        }
    }

    fn take_one(&self, body: &[u8]) -> Result<Taken, Refused> {
        let shared = &self.shared;
        shared.parts.meter.metrics.received.add(1);
        let now = (shared.parts.clock)();
        Ok(Taken {
            ticket: reports::take(&shared.validator, &shared.parts.shard, now, body)?,
            reports: 1,
            answer: Cow::Borrowed(reports::OK),
        })
    }

    async fn take_batch(
        &self,
        shape: Shape,
        body: &[u8],
        counted_for: Option<&(Network, Rc<Live>)>,
    ) -> Result<Taken, Refused> {
        let shared = &self.shared;
        let received = &shared.parts.meter.metrics.received;
        // A body that is refused as a whole is one report: nobody knows how many it has.
        received.add(1);
        let body_bytes = self.reading_bytes.get();
        let mut judge = Judge::new(shape, body);
        let judged = loop {
            match judge.step(&shared.validator) {
                Ok(Judged::Some) => self.yield_now().await,
                Ok(Judged::All) => break Ok(()),
                Err(error) => break Err(Refused::from(Rejection::Batch(error))),
            }
            self.claim(body_bytes + judge.verdicts().bytes())?;
        };
        let now = (shared.parts.clock)();
        let verdicts = judge.verdicts();
        let (accepted, rejected) = (verdicts.accepted(), verdicts.rejected());
        let more = (accepted + rejected).saturating_sub(1);
        let charge = || {
            if let Some((network, live)) = counted_for
                && let Some(rate) = &live.rate
            {
                // One has been taken with the request.
                let more = u32::try_from(more).expect("there are `ITEMS_MAX` at most");
                rate.charge(*network, now.monotonic_ms, more);
            }
        };
        if let Err(refused) = judged {
            charge();
            return Err(refused);
        }
        self.claim(body_bytes + verdicts.bytes())?;
        received.add(more as u64);
        if accepted == 0 {
            charge();
            self.count_rejected(verdicts);
            let rejection = Rejection::NothingAccepted { items: rejected };
            let (_, code) = rejection.status_and_code();
            return Err(Refused {
                answer: verdicts.refusal_body(code, &rejection),
                rejection,
                reports: u64::from(rejected == 0),
            });
        }
        match judge.append(&shared.parts.shard, now) {
            Ok(ticket) => {
                charge();
                self.count_rejected(verdicts);
                Ok(Taken {
                    ticket,
                    reports: accepted as u64,
                    answer: Cow::Owned(verdicts.body()),
                })
            }
            // All are to be sent again, so all are refused for that.
            Err(refusal) => Err(Refused {
                reports: (accepted + rejected) as u64,
                ..Refused::from(Rejection::Shard(refusal))
            }),
        }
    }

    /// Counts the items that have a verdict of their own.
    fn count_rejected(&self, verdicts: &Verdicts) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for code in verdicts.codes() {
            *counts.entry(code).or_default() += 1;
        }
        for (code, count) in counts {
            let metrics = &self.shared.parts.meter.metrics;
            metrics.refused.of(code).add(count);
        }
    }

    async fn yield_now(&self) {
        self.stream
            .leave(self.shared.parts.yielder.yield_now())
            .await;
    }

    async fn read_in_place(
        &mut self,
        request: &Request,
        announced: Announced,
        length: usize,
    ) -> Result<Result<(Body, Shape), Rejection>, End> {
        let (begin, end) = (request.head_len, request.head_len + length);
        let mut shape = announced.shape;
        let mut blanks = Blanks::default();
        // A longer one has to show that it is a batch.
        while length > REPORT_BYTES_MAX && shape.is_none() {
            shape = blanks.shape_behind(&self.buffer[begin..]);
            let limit = reports::body_bytes_max(shape, self.shared.batch_bytes_max);
            let has_shown_nothing = shape.is_none() && self.buffer.len() - begin < limit;
            if has_shown_nothing {
                if self.buffer.len() == begin {
                    self.invite_body(request).await?;
                }
                if let Err(rejection) = self.read_more(Part::Body, READ_BYTES, 0).await? {
                    return Ok(Err(rejection));
                }
            } else if length > limit {
                return Ok(Err(Rejection::BodyTooLarge { limit }));
            }
        }
        if let Err(rejection) = self.read_until(end, request).await? {
            return Ok(Err(rejection));
        }
        let shape = shape
            .or_else(|| Shape::of(None, &self.buffer[begin..end]))
            .unwrap_or(Shape::One);
        Ok(Ok((Body::InPlace { begin, end }, shape)))
    }

    /// Reads a body to its end, decodes it, and takes head and body out of the buffer.
    async fn read_decoded(
        &mut self,
        request: &Request,
        announced: Announced,
    ) -> Result<Result<(Body, Shape), Rejection>, End> {
        self.buffer.advance(request.head_len);
        if self.buffer.is_empty() {
            self.invite_body(request).await?;
        }
        let batch_bytes_max = self.shared.batch_bytes_max;
        let source = match request.framing {
            Framing::None => unreachable!("`check_head` asks for a length"),
            Framing::Length(length) => {
                Source::Length(usize::try_from(length).expect("`check_head` has bounded it"))
            }
            Framing::Chunked => Source::Chunked(ChunkedDecoder::new(batch_bytes_max as u64)),
        };
        let decoder = self
            .shared
            .decoders
            .borrow_mut()
            .take(announced.coding, batch_bytes_max);
        let mut decoding = Decoding {
            source,
            encoded: self.shared.pool.take_scratch(),
            decoder,
            decoded: self.shared.pool.take_scratch(),
            shape: announced.shape,
            blanks: Blanks::default(),
            batch_bytes_max,
        };
        let result = loop {
            if let Err(rejection) = decoding.take_encoded(&mut self.buffer) {
                break Err(rejection);
            }
            if let Err(rejection) = self.decode(&mut decoding).await {
                break Err(rejection);
            }
            let bytes = self.buffer.capacity() as u64 + decoding.bytes();
            if let Err(rejection) = self.claim(bytes) {
                break Err(rejection);
            }
            if let Source::Ended = decoding.source {
                break decoding.decoder.end().map_err(Rejection::Coding);
            }
            let beside = decoding.bytes();
            if let Err(rejection) = self.read_more(Part::Body, READ_BYTES, beside).await? {
                break Err(rejection);
            }
        };
        self.shared.pool.keep_scratch(decoding.encoded);
        self.shared.decoders.borrow_mut().keep(decoding.decoder);
        let shape = decoding.shape.unwrap_or(Shape::One);
        Ok(result.map(|()| (Body::Decoded(decoding.decoded), shape)))
    }

    /// Decodes all that has come.
    async fn decode(&mut self, decoding: &mut Decoding) -> Result<(), Rejection> {
        while decoding.decode_some()? == coding::Progress::OutputDue {
            self.claim(self.buffer.capacity() as u64 + decoding.bytes())?;
            self.yield_now().await;
        }
        Ok(())
    }
}

/// A body on its way through chunks and coding.
struct Decoding {
    source: Source,
    /// Out of its chunks, and still to be decoded.
    encoded: Vec<u8>,
    decoder: Decoder,
    decoded: Vec<u8>,
    shape: Option<Shape>,
    blanks: Blanks,
    batch_bytes_max: usize,
}

/// How much of a body is known to be whitespace, so that none of it is looked at twice.
#[derive(Default)]
struct Blanks(usize);

impl Blanks {
    /// The shape of a body that begins like this, by what is behind the whitespace. As much as a report may
    /// have is looked at and no more, however much has come.
    fn shape_behind(&mut self, body: &[u8]) -> Option<Shape> {
        let known = &body[..body.len().min(REPORT_BYTES_MAX)];
        let shape = Shape::of(None, &known[self.0..]);
        if shape.is_none() {
            self.0 = known.len();
        }
        shape
    }
}

impl Decoding {
    /// Memory that it takes.
    fn bytes(&self) -> u64 {
        let vecs = self.encoded.capacity() + self.decoded.capacity();
        (vecs + self.decoder.state_bytes()) as u64
    }

    /// Takes what belongs to the body out of `buffer`.
    fn take_encoded(&mut self, buffer: &mut BytesMut) -> Result<(), Rejection> {
        match &mut self.source {
            Source::Length(left) => {
                let taken = buffer.len().min(*left);
                self.encoded.extend_from_slice(&buffer[..taken]);
                buffer.advance(taken);
                *left -= taken;
                if *left == 0 {
                    self.source = Source::Ended;
                }
            }
            Source::Chunked(chunked) => {
                let (encoded, is_plain) =
                    (&mut self.encoded, self.decoder.coding() == Coding::Identity);
                let step = chunked
                    .decode(buffer, encoded)
                    .map_err(|error| match error {
                        // The limit is that of what has come in front, in the same read or before.
                        BodyError::TooLarge { .. } if is_plain => {
                            let shape = self.shape.or_else(|| Shape::of(None, encoded));
                            let limit = match shape {
                                Some(Shape::One) => REPORT_BYTES_MAX,
                                _ => self.batch_bytes_max,
                            };
                            Rejection::BodyTooLarge { limit }
                        }
                        error => Rejection::Body(error),
                    })?;
                buffer.advance(step.consumed);
                if step.progress == Progress::Done {
                    self.source = Source::Ended;
                }
            }
            Source::Ended => (),
        }
        Ok(())
    }

    /// Decodes a share of what has been taken.
    fn decode_some(&mut self) -> Result<coding::Progress, Rejection> {
        let decoded = self.decoder.decode(&self.encoded, &mut self.decoded);
        let step = decoded.map_err(|error| match error {
            CodingError::TooLarge { limit } => self.too_large(limit),
            error => Rejection::Coding(error),
        })?;
        self.encoded.drain(..step.consumed);
        if self.shape.is_none() {
            self.shape = self.blanks.shape_behind(&self.decoded);
            if let (Source::Chunked(chunked), Coding::Identity, Some(shape)) =
                (&mut self.source, self.decoder.coding(), self.shape)
            {
                let limit = reports::body_bytes_max(Some(shape), self.batch_bytes_max);
                chunked.set_limit(limit as u64).map_err(Rejection::Body)?;
            }
        }
        let limit = reports::body_bytes_max(self.shape, self.batch_bytes_max);
        match self.decoded.len() > limit {
            true => Err(self.too_large(limit)),
            false => Ok(step.progress),
        }
    }

    fn too_large(&self, limit: usize) -> Rejection {
        match self.decoder.coding() {
            Coding::Identity => Rejection::BodyTooLarge { limit },
            _ => Rejection::Coding(CodingError::TooLarge { limit }),
        }
    }
}
