//! (method, path) → what is asked for: the whole table of the public port.

use crate::http::head::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Take a report.
    PostReport,
    /// Say whether reports are accepted.
    Health,
    /// Say which methods the path takes, and to whom.
    Options {
        /// Those, as `Allow` lists them.
        allow: &'static str,
    },
}

/// What a request is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// For [`Route::PostReport`].
    Reports,
    /// For [`Route::Health`].
    Health,
    /// For [`Route::Options`].
    Options,
    /// For nothing that is here, or not understood.
    None,
}

impl Label {
    /// All of them.
    pub const ALL: [Label; 4] = [Label::Reports, Label::Health, Label::Options, Label::None];

    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Label::Reports => "reports",
            Label::Health => "health",
            Label::Options => "options",
            Label::None => "none",
        }
    }
}

impl From<&Result<Route, NoRoute>> for Label {
    fn from(route: &Result<Route, NoRoute>) -> Label {
        match route {
            Ok(Route::PostReport) => Label::Reports,
            Ok(Route::Health) => Label::Health,
            Ok(Route::Options { .. }) => Label::Options,
            Err(_) => Label::None,
        }
    }
}

/// Why a request asks for nothing that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing has this path.
    Path,
    /// The path takes other methods.
    Method {
        /// Those, as `Allow` lists them.
        allow: &'static str,
    },
    /// No path takes this method, nor does any standard name it.
    UnknownMethod,
}

/// Looks a request up.
///
/// # Errors
///
/// It asks for nothing that is here.
pub fn route(method: Method, path: &str) -> Result<Route, NoRoute> {
    let (allow, found) = match (path, method) {
        (_, Method::Unknown) => return Err(NoRoute::UnknownMethod),
        ("/api/v1/reports", method) => {
            let found = match method {
                Method::Post => Some(Route::PostReport),
                _ => None,
            };
            ("POST, OPTIONS", found)
        }
        ("/.well-known/healthcheck" | "/.well-known/healthcheck.json", method) => {
            let found = match method {
                Method::Get | Method::Head => Some(Route::Health),
                _ => None,
            };
            ("GET, HEAD, OPTIONS", found)
        }
        _ => return Err(NoRoute::Path),
    };
    match method {
        Method::Options => Ok(Route::Options { allow }),
        _ => found.ok_or(NoRoute::Method { allow }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        #[track_caller]
        fn check(method: Method, path: &str, expected: Result<Route, NoRoute>) {
            assert_eq!(route(method, path), expected);
        }
        let of_health = "GET, HEAD, OPTIONS";
        let health = NoRoute::Method { allow: of_health };
        let of_reports = "POST, OPTIONS";
        let reports = NoRoute::Method { allow: of_reports };
        check(Method::Post, "/api/v1/reports", Ok(Route::PostReport));
        check(Method::Get, "/api/v1/reports", Err(reports));
        let options = Route::Options { allow: of_reports };
        check(Method::Options, "/api/v1/reports", Ok(options));
        let options = Route::Options { allow: of_health };
        check(Method::Options, "/.well-known/healthcheck", Ok(options));
        check(Method::Options, "/", Err(NoRoute::Path));
        check(Method::Post, "/api/v1/reports/", Err(NoRoute::Path));
        check(Method::Post, "/API/v1/reports", Err(NoRoute::Path));
        check(Method::Post, "/", Err(NoRoute::Path));
        check(Method::Get, "/.well-known/healthcheck", Ok(Route::Health));
        check(
            Method::Head,
            "/.well-known/healthcheck.json",
            Ok(Route::Health),
        );
        check(Method::Post, "/.well-known/healthcheck", Err(health));
        check(Method::Delete, "/.well-known/healthcheck.json", Err(health));
        check(
            Method::Unknown,
            "/api/v1/reports",
            Err(NoRoute::UnknownMethod),
        );
        check(Method::Unknown, "/", Err(NoRoute::UnknownMethod));
    }
}
