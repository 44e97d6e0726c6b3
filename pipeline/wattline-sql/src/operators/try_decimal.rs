//! `TRY_CAST(double AS DECIMAL(p, s))`, which most rules begin with, without 128-bit arithmetic per value.
//!
//! Gives exactly what Arrow's cast gives: the product with 10ˢ, rounded half away from zero, or NULL if that has more than
//! p digits. Only values of 2⁵² and more take the long way; every other kind of input goes to Arrow's cast.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array, Float64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::TryCastExpr;

/// From here on every double is a whole number, and below it a 64-bit integer holds it.
const WHOLE_FROM: f64 = 4_503_599_627_370_496.0;

/// The expression with its casts to decimals replaced by quick ones.
pub(crate) fn with_quick_casts(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = expr.transform_up(|node| {
        let cast = node.downcast_ref::<TryCastExpr>();
        Ok(match cast.map(|cast| (cast.expr(), cast.cast_type())) {
            Some((input, &DataType::Decimal128(precision, scale))) if (0..=18).contains(&scale) => {
                let input = Arc::clone(input);
                Transformed::yes(Arc::new(TryDecimal { cast: node, input, precision, scale }) as Arc<dyn PhysicalExpr>)
            }
            _ => Transformed::no(node),
        })
    })?;
    Ok(replaced.data)
}

#[derive(Debug)]
struct TryDecimal {
    /// The cast that it stands for.
    cast: Arc<dyn PhysicalExpr>,
    input: Arc<dyn PhysicalExpr>,
    precision: u8,
    scale: i8,
}

impl TryDecimal {
    fn cast(&self, values: &Float64Array) -> Result<Decimal128Array> {
        let power = 10_f64.powi(i32::from(self.scale));
        let limit = 10_i128.pow(u32::from(self.precision));
        let mut decimals = Vec::with_capacity(values.len());
        let mut all_fit = true;
        for &value in values.values() {
            let decimal = rounded(value * power).filter(|decimal| decimal.abs() < limit);
            all_fit &= decimal.is_some();
            decimals.push(decimal.unwrap_or_default());
        }
        let nulls = if all_fit {
            values.nulls().cloned()
        } else {
            let fits = |value: f64| rounded(value * power).is_some_and(|decimal| decimal.abs() < limit);
            let fitting: NullBuffer = values.values().iter().map(|&value| fits(value)).collect();
            NullBuffer::union(values.nulls(), Some(&fitting))
        };
        Ok(Decimal128Array::new(decimals.into(), nulls).with_precision_and_scale(self.precision, self.scale)?)
    }
}

/// Rounded half away from zero; `None` if it is no number, or no 128-bit one.
#[expect(clippy::cast_possible_truncation, reason = "each is checked to be in range")]
fn rounded(value: f64) -> Option<i128> {
    if value.abs() < WHOLE_FROM {
        let whole = value as i64;
        let rest = value - whole as f64;
        let up = i64::from(rest >= 0.5) - i64::from(rest <= -0.5);
        return Some(i128::from(whole + up));
    }
    // A number this large is whole; what is above 10³⁸ has more digits than any decimal.
    (value.abs() <= 1e38).then_some(value as i128)
}

impl PhysicalExpr for TryDecimal {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let input = self.input.evaluate(batch)?;
        match &input {
            ColumnarValue::Array(array) if *array.data_type() == DataType::Float64 => {
                Ok(ColumnarValue::Array(Arc::new(self.cast(array.as_primitive::<Float64Type>())?)))
            }
            _ => self.cast.evaluate(batch),
        }
    }

    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.cast.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.cast.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.cast.return_field(input_schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        with_quick_casts(Arc::clone(&self.cast).with_new_children(children)?)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cast.fmt_sql(f)
    }
}

impl fmt::Display for TryDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cast.fmt(f)
    }
}

impl PartialEq for TryDecimal {
    fn eq(&self, other: &Self) -> bool {
        self.cast.as_ref() == other.cast.as_ref()
    }
}

impl Eq for TryDecimal {}

impl Hash for TryDecimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cast.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::Column;
    use proptest::prelude::*;

    use super::*;

    fn assert_same(values: Vec<Option<f64>>, precision: u8, scale: i8) {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Float64, true)]));
        let rows = values.len();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Float64Array::from(values.clone()))]).unwrap();
        let cast: Arc<dyn PhysicalExpr> =
            Arc::new(TryCastExpr::new(Arc::new(Column::new("v", 0)), DataType::Decimal128(precision, scale)));
        let quick = with_quick_casts(Arc::clone(&cast)).unwrap();
        assert!(quick.downcast_ref::<TryDecimal>().is_some());
        let of = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch).unwrap().into_array(rows).unwrap();
        assert_eq!(of(&quick).as_ref(), of(&cast).as_ref(), "{values:?} as ({precision}, {scale})");
    }

    #[test]
    fn corners_are_cast_as_arrow_casts_them() {
        let corners = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            0.499_999_999_999_999_94,
            1.5,
            2.5,
            -2.5,
            235.4,
            1e15,
            1e18,
            1e22,
            1e38,
            -1e38,
            1e39,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            WHOLE_FROM,
            WHOLE_FROM - 0.5,
            4_503_599_627.370_496,
            999_999.999_999_5,
            999_999.999_999_4,
        ];
        let values: Vec<Option<f64>> = corners.into_iter().map(Some).chain([None]).collect();
        for (precision, scale) in [(12, 6), (18, 6), (38, 0), (38, 18), (1, 0), (18, 18), (3, 2)] {
            assert_same(values.clone(), precision, scale);
        }
        assert_same(vec![Some(1.5), Some(-0.25)], 12, 6);
    }

    proptest! {
        #[test]
        fn any_double_is_cast_as_arrow_casts_it(
            values in prop::collection::vec(prop::option::of(prop_oneof![any::<f64>(), -1e6..1e6]), 0..50),
            precision in 1_u8..=38,
            scale in 0_i8..=18,
        ) {
            prop_assume!(u8::try_from(scale).unwrap() <= precision);
            assert_same(values, precision, scale);
        }
    }
}
