//! `rms_mean(x)`: the square root of the mean of squares.
//!
//! Averages of rms values over time are quadratic; the arithmetic mean is always too low. State: sum of
//! squares and count, so partial results of lanes merge by addition. NULLs are skipped; no value, NULL.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RmsMean {
    signature: Signature,
}

impl RmsMean {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for RmsMean {
    fn name(&self) -> &str {
        "rms_mean"
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
        Ok(vec![
            Field::new("squares", DataType::Float64, true).into(),
            Field::new("count", DataType::Int64, true).into(),
        ])
    }
}

#[derive(Debug, Default)]
struct State {
    squares: f64,
    count: i64,
}

impl Accumulator for State {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in as_float64_array(&values[0])?.iter().flatten() {
            self.squares += value * value;
            self.count += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.squares += as_float64_array(&states[0])?.iter().flatten().sum::<f64>();
        self.count += as_int64_array(&states[1])?.iter().flatten().sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(Some(self.squares)), ScalarValue::Int64(Some(self.count))])
    }

    #[expect(clippy::cast_precision_loss, reason = "a window holds far fewer than 2^53 readings")]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mean = (self.count > 0).then(|| (self.squares / self.count as f64).sqrt());
        Ok(ScalarValue::Float64(mean))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
