//! `date_bin(interval, instant [, origin])` for fixed intervals, in the unit of the instant.
//!
//! Replaces DataFusion's function of that name, which coerces microseconds to nanoseconds: windows would
//! change their type, cost a cast per event, and end in the year 2262. Plain integer arithmetic: the largest
//! `origin + k · interval` that is not after the instant. Intervals of months are refused, as their bins
//! have no fixed size; the origin defaults to 1970-01-01T00:00:00Z.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateBin {
    signature: Signature,
}

impl DateBin {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let instant = match arg_types {
            [_, instant] | [_, instant, _] => instant.clone(),
            _ => return plan_err!("date_bin takes an interval, an instant and perhaps an origin"),
        };
        if !matches!(instant, DataType::Timestamp(_, _)) {
            return plan_err!("the second argument of date_bin is {instant} and no timestamp");
        }
        let mut types = vec![DataType::Interval(IntervalUnit::MonthDayNano), instant.clone(), instant];
        types.truncate(arg_types.len());
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let size_ns = match &args.args[0] {
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(size))) if size.months == 0 => {
                i128::from(size.days) * 86_400_000_000_000 + i128::from(size.nanoseconds)
            }
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(_))) => {
                return exec_err!("date_bin has no bins of months, as they differ in length: write days or hours");
            }
            _ => return exec_err!("the interval of date_bin is no literal: write `INTERVAL '10 minutes'`"),
        };
        let arrays = ColumnarValue::values_to_arrays(&args.args[1..])?;
        let (instants, origin) = (&arrays[0], arrays.get(1));
        let DataType::Timestamp(unit, _) = instants.data_type() else {
            return exec_err!("date_bin got {} and no timestamp", instants.data_type());
        };
        let unit_ns: i128 = match unit {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        };
        let size = match i64::try_from(size_ns / unit_ns) {
            Ok(size) if size > 0 && size_ns % unit_ns == 0 => size,
            _ => return exec_err!("the interval of date_bin is no positive multiple of the instant's unit"),
        };
        let binned = match unit {
            TimeUnit::Second => bin::<TimestampSecondType>(instants, origin, size),
            TimeUnit::Millisecond => bin::<TimestampMillisecondType>(instants, origin, size),
            TimeUnit::Microsecond => bin::<TimestampMicrosecondType>(instants, origin, size),
            TimeUnit::Nanosecond => bin::<TimestampNanosecondType>(instants, origin, size),
        }?;
        Ok(ColumnarValue::Array(binned))
    }
}

fn bin<T: ArrowPrimitiveType<Native = i64>>(
    instants: &ArrayRef,
    origin: Option<&ArrayRef>,
    size: i64,
) -> Result<ArrayRef, ArrowError> {
    let instants = instants.as_primitive::<T>();
    let origin = origin.and_then(|origin| origin.as_primitive::<T>().iter().next().flatten()).unwrap_or(0);
    let phase = origin.rem_euclid(size);
    let binned: PrimitiveArray<T> = instants.try_unary(|instant| {
        let start = instant.checked_sub(phase).and_then(|shifted| instant.checked_sub(shifted.rem_euclid(size)));
        start.ok_or_else(|| ArrowError::ComputeError(format!("date_bin of {instant} overflows")))
    })?;
    Ok(Arc::new(binned.with_data_type(instants.data_type().clone())))
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;

    #[test]
    fn bins_are_half_open_on_both_sides_of_the_origin() {
        let instants: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 599, 600, 601]));
        let origin: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![100; 5]));
        let starts = |origin| {
            bin::<TimestampMicrosecondType>(&instants, origin, 600)
                .expect("in range")
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .to_vec()
        };
        assert_eq!(starts(None), [-600, 0, 0, 600, 600]);
        assert_eq!(starts(Some(&origin)), [-500, -500, 100, 100, 100]);
    }
}
