//! Which sealed segments go, and how one goes.
//!
//! Owns the rule ([`plan`], pure) and the removal of one segment ([`remove`]). Leaves to `catalog` what there
//! is, to `housekeeping` when the server looks, to [`command`] and [`mod@print`] what an operator asks for.
//!
//! ```text
//! oldest ────────────────────────────────────────────▶ newest
//! ├─ older than RETENTION_AGE ─┼─ until the rest fits ─┼─ stays, at most RETENTION_BYTES ─┤
//!   Reason::Age                  Reason::Bytes
//! ```
//!
//! Only what is sealed goes, and never what is being read (see `disk`). A sidecar counts and goes with its
//! segment; one that is left without a segment goes by itself.

pub mod command;
pub mod print;

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::catalog::Segment;
use crate::config::Config;
use crate::disk::{Dir, Disk, Fs, Removal, block_on};
use crate::segment::name::sidecar_of;
use crate::time::Timestamp;

/// What may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A segment whose last line is older than this goes.
    pub age: Option<Duration>,
    /// The oldest go until the rest has at most this many bytes, sidecars included.
    pub bytes: Option<u64>,
}

impl Limits {
    /// The limits that the settings name.
    pub fn of(config: &Config) -> Limits {
        Limits {
            age: config.retention_age,
            bytes: config.retention_bytes,
        }
    }
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is older than [`Limits::age`].
    Age,
    /// It and those after it have more than [`Limits::bytes`].
    Bytes,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 2] = [Reason::Age, Reason::Bytes];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Age => "age",
            Reason::Bytes => "bytes",
        })
    }
}

/// The segments that go, and why; the oldest first.
pub fn plan(segments: &[Segment], limits: Limits, now: Timestamp) -> Vec<(&Segment, Reason)> {
    let age_ms = limits.age.map(|age| age.as_millis());
    let is_old = |segment: &Segment| {
        let segment_ms = now.ms().saturating_sub(segment.last_line.ms());
        age_ms.is_some_and(|limit| u128::from(segment_ms) > limit)
    };
    let mut oldest_first: Vec<&Segment> = segments.iter().collect();
    // Nearly so by their names: quick for a sort that finds runs.
    oldest_first.sort_by(|a, b| a.cmp_age(b));
    let mut left: u64 = segments.iter().map(Segment::bytes).sum();
    let mut going = Vec::new();
    for segment in oldest_first {
        let reason = match limits.bytes.map(|limit| left.cmp(&limit)) {
            _ if is_old(segment) => Reason::Age,
            Some(Ordering::Greater) => Reason::Bytes,
            _ => break,
        };
        left -= segment.bytes();
        going.push((segment, reason));
    }
    going
}

/// Removes a sealed segment that nobody reads, and then its sidecar.
///
/// Nothing is synced: a segment that a power cut brings back goes once more.
///
/// # Errors
///
/// The system does not let the segment go.
pub fn remove(fs: &Fs, name: &str) -> io::Result<Removal> {
    let removal = fs.remove_unread(Dir::Sealed, name)?;
    if removal != Removal::BeingRead
        && let Some(sidecar) = sidecar_of(name)
    {
        // If it stays, it is one without a segment to whoever looks next.
        let _ = remove_sidecar(fs, &sidecar);
    }
    Ok(removal)
}

/// Removes a sidecar, if it is there.
///
/// # Errors
///
/// The system does not let it go.
pub fn remove_sidecar(fs: &Fs, name: &str) -> io::Result<()> {
    match block_on(fs.remove(Dir::Index, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, last_ms: u64, file_bytes: u64, sidecar_bytes: Option<u64>) -> Segment {
        Segment {
            name: name.into(),
            file_bytes,
            sidecar_bytes,
            last_line: Timestamp::from_ms(last_ms),
        }
    }

    fn limits(age_secs: Option<u64>, bytes: Option<u64>) -> Limits {
        let age = age_secs.map(Duration::from_secs);
        Limits { age, bytes }
    }

    #[test]
    fn plans() {
        // Not in the order of their times.
        let segments = [
            segment("a", 30_000, 10, Some(1)),
            segment("b", 10_000, 100, None),
            segment("c", 20_000, 1000, Some(5)),
            segment("d", 20_000, 10_000, None),
        ];
        let check = |age_secs, bytes, expected: &[(&str, Reason)]| {
            let now = Timestamp::from_ms(40_000);
            let planned = plan(&segments, limits(age_secs, bytes), now);
            let planned = planned.iter().map(|(segment, why)| (&*segment.name, *why));
            let case = format!("{age_secs:?}, {bytes:?}");
            assert_eq!(planned.collect::<Vec<_>>(), expected, "{case}");
        };
        use Reason::{Age, Bytes};
        check(None, None, &[]);
        check(Some(30), None, &[]);
        check(Some(29), None, &[("b", Age)]);
        check(Some(10), None, &[("b", Age), ("c", Age), ("d", Age)]);
        // Bytes, of 11,116: sidecars count.
        check(None, Some(11_116), &[]);
        check(None, Some(11_115), &[("b", Bytes)]);
        check(None, Some(11_016), &[("b", Bytes)]);
        check(None, Some(11_015), &[("b", Bytes), ("c", Bytes)]);
        let all_by_bytes = [("b", Bytes), ("c", Bytes), ("d", Bytes), ("a", Bytes)];
        check(None, Some(10), &all_by_bytes);
        check(None, Some(11), &all_by_bytes[..3]);
        // Age first, bytes among the rest.
        check(Some(29), Some(11_016), &[("b", Age)]);
        check(Some(29), Some(11_015), &[("b", Age), ("c", Bytes)]);
        let mixed = [("b", Age), ("c", Age), ("d", Age), ("a", Bytes)];
        check(Some(10), Some(10), &mixed);
        check(Some(10), Some(11), &mixed[..3]);
    }

    #[test]
    fn times_that_have_not_come_are_not_old() {
        let ahead = [segment("a", 2_000, 1, None)];
        let now = Timestamp::from_ms(1_000);
        assert_eq!(plan(&ahead, limits(Some(60), None), now), []);
    }

    /// Takes away what has to go, one at a time, from a list that is searched each time.
    fn plan_naively(segments: &[Segment], limits: Limits, now: Timestamp) -> Vec<(String, Reason)> {
        let mut left = segments.to_vec();
        let mut going = Vec::new();
        for reason in Reason::ALL {
            loop {
                let oldest = (0..left.len()).min_by_key(|&at| (left[at].last_line, &left[at].name));
                let Some(at) = oldest else { break };
                let must_go = match reason {
                    Reason::Age => limits.age.is_some_and(|age| {
                        let last_line = Duration::from_millis(left[at].last_line.ms());
                        last_line + age < Duration::from_millis(now.ms())
                    }),
                    Reason::Bytes => limits.bytes.is_some_and(|bytes| {
                        let files: u64 = left.iter().map(|segment| segment.file_bytes).sum();
                        let sidecars = left.iter().filter_map(|segment| segment.sidecar_bytes);
                        files + sidecars.sum::<u64>() > bytes
                    }),
                };
                if !must_go {
                    break;
                }
                going.push((left.remove(at).name.to_string(), reason));
            }
        }
        going
    }

    #[test]
    fn plans_are_those_of_a_naive_model() {
        // splitmix64: any seed, and no two numbers alike for long.
        let mut state = 1_u64;
        let mut below = |limit: u64| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % limit
        };
        let mut by_reason = [0; 2];
        for _ in 0..2_000 {
            let segments: Vec<Segment> = (0..below(30))
                .map(|index| {
                    // Few times, so that names decide as well.
                    let sidecar = (below(2) == 0).then(|| below(10));
                    segment(&index.to_string(), below(20) * 10_000, below(100), sidecar)
                })
                .collect();
            let age = (below(2) == 0).then(|| below(200));
            let bytes = (below(2) == 0).then(|| below(2_000));
            let now = Timestamp::from_ms(below(30) * 10_000);
            let planned = plan(&segments, limits(age, bytes), now);
            let planned: Vec<(String, Reason)> = planned
                .into_iter()
                .map(|(segment, reason)| (segment.name.to_string(), reason))
                .collect();
            for (_, reason) in &planned {
                by_reason[*reason as usize] += 1;
            }
            let expected = plan_naively(&segments, limits(age, bytes), now);
            assert_eq!(planned, expected, "{age:?} {bytes:?} {now} {segments:?}");
        }
        assert!(
            by_reason.iter().all(|&count| count > 1_000),
            "{by_reason:?}"
        );
    }
}
