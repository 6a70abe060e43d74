//! Points in time: [`Timestamp`], UTC in milliseconds, with its two spellings, and [`Now`], a reading of
//! both clocks.
//!
//! No clock is read here: `worker` and `server` read it and pass it in.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use toml_datetime::{Datetime, Offset};

/// UTC, in whole milliseconds since 1970-01-01T00:00:00Z; `0 <= ms <= MS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    ms: u64,
}

/// One reading of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which an operator or NTP may set back or forward at any time.
    pub wall: Timestamp,
    /// Milliseconds of a clock that only goes forward, from a start that means nothing.
    pub monotonic_ms: u64,
}

const DAY_MS: u64 = 86_400_000;

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last one that four digits of a year can spell.
    pub const MAX: Timestamp = Timestamp {
        ms: 253_402_300_799_999,
    };

    /// Length in bytes of [`Timestamp::rfc3339`].
    pub const RFC3339_LEN: usize = 24;

    /// Length in bytes of [`Timestamp::compact`].
    pub const COMPACT_LEN: usize = 20;

    /// The time `ms` milliseconds after the epoch, at most [`Timestamp::MAX`].
    pub fn from_ms(ms: u64) -> Timestamp {
        Timestamp {
            ms: ms.min(Self::MAX.ms),
        }
    }

    /// A reading of the wall clock; one before 1970 counts as 1970.
    pub fn from_system(time: SystemTime) -> Timestamp {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since the epoch.
    pub fn ms(self) -> u64 {
        self.ms
    }

    /// `2026-02-27T05:14:34.123Z` (RFC 3339 §5.6).
    pub fn rfc3339(self) -> [u8; Self::RFC3339_LEN] {
        let mut text = *b"0000-00-00T00:00:00.000Z";
        self.write_fields(&mut text, [0, 5, 8, 11, 14, 17, 20]);
        text
    }

    /// `20260227T051434.123Z`, without the characters that file names and shells dislike.
    pub fn compact(self) -> [u8; Self::COMPACT_LEN] {
        let mut text = *b"00000000T000000.000Z";
        self.write_fields(&mut text, [0, 4, 6, 9, 11, 13, 16]);
        text
    }

    /// Reads what [`Timestamp::compact`] writes, and nothing else.
    pub fn parse_compact(text: &[u8]) -> Option<Timestamp> {
        Self::parse_fields(text, [0, 4, 6, 9, 11, 13, 16], Self::compact)
    }

    /// Reads what [`Timestamp::rfc3339`] writes, and nothing else.
    pub fn parse_rfc3339(text: &[u8]) -> Option<Timestamp> {
        Self::parse_fields(text, [0, 5, 8, 11, 14, 17, 20], Self::rfc3339)
    }

    /// Reads any date and time of RFC 3339 §5.6, with its offset, and a date alone, which is its midnight in UTC.
    /// What is finer than a millisecond is dropped, and what lies before 1970 counts as 1970.
    pub fn parse_any_rfc3339(text: &str) -> Option<Timestamp> {
        let parsed: Datetime = text.parse().ok()?;
        let date = parsed.date?;
        let [year, month, day] = [date.year.into(), date.month.into(), date.day.into()];
        let (of_day_ms, offset_minutes) = match (parsed.time, parsed.offset) {
            (None, _) => (0, 0),
            // Of no known place.
            (Some(_), None) => return None,
            (Some(time), Some(offset)) => {
                let [hour, minute] = [time.hour, time.minute].map(u64::from);
                let second = u64::from(time.second.unwrap_or(0));
                let ms = u64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
                let minutes = match offset {
                    Offset::Z => 0,
                    Offset::Custom { minutes } => i64::from(minutes),
                };
                (((hour * 60 + minute) * 60 + second) * 1000 + ms, minutes)
            }
        };
        if year < 1970 {
            return Some(Timestamp::from_ms(0));
        }
        let local_ms = days_from_civil(year, month, day) * DAY_MS + of_day_ms;
        let ms = local_ms.saturating_add_signed(-offset_minutes * 60_000);
        Some(Timestamp::from_ms(ms))
    }

    /// Writes year, month, day, hour, minute, second and millisecond at these places.
    fn write_fields(self, text: &mut [u8], at: [usize; 7]) {
        let (year, month, day) = civil_from_days(self.ms / DAY_MS);
        let of_day = self.ms % DAY_MS;
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
        let values = [year, month, day, hour, minute, second, ms];
        for ((value, at), width) in values.into_iter().zip(at).zip(FIELD_WIDTHS) {
            write_digits(&mut text[at..at + width], value);
        }
    }

    fn parse_fields<const LEN: usize>(
        text: &[u8],
        at: [usize; 7],
        spell: fn(Timestamp) -> [u8; LEN],
    ) -> Option<Timestamp> {
        if text.len() != LEN {
            return None;
        }
        let mut values = [0; 7];
        for ((value, at), width) in values.iter_mut().zip(at).zip(FIELD_WIDTHS) {
            *value = read_digits(&text[at..at + width])?;
        }
        let [year, month, day, hour, minute, second, ms] = values;
        if year < 1970 || !(1..=12).contains(&month) || day < 1 {
            return None;
        }
        let of_day = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
        let time = Timestamp::from_ms(days_from_civil(year, month, day) * DAY_MS + of_day);
        // A field out of range (February 30, hour 24) and a wrong separator spell differently.
        (spell(time) == text).then_some(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.rfc3339() {
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

const FIELD_WIDTHS: [usize; 7] = [4, 2, 2, 2, 2, 2, 3];

fn write_digits(text: &mut [u8], mut value: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn read_digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u64::from(digit - b'0'))
    })
}

/// Days in the 400 years after which the Gregorian calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// From 0000-03-01, where an era begins, to 1970-01-01.
const EPOCH_FROM_ERA_DAYS: u64 = 719_468;

/// Year, month and day of a day counted from 1970-01-01. The year starts in March here, so that
/// the leap day is its last (the method of Howard Hinnant's `chrono`-compatible date algorithms).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_FROM_ERA_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`], for years from 1970 on.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_FROM_ERA_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        #[track_caller]
        fn check(ms: u64, rfc3339: &str, compact: &str) {
            let time = Timestamp::from_ms(ms);
            assert_eq!(time.rfc3339(), rfc3339.as_bytes());
            assert_eq!(time.to_string(), rfc3339);
            assert_eq!(time.compact(), compact.as_bytes());
            assert_eq!(Timestamp::parse_rfc3339(rfc3339.as_bytes()), Some(time));
            assert_eq!(Timestamp::parse_compact(compact.as_bytes()), Some(time));
        }
        check(0, "1970-01-01T00:00:00.000Z", "19700101T000000.000Z");
        check(
            951_782_400_000,
            "2000-02-29T00:00:00.000Z",
            "20000229T000000.000Z",
        );
        check(
            951_868_799_999,
            "2000-02-29T23:59:59.999Z",
            "20000229T235959.999Z",
        );
        check(
            951_868_800_000,
            "2000-03-01T00:00:00.000Z",
            "20000301T000000.000Z",
        );
        check(
            1_772_169_274_123,
            "2026-02-27T05:14:34.123Z",
            "20260227T051434.123Z",
        );
        check(
            4_107_542_400_000,
            "2100-03-01T00:00:00.000Z",
            "21000301T000000.000Z",
        );
        check(u64::MAX, "9999-12-31T23:59:59.999Z", "99991231T235959.999Z");
    }

    #[test]
    fn every_day_comes_back() {
        let days_max = Timestamp::MAX.ms() / DAY_MS;
        for days in 0..=days_max {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "20260230T051434.123Z",
            "20260227T241434.123Z",
            "20260227T056034.123Z",
            "20260227T051460.123Z",
            "19691231T235959.999Z",
            "20261327T051434.123Z",
            "20260027T051434.123Z",
            "20260200T051434.123Z",
            "20260227T051434,123Z",
            "20260227T051434.123z",
            "20260227T051434.12aZ",
            "20260227T051434.123Z ",
        ] {
            assert_eq!(Timestamp::parse_compact(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_wall_clock_before_1970_counts_as_1970() {
        let before = UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(Timestamp::from_system(before).ms(), 0);
    }
}
