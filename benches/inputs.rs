//! What clients send, as the benches have it: a browser's head, and reports.

#[path = "../tests/support/reports.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod reports;

/// Bytes of reports that take turns: more than the compressor's window, which would find each of them
/// again, and than what a branch predictor learns by heart.
const REPORTS_BYTES: usize = 4 << 20;

/// What a browser sends with a report to another origin.
pub(crate) const BROWSER_HEAD: &[u8] = b"POST /api/v1/reports HTTP/1.1\r\n\
    Host: reports.example.net\r\n\
    Connection: keep-alive\r\n\
    Content-Length: 13370\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 \
    Safari/537.36\r\n\
    sec-ch-ua: \"Not(A:Brand\";v=\"8\", \"Chromium\";v=\"144\", \"Google Chrome\";v=\"144\"\r\n\
    Content-Type: text/plain;charset=UTF-8\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Accept: */*\r\n\
    Origin: https://netwatch.example.net\r\n\
    Sec-Fetch-Site: same-site\r\n\
    Sec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: https://netwatch.example.net/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\r\n";

/// Reports with `samples` samples a host, from one client each.
pub(crate) fn reports(samples: usize) -> Vec<Vec<u8>> {
    let mut generator = reports::Generator::new(1, samples);
    let mut reports = Vec::new();
    let mut bytes = 0;
    while bytes < REPORTS_BYTES {
        let report = generator.next_report(&format!("client-{}", reports.len()));
        bytes += report.len();
        reports.push(report);
    }
    reports
}

/// The report as no browser spells it: with a blank, so that simd-json checks it.
pub(crate) fn unusual(report: &[u8]) -> Vec<u8> {
    [b"{ ", &report[1..]].concat()
}
