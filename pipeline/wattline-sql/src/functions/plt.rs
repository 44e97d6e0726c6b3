//! `plt(pst)`: long-term flicker of two hours, the cube root of the mean of the cubes of twelve Pst values of ten minutes
//! (IEC 61000-4-15, GB/T 12326).
//!
//! A value is missing, the two hours have no Plt: NULL unless there are exactly twelve. State: sum of cubes and count.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// Values of ten minutes in two hours.
const VALUES: i64 = 12;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Plt {
    signature: Signature,
}

impl Plt {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Plt {
    fn name(&self) -> &str {
        "plt"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(State::default()))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Field::new("cubes", DataType::Float64, true).into(), Field::new("count", DataType::Int64, true).into()])
    }
}

#[derive(Debug, Default)]
struct State {
    cubes: f64,
    count: i64,
}

impl Accumulator for State {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in as_float64_array(&values[0])?.iter().flatten() {
            self.cubes += value.powi(3);
            self.count += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.cubes += as_float64_array(&states[0])?.iter().flatten().sum::<f64>();
        self.count += as_int64_array(&states[1])?.iter().flatten().sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(Some(self.cubes)), ScalarValue::Int64(Some(self.count))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let plt = (self.count == VALUES).then(|| (self.cubes / f64::from(12_u8)).cbrt());
        Ok(ScalarValue::Float64(plt))
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

    fn plt(values: &[Option<f64>]) -> Option<f64> {
        let mut state = State::default();
        state.update_batch(&[Arc::new(Float64Array::from(values.to_vec()))]).unwrap();
        match state.evaluate().unwrap() {
            ScalarValue::Float64(value) => value.map(|plt| (plt * 1e6).round() / 1e6),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn twelve_values_and_not_one_less() {
        let calm = [0.45, 0.52, 0.61, 0.58, 0.75, 1.1, 0.95, 0.7, 0.66, 0.6, 0.55, 0.5].map(Some);
        assert_eq!(plt(&calm), Some(0.715849));
        let wild = [0.9, 1.0, 1.3, 1.2, 0.8, 1.1, 1.4, 1.0, 0.9, 0.7, 0.8, 0.9].map(Some);
        assert_eq!(plt(&wild), Some(1.041427));
        assert_eq!(plt(&calm[..11]), None);
        let mut gap = calm;
        gap[3] = None;
        assert_eq!(plt(&gap), None);
    }
}
