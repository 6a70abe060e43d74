//! Pages of other origins, as their browsers ask (a real browser asks in `.ci/run`).

use crate::support::{Answer, Driver, Server, both_drivers, lines};

both_drivers!(
    any_origin_may_post_and_read,
    preflights_are_answered,
    origins_that_are_not_listed_are_refused,
);

const REPORT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
const PAGE: &str = "https://netwatch.example";

fn post_from(origin: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!(
        "POST /api/v1/reports HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\
         Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn preflight_from(origin: &str) -> Vec<u8> {
    format!(
        "OPTIONS /api/v1/reports HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: content-type\r\n\
         Access-Control-Request-Private-Network: true\r\n\r\n"
    )
    .into_bytes()
}

/// The fields of an answer that are about origins, in their order.
fn cors(answer: &Answer) -> Vec<(&str, &str)> {
    let fields = answer.fields.iter();
    fields
        .filter(|(name, _)| name.starts_with("access-control-"))
        .map(|(name, value)| (&name["access-control-".len()..], value.as_str()))
        .collect()
}

fn allowed(origin: &str) -> [(&str, &str); 3] {
    [
        ("allow-origin", origin),
        ("allow-credentials", "true"),
        ("expose-headers", "retry-after"),
    ]
}

fn any_origin_may_post_and_read(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    for origin in [PAGE, "http://localhost:5173", "null"] {
        let stored = client.exchange(&post_from(origin, REPORT));
        assert_eq!(
            (stored.status, cors(&stored)),
            (200, allowed(origin).to_vec())
        );
        // The page reads why it is refused, too.
        let refused = client.exchange(&post_from(origin, "{}"));
        assert_eq!(
            (refused.status, cors(&refused)),
            (400, allowed(origin).to_vec())
        );
    }
    // The next request on the connection is not taken for one of that page.
    let plain = client.exchange(&crate::support::post(REPORT.as_bytes()));
    assert_eq!((plain.status, cors(&plain)), (200, vec![]));
    assert_eq!(lines(server.dir()).len(), 4);
}

fn preflights_are_answered(driver: Driver) {
    let server = Server::start(driver, &[]);
    let mut client = server.connect();
    let answer = client.exchange(&preflight_from(PAGE));
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(answer.field("allow"), Some("POST, OPTIONS"));
    let asked = [
        ("allow-methods", "POST, OPTIONS"),
        ("allow-headers", "content-type"),
        ("max-age", "86400"),
        ("allow-private-network", "true"),
    ];
    assert_eq!(cors(&answer), [&asked[..], &allowed(PAGE)].concat());
    client.expect_kept();
}

fn origins_that_are_not_listed_are_refused(driver: Driver) {
    let settings = [(
        "CORS_ORIGINS",
        "https://other.example,https://netwatch.example",
    )];
    let server = Server::start(driver, &settings);
    let mut client = server.connect();
    assert_eq!(client.exchange(&post_from(PAGE, REPORT)).status, 200);
    let stranger = "https://stranger.example";
    let preflight = client.exchange(&preflight_from(stranger));
    assert_eq!((preflight.status, cors(&preflight)), (204, vec![]));
    let refused = client.exchange(&post_from(stranger, REPORT));
    let message = "{\"status\":\"error\",\"code\":\"origin_not_allowed\",\
        \"message\":\"pages of this origin may not post here\"}\n";
    assert_eq!((refused.status, refused.text()), (403, message));
    assert_eq!(cors(&refused), []);
    client.expect_kept();
    // What is no page has no origin.
    let plain = client.exchange(&crate::support::post(REPORT.as_bytes()));
    assert_eq!(plain.status, 200);
    assert_eq!(lines(server.dir()).len(), 2);
}
