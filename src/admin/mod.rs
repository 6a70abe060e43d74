//! The admin listener: what operators and their tools ask, on threads of its own. No core waits for it.
//!
//! ```text
//! ADMIN_ADDR ─▶ THREADS threads, each: accept ─▶ conn::serve ─▶ answer ─▶ keep or close
//! ```
//!
//! Calls block here, and a thread serves one connection at a time: the bound on connections is that on
//! threads, and whoever comes then waits in the kernel's queue. So nobody may stay for long: every wait has a
//! deadline, and a connection is kept for half a minute, and not behind a refusal. The threads end with the
//! process.

mod auth;
mod conn;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use ::http::StatusCode;

use self::auth::{Denied, Realm};
use crate::api::JSON;
use crate::http::head::{Head, Method};
use crate::http::response::Value;
use crate::live::LiveSettings;
use crate::metrics::{Format, Metrics};
use crate::time::Now;

/// Connections that are served at once.
pub const THREADS: usize = 8;

/// What requests are answered from.
pub struct Admin {
    /// Who may ask.
    pub live: Arc<LiveSettings>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
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
    field: Option<(&'static str, Value<'static>)>,
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
    /// It has a body, which nothing here takes.
    Body,
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
            Refused::Body => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "expected no body",
            ),
        };
        let field = match self {
            Refused::Denied(denied) => denied
                .challenge()
                .map(|challenge| ("www-authenticate", Value::Text(challenge))),
            Refused::Method { allow } => Some(("allow", Value::Text(allow))),
            Refused::NotFound | Refused::Body => None,
        };
        let body =
            format!("{{\"status\":\"error\",\"code\":\"{code}\",\"message\":\"{message}\"}}\n");
        Answer {
            status,
            content_type: JSON,
            body: body.into_bytes(),
            field,
        }
    }
}

impl Admin {
    /// The answer to a request without a body.
    fn answer(&self, head: &Head<'_>) -> Answer {
        self.try_answer(head).unwrap_or_else(Refused::answer)
    }

    fn try_answer(&self, head: &Head<'_>) -> Result<Answer, Refused> {
        let live = self.live.load();
        match head.path {
            "/metrics" => {
                auth::check(head, Realm::Metrics, &live)?;
                expect_get(head)?;
                let format = Format::accepted(head.fields("accept"));
                let text = self.metrics.render(format);
                Ok(Answer {
                    status: StatusCode::OK,
                    content_type: format.content_type(),
                    body: text.into_bytes(),
                    field: None,
                })
            }
            _ => {
                // Not even what there is, to those who may not ask.
                auth::check(head, Realm::Admin, &live)?;
                Err(Refused::NotFound)
            }
        }
    }
}

fn expect_get(head: &Head<'_>) -> Result<(), Refused> {
    match head.method {
        Method::Get | Method::Head => Ok(()),
        _ => Err(Refused::Method { allow: "GET, HEAD" }),
    }
}
