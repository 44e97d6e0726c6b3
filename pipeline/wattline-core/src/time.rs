//! Event time and human durations.
//!
//! Event time is a count of microseconds since the Unix epoch, UTC, everywhere. [`END_OF_TIME`] is what a
//! watermark reaches when bounded input ends: every window closes.

use std::fmt;

/// The watermark of an input that has ended.
pub const END_OF_TIME: i64 = i64::MAX;
/// The watermark of an input that has not begun.
pub const BEFORE_TIME: i64 = i64::MIN;

/// A duration text that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: write a number and a unit, such as `2 minutes`, `500 ms` or `1 day`")]
pub struct NotADuration {
    /// What was given.
    pub text: String,
}

const UNITS: [(&[&str], i64); 6] = [
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 604_800_000),
];

/// Reads `2 minutes`, `90s`, `1 day 12 hours` as milliseconds.
///
/// # Errors
/// [`NotADuration`] if the text is empty, has an unknown unit, is negative or overflows.
pub fn parse_duration_ms(text: &str) -> Result<i64, NotADuration> {
    let fail = || NotADuration { text: text.to_owned() };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let number: i64 = rest[..digits].parse().map_err(|_ignored| fail())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = rest[..letters].to_ascii_lowercase();
        let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())).ok_or_else(fail)?;
        rest = rest[letters..].trim_start();
        total = number.checked_mul(*factor).and_then(|part| total.checked_add(part)).ok_or_else(fail)?;
    }
    Ok(total)
}

/// Shows a duration in the largest units that express it exactly: `90000` ms is `1 minute 30 seconds`.
#[derive(Debug, Clone, Copy)]
pub struct HumanDuration(
    /// The duration in milliseconds.
    pub i64,
);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0 ms");
        }
        let mut rest = self.0;
        let mut first = true;
        for (names, factor) in UNITS.iter().rev().skip(1) {
            let count = rest / factor;
            if count == 0 {
                continue;
            }
            rest -= count * factor;
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            let name = if *factor == 1 { "ms" } else { names[names.len() - if count == 1 { 2 } else { 1 }] };
            write!(f, "{count} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for (text, ms) in [
            ("2 minutes", 120_000),
            ("500 ms", 500),
            ("1 day 12 hours", 129_600_000),
            ("90s", 90_000),
            ("0 seconds", 0),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
            assert_eq!(parse_duration_ms(&HumanDuration(ms).to_string()), Ok(ms), "{text}");
        }
        assert_eq!(HumanDuration(90_000).to_string(), "1 minute 30 seconds");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "minutes", "5", "-3 s", "5 fortnights", "99999999999999999999 s"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
