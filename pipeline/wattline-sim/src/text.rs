//! JSON pieces written straight into a buffer: numbers, instants, names.
//!
//! `format!` costs more than the rest of a record together, and the generator must outrun what it feeds.

/// UTC+8, in which all instants are written.
const ZONE_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Writes `number` in decimal with at least `width` digits.
pub(crate) fn digits(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    let mut rest = number;
    while rest > 0 {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let from = at.min(buffer.len() - width.min(buffer.len()));
    out.extend_from_slice(&buffer[from..]);
}

/// Writes `scaled / 10^scale`, such as `220.031` for 220031 and 3.
pub(crate) fn decimal(out: &mut Vec<u8>, scaled: i64, scale: u32) {
    if scaled < 0 {
        out.push(b'-');
    }
    let unit = 10_u64.pow(scale);
    digits(out, scaled.unsigned_abs() / unit, 1);
    if scale > 0 {
        out.push(b'.');
        digits(out, scaled.unsigned_abs() % unit, scale as usize);
    }
}

/// Writes `,"name":` before the value of a further field.
pub(crate) fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes a further field with a number of `scale` digits after the point.
pub(crate) fn number_field(out: &mut Vec<u8>, field: &str, scaled: i64, scale: u32) {
    name(out, field);
    decimal(out, scaled, scale);
}

/// Writes a further field with a text that needs no escaping.
pub(crate) fn text_field(out: &mut Vec<u8>, field: &str, text: &[u8]) {
    name(out, field);
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Writes a further field with an instant.
pub(crate) fn instant_field(out: &mut Vec<u8>, field: &str, epoch_ms: i64) {
    name(out, field);
    out.push(b'"');
    instant(out, epoch_ms);
    out.push(b'"');
}

/// Writes `2026-03-02T00:00:00.000+08:00`.
pub(crate) fn instant(out: &mut Vec<u8>, epoch_ms: i64) {
    let local = epoch_ms + ZONE_MS;
    let (year, month, day) = civil(local.div_euclid(DAY_MS));
    let of_day = local.rem_euclid(DAY_MS).unsigned_abs();
    digits(out, year, 4);
    for (mark, number, width) in [
        (b'-', month, 2),
        (b'-', day, 2),
        (b'T', of_day / 3_600_000, 2),
        (b':', of_day / 60_000 % 60, 2),
        (b':', of_day / 1_000 % 60, 2),
        (b'.', of_day % 1_000, 3),
    ] {
        out.push(mark);
        digits(out, number, width);
    }
    out.extend_from_slice(b"+08:00");
}

/// The civil date of a day since the epoch, from 1970 on (Hinnant's civil-from-days).
fn civil(day: i64) -> (u64, u64, u64) {
    let shifted = (day + 719_468).unsigned_abs();
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn numbers_keep_their_digits() {
        for (scaled, scale, text) in
            [(220_031, 3, "220.031"), (-5, 3, "-0.005"), (0, 2, "0.00"), (7, 0, "7"), (-1_250, 1, "-125.0")]
        {
            assert_eq!(written(|out| decimal(out, scaled, scale)), text);
        }
        assert_eq!(written(|out| digits(out, 42, 7)), "0000042");
    }

    #[test]
    fn instants_are_those_of_utc_plus_8() {
        for (ms, text) in [
            (crate::START_MS, "2026-03-02T00:00:00.000+08:00"),
            (crate::START_MS + 86_399_999, "2026-03-02T23:59:59.999+08:00"),
            (1_709_136_000_000, "2024-02-29T00:00:00.000+08:00"),
            (1_735_660_800_000, "2025-01-01T00:00:00.000+08:00"),
        ] {
            assert_eq!(written(|out| instant(out, ms)), text);
        }
    }
}
