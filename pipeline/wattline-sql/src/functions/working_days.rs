//! Working days, for deadlines that laws and service promises count in them.
//!
//! `add_working_days(date, days, holidays [, worked])`: the date so many working days later. `working_days_between(from, to,
//! holidays [, worked])`: how many lie after `from`, up to and with `to`. Saturdays, Sundays and `holidays` are no working days;
//! days in `worked` are, whatever they are otherwise: the make-up days of the Chinese calendar. Dates are local ones: cast an
//! instant `AT TIME ZONE` first. NULL in, NULL out; NULLs within the lists do not matter.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, ListArray};
use arrow::datatypes::{DataType, Date32Type, Field};
use datafusion::common::cast::{as_date32_array, as_int64_array, as_list_array};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The most days that are looked at for one row: a century.
const DAYS_MAX: i64 = 36_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Add,
    Between,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WorkingDays {
    kind: Kind,
    signature: Signature,
}

pub(super) fn all() -> [WorkingDays; 2] {
    [Kind::Add, Kind::Between]
        .map(|kind| WorkingDays { kind, signature: Signature::user_defined(Volatility::Immutable) })
}

impl ScalarUDFImpl for WorkingDays {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Add => "add_working_days",
            Kind::Between => "working_days_between",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let days = DataType::List(Arc::new(Field::new_list_field(DataType::Date32, true)));
        let second = if self.kind == Kind::Add { DataType::Int64 } else { DataType::Date32 };
        match arg_types.len() {
            3 => Ok(vec![DataType::Date32, second, days]),
            4 => Ok(vec![DataType::Date32, second, days.clone(), days]),
            other => plan_err!("{} takes 3 values, or 4 with the days that are worked, not {other}", self.name()),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(if self.kind == Kind::Add { DataType::Date32 } else { DataType::Int64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let from = as_date32_array(&arrays[0])?;
        let mut calendar =
            Calendar::new(as_list_array(&arrays[2])?, arrays.get(3).map(|worked| as_list_array(worked)).transpose()?);
        let result: ArrayRef = match self.kind {
            Kind::Add => {
                let days = as_int64_array(&arrays[1])?;
                let mut due = Vec::with_capacity(from.len());
                for row in 0..from.len() {
                    let known = from.is_valid(row) && days.is_valid(row) && calendar.is_known(row);
                    due.push(if known { Some(calendar.at(row).add(from.value(row), days.value(row))?) } else { None });
                }
                Arc::new(Date32Array::from(due))
            }
            Kind::Between => {
                let to = as_date32_array(&arrays[1])?;
                let mut counts = Vec::with_capacity(from.len());
                for row in 0..from.len() {
                    let known = from.is_valid(row) && to.is_valid(row) && calendar.is_known(row);
                    counts.push(if known {
                        Some(calendar.at(row).count(from.value(row), to.value(row))?)
                    } else {
                        None
                    });
                }
                Arc::new(Int64Array::from(counts))
            }
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// The calendars of the rows; most often all rows have the same, which is read once.
struct Calendar<'a> {
    holidays: &'a ListArray,
    worked: Option<&'a ListArray>,
    read: Option<(ArrayRef, Option<ArrayRef>, Days)>,
}

/// Days since 1970-01-01 that are not as their weekday says.
#[derive(Debug, Default)]
struct Days {
    holidays: HashSet<i32>,
    worked: HashSet<i32>,
}

impl<'a> Calendar<'a> {
    fn new(holidays: &'a ListArray, worked: Option<&'a ListArray>) -> Self {
        Self { holidays, worked, read: None }
    }

    fn is_known(&self, row: usize) -> bool {
        self.holidays.is_valid(row) && self.worked.is_none_or(|worked| worked.is_valid(row))
    }

    fn at(&mut self, row: usize) -> &Days {
        let (holidays, worked) = (self.holidays.value(row), self.worked.map(|worked| worked.value(row)));
        let is_same = |(a, b, _): &(ArrayRef, Option<ArrayRef>, Days)| {
            a.as_ref() == holidays.as_ref() && b.as_deref() == worked.as_deref()
        };
        self.read = self.read.take().filter(is_same);
        let (_, _, days) = self.read.get_or_insert_with(|| {
            let set = |list: &ArrayRef| list.as_primitive::<Date32Type>().iter().flatten().collect();
            let days = Days { holidays: set(&holidays), worked: worked.as_ref().map(set).unwrap_or_default() };
            (holidays, worked, days)
        });
        days
    }
}

impl Days {
    fn is_working(&self, day: i32) -> bool {
        // 1970-01-01 was a Thursday.
        let weekday = (i64::from(day) + 3).rem_euclid(7);
        self.worked.contains(&day) || (weekday < 5 && !self.holidays.contains(&day))
    }

    fn add(&self, from: i32, days: i64) -> Result<i32> {
        let (step, mut left) = (if days < 0 { -1 } else { 1 }, days.unsigned_abs());
        let mut day = from;
        for _day in 0..DAYS_MAX {
            if left == 0 {
                return Ok(day);
            }
            day = day.saturating_add(step);
            left -= u64::from(self.is_working(day));
        }
        exec_err!("{days} working days are more than a century")
    }

    fn count(&self, from: i32, to: i32) -> Result<i64> {
        if (i64::from(to) - i64::from(from)).abs() > DAYS_MAX {
            return exec_err!("working_days_between counts a century at most");
        }
        let working = |days: std::ops::Range<i32>| days.filter(|day| self.is_working(day + 1)).count();
        let count = |days| i64::try_from(working(days)).unwrap_or(i64::MAX);
        Ok(if to >= from { count(from..to) } else { -count(to..from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-28, a Monday.
    const MONDAY: i32 = 20_724;

    fn golden_week(worked: &[i32]) -> Days {
        Days { holidays: (MONDAY + 3..MONDAY + 10).collect(), worked: worked.iter().copied().collect() }
    }

    #[test]
    fn a_deadline_goes_around_the_holidays() {
        let days = golden_week(&[]);
        // Accepted on 28 September, five working days: 12 October.
        assert_eq!(days.add(MONDAY, 5).unwrap(), MONDAY + 14);
        assert_eq!(days.count(MONDAY, MONDAY + 14).unwrap(), 5);
        assert_eq!(days.count(MONDAY, MONDAY + 15).unwrap(), 6);
        assert_eq!(days.count(MONDAY + 14, MONDAY).unwrap(), -5);
        assert_eq!(days.add(MONDAY + 14, -5).unwrap(), MONDAY);
        assert_eq!(days.add(MONDAY, 0).unwrap(), MONDAY);
        // The Saturday after is worked.
        assert_eq!(golden_week(&[MONDAY + 12]).add(MONDAY, 5).unwrap(), MONDAY + 12);
        assert!(days.add(MONDAY, 1_000_000).is_err());
    }
}
