//! wattline with three functions that a company has brought along: one of each kind.

use std::process::ExitCode;
use std::sync::Arc;

use wattline::Program;
use wattline::datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use wattline::datafusion::arrow::datatypes::{DataType, Float64Type};
use wattline::datafusion::error::Result;
use wattline::datafusion::logical_expr::{
    Accumulator, ColumnarValue, PartitionEvaluator, ScalarUDF, Volatility, create_udaf, create_udf, create_udwf,
};
use wattline::datafusion::scalar::ScalarValue;

fn main() -> ExitCode {
    let (float, whole) = (DataType::Float64, Volatility::Immutable);
    let range = create_udaf(
        "spread",
        vec![float.clone()],
        Arc::new(float.clone()),
        whole,
        Arc::new(|_| Ok(Box::new(Spread::default()))),
        Arc::new(vec![float.clone(), float.clone()]),
    );
    let share = create_udwf("share", float.clone(), Arc::new(float), whole, Arc::new(|| Ok(Box::new(Share))));
    Program::new().with_scalar(per_unit()).with_aggregate(range).with_window(share).main()
}

/// `per_unit(value, base)`: a value as a part of its base.
fn per_unit() -> ScalarUDF {
    let divide = |args: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let [value, base] = [0, 1].map(|at| columns[at].as_primitive::<Float64Type>());
        let parts = value.iter().zip(base).map(|(value, base)| Some(value? / base.filter(|base| *base != 0.0)?));
        Ok(ColumnarValue::Array(Arc::new(parts.collect::<Float64Array>())))
    };
    let float = DataType::Float64;
    create_udf("per_unit", vec![float.clone(), float.clone()], float, Volatility::Immutable, Arc::new(divide))
}

/// `spread(value)`: how far the highest value is above the lowest.
#[derive(Debug, Default)]
struct Spread {
    ends: Option<(f64, f64)>,
}

impl Spread {
    fn take(&mut self, values: &ArrayRef) {
        for value in values.as_primitive::<Float64Type>().iter().flatten() {
            let (low, high) = self.ends.unwrap_or((value, value));
            self.ends = Some((low.min(value), high.max(value)));
        }
    }
}

impl Accumulator for Spread {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0]);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states.iter().for_each(|ends| self.take(ends));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.ends.map(|ends| ends.0).into(), self.ends.map(|ends| ends.1).into()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.ends.map(|(low, high)| high - low).into())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// `share(value)`: a value as a part of the sum over its partition.
#[derive(Debug)]
struct Share;

impl PartitionEvaluator for Share {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let values = values[0].as_primitive::<Float64Type>();
        let sum: f64 = values.iter().flatten().sum();
        Ok(Arc::new(values.iter().map(|value| value.map(|value| value / sum)).collect::<Float64Array>()))
    }
}
