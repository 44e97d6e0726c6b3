//! `register_delta_kwh(previous, current, digits)`: what a meter's register has counted between two readings, exact.
//!
//! A register with so many digits before the point begins again at 0. A reading below the one before is such a rollover if
//! the last stood in the last tenth of the register and the new one stands in the first. Any other drop is a register that
//! went back (a reset, another meter, a wrong reading), of which nobody knows what was used: NULL, and so is a reading that the
//! register cannot show. NULL in, NULL out.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array};
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_decimal128_array, as_int64_array};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

const PRECISION: u8 = 18;
const SCALE: i8 = 4;
/// Digits before the point that fit.
const DIGITS_MAX: u32 = 14;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RegisterDelta {
    signature: Signature,
}

impl RegisterDelta {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for RegisterDelta {
    fn name(&self) -> &str {
        "register_delta_kwh"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let register = DataType::Decimal128(PRECISION, SCALE);
        match arg_types.len() {
            3 => Ok(vec![register.clone(), register, DataType::Int64]),
            other => {
                plan_err!("register_delta_kwh takes two readings and the digits of the register, not {other} values")
            }
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(PRECISION, SCALE))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (previous, current) = (as_decimal128_array(&arrays[0])?, as_decimal128_array(&arrays[1])?);
        let digits = as_int64_array(&arrays[2])?;
        let rows = previous.iter().zip(current).zip(digits);
        let deltas: Decimal128Array =
            rows.map(|((previous, current), digits)| delta(previous?, current?, digits?)).collect();
        Ok(ColumnarValue::Array(Arc::new(deltas.with_precision_and_scale(PRECISION, SCALE)?) as ArrayRef))
    }
}

/// In units of the scale.
fn delta(previous: i128, current: i128, digits: i64) -> Option<i128> {
    let digits = u32::try_from(digits).ok().filter(|digits| (1..=DIGITS_MAX).contains(digits))?;
    let range = 10_i128.pow(digits + u32::from(SCALE.unsigned_abs()));
    let shows = |reading: i128| (0..range).contains(&reading);
    if !shows(previous) || !shows(current) {
        return None;
    }
    if current >= previous {
        return Some(current - previous);
    }
    let is_rollover = previous * 10 > range * 9 && current * 10 < range;
    is_rollover.then_some(current + range - previous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_over_and_back() {
        assert_eq!(delta(123_456_700, 123_501_200, 6), Some(44_500));
        assert_eq!(delta(9_999_985_000, 32_000, 6), Some(47_000));
        assert_eq!(delta(50_000_000, 49_900_000, 6), None);
        assert_eq!(delta(50_000_000, 50_000_000, 6), Some(0));
        // Another meter, not a rollover of hundreds of thousands of kWh.
        assert_eq!(delta(6_200_000_000, 0, 6), None);
        assert_eq!(delta(6_000_000_000, 500_000_000, 6), None);
        assert_eq!(delta(9_000_000_000, 999_999_999, 6), None, "the last tenth begins above nine tenths");
        assert_eq!(delta(9_000_000_001, 999_999_999, 6), Some(1_999_999_998));
        // Readings that the register cannot show.
        assert_eq!(delta(50_000_000_000, 1, 6), None);
        assert_eq!(delta(0, 50_000_000_000, 6), None);
        assert_eq!(delta(0, 10_000_000_000, 6), None);
        assert_eq!(delta(-50_000, 50_000, 6), None);
        assert_eq!(delta(2, 1, 0), None);
        assert_eq!(delta(2, 1, 15), None);
    }
}
