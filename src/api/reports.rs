//! Taking a report.

use std::cell::RefCell;
use std::rc::Rc;

use super::reject::Rejection;
use crate::http::body::Framing;
use crate::http::head::Head;
use crate::report::{REPORT_BYTES_MAX, Validator};
use crate::shard::{Shard, Ticket};
use crate::time::Now;

/// The answer to a report that has been taken; the Go server's, to the byte.
pub const OK: &[u8] = b"{\"status\":\"ok\"}\n";

/// Whether the body announced by this head may be read as a report.
///
/// # Errors
///
/// It would be refused whatever is in it.
pub fn check_head(head: &Head<'_>) -> Result<(), Rejection> {
    let mut codings = head.fields("content-encoding");
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Rejection::ContentCoding);
    }
    let limit = REPORT_BYTES_MAX;
    match head.framing {
        Framing::None => Err(Rejection::LengthRequired),
        Framing::Length(length) if length > limit as u64 => Err(Rejection::BodyTooLarge { limit }),
        Framing::Length(_) | Framing::Chunked => Ok(()),
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
    Ticket::append(shard, now, report.line_len(), |received_at, text| {
        report.append_line(received_at, text);
    })
    .map_err(Rejection::Shard)
}
