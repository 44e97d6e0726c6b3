//! `tiered_amount(kwh_before, kwh, limits, prices)`: what energy costs under a tariff of tiers, in exact decimals.
//!
//! `limits` are the upper ends of all tiers but the last, ascending; `prices` one more than limits, per kWh. `kwh_before` was
//! used before in the period of the tiers: 0 for tiers of a month, what the year has used so far for those of a year.
//! Rounded once, half up, to a hundredth. NULL in, also within the lists, and negative energy give NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Field};
use datafusion::common::cast::{as_decimal128_array, as_list_array};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

const ENERGY: DataType = DataType::Decimal128(18, 4);
const PRICE: DataType = DataType::Decimal128(18, 6);
const AMOUNT: DataType = DataType::Decimal128(18, 2);
/// From the product of energy and price to the amount: 4 + 6 digits to 2.
const ROUND: i128 = 100_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TieredAmount {
    signature: Signature,
}

impl TieredAmount {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

impl ScalarUDFImpl for TieredAmount {
    fn name(&self) -> &str {
        "tiered_amount"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types.len() {
            4 => Ok(vec![ENERGY, ENERGY, list_of(ENERGY), list_of(PRICE)]),
            other => plan_err!(
                "tiered_amount takes the energy before, the energy, the limits and the prices of the tiers, not {other} values"
            ),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(AMOUNT)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (before, energy) = (as_decimal128_array(&arrays[0])?, as_decimal128_array(&arrays[1])?);
        let (limits, prices) = (as_list_array(&arrays[2])?, as_list_array(&arrays[3])?);
        let mut amounts = Vec::with_capacity(energy.len());
        for row in 0..energy.len() {
            let known = before.is_valid(row) && energy.is_valid(row) && limits.is_valid(row) && prices.is_valid(row);
            let tiers = if known { numbers(&limits.value(row)).zip(numbers(&prices.value(row))) } else { None };
            amounts.push(match tiers {
                Some((limits, prices)) => amount(before.value(row), energy.value(row), &limits, &prices)?,
                None => None,
            });
        }
        let amounts = Decimal128Array::from(amounts).with_data_type(AMOUNT);
        amounts.validate_decimal_precision(18)?;
        Ok(ColumnarValue::Array(Arc::new(amounts)))
    }
}

/// `None` if one of them is NULL.
fn numbers(list: &ArrayRef) -> Option<Vec<i128>> {
    list.as_primitive::<Decimal128Type>().iter().collect()
}

fn amount(before: i128, energy: i128, limits: &[i128], prices: &[i128]) -> Result<Option<i128>> {
    if prices.len() != limits.len() + 1 {
        return exec_err!("tiered_amount has {} prices for {} limits: it takes one more", prices.len(), limits.len());
    }
    if !limits.is_sorted() {
        return exec_err!("the limits of tiered_amount are not in ascending order");
    }
    if before < 0 || energy < 0 {
        return Ok(None);
    }
    let (mut sum, mut lower) = (0_i128, 0_i128);
    let end = before.saturating_add(energy);
    for (tier, price) in prices.iter().enumerate() {
        let upper = limits.get(tier).copied().unwrap_or(i128::MAX);
        let part = end.min(upper).saturating_sub(before.max(lower)).max(0);
        let Some(next) = part.checked_mul(*price).and_then(|cost| sum.checked_add(cost)) else {
            return exec_err!("the amount of tiered_amount is too large");
        };
        (sum, lower) = (next, upper);
    }
    // Away from zero, also for prices below it.
    let half = if sum < 0 { -ROUND / 2 } else { ROUND / 2 };
    Ok(Some(sum.saturating_add(half) / ROUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: [i128; 3] = [546_900, 596_900, 846_900];

    fn cents(before: i128, kwh: i128, limits: [i128; 2]) -> Option<i128> {
        amount(before * 10_000, kwh * 10_000, &limits.map(|limit| limit * 10_000), &PRICES).unwrap()
    }

    #[test]
    fn tiers_of_a_month_and_of_a_year() {
        assert_eq!(cents(0, 180, [210, 400]), Some(9_844));
        assert_eq!(cents(0, 210, [210, 400]), Some(11_485));
        assert_eq!(cents(0, 450, [210, 400]), Some(27_061));
        assert_eq!(cents(2_400, 300, [2_520, 4_800]), Some(17_307));
        assert_eq!(cents(0, 0, [210, 400]), Some(0));
        assert_eq!(cents(0, -1, [210, 400]), None);
    }

    #[test]
    fn half_a_cent_is_rounded_up_once() {
        // 0.5 kWh at 0.01 is half a cent.
        assert_eq!(amount(0, 5_000, &[], &[10_000]).unwrap(), Some(1));
        assert_eq!(amount(0, 4_999, &[], &[10_000]).unwrap(), Some(0));
        assert!(amount(0, 1, &[1], &[1]).is_err());
        assert!(amount(0, 1, &[2, 1], &[1, 1, 1]).is_err());
    }
}
