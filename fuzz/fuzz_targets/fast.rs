//! Reports in one pass: what it accepts, simd-json and the schema accept, and find the same in it; numbers are
//! the same bit for bit. A sink that reads nothing changes nothing.
//!
//! Input: the report.

#![no_main]

mod splice;
#[path = "../../tests/support/told.rs"]
mod told;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use netwatch_server::report::fast::{self, Host, Sample, Sink};
use netwatch_server::report::{Validator, Ways};

use told::{Heard, by_simd_json};

fuzz_target!(|report: &[u8]| {
    let found = fast::read(report, &mut ());
    let mut heard = Heard::default();
    assert_eq!(fast::read(report, &mut heard), found);
    let [b'{', members @ ..] = report else {
        assert_eq!(found, None);
        return;
    };
    assert_eq!(fast::read_members(members, &mut ()), found);
    if found.is_none() {
        return;
    }
    // With a blank, simd-json judges it.
    let mut validator = Validator::new();
    let accepted = validator.check(&[b"{ ", members].concat()).map(|_| ());
    assert_eq!(accepted, Ok(()));
    let (usual, unusual) = (0, 1);
    assert_eq!(validator.ways(), Ways { usual, unusual });
    assert_eq!(heard.0, by_simd_json(report));
});

fuzz_mutator!(|data: &mut [u8], len: usize, len_max: usize, seed: u32| {
    let spliced = match seed % 2 {
        0 => None,
        _ => splice::splice(&mut data[..len_max], len, seed),
    };
    spliced.unwrap_or_else(|| fuzzer_mutate(data, len, len_max))
});
