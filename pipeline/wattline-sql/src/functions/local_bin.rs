//! Windows of local days and months: `local_bin_start` and `local_bin_end`.
//!
//! `local_bin_start(interval, instant, zone [, first_date])` is the local midnight at which the bin of the instant begins,
//! `local_bin_end` that at which it ends. The interval is a number of days or of months, counted from 1970-01-01 or from
//! `first_date`; the zone is an IANA name such as `Europe/Berlin`. A day on which the clock is changed has 23 or 25
//! hours. Where a midnight does not exist the day begins with its first moment; where it comes twice, with the first.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Date32Type, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone};
use datafusion::common::{ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Which end of the bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Edge {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LocalBin {
    edge: Edge,
    signature: Signature,
}

impl LocalBin {
    pub(super) fn new(edge: Edge) -> Self {
        Self { edge, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for LocalBin {
    fn name(&self) -> &str {
        match self.edge {
            Edge::Start => "local_bin_start",
            Edge::End => "local_bin_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let zone = match arg_types {
            [_, DataType::Timestamp(_, Some(zone)), _] | [_, DataType::Timestamp(_, Some(zone)), _, _] => zone.clone(),
            _ => return plan_err!("{} takes an interval, an instant, a time zone and perhaps a date", self.name()),
        };
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some(zone));
        let mut types = vec![DataType::Interval(IntervalUnit::MonthDayNano), instant, DataType::Utf8, DataType::Date32];
        types.truncate(arg_types.len());
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bins = LocalBins::of(&args.args)?;
        let arrays = ColumnarValue::values_to_arrays(&args.args[1..2])?;
        let instants = arrays[0].as_primitive::<TimestampMicrosecondType>();
        // Events come in the order of time, more or less: most fall into the bin of the one before.
        let mut last: Option<(i64, i64)> = None;
        let mut edges: Vec<Option<i64>> = Vec::with_capacity(instants.len());
        for instant in instants {
            let Some(instant) = instant else {
                edges.push(None);
                continue;
            };
            let bin = match last.filter(|(start, end)| (*start..*end).contains(&instant)) {
                Some(bin) => bin,
                None => bins.around(instant)?,
            };
            last = Some(bin);
            edges.push(Some(if self.edge == Edge::Start { bin.0 } else { bin.1 }));
        }
        let edges = TimestampMicrosecondArray::from(edges).with_data_type(instants.data_type().clone());
        Ok(ColumnarValue::Array(Arc::new(edges) as ArrayRef))
    }
}

/// Whether these literals are windows of local time.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check_local_windows(size: &ScalarValue, zone: &ScalarValue, first: Option<&ScalarValue>) -> Result<()> {
    let zone = zone.cast_to(&DataType::Utf8)?;
    let first = first.map(|first| first.cast_to(&DataType::Date32)).transpose()?;
    let args = [Some(size.clone()), Some(ScalarValue::Null), Some(zone), first];
    let args: Vec<ColumnarValue> = args.into_iter().flatten().map(ColumnarValue::Scalar).collect();
    LocalBins::of(&args).map(|_bins| ())
}

/// Bins of whole local days or months.
struct LocalBins {
    zone: Tz,
    months: i32,
    days: i64,
    first: NaiveDate,
}

impl LocalBins {
    fn of(args: &[ColumnarValue]) -> Result<Self> {
        let (months, days) = match &args[0] {
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(size))) if size.nanoseconds == 0 => {
                (size.months, i64::from(size.days))
            }
            _ => (0, 0),
        };
        if (months > 0) == (days > 0) || months < 0 || days < 0 {
            return exec_err!("a window of local time is a number of days or of months, as `INTERVAL '1 day'`");
        }
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(zone))) = &args[2] else {
            return exec_err!("the time zone is no text literal");
        };
        let zone = zone.parse::<Tz>();
        let zone = zone.map_err(|_unknown| exec_datafusion_err!("there is no time zone of that name"))?;
        let first = match args.get(3) {
            None => NaiveDate::default(),
            Some(date) => {
                let date = ColumnarValue::values_to_arrays(std::slice::from_ref(date))?;
                let date = date[0].as_primitive::<Date32Type>().value_as_date(0);
                date.ok_or_else(|| exec_datafusion_err!("the first date is none"))?
            }
        };
        Ok(Self { zone, months, days, first })
    }

    /// Start and end of the bin that holds the instant.
    fn around(&self, instant: i64) -> Result<(i64, i64)> {
        let out_of_range = || exec_datafusion_err!("the instant {instant} is outside the calendar");
        let utc = DateTime::from_timestamp_micros(instant).ok_or_else(out_of_range)?;
        let date = utc.with_timezone(&self.zone).date_naive();
        let number = match self.months {
            0 => date.signed_duration_since(self.first).num_days().div_euclid(self.days),
            months => {
                (i64::from(month_number(date)) - i64::from(month_number(self.first))).div_euclid(i64::from(months))
            }
        };
        let start = self.midnight(number).ok_or_else(out_of_range)?;
        // A midnight that does not exist begins its day later, so an instant just after it may still be of the day before.
        if start > instant {
            return Ok((self.midnight(number - 1).ok_or_else(out_of_range)?, start));
        }
        Ok((start, self.midnight(number + 1).ok_or_else(out_of_range)?))
    }

    /// The first moment of a bin.
    fn midnight(&self, number: i64) -> Option<i64> {
        let date = if self.months == 0 {
            let days = number.checked_mul(self.days)?;
            let shift = Days::new(days.unsigned_abs());
            if days < 0 { self.first.checked_sub_days(shift)? } else { self.first.checked_add_days(shift)? }
        } else {
            let month = i64::from(month_number(self.first)).checked_add(number.checked_mul(i64::from(self.months))?)?;
            let year = i32::try_from(month.div_euclid(12)).ok()?;
            NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).ok()? + 1, 1)?
        };
        self.instant_of(date.and_time(NaiveTime::MIN))
    }

    fn instant_of(&self, local: NaiveDateTime) -> Option<i64> {
        let mut at = local;
        for _quarter in 0..=24 * 4 {
            match self.zone.from_local_datetime(&at) {
                LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => {
                    return Some(instant.timestamp_micros());
                }
                LocalResult::None => at = at.checked_add_signed(TimeDelta::minutes(15))?,
            }
        }
        None
    }
}

/// Months since the year 0.
fn month_number(date: NaiveDate) -> i32 {
    date.year() * 12 + i32::try_from(date.month0()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(zone: &str, months: i32, days: i64, first: &str, instant: &str) -> (String, i64) {
        let bins = LocalBins { zone: zone.parse().unwrap(), months, days, first: first.parse().unwrap() };
        let instant = instant.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_micros();
        let (start, end) = bins.around(instant).unwrap();
        assert!(start <= instant && instant < end);
        (DateTime::from_timestamp_micros(start).unwrap().to_rfc3339(), (end - start) / 3_600_000_000)
    }

    #[test]
    fn days_have_the_hours_that_they_have() {
        let day = |instant| hours("Europe/Berlin", 0, 1, "1970-01-01", instant);
        assert_eq!(day("2026-03-29T10:00:00Z"), ("2026-03-28T23:00:00+00:00".into(), 23), "clocks go forward");
        assert_eq!(day("2026-10-25T10:00:00Z"), ("2026-10-24T22:00:00+00:00".into(), 25), "clocks go back");
        assert_eq!(day("2026-01-01T22:59:59Z"), ("2025-12-31T23:00:00+00:00".into(), 24));
        assert_eq!(hours("Asia/Shanghai", 0, 1, "1970-01-01", "2026-03-01T16:00:00Z").0, "2026-03-01T16:00:00+00:00");
        let beirut = hours("Asia/Beirut", 0, 1, "1970-01-01", "2024-03-31T12:00:00Z");
        assert_eq!(beirut, ("2024-03-30T22:00:00+00:00".into(), 23), "this midnight does not exist");
        assert_eq!(hours("Asia/Beirut", 0, 1, "1970-01-01", "2024-03-30T21:59:00Z").1, 24);
    }

    #[test]
    fn months_and_weeks() {
        let month = |instant| hours("Europe/Berlin", 1, 0, "1970-01-01", instant);
        assert_eq!(month("2026-02-10T00:00:00Z"), ("2026-01-31T23:00:00+00:00".into(), 28 * 24));
        assert_eq!(month("2026-03-31T21:59:00Z"), ("2026-02-28T23:00:00+00:00".into(), 31 * 24 - 1));
        assert_eq!(hours("UTC", 3, 0, "1970-01-01", "2026-05-01T00:00:00Z").0, "2026-04-01T00:00:00+00:00");
        let week = hours("UTC", 0, 7, "1970-01-05", "2026-03-01T12:00:00Z");
        assert_eq!(week, ("2026-02-23T00:00:00+00:00".into(), 168), "weeks from Monday");
        assert_eq!(hours("UTC", 0, 7, "1970-01-05", "1969-12-31T00:00:00Z").0, "1969-12-29T00:00:00+00:00");
    }
}
