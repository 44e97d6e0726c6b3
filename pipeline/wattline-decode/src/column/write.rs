//! Conversion of one value into a column: from text, from a number, from a boolean.
//!
//! Numbers written as text are numbers; a text column takes a number as it was written (meter ids often lose their
//! quotes). Nothing is rounded unless the mapping says so, and no value is replaced: what does not fit is refused.

use super::{Column, Treatment, Unfit, Values};
use crate::dead_letter::Reason;
use crate::instant::{NotInstant, date_in_range, in_range, instant_from_count, parse_date, parse_instant};
use crate::number::{Exact, Misfit, Number, decimal_bound};

/// Offset of the zone in which an instant was written, if it was.
pub(crate) type Zone = Option<i32>;

impl Column {
    /// Appends a value given as text. Lists and maps are not text: their callers take them apart.
    #[inline]
    pub(crate) fn write_text(&mut self, text: &str, treatment: &Treatment) -> Result<Zone, Unfit> {
        let mut zone = None;
        match &mut self.values {
            Values::Text(texts) => texts.push(text)?,
            Values::Symbol { texts, symbols } => {
                if !symbols.iter().any(|symbol| **symbol == *text) {
                    return Err(Unfit { reason: Reason::UnknownSymbol, wanted: "one of the schema's symbols" });
                }
                texts.push(text)?;
            }
            Values::Instant(values) => {
                let instant = parse_instant(text).map_err(unfit_instant)?;
                zone = instant.offset_min;
                values.push(instant.us);
            }
            Values::Date(values) => values.push(parse_date(text).ok_or(wrong_type(WANT_DATE))?),
            Values::Boolean(bits) => bits.append(parse_boolean(text).ok_or(wrong_type(WANT_BOOLEAN))?),
            Values::List { .. } => return Err(wrong_type(WANT_LIST)),
            Values::Map { .. } => return Err(wrong_type(WANT_MAP)),
            Values::Int32(_) | Values::Int64(_) | Values::Float32(_) | Values::Float64(_) | Values::Decimal { .. } => {
                let number = Number::parse(text).ok_or(wrong_type(WANT_NUMBER))?;
                return self.write_number(number, treatment).map(|()| None);
            }
        }
        self.validity.append_value();
        Ok(zone)
    }

    /// Appends a value given as a number.
    #[inline]
    pub(crate) fn write_number(&mut self, number: Number<'_>, treatment: &Treatment) -> Result<(), Unfit> {
        match (&mut self.values, &treatment.factor) {
            (Values::Float64(values), None) => {
                values.push(number.to_f64().map_err(|misfit| unfit_number(misfit, WANT_F64))?);
            }
            (Values::Float32(values), None) => {
                values.push(number.to_f32().map_err(|misfit| unfit_number(misfit, WANT_F32))?);
            }
            (Values::Text(texts), _) => texts.push(number.text)?,
            (Values::Int32(_) | Values::Int64(_) | Values::Instant(_) | Values::Date(_) | Values::Boolean(_), None) => {
                let value = number.to_integer().map_err(|misfit| unfit_number(misfit, WANT_INTEGER))?;
                return self.write_integer(value);
            }
            (Values::Symbol { .. }, _) => return Err(wrong_type(WANT_SYMBOL)),
            (_, _) => {
                let exact = number.exact().ok_or(OUT_OF_DIGITS)?;
                return self.write_exact(exact, treatment);
            }
        }
        self.validity.append_value();
        Ok(())
    }

    /// Appends a value given as an exact number.
    pub(crate) fn write_exact(&mut self, exact: Exact, treatment: &Treatment) -> Result<(), Unfit> {
        let exact = match &treatment.factor {
            Some(factor) => exact.times(**factor).ok_or(OUT_OF_DIGITS)?,
            None => exact,
        };
        match &mut self.values {
            Values::Decimal { values, precision, scale } => {
                let value = exact
                    .to_decimal(i32::from(*scale), treatment.round)
                    .map_err(|misfit| unfit_number(misfit, WANT_DECIMAL))?;
                if value.abs() >= decimal_bound(*precision) {
                    return Err(unfit_number(Misfit::Overflow, WANT_DECIMAL));
                }
                values.push(value);
            }
            Values::Float64(values) => values.push(exact.to_f64().map_err(|misfit| unfit_number(misfit, WANT_F64))?),
            Values::Float32(values) => values.push(exact.to_f32().map_err(|misfit| unfit_number(misfit, WANT_F32))?),
            Values::Int32(_) | Values::Int64(_) | Values::Instant(_) | Values::Date(_) | Values::Boolean(_) => {
                let value = exact.to_decimal(0, false).map_err(|misfit| unfit_number(misfit, WANT_INTEGER))?;
                return self.write_integer(value);
            }
            Values::Text(_) => return Err(wrong_type(WANT_TEXT)),
            Values::Symbol { .. } => return Err(wrong_type(WANT_SYMBOL)),
            Values::List { .. } => return Err(wrong_type(WANT_LIST)),
            Values::Map { .. } => return Err(wrong_type(WANT_MAP)),
        }
        self.validity.append_value();
        Ok(())
    }

    /// Takes note that a value has been appended to the storage.
    #[inline]
    pub(crate) fn note_value(&mut self) {
        self.validity.append_value();
    }

    /// Appends a boolean.
    pub(crate) fn write_boolean(&mut self, value: bool) -> Result<(), Unfit> {
        let Values::Boolean(bits) = &mut self.values else {
            return Err(wrong_type(self.wanted()));
        };
        bits.append(value);
        self.validity.append_value();
        Ok(())
    }

    /// Appends an instant in microseconds since the epoch.
    pub(crate) fn write_instant_us(&mut self, us: i64) -> Result<(), Unfit> {
        let Values::Instant(values) = &mut self.values else {
            return Err(wrong_type(self.wanted()));
        };
        values.push(in_range(us).ok_or(unfit_number(Misfit::Overflow, WANT_INSTANT))?);
        self.validity.append_value();
        Ok(())
    }

    /// Appends a null to the items of a list or map.
    pub(crate) fn write_null_item(&mut self) -> Result<(), Unfit> {
        if !self.nullable {
            return Err(wrong_type("a value: the schema does not allow null inside"));
        }
        self.pad_to(self.len() + 1);
        Ok(())
    }

    /// Closes a list or map whose items have been written.
    pub(crate) fn close(&mut self) -> Result<(), Unfit> {
        let (ends, count) = match &mut self.values {
            Values::List { ends, items } => (ends, items.len()),
            Values::Map { ends, values, .. } => (ends, values.len()),
            _ => return Err(wrong_type(self.wanted())),
        };
        ends.push(i32::try_from(count).map_err(|_overflow| Unfit { reason: Reason::TooLarge, wanted: WANT_LIST })?);
        self.validity.append_value();
        Ok(())
    }

    /// Appends the key of a map entry; each key once.
    pub(crate) fn write_key(&mut self, key: &str) -> Result<(), Unfit> {
        let Values::Map { ends, keys, .. } = &mut self.values else {
            return Err(wrong_type(self.wanted()));
        };
        let start = super::last_end(ends);
        if keys.contains_from(start, key) {
            return Err(Unfit { reason: Reason::DuplicateField, wanted: "a map with each key once" });
        }
        keys.push(key)
    }

    /// What this column takes, in words.
    pub(crate) fn wanted(&self) -> &'static str {
        match &self.values {
            Values::Boolean(_) => WANT_BOOLEAN,
            Values::Int32(_) | Values::Int64(_) => WANT_INTEGER,
            Values::Float32(_) | Values::Float64(_) => WANT_NUMBER,
            Values::Decimal { .. } => WANT_NUMBER,
            Values::Text(_) => WANT_TEXT,
            Values::Symbol { .. } => WANT_SYMBOL,
            Values::Instant(_) => WANT_INSTANT,
            Values::Date(_) => WANT_DATE,
            Values::List { .. } => WANT_LIST,
            Values::Map { .. } => WANT_MAP,
        }
    }

    fn write_integer(&mut self, value: i128) -> Result<(), Unfit> {
        let overflow = unfit_number(Misfit::Overflow, "within the range of the column's integer type");
        match &mut self.values {
            Values::Int32(values) => values.push(i32::try_from(value).map_err(|_too_large| overflow)?),
            Values::Int64(values) => values.push(i64::try_from(value).map_err(|_too_large| overflow)?),
            Values::Instant(values) => {
                values.push(instant_from_count(value).map_err(|misfit| unfit_number(misfit, WANT_INSTANT))?);
            }
            Values::Date(values) => {
                let day = i32::try_from(value).ok().and_then(date_in_range);
                values.push(day.ok_or(unfit_number(Misfit::Overflow, WANT_DATE))?);
            }
            Values::Boolean(bits) => bits.append(match value {
                0 => false,
                1 => true,
                _ => return Err(wrong_type(WANT_BOOLEAN)),
            }),
            _ => return Err(wrong_type(self.wanted())),
        }
        self.validity.append_value();
        Ok(())
    }
}

const WANT_BOOLEAN: &str = "true or false";
const WANT_NUMBER: &str = "a number";
const WANT_INTEGER: &str = "a whole number";
const WANT_DECIMAL: &str = "a decimal with so few digits as the schema has";
const WANT_F64: &str = "within the range of a 64-bit float";
const WANT_F32: &str = "within the range of a 32-bit float";
const WANT_TEXT: &str = "text";
const WANT_SYMBOL: &str = "one of the schema's symbols";
const WANT_INSTANT: &str = "an instant in the years 1 to 9999 (RFC 3339 with zone, or epoch milliseconds)";
const WANT_DATE: &str = "a date such as `2026-03-01`";
const WANT_LIST: &str = "a list";
const WANT_MAP: &str = "an object of texts";

const OUT_OF_DIGITS: Unfit = Unfit { reason: Reason::OutOfRange, wanted: "a number of at most 38 digits" };

/// The refusal of a value of the wrong type.
pub(crate) fn wrong_type(wanted: &'static str) -> Unfit {
    Unfit { reason: Reason::WrongType, wanted }
}

fn unfit_number(misfit: Misfit, wanted: &'static str) -> Unfit {
    let reason = match misfit {
        Misfit::Overflow => Reason::OutOfRange,
        Misfit::Inexact => Reason::NotExact,
    };
    Unfit { reason, wanted }
}

fn unfit_instant(why: NotInstant) -> Unfit {
    match why {
        NotInstant::Syntax => wrong_type(WANT_INSTANT),
        NotInstant::NoZone => {
            Unfit { reason: Reason::MissingZone, wanted: "an instant with its zone (`Z` or `+08:00`)" }
        }
        NotInstant::OutOfRange => Unfit { reason: Reason::OutOfRange, wanted: WANT_INSTANT },
    }
}

fn parse_boolean(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case("true") || text == "1" {
        return Some(true);
    }
    (text.eq_ignore_ascii_case("false") || text == "0").then_some(false)
}
