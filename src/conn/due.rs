//! Answers that are put off: to reports that came with more requests behind them (RFC 9112 §9.3.2).
//!
//! ```text
//! report, more behind it ─▶ due ─▶ … ─▶ due ─▶ the last report, or anything else ─▶ one write, in order
//!                                    └─────▶ the rest has to be read first ───────▶ one write, in order
//! ```
//!
//! So reports that were sent together are committed together, and cost one write.

use std::mem;

use super::intake::Taken;
use super::{Connection, End, Request};
use crate::api::cors::Origin;
use crate::api::reject::Part;
use crate::http::head::Persistence;
use crate::http::response::Terms;
use crate::metrics::core::Nanos;
use crate::report::batch::Shape;
use crate::route::Label;

/// Reports of one connection whose answers are put off; the next one is waited for.
const DUE_MAX: usize = 64;

/// A report that the shard has, and what its answer needs.
pub(super) struct Due {
    taken: Taken,
    terms: Terms,
    origin: Origin,
    received_at: Nanos,
}

impl Connection {
    /// Whether the answer to a report may go with a later one: another request is in the buffer.
    pub(super) fn may_put_off(&self, request: &Request, shape: Shape) -> bool {
        let has_next =
            !self.buffer.is_empty() && request.terms.persistence == Persistence::KeepAlive;
        // The answer to a batch may be long.
        has_next && shape == Shape::One && self.due.len() < DUE_MAX
    }

    /// Leaves the answer to a report for later.
    pub(super) fn put_off(&mut self, request: &Request, taken: Taken, received_at: Nanos) {
        self.due.push(Due {
            taken,
            terms: request.terms,
            origin: mem::take(&mut self.origin),
            received_at,
        });
    }

    /// Waits for all that are due, and appends their answers.
    pub(super) async fn render_due(&mut self, answer: &mut Vec<u8>) {
        let origin = mem::take(&mut self.origin);
        let label = mem::replace(&mut self.label, Label::Reports);
        for due in mem::take(&mut self.due) {
            self.origin = due.origin;
            let answered = self.await_commit(Ok(due.taken), due.received_at).await;
            self.render_taken(due.terms, answered, answer);
        }
        (self.origin, self.label) = (origin, label);
    }

    /// Sends the answers that are due before more of the next request, of which this part is missing, is read.
    pub(super) async fn answer_due(&mut self, part: Part) -> Result<(), End> {
        let answer = self.begin_answer().await;
        self.write(answer).await?;
        let deadlines = self.shared.deadlines();
        self.stream.set_deadline(match part {
            Part::Head => deadlines.head_ms,
            Part::Body => deadlines.body_ms,
        });
        Ok(())
    }
}
