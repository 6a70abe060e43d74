//! The name of a segment: `reports-<time of its first line>-c<core>.jsonl.zst`.
//!
//! Names sort by time. Two cores cannot collide, and one core takes the next free millisecond. No other
//! module spells or reads a name.

use std::fmt;
use std::str;

use crate::time::Timestamp;

const PREFIX: &str = "reports-";
const SUFFIX: &str = ".jsonl.zst";
const SIDECAR_SUFFIX: &str = ".json";
const CORE_DIGITS_MIN: usize = 3;

/// The index of a core: 0, 1, ….
pub type CoreIndex = u16;

/// Which segment: when it begins, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// When its first line was received.
    pub time: Timestamp,
    /// The core that writes it.
    pub core: CoreIndex,
}

impl SegmentName {
    /// The name a millisecond later, for when this one is taken.
    pub fn next(self) -> SegmentName {
        SegmentName {
            time: Timestamp::from_ms(self.time.ms() + 1),
            core: self.core,
        }
    }

    /// Reads what `Display` writes, and nothing else.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let stem = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (time, core) = stem.split_once("-c")?;
        let segment = SegmentName {
            time: Timestamp::parse_compact(time.as_bytes())?,
            core: core.parse().ok()?,
        };
        // `+3`, `3` and `0003` are other spellings of core 3.
        (segment.to_string() == name).then_some(segment)
    }
}

/// Whether a file in the data directory is a segment, ours or the Go server's, by its name.
pub fn is_segment(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// The name in `.index` of a segment's sidecar; `None` if this is no segment's name.
pub fn sidecar_of(segment: &str) -> Option<String> {
    let stem = segment.strip_suffix(SUFFIX)?;
    is_segment(segment).then(|| format!("{stem}{SIDECAR_SUFFIX}"))
}

/// The name of the segment whose sidecar this is, by its name in `.index`.
pub fn segment_of(sidecar: &str) -> Option<String> {
    let stem = sidecar.strip_suffix(SIDECAR_SUFFIX)?;
    stem.starts_with(PREFIX).then(|| format!("{stem}{SUFFIX}"))
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.compact();
        let time = str::from_utf8(&time).map_err(|_| fmt::Error)?;
        let core = self.core;
        write!(f, "{PREFIX}{time}-c{core:0CORE_DIGITS_MIN$}{SUFFIX}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        #[track_caller]
        fn check(ms: u64, core: CoreIndex, name: &str) {
            let segment = SegmentName {
                time: Timestamp::from_ms(ms),
                core,
            };
            assert_eq!(segment.to_string(), name);
            assert_eq!(SegmentName::parse(name), Some(segment));
            assert!(is_segment(name));
        }
        check(
            1_772_169_274_123,
            3,
            "reports-20260227T051434.123Z-c003.jsonl.zst",
        );
        check(0, 0, "reports-19700101T000000.000Z-c000.jsonl.zst");
        check(
            1_772_169_274_123,
            1024,
            "reports-20260227T051434.123Z-c1024.jsonl.zst",
        );
    }

    #[test]
    fn what_is_no_name() {
        for name in [
            "",
            "reports-20260227T051434.123Z-c003.jsonl",
            "reports-20260227T051434.123Z-c3.jsonl.zst",
            "reports-20260227T051434.123Z-c0003.jsonl.zst",
            "reports-20260227T051434.123Z-c+03.jsonl.zst",
            "reports-20260227T051434.123Z-c65536.jsonl.zst",
            "reports-20260227T051434.123Z.jsonl.zst",
            "reports-20260227T051434Z-c003.jsonl.zst",
            "Reports-20260227T051434.123Z-c003.jsonl.zst",
            "reports-20260227T051434.123Z-c003.jsonl.zst.part",
            "../reports-20260227T051434.123Z-c003.jsonl.zst",
        ] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_next_name_is_free_for_the_same_core() {
        let name = SegmentName::parse("reports-20260227T051434.999Z-c003.jsonl.zst").unwrap();
        assert_eq!(
            name.next().to_string(),
            "reports-20260227T051435.000Z-c003.jsonl.zst"
        );
    }

    #[test]
    fn the_go_servers_files_are_segments() {
        assert!(is_segment("reports-2026-02-27T05-14-34Z.jsonl.zst"));
        assert!(!is_segment("notes.jsonl.zst"));
    }

    #[test]
    fn sidecars() {
        for (segment, sidecar) in [
            (
                "reports-20260227T051434.123Z-c003.jsonl.zst",
                "reports-20260227T051434.123Z-c003.json",
            ),
            (
                "reports-2026-02-27T05-14-34Z.jsonl.zst",
                "reports-2026-02-27T05-14-34Z.json",
            ),
        ] {
            assert_eq!(sidecar_of(segment).as_deref(), Some(sidecar));
            assert_eq!(segment_of(sidecar).as_deref(), Some(segment));
        }
        assert_eq!(sidecar_of("notes.jsonl.zst"), None);
        assert_eq!(sidecar_of("reports-20260227T051434.123Z-c003.json"), None);
        assert_eq!(segment_of("notes.json"), None);
        assert_eq!(
            segment_of("reports-20260227T051434.123Z-c003.json.part"),
            None
        );
    }
}
