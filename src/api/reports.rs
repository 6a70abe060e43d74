//! Taking reports: one, or the many of a batch.
//!
//! ```text
//! head ──check_head──▶ Announced ─ ─ body ─ ─▶ take ─────────────────▶ Ticket
//!                                      └─────▶ Judge::step … append ─▶ Ticket, Verdicts
//! ```
//!
//! The reports of a batch are all judged before the first is appended, and appended at once: a body that
//! turns out to be no batch leaves nothing behind, and what is taken is committed together.

use std::cell::RefCell;
use std::rc::Rc;

use super::batch::Verdicts;
use super::reject::Rejection;
use crate::http::body::Framing;
use crate::http::coding::{self, Coding};
use crate::http::head::Head;
use crate::report::batch::{BATCH_BODY_BYTES_MAX, BatchError, ITEMS_MAX, Items, Next, Shape};
use crate::report::{REPORT_BYTES_MAX, Report, Validator};
use crate::shard::{Lines, Refusal, Shard, Ticket};
use crate::time::Now;

/// The answer to a report that has been taken; the Go server's, to the byte.
pub const OK: &[u8] = b"{\"status\":\"ok\"}\n";

/// One call of [`Judge::step`] passes over about this much of a body: half a millisecond, and 2 ms where the
/// last item is the largest.
const STEP_BYTES: usize = 256 << 10;

/// An item costs at least as much as so many bytes: most of all one that is refused with its first.
const ITEM_COST_BYTES: usize = 512;

const _: () = assert!(ITEMS_MAX <= u32::MAX as usize);

/// What a head says about the reports behind it.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// How the body is coded.
    pub coding: Coding,
    /// What the body is made of, where its type says so; else its first bytes do.
    pub shape: Option<Shape>,
}

/// The most bytes of a batch where lines and the bodies that are being read may take so many together: room
/// for it once as a body and once as lines, while others have as much.
pub fn batch_bytes_max(held_bytes_max: u64) -> usize {
    let share = usize::try_from(held_bytes_max / 4).unwrap_or(usize::MAX);
    share.clamp(REPORT_BYTES_MAX, BATCH_BODY_BYTES_MAX)
}

/// The most bytes of a body of this shape, decoded; one whose shape is not known yet is whitespace.
pub fn body_bytes_max(shape: Option<Shape>, batch_bytes_max: usize) -> usize {
    match shape {
        Some(Shape::Lines | Shape::Array) => batch_bytes_max,
        Some(Shape::One) | None => REPORT_BYTES_MAX,
    }
}

/// Whether the body announced by this head may be read as reports.
///
/// # Errors
///
/// It would be refused whatever is in it.
pub fn check_head(head: &Head<'_>, batch_bytes_max: usize) -> Result<Announced, Rejection> {
    let coding = coding::parse(head.fields("content-encoding")).map_err(Rejection::Coding)?;
    let shape = Shape::of(head.field("content-type"), b"");
    match head.framing {
        Framing::None => Err(Rejection::LengthRequired),
        Framing::Length(length) if length > batch_bytes_max as u64 => {
            let limit = batch_bytes_max;
            Err(Rejection::BodyTooLarge { limit })
        }
        Framing::Length(_) | Framing::Chunked => Ok(Announced { coding, shape }),
    }
}

/// Checks a body and gives its line to the shard. The answer is due when the ticket is.
///
/// # Errors
///
/// The body is not a report, or the shard takes none now.
pub fn take(
    validator: &RefCell<Validator>,
    shard: &Rc<RefCell<Shard>>,
    now: Now,
    body: &[u8],
) -> Result<Ticket, Rejection> {
    let mut validator = validator.borrow_mut();
    let report = validator.check(body).map_err(Rejection::Report)?;
    let lines = Lines {
        count: 1,
        bytes: report.line_len(),
    };
    Ticket::append(shard, now, lines, |received_at, text| {
        report.append_line(received_at, text);
    })
    .map_err(Rejection::Shard)
}

/// Judges the items of a batch, one after the other.
pub struct Judge<'b> {
    items: Items<'b>,
    /// Where the last item that was judged ends.
    at: usize,
    accepted: Vec<Report<'b>>,
    /// Of the lines of `accepted`.
    line_bytes: usize,
    verdicts: Verdicts,
}

/// Whether a [`Judge`] is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Others should have their turn now.
    Some,
    /// Every item has its verdict.
    All,
}

impl<'b> Judge<'b> {
    /// For the items of this body.
    pub fn new(shape: Shape, body: &'b [u8]) -> Judge<'b> {
        Judge {
            items: Items::new(shape, body),
            at: 0,
            accepted: Vec::new(),
            line_bytes: 0,
            verdicts: Verdicts::default(),
        }
    }

    /// Judges some of them.
    ///
    /// # Errors
    ///
    /// The body is no batch.
    pub fn step(&mut self, validator: &RefCell<Validator>) -> Result<Judged, BatchError> {
        let mut validator = validator.borrow_mut();
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            let item = match self.items.next_item()? {
                Next::Item(item) => item,
                Next::Due => return Ok(Judged::Some),
                Next::End => return Ok(Judged::All),
            };
            let end = item.begin + item.bytes.len();
            bytes += end - self.at + ITEM_COST_BYTES;
            self.at = end;
            match validator.check(item.bytes) {
                Ok(report) => {
                    self.line_bytes += report.line_len();
                    self.accepted.push(report);
                    self.verdicts.accept();
                }
                Err(error) => {
                    let (_, code) = Rejection::Report(error).status_and_code();
                    self.verdicts.reject(item.index, code, &error);
                }
            }
        }
        Ok(Judged::Some)
    }

    /// What became of the items.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Gives the lines of those that are reports, one at least, to the shard, for one commit.
    ///
    /// # Errors
    ///
    /// The shard takes none now.
    pub fn append(&self, shard: &Rc<RefCell<Shard>>, now: Now) -> Result<Ticket, Refusal> {
        let lines = Lines {
            count: u32::try_from(self.accepted.len()).expect("there are `ITEMS_MAX` at most"),
            bytes: self.line_bytes,
        };
        Ticket::append(shard, now, lines, |received_at, text| {
            for report in &self.accepted {
                report.append_line(received_at, text);
            }
        })
    }
}
