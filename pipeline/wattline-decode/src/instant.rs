//! Instants and dates from text and from numbers: one reading of time for every input format.
//!
//! Text is RFC 3339 with a zone (`2026-03-01T08:00:00+08:00`); a space instead of `T` and a zone without the colon are
//! accepted because head ends write them. A text without a zone is refused: guessing it shifts a whole day of readings.
//! Numbers, and texts of digits, count milliseconds or microseconds since the Unix epoch, told apart by magnitude: from
//! 10^14 upwards they are microseconds (as milliseconds that would be the year 5138).
//!
//! Result: microseconds since the epoch, UTC, in the years 1 to 9999. Finer fractions are cut off, never rounded up, so
//! an instant stays within its second.

use crate::eight;
use crate::number::Misfit;

/// 0001-01-01T00:00:00Z.
const FIRST_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
const LAST_US: i64 = 253_402_300_799_999_999;
/// From this magnitude a number counts microseconds, below it milliseconds.
const MICROSECONDS_FROM: u128 = 100_000_000_000_000;
const DAY_S: i64 = 86_400;
/// No zone is further from UTC than this.
const OFFSET_MIN_MAX: i32 = 18 * 60;

/// An instant and, if it was written as text, the offset of its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    /// Microseconds since the epoch, UTC.
    pub(crate) us: i64,
    /// Offset of the zone it was written in, minutes east of UTC.
    pub(crate) offset_min: Option<i32>,
}

/// Why a text is not an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotInstant {
    /// Not RFC 3339.
    Syntax,
    /// RFC 3339 but for the zone.
    NoZone,
    /// Outside the years 1 to 9999.
    OutOfRange,
}

/// Reads an instant from text.
pub(crate) fn parse_instant(text: &str) -> Result<Instant, NotInstant> {
    let text = text.trim_ascii();
    let bytes = text.as_bytes();
    if is_count(bytes) {
        let count: i128 = text.parse().map_err(|_too_long| NotInstant::OutOfRange)?;
        let us = instant_from_count(count).map_err(|_misfit| NotInstant::OutOfRange)?;
        return Ok(Instant { us, offset_min: None });
    }
    let day = scan_date(bytes).ok_or(NotInstant::Syntax)?;
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return Err(NotInstant::Syntax);
    }
    let clock = scan_clock(&bytes[11..]).ok_or(NotInstant::Syntax)?;
    let zone = &bytes[11 + clock.length..];
    if zone.is_empty() {
        return Err(NotInstant::NoZone);
    }
    let offset_min = scan_offset(zone).ok_or(NotInstant::Syntax)?;
    let second = day * DAY_S + clock.second_of_day - i64::from(offset_min) * 60;
    if clock.leap && second.rem_euclid(DAY_S) != 0 {
        return Err(NotInstant::Syntax);
    }
    let us = second * 1_000_000 + clock.fraction_us;
    if !(FIRST_US..=LAST_US).contains(&us) {
        return Err(NotInstant::OutOfRange);
    }
    Ok(Instant { us, offset_min: Some(offset_min) })
}

/// Reads a count of milliseconds or microseconds since the epoch.
pub(crate) fn instant_from_count(count: i128) -> Result<i64, Misfit> {
    let us = if count.unsigned_abs() >= MICROSECONDS_FROM { count } else { count * 1_000 };
    i64::try_from(us).ok().and_then(in_range).ok_or(Misfit::Overflow)
}

/// The instant, if it lies in the years 1 to 9999.
pub(crate) fn in_range(us: i64) -> Option<i64> {
    (FIRST_US..=LAST_US).contains(&us).then_some(us)
}

/// Reads a date, `2026-03-01`, as days since the epoch.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.trim_ascii().as_bytes();
    let day = scan_date(bytes).filter(|_| bytes.len() == 10)?;
    i32::try_from(day).ok().and_then(date_in_range)
}

/// The days since the epoch, if they lie in the years 1 to 9999.
pub(crate) fn date_in_range(day: i32) -> Option<i32> {
    (i64::from(day) >= FIRST_US / 1_000_000 / DAY_S && i64::from(day) <= LAST_US / 1_000_000 / DAY_S).then_some(day)
}

fn is_count(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// `YYYY-MM-DD` at the start, as days since the epoch (Hinnant's days-from-civil).
fn scan_date(bytes: &[u8]) -> Option<i64> {
    let bytes: &[u8; 10] = bytes.first_chunk()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two(bytes[0], bytes[1])? * 100 + two(bytes[2], bytes[3])?;
    let month = two(bytes[5], bytes[6])?;
    let day = two(bytes[8], bytes[9])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

struct Clock {
    second_of_day: i64,
    fraction_us: i64,
    leap: bool,
    length: usize,
}

/// `HH:MM:SS` with an optional fraction. Second 60 is the leap second, which UTC counts as the next second.
fn scan_clock(bytes: &[u8]) -> Option<Clock> {
    let head: &[u8; 8] = bytes.first_chunk()?;
    if head[2] != b':' || head[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(head[0], head[1])?, two(head[3], head[4])?, two(head[6], head[7])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut length = 8;
    let mut fraction_us = 0;
    if matches!(bytes.get(8), Some(b'.' | b',')) {
        let mut unit = 100_000;
        length = 9;
        while let Some(digit) = bytes.get(length).filter(|b| b.is_ascii_digit()) {
            fraction_us += i64::from(digit - b'0') * unit;
            unit /= 10;
            length += 1;
        }
        if length == 9 {
            return None;
        }
    }
    Some(Clock { second_of_day: hour * 3_600 + minute * 60 + second, fraction_us, leap: second == 60, length })
}

/// `Z`, `+08:00`, `+0800` or `+08`, in minutes.
fn scan_offset(zone: &[u8]) -> Option<i32> {
    let (sign, hours, minutes) = match zone {
        [b'Z' | b'z'] => return Some(0),
        [sign, a, b, b':', c, d] | [sign, a, b, c, d] => (*sign, two(*a, *b)?, two(*c, *d)?),
        [sign, a, b] => (*sign, two(*a, *b)?, 0),
        _ => return None,
    };
    let offset = i32::try_from(hours * 60 + minutes).ok().filter(|o| minutes < 60 && *o <= OFFSET_MIN_MAX)?;
    match sign {
        b'+' => Some(offset),
        b'-' => Some(-offset),
        _ => None,
    }
}

/// The date and the zone read last, as text and as what they mean: the records of a block nearly always share both.
#[derive(Debug)]
pub(crate) struct DayMemory {
    date: [u8; 10],
    second: i64,
    zone: [u8; 6],
    offset_min: i32,
}

impl Default for DayMemory {
    fn default() -> Self {
        Self { date: *b"1970-01-01", second: 0, zone: *b"+00:00", offset_min: 0 }
    }
}

impl DayMemory {
    /// Reads an instant written as `2026-03-02T00:00:00`, with a fraction of up to seven digits or without, and with the zone `Z` or
    /// `+08:00`, at byte `at`; says where it ends. `None` if there is none, or one that is written in another way, or a leap second.
    #[inline]
    pub(crate) fn usual_instant(&mut self, bytes: &[u8], at: usize) -> Option<(Instant, usize)> {
        let head: &[u8; 19] = bytes.get(at..)?.first_chunk()?;
        let date: &[u8; 10] = head.first_chunk()?;
        if head[10] != b'T' && head[10] != b' ' {
            return None;
        }
        if *date != self.date {
            self.second = scan_date(date)? * DAY_S;
            self.date = *date;
        }
        let clock: &[u8; 8] = head.last_chunk()?;
        let second_of_day = usual_clock(u64::from_le_bytes(*clock))?;
        let mut end = at + 19;
        let mut fraction_us = 0;
        if bytes.get(end) == Some(&b'.') {
            let word = eight::load(bytes, end + 1);
            let count = eight::digits_count(word);
            if count == 0 || count == 8 {
                return None;
            }
            fraction_us = (eight::fraction_value(word, count) / 100).cast_signed();
            end += 1 + count as usize;
        }
        let offset_min = if bytes.get(end) == Some(&b'Z') {
            end += 1;
            0
        } else {
            let zone: &[u8; 6] = bytes.get(end..)?.first_chunk()?;
            if *zone != self.zone {
                self.offset_min = scan_offset(zone).filter(|_| zone[3] == b':')?;
                self.zone = *zone;
            }
            end += 6;
            self.offset_min
        };
        let second = self.second + second_of_day - i64::from(offset_min) * 60;
        let us = in_range(second * 1_000_000 + fraction_us)?;
        Some((Instant { us, offset_min: Some(offset_min) }, end))
    }
}

/// The second of the day that `HH:MM:SS` is; none for a leap second.
#[inline(always)]
fn usual_clock(word: u64) -> Option<i64> {
    // The colons become 0 and the digits their values, if they are what they must be.
    let values = word ^ 0x3030_3A30_303A_3030;
    let above_nine = values.wrapping_add(0x0606_0006_0600_0606) | values;
    if above_nine & 0xF0F0_FFF0_F0FF_F0F0 != 0 {
        return None;
    }
    let two = |shift: u32| ((values >> shift) & 0xf) * 10 + ((values >> (shift + 8)) & 0xf);
    let (hour, minute, second) = (two(0), two(24), two(48));
    (hour < 24 && minute < 60 && second < 60).then(|| (hour * 3_600 + minute * 60 + second).cast_signed())
}

#[inline]
fn two(a: u8, b: u8) -> Option<i64> {
    let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    (a < 10 && b < 10).then(|| i64::from(a) * 10 + i64::from(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_with_their_zone() {
        for (text, us, offset_min) in [
            ("1970-01-01T00:00:00Z", 0, Some(0)),
            ("2026-03-02T00:00:00+08:00", 1_772_380_800_000_000, Some(480)),
            ("2026-03-01t16:00:00.5z", 1_772_380_800_500_000, Some(0)),
            ("2026-03-02 00:00:00+0800", 1_772_380_800_000_000, Some(480)),
            ("2026-03-01T12:30:00-03:30", 1_772_380_800_000_000, Some(-210)),
            ("1969-12-31T23:59:59.9999999Z", -1, Some(0)),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000, Some(0)),
            ("2017-01-01T07:59:60+08:00", 1_483_228_800_000_000, Some(480)),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000, Some(0)),
            ("0001-01-01T00:00:00Z", FIRST_US, Some(0)),
            ("9999-12-31T23:59:59.999999Z", LAST_US, Some(0)),
            ("1772380800000", 1_772_380_800_000_000, None),
            ("1772380800000123", 1_772_380_800_000_123, None),
            ("-1000000", -1_000_000_000, None),
        ] {
            assert_eq!(parse_instant(text), Ok(Instant { us, offset_min }), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant() {
        for (text, why) in [
            ("", NotInstant::Syntax),
            ("yesterday", NotInstant::Syntax),
            ("2026-03-02", NotInstant::Syntax),
            ("2026-02-29T00:00:00Z", NotInstant::Syntax),
            ("2026-13-01T00:00:00Z", NotInstant::Syntax),
            ("2026-03-02T24:00:00Z", NotInstant::Syntax),
            ("2026-03-02T10:00:60Z", NotInstant::Syntax),
            ("2026-03-02T00:00:00.Z", NotInstant::Syntax),
            ("2026-03-02T00:00:00+99:00", NotInstant::Syntax),
            ("2026-03-02T00:00:00 UTC", NotInstant::Syntax),
            ("2026-03-02T00:00:00", NotInstant::NoZone),
            ("2026-03-02T00:00:00.123", NotInstant::NoZone),
            ("0001-01-01T00:00:00+01:00", NotInstant::OutOfRange),
            ("0000-12-31T00:00:00Z", NotInstant::OutOfRange),
            ("99999999999999999999", NotInstant::OutOfRange),
        ] {
            assert_eq!(parse_instant(text), Err(why), "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(parse_date("1970-01-02"), Some(1));
        assert_eq!(parse_date("2026-03-02"), Some(20_514));
        assert_eq!(parse_date("2026-03-02T00:00:00Z"), None);
        assert_eq!(parse_date("0000-01-01"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_arrow(seconds in -62_135_596_800_i64..253_402_300_799, us in 0_i64..1_000_000, offset in -840_i32..=840) {
            use arrow::array::timezone::Tz;
            use arrow::temporal_conversions::as_datetime_with_timezone;
            let tz: Tz = format!("{}{:02}:{:02}", if offset < 0 { '-' } else { '+' }, offset.abs() / 60, offset.abs() % 60).parse().unwrap();
            let instant = seconds * 1_000_000 + us;
            let text = as_datetime_with_timezone::<arrow::datatypes::TimestampMicrosecondType>(instant, tz).unwrap().to_rfc3339();
            prop_assume!(text.len() >= 25 && !text.starts_with(['-', '+']) && text.as_bytes()[4] == b'-');
            prop_assert_eq!(parse_instant(&text), Ok(Instant { us: instant, offset_min: Some(offset) }), "{}", text);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}|[0-9TZ:+. -]{0,40}") {
            let _read = parse_instant(&text);
            let _read = parse_date(&text);
        }
    }
}
