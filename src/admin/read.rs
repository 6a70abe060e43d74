//! Reading back over HTTP: lines, samples and figures, as `crate::query` finds them.
//!
//! | path | answer |
//! | --- | --- |
//! | `/api/v1/reports` | lines |
//! | `/api/v1/samples` | a row for each sample |
//! | `/api/v1/summary` | figures |
//! | `/api/v1/segments`, `/api/v1/segments/NAME` | see [`super::segments`] |
//!
//! The whole answer is streamed; a page is made first, since its head says where the next one begins. A question
//! has a thread of its own, which is idle: it runs while nobody else wants the CPU (P5). At most `QUERIES_MAX` are
//! answered at once, and the next one is refused. One whose client has gone is given up.

use std::io::{self, Write};
use std::thread;

use ::http::StatusCode;

use super::coded::{Coded, Coding};
use super::exchange::{Exchange, Opening};
use super::{Answer, Refused};
use crate::api::JSON;
use crate::http::head::Head;
use crate::http::response::Delivery;
use crate::idle;
use crate::log::chain;
use crate::metrics::queries::{Outcome, Queries, Route, Running};
use crate::query::merge::Want;
use crate::query::params::Params;
use crate::query::reports::LineSink;
use crate::query::samples::Format;
use crate::query::sources::Store;
use crate::query::summary::Watch;
use crate::query::{Ended, EndedBy, Extent, QueryError, Sink, print, reports, samples, summary};
use crate::time::Timestamp;

const NDJSON: &str = "application/x-ndjson; charset=utf-8";
const CSV: &str = "text/csv; charset=utf-8; header=present";

/// A page has no more rows once it has so many bytes.
const PAGE_BYTES_MAX: u64 = 8 << 20;

/// Reads what is stored, for those who may.
pub(super) struct Reader<'r> {
    pub(super) store: &'r Store,
    pub(super) queries: &'r Queries,
    pub(super) now: Timestamp,
}

/// How a question has ended for its client.
type Told = Result<(), QueryError>;

impl Reader<'_> {
    /// Answers a question; an error ends the connection.
    pub(super) fn answer(
        &self,
        route: Route,
        head: &Head<'_>,
        exchange: &Exchange<'_>,
    ) -> io::Result<()> {
        let Some(running) = self.queries.begin(route) else {
            return exchange.whole(&Refused::TooManyQueries.answer());
        };
        let told = thread::scope(|scope| {
            let query = thread::Builder::new().name("query".to_owned());
            let spawned = query.spawn_scoped(scope, || {
                if let Err(error) = idle::yield_to_all() {
                    tracing::debug!(cause = %error, "reading at the priority of the others");
                }
                self.tell(route, head, exchange)
            });
            match spawned.map_err(QueryError::Thread)?.join() {
                Ok(told) => told,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        settle(running, told, exchange)
    }

    fn tell(&self, route: Route, head: &Head<'_>, exchange: &Exchange<'_>) -> Told {
        match route {
            Route::Reports => self.reports(head, exchange),
            Route::Samples => self.samples(head, exchange),
            Route::Summary => self.summary(head, exchange),
            Route::Segments => super::segments::list(self, head, exchange),
            Route::Segment => super::segments::file(&self.store.fs, head, exchange),
        }
    }

    fn reports(&self, head: &Head<'_>, exchange: &Exchange<'_>) -> Told {
        let known = ["since", "until", "client", "host", "limit", "cursor"];
        let params = Params::of_query(head.query, &known)?;
        let (filter, cursor) = (params.filter(self.now)?, params.cursor()?);
        let extent = params.extent(PAGE_BYTES_MAX)?;
        let page = Paged {
            params: &params,
            filter: &filter,
            extent,
            content_type: NDJSON,
        };
        page.tell(head, exchange, |sink| {
            reports::write(self.store, &filter, &cursor, extent, sink)
        })
    }

    fn samples(&self, head: &Head<'_>, exchange: &Exchange<'_>) -> Told {
        let known = [
            "since", "until", "client", "host", "limit", "cursor", "format",
        ];
        let params = Params::of_query(head.query, &known)?;
        let (filter, cursor) = (params.filter(self.now)?, params.cursor()?);
        let (extent, format) = (params.extent(PAGE_BYTES_MAX)?, params.format()?);
        let page = Paged {
            params: &params,
            filter: &filter,
            extent,
            content_type: match format {
                Format::Ndjson => NDJSON,
                Format::Csv => CSV,
            },
        };
        page.tell(head, exchange, |sink| {
            samples::write(self.store, &filter, &cursor, extent, format, sink)
        })
    }

    fn summary(&self, head: &Head<'_>, exchange: &Exchange<'_>) -> Told {
        let known = [
            "since", "until", "client", "host", "step", "group", "dedupe",
        ];
        let params = Params::of_query(head.query, &known)?;
        let (filter, summary) = (params.filter(self.now)?, params.summary()?);
        let coding = Coding::accepted(head);
        let body = exchange.begin(opening(JSON, coding, Vec::new()));
        if exchange.delivery() == Delivery::FieldsOnly {
            return body.finish().map_err(QueryError::Sink);
        }
        let figures = summary::run(self.store, &filter, &summary, exchange)?;
        let mut coded = Coded::new(coding, body);
        print::json(&figures, &summary, &mut coded)
            .and_then(|()| coded.finish()?.finish())
            .map_err(QueryError::Sink)
    }
}

impl Watch for Exchange<'_> {
    fn is_gone(&self) -> bool {
        Exchange::is_gone(self)
    }

    fn note_progress(&self, _: usize) {}
}

/// What stands in front of a body of this coding whose length is not known.
pub(super) fn opening(
    content_type: &'static str,
    coding: Coding,
    more: Vec<(&'static str, String)>,
) -> Opening {
    Opening {
        status: StatusCode::OK,
        content_type,
        fields: coding.fields().into_iter().chain(more).collect(),
        len: None,
    }
}

/// An answer of rows, whole or a page of it.
struct Paged<'p> {
    params: &'p Params,
    filter: &'p crate::query::Filter,
    extent: Extent,
    content_type: &'static str,
}

impl Paged<'_> {
    fn tell(
        &self,
        head: &Head<'_>,
        exchange: &Exchange<'_>,
        write: impl FnOnce(&mut Answering<'_, &mut dyn Write>) -> Result<Ended, QueryError>,
    ) -> Told {
        let coding = Coding::accepted(head);
        let is_head = exchange.delivery() == Delivery::FieldsOnly;
        if self.extent == Extent::Whole || is_head {
            let mut body = exchange.begin(opening(self.content_type, coding, Vec::new()));
            if !is_head {
                write_to(coding, &mut body, exchange, write)?;
            }
            return body.finish().map_err(QueryError::Sink);
        }
        let mut page = Vec::new();
        let ended = write_to(coding, &mut page, exchange, write)?;
        let mut fields = vec![("next-cursor", ended.cursor.encode())];
        if ended.by == EndedBy::Extent {
            let next = self.params.next_page(self.filter, &ended.cursor);
            fields.push(("link", format!("<{}?{next}>; rel=\"next\"", head.path)));
        }
        let mut opening = opening(self.content_type, coding, fields);
        opening.len = Some(page.len() as u64);
        let mut body = exchange.begin(opening);
        body.write_all(&page)
            .and_then(|()| body.finish())
            .map_err(QueryError::Sink)
    }
}

fn write_to(
    coding: Coding,
    out: &mut dyn Write,
    exchange: &Exchange<'_>,
    write: impl FnOnce(&mut Answering<'_, &mut dyn Write>) -> Result<Ended, QueryError>,
) -> Result<Ended, QueryError> {
    let mut answering = Answering {
        coding,
        coded: Coded::new(coding, out),
        exchange,
    };
    let ended = write(&mut answering)?;
    answering.coded.finish().map_err(QueryError::Sink)?;
    Ok(ended)
}

/// Takes rows for a client.
struct Answering<'a, W: Write> {
    coding: Coding,
    coded: Coded<W>,
    exchange: &'a Exchange<'a>,
}

impl<W: Write> Sink for Answering<'_, W> {
    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.coded.write_all(text)
    }

    fn is_gone(&mut self) -> bool {
        self.exchange.is_gone()
    }
}

impl<W: Write> LineSink for Answering<'_, W> {
    fn want(&self) -> Want {
        match self.coding {
            Coding::Zstd => Want::Segments,
            Coding::Identity | Coding::Gzip => Want::Lines,
        }
    }

    fn stored(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.coded.write_stored(bytes)
    }
}

/// Counts how a question has ended, and tells its client of an error while that can be told.
fn settle(running: Running<'_>, told: Told, exchange: &Exchange<'_>) -> io::Result<()> {
    let Err(error) = told else {
        running.end(Outcome::Ok);
        return Ok(());
    };
    let refused = match exchange.is_late() {
        true => Some(too_slow()),
        false => refusal(&error),
    };
    let (answer, outcome) = match refused {
        None => {
            running.end(Outcome::ClientGone);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Some(refused) => refused,
    };
    running.end(outcome);
    if outcome == Outcome::Failed {
        tracing::warn!(error = %chain(&error), "query failed");
    }
    match exchange.is_begun() {
        // Without the end of its body nobody takes what has been sent for all of it.
        true => Err(io::ErrorKind::ConnectionAborted.into()),
        false => exchange.whole(&answer),
    }
}

/// What a client is told that has waited as long as may be.
fn too_slow() -> (Answer, Outcome) {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let message = "the answer takes too long: the machine is busy, or it is too much to ask";
    (
        Answer::refusal(status, "too_slow", message),
        Outcome::Failed,
    )
}

/// What a client is told of an error; nothing, if there is no client any more.
fn refusal(error: &QueryError) -> Option<(Answer, Outcome)> {
    let (status, code, outcome) = match error {
        QueryError::Gone | QueryError::Sink(_) => return None,
        QueryError::Param(_) => (StatusCode::BAD_REQUEST, "bad_query", Outcome::Refused),
        QueryError::TooManyRows { .. } => {
            (StatusCode::BAD_REQUEST, "too_many_rows", Outcome::Refused)
        }
        QueryError::TooManySamples { .. } => (
            StatusCode::BAD_REQUEST,
            "too_many_samples",
            Outcome::Refused,
        ),
        QueryError::NoSegment => (StatusCode::NOT_FOUND, "not_found", Outcome::Refused),
        QueryError::CursorExpired { .. } => (StatusCode::GONE, "cursor_expired", Outcome::Refused),
        QueryError::Thread(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no_thread",
            Outcome::Failed,
        ),
        QueryError::Removed { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "segment_removed",
            Outcome::Failed,
        ),
        QueryError::Read { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "segment_unreadable",
            Outcome::Failed,
        ),
        QueryError::Open(_) | QueryError::List { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "directory_unreadable",
            Outcome::Failed,
        ),
    };
    let mut answer = Answer::refusal(status, code, &error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.fields.push(("retry-after", "1".to_owned()));
    }
    Some((answer, outcome))
}
