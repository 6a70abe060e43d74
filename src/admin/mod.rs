//! The admin listener: what operators and their tools ask, on threads of its own. No core waits for it.
//!
//! ```text
//! ADMIN_ADDR ─▶ THREADS threads, each: accept ─▶ conn::serve ─▶ answer ─▶ keep or close
//!                                                    │ a question about what is stored
//!                                                    └─▶ read, on an idle thread ─▶ query
//! ```
//!
//! Calls block here, and a thread serves one connection at a time: the bound on connections is that on
//! threads, and whoever comes then waits in the kernel's queue. So nobody may stay for long: every wait has a
//! deadline, and a connection is kept for half a minute, and not behind a refusal. The threads end with the
//! process.

mod auth;
mod coded;
mod conn;
mod exchange;
mod read;
mod segments;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use ::http::StatusCode;

use self::auth::{Denied, Realm};
use self::exchange::Exchange;
use self::read::Reader;
use crate::api::JSON;
use crate::http::head::{Expect, Head, Method};
use crate::live::LiveSettings;
use crate::metrics::queries::{Queries, Route};
use crate::metrics::{Format, Metrics};
use crate::query::sources::Store;
use crate::time::Now;

/// Connections that are served at once.
pub const THREADS: usize = 8;

/// What requests are answered from.
pub struct Admin {
    /// Who may ask.
    pub live: Arc<LiveSettings>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What is stored.
    pub store: Store,
    /// Who is asking for it.
    pub queries: Arc<Queries>,
    /// Reads both clocks.
    pub clock: fn() -> Now,
}

/// Starts the threads.
///
/// # Errors
///
/// No thread can be made, or the socket cannot be doubled.
pub fn start(listener: &TcpListener, admin: Admin) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let admin = Arc::new(admin);
    for index in 0..THREADS {
        let (listener, admin) = (listener.try_clone()?, Arc::clone(&admin));
        let thread = thread::Builder::new().name(format!("admin-{index}"));
        thread.spawn(move || conn::accept(&listener, &admin))?;
    }
    Ok(())
}

/// The answer to a request, whose body the caller holds.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    fields: Vec<(&'static str, String)>,
}

impl Answer {
    /// That a request is not answered with what it asks for.
    fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
        let message = serde_json::Value::from(message);
        let body = format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":{message}}}\n");
        Answer {
            status,
            content_type: JSON,
            body: body.into_bytes(),
            fields: Vec::new(),
        }
    }
}

/// A request that is not answered with what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Denied(Denied),
    /// Nothing has this path.
    NotFound,
    /// The path takes other methods.
    Method {
        allow: &'static str,
    },
    /// Nothing takes this method, nor does any standard name it.
    UnknownMethod,
    /// It expects something else than to be told to go on.
    Expectation,
    /// It has a body, which nothing here takes.
    Body,
    /// As many questions are being answered as may be.
    TooManyQueries,
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Refused {
        Refused::Denied(denied)
    }
}

impl Refused {
    fn answer(self) -> Answer {
        let (status, code, message) = match self {
            Refused::Denied(Denied::NoToken) => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "expected the token ADMIN_TOKEN",
            ),
            Refused::Denied(Denied::NoLogin) => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "expected METRICS_USERNAME and METRICS_PASSWORD",
            ),
            Refused::Denied(Denied::ForeignHost) => (
                StatusCode::MISDIRECTED_REQUEST,
                "foreign_host",
                "expected an address or localhost in host, or credentials",
            ),
            Refused::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "there is nothing at this path",
            ),
            Refused::Method { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "expected method GET, HEAD",
            ),
            Refused::UnknownMethod => (
                StatusCode::NOT_IMPLEMENTED,
                "unknown_method",
                "unknown method",
            ),
            Refused::Expectation => (
                StatusCode::EXPECTATION_FAILED,
                "unknown_expectation",
                "expected no expectation but 100-continue",
            ),
            Refused::Body => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "expected no body",
            ),
            Refused::TooManyQueries => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_queries",
                "as many questions are being answered as may be",
            ),
        };
        let field = match self {
            Refused::Denied(denied) => denied
                .challenge()
                .map(|challenge| ("www-authenticate", challenge)),
            Refused::Method { allow } => Some(("allow", allow)),
            Refused::TooManyQueries => Some(("retry-after", "1")),
            Refused::NotFound | Refused::UnknownMethod | Refused::Expectation | Refused::Body => {
                None
            }
        };
        let mut answer = Answer::refusal(status, code, message);
        let fields = field.map(|(name, value)| (name, value.to_owned()));
        answer.fields.extend(fields);
        answer
    }
}

impl Admin {
    /// Answers a request without a body; an error ends the connection.
    fn answer(&self, head: &Head<'_>, exchange: &Exchange<'_>) -> io::Result<()> {
        match self.allowed(head) {
            Err(refused) => exchange.whole(&refused.answer()),
            Ok(Asked::Metrics) => {
                let format = Format::accepted(head.fields("accept"));
                exchange.whole(&Answer {
                    status: StatusCode::OK,
                    content_type: format.content_type(),
                    body: self.metrics.render(format).into_bytes(),
                    fields: vec![("vary", "accept".to_owned())],
                })
            }
            Ok(Asked::Stored(route)) => {
                let reader = Reader {
                    store: &self.store,
                    queries: &self.queries,
                    now: (self.clock)().wall,
                };
                reader.answer(route, head, exchange)
            }
        }
    }

    /// What is asked for, if it is there and may be asked for.
    fn allowed(&self, head: &Head<'_>) -> Result<Asked, Refused> {
        let live = self.live.load();
        let asked = Asked::by_path(head.path);
        let realm = match asked {
            Some(Asked::Metrics) => Realm::Metrics,
            // Not even what there is, to those who may not ask.
            _ => Realm::Admin,
        };
        auth::check(head, realm, &live)?;
        if head.expect == Expect::Unknown {
            return Err(Refused::Expectation);
        }
        let asked = asked.ok_or(Refused::NotFound)?;
        expect_get(head)?;
        Ok(asked)
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    Stored(Route),
}

impl Asked {
    /// The whole table of the admin listener.
    fn by_path(path: &str) -> Option<Asked> {
        Some(match path {
            "/metrics" => Asked::Metrics,
            "/api/v1/reports" => Asked::Stored(Route::Reports),
            "/api/v1/samples" => Asked::Stored(Route::Samples),
            "/api/v1/summary" => Asked::Stored(Route::Summary),
            "/api/v1/segments" => Asked::Stored(Route::Segments),
            path if path.starts_with(segments::FILES) => Asked::Stored(Route::Segment),
            _ => return None,
        })
    }
}

fn expect_get(head: &Head<'_>) -> Result<(), Refused> {
    match head.method {
        Method::Get | Method::Head => Ok(()),
        Method::Unknown => Err(Refused::UnknownMethod),
        _ => Err(Refused::Method { allow: "GET, HEAD" }),
    }
}
