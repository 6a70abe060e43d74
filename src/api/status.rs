//! Health: the Go server's fields, and whether reports are being accepted.

use std::time::Duration;

use ::http::StatusCode;
use serde_json::json;

use super::reject::shard_code;
use crate::health::{Health, Verdict};
use crate::time::Now;

/// The name in the answer.
pub const APP_NAME: &str = env!("CARGO_PKG_NAME");

/// Status and body: 200 while every core accepts reports, else 503.
///
/// `checks.reports` is `accepting`, or the code that a report is refused with; `checks.cores` says the
/// same core by core.
pub fn health(health: &Health, now: Now, started_ms: u64) -> (StatusCode, Vec<u8>) {
    let cores: Vec<&str> = health.verdicts(now.monotonic_ms).map(word).collect();
    let refused = cores.iter().find(|&&word| word != ACCEPTING);
    let (status, word) = match refused {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "error"),
    };
    let uptime = Duration::from_millis(now.monotonic_ms.saturating_sub(started_ms));
    let body = json!({
        "status": word,
        "now": now.wall.to_string(),
        "uptime_seconds": uptime.as_secs(),
        "uptime_human": go_duration(uptime),
        "version": env!("CARGO_PKG_VERSION"),
        "appname": APP_NAME,
        "maintenance_mode": false,
        "checks": { "reports": refused.unwrap_or(&ACCEPTING), "cores": cores },
    });
    (status, format!("{body}\n").into_bytes())
}

const ACCEPTING: &str = "accepting";

/// One core's verdict in a word.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepting => ACCEPTING,
        Verdict::Refusing(why) => shard_code(why),
        Verdict::Stuck { .. } => "disk_stuck",
    }
}

/// A duration as Go's `time.Duration` prints it, to the millisecond: `1h2m3.4s`, `250ms`, `0s`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let mut seconds = format!("{}.{:03}", ms / 1000 % 60, ms % 1000);
    let short = seconds.trim_end_matches('0').trim_end_matches('.').len();
    seconds.truncate(short);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Refusal;
    use crate::time::Timestamp;

    #[test]
    fn durations_as_go_prints_them() {
        #[track_caller]
        fn check(ms: u64, expected: &str) {
            assert_eq!(go_duration(Duration::from_millis(ms)), expected);
        }
        check(0, "0s");
        check(7, "7ms");
        check(1000, "1s");
        check(3400, "3.4s");
        check(59_999, "59.999s");
        check(60_000, "1m0s");
        check(600_000, "10m0s");
        check(3_723_400, "1h2m3.4s");
        check(360_000_000, "100h0m0s");
    }

    #[test]
    fn says_why_reports_are_refused() {
        let now = Now {
            wall: Timestamp::from_ms(1_772_169_274_123),
            monotonic_ms: 10_500,
        };
        let state = Health::new(2);
        let fields = "\"appname\":\"netwatch-server\",\"checks\":{\"cores\":[\"accepting\",CORE],\
            \"reports\":REPORTS},\"maintenance_mode\":false,\"now\":\"2026-02-27T05:14:34.123Z\",\
            \"status\":STATUS,\"uptime_human\":\"10s\",\"uptime_seconds\":10,\"version\":VERSION}\n";
        let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
        let expected = |core: &str, reports: &str, status: &str| {
            let body = fields.replace("CORE", core).replace("REPORTS", reports);
            let body = body.replace("STATUS", status).replace("VERSION", &version);
            format!("{{{body}")
        };
        let check = |code: StatusCode, body: String| {
            let (status, answer) = health(&state, now, 500);
            assert_eq!(status, code);
            assert_eq!(String::from_utf8(answer).unwrap(), body);
        };
        check(
            StatusCode::OK,
            expected("\"accepting\"", "\"accepting\"", "\"ok\""),
        );
        state.refuse(1, Refusal::DiskFull);
        check(
            StatusCode::SERVICE_UNAVAILABLE,
            expected("\"disk_full\"", "\"disk_full\"", "\"error\""),
        );
        state.accept(1);
        state.begin_write(1, 1);
        check(
            StatusCode::SERVICE_UNAVAILABLE,
            expected("\"disk_stuck\"", "\"disk_stuck\"", "\"error\""),
        );
    }
}
