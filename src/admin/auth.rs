//! Who may ask on the admin listener (RFC 6750, RFC 7617).
//!
//! Everybody on this machine, unless there are credentials. Then a page in a browser on it must not do so
//! in its user's name: it can point a name of its own at 127.0.0.1, so without credentials only requests
//! for an address or for `localhost` are answered.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::http::head::Head;
use crate::live::Live;

/// What a request has to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Realm {
    /// `ADMIN_TOKEN`.
    Admin,
    /// That, or user and password for metrics.
    Metrics,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It has to bring a token.
    NoToken,
    /// It has to bring user and password, or a token if there is one.
    NoLogin,
    /// It asks for a name that anybody may have pointed here.
    ForeignHost,
}

impl Denied {
    /// The value of `WWW-Authenticate` (RFC 9110 §11.6.1).
    pub(super) fn challenge(self) -> Option<&'static str> {
        match self {
            Denied::NoToken => Some("Bearer realm=\"admin\""),
            Denied::NoLogin => Some("Basic realm=\"metrics\", charset=\"UTF-8\""),
            Denied::ForeignHost => None,
        }
    }
}

/// Whether the request may be answered.
pub(super) fn check(head: &Head<'_>, realm: Realm, live: &Live) -> Result<(), Denied> {
    let login = match realm {
        Realm::Admin => None,
        Realm::Metrics => live.metrics_login.as_ref(),
    };
    let token = live.admin_token.as_ref();
    if login.is_none() && token.is_none() {
        return match head.host.is_none_or(is_ours) {
            true => Ok(()),
            false => Err(Denied::ForeignHost),
        };
    }
    let brought = Credentials::of(head);
    let has_token = match (&brought, token) {
        (Some(Credentials::Bearer(brought)), Some(token)) => {
            bool::from(brought.as_bytes().ct_eq(token.expose().as_bytes()))
        }
        _ => false,
    };
    let has_login = match (&brought, login) {
        (Some(Credentials::Basic { user, password }), Some((name, secret))) => {
            let is_user = user.as_bytes().ct_eq(name.as_bytes());
            // Both are compared in any case.
            bool::from(is_user & password.as_bytes().ct_eq(secret.expose().as_bytes()))
        }
        _ => false,
    };
    match (has_token || has_login, login) {
        (true, _) => Ok(()),
        (false, Some(_)) => Err(Denied::NoLogin),
        (false, None) => Err(Denied::NoToken),
    }
}

/// Whether a host is an address or `localhost`, with any port.
fn is_ours(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

/// What a request brings.
#[derive(Debug)]
enum Credentials {
    Bearer(String),
    Basic { user: String, password: String },
}

impl Credentials {
    /// From the one `Authorization` field of a request; `None` if it has none, several, or another kind.
    fn of(head: &Head<'_>) -> Option<Credentials> {
        let mut fields = head.fields("authorization");
        let (field, None) = (fields.next()?, fields.next()) else {
            return None;
        };
        let (scheme, value) = str::from_utf8(field).ok()?.split_once(' ')?;
        let value = value.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Credentials::Bearer(value.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};
    use crate::http::head;

    const TOKEN: &str = "0123456789abcdef";

    fn live(env: &[(&str, &str)]) -> Live {
        let value = |name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        let secret = |name| value(name).map(Secret::new);
        Live {
            admin_token: secret("ADMIN_TOKEN"),
            metrics_login: value("METRICS_USERNAME")
                .map(str::to_owned)
                .zip(secret("METRICS_PASSWORD")),
            ..Live::from_config(&Config::default())
        }
    }

    #[track_caller]
    fn check_fields(env: &[(&str, &str)], fields: &str, expected: [Result<(), Denied>; 2]) {
        let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let head = head::parse(bytes.as_bytes()).unwrap();
        let found = [Realm::Admin, Realm::Metrics].map(|realm| check(&head, realm, &live(env)));
        assert_eq!(found, expected, "{fields:?}");
    }

    #[test]
    fn without_credentials_the_host_must_be_ours() {
        #[track_caller]
        fn check(host: &str, expected: Result<(), Denied>) {
            check_fields(&[], &format!("Host: {host}\r\n"), [expected; 2]);
        }
        for ours in [
            "127.0.0.1:8081",
            "10.0.0.1",
            "[::1]:8081",
            "localhost",
            "LocalHost:1",
        ] {
            check(ours, Ok(()));
        }
        let foreign = [
            "evil.example",
            "evil.example:8081",
            "localhost.evil.example",
            "1.2.3",
        ];
        for host in foreign {
            check(host, Err(Denied::ForeignHost));
        }
    }

    #[test]
    fn a_token_opens_everything() {
        #[track_caller]
        fn check(authorization: &str, expected: Result<(), Denied>) {
            let fields = format!("Host: any.example\r\n{authorization}");
            check_fields(&[("ADMIN_TOKEN", TOKEN)], &fields, [expected; 2]);
        }
        check(&format!("Authorization: Bearer {TOKEN}\r\n"), Ok(()));
        check(&format!("authorization: bearer  {TOKEN}\r\n"), Ok(()));
        for wrong in [
            "",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer 0123456789abcdeF\r\n",
            "Authorization: Bearer 0123456789abcde\r\n",
            "Authorization: Bearer 0123456789abcdef0\r\n",
            "Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZg==\r\n",
            "Authorization: 0123456789abcdef\r\n",
        ] {
            check(wrong, Err(Denied::NoToken));
        }
        let twice = format!("Authorization: Bearer {TOKEN}\r\n").repeat(2);
        check(&twice, Err(Denied::NoToken));
    }

    #[test]
    fn a_login_opens_metrics_alone() {
        let login = [
            ("METRICS_USERNAME", "prometheus"),
            ("METRICS_PASSWORD", "a:b c"),
        ];
        let right = format!(
            "Authorization: Basic {}\r\n",
            STANDARD.encode("prometheus:a:b c")
        );
        let ours = format!("Host: 127.0.0.1\r\n{right}");
        check_fields(&login, &ours, [Ok(()), Ok(())]);
        let no_login = Err(Denied::NoLogin);
        check_fields(&login, "Host: 127.0.0.1\r\n", [Ok(()), no_login]);
        for wrong in [
            "prometheus:a:b",
            "Prometheus:a:b c",
            "prometheus",
            ":",
            "a:b c",
        ] {
            let fields = format!(
                "Host: ::\r\nAuthorization: Basic {}\r\n",
                STANDARD.encode(wrong)
            );
            let fields = fields.replace("::\r\nA", "127.0.0.1\r\nA");
            check_fields(&login, &fields, [Ok(()), no_login]);
        }
        for garbage in ["Basic ", "Basic ###", "Basic /w==", "Digest x"] {
            let fields = format!("Host: 127.0.0.1\r\nAuthorization: {garbage}\r\n");
            check_fields(&login, &fields, [Ok(()), no_login]);
        }
        let both = [login[0], login[1], ("ADMIN_TOKEN", TOKEN)];
        let any = format!("Host: any.example\r\n{right}");
        check_fields(&both, &any, [Err(Denied::NoToken), Ok(())]);
        let bearer = format!("Host: any.example\r\nAuthorization: Bearer {TOKEN}\r\n");
        check_fields(&both, &bearer, [Ok(()), Ok(())]);
    }
}
