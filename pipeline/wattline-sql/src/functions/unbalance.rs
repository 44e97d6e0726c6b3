//! Unbalance of a three-phase system by symmetrical components.
//!
//! With a = e^(j120°): U0 = (Ua+Ub+Uc)/3, U1 = (Ua+aUb+a²Uc)/3, U2 = (Ua+a²Ub+aUc)/3. From line voltages
//! alone, with L = (Uab⁴+Ubc⁴+Uca⁴)/(Uab²+Ubc²+Uca²)²: ε2 = √((1−√(3−6L))/(1+√(3−6L))) (GB/T 15543, annex A).
//! Near balance that form loses all digits, as L → 1/3. With δ = 6L−2, which is six times the scatter of the
//! squares around their mean over the square of their sum and so never negative, it is ε2 = √δ/(1+√(1−δ)).
//! Voltages that do not form a triangle give δ > 1, clamped.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::cast::as_float64_array;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    NegativeSequence,
    ZeroSequence,
    LineVoltages,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Unbalance {
    measure: Measure,
    signature: Signature,
}

pub(super) fn all() -> [Unbalance; 3] {
    [Measure::NegativeSequence, Measure::ZeroSequence, Measure::LineVoltages].map(|measure| Unbalance {
        measure,
        signature: Signature::exact(vec![DataType::Float64; measure.arity()], Volatility::Immutable),
    })
}

impl Measure {
    fn arity(self) -> usize {
        match self {
            Self::NegativeSequence | Self::ZeroSequence => 6,
            Self::LineVoltages => 3,
        }
    }

    fn of(self, values: &[f64]) -> Option<f64> {
        match self {
            Self::NegativeSequence => sequences(values).ratio_pct(|s| s.negative),
            Self::ZeroSequence => sequences(values).ratio_pct(|s| s.zero),
            Self::LineVoltages => from_line_voltages(values),
        }
    }
}

struct Sequences {
    zero: f64,
    positive: f64,
    negative: f64,
}

impl Sequences {
    fn ratio_pct(&self, part: impl Fn(&Self) -> f64) -> Option<f64> {
        (self.positive > 0.0).then(|| 100.0 * part(self) / self.positive)
    }
}

/// Magnitudes of the three sequences (times 3, which cancels in every ratio).
fn sequences(values: &[f64]) -> Sequences {
    let magnitude = |turns: [f64; 3]| {
        let (mut re, mut im) = (0.0, 0.0);
        for (phase, turn) in turns.iter().enumerate() {
            let angle = (values[2 * phase + 1] + turn).to_radians();
            re += values[2 * phase] * angle.cos();
            im += values[2 * phase] * angle.sin();
        }
        re.hypot(im)
    };
    Sequences {
        zero: magnitude([0.0, 0.0, 0.0]),
        positive: magnitude([0.0, 120.0, 240.0]),
        negative: magnitude([0.0, 240.0, 120.0]),
    }
}

fn from_line_voltages(values: &[f64]) -> Option<f64> {
    let squares: f64 = values.iter().map(|u| u * u).sum();
    if squares <= 0.0 {
        return None;
    }
    let mean = squares / 3.0;
    let scatter: f64 = values.iter().map(|u| (u * u - mean).powi(2)).sum();
    let delta = (6.0 * scatter / (squares * squares)).min(1.0);
    Some(100.0 * delta.sqrt() / (1.0 + (1.0 - delta).sqrt()))
}

impl ScalarUDFImpl for Unbalance {
    fn name(&self) -> &str {
        match self.measure {
            Measure::NegativeSequence => "voltage_unbalance_pct",
            Measure::ZeroSequence => "zero_sequence_unbalance_pct",
            Measure::LineVoltages => "voltage_unbalance_line_pct",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let columns = arrays.iter().map(|array| as_float64_array(array)).collect::<Result<Vec<_>>>()?;
        let mut values = vec![0.0; columns.len()];
        let rows = columns.first().map_or(0, |column| column.values().len());
        let result: Float64Array = (0..rows)
            .map(|row| {
                for (value, column) in values.iter_mut().zip(&columns) {
                    *value = column.iter_value(row)?;
                }
                self.measure.of(&values)
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(result) as ArrayRef))
    }
}

trait NullableValue {
    fn iter_value(&self, row: usize) -> Option<f64>;
}

impl NullableValue for Float64Array {
    fn iter_value(&self, row: usize) -> Option<f64> {
        use arrow::array::Array;
        self.is_valid(row).then(|| self.value(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples_hold_to_six_digits() {
        const A: &[f64] = &[220.0, 0.0, 220.0, -120.0, 220.0, 120.0];
        const B: &[f64] = &[225.0, 0.0, 215.0, -120.0, 220.0, 120.0];
        const C: &[f64] = &[220.0, 0.0, 209.0, -122.0, 226.0, 118.0];
        let cases: [(Measure, &[f64], f64); 7] = [
            (Measure::NegativeSequence, A, 0.0),
            (Measure::NegativeSequence, B, 1.312_160),
            (Measure::NegativeSequence, C, 1.134_696),
            (Measure::ZeroSequence, B, 1.312_160),
            (Measure::ZeroSequence, C, 3.439_387),
            (Measure::LineVoltages, &[386.0, 374.0, 380.0], 1.823_534),
            (Measure::LineVoltages, &[375.249_751, 376.816_932, 382.309_106], 1.134_696),
        ];
        for (measure, values, expected) in cases {
            let got = measure.of(values).expect("defined");
            assert!((got - expected).abs() < 1e-6, "{measure:?} {values:?}: {got} and not {expected}");
        }
    }

    #[test]
    fn a_dead_system_has_no_unbalance() {
        assert_eq!(Measure::NegativeSequence.of(&[0.0; 6]), None);
        assert_eq!(Measure::LineVoltages.of(&[0.0; 3]), None);
        assert_eq!(Measure::LineVoltages.of(&[400.0; 3]), Some(0.0));
    }
}
