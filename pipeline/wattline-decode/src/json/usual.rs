//! Values as nearly all payloads write them, read and appended in one step.
//!
//! A number without exponent, a string without escapes, an instant as `2026-03-02T00:00:00.000+08:00`: each is read eight bytes at
//! a time, straight into the column of its type. Anything else, and anything that does not fit, is left alone: then
//! [`Column::write_usual`] has changed nothing, and the way through [`write_value`](super::value) decides what it is. So this is
//! never more than a shortcut, and what is refused, and why, is decided in one place.
//!
//! What it must hold to, by the tests in `differential`: where it answers, it answers what the other way does.

use crate::column::{Column, Treatment, Values, Zone};
use crate::eight;
use crate::instant::{DayMemory, instant_from_count};
use crate::number::{Plain, decimal_bound};

impl Column {
    /// Appends the value at `at`, if it is written as usual and fits; returns the zone it names and where it ends.
    #[inline(always)]
    pub(super) fn write_usual(
        &mut self,
        bytes: &[u8],
        at: usize,
        treatment: &Treatment,
        days: &mut DayMemory,
    ) -> Option<(Zone, usize)> {
        if treatment.factor.is_some() {
            return None;
        }
        let mut zone = None;
        let end = match &mut self.values {
            Values::Float64(values) => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                values.push(number.to_f64()?);
                end
            }
            Values::Decimal { values, precision, scale } => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                let value = number.to_decimal(*scale)?;
                if value.abs() >= decimal_bound(*precision) {
                    return None;
                }
                values.push(value);
                end
            }
            Values::Text(texts) => {
                let (start, end) = plain_text(bytes, at)?;
                texts.push_part(bytes, start, end)?;
                end + 1
            }
            Values::Instant(values) if bytes.get(at) == Some(&b'"') => {
                let (instant, end) = days.usual_instant(bytes, at + 1)?;
                if bytes.get(end) != Some(&b'"') {
                    return None;
                }
                values.push(instant.us);
                zone = instant.offset_min;
                end + 1
            }
            Values::Instant(values) => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                values.push(instant_from_count(i128::from(number.to_i64()?)).ok()?);
                end
            }
            Values::Int64(values) => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                values.push(number.to_i64()?);
                end
            }
            Values::Int32(values) => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                values.push(i32::try_from(number.to_i64()?).ok()?);
                end
            }
            Values::Float32(values) => {
                let (number, end) = Plain::scan(bytes, at, &mut self.shape)?;
                values.push(number.to_f32()?);
                end
            }
            Values::Symbol { texts, symbols } => {
                let (start, end) = plain_text(bytes, at)?;
                if !symbols.iter().any(|symbol| symbol.as_bytes() == &bytes[start..end]) {
                    return None;
                }
                texts.push_part(bytes, start, end)?;
                end + 1
            }
            Values::Boolean(_) | Values::Date(_) | Values::List { .. } | Values::Map { .. } => return None,
        };
        self.note_value();
        Some((zone, end))
    }
}

/// Where the string at `at` begins and ends between its quotes, if it has no escapes and nothing that must not be in a string.
#[inline(always)]
fn plain_text(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let end = eight::string_end(bytes, at + 1);
    (bytes.get(end) == Some(&b'"')).then_some((at + 1, end))
}
