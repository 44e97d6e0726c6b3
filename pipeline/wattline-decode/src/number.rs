//! Decimal numbers as they are written: read once, converted exactly.
//!
//! A number is kept as sign × digits × 10^exponent, never as a float, so that `0.00543` reaches a decimal column
//! as 543 × 10^-5, a scale factor of `0.1` turns `2354` into exactly `235.4`, and `12.0` is an integer while
//! `12.5` is refused. A float is made last, correctly rounded: from the parts where one division is exact
//! (Clinger's fast path), from the text otherwise.

use crate::eight::{self, POW10_U64};

/// 10^k for every k that an `i128` can hold.
const POW10: [i128; 39] = {
    let mut table = [1_i128; 39];
    let mut k = 1;
    while k < 39 {
        table[k] = table[k - 1] * 10;
        k += 1;
    }
    table
};

/// 10^k for every k that an `f64` holds exactly.
const POW10_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// 10^k for every k that an `f32` holds exactly.
const POW10_F32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Digits that always fit in a `u64`.
const SIGNIFICANT_DIGITS_MAX: u32 = 19;
/// Digits of a [`Plain`] number: so few that they fit in an `i64` with either sign.
const PLAIN_DIGITS_MAX: usize = 18;
/// Beyond this every written exponent means "out of range" or zero; keeps the arithmetic on exponents small.
const EXPONENT_MAX: i32 = 100_000;

/// Why a number does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Larger than the type holds.
    Overflow,
    /// Has digits that the type cannot hold.
    Inexact,
}

/// A number in text: its parts if they fit in 64 bits, and the text for the rare case that they do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number<'a> {
    /// As it was written.
    pub(crate) text: &'a str,
    negative: bool,
    digits: u64,
    exponent: i32,
    /// Whether `digits` holds all digits.
    complete: bool,
}

/// sign × digits × 10^exponent with up to 38 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exact {
    /// Signed digits.
    pub(crate) digits: i128,
    /// Power of ten.
    pub(crate) exponent: i32,
}

/// A number of at most 18 digits without exponent, as nearly all are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    negative: bool,
    digits: u64,
    /// How many of the digits stand behind the point.
    scale: u32,
}

/// How many digits the last plain number of a column had on each side of its point, of eight in all.
///
/// Numbers of a column tend to have as many as the one before. Then where a number ends is known before its digits have been
/// looked at, and a processor that goes ahead on a guess reads the next member meanwhile; counting digits would make it wait.
/// That is why the comparisons are with masks: of two equal counts a compiler may use either, and the other one is the wrong one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    negative: bool,
    sign_bytes: usize,
    whole: u32,
    whole_digits: (u64, u64),
    scale: u32,
    scale_digits: (u64, u64),
}

/// How strictly a number is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// RFC 8259: no plus sign, no leading zeros.
    Json,
    /// Registers and spreadsheets: `+1.5` and `000123.40` are numbers too.
    Text,
}

impl<'a> Number<'a> {
    /// Reads the number that starts at byte `at`; returns it and where it ends, or `None` if none starts there.
    pub(crate) fn scan(text: &'a str, at: usize, grammar: Grammar) -> Option<(Self, usize)> {
        let bytes = text.as_bytes();
        let mut end = at;
        let negative = match bytes.get(end) {
            Some(b'-') => {
                end += 1;
                true
            }
            Some(b'+') if grammar == Grammar::Text => {
                end += 1;
                false
            }
            Some(_) => false,
            None => return None,
        };
        let mut digits = Digits::default();
        let whole_start = end;
        end = digits.take(bytes, end);
        let whole_digits = end - whole_start;
        if whole_digits == 0 || (grammar == Grammar::Json && whole_digits > 1 && bytes[whole_start] == b'0') {
            return None;
        }
        let mut exponent = 0;
        if bytes.get(end) == Some(&b'.') {
            let fraction_start = end + 1;
            end = digits.take(bytes, fraction_start);
            if end == fraction_start {
                return None;
            }
            exponent = -i32::try_from(end - fraction_start).ok()?;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let (written, after) = scan_exponent(bytes, end + 1)?;
            exponent = exponent.saturating_add(written);
            end = after;
        }
        let complete = digits.significant <= SIGNIFICANT_DIGITS_MAX;
        Some((Self { text: &text[at..end], negative, digits: digits.value, exponent, complete }, end))
    }

    /// Reads a text that is one number and nothing else (spaces around it aside).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim_ascii();
        let (number, end) = Self::scan(text, 0, Grammar::Text)?;
        (end == text.len()).then_some(number)
    }

    /// The exact parts, `None` beyond 38 digits.
    pub(crate) fn exact(&self) -> Option<Exact> {
        if !self.complete {
            return self.exact_from_text();
        }
        let digits = i128::from(self.digits);
        Some(Exact { digits: if self.negative { -digits } else { digits }, exponent: self.exponent })
    }

    /// The nearest `f64`.
    pub(crate) fn to_f64(self) -> Result<f64, Misfit> {
        let power = self.exponent.unsigned_abs() as usize;
        let value = if self.complete && self.digits <= 1 << 53 && power < POW10_F64.len() {
            let digits = self.digits as f64;
            let magnitude = if self.exponent < 0 { digits / POW10_F64[power] } else { digits * POW10_F64[power] };
            if self.negative { -magnitude } else { magnitude }
        } else {
            self.text.parse().map_err(|_not_reached| Misfit::Overflow)?
        };
        if value.is_finite() { Ok(value) } else { Err(Misfit::Overflow) }
    }

    /// The nearest `f32`, rounded once.
    pub(crate) fn to_f32(self) -> Result<f32, Misfit> {
        let power = self.exponent.unsigned_abs() as usize;
        let value = if self.complete && self.digits <= 1 << 24 && power < POW10_F32.len() {
            let digits = self.digits as f32;
            let magnitude = if self.exponent < 0 { digits / POW10_F32[power] } else { digits * POW10_F32[power] };
            if self.negative { -magnitude } else { magnitude }
        } else {
            self.text.parse().map_err(|_not_reached| Misfit::Overflow)?
        };
        if value.is_finite() { Ok(value) } else { Err(Misfit::Overflow) }
    }

    /// The integer this is; `12.0` and `1e3` are integers.
    pub(crate) fn to_integer(self) -> Result<i128, Misfit> {
        if self.complete && self.exponent == 0 {
            let digits = i128::from(self.digits);
            return Ok(if self.negative { -digits } else { digits });
        }
        self.exact().ok_or(Misfit::Overflow)?.to_decimal(0, false)
    }

    /// Reads more than 19 significant digits, trailing zeros not counted.
    fn exact_from_text(&self) -> Option<Exact> {
        let mut digits = 0_i128;
        let mut zeros = 0_usize;
        let mut mantissa = self.text.bytes().take_while(|b| !matches!(b, b'e' | b'E'));
        for digit in mantissa.by_ref().filter(u8::is_ascii_digit) {
            zeros += 1;
            if digit != b'0' {
                let shifted = if digits == 0 { 0 } else { digits.checked_mul(*POW10.get(zeros)?)? };
                digits = shifted.checked_add(i128::from(digit - b'0'))?;
                zeros = 0;
            }
        }
        let exponent = self.exponent.saturating_add(i32::try_from(zeros).ok()?);
        Some(Exact { digits: if self.negative { -digits } else { digits }, exponent })
    }
}

impl Plain {
    /// Reads the number at byte `at` by the grammar of JSON and says where it ends; `None` if none starts there, or one of another
    /// kind. `shape` is that of the number before in the same column.
    #[inline(always)]
    pub(crate) fn scan(bytes: &[u8], at: usize, shape: &mut Shape) -> Option<(Self, usize)> {
        shape.read(bytes, at).or_else(|| Self::scan_any(bytes, at, shape))
    }

    fn scan_any(bytes: &[u8], at: usize, shape: &mut Shape) -> Option<(Self, usize)> {
        let negative = bytes.get(at) == Some(&b'-');
        let start = at + usize::from(negative);
        let word = eight::load(bytes, start);
        let whole = eight::digits_count(word);
        if whole == 0 || whole == 8 {
            return Self::scan_long(bytes, start, negative);
        }
        if whole > 1 && word as u8 == b'0' {
            return None;
        }
        let mut end = start + whole as usize;
        let (mut digits, mut scale) = (eight::last_of_eight(word, whole), 0);
        if bytes.get(end) == Some(&b'.') {
            let word = eight::load(bytes, end + 1);
            scale = eight::digits_count(word);
            if scale == 0 || whole + scale > 8 {
                return Self::scan_long(bytes, start, negative);
            }
            // Both sides of the point as one row of eight digits.
            digits = digits >> (scale * 8) | eight::last_of_eight(word, scale);
            end += 1 + scale as usize;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            return None;
        }
        *shape = Shape::new(negative, whole, scale);
        Some((Self { negative, digits: eight::number(digits), scale }, end))
    }

    /// The same for more than eight digits; `start` is behind the sign.
    fn scan_long(bytes: &[u8], start: usize, negative: bool) -> Option<(Self, usize)> {
        let (whole, end) = eight::digits(bytes, start)?;
        let whole_digits = end - start;
        if whole_digits > 1 && bytes[start] == b'0' {
            return None;
        }
        let (mut digits, mut scale, mut stop) = (whole, 0, end);
        if bytes.get(end) == Some(&b'.') {
            let (fraction, fraction_end) = eight::digits(bytes, end + 1)?;
            let fraction_digits = fraction_end - (end + 1);
            if whole_digits + fraction_digits > PLAIN_DIGITS_MAX {
                return None;
            }
            digits = whole * POW10_U64[fraction_digits] + fraction;
            scale = fraction_digits as u32;
            stop = fraction_end;
        }
        let is_plain = !matches!(bytes.get(stop), Some(b'e' | b'E'));
        is_plain.then_some((Self { negative, digits, scale }, stop))
    }

    /// The nearest `f64`, where one division gives it.
    #[inline(always)]
    pub(crate) fn to_f64(self) -> Option<f64> {
        if self.digits > 1 << 53 {
            return None;
        }
        let magnitude = self.digits as f64 / POW10_F64[self.scale as usize];
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The nearest `f32`, where one division gives it.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> Option<f32> {
        let power = POW10_F32.get(self.scale as usize)?;
        if self.digits > 1 << 24 {
            return None;
        }
        let magnitude = self.digits as f32 / power;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The integer, if there is no point.
    #[inline(always)]
    pub(crate) fn to_i64(self) -> Option<i64> {
        let value = i64::try_from(self.digits).ok()?;
        (self.scale == 0).then_some(if self.negative { -value } else { value })
    }

    /// The value in units of 10^-scale, if it has no digits beyond that.
    #[inline(always)]
    pub(crate) fn to_decimal(self, scale: i8) -> Option<i128> {
        let power = u32::try_from(scale).ok()?.checked_sub(self.scale)?;
        let value = i128::from(self.digits.checked_mul(*POW10_U64.get(power as usize)?)?);
        Some(if self.negative { -value } else { value })
    }
}

impl Shape {
    fn new(negative: bool, whole: u32, scale: u32) -> Self {
        Self {
            negative,
            sign_bytes: usize::from(negative),
            whole,
            whole_digits: eight::digits_then_none(whole),
            scale,
            scale_digits: eight::digits_then_none(scale),
        }
    }

    /// Reads a number of this shape; `None` if there is none.
    #[inline(always)]
    fn read(&self, bytes: &[u8], at: usize) -> Option<(Plain, usize)> {
        if (bytes.get(at) == Some(&b'-')) != self.negative {
            return None;
        }
        let start = at + self.sign_bytes;
        let word = eight::load(bytes, start);
        let is_whole = eight::no_digits(word) & self.whole_digits.0 == self.whole_digits.1;
        if !is_whole || (self.whole > 1 && word as u8 == b'0') {
            return None;
        }
        let mut end = start + self.whole as usize;
        let mut digits = eight::last_of_eight(word, self.whole);
        let has_point = bytes.get(end) == Some(&b'.');
        if self.scale > 0 {
            let word = eight::load(bytes, end + 1);
            let is_fraction = eight::no_digits(word) & self.scale_digits.0 == self.scale_digits.1;
            if !has_point || !is_fraction {
                return None;
            }
            digits = digits >> (self.scale * 8) | eight::last_of_eight(word, self.scale);
            end += 1 + self.scale as usize;
        } else if has_point {
            return None;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            return None;
        }
        Some((Plain { negative: self.negative, digits: eight::number(digits), scale: self.scale }, end))
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::new(false, 1, 0)
    }
}

impl Exact {
    /// An integer.
    pub(crate) fn integer(value: i128) -> Self {
        Self { digits: value, exponent: 0 }
    }

    /// The exact product, `None` beyond 38 digits.
    pub(crate) fn times(self, factor: Self) -> Option<Self> {
        Some(Self {
            digits: self.digits.checked_mul(factor.digits)?,
            exponent: self.exponent.saturating_add(factor.exponent),
        })
    }

    /// The value in units of 10^-scale. Digits beyond the scale are refused, or with `round` rounded half away from zero.
    pub(crate) fn to_decimal(self, scale: i32, round: bool) -> Result<i128, Misfit> {
        if self.digits == 0 {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(scale);
        let power = shift.unsigned_abs() as usize;
        if shift >= 0 {
            return POW10.get(power).and_then(|p| self.digits.checked_mul(*p)).ok_or(Misfit::Overflow);
        }
        let Some(divisor) = POW10.get(power) else {
            return if round { Ok(0) } else { Err(Misfit::Inexact) };
        };
        let (quotient, rest) = (self.digits / divisor, self.digits % divisor);
        if rest == 0 {
            return Ok(quotient);
        }
        if !round {
            return Err(Misfit::Inexact);
        }
        let up = rest.abs() >= divisor - rest.abs();
        Ok(if up { quotient + self.digits.signum() } else { quotient })
    }

    /// The nearest `f64`.
    pub(crate) fn to_f64(self) -> Result<f64, Misfit> {
        let power = self.exponent.unsigned_abs() as usize;
        if self.digits.unsigned_abs() <= 1 << 53 && power < POW10_F64.len() {
            // Clinger's fast path, as for a number in text.
            let digits = self.digits as f64;
            return Ok(if self.exponent < 0 { digits / POW10_F64[power] } else { digits * POW10_F64[power] });
        }
        let text = self.to_text();
        Number::scan(&text, 0, Grammar::Json).ok_or(Misfit::Overflow)?.0.to_f64()
    }

    /// The nearest `f32`.
    pub(crate) fn to_f32(self) -> Result<f32, Misfit> {
        let text = self.to_text();
        Number::scan(&text, 0, Grammar::Json).ok_or(Misfit::Overflow)?.0.to_f32()
    }

    fn to_text(self) -> String {
        format!("{}e{}", self.digits, self.exponent)
    }
}

/// 10^precision, the first value that a decimal of that precision cannot hold.
pub(crate) fn decimal_bound(precision: u8) -> i128 {
    POW10[usize::from(precision).min(POW10.len() - 1)]
}

#[derive(Default)]
struct Digits {
    value: u64,
    significant: u32,
}

impl Digits {
    fn take(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            if self.significant > 0 || digit > 0 {
                self.significant += 1;
                if self.significant <= SIGNIFICANT_DIGITS_MAX {
                    self.value = self.value * 10 + u64::from(digit);
                }
            }
            at += 1;
        }
        at
    }
}

fn scan_exponent(bytes: &[u8], mut at: usize) -> Option<(i32, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    if matches!(bytes.get(at), Some(b'-' | b'+')) {
        at += 1;
    }
    let start = at;
    let mut value = 0_i32;
    while let Some(digit) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
        value = (value * 10 + i32::from(digit - b'0')).min(EXPONENT_MAX);
        at += 1;
    }
    (at > start).then_some((if negative { -value } else { value }, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number<'_> {
        Number::parse(text).unwrap()
    }

    #[test]
    fn decimals_are_exact_and_round_half_away_from_zero() {
        for (text, scale, round, want) in [
            ("0.00543", 5, false, Ok(543)),
            ("0.00543", 4, false, Err(Misfit::Inexact)),
            ("0.00543", 4, true, Ok(54)),
            ("0.00545", 4, true, Ok(55)),
            ("-0.00545", 4, true, Ok(-55)),
            ("0.00544999999999999999999999999", 4, true, Ok(54)),
            ("12.500000000000000000000000000000000", 1, false, Ok(125)),
            ("1e3", 0, false, Ok(1000)),
            ("1.5e-3", 4, false, Ok(15)),
            ("000123.40", 2, false, Ok(12_340)),
            ("1e50", 0, false, Err(Misfit::Overflow)),
            ("0e999999999", 0, false, Ok(0)),
            ("1e-999999999", 4, true, Ok(0)),
            ("12345678901234567890.1234", 4, false, Ok(123_456_789_012_345_678_901_234)),
        ] {
            assert_eq!(number(text).exact().unwrap().to_decimal(scale, round), want, "{text}");
        }
    }

    #[test]
    fn a_factor_is_applied_before_rounding_to_a_float() {
        let factor = number("0.1").exact().unwrap();
        let scaled = number("2354").exact().unwrap().times(factor).unwrap();
        assert_eq!(scaled.to_f64(), Ok(235.4));
        assert_eq!(scaled.to_decimal(1, false), Ok(2354));
    }

    #[test]
    fn grammars_differ_only_in_plus_and_leading_zeros() {
        for (text, json, plain) in [
            ("1", true, true),
            ("-0.5", true, true),
            ("+1", false, true),
            ("007", false, true),
            (".5", false, false),
            ("5.", false, false),
            ("1e", false, false),
            ("--1", false, false),
            ("NaN", false, false),
            ("", false, false),
            ("0x10", false, false),
        ] {
            let whole = |grammar| Number::scan(text, 0, grammar).is_some_and(|(_, end)| end == text.len());
            assert_eq!((whole(Grammar::Json), whole(Grammar::Text)), (json, plain), "{text}");
        }
    }

    proptest! {
        #[test]
        fn floats_are_correctly_rounded(digits in "[0-9]{1,25}", fraction in "[0-9]{1,25}", exponent in -30_i32..30) {
            let text = format!("{digits}.{fraction}e{exponent}");
            prop_assert_eq!(number(&text).to_f64(), Ok(text.parse::<f64>().unwrap()));
            let narrow = text.parse::<f32>().unwrap();
            let want = if narrow.is_finite() { Ok(narrow) } else { Err(Misfit::Overflow) };
            prop_assert_eq!(number(&text).to_f32(), want);
        }

        #[test]
        fn integers_survive(value: i64) {
            prop_assert_eq!(number(&value.to_string()).to_integer(), Ok(i128::from(value)));
            prop_assert_eq!(number(&format!("{value}.000")).to_integer(), Ok(i128::from(value)));
        }
    }
}
