//! What the planner writes where the order of rows has to be settled; no rule calls these.
//!
//! `in_order(x, n)` is `x`. A window function over a frame of RANGE or GROUPS must not have more in its ORDER BY than is written there,
//! as that says which rows are peers. So the order of peers is made below it, by numbers `n`, and named here: the number is
//! what keeps that step in the plan.
//!
//! `sort_key(x)` is a list or a struct as bytes that are in order as the values are, NULL within them too.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

pub(super) const IN_ORDER: &str = "in_order";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct InOrder {
    signature: Signature,
}

impl InOrder {
    pub(super) fn new() -> Self {
        // Said to be volatile, so that the optimiser does not move it below the step that makes the numbers.
        Self { signature: Signature::any(2, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for InOrder {
    fn name(&self) -> &str {
        IN_ORDER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args[0].clone())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SortKey {
    signature: Signature,
}

impl SortKey {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SortKey {
    fn name(&self) -> &str {
        "sort_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&args.args)?;
        let converter = RowConverter::new(vec![SortField::new(values[0].data_type().clone())])?;
        let rows = converter.convert_columns(&values)?;
        let keys = BinaryArray::from_iter_values(rows.iter().map(|row| row.data()));
        Ok(ColumnarValue::Array(Arc::new(keys) as ArrayRef))
    }
}
