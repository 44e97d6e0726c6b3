//! The windows of an instant where windows overlap: `hop_starts` and `cumulate_ends`.
//!
//! `hop_starts(slide, size, instant [, origin])` lists the starts of all windows of `size` that begin every `slide` and hold
//! the instant; `cumulate_ends(step, size, instant [, origin])` the ends of all windows that grow by `step` up to `size`
//! and hold it. Both ascending, in the unit of the instant; the table functions HOP and CUMULATE unnest them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::interval_us;

/// Windows that an instant may be in, so that a slip in an interval cannot fill the memory.
const WINDOWS_MAX: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    HopStarts,
    CumulateEnds,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WindowList {
    kind: Kind,
    signature: Signature,
}

impl WindowList {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WindowList {
    fn name(&self) -> &str {
        match self.kind {
            Kind::HopStarts => "hop_starts",
            Kind::CumulateEnds => "cumulate_ends",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let zone = match arg_types {
            [_, _, DataType::Timestamp(_, zone)] | [_, _, DataType::Timestamp(_, zone), _] => zone.clone(),
            _ => return plan_err!("{} takes two intervals, an instant and perhaps an origin", self.name()),
        };
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let instant = DataType::Timestamp(TimeUnit::Microsecond, zone);
        let mut types = vec![interval.clone(), interval, instant.clone(), instant];
        types.truncate(arg_types.len());
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(arg_types[2].clone(), true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (step, size) = (step_us(self.name(), &args.args[0])?, step_us(self.name(), &args.args[1])?);
        if size / step >= WINDOWS_MAX {
            return exec_err!("{} would put each event into {} windows", self.name(), size / step);
        }
        if self.kind == Kind::CumulateEnds && size % step != 0 {
            return exec_err!("the size of CUMULATE is no multiple of its step");
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args[2..])?;
        let instants = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let origin = arrays.get(1).map(|origin| origin.as_primitive::<TimestampMicrosecondType>());
        let origin = origin.and_then(|origin| origin.iter().next().flatten()).unwrap_or(0);
        let mut values: Vec<i64> = Vec::with_capacity(instants.len());
        let mut lengths = Vec::with_capacity(instants.len());
        for instant in instants {
            let before = values.len();
            if let Some(instant) = instant {
                match self.kind {
                    Kind::HopStarts => push_hop_starts(step, size, instant, origin, &mut values),
                    Kind::CumulateEnds => push_cumulate_ends(step, size, instant, origin, &mut values),
                }
            }
            lengths.push(values.len() - before);
        }
        let values = TimestampMicrosecondArray::from(values).with_data_type(instants.data_type().clone());
        let DataType::List(item) = args.return_field.data_type() else {
            return exec_err!("{} gives a list", self.name());
        };
        let list = ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), Arc::new(values), None)?;
        Ok(ColumnarValue::Array(Arc::new(list) as ArrayRef))
    }
}

/// Every `origin + k · slide` in `(instant - size, instant]`.
fn push_hop_starts(slide: i64, size: i64, instant: i64, origin: i64, starts: &mut Vec<i64>) {
    let last = instant - (instant - origin).rem_euclid(slide);
    let count = if last > instant - size { (last - (instant - size) - 1) / slide + 1 } else { 0 };
    starts.extend((0..count).rev().map(|k| last - k * slide));
}

/// Every `start + k · step` after the instant, up to `start + size`, where `start` is that of its bin of `size`.
fn push_cumulate_ends(step: i64, size: i64, instant: i64, origin: i64, ends: &mut Vec<i64>) {
    let into = (instant - origin).rem_euclid(size);
    let start = instant - into;
    ends.extend((into / step + 1..=size / step).map(|k| start + k * step));
}

fn step_us(function: &str, interval: &ColumnarValue) -> Result<i64> {
    let us = match interval {
        ColumnarValue::Scalar(interval) => interval_us(interval),
        ColumnarValue::Array(_) => None,
    };
    match us {
        Some(us) if us > 0 => Ok(us),
        Some(_) => exec_err!("an interval of {function} is not positive"),
        None => exec_err!("an interval of {function} is no literal without months: write `INTERVAL '10 minutes'`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_may_overlap_or_leave_gaps() {
        let starts = |slide, size, instant, origin| {
            let mut starts = Vec::new();
            push_hop_starts(slide, size, instant, origin, &mut starts);
            starts
        };
        assert_eq!(starts(5, 10, 12, 0), [5, 10]);
        assert_eq!(starts(4, 10, 12, 0), [4, 8, 12], "the slide need not divide the size");
        assert_eq!(starts(10, 4, 13, 0), [10]);
        assert_eq!(starts(10, 4, 14, 0), [0_i64; 0], "between two windows");
        assert_eq!(starts(5, 10, -1, 0), [-10, -5]);
        assert_eq!(starts(5, 10, 12, 3), [3, 8]);
    }

    #[test]
    fn cumulated_windows_end_with_their_bin() {
        let ends = |instant| {
            let mut ends = Vec::new();
            push_cumulate_ends(2, 6, instant, 1, &mut ends);
            ends
        };
        assert_eq!(ends(1), [3, 5, 7]);
        assert_eq!(ends(3), [5, 7]);
        assert_eq!(ends(6), [7]);
        assert_eq!(ends(0), [1]);
    }
}
