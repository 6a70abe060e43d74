//! Status, fields, body → bytes.
//!
//! Owns the order and the spelling of what is sent: the fields that frame an answer, the date, and
//! the security fields that every answer carries. Leaves to others: what to answer (`api`), whether
//! the connection stays and what the time is (`conn`, `worker`).
//!
//! ```text
//! HTTP/1.1 STATUS REASON     always 1.1: the highest version spoken here (RFC 9110 §2.5)
//! date                       RFC 9110 §6.6.1
//! connection                 close, or keep-alive to HTTP/1.0 (RFC 9112 §9.3, §9.6)
//! content-type
//! content-length             or transfer-encoding; not with 1xx, 204 and 304 (RFC 9110 §8.6)
//! …                          the fields of the answer itself
//! x-content-type-options: nosniff
//! cache-control: no-store
//!
//! body                       not to HEAD, and not with 1xx, 204 and 304 (RFC 9112 §6.3)
//! ```
//!
//! Invariant: no text becomes a second line. A CR, LF or NUL in a value is our own mistake and stops
//! the program, for what comes from a request has passed [`head`](super::head) and holds none.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::StatusCode;

use super::EMPTY_LINES_MAX;
use super::head::{Head, Method, Persistence, Version, is_token_byte};

/// The interim answer that asks for the body (RFC 9110 §15.2.1). Never for HTTP/1.0.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer, as far as it does not depend on the connection.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Sent with its usual reason phrase.
    pub status: StatusCode,
    /// [`Content::Empty`] with 1xx, 204 and 304.
    pub content: Content<'a>,
    /// Further fields: a name in lower case, which is none that this module writes, and a value
    /// without CR, LF and NUL.
    pub fields: &'a [(&'a str, Value<'a>)],
}

/// The body of an answer.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// No bytes of no type.
    Empty,
    /// Some bytes.
    Body {
        /// What they are.
        content_type: &'static str,
        /// The bytes themselves.
        bytes: &'a [u8],
    },
    /// Bytes that the caller sends behind this.
    Coming {
        /// What they are.
        content_type: &'static str,
        /// How their end is told.
        framing: Coming,
    },
}

/// How the end of bytes that come later is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// They are so many.
    Length(u64),
    /// They come in chunks, of which the last is empty (RFC 9112 §7.1); to HTTP/1.0, which has none, by the end of
    /// the connection.
    Chunks,
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// As it is.
    Text(&'a str),
    /// In decimal.
    Number(u64),
}

/// What the request and the connection demand of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The version of the request.
    pub version: Version,
    /// What becomes of the connection after the answer.
    pub persistence: Persistence,
    /// How much of the answer is sent.
    pub delivery: Delivery,
}

/// How much of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// All of it.
    Whole,
    /// No body, but the fields that it would have had: the answer to `HEAD` (RFC 9110 §9.3.2).
    FieldsOnly,
}

impl Terms {
    /// For a request whose head is not understood, or has not come whole: `bytes` begin with what there is of
    /// it. To `HEAD` no body is sent even so (RFC 9110 §9.3.2): the client would not take it for one.
    pub fn of_refused(bytes: &[u8]) -> Terms {
        // Those that the head's scan skips and no more, so that this is the same however the bytes were split.
        let mut line = bytes;
        for _ in 0..EMPTY_LINES_MAX {
            line = line.strip_prefix(b"\r\n").unwrap_or(line);
        }
        Terms {
            version: Version::Http11,
            persistence: Persistence::Close,
            delivery: match line.starts_with(b"HEAD ") {
                true => Delivery::FieldsOnly,
                false => Delivery::Whole,
            },
        }
    }

    /// What this request asks for.
    pub fn of(head: &Head<'_>) -> Terms {
        Terms {
            version: head.version,
            persistence: head.persistence,
            delivery: match head.method {
                Method::Head => Delivery::FieldsOnly,
                _ => Delivery::Whole,
            },
        }
    }
}

/// The names that [`Response::write`] uses itself, and the one that would contradict them.
const OWN_FIELDS: [&str; 7] = [
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "x-content-type-options",
];

/// Room for the fields of nearly every answer, so that `out` grows once.
const FIELDS_BYTES_USUAL: usize = 512;

impl Response<'_> {
    /// Appends the answer to `out`. `more` are fields that depend on the request and not on the answer,
    /// by the rules of [`Response::fields`].
    pub fn write(
        &self,
        terms: Terms,
        date: &HttpDate,
        more: &[(&str, Value<'_>)],
        out: &mut Vec<u8>,
    ) {
        let (content_type, body, framing): (_, &[u8], _) = match self.content {
            Content::Empty => (None, &[], Coming::Length(0)),
            Content::Body {
                content_type,
                bytes,
            } => {
                let len = bytes.len() as u64;
                (Some(content_type), bytes, Coming::Length(len))
            }
            Content::Coming {
                content_type,
                framing,
            } => (Some(content_type), &[], framing),
        };
        out.reserve(FIELDS_BYTES_USUAL + body.len());

        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(
            self.status
                .canonical_reason()
                .unwrap_or_default()
                .as_bytes(),
        );
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(&date.0);
        out.extend_from_slice(b"\r\n");
        match (terms.persistence, terms.version) {
            (Persistence::Close, _) => push_text(out, "connection", "close"),
            (Persistence::KeepAlive, Version::Http10) => push_text(out, "connection", "keep-alive"),
            (Persistence::KeepAlive, Version::Http11) => (),
        }
        if has_no_body(self.status) {
            assert!(
                matches!(self.content, Content::Empty),
                "status {} has no body",
                self.status.as_str()
            );
        } else {
            if let Some(content_type) = content_type {
                push_text(out, "content-type", content_type);
            }
            match (framing, terms.version) {
                (Coming::Length(len), _) => push_number(out, "content-length", len),
                (Coming::Chunks, Version::Http11) => push_text(out, "transfer-encoding", "chunked"),
                (Coming::Chunks, Version::Http10) => (),
            }
        }
        for &(name, value) in self.fields.iter().chain(more) {
            assert!(is_field_name(name), "field name {name:?} of an answer");
            match value {
                Value::Text(text) => push_text(out, name, text),
                Value::Number(number) => push_number(out, name, number),
            }
        }
        out.extend_from_slice(
            b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n",
        );
        match terms.delivery {
            Delivery::Whole => out.extend_from_slice(body),
            Delivery::FieldsOnly => (),
        }
    }
}

/// RFC 9112 §6.3, items 1 and 2 without the method.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

/// Is this a token in lower case that is free for an answer to use?
fn is_field_name(name: &str) -> bool {
    let in_lower_case = |byte: u8| is_token_byte(byte) && !byte.is_ascii_uppercase();
    !name.is_empty() && name.bytes().all(in_lower_case) && !OWN_FIELDS.contains(&name)
}

fn push_text(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(
        !value.bytes().any(|byte| b"\r\n\0".contains(&byte)),
        "value {value:?} of field {name}"
    );
    push_line(out, name, value.as_bytes());
}

fn push_number(out: &mut Vec<u8>, name: &str, mut number: u64) {
    // 20 digits: u64::MAX.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    push_line(out, name, &digits[start..]);
}

fn push_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A time as the `Date` field has it, `Fri, 27 Feb 2026 05:14:34 GMT` (RFC 9110 §5.6.7). Good for one
/// second, so the caller makes one a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate([u8; HttpDate::LEN]);

impl HttpDate {
    /// Its length in bytes, the same for all.
    pub const LEN: usize = 29;

    /// 9999-12-31T23:59:59Z, the last second that four digits of a year can spell.
    const SECS_MAX: u64 = 253_402_300_799;

    /// The second that `time` lies in; one before 1970 counts as 1970, one after 9999 as 9999.
    pub fn from_system(time: SystemTime) -> HttpDate {
        let secs = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let secs = Duration::from_secs(secs.min(Self::SECS_MAX));
        // httpdate panics outside of these years, hence the bounds above.
        let date = httpdate::HttpDate::from(UNIX_EPOCH + secs);
        let mut text = [b' '; Self::LEN];
        write!(&mut text[..], "{date}").expect("an IMF-fixdate has 29 bytes");
        HttpDate(text)
    }

    /// The text, which is ASCII.
    pub fn as_bytes(&self) -> &[u8; HttpDate::LEN] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: HttpDate = HttpDate(*b"Fri, 27 Feb 2026 05:14:34 GMT");
    const EVERY_ANSWER: &str = "x-content-type-options: nosniff\r\ncache-control: no-store\r\n";

    const KEEP: Terms = Terms {
        version: Version::Http11,
        persistence: Persistence::KeepAlive,
        delivery: Delivery::Whole,
    };

    const OK: Response<'static> = Response {
        status: StatusCode::OK,
        content: Content::Body {
            content_type: "application/json",
            bytes: br#"{"status":"ok"}"#,
        },
        fields: &[],
    };

    /// Wants this head, without the fields that every answer has, and this body.
    #[track_caller]
    fn check(response: Response<'_>, terms: Terms, head: &str, body: &str) {
        let mut out = b"before".to_vec();
        response.write(terms, &DATE, &[], &mut out);
        let expected = format!("before{head}{EVERY_ANSWER}\r\n{body}");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn answers() {
        check(
            OK,
            KEEP,
            "HTTP/1.1 200 OK\r\n\
             date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
             content-type: application/json\r\n\
             content-length: 15\r\n",
            r#"{"status":"ok"}"#,
        );
        // RFC 9110 §9.3.2: the fields of the answer to GET.
        check(
            OK,
            Terms {
                delivery: Delivery::FieldsOnly,
                ..KEEP
            },
            "HTTP/1.1 200 OK\r\n\
             date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
             content-type: application/json\r\n\
             content-length: 15\r\n",
            "",
        );
        let refusal = Response {
            status: StatusCode::SERVICE_UNAVAILABLE,
            content: Content::Body {
                content_type: "text/plain",
                bytes: b"full",
            },
            fields: &[
                ("retry-after", Value::Number(1)),
                ("access-control-expose-headers", Value::Text("Retry-After")),
            ],
        };
        check(
            refusal,
            Terms::of_refused(b"GET / HTTP/1.1\n"),
            "HTTP/1.1 503 Service Unavailable\r\n\
             date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
             connection: close\r\n\
             content-type: text/plain\r\n\
             content-length: 4\r\n\
             retry-after: 1\r\n\
             access-control-expose-headers: Retry-After\r\n",
            "full",
        );
    }

    #[test]
    fn connections() {
        // RFC 9112 §9.3, §9.6
        for (version, persistence, line) in [
            (Version::Http11, Persistence::KeepAlive, ""),
            (Version::Http11, Persistence::Close, "connection: close\r\n"),
            (
                Version::Http10,
                Persistence::KeepAlive,
                "connection: keep-alive\r\n",
            ),
            (Version::Http10, Persistence::Close, "connection: close\r\n"),
        ] {
            check(
                Response {
                    status: StatusCode::NOT_FOUND,
                    content: Content::Empty,
                    fields: &[],
                },
                Terms {
                    version,
                    persistence,
                    ..KEEP
                },
                &format!(
                    "HTTP/1.1 404 Not Found\r\n\
                     date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
                     {line}content-length: 0\r\n"
                ),
                "",
            );
        }
    }

    #[test]
    fn answers_without_a_body() {
        // RFC 9110 §8.6: no content-length either.
        for (status, line) in [
            (StatusCode::NO_CONTENT, "204 No Content"),
            (StatusCode::NOT_MODIFIED, "304 Not Modified"),
            (StatusCode::EARLY_HINTS, "103 Early Hints"),
        ] {
            check(
                Response {
                    status,
                    content: Content::Empty,
                    fields: &[("access-control-max-age", Value::Number(86_400))],
                },
                KEEP,
                &format!(
                    "HTTP/1.1 {line}\r\n\
                     date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
                     access-control-max-age: 86400\r\n"
                ),
                "",
            );
        }
        assert_eq!(CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn bodies_that_come_later() {
        let coming = |framing| Response {
            content: Content::Coming {
                content_type: "text/csv",
                framing,
            },
            ..OK
        };
        let old = Terms {
            version: Version::Http10,
            persistence: Persistence::Close,
            ..KEEP
        };
        for (terms, framing, line) in [
            (KEEP, Coming::Length(7), "content-length: 7\r\n"),
            (KEEP, Coming::Chunks, "transfer-encoding: chunked\r\n"),
            // RFC 9112 §6.1: never to HTTP/1.0.
            (old, Coming::Chunks, ""),
        ] {
            let closing = match terms.persistence {
                Persistence::Close => "connection: close\r\n",
                Persistence::KeepAlive => "",
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\n\
                 date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
                 {closing}content-type: text/csv\r\n{line}"
            );
            check(coming(framing), terms, &head, "");
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 1_048_576, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, "a", number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("a: {number}\r\n"));
        }
    }

    #[test]
    fn names_of_fields() {
        for (name, expected) in [
            ("allow", true),
            ("x-a_b", true),
            ("", false),
            ("Allow", false),
            ("a b", false),
            ("a:", false),
            ("a\r\nb", false),
            ("content-length", false),
            ("transfer-encoding", false),
        ] {
            assert_eq!(is_field_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn terms_of_a_head() {
        for (head, expected) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], KEEP),
            (
                b"HEAD / HTTP/1.0\r\n\r\n",
                Terms {
                    version: Version::Http10,
                    persistence: Persistence::Close,
                    delivery: Delivery::FieldsOnly,
                },
            ),
        ] {
            assert_eq!(
                Terms::of(&super::super::head::parse(head).unwrap()),
                expected
            );
        }
    }

    #[test]
    fn terms_of_what_is_no_request() {
        for (bytes, delivery) in [
            (&b""[..], Delivery::Whole),
            (b"GET / HTTP/1.1\n", Delivery::Whole),
            (b"HEAD", Delivery::Whole),
            (b"HEADER / HTTP/1.1\n", Delivery::Whole),
            (b"head / HTTP/1.1\n", Delivery::Whole),
            (b"HEAD ", Delivery::FieldsOnly),
            (b"HEAD / HTTP/1.1\r\n\r\n", Delivery::FieldsOnly),
            (b"\r\n\r\nHEAD / HTTP/1.1\n", Delivery::FieldsOnly),
            // Refused before the word has come.
            (b"\r\n\r\n\r\nHEAD / HTTP/1.1\r\n", Delivery::Whole),
            (b"\nHEAD / HTTP/1.1\r\n", Delivery::Whole),
            (b" HEAD / HTTP/1.1\r\n", Delivery::Whole),
        ] {
            let expected = Terms {
                version: Version::Http11,
                persistence: Persistence::Close,
                delivery,
            };
            assert_eq!(Terms::of_refused(bytes), expected);
        }
    }

    #[test]
    fn dates() {
        // RFC 9110 §5.6.7
        let at = |secs, nanos| UNIX_EPOCH + Duration::new(secs, nanos);
        for (time, expected) in [
            (at(784_111_777, 0), "Sun, 06 Nov 1994 08:49:37 GMT"),
            (
                at(784_111_777, 999_999_999),
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (at(0, 0), "Thu, 01 Jan 1970 00:00:00 GMT"),
            (
                UNIX_EPOCH - Duration::from_secs(1),
                "Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            (at(253_402_300_799, 0), "Fri, 31 Dec 9999 23:59:59 GMT"),
            (at(253_402_300_800, 0), "Fri, 31 Dec 9999 23:59:59 GMT"),
            (at(1 << 40, 0), "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate::from_system(time).as_bytes(), expected.as_bytes());
        }
    }
}
