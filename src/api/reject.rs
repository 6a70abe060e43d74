//! Every way to refuse a request on the public port: its status, its stable code, its message.

use std::fmt;

use ::http::StatusCode;

use crate::http::body::BodyError;
use crate::http::coding::{self, CodingError};
use crate::http::head::HeadError;
use crate::http::response::Value;
use crate::limit::RetryAfter;
use crate::report::ReportError;
use crate::report::batch::BatchError;
use crate::route::NoRoute;
use crate::shard::Refusal;

/// How long a client is asked to wait before it tries again (RFC 9110 §10.2.3), in seconds. A disk that
/// refuses is tried again once a second.
pub const RETRY_AFTER_SECS: u64 = 1;

/// Every code there is: clients may rely on these, and refusals are counted by them.
pub const CODES: [&str; 26] = [
    "malformed_head",
    "target_too_long",
    "head_too_large",
    "unsupported_version",
    "unknown_method",
    "unknown_transfer_coding",
    "unknown_expectation",
    "not_found",
    "method_not_allowed",
    "origin_not_allowed",
    "rate_limited",
    "length_required",
    "unsupported_coding",
    "too_slow",
    "malformed_body",
    "malformed_coding",
    "coding_ratio",
    "body_too_large",
    "too_many_reports",
    "nothing_accepted",
    "not_json",
    "not_a_report",
    "shard_full",
    "disk_full",
    "disk_failing",
    "draining",
];

/// Whether a report can be refused with this code: not with those of requests that ask for something else,
/// or for nothing that can be told.
pub fn is_of_reports(code: &str) -> bool {
    let others = [
        "malformed_head",
        "target_too_long",
        "head_too_large",
        "unsupported_version",
        "unknown_method",
        "unknown_transfer_coding",
        "not_found",
        "method_not_allowed",
    ];
    !others.contains(&code)
}

/// Why a request is refused. Answered once, never retried by us.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// The head is refused.
    Head(HeadError),
    /// The framing of the body is refused.
    Body(BodyError),
    /// The body is announced with more than `limit` bytes (RFC 9110 §15.5.14).
    BodyTooLarge {
        /// The most that is taken.
        limit: usize,
    },
    /// The body has neither a length nor chunks (RFC 9110 §15.5.12).
    LengthRequired,
    /// The content coding, or the body by it, is refused (RFC 9110 §8.4).
    Coding(CodingError),
    /// The body is no batch of reports.
    Batch(BatchError),
    /// Nothing in a batch is a report.
    NothingAccepted {
        /// How many items it has.
        items: usize,
    },
    /// An expectation other than `100-continue` (RFC 9110 §15.5.18).
    Expectation,
    /// There is nothing here by that method and path.
    NoRoute(NoRoute),
    /// The head or the body took too long (RFC 9110 §15.5.9).
    TooSlow(Part),
    /// Its address asks more often than it may (RFC 6585 §4).
    RateLimited(RetryAfter),
    /// Pages of this origin may not post (Fetch standard, "CORS protocol").
    Origin,
    /// The body is not a report.
    Report(ReportError),
    /// The shard takes nothing now, or could not commit (RFC 9110 §15.6.4).
    Shard(Refusal),
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Request line and fields.
    Head,
    /// What follows them.
    Body,
}

impl Rejection {
    /// The status, and the code that clients may rely on.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Head(error) => of_head(error),
            Self::Body(BodyError::TooLarge { .. }) | Self::BodyTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            }
            Self::Body(_) => (StatusCode::BAD_REQUEST, "malformed_body"),
            Self::LengthRequired => (StatusCode::LENGTH_REQUIRED, "length_required"),
            Self::Coding(error) => of_coding(*error),
            Self::Batch(BatchError::NotArray { .. }) => (StatusCode::BAD_REQUEST, "not_json"),
            Self::Batch(BatchError::TooManyItems) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_many_reports")
            }
            Self::NothingAccepted { .. } => (StatusCode::BAD_REQUEST, "nothing_accepted"),
            Self::Expectation => (StatusCode::EXPECTATION_FAILED, "unknown_expectation"),
            Self::NoRoute(NoRoute::Path) => (StatusCode::NOT_FOUND, "not_found"),
            Self::NoRoute(NoRoute::Method { .. }) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            }
            Self::NoRoute(NoRoute::UnknownMethod) => {
                (StatusCode::NOT_IMPLEMENTED, "unknown_method")
            }
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::Origin => (StatusCode::FORBIDDEN, "origin_not_allowed"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Self::Report(ReportError::TooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            }
            Self::Report(error) => (StatusCode::BAD_REQUEST, of_report(error)),
            Self::Shard(refusal) => (StatusCode::SERVICE_UNAVAILABLE, shard_code(*refusal)),
        }
    }

    /// The field that tells the client what would be taken, or when.
    pub fn field(&self) -> Option<(&'static str, Value<'static>)> {
        match self {
            Self::NoRoute(NoRoute::Method { allow }) => Some(("allow", Value::Text(allow))),
            // RFC 9110 §12.5.3: the codings that would have been taken.
            Self::Coding(CodingError::UnknownCoding) => {
                Some(("accept-encoding", Value::Text(coding::ACCEPT_ENCODING)))
            }
            Self::RateLimited(RetryAfter { secs }) => {
                Some(("retry-after", Value::Number(u64::from(*secs))))
            }
            Self::Shard(_) => Some(("retry-after", Value::Number(RETRY_AFTER_SECS))),
            _ => None,
        }
    }

    /// The answer's body: one line of JSON.
    pub fn body(&self) -> Vec<u8> {
        let (_, code) = self.status_and_code();
        let message = serde_json::Value::from(self.to_string());
        format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":{message}}}\n").into_bytes()
    }
}

fn of_head(error: &HeadError) -> (StatusCode, &'static str) {
    match error {
        HeadError::RequestLineTooLong => (StatusCode::URI_TOO_LONG, "target_too_long"),
        HeadError::TooLarge | HeadError::TooManyFields => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
        ),
        HeadError::Version { .. } => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "unsupported_version",
        ),
        HeadError::Connect => (StatusCode::NOT_IMPLEMENTED, "unknown_method"),
        HeadError::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, "unknown_transfer_coding"),
        _ => (StatusCode::BAD_REQUEST, "malformed_head"),
    }
}

fn of_coding(error: CodingError) -> (StatusCode, &'static str) {
    match error {
        CodingError::UnknownCoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_coding"),
        CodingError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        CodingError::Ratio | CodingError::Padding => {
            (StatusCode::PAYLOAD_TOO_LARGE, "coding_ratio")
        }
        CodingError::Malformed { .. }
        | CodingError::Trailing { .. }
        | CodingError::Truncated { .. }
        | CodingError::Window => (StatusCode::BAD_REQUEST, "malformed_coding"),
    }
}

fn of_report(error: &ReportError) -> &'static str {
    match error {
        ReportError::Empty
        | ReportError::NotJson { .. }
        | ReportError::NotUtf8 { .. }
        | ReportError::TooDeep => "not_json",
        _ => "not_a_report",
    }
}

/// The code of a shard's refusal, for answers and for health.
pub fn shard_code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::ShardFull => "shard_full",
        Refusal::DiskFull => "disk_full",
        Refusal::DiskFailing => "disk_failing",
        Refusal::Draining => "draining",
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => error.fmt(f),
            Self::Body(error) => error.fmt(f),
            Self::BodyTooLarge { limit } => write!(f, "body exceeds {limit} bytes"),
            Self::LengthRequired => f.write_str("expected content-length or chunked"),
            Self::Coding(error) => error.fmt(f),
            Self::Batch(error) => error.fmt(f),
            Self::NothingAccepted { items: 0 } => f.write_str("body has no reports"),
            Self::NothingAccepted { items } => write!(f, "none of {items} items is a report"),
            Self::Expectation => f.write_str("expected no expectation but 100-continue"),
            Self::NoRoute(NoRoute::Path) => f.write_str("there is nothing at this path"),
            Self::NoRoute(NoRoute::Method { allow }) => write!(f, "expected method {allow}"),
            Self::NoRoute(NoRoute::UnknownMethod) => f.write_str("unknown method"),
            Self::RateLimited(RetryAfter { secs }) => {
                write!(
                    f,
                    "this address asks too often, the next request is taken in {secs} s"
                )
            }
            Self::Origin => f.write_str("pages of this origin may not post here"),
            Self::TooSlow(Part::Head) => f.write_str("request head took too long"),
            Self::TooSlow(Part::Body) => f.write_str("request body took too long"),
            Self::Report(error) => error.fmt(f),
            Self::Shard(Refusal::ShardFull) => f.write_str("more reports wait than may"),
            Self::Shard(Refusal::DiskFull) => f.write_str("the disk is full"),
            Self::Shard(Refusal::DiskFailing) => f.write_str("the disk refuses writes"),
            Self::Shard(Refusal::Draining) => f.write_str("the server is stopping"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::coding::Coding;

    /// Every code that a refusal can have is listed, and every listed one belongs to a refusal.
    #[test]
    fn codes_are_listed() {
        let coding = Coding::Gzip;
        let limit = 1;
        let allow = "POST";
        let rejections = [
            Rejection::Head(HeadError::RequestLineTooLong),
            Rejection::Head(HeadError::TooLarge),
            Rejection::Head(HeadError::TooManyFields),
            Rejection::Head(HeadError::Version { major: 2, minor: 0 }),
            Rejection::Head(HeadError::Connect),
            Rejection::Head(HeadError::UnknownCoding),
            Rejection::Head(HeadError::RequestLine),
            Rejection::Body(BodyError::TooLarge { limit: 1 }),
            Rejection::Body(BodyError::Overhead),
            Rejection::BodyTooLarge { limit },
            Rejection::LengthRequired,
            Rejection::Coding(CodingError::UnknownCoding),
            Rejection::Coding(CodingError::Malformed { coding }),
            Rejection::Coding(CodingError::Trailing { coding }),
            Rejection::Coding(CodingError::Truncated { coding }),
            Rejection::Coding(CodingError::TooLarge { limit }),
            Rejection::Coding(CodingError::Ratio),
            Rejection::Coding(CodingError::Padding),
            Rejection::Coding(CodingError::Window),
            Rejection::Batch(BatchError::NotArray { offset: 0 }),
            Rejection::Batch(BatchError::TooManyItems),
            Rejection::NothingAccepted { items: 1 },
            Rejection::Expectation,
            Rejection::NoRoute(NoRoute::Path),
            Rejection::NoRoute(NoRoute::Method { allow }),
            Rejection::NoRoute(NoRoute::UnknownMethod),
            Rejection::TooSlow(Part::Head),
            Rejection::Origin,
            Rejection::RateLimited(RetryAfter { secs: 1 }),
            Rejection::Report(ReportError::TooLarge { bytes: 1 }),
            Rejection::Report(ReportError::Empty),
            Rejection::Report(ReportError::Reserved),
            Rejection::Shard(Refusal::ShardFull),
            Rejection::Shard(Refusal::DiskFull),
            Rejection::Shard(Refusal::DiskFailing),
            Rejection::Shard(Refusal::Draining),
        ];
        let mut found: Vec<_> = rejections
            .iter()
            .map(|rejection| rejection.status_and_code().1)
            .collect();
        found.sort_unstable();
        found.dedup();
        let mut listed = CODES;
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
