//! Eight bytes at once: how many of them are digits, what number they are, where a string ends.
//!
//! A register holds eight bytes of text, and a few operations on it answer what a loop would ask byte by byte, without the
//! branch that a processor guesses wrong at the end of each number. Bytes behind the end of the text read as zero, which is
//! neither a digit nor a part of a string, so no caller has to ask how much text is left.
//!
//! In every register the first byte of the text is the lowest one.

/// 10^k for every k that a `u64` can hold.
pub(crate) const POW10_U64: [u64; 20] = {
    let mut table = [1_u64; 20];
    let mut k = 1;
    while k < 20 {
        table[k] = table[k - 1] * 10;
        k += 1;
    }
    table
};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight bytes at `at`.
#[inline(always)]
pub(crate) fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => load_end(bytes, at),
    }
}

/// The same where fewer than eight bytes are left.
#[cold]
fn load_end(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// How many digits the word begins with, 0 to 8.
#[inline(always)]
pub(crate) fn digits_count(word: u64) -> u32 {
    no_digits(word).trailing_zeros() / 8
}

/// The high bits of the bytes that are no digits; right up to and with the first.
#[inline(always)]
pub(crate) fn no_digits(word: u64) -> u64 {
    let values = word ^ ZEROS;
    // A byte above 9 gets its high bit set; one that had it already keeps it. Only bytes above the first such get a carry.
    (values.wrapping_add(0x7676_7676_7676_7676) | values) & HIGH_BITS
}

/// What [`no_digits`] says of a word that begins with `count` digits, at most 7, and no more: which of its bits tell that, and
/// which of these are set.
pub(crate) fn digits_then_none(count: u32) -> (u64, u64) {
    let last = 0x80 << (count * 8);
    (last | (last - 1), last)
}

/// The first `count` digits of the word, at least one, as the last of eight, zeros in front.
#[inline(always)]
pub(crate) fn last_of_eight(word: u64, count: u32) -> u64 {
    (word ^ ZEROS) << (64 - count * 8)
}

/// The first `count` digits as the first of eight, zeros behind them: the fraction that they are, in units of 10^-8.
#[inline(always)]
pub(crate) fn fraction_value(word: u64, count: u32) -> u64 {
    let kept = if count >= 8 { u64::MAX } else { (1 << (count * 8)) - 1 };
    number((word ^ ZEROS) & kept)
}

/// Eight digits, given as their values, as one number: pairs, then pairs of pairs, then both halves.
#[inline(always)]
pub(crate) fn number(values: u64) -> u64 {
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let mask = 0x0000_00FF_0000_00FF;
    let first = (pairs & mask).wrapping_mul(0x000F_4240_0000_0064);
    let second = (pairs >> 16 & mask).wrapping_mul(0x0000_2710_0000_0001);
    first.wrapping_add(second) >> 32
}

/// The number that the digits at `at` are and where they end; `None` if there is no digit, or more than 16.
pub(crate) fn digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = load(bytes, at);
    let count = digits_count(word);
    if count == 0 {
        return None;
    }
    let value = number(last_of_eight(word, count));
    if count < 8 {
        return Some((value, at + count as usize));
    }
    let word = load(bytes, at + 8);
    let more = digits_count(word);
    if more == 0 {
        return Some((value, at + 8));
    }
    if more == 8 && bytes.get(at + 16).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    Some((value * POW10_U64[more as usize] + number(last_of_eight(word, more)), at + 8 + more as usize))
}

/// Where, from `at` on, the next quote, backslash or control character is; the end of the text if there is none.
#[inline(always)]
pub(crate) fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let marks = marks(load(bytes, at));
        if marks != 0 {
            return (at + (marks.trailing_zeros() / 8) as usize).min(bytes.len());
        }
        at += 8;
    }
}

/// The high bits of the bytes that end the plain part of a string; right up to and with the first.
#[inline(always)]
fn marks(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quotes = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslashes = is_zero(word ^ (ONES * u64::from(b'\\')));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_behind_the_end_is_no_digit_and_ends_a_string() {
        assert_eq!(digits(b"", 0), None);
        assert_eq!(digits(b"x1", 5), None);
        assert_eq!(digits(b"x12", 1), Some((12, 3)));
        assert_eq!(string_end(b"abc", 0), 3);
        assert_eq!(string_end(b"abcdefgh", 0), 8);
    }

    proptest! {
        #[test]
        fn digits_are_those_of_a_loop(text in "[0-9]{0,20}[^0-9]{0,2}[0-9]{0,9}", at in 0_usize..6) {
            let bytes = text.as_bytes();
            let rest = bytes.get(at..).unwrap_or_default();
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let want = std::str::from_utf8(&rest[..count]).unwrap().parse::<u64>().ok()
                .filter(|_| count <= 16).map(|value| (value, at + count));
            prop_assert_eq!(digits(bytes, at), want);
        }

        #[test]
        fn a_fraction_is_padded_behind(text in "[0-9]{8}", count in 0_u32..=8) {
            let padded = format!("{:0<8}", &text[..count as usize]);
            prop_assert_eq!(fraction_value(load(text.as_bytes(), 0), count), padded.parse::<u64>().unwrap());
        }

        #[test]
        fn strings_end_where_a_loop_says(bytes in proptest::collection::vec(any::<u8>(), 0..40), at in 0_usize..8) {
            let at = at.min(bytes.len());
            let end = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(string_end(&bytes, at), end.map_or(bytes.len(), |length| at + length));
        }
    }
}
