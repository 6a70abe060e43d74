//! Reports: accepted exactly if serde_json and the schema, written down once more in the plainest way,
//! accept them; and the stored line is the report with one member in front.
//!
//! Input: the body.

#![no_main]

mod json;
mod splice;

use json::Json;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use netwatch_server::report::{
    CLIENT_ID_BYTES_MAX, DEPTH_MAX, Report, ReportError, Validator, received_at,
};
use netwatch_server::time::Timestamp;

const NOW_MS: u64 = 1_772_169_274_123;
const NOW: &str = "2026-02-27T05:14:34.123Z";
const STAMP: &str = r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#;

fuzz_target!(|body: &[u8]| {
    let mut validator = Validator::new();
    let found = validator.check(body);
    assert_eq!(validator.check(body), found, "the second time");
    let parsed = json::parse(body);
    match (found, &parsed) {
        (Ok(_), Ok(value)) => assert!(value.depth() <= DEPTH_MAX && is_report(value)),
        (Err(ReportError::TooDeep), Ok(value)) => assert!(value.depth() > DEPTH_MAX),
        (Err(error), Ok(value)) => {
            assert!(!is_about_json(error), "{error:?}");
            assert!(value.depth() <= DEPTH_MAX && !is_report(value), "{error:?}");
        }
        (Err(error), Err(_)) => assert!(is_about_json(error) || error == ReportError::TooDeep),
        (Ok(_), Err(error)) => panic!("accepted, but {error}"),
    }
    if let Err(ReportError::NotJson { offset } | ReportError::NotUtf8 { offset }) = found {
        assert!(offset <= body.len());
    }
    let _ = validator.check_line(body);
    if let [b'{', members @ ..] = body {
        let line = [STAMP.as_bytes(), members].concat();
        let now = Timestamp::from_ms(NOW_MS);
        assert_eq!(
            validator.check_line(&line).ok(),
            found.ok().map(|_| Some(now))
        );
        // With a blank, simd-json judges what one pass may have accepted.
        let unusual = [b"{ ", members].concat();
        assert_eq!(validator.check(&unusual).is_ok(), found.is_ok());
    }
    if let (Ok(report), Ok(value)) = (found, parsed) {
        check_line(&mut validator, &report, value);
    }
});

fuzz_mutator!(|data: &mut [u8], len: usize, len_max: usize, seed: u32| {
    let spliced = match seed % 2 {
        0 => None,
        _ => splice::splice(&mut data[..len_max], len, seed),
    };
    spliced.unwrap_or_else(|| fuzzer_mutate(data, len, len_max))
});

/// Whether the body is no JSON, whatever a report is.
fn is_about_json(error: ReportError) -> bool {
    matches!(
        error,
        ReportError::Empty | ReportError::NotJson { .. } | ReportError::NotUtf8 { .. }
    )
}

fn check_line(validator: &mut Validator, report: &Report<'_>, value: Json) {
    let now = Timestamp::from_ms(NOW_MS);
    let mut batch = b"before\n".to_vec();
    report.append_line(now, &mut batch);
    let line = batch.strip_prefix(b"before\n").expect("it is appended");
    assert_eq!(line.len(), report.line_len());
    let ends = line.iter().filter(|byte| b"\r\n".contains(byte));
    assert_eq!(ends.count(), 1, "a line is one line");
    assert!(line.ends_with(b"}\n"));
    assert_eq!(received_at(line), Some(now));
    assert_eq!(validator.check_line(line), Ok(Some(now)));

    let Json::Object(mut members) = value else {
        panic!("a report is an object");
    };
    let stamp = ("receivedAt".to_owned(), Json::String(NOW.to_owned()));
    members.insert(0, stamp);
    let stored = json::parse(line).expect("a line is JSON");
    assert!(stored == Json::Object(members));
}

fn is_report(value: &Json) -> bool {
    let Json::Object(members) = value else {
        return false;
    };
    let is_id = |value: &Json| match value {
        Json::String(id) => (1..=CLIENT_ID_BYTES_MAX).contains(&id.len()),
        _ => false,
    };
    let are_hosts = |value: &Json| is_array_of(value, is_host);
    has(members, "clientId", 1, is_id)
        && has(members, "timestamp", 1, is_string)
        && has(members, "hosts", 1, are_hosts)
        && has(members, "geo", 0, |_| true)
        && members.iter().all(|(name, _)| name != "receivedAt")
}

fn is_host(value: &Json) -> bool {
    let Json::Object(members) = value else {
        return false;
    };
    let is_history = |value: &Json| is_null(value) || is_array_of(value, is_sample);
    has(members, "name", 0, is_string_or_null)
        && has(members, "url", 0, is_string_or_null)
        && has(members, "status", 0, is_string_or_null)
        && has(members, "history", 0, is_history)
}

fn is_sample(value: &Json) -> bool {
    let Json::Object(members) = value else {
        return false;
    };
    let is_number_or_null = |value: &Json| is_null(value) || matches!(value, Json::Number(_));
    has(members, "t", 0, is_number_or_null)
        && has(members, "latency", 0, is_number_or_null)
        && has(members, "error", 0, is_string_or_null)
}

/// Whether there are `fewest` members of this name, or one, and what they hold is right.
fn has(
    members: &[(String, Json)],
    name: &str,
    fewest: usize,
    is_right: impl Fn(&Json) -> bool,
) -> bool {
    let mut found = members.iter().filter(|(known, _)| known == name);
    let is_all_right = found.clone().all(|(_, value)| is_right(value));
    is_all_right && (fewest..=1).contains(&found.by_ref().count())
}

fn is_array_of(value: &Json, is_right: impl Fn(&Json) -> bool) -> bool {
    matches!(value, Json::Array(items) if items.iter().all(is_right))
}

fn is_null(value: &Json) -> bool {
    matches!(value, Json::Null)
}

fn is_string(value: &Json) -> bool {
    matches!(value, Json::String(_))
}

fn is_string_or_null(value: &Json) -> bool {
    is_null(value) || is_string(value)
}
