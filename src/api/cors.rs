//! Pages of other origins: which may post and read the answers (Fetch standard, "CORS protocol").
//!
//! An answer to an allowed origin names that origin, since the credentials that `sendBeacon` always sends
//! forbid `*`. An origin that is not allowed gets no such field, so its page cannot read the answer, and
//! its reports are refused. A request without an origin comes from no page and is not judged here.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use crate::http::head::Head;
use crate::http::response::Value;

/// How long a browser may go by a preflight (Fetch standard, "CORS-preflight cache"): a day.
const MAX_AGE_SECS: u64 = 86_400;

/// A longer origin than this is not allowed: a host has at most 253 characters (RFC 1035 §2.3.4).
pub const ORIGIN_BYTES_MAX: usize = 300;

/// Origins that may be listed.
pub const ORIGINS_MAX: usize = 64;

/// A preflight that asks for more header names than fit is told the ones that matter.
const ASKED_BYTES_MAX: usize = 1024;
const USUAL_HEADERS: &str = "content-type, content-encoding";

/// Whose pages may post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Everybody's.
    Any,
    /// Those of these origins, as browsers spell them: `https://example.org`, lower case, no slash at
    /// the end, no default port.
    Listed(Vec<String>),
}

impl FromStr for Origins {
    type Err = ();

    fn from_str(text: &str) -> Result<Origins, ()> {
        if text == "any" {
            return Ok(Origins::Any);
        }
        let origins: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
        let is_good =
            origins.iter().all(|origin| is_origin(origin)) && origins.len() <= ORIGINS_MAX;
        is_good.then_some(Origins::Listed(origins)).ok_or(())
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origins::Any => f.write_str("any"),
            Origins::Listed(origins) => f.write_str(&origins.join(",")),
        }
    }
}

/// Whether a browser could send this: one that is spelled otherwise would silently allow nobody.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let is_scheme_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_host_byte = |byte: u8| is_scheme_byte(byte) || b".:[]_".contains(&byte);
    !scheme.is_empty()
        && scheme.bytes().all(is_scheme_byte)
        && !host.is_empty()
        && host.bytes().all(is_host_byte)
        && (default_port.is_empty() || !host.ends_with(default_port))
        && text.len() <= ORIGIN_BYTES_MAX
}

/// Where a request comes from, kept until its answer is written.
#[derive(Debug, Default)]
pub struct Origin {
    /// Empty unless `verdict` is [`Verdict::Allowed`].
    text: String,
    verdict: Verdict,
}

/// What is thought of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The request names none.
    #[default]
    Absent,
    /// It may post, and read the answer.
    Allowed,
    /// It may not.
    Forbidden,
}

impl Origin {
    /// Judges the origin of this request; its text replaces that of the request before.
    pub fn judge(&mut self, head: &Head<'_>, origins: &Origins) {
        self.text.clear();
        let mut values = head.fields("origin");
        self.verdict = match (values.next(), values.next()) {
            (None, _) => Verdict::Absent,
            (Some(origin), None) => match str::from_utf8(origin) {
                Ok(origin) if is_allowed(origin, origins) => {
                    self.text.push_str(origin);
                    Verdict::Allowed
                }
                _ => Verdict::Forbidden,
            },
            (Some(_), Some(_)) => Verdict::Forbidden,
        };
    }

    /// Forgets the request before, for an answer to bytes that are none.
    pub fn forget(&mut self) {
        self.text.clear();
        self.verdict = Verdict::Absent;
    }

    /// What came of it.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The fields that every answer to this request carries.
    pub fn fields(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        // A cache must not give one origin's answer to another (Fetch standard, "CORS protocol and
        // HTTP caches").
        fields.push("vary", Value::Text("origin"));
        if self.verdict == Verdict::Allowed {
            fields.push("access-control-allow-origin", Value::Text(&self.text));
            fields.push("access-control-allow-credentials", Value::Text("true"));
            fields.push("access-control-expose-headers", Value::Text("retry-after"));
        }
        fields
    }
}

fn is_allowed(origin: &str, origins: &Origins) -> bool {
    origin.len() <= ORIGIN_BYTES_MAX
        && match origins {
            Origins::Any => true,
            Origins::Listed(listed) => listed.iter().any(|one| one == origin),
        }
}

/// The fields that answer `OPTIONS` on a path that takes the methods of `allow`, beside those of its
/// [`Origin`]: a preflight is told what it asks for if its origin is allowed.
pub fn options<'a>(head: &Head<'a>, allow: &'static str, verdict: Verdict) -> Fields<'a> {
    let mut fields = Fields::default();
    fields.push("allow", Value::Text(allow));
    if verdict != Verdict::Allowed || head.field("access-control-request-method").is_none() {
        return fields;
    }
    fields.push("access-control-allow-methods", Value::Text(allow));
    let asked = head.field("access-control-request-headers");
    let asked = asked.and_then(|asked| str::from_utf8(asked).ok());
    let headers = asked
        .filter(|asked| is_list(asked))
        .unwrap_or(USUAL_HEADERS);
    fields.push("access-control-allow-headers", Value::Text(headers));
    fields.push("access-control-max-age", Value::Number(MAX_AGE_SECS));
    if head.field("access-control-request-private-network") == Some(b"true") {
        // A public page that reports to a server on the local network.
        fields.push("access-control-allow-private-network", Value::Text("true"));
    }
    fields
}

/// Field names with commas between them, as browsers send them.
fn is_list(asked: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_, ".contains(&byte);
    (1..=ASKED_BYTES_MAX).contains(&asked.len()) && asked.bytes().all(is_byte)
}

/// Some fields of an answer, without allocation.
#[derive(Debug)]
pub struct Fields<'a> {
    fields: [(&'static str, Value<'a>); Fields::MAX],
    count: usize,
}

impl<'a> Fields<'a> {
    const MAX: usize = 6;

    fn push(&mut self, name: &'static str, value: Value<'a>) {
        self.fields[self.count] = (name, value);
        self.count += 1;
    }
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields {
            fields: [("", Value::Number(0)); Fields::MAX],
            count: 0,
        }
    }
}

impl<'a> Deref for Fields<'a> {
    type Target = [(&'static str, Value<'a>)];

    fn deref(&self) -> &Self::Target {
        &self.fields[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;

    #[test]
    fn settings() {
        #[track_caller]
        fn check(text: &str, expected: Option<&[&str]>) {
            let listed = |origins: &[&str]| {
                Origins::Listed(origins.iter().map(|&origin| origin.to_owned()).collect())
            };
            assert_eq!(text.parse(), expected.map(listed).ok_or(()), "{text}");
        }
        assert_eq!("any".parse(), Ok(Origins::Any));
        check("https://example.org", Some(&["https://example.org"]));
        check(
            "https://a.example, http://192.0.2.1:8080,http://[2001:db8::1]",
            Some(&[
                "https://a.example",
                "http://192.0.2.1:8080",
                "http://[2001:db8::1]",
            ]),
        );
        check("chrome-extension://abc", Some(&["chrome-extension://abc"]));
        for bad in [
            "",
            "example.org",
            "https://",
            "https://example.org/",
            "https://Example.org",
            "HTTPS://example.org",
            "https://example.org:443",
            "http://example.org:80",
            "https://example.org,",
            "https://user@example.org",
            "*",
        ] {
            check(bad, None);
        }
        check(&["https://a.example"; ORIGINS_MAX + 1].join(","), None);
    }

    /// Each field as `name: value`.
    fn spelled(fields: &Fields<'_>) -> Vec<String> {
        let spell = |(name, value): &(&str, Value<'_>)| match value {
            Value::Text(text) => format!("{name}: {text}"),
            Value::Number(number) => format!("{name}: {number}"),
        };
        fields.iter().map(spell).collect()
    }

    #[test]
    fn origins() {
        #[track_caller]
        fn check(lines: &str, origins: &str, verdict: Verdict, allowed: Option<&str>) {
            let bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let head = head::parse(bytes.as_bytes()).unwrap();
            let mut origin = Origin::default();
            origin.judge(&head, &origins.parse().unwrap());
            assert_eq!(origin.verdict(), verdict);
            let mut expected = vec!["vary: origin".to_owned()];
            if let Some(allowed) = allowed {
                expected.push(format!("access-control-allow-origin: {allowed}"));
                expected.push("access-control-allow-credentials: true".to_owned());
                expected.push("access-control-expose-headers: retry-after".to_owned());
            }
            assert_eq!(spelled(&origin.fields()), expected);
            origin.forget();
            assert_eq!(spelled(&origin.fields()), ["vary: origin"]);
        }
        let a = "Origin: https://a.example\r\n";
        let both = "https://b.example,https://a.example";
        check("", "any", Verdict::Absent, None);
        check("", both, Verdict::Absent, None);
        check(a, "any", Verdict::Allowed, Some("https://a.example"));
        check(a, both, Verdict::Allowed, Some("https://a.example"));
        check("Origin: null\r\n", "any", Verdict::Allowed, Some("null"));
        check("Origin: null\r\n", both, Verdict::Forbidden, None);
        check(a, "https://b.example", Verdict::Forbidden, None);
        check(a, "http://a.example", Verdict::Forbidden, None);
        check(a, "https://a.example:8443", Verdict::Forbidden, None);
        check(&a.repeat(2), "any", Verdict::Forbidden, None);
        let long = format!("Origin: https://{}\r\n", "a".repeat(ORIGIN_BYTES_MAX));
        check(&long, "any", Verdict::Forbidden, None);
    }

    #[test]
    fn preflights() {
        #[track_caller]
        fn check(lines: &str, verdict: Verdict, expected: &[&str]) {
            let bytes = format!("OPTIONS / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let head = head::parse(bytes.as_bytes()).unwrap();
            assert_eq!(spelled(&options(&head, "POST, OPTIONS", verdict)), expected);
        }
        let asks = "Access-Control-Request-Method: POST\r\n";
        check("", Verdict::Allowed, &["allow: POST, OPTIONS"]);
        check(asks, Verdict::Forbidden, &["allow: POST, OPTIONS"]);
        check(asks, Verdict::Absent, &["allow: POST, OPTIONS"]);
        let usual = [
            "allow: POST, OPTIONS",
            "access-control-allow-methods: POST, OPTIONS",
            "access-control-allow-headers: content-type, content-encoding",
            "access-control-max-age: 86400",
        ];
        check(asks, Verdict::Allowed, &usual);
        let named = "Access-Control-Request-Headers: content-type,x-a\r\n";
        check(
            &[asks, named].concat(),
            Verdict::Allowed,
            &[
                usual[0],
                usual[1],
                "access-control-allow-headers: content-type,x-a",
                usual[3],
            ],
        );
        let odd = "Access-Control-Request-Headers: a;b\r\n";
        check(&[asks, odd].concat(), Verdict::Allowed, &usual);
        let private = "Access-Control-Request-Private-Network: true\r\n";
        check(
            &[asks, private].concat(),
            Verdict::Allowed,
            &[&usual[..], &["access-control-allow-private-network: true"]].concat(),
        );
    }
}
