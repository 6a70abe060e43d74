//! Batches: the items of an array are those that serde_json finds, the items of lines are what stands
//! between line feeds, and where one call stops to look does not matter.
//!
//! Input: a byte for the shape and the filling, four for where it goes, then the body. The filling is
//! about as long as what one call looks at, so that a call can end anywhere in the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netwatch_server::report::batch::{BatchError, ITEMS_MAX, Items, Next, SCAN_BYTES_MAX, Shape};
use serde_json::value::RawValue;

/// What fills the body up; seldom, since it takes long. Two of them make more items than are allowed.
const FILLINGS: [&str; 9] = [" ", "\n", "x", "[", "\\", "\"", "{}", "1,", "1\n"];

fuzz_target!(|input: &[u8]| {
    let [control, at_low, at_high, less_low, less_high, bytes @ ..] = input else {
        return;
    };
    let shape = match control >> 6 {
        0 => Shape::One,
        1 => Shape::Lines,
        _ => Shape::Array,
    };
    let filling = FILLINGS.get(usize::from(control & 0x3f)).unwrap_or(&"");
    let at = usize::from(u16::from_le_bytes([*at_low, *at_high])) % (bytes.len() + 1);
    let less = usize::from(u16::from_le_bytes([*less_low, *less_high])) % (bytes.len() + 1);
    let filling = match filling.len() {
        0 => String::new(),
        len => filling.repeat((SCAN_BYTES_MAX - less) / len),
    };
    let body = [&bytes[..at], filling.as_bytes(), &bytes[at..]].concat();

    let found = items(shape, &body);
    let expected = match shape {
        Shape::One => Some(lines([&body[..]])),
        Shape::Lines => Some(lines(body.split(|byte| *byte == b'\n'))),
        Shape::Array => elements(&body),
    };
    match (found, expected) {
        (found, Some(expected)) if expected.len() > ITEMS_MAX => {
            assert_eq!(found.err(), Some(BatchError::TooManyItems));
        }
        (found, Some(expected)) => {
            // No assert_eq: nobody wants to read the filling.
            let same = |(found, expected): (&&[u8], &&[u8])| std::ptr::eq(*found, *expected);
            let found = found.expect("the model accepts it");
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(same));
        }
        (Ok(found), None) => {
            let is_json = |item: &&[u8]| serde_json::from_slice::<&RawValue>(item).is_ok();
            assert!(!found.iter().all(is_json), "all items of no array are JSON");
            check_outside(&body, &found);
        }
        (Err(BatchError::NotArray { offset }), None) => assert!(offset <= body.len()),
        (Err(BatchError::TooManyItems), None) => assert!(body.len() > ITEMS_MAX),
    }
});

fn items(shape: Shape, body: &[u8]) -> Result<Vec<&[u8]>, BatchError> {
    let mut items = Items::new(shape, body);
    let mut found = Vec::new();
    let mut dues = 0;
    loop {
        match items.next_item()? {
            Next::Item(item) => {
                assert_eq!(item.index, found.len());
                let there = &body[item.begin..item.begin + item.bytes.len()];
                assert!(std::ptr::eq(there, item.bytes));
                found.push(item.bytes);
            }
            Next::Due => dues += 1,
            Next::End => break,
        }
        assert!(
            dues <= body.len() / SCAN_BYTES_MAX,
            "a call passes over more"
        );
    }
    assert_eq!(items.next_item(), Ok(Next::End));
    Ok(found)
}

fn lines<'b>(lines: impl IntoIterator<Item = &'b [u8]>) -> Vec<&'b [u8]> {
    let trimmed = lines.into_iter().map(|mut line| {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..]
        | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = line
        {
            line = rest;
        }
        line
    });
    trimmed.filter(|line| !line.is_empty()).collect()
}

fn elements(body: &[u8]) -> Option<Vec<&[u8]>> {
    let values: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    Some(values.iter().map(|value| value.get().as_bytes()).collect())
}

/// Brackets, commas and whitespace stand around the items, and nothing else.
fn check_outside(body: &[u8], items: &[&[u8]]) {
    let mut outside = Vec::new();
    let mut at = 0;
    for item in items {
        let begin = item.as_ptr() as usize - body.as_ptr() as usize;
        outside.extend_from_slice(&body[at..begin]);
        at = begin + item.len();
    }
    outside.extend_from_slice(&body[at..]);
    outside.retain(|byte| !b" \t\r\n".contains(byte));
    let commas = ",".repeat(items.len().saturating_sub(1));
    assert!(outside == format!("[{commas}]").as_bytes());
}
