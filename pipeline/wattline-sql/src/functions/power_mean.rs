//! Means of powers: `rms_mean(x)` and `plt(pst)`.
//!
//! `rms_mean(x)`: the square root of the mean of squares. Averages of rms values over time are quadratic (IEC 61000-4-30,
//! 4.4); the arithmetic mean is always too low. `plt(pst)`: long-term flicker of two hours, the cube root of the mean of the
//! cubes of twelve Pst values of ten minutes (IEC 61000-4-15, GB/T 12326); if a value is missing the two hours have no
//! Plt, so it is NULL unless there are exactly twelve.
//!
//! State: sum of powers and count, so partial results of lanes merge by addition. NULLs are skipped; no value, NULL.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// Values of ten minutes in two hours.
const PLT_VALUES: i64 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Rms,
    Plt,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PowerMean {
    kind: Kind,
    signature: Signature,
}

pub(super) fn all() -> [PowerMean; 2] {
    [Kind::Rms, Kind::Plt]
        .map(|kind| PowerMean { kind, signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) })
}

impl AggregateUDFImpl for PowerMean {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Rms => "rms_mean",
            Kind::Plt => "plt",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        super::refuse_distinct(self.name(), &args)?;
        Ok(Box::new(State::new(self.kind)))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Field::new("powers", DataType::Float64, true).into(),
            Field::new("count", DataType::Int64, true).into(),
        ])
    }
}

#[derive(Debug)]
struct State {
    kind: Kind,
    powers: f64,
    count: i64,
}

impl State {
    fn new(kind: Kind) -> Self {
        Self { kind, powers: 0.0, count: 0 }
    }
}

impl Accumulator for State {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in as_float64_array(&values[0])?.iter().flatten() {
            self.powers += match self.kind {
                Kind::Rms => value * value,
                Kind::Plt => value * value * value,
            };
            self.count += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.powers += as_float64_array(&states[0])?.iter().flatten().sum::<f64>();
        self.count += as_int64_array(&states[1])?.iter().flatten().sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(Some(self.powers)), ScalarValue::Int64(Some(self.count))])
    }

    #[expect(clippy::cast_precision_loss, reason = "a window holds far fewer than 2^53 readings")]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mean = self.powers / self.count as f64;
        Ok(ScalarValue::Float64(match self.kind {
            Kind::Rms => (self.count > 0).then(|| mean.sqrt()),
            Kind::Plt => (self.count == PLT_VALUES).then(|| mean.cbrt()),
        }))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;

    use super::*;

    /// To six decimals.
    fn of(kind: Kind, values: &[Option<f64>]) -> Option<f64> {
        let mut state = State::new(kind);
        state.update_batch(&[Arc::new(Float64Array::from(values.to_vec()))]).unwrap();
        match state.evaluate().unwrap() {
            ScalarValue::Float64(value) => value.map(|mean| (mean * 1e6).round() / 1e6),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_mean_of_squares_is_above_the_arithmetic_one() {
        assert_eq!(of(Kind::Rms, &[Some(1.0), None, Some(7.0)]), Some(5.0));
        assert_eq!(of(Kind::Rms, &[None]), None);
    }

    #[test]
    fn flicker_needs_twelve_values_and_not_one_less() {
        let calm = [0.45, 0.52, 0.61, 0.58, 0.75, 1.1, 0.95, 0.7, 0.66, 0.6, 0.55, 0.5].map(Some);
        assert_eq!(of(Kind::Plt, &calm), Some(0.715849));
        let wild = [0.9, 1.0, 1.3, 1.2, 0.8, 1.1, 1.4, 1.0, 0.9, 0.7, 0.8, 0.9].map(Some);
        assert_eq!(of(Kind::Plt, &wild), Some(1.041427));
        assert_eq!(of(Kind::Plt, &calm[..11]), None);
        let mut gap = calm;
        gap[3] = None;
        assert_eq!(of(Kind::Plt, &gap), None);
    }
}
